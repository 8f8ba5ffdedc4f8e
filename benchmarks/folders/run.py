"""Compares infold with other folders, each in a process of its own.

    python benchmarks/folders/peers.py     # once: an environment for each
    python benchmarks/folders/run.py       # a table; raw numbers in build/folders/*.csv

Small graphs tell which norms are folded and whether the answers are still right, two whole
networks what it costs. This process imports nothing big, so that what the kernel says of its
children is theirs. Rounds go through all folders in turn, so a busy machine bothers all alike;
the row that only loads and saves, and the spread, say how busy it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers import INFOLD, PEERS, ROOT, Peer

HERE = Path(__file__).parent
WORK = ROOT / "build" / "folders"
JUDGE = HERE / "judge.py"
NORMS = ("BatchNormalization",)
ELEMENTWISE = ("Mul", "Div", "Add", "Sub")
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What is left of a norm in a graph that OpenVINO has compiled (or in the branch of an If).
ENGINE_LAYERS = ("Eltwise", "Subgraph", "Math", "BatchNormInference", "Multiply", "Divide")
ENGINE_UNCOUNTED = ("Input", "Output", "Const", "Constant", "Parameter", "Result", "Reorder")
# What rounding explains, as a part of the largest output.
TOLERANCE = {False: 1e-4, True: 2e-2}
BASELINE = Peer("(load and save)", "load_and_save", INFOLD.environment)


@dataclass
class Child:
    """How a child process ended."""

    code: int
    wall_s: float
    cpu_s: float
    peak_mib: float
    facts: dict[str, Any]
    last_words: str

    @property
    def failure(self) -> str | None:
        """Why it counts as a crash; None if it does not."""
        if self.code == 0:
            return None
        if self.code < 0:
            return signal.Signals(-self.code).name
        return self.last_words


@dataclass
class Row:
    """One folder on one graph."""

    graph: str
    kind: str
    folder: str
    outcome: str  # ideal, left, wrong, lost, invalid, crash, kept, not run
    why: str = ""
    norms_left: int | None = None
    nodes: int | None = None
    error: float | None = None
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    fold_s: list[float] = field(default_factory=list)
    import_s: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)


def run(command: Sequence[str], environment: dict[str, str], timeout: float) -> Child:
    """Run a command to its end, or to the end of our patience."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, cwd=WORK)
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        timer.cancel()
        process.returncode = code = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        lines = out.read().decode(errors="replace").strip().splitlines()
        words = [line for line in err.read().decode(errors="replace").splitlines() if line.strip()]
    try:
        facts = json.loads(lines[-1]) if code == 0 else {}
    except (IndexError, json.JSONDecodeError):
        facts = {}
    if code and wall >= timeout:
        words = [f"still running after {timeout:.0f} s"]
    peak = facts.get("peak_kib", usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1)) / 1024
    cpu = usage.ru_utime + usage.ru_stime
    return Child(code, wall, cpu, peak, facts, (words[-1] if words else f"exit code {code}")[:200])


