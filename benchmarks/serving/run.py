"""Compares infold with other model servers, each started alone, all asked the same.

    python benchmarks/serving/peers.py            # once: an environment for each peer
    python benchmarks/serving/run.py              # everything; raw figures in build/serving/results.json
    python benchmarks/serving/run.py --quick      # tiny network, nothing to install, under a minute
    python benchmarks/serving/run.py --network mobilenetv2 --body binary --server infold mosec

Each table is one network, one kind of body and one number of callers that ask again as soon as
they are answered. Every answer is compared with onnxruntime's own. A row is a server; figures are
medians over rounds, and what stands in brackets is the least and the most. The rounds go through
all servers in turn, so a busy minute bothers all alike.

- **answers/s** are the right ones. **of bare** beside it: as a share of the images/s of a bare
  onnxruntime loop in its best layout, timed just before and just after that server.
- **answers/CPU s**: for a CPU second of all the server's processes; **of bare** beside it: as a
  share of what the bare loop gets from a CPU second in that same layout. This is the figure to
  trust on a busy machine: who has to share a core is slower, but hardly does more work. Threads
  that spin while they wait count as work.
- **p50, p99**: from sending the request to having the answer, of right answers only.
- **MiB**: memory (PSS) of all processes under load. Shared pages are divided among all who map
  them, so other programs on the machine that use the same libraries make it look smaller.
  **ready s**: from the start of the process to the first answer.
- **others**: cores that neither the server nor the load generator used. Above 0.1, compare
  answers per CPU second only, and read no target that is about time.

Bodies called JPEG are one photograph of 640x480, which every server decodes, resizes, crops and
normalizes as torchvision's users do before it runs the network; all of them do it with Pillow. The
bare loop beside them runs on tensors that are ready, so a share tells what a picture costs on top,
and cannot come near 1.

The load generator runs on the same cores, and takes 0.02 to 0.5 of one. On the tiny network the
bare loop batches 32 inputs in a run, so its shares say little; compare with the rows called bare
ASGI there: uvicorn without a framework, which is the most that Python over HTTP can reach.

The last table says which targets infold meets, and for those that are about answers a second,
what the same comparison is by CPU second. Specials that need a server to be asked in other ways,
like two models at once or more requests than it can answer, stand before it.

Exit code 1 if any answer was wrong, or if fewer than five servers ran (where all were asked for).
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import machine
from catalogue import CACHE, NETWORKS, WORK
from limit import Bare, bare
from load import compile_load
from measure import Running, ServerError
from questions import prepare
from results import Cell, Results, Round, Row
from specials import OPEN, PAIR, measure_specials
from tables import BODIES, tables

from servers import SERVERS, Server

LEAST_SERVERS = 5
WARMUP_S = 0.5
CELLS = tuple(
    Cell(network, body, concurrency)
    for network, many, bodies in (
        ("tiny", 32, ("binary", "json")),
        ("mobilenetv2", 8, ("binary", "json", "jpeg")),
        ("resnet50", 8, ("binary", "json")),
        ("resnet50_int8", 8, ("binary",)),
    )
    for body in bodies
    for concurrency in (1, many)
)
QUICK = (Cell("tiny", "json", 1), Cell("tiny", "json", 32))


def chosen_cells(options: argparse.Namespace) -> list[Cell]:
    """Those of the options; any number of callers may be asked for."""
    cells = list(QUICK if options.quick else CELLS)
    if options.concurrency:
        pairs = dict.fromkeys((cell.network, cell.body) for cell in cells)
        cells = [Cell(*pair, concurrency) for pair in pairs for concurrency in options.concurrency]
    return [
        cell
        for cell in cells
        if (not options.network or cell.network in options.network)
        and (not options.body or cell.body in options.body)
    ]


def chosen_servers(options: argparse.Namespace) -> list[Server]:
    """Those of the options."""
    if options.server:
        return [each for each in SERVERS if each.name in options.server]
    return [each for each in SERVERS if each.is_quick or not options.quick]


def measure_cells(
    results: Results, cells: Sequence[Cell], servers: Sequence[Server], options: argparse.Namespace
) -> None:
    """All rounds; cells of one network and body share the start of a server."""
    for (network, body), group in groupby(cells, key=lambda cell: (cell.network, cell.body)):
        same = list(group)
        asked = [each for each in servers if body in each.wires]
        rows = [
            [Row(cell, each.name, each.environment.version(), each.note) for cell in same] for each in asked
        ]
        # In the table a cell's rows stand together.
        results.rows += [row for of_cell in zip(*rows, strict=True) for row in of_cell]
        times = results.bare.setdefault(network, [])
        for number in range(options.rounds):
            times.append(bare(network, options.bare_seconds))
            for server, mine in zip(asked, rows, strict=True):
                told = f"{network}, {body}, round {number + 1}/{options.rounds}: {server.name}"
                print(told, file=sys.stderr, flush=True)
                one_round(server, mine, times, options)


def one_round(server: Server, rows: Sequence[Row], times: list[Bare], options: argparse.Namespace) -> None:
    """One start of a server, and its spell in each of the rows; the bare loop after it."""
    if reason := server.environment.missing():
        for row in rows:
            row.reason = reason
        return
    network, body, _ = rows[0].cell
    try:
        with Running(server, [network], body) as running:
            spells = [
                running.measure(network, row.cell.concurrency, options.seconds, WARMUP_S) for row in rows
            ]
    except ServerError as error:
        for row in rows:
            row.reason, row.wrong_at_start = str(error), row.wrong_at_start + error.wrong
        return
    times.append(bare(network, options.bare_seconds))
    for row, measured in zip(rows, spells, strict=True):
        row.rounds.append(Round.of(measured, times[-2], times[-1], running.ready_s))


def main() -> None:
    names = [each.name for each in SERVERS]
    parser = argparse.ArgumentParser(description="Compare infold with other model servers.")
    parser.add_argument("--network", nargs="*", choices=list(NETWORKS), metavar="NAME")
    parser.add_argument("--server", nargs="*", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--body", nargs="*", choices=list(BODIES), metavar="KIND", help=", ".join(BODIES))
    parser.add_argument("--concurrency", nargs="*", type=int, metavar="N", help="callers at once")
    parser.add_argument("--rounds", type=int, default=None, help="default: 3, with --quick 2")
    parser.add_argument(
        "--seconds", type=float, default=None, help="of one spell; default: 3, with --quick 1"
    )
    parser.add_argument(
        "--bare-seconds", type=float, default=None, help="of one layout; default: 1, with --quick 0.3"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny network; infold, the floor and plain FastAPI"
    )
    parser.add_argument("--no-specials", action="store_true", help="the tables only")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    options = parser.parse_args()
    for name, full, quick in (("rounds", 3, 2), ("seconds", 3.0, 1.0), ("bare_seconds", 1.0, 0.3)):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else full)
    is_whole = not (options.quick or options.server)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    machine.adopt_orphans()
    compile_load()
    cells, servers = chosen_cells(options), chosen_servers(options)
    with_specials = not (options.quick or options.no_specials)
    wanted = {cell.network for cell in cells} | ({*PAIR, OPEN} if with_specials else set())
    prepare(each for each in NETWORKS if each in wanted and each in (options.network or NETWORKS))
    shutil.rmtree(CACHE, ignore_errors=True)  # a plan is as good as the minute in which it was measured
    results = Results()
    try:
        measure_cells(results, cells, servers, options)
        if with_specials:
            own = [each for each in servers if each.name in ("infold", "plain")]
            measure_specials(results, own, options.seconds, options.network)
    finally:
        text = tables(results, is_whole=is_whole)
        (WORK / "results.json").write_text(json.dumps(asdict(results), indent=1))
        (WORK / "results.md").write_text(text)
        if options.markdown:
            options.markdown.write_text(text)
        print(text)
    if wrong := results.wrong():
        sys.exit(f"{wrong} answers were wrong")
    ran = {row.server.split(",")[0] for row in results.rows if row.rounds} - {"bare ASGI"}
    if is_whole and len(ran) < LEAST_SERVERS:
        sys.exit(f"only {len(ran)} servers ran, not {LEAST_SERVERS}: {', '.join(sorted(ran))}")


if __name__ == "__main__":
    main()
