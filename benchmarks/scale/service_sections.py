"""The figures of docs/scale.md on one request: what it takes, whether that is believable, and 10^5 of it."""

from __future__ import annotations

from capacity import NODE, RATE, Need, need_of
from experiments import Compared, open_loops, real_rates, textbook
from service_times import Body, ServiceTimes
from writing import bullet, figure, paragraph, table

__all__ = ["capacity", "measured", "parts_of", "reality", "theory"]

CALLERS = {"tiny": 32, "mobilenetv2": 8, "resnet50": 8}
CORES = 2  # of the machine that was measured
NOISY_CORES = 0.1


def measured(times: ServiceTimes) -> str:
    """What the service times are, and of what."""
    told = times.told["measured"]
    least, most, usual = (told["others_cores"][each] for each in ("least", "most", "median"))
    words = paragraph(
        f"Measured on {told['on']} on {told['machine']}, Python {told['python']}: the least of",
        f"{told['rounds']} rounds, in CPU milliseconds. Other programs took {figure(least)} to",
        f"{figure(most)}",
        f"cores meanwhile{': the machine was noisy' if usual > NOISY_CORES else ''}.",
    )
    rows = []
    for body in times.bodies.values():
        parts = (body.loop_s, body.locked_s, body.free_s, body.cpu_s)
        rows.append([body.name, f"{body.request_bytes:,}", *(figure(1e3 * each) for each in parts)])
    heads = ("a request of", "bytes", "event loop", "reading JSON", "runner", "in all")
    return "\n\n".join([words, table(heads, rows), "\n".join(_beside(times))])


def _beside(times: ServiceTimes) -> list[str]:
    told = times.told
    bare = {name: f"{1e3 * runs['narrow_s']['1']:.3g}" for name, runs in told["runs"].items()}
    floor = told["floor"]["json"]["least"]
    lines = [
        bullet(
            "Baselines of the same rounds: a run of bare onnxruntime on one thread takes",
            f"{bare['tiny']} ms for the MLP, {bare['mobilenetv2']} for MobileNetV2 and",
            f"{bare['resnet50']} for",
            "ResNet-50; uvicorn with the MLP, but no framework, no checks and no metrics, takes",
            f"{1e3 * floor:.3g} ms for its JSON.",
        )
    ]
    if proxy := told["proxy"]:
        short, long = (times.bodies["mobilenetv2", kind].request_bytes for kind in ("binary", "json"))
        lines.append(
            bullet(
                f"{proxy['name']} in front of infold: {1e3 * proxy['tiny']['least']:.3g} ms for a",
                "short request,",
                f"{1e3 * proxy['mobilenetv2']['least']:.3g} ms for {short:,} bytes; by the line",
                "through these two",
                f"{1e3 * times.proxy_s(long):.3g} ms for {long:,}.",
            )
        )
    if ray := told["ray"]:
        whole, own = ray["cpu_s"]["least"], times.bodies["tiny", "json"].cpu_s
        lines.append(
            bullet(
                f"{ray['name']} with a bare app in it: {1e3 * whole:.3g} ms for the MLP's JSON,",
                f"{1e3 * (whole - floor):.3g} more than uvicorn, and {(whole - floor) / own:.2g}",
                "times all that",
                "infold does for such a request. Our own ingress was not measured.",
            )
        )
    if kept := told["kept"]:
        lines.append(bullet(f"Kept from an earlier run, since not there in the last: {', '.join(kept)}."))
    return lines


def theory(times: ServiceTimes) -> str:
    """Queues that are solved on paper."""
    del times
    rows = [
        [each.name, figure(each.expected), figure(each.simulated), f"{each.ratio:.2f}"] for each in textbook()
    ]
    return table(("mean wait in service times", "on paper", "simulated", "ratio"), rows)


def reality(times: ServiceTimes) -> str:
    """What infold itself did on the machine."""
    rows = []
    for body, rate in real_rates(times, CORES, CALLERS):
        rows.append(_compared(f"{rate.name}, {CALLERS[body.network]} callers", "answers/s", rate))
    for median, high in open_loops(times, CORES):
        rows += [_compared(median.name, "p50, ms", median), _compared(high.name, "p99, ms", high)]
    heads = (f"infold on {CORES} cores", "figure", "measured", "simulated", "simulated / measured")
    return table(heads, rows)


