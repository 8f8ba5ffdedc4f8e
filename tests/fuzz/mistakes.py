"""One thing wrong with a request that is right: the binary extension's own list of mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from fuzz.asking import Request, json_length
from fuzz.drafts import OUTPUTS, Draft, drafts
from fuzz.models import ECHOES

__all__ = ["MISTAKES", "Mistake", "mistaken"]

# Draws from what is right and makes one thing of it wrong; True where it must be refused.
Mistake = Callable[[st.DrawFn, Draft], tuple[Draft, bool]]


def _header_is_off(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    length = len(draft.text) + draw(st.sampled_from([-len(draft.text) // 2, -2, -1, 1, 2, 7, 10**6]))
    return replace(draft, length=b"%d" % max(1, length)), True


def _header_is_no_number(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    odd = [
        b"-1",
        b"x",
        b"1e3",
        b"0x10",
        b"1 2",
        b"+5",
        b"1_0",
        b"9" * 18,
        b"9" * 19,
        b"9" * 400,
        b"2147483648",
    ]
    odd += [b"18446744073709551616", b"-9223372036854775808", b"\xb2", b"\xd9\xa1", b"1.0", b"NaN", b"1,1"]
    return replace(draft, length=draw(st.sampled_from(odd))), True


def _header_is_empty_or_missing(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    return replace(draft, length=draw(st.sampled_from([b"", b" ", b"0"]))), False


def _header_comes_twice(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    return replace(draft, headers=(json_length(draw(st.integers(0, 10**6))),)), False


def _size_lies(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    true = len(draft.blobs[0])
    odd: list[Any] = [true - 1, true + 1, true * 2 + 1, -1, -true - 1, 2**31, 2**63, 2**64, 10**40]
    odd += [float(true), str(true), None, True, [true], {"size": true}, 0.5]
    size = draw(st.sampled_from(odd))
    return _entry_with(draft, parameters={"binary_data_size": size}), True


def _truncated(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    last = draft.blobs[-1]
    if not last:
        return replace(draft, tail=b"\0"), True
    return replace(draft, blobs=(*draft.blobs[:-1], last[: draw(st.integers(0, len(last) - 1))])), True


def _trailing_bytes(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    return replace(draft, tail=draw(st.binary(min_size=1, max_size=9))), True


def _string_length_lies(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    length = draw(st.sampled_from([0, 1, 5, 2**31 - 1, 2**31, 2**32 - 1]))
    blob = length.to_bytes(4, "little") + draw(st.binary(max_size=12))
    content = {
        "inputs": [
            {"name": "x", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
        ]
    }
    return Draft("echo_string", {}, content, (blob,)), length != len(blob) - 4


def _shape_is_impossible(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    odd: list[Any] = [-1, -(2**63), 2**31, 2**32, 2**62, 2**63, 2**64, 10**40, 1.0, "1", None, True, [], {}]
    rank = len(draft.content["inputs"][0]["shape"])
    shape: Any = [1] * rank
    if rank:
        shape[draw(st.integers(0, rank - 1))] = draw(st.sampled_from(odd))
    return _entry_with(draft, shape=shape), True


def _shape_is_another(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    shapes: list[Any] = [[], [0], [1], [2, 2], [2**31, 2**32], [2**16, 2**16, 0], [0, 2**62], [10**4000] * 2]
    shapes += [[1] * 32, [1] * 33, [10**4000] * 32]
    shapes += [[-1, -2], None, 3, "1", {}, [[1], [2]], [1, 2, 3, 4]]
    return _entry_with(draft, shape=draw(st.sampled_from(shapes))), False


def _datatype_is_another(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    own = draft.content["inputs"][0]["datatype"]
    others = [
        name for name in (*set(ECHOES.values()), "BF16", "FP8", "STRING", "fp32", "", None, 7) if name != own
    ]
    return _entry_with(draft, datatype=draw(st.sampled_from(sorted(others, key=str)))), True


def _input_comes_twice(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    del draw
    first = draft.content["inputs"][0]
    return _content_with(draft, inputs=[first, *draft.content["inputs"]]), True


def _output_comes_twice(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    name = OUTPUTS.get(draft.model, ["y"])[0]
    return _content_with(draft, outputs=[{"name": name}] * draw(st.sampled_from([2, 65, 1000]))), True


def _half_precision_has_odd_bytes(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    del draft
    datatype = draw(st.sampled_from(["FP16", "BF16", "INT16"]))
    blob = draw(st.binary(min_size=3, max_size=3))
    entry = {"name": "x", "shape": [1, 2], "datatype": datatype, "parameters": {"binary_data_size": 3}}
    model = {"FP16": "echo_float16", "BF16": "echo_float16", "INT16": "echo_int16"}[datatype]
    return Draft(model, {}, {"inputs": [entry]}, (blob,)), True


def _bool_is_two(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    del draft
    blob = draw(st.binary(min_size=3, max_size=3).filter(lambda raw: max(raw) > 1))
    entry = {"name": "x", "shape": [1, 3], "datatype": "BOOL", "parameters": {"binary_data_size": 3}}
    return Draft("echo_bool", {}, {"inputs": [entry]}, (blob,)), True


def _data_and_bytes(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    data = draw(st.sampled_from([[], [1], None, "x"]))
    return _entry_with(draft, data=data), data is not None  # null is how some clients leave it out


ODD_PARAMETERS: list[Any] = [[], 1, "x", True, {"a": None}, {"": {"": []}}, {"triton_enable": True}]
ODD_PARAMETERS += [{"binary_data_output": each} for each in (1, "true", None)]
ODD_PARAMETERS += [{"timeout": each} for each in (0, 1, -1, 1.5, "x", 2**53, 10**30, True)]
ODD_PARAMETERS += [{"priority": each} for each in (0, 1, -1, 2**64, "x")]
ODD_PARAMETERS += [
    {"sequence_id": 1},
    {"sequence_start": True},
    {"shared_memory_region": "x"},
    {"a" * 5000: 1},
]
ODD_WISHES: list[Any] = [*ODD_PARAMETERS, *({"binary_data": each} for each in (1, "x", None))]
ODD_WISHES += [{"classification": each} for each in (0, 1, 3, -1, 2**40, "2", True, 1.5)]


def _parameters_are_odd(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    if draw(st.booleans()):
        return _content_with(draft, parameters=draw(st.sampled_from(ODD_PARAMETERS))), False
    name = OUTPUTS.get(draft.model, ["y"])[0]
    return _content_with(
        draft, outputs=[{"name": name, "parameters": draw(st.sampled_from(ODD_WISHES))}]
    ), False


def _any_byte_flips(draw: st.DrawFn, draft: Draft) -> tuple[Draft, bool]:
    whole = bytearray(b"".join(draft.blobs))
    if whole:
        whole[draw(st.integers(0, len(whole) - 1))] ^= 1 << draw(st.integers(0, 7))
    return replace(draft, blobs=(bytes(whole),)), False


MISTAKES: tuple[Mistake, ...] = (
    _header_is_off,
    _header_is_no_number,
    _header_is_empty_or_missing,
    _header_comes_twice,
    _size_lies,
    _truncated,
    _trailing_bytes,
    _string_length_lies,
    _shape_is_impossible,
    _shape_is_another,
    _datatype_is_another,
    _input_comes_twice,
    _output_comes_twice,
    _half_precision_has_odd_bytes,
    _bool_is_two,
    _data_and_bytes,
    _parameters_are_odd,
    _any_byte_flips,
)


@st.composite
def mistaken(draw: st.DrawFn, mistake: Mistake) -> tuple[Request, bool]:
    """A right request with one thing wrong, and whether that must be refused."""
    draft, must_be_refused = mistake(draw, draw(drafts()))
    return draft.request, must_be_refused


def _entry_with(draft: Draft, **changes: Any) -> Draft:
    first, *others = draft.content["inputs"]
    return _content_with(draft, inputs=[{**first, **changes}, *others])


def _content_with(draft: Draft, **changes: Any) -> Draft:
    return replace(draft, content={**draft.content, **changes})
