"""The time of day is for people to read: nothing that waits, expires or is measured may depend on it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[1] / "service/infold"

# Where the time of day may be asked for, and what for.
ALLOWED = {
    "cli/key.py": "which keys are over by now, as people read it",
    "logs.py": "what a line of the log begins with",
    "rest/access/keyring.py": "on which day a key expires",
    "rest/access/watched.py": "how long ago a file was written, beside what its file system says",
    "rest/metrics.py": "when a run ended last, as the statistics tell it",
    "rest/spans.py": "when a span began, as OpenTelemetry wants it",
    "rest/tracing.py": "likewise",
    "runtime/digests.py": "how long ago a file was written, beside what its file system says",
    "runtime/prepared.py": "how long ago an entry of the cache was used, likewise",
    "serving/telling.py": "whether another process failed while this one waited; at worst both try",
    "serving/trial.py": "likewise",
}
# Read with an argument these only write a time down.
READS = {"time.time", "time.time_ns", "time.gmtime", "time.localtime", "time.ctime", "time.asctime"}
METHODS = {"now", "utcnow", "today"}
FLOORS = ["serving", "rest", "runtime", "cli", "logs.py", "settings.py", "tensors.py"]


def names_of(tree: ast.AST) -> dict[str, str]:
    """What imported names stand for."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            found |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return found


def wall_clocks(source: str) -> list[str]:
    """Where a source asks for the time of day."""
    tree = ast.parse(source)
    names = names_of(tree)
    with_arguments = {
        id(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and (node.args or node.keywords)
    }
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute | ast.Name):
            continue
        head, *rest = ast.unparse(node).split(".")
        whole = ".".join([names.get(head, head), *rest])
        is_date = whole.startswith("datetime.") and whole.rpartition(".")[2] in METHODS
        if is_date or (whole in READS and id(node) not in with_arguments):
            found.append(f"line {node.lineno}: {whole}")
    return found


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import time\ntime.time()", 1),
        ("import time as t\nt.time_ns()", 1),
        ("from time import time\ntime()", 1),
        ("from time import time as now\nclock = now", 1),
        ("import time\nclock = time.time", 1),
        ("import datetime\ndatetime.datetime.now(datetime.UTC)", 1),
        ("from datetime import datetime\ndatetime.utcnow()", 1),
        ("from datetime import date\ndate.today()", 1),
        ("import time\ntime.gmtime()", 1),
        ("import time\ntime.gmtime(3)\ntime.monotonic()\ntime.perf_counter()", 0),
        ("def now(): ...\nnow()\nx.time()", 0),
    ],
)
def test_the_time_of_day_is_recognized(source: str, count: int) -> None:
    """However it is imported, and also where it is only handed on."""
    assert len(wall_clocks(source)) == count


def test_only_what_people_read_asks_for_the_time_of_day() -> None:
    """Every file that does is in the list above, and no other is."""
    paths = [
        path
        for floor in FLOORS
        for path in ([SERVICE / floor] if "." in floor else (SERVICE / floor).rglob("*.py"))
    ]
    assert len(paths) > 50
    found = {str(path.relative_to(SERVICE)): wall_clocks(path.read_text()) for path in paths}
    assert sorted(name for name, places in found.items() if places) == sorted(ALLOWED), found
