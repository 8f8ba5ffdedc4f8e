"""What can happen to bytes on their way."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["damaged"]


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with a part of them cut, doubled, changed or added; or as they were."""
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 9)))
    match draw(st.sampled_from(["cut", "lost", "doubled", "changed", "longer", "empty", "whole", "whole"])):
        case "cut":
            return data[:start]
        case "lost":
            return data[:start] + data[end:]
        case "doubled":
            return data[:end] + data[start:]
        case "changed":
            return data[:start] + draw(st.binary(max_size=5)) + data[end:]
        case "longer":
            return data + b"\0"
        case "empty":
            return b""
    return data
