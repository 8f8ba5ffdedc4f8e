"""Figures, tables and paragraphs of the page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

__all__ = ["bullet", "figure", "paragraph", "table"]

WIDTH = 116


def figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; all but the first column to the right."""
    ruler = "|---|" + "---:|" * (len(heads) - 1)
    return "\n".join([_row(heads), ruler, *map(_row, rows)])


def paragraph(*sentences: str) -> str:
    """Sentences, broken into lines."""
    return _broken(" ".join(sentences))


def bullet(*sentences: str) -> str:
    """The same as one entry of a list."""
    return _broken("- " + " ".join(sentences), "  ")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _broken(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
