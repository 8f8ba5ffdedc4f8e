"""From one node to 10^5 requests a second: simulated and calculated from service_times.json.

    python benchmarks/scale/simulate.py            # prints every figure of docs/scale.md
    python benchmarks/scale/simulate.py --write    # and puts them there, with the two plots

Half a minute, numpy and the standard library. Seeds are fixed, so the same service times give the same
page. What is simulated are infold's own `BatchQueue`, `Dispatcher` and `choose` with a number for a clock;
around them stand the event loop, the interpreter that one thread holds at a time, the cores, network cards
and threads of proxies.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "service"))
from bars import Bar, draw_bars
from capacity import RATE, need_of
from experiments import SHARES, steady
from sections import SECTIONS
from service_sections import parts_of
from service_times import ServiceTimes
from writing import figure

from cluster import Policy
from infold.bench.plot import Axis, Chart, Point, Series, draw

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "scale.md"
CALM_SHARES = (0.1, 0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate a fleet.")
    parser.add_argument("--write", action="store_true", help="into docs/")
    options = parser.parse_args()
    times = ServiceTimes.read()
    texts = {name: section(times) for name, section in SECTIONS.items()}
    if options.write:
        PAGE.write_text(filled(PAGE.read_text(), texts))
        for name, text in plots(times).items():
            (DOCS / name).write_text(text)
    print("\n\n".join(texts.values()))


def filled(page: str, texts: Mapping[str, str]) -> str:
    """The page with each text between its two marks."""
    for name, text in texts.items():
        start, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        if page.count(start) != 1 or page.count(end) != 1:
            sys.exit(f"{PAGE.name}: there must be one place for {name}")
        before, _, rest = page.partition(start)
        page = before + start + text + end + rest.partition(end)[2]
    return page


def plots(times: ServiceTimes) -> dict[str, str]:
    """The pictures by the names of their files."""
    return {"scale-latency.svg": latency_plot(times), "scale-cores.svg": cores_plot(times)}


def latency_plot(times: ServiceTimes) -> str:
    """p99 of MobileNetV2 on bytes under each policy."""
    body = times.cases["c"]
    series = []
    for number, policy in enumerate(Policy):
        outcomes = {share: steady(body, times, share, policy) for share in (*CALM_SHARES, *SHARES)}
        points = [
            Point(
                100 * share,
                each.quantile_ms(0.99),
                f"{policy}, {share:.0%}: {figure(each.quantile_ms(0.99))} ms",
            )
            for share, each in outcomes.items()
        ]
        series.append(Series(policy.value, points, number))
    calm = [
        Point(100 * share, steady(body, times, share).quantile_ms(0.5)) for share in (*CALM_SHARES, *SHARES)
    ]
    series.append(Series("p50, power of two choices", calm, 0, is_dashed=True))
    title = f"{body.name}: p99 by how requests find a replica (simulated)"
    return draw(Chart(title, Axis("capacity in use, %"), Axis("p99, ms", is_log=True), series))


def cores_plot(times: ServiceTimes) -> str:
    """What cores are busy with."""
    bars = []
    for letter, body in times.cases.items():
        need = need_of(body, times)
        cores = need.cores + need.proxy_cores
        note = f"{cores:,.0f} cores, {need.gigabits:,.0f} Gbit/s"
        bars.append(Bar(f"({letter}) {body.name}", parts_of(body, times), note))
    names = ("proxy", "event loop", "reading JSON", "preparing pictures", "running the network")
    return draw_bars(f"What the cores do at {RATE:,.0f} requests/s (calculated)", names, bars)


if __name__ == "__main__":
    main()
