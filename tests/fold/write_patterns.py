"""Writes docs/patterns.md from the table of patterns: `python tests/fold/write_patterns.py`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from fold.patterns import PATTERNS, Into, Kept, Pattern, build, operators

PAGE = Path(__file__).parents[2] / "docs" / "patterns.md"

HEAD = """# Patterns

What infold makes of each graph in its table of patterns. The page is written by
`tests/fold/write_patterns.py`; the tests fold every graph, compare decision and operators with
this page and the numbers with the unfolded graph.

{folds} of {all} graphs fold. The other {traps} are traps: folding there would give wrong numbers, lose an
output or break the model, and they are kept for the [reason](reasons.md) named (towards the producer;
towards the consumers). "no site" means that nothing in the graph is an affine per channel.
"""


def page() -> str:
    """The whole page."""
    traps = sum(pattern.is_trap for pattern in PATTERNS)
    parts = [HEAD.format(all=len(PATTERNS), folds=len(PATTERNS) - traps, traps=traps)]
    for section in dict.fromkeys(pattern.section for pattern in PATTERNS):
        rows = [row(pattern) for pattern in PATTERNS if pattern.section == section]
        head = [
            "| pattern | what becomes of it | into / why | operators before -> after |",
            "|---|---|---|---|",
        ]
        parts.append("\n".join([f"## {section}", "", *head, *rows]) + "\n")
    return "\n".join(parts)


def row(pattern: Pattern) -> str:
    """One line of a table."""
    before = operators(build(pattern))
    after = pattern.after or before
    outcomes = [f"{outcome(each)}: {why(each)}" for each in pattern.expected]
    if len(set(outcomes)) == 1:
        cells = [outcome(pattern.expected[0]), why(pattern.expected[0])]
        if len(outcomes) > 1:
            cells[0] += f" ({len(outcomes)})"
    elif outcomes:
        cells = [
            ", ".join(outcome(each) for each in pattern.expected),
            "; then ".join(map(why, pattern.expected)),
        ]
    else:
        cells = ["untouched", "no site"]
    change = listed(before) if after == before else f"{listed(before)} -> {listed(after)}"
    return f"| {pattern.name} | {cells[0]} | {cells[1]} | {change} |"


def outcome(each: Into | Kept) -> str:
    """One word."""
    return "folded" if isinstance(each, Into) else "kept"


def why(each: Into | Kept) -> str:
    """Where it went, or what stands in the way on each side."""
    if isinstance(each, Into):
        return f"{each.rule} {each.op}"
    return "; ".join(f"[{reason}](reasons.md#{reason})" for reason in each.reasons)


def listed(ops: tuple[str, ...]) -> str:
    """Operators in order of first appearance, with their counts."""
    return ", ".join(op if count == 1 else f"{count} {op}" for op, count in Counter(ops).items())


if __name__ == "__main__":
    PAGE.write_text(page())
