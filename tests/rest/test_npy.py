"""Arrays of numpy's as bodies: whatever `numpy.save` writes comes back, and nothing else is taken for one."""

from __future__ import annotations

import io
import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infold.errors import InvalidInputError
from infold.rest.codec import DTYPES
from infold.rest.npy import LONGEST_HEADER, read_npy
from infold.tensors import Array, TensorSpec

NUMBERS = [dtype for name, dtype in DTYPES.items() if name not in ("BYTES", "BF16")]
FLOATS = np.arange(6, dtype=np.float32)
HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"


def spec(dtype: object = np.float32) -> TensorSpec:
    return TensorSpec("x", np.dtype(dtype), None)  # type: ignore[call-overload]


def saved(array: Array, version: tuple[int, int] | None = None) -> bytes:
    """The file that numpy writes."""
    file = io.BytesIO()
    if version is None:
        np.save(file, array, allow_pickle=True)
    else:
        np.lib.format.write_array(file, array, version)
    return file.getvalue()


def written(header: str, data: bytes = FLOATS.tobytes(), version: int = 1) -> bytes:
    """A file with a header of our own."""
    text = header.encode("latin-1")
    return (
        b"\x93NUMPY"
        + bytes((version, 0))
        + struct.pack("<H" if version == 1 else "<I", len(text))
        + text
        + data
    )


def read(file: bytes, dtype: object = np.float32) -> Array:
    return read_npy(memoryview(file), spec(dtype), "body")


def refusal(file: bytes, dtype: object = np.float32) -> str:
    """What is said of a file that is not taken."""
    with pytest.raises(InvalidInputError) as caught:
        read(file, dtype)
    assert caught.value.place == "body"
    return caught.value.detail


# -- what numpy writes -----------------------------------------------------------------------------


@given(
    st.sampled_from(NUMBERS).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=4))
    ),
    st.sampled_from("<>="),
    st.sampled_from("CF"),
    st.sampled_from([None, (1, 0), (2, 0), (3, 0)]),
)
def test_every_array_comes_back_as_it_was_saved(
    array: Array, order: str, axes: str, version: tuple[int, int] | None
) -> None:
    """Whatever its type, in both orders of bytes and of axes; NaN, infinities and -0 bit by bit."""
    file = saved(np.asarray(array.astype(array.dtype.newbyteorder(order)), order=axes), version)  # type: ignore[call-overload]
    result = read(file, array.dtype)
    assert (result.dtype, result.shape) == (array.dtype, array.shape)
    assert result.dtype.isnative
    assert result.flags.c_contiguous
    assert result.tobytes() == array.tobytes()


def test_bfloat16_comes_as_the_pairs_of_bytes_that_numpy_writes() -> None:
    """Only for a model that takes it."""
    array = np.array([[1.5, -2]], ml_dtypes.bfloat16)
    result = read(saved(array), ml_dtypes.bfloat16)
    assert (result.dtype, result.tolist()) == (array.dtype, [[1.5, -2]])
    assert refusal(saved(array)) == "holds '<V2', which is no type of tensors"
    assert "model takes bfloat16 (BF16)" in refusal(saved(FLOATS), ml_dtypes.bfloat16)


def test_what_lies_as_it_must_is_not_copied() -> None:
    """They are put there by numpy, at a multiple of 64."""
    room = np.zeros(1024, np.uint8)
    file = saved(FLOATS)
    room[: len(file)] = np.frombuffer(file, np.uint8)
    result = read_npy(memoryview(room[: len(file)]), spec(), "body")  # type: ignore[arg-type]
    assert np.shares_memory(result, room)