def environment(peer: Peer, service: Path) -> dict[str, str]:
    """The environment of a peer; infold comes from the checkout."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return kept | ({"PYTHONPATH": str(service)} if peer.driver == "infold" else {})


def left_over(counts: dict[str, int], ideal: list[str], *, is_engine: bool) -> tuple[int, int]:
    """Norms that are still computed, and nodes in all."""

    def tally(kinds: Sequence[str]) -> tuple[int, int]:
        return sum(counts.get(kind, 0) for kind in kinds), sum(ideal.count(kind) for kind in kinds)

    if is_engine:
        left, _ = tally(ENGINE_LAYERS)
        _, allowed = tally((*ELEMENTWISE, "DequantizeLinear", "Greater", "Clip", "Relu"))
        return max(0, left - allowed), sum(n for kind, n in counts.items() if kind not in ENGINE_UNCOUNTED)
    norms, norms_ideal = tally(NORMS)
    work, work_ideal = tally((*NORMS, *ELEMENTWISE, *LINEAR))
    nodes = sum(counts.values())
    # A lone norm may come back as a convolution of its own, a fold as more nodes than it saved.
    return max(norms - norms_ideal, work - work_ideal, nodes - len(ideal), 0), nodes


class Bench:
    """All folders on all graphs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.service, self.timeout, self.rounds = options.service.resolve(), options.timeout, options.rounds
        self.peers = [peer for peer in PEERS if not options.only or peer.name in options.only]
        self.graphs = WORK / "graphs"
        self.rows: list[Row] = []

    def prepare(self) -> list[dict[str, Any]]:
        """Make the graphs and the unfolded answers."""
        if INFOLD.missing():
            sys.exit(f"infold's environment: {INFOLD.missing()}")
        WORK.mkdir(parents=True, exist_ok=True)
        made = self._ours([str(HERE / "graphs.py"), str(self.graphs)])
        if made.code:
            sys.exit(f"graphs.py failed: {made.last_words}")
        graphs: list[dict[str, Any]] = json.loads((self.graphs / "index.json").read_text())
        for graph in graphs:
            answered = self._judge("reference", *self._files(graph["name"]))
            if answered.code:
                sys.exit(f"{graph['name']} does not run unfolded: {answered.last_words}")
            graph["oracle"] = answered.facts["oracle"]
        return graphs

    def patterns(self, graphs: Sequence[dict[str, Any]]) -> None:
        """Each small graph, once."""
        for number, graph in enumerate(graphs, 1):
            print(f"{number}/{len(graphs)} {graph['name']}", file=sys.stderr)
            for peer in self.peers:
                row = Row(graph["name"], graph["kind"], peer.name, "not run")
                self.rows.append(row)
                self._measure(peer, graph, row)
                self._verdict(peer, graph, row)

    def networks(self, graphs: Sequence[dict[str, Any]]) -> None:
        """The networks, in rounds; the answers are judged once."""
        for graph in graphs:
            rows = [
                (peer, Row(graph["name"], "network", peer.name, "not run"))
                for peer in (BASELINE, *self.peers)
            ]
            for number in range(self.rounds):
                print(f"{graph['name']}, round {number + 1}/{self.rounds}", file=sys.stderr)
                for peer, row in rows:
                    if row.outcome not in ("crash",):
                        self._measure(peer, graph, row)
            for peer, row in rows:
                self._verdict(peer, graph, row)
            self.rows += [row for _, row in rows]

    def _target(self, peer: Peer, graph: dict[str, Any]) -> Path:
        stem = f"{graph['name']}.{peer.driver}"
        return WORK / "folded" / (f"{stem}.xml" if peer.is_engine else f"{stem}.onnx")

    def _measure(self, peer: Peer, graph: dict[str, Any], row: Row) -> None:
        if reason := peer.missing():
            row.why = reason
            return
        target = self._target(peer, graph)
        target.parent.mkdir(exist_ok=True)
        target.unlink(missing_ok=True)
        source = self.graphs / f"{graph['name']}.onnx"
        child = run(peer.command(source, target), environment(peer, self.service), self.timeout)
        if child.failure or not target.exists():
            row.outcome, row.why = "crash", child.failure or "wrote nothing"
            return
        row.outcome = "ran"
        row.wall_s.append(child.wall_s)
        row.peak_mib.append(child.peak_mib)
        row.fold_s.append(child.facts["fold_s"])
        row.import_s.append(child.facts["import_s"])
        row.cpu_s.append(child.cpu_s)

    def _verdict(self, peer: Peer, graph: dict[str, Any], row: Row) -> None:
        if row.outcome != "ran":
            return
        target = self._target(peer, graph)
        _, inputs, answers = self._files(graph["name"])
        if peer.is_engine:
            values = target.with_suffix(".npz")
            command = [
                str(peer.python),
                str(HERE / "drivers.py"),
                "openvino_answers",
                f"{target}:{inputs}",
                str(values),
            ]
            answered = run(command, environment(peer, self.service), self.timeout)
            if answered.failure:
                row.outcome, row.why = "crash", f"at run: {answered.failure}"
                return
            if "lost" in answered.facts:
                row.outcome, row.why = "lost", f"no input {answered.facts['lost']}"
                return
            row.norms_left, row.nodes = left_over(answered.facts["counts"], graph["ideal"], is_engine=True)
            judged = self._judge("values", str(values), answers)
        else:
            judged = self._judge("compare", str(target), inputs, answers)
        if judged.failure:
            row.outcome, row.why = "invalid", f"at run: {judged.failure}"
            return
        facts = judged.facts
        if "counts" in facts:
            row.norms_left, row.nodes = left_over(facts["counts"], graph["ideal"], is_engine=False)
        row.error, row.why = facts["error"], facts["why"]
        if facts["verdict"] != "ran":
            row.outcome = facts["verdict"]
        elif facts["error"] > TOLERANCE[graph["half"]]:
            row.outcome = "wrong"
        elif graph["kind"] == "trap":
            row.outcome = "kept"
        else:
            row.outcome = "left" if row.norms_left else "ideal"

    def _files(self, name: str) -> tuple[str, str, str]:
        stem = str(self.graphs / name)
        return f"{stem}.onnx", f"{stem}.npz", f"{stem}.answers.npz"

    def _judge(self, *arguments: str) -> Child:
        return self._ours([str(JUDGE), *arguments])

    def _ours(self, arguments: Sequence[str]) -> Child:
        return run([str(INFOLD.python), *arguments], environment(BASELINE, self.service), 600)

    def tables(self) -> str:
        """Everything as markdown."""
        parts = [self._summary(), self._by_pattern()]
        for name in dict.fromkeys(row.graph for row in self.rows if row.kind == "network"):
            parts.append(self._network(name))
        return "\n\n".join(part for part in parts if part) + "\n"

    def _summary(self) -> str:
        small = [row for row in self.rows if row.kind != "network"]
        if not small:
            return ""
        folds = len({row.graph for row in small if row.kind == "foldable"})
        traps = len({row.graph for row in small if row.kind == "trap"})
        lines = [
            f"| folder | ideal, of {folds} | traps kept, of {traps} | wrong | lost or invalid | crashes |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for peer in self.peers:
            of = [row.outcome for row in small if row.folder == peer.name]
            if reason := peer.missing():
                lines.append(f"| {peer.name} | not run: {reason} | | | | |")
                continue
            counts = (of.count("ideal"), of.count("kept"), of.count("wrong"),
                      of.count("lost") + of.count("invalid"), of.count("crash"))  # fmt: skip
            named = peer.name if peer is INFOLD else f"{peer.name} ({peer.environment.version()})"
            lines.append(f"| {named} | " + " | ".join(map(str, counts)) + " |")
        return "\n".join(lines)

    def _by_pattern(self) -> str:
        small = [row for row in self.rows if row.kind != "network"]
        if not small:
            return ""
        lines = ["| graph | " + " | ".join(peer.name for peer in self.peers) + " |",
                 "|---|" + "---|" * len(self.peers)]  # fmt: skip
        for name, kind in dict.fromkeys((row.graph, row.kind) for row in small):
            cells = {row.folder: row for row in small if row.graph == name}
            words = [self._cell(cells[peer.name]) for peer in self.peers]
            lines.append(f"| {name}{' (trap)' if kind == 'trap' else ''} | " + " | ".join(words) + " |")
        return "\n".join(lines)

    @staticmethod
    def _cell(row: Row) -> str:
        if row.outcome == "left":
            return f"{row.norms_left} left"
        if row.outcome == "wrong" and row.error is not None:
            return f"**wrong** {'inf' if row.error > 1e29 else f'{row.error:.1g}'}"
        return row.outcome if row.outcome in ("ideal", "kept", "not run") else f"**{row.outcome}**"

    def _network(self, name: str) -> str:
        lines = [
            f"{name}: median of {self.rounds} (least to most)",
            "",
            "| folder | process, s | of infold's | CPU | fold | import | MiB | error | left | nodes |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        rows = [row for row in self.rows if row.graph == name]
        ours = next((row.wall_s for row in rows if row.folder == INFOLD.name), [])
        for row in rows:
            if not row.wall_s:
                lines.append(f"| {row.folder} | {row.outcome}: {row.why} |" + " |" * 9)
                continue
            wall, cpu, fold, imports, peak = (
                statistics.median(each)
                for each in (row.wall_s, row.cpu_s, row.fold_s, row.import_s, row.peak_mib)
            )
            # Round by round, so that a busy minute bothers both sides of the ratio.
            of_ours = statistics.median(a / b for a, b in zip(row.wall_s, ours, strict=False)) if ours else 0
            error = f"{row.error:.1e}" if row.error is not None else f"{row.outcome}: {row.why}"
            ends = f"({min(row.wall_s):.2f} to {max(row.wall_s):.2f})"
            figures = (f"{wall:.2f} {ends}", f"{of_ours:.2f}", f"{cpu:.2f}", f"{fold:.2f}", f"{imports:.2f}")
            cells = (row.folder, *figures, f"{peak:.0f}", error, row.norms_left, row.nodes)
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        return "\n".join(lines)

    def write_csv(self) -> None:
        """The raw numbers, a file for the small graphs and one for the networks."""
        for path, networks in ((WORK / "patterns.csv", False), (WORK / "networks.csv", True)):
            rows = [row for row in self.rows if (row.kind == "network") == networks]
            if not rows:
                continue
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(Row.__dataclass_fields__)
                for row in rows:
                    cells = (getattr(row, key) for key in Row.__dataclass_fields__)
                    writer.writerow(
                        " ".join(f"{each:.4f}" for each in cell) if isinstance(cell, list) else cell
                        for cell in cells
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare infold with other folders.")
    parser.add_argument("--only", nargs="*", help="names of folders; default: all")
    parser.add_argument("--graphs", nargs="*", help="names of graphs; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="rounds on the networks")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one fold")
    parser.add_argument("--service", type=Path, default=ROOT / "service", help="where infold's package lies")
    options = parser.parse_args()
    bench = Bench(options)
    graphs = [each for each in bench.prepare() if not options.graphs or each["name"] in options.graphs]
    bench.patterns([each for each in graphs if each["kind"] != "network"])
    bench.networks([each for each in graphs if each["kind"] == "network"])
    bench.write_csv()
    text = bench.tables()
    (WORK / "results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
