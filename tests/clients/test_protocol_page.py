"""docs/protocol.md says of each part of the protocol what its tests say, and leaves none of them out."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from servers import ROOT

TESTS = ROOT / "tests"
PAGE = (ROOT / "docs/protocol.md").read_text()
ROWS = re.findall(r"^\| (.+?) \| ([a-z ]+) \| (`[^|]+`) \|$", PAGE, re.MULTILINE)
STATUSES = {"served", "refused", "not yet"}


@cache
def named_in(path: Path) -> dict[str, bool]:
    """Names of a file's tests, and whether each is expected to fail."""
    found = [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    return {
        node.name: any("mark.xfail" in ast.unparse(mark) for mark in node.decorator_list) for node in found
    }


def shown(cell: str) -> list[tuple[Path, str]]:
    """File and name of each test in a cell."""
    pairs = [each.split("::") for each in re.findall(r"`([^`]+)`", cell)]
    return [(TESTS / path, name) for path, name in pairs]


def test_every_line_of_the_tables_is_read() -> None:
    """One that is written otherwise would not be checked."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    heads = sum(line in ("| what | status | shown by |", "|---|---|---|") for line in lines)
    assert len(ROWS) == len(lines) - heads
    assert len(ROWS) > 50


@pytest.mark.parametrize(("what", "status", "cell"), ROWS, ids=[row[0][:50] for row in ROWS])
def test_a_row_names_tests_that_exist_and_their_outcome(what: str, status: str, cell: str) -> None:
    """`not yet` stands exactly where the tests are expected to fail."""
    assert status in STATUSES, what
    for path, name in shown(cell):
        assert path.is_file(), path
        assert name in named_in(path), name
        assert (status == "not yet") is named_in(path)[name], name


def test_every_test_with_a_client_is_in_a_row() -> None:
    """What is shown is told."""
    told = {pair for _, _, cell in ROWS for pair in shown(cell)}
    files = set((TESTS / "clients").glob("test_*.py")) - {TESTS / "clients" / Path(__file__).name}
    assert [(path.name, name) for path in files for name in named_in(path) if (path, name) not in told] == []