@pytest.mark.parametrize(
    "header",
    [
        HEADER.strip(),
        "{'shape':(2,3),'fortran_order':False,'descr':'<f4'}",
        '{"descr": "<f4", "fortran_order": False, "shape": (2, 3)}',
        "  { 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 2 , 3 , ) }   \n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }",
        "{'descr': '=f4', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': 'f4', 'fortran_order': False, 'shape': (2, 3), }",
    ],
)
def test_other_libraries_write_the_same_otherwise(header: str) -> None:
    """In any order, with any space and either quote; Python 2 wrote an L."""
    assert read(written(header)).tolist() == [[0, 1, 2], [3, 4, 5]]


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [HEADER, HEADER.replace("<", ">"), HEADER.replace("False", "True")])
@pytest.mark.parametrize("size", [0, 23, 25, 28, 48])
def test_too_many_bytes_or_too_few_are_told(header: str, size: int) -> None:
    """Whatever has to be done with them; the shape is told as the file has it."""
    detail = f"{size} bytes behind the header, shape [2, 3] of float32 takes 24"
    assert refusal(written(header, bytes(size))) == detail


def test_another_type_is_told_with_the_one_that_is_taken() -> None:
    """Most things are float64 to numpy, and nothing is rounded on its way in."""
    assert refusal(saved(FLOATS.astype(">f8"))) == "holds float64, the model takes float32 (FP32)"
    assert refusal(saved(FLOATS), np.int64) == "holds float32, the model takes int64 (INT64)"
    assert refusal(saved(FLOATS.astype(np.longdouble))).endswith("the model takes float32 (FP32)")
    assert "model takes object (BYTES)" in refusal(saved(FLOATS), np.object_)


class Pickled:
    """What runs when it is unpickled."""

    was_run = False

    def __reduce__(self) -> object:
        return _run, ()


def _run() -> None:
    Pickled.was_run = True


def test_objects_are_never_unpickled() -> None:
    """Not even for a model of strings."""
    file = saved(np.array([Pickled()], np.object_))
    for dtype in (np.float32, np.object_):
        assert refusal(file, dtype) == "holds '|O', which is no type of tensors"
    assert not Pickled.was_run


@pytest.mark.parametrize(
    "descr",
    [
        "<U5", "|S3", "<c8", "<M8[ns]", "|V4", "a3", "f4,f4", "(1000000,)f4", "(2,)<f4", "O", "float32", "",
        "i3", "f0", "u99", "b2", "p8", ">>f4", "<f4 ", "<f4\n", "<f\xb2",
    ],
)  # fmt: skip
def test_what_holds_no_numbers_is_no_tensor(descr: str) -> None:
    """Told as it is written; numpy is not asked what it might mean."""
    assert refusal(written(HEADER.replace("<f4", descr))) == f"holds '{descr}', which is no type of tensors"


def test_records_are_no_tensor() -> None:
    """Nor what is nested in them."""
    detail = refusal(saved(np.zeros(2, [("shape", "<f4"), ("b", [("c", "<i8", (2, 3))])])))
    assert detail == "holds '[('shape', '<f4'), ('b', [('c', '<i8', (2, 3))])]', which is no type of tensors"
    assert len(refusal(written(HEADER.replace("'<f4'", "[" + "('x', 'f4')," * 700 + "]")))) < 200


NONSENSE = "is a .npy file whose header makes no sense"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{",
        "{}",
        "[]",
        HEADER[:-1],
        HEADER[1:],
        HEADER + "}",
        HEADER + HEADER,
        HEADER.replace("(2, 3)", "2"),
        HEADER.replace("(2, 3)", "(2)"),
        HEADER.replace("(2, 3)", "[2, 3]"),
        HEADER.replace("(2, 3)", "'(2, 3)'"),
        HEADER.replace("(2, 3)", "(True, 6)"),
        HEADER.replace("(2, 3)", "(2.0, 3)"),
        HEADER.replace("(2, 3)", "(-2, -3)"),
        HEADER.replace("(2, 3)", "(2, , 3)"),
        HEADER.replace("(2, 3)", "(,)"),
        HEADER.replace("(2, 3)", "(2 3)"),
        HEADER.replace("(2, 3)", "(2, 3LL)"),
        HEADER.replace("(2, 3)", "(2, \xb3)"),
        HEADER.replace("False", "0"),
        HEADER.replace("False", "None"),
        HEADER.replace("False", "'False'"),
        HEADER.replace("'<f4'", "None"),
        HEADER.replace("'<f4'", "('<f4', (2,))"),
        HEADER.replace("'<f4'", r"'\x3cf4'"),
        HEADER.replace("'<f4'", "'<f4"),
        HEADER.replace("descr", "descr2"),
        HEADER.replace("}", "'more': True}"),
        HEADER.replace("}", "'descr': '<f4'}"),
        HEADER.replace("'shape'", "'descr'"),
        HEADER.replace("(2, 3)", "__import__('os')"),
        HEADER.replace("(2, 3)", "(" * 4000 + ")" * 4000),
    ],
)
def test_a_header_that_is_no_such_literal_is_refused(header: str) -> None:
    """Nothing in it is evaluated."""
    assert refusal(written(header)) == NONSENSE