def _compared(name: str, what: str, each: Compared) -> list[str]:
    return [name, what, figure(each.expected), figure(each.simulated), f"{each.ratio:.2f}"]


def capacity(times: ServiceTimes) -> str:
    """What RATE requests a second take."""
    assumed = paragraph(
        f"Assumed: nodes of {NODE.cores} cores as fast as the measured ones, each with a network card of",
        f"{NODE.gigabits:g} Gbit/s each way; cores {NODE.busy_cores:.0%} and cards {NODE.busy_card:.0%} busy",
        "at most; proxies on nodes of their own.",
    )
    needs = {letter: need_of(body, times) for letter, body in times.cases.items()}
    rows = [_needed(f"({letter}) {times.cases[letter].name}", need) for letter, need in needs.items()]
    heads = [f"{RATE:,.0f} requests/s", "cores busy", "Gbit/s in", "nodes", "by cores", "by network"]
    heads += ["processes", "proxy cores busy", "proxy nodes", "a node ends at", "by"]
    return "\n\n".join([assumed, table(heads, rows), "\n".join(_bottlenecks(times))])


def _needed(name: str, need: Need) -> list[str]:
    return [
        name,
        figure(need.cores),
        figure(need.gigabits),
        f"**{need.nodes:,}**",
        f"{need.nodes_by_cores:,}",
        f"{need.nodes_by_card:,}",
        f"{need.processes:,}",
        figure(need.proxy_cores),
        f"{need.proxy_nodes:,}",
        f"{min(need.most_per_node.values()):,.0f}/s",
        need.first,
    ]


def _bottlenecks(times: ServiceTimes) -> list[str]:
    a, b, c, d, e = times.cases.values()
    short, long = times.proxy_s(a.request_bytes), times.proxy_s(b.request_bytes)
    full = [f"{NODE.bytes_per_s / each.request_bytes:,.0f}/s" for each in (b, c, d)]
    lines = [
        bullet(
            f"**Proxy.** For (a) it takes {short / a.cpu_s:.0%} of what infold itself takes; one",
            "thread of it is",
            f"full at {1 / short:,.0f}/s, one process of infold at {a.capacity:,.0f}/s. For (b)",
            "one thread is",
            f"full at {1 / long:,.0f}/s: there bodies fill it, not requests.",
        ),
        bullet(
            f"**JSON.** Reading it is {b.locked_s / b.cpu_s:.0%} of the CPU time of (b), and a",
            "process reads one",
            f"body at a time: however many cores it has, it ends at {1 / b.interpreter_s:,.0f}/s.",
            "Processes of",
            "one core (`--workers`) do not have that limit. Sent as bytes the same takes",
            f"{c.cpu_s / b.cpu_s:.0%}",
            f"of the cores and {c.request_bytes / b.request_bytes:.0%} of the network.",
        ),
        bullet(
            f"**Network.** A card is full at {full[0]} of (b), {full[1]} of (c), {full[2]} of",
            "(d). Pictures take",
            f"{d.cpu_s / c.cpu_s:.2g} times the CPU time of ready bytes and",
            f"{d.request_bytes / c.request_bytes:.0%}",
            "of their network. Every body passes the card of a proxy too: a second network of that size.",
        ),
    ]
    if ray := times.told["ray"]:
        hop = ray["cpu_s"]["least"] - times.told["floor"]["json"]["least"]
        lines.append(
            bullet(
                f"**Ray's hop.** It would keep {figure(RATE * hop)} cores busy for (a), where infold takes",
                f"{figure(RATE * a.cpu_s)}. Beside a run of (e) it is {hop / e.cpu_s:.1%}.",
            )
        )
    return lines


def parts_of(body: Body, times: ServiceTimes) -> list[float]:
    """Seconds of proxy, event loop, reading JSON, preparing pictures, running the network."""
    proxy = times.proxy_s(body.request_bytes)
    if body.is_inline:
        run = body.narrow_s[1]
        return [proxy, body.loop_s - run, 0.0, 0.0, run]
    as_bytes = times.bodies[body.network, "binary"]
    picture = max(0.0, body.free_s - as_bytes.free_s) if body.kind == "jpeg" else 0.0
    return [proxy, body.loop_s, body.locked_s, picture, body.free_s - picture]
