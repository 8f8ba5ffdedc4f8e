"""Measures the service times that the simulation starts from, on the machine at hand.

    python benchmarks/scale/measure.py            # under four minutes; writes service_times.json

Everything is asked by the load generator of `benchmarks/serving` in a closed loop, in rounds that go
through all of it in turn. Of a request's CPU time we note what the event loop took (the main thread)
and what the other threads took. Beside it, in the same rounds, stand the baselines: bare onnxruntime,
run by run, and bare uvicorn with the same network and no framework. The median of the rounds is
written, and the least and the most beside it; the simulation takes the least.

If there is an HAProxy (HAPROXY, PATH, or `benchmarks/serving/peers.py ray`), it is measured in front of
infold; if that environment of Ray Serve is there, so is Ray Serve. What is missing is kept from the file
as it was, and the file says so. Last, infold is asked in an open loop, which the simulation is
held against.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))  # its modules, before the one of our name
import machine
from catalogue import NETWORKS
from hops import find_haproxy, haproxy_version, hop_times
from load import compile_load
from measure import Running
from peers import RAY
from questions import prepare

from servers import named

HERE = Path(__file__).parent
FILE = HERE / "service_times.json"
RUNS = HERE / "rows_of_runs.py"
CALLERS = {"tiny": 32, "mobilenetv2": 8, "resnet50": 8}
ROWS = {"tiny": (1, 2, 4, 8, 16, 32, 64), "mobilenetv2": (1, 2, 4, 8), "resnet50": (1, 2)}
BODIES = {
    "json": ("tiny", "mobilenetv2", "resnet50"),
    "binary": ("tiny", "mobilenetv2", "resnet50"),
    "jpeg": ("mobilenetv2",),
}
OPEN, SHARES, CONNECTIONS = (("tiny", "json"), ("mobilenetv2", "binary")), (0.5, 0.8), 64
WARMUP_S = 0.3
LOOP, OTHERS, ANSWERS = "loop_s", "threads_s", "answers_per_s"
Samples = dict[tuple[str, ...], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure service times.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.2, help="of one spell")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    machine.adopt_orphans()
    compile_load()
    prepare(CALLERS)
    before = json.loads(FILE.read_text()) if FILE.exists() else {}
    samples: Samples = {}
    for number in range(options.rounds):
        print(f"round {number + 1}/{options.rounds}", file=sys.stderr, flush=True)
        one_round(samples, options.seconds)
    told: dict[str, Any] = {"measured": circumstances(samples, options.rounds)}
    told["runs"] = {name: runs_of(samples, name) for name in CALLERS}
    told["bodies"] = [body_of(samples, network, kind) for kind, some in BODIES.items() for network in some]
    told["floor"] = {kind: figures(samples["floor", kind]) for kind in ("json", "binary")}
    told["proxy"] = proxy_of(samples) or before.get("proxy")
    told["ray"] = ray_hop(options.seconds) or before.get("ray")
    told["kept"] = [
        each for each, new in (("proxy", proxy_of(samples)), ("ray", not RAY.missing())) if not new
    ]
    told["open_loop"] = [each for kind in OPEN for each in open_loops(*kind, options)]
    FILE.write_text(json.dumps(told, indent=1) + "\n")
    print(f"wrote {FILE.name}", file=sys.stderr)


def one_round(samples: Samples, seconds: float) -> None:
    """Every spell once."""
    for network in CALLERS:
        command = [sys.executable, str(RUNS), str(NETWORKS[network].file), "--rows", *map(str, ROWS[network])]
        command += ["--shape", ",".join(map(str, NETWORKS[network].shape))]
        told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for rows, took in told["narrow_s"].items():
            keep(samples, took, "run", network, rows)
        keep(samples, told["wide_s"] or told["narrow_s"]["1"], "run", network, "wide")
    for kind, some in BODIES.items():
        with Running(named("infold"), some, kind) as running:
            for network in some:
                infold_spell(samples, running, network, kind, seconds)
            if kind == "binary" and (program := find_haproxy()):
                asked = {each: CALLERS[each] for each in ("tiny", "mobilenetv2")}
                for network, cpu_s in hop_times(program, running, asked, seconds, WARMUP_S):
                    keep(samples, cpu_s, "proxy", network)
    for kind in ("json", "binary"):
        with Running(named("bare ASGI"), ["tiny"], kind) as running:
            measured = running.measure("tiny", CALLERS["tiny"], seconds, WARMUP_S)
            keep(samples, 1 / measured.answers_per_cpu_s, "floor", kind)


def infold_spell(samples: Samples, running: Running, network: str, kind: str, seconds: float) -> None:
    """A closed loop, and which threads its CPU seconds were of."""
    (process,) = running.processes()
    loop, whole = thread_cpu_s(process), machine.cpu_seconds([process])
    measured = running.measure(network, CALLERS[network], seconds, WARMUP_S)
    if measured.load.wrong or measured.load.errors:
        sys.exit(f"{network}, {kind}: {measured.load.wrong} wrong answers, {measured.load.errors} errors")
    answers = max(measured.load.all_answers, 1)
    loop, whole = thread_cpu_s(process) - loop, machine.cpu_seconds([process]) - whole
    keep(samples, loop / answers, network, kind, LOOP)
    keep(samples, max(0.0, whole - loop) / answers, network, kind, OTHERS)
    keep(samples, measured.load.answers_per_s, network, kind, ANSWERS)
    keep(samples, measured.usage.others_cores, "others")


def keep(samples: Samples, value: float, *key: str) -> None:
    """One more sample."""
    samples.setdefault(key, []).append(value)


def thread_cpu_s(process: int) -> float:
    """CPU seconds of a process's main thread."""
    fields = Path(f"/proc/{process}/task/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / machine.TICKS


def figures(values: Iterable[float]) -> dict[str, float]:
    """Median, least and most, to four digits."""
    some = list(values)
    return {
        name: float(f"{of(some):.4g}")
        for name, of in (("median", statistics.median), ("least", min), ("most", max))
    }


def runs_of(samples: Samples, network: str) -> dict[str, Any]:
    """Seconds of bare runs by rows: the least of all rounds."""
    by_rows = {
        key[2]: float(f"{min(values):.4g}") for key, values in samples.items() if key[:2] == ("run", network)
    }
    return {"wide_s": by_rows.pop("wide"), "narrow_s": by_rows}


def body_of(samples: Samples, network: str, kind: str) -> dict[str, Any]:
    """What a request with this body takes, and how long it is."""
    with_wire = named("infold").wires[kind]
    folder = Path(__file__).parents[2] / "build" / "serving" / "bodies"
    length = (folder / f"{network}.{with_wire.wrapping}.body").stat().st_size
    return {
        "network": network,
        "kind": kind,
        "request_bytes": length,
        **{name: figures(samples[network, kind, name]) for name in (LOOP, OTHERS, ANSWERS)},
    }


def proxy_of(samples: Samples) -> dict[str, Any] | None:
    """What HAProxy takes for a request of each length; None if there was none."""
    if ("proxy", "tiny") not in samples:
        return None
    program = find_haproxy()
    assert program is not None
    return {
        "name": f"HAProxy {haproxy_version(program)}",
        **{network: figures(samples["proxy", network]) for network in ("tiny", "mobilenetv2")},
    }


def ray_hop(seconds: float) -> dict[str, Any] | None:
    """All of Ray Serve with a bare app in it, on the tiny network as JSON; None if it is not there."""
    if RAY.missing():
        return None
    with Running(named("Ray Serve"), ["tiny"], "json") as running:
        spells = [running.measure("tiny", CALLERS["tiny"], seconds, WARMUP_S) for _ in range(3)]
    version = RAY.version()
    return {"name": f"Ray Serve {version}", "cpu_s": figures(1 / each.answers_per_cpu_s for each in spells)}


def open_loops(network: str, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Poisson arrivals at shares of what a closed loop reached just before; of several, the quietest."""
    told: dict[float, list[dict[str, Any]]] = {}
    with Running(named("infold"), [network], kind) as running:
        for _ in range(options.rounds):
            peak = running.measure(network, CALLERS[network], options.seconds, WARMUP_S).load.answers_per_s
            for share in SHARES:
                rate = round(share * peak, 1)
                done = running.measure(network, CONNECTIONS, 2 * options.seconds, WARMUP_S, rate)
                load, others = done.load, round(done.usage.others_cores, 2)
                told.setdefault(share, []).append(
                    {"network": network, "kind": kind, "share": share, "rate": rate}
                    | {"p50_ms": load.p50_ms, "p99_ms": load.p99_ms, "others_cores": others}
                )
    return [min(some, key=lambda each: each["others_cores"]) for some in told.values()]


def circumstances(samples: Samples, rounds: int) -> dict[str, Any]:
    """When, on what, and how quiet it was."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")),
        platform.machine(),
    )  # fmt: skip
    return {
        "on": date.fromtimestamp(time.time()).isoformat(),
        "machine": f"{machine.CORES} cores, {model}",
        "python": platform.python_version(),
        "rounds": rounds,
        "others_cores": figures(samples["others",]),
        "load_average": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