def test_lengths_that_no_array_has_are_refused() -> None:
    """Neither counted nor told in full."""
    for shape in (
        "(0, 9223372036854775808)",
        "(4294967296, 4294967296)",
        f"({'9' * 9000},)",
        "(2147483648,)",
    ):
        assert refusal(written(HEADER.replace("(2, 3)", shape), b"")) == "has too many elements"
    assert refusal(written(HEADER.replace("(2, 3)", "(" + "1," * 33 + ")"), b"")) == "33 axes are too many"
    assert read(written(HEADER.replace("(2, 3)", "(" + "1," * 32 + ")"), bytes(4))).ndim == 32


def test_a_header_says_its_length_and_may_not_be_long() -> None:
    """No more of it is looked at."""
    longest = HEADER + " " * (LONGEST_HEADER - len(HEADER))
    for version in (2, 3):
        assert read(written(longest, version=version)).shape == (2, 3)
        assert f"more than {LONGEST_HEADER} bytes" in refusal(written(longest + " ", version=version))
    bomb = b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + bytes(100)
    assert f"more than {LONGEST_HEADER} bytes" in refusal(bomb)
    for cut in (40, 10 + len(HEADER) - 1):
        assert refusal(written(HEADER)[:cut]) == "is a .npy file that ends before its header does"


@pytest.mark.parametrize(
    "file", [b"\x93NUMPY", b"\x93NUMPY\1", b"\x93NUMPZ\1\0" + bytes(90), b"PK\3\4" + bytes(90), b"[1, 2]"]
)
def test_what_does_not_begin_like_one_is_none(file: bytes) -> None:
    """An .npz, which is a zip file, among them."""
    assert refusal(file) == "is no .npy file"


def test_an_unknown_version_and_an_empty_body_are_told() -> None:
    """Versions are 1 to 3."""
    for version in (0, 4, 255):
        assert refusal(written(HEADER, version=version)) == "is no .npy file"
    assert refusal(b"") == "is empty"
    assert refusal(b"\x93NUMPY\1\0") == "is a .npy file that ends before its header does"


def test_a_bool_is_0_or_1() -> None:
    """Any other byte would be true here and something else there."""
    header = "{'descr': '|b1', 'fortran_order': True, 'shape': (1, 3), }"
    assert read(written(header, b"\0\1\1"), np.bool_).tolist() == [[False, True, True]]
    assert refusal(written(header, b"\0\1\2"), np.bool_) == "a BOOL is a byte of 0 or 1"


@settings(max_examples=400)
@given(st.data())
def test_whatever_comes_is_an_array_or_a_refusal(data: st.DataObject) -> None:
    """Files of numpy's with bytes changed, put in and taken out."""
    file = bytearray(written(HEADER))
    words = st.text("{}[]()'\",: L0123456789<>|fiuTrueFals", max_size=4).map(str.encode)
    for _ in range(data.draw(st.integers(1, 6))):
        at, cut = data.draw(st.integers(0, len(file))), data.draw(st.integers(0, 3))
        file[at : at + cut] = data.draw(st.binary(max_size=3) | words)
    try:
        result = read(bytes(file))
    except InvalidInputError:
        return
    assert result.dtype == np.float32
    assert result.size * 4 <= len(file)


def test_nothing_is_set_aside_for_what_only_a_header_promises() -> None:
    """A few bytes that claim gigabytes."""
    bomb = written(HEADER.replace("(2, 3)", "(536870912, 3)"), bytes(100))
    tracemalloc.start()
    try:
        assert refusal(bomb).startswith("100 bytes behind the header")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
