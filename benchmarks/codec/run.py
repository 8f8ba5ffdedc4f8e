"""The codec alone, in this process: what reading and writing tensors costs beside the fastest libraries.

    python benchmarks/codec/run.py             # ten minutes and 2 GB, for 10 million values in JSON
    python benchmarks/codec/run.py --quick     # no more than 3 x 224 x 224 values; under a minute

Each table is one direction, each row so many values of one datatype. Times are microseconds of one
call, the least of several rounds; in each round everything in the row has its turn of three
measurements, so what else runs on the machine bothers all alike. Before it is timed, what infold
reads or writes is held against the values.

- **infold** does the whole of it: finds the tensor in an infer request, checks name, datatype and
  shape, and makes the model's array of it; or makes all parts of an answer. Requests lie in memory
  as the service has them when they are read.
- **From JSON**, on the very same bytes: **simdjson** is its parse alone, after which no number is
  in Python's hands yet; **simdjson, out** also copies the numbers into a buffer of 64-bit ones (of
  booleans and strings, which it has no buffer for, into a list). **orjson**, **msgspec** (told to
  expect a list of this very type) and **json** end with a list of Python's numbers, of which an
  array is still to be made. None of them checks anything.
- **To JSON**: **orjson** writes the numpy array, in as few digits as its type needs; **msgspec** and
  **json** write `tolist()`, which has the digits of a float64. Neither writes anything around it.
- **From bytes**: **numpy** is `frombuffer` alone, **orjson + numpy** reads the JSON header too.
  **To bytes**: **numpy** is `tobytes`, which copies; infold sends a view. Nothing is as quick for
  strings.
- **infold / fastest**: by the quickest of the others in that row, whatever it leaves undone. Times
  below some 10 us are mostly those of the checks.

`tolist()` says that a JSON body has the numbers as `json.dumps(x.tolist())` writes them, which is
what most clients send: some 20 bytes for a float32, where the fewest digits take 11.

The last table times the parts of infold's reading and writing. The exit code is 0, whatever is met.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "service"))
from best import Effort, least
from cases import DIRECTIONS, FEWEST, INFOLD, LIST, NESTED, PICTURE, Values, drawn
from layers import PARTS, parts_of

from infold.rest.codec import DTYPES

SIZES = (1, 100, 10_000, 150_528, 1_000_000, 10_000_000)
OTHER_SIZES = (10_000, 1_000_000)  # of the other datatypes
QUICK_SIZES, QUICK_OTHERS = SIZES[:4], OTHER_SIZES[:1]
IMAGE = SIZES[3]
TARGET = 1.5


def rows(title: str, sizes: Sequence[int], others: Sequence[int]) -> Iterator[Values]:
    """The values of a table, drawn when their turn comes: the largest need much memory."""
    for size in sizes:
        yield drawn("FP32", size)
        if title == "From JSON" and size == IMAGE:
            yield drawn("FP32", size, FEWEST)
            yield drawn("FP32", size, NESTED)
    for datatype in DTYPES:
        if datatype != "FP32":
            for size in others:
                yield drawn(datatype, size)


def table(title: str, sizes: Sequence[int], others: Sequence[int], effort: Effort) -> float | None:
    """Print a direction; the ratio of 3 x 224 x 224 values of FP32 as clients write them."""
    names: list[str] = []
    reached = None
    for values in rows(title, sizes, others):
        case = DIRECTIONS[title](values)
        times = least(case.calls, effort)
        if not names:
            names = list(times)
            print(f"### {title}\n")
            columns = (*names, f"{INFOLD} / fastest")
            print("| values | datatype | bytes | " + " | ".join(columns) + " |")
            print("|---:|---|---:|" + "---:|" * len(columns))
        fastest = min((times[name] for name in times if name != INFOLD), default=None)
        ratio = None if fastest is None else times[INFOLD] / fastest
        if (values.datatype, values.array.size, values.form) == ("FP32", IMAGE, LIST):
            reached = ratio
        print("| " + " | ".join((_size(values), _kind(title, values), f"{case.message_bytes:,}")), end=" | ")
        cells = [_us(times[name]) if name in times else "" for name in names]
        print(" | ".join((*cells, "" if ratio is None else f"{ratio:.2f}")) + " |", flush=True)
    print()
    return reached


def parts(sizes: Sequence[int], effort: Effort) -> None:
    """Print the table of parts."""
    print("### Part by part, FP32\n")
    print("| values | " + " | ".join(f"`{name}`" for name in PARTS) + " |")
    print("|---:|" + "---:|" * len(PARTS))
    for size in sizes:
        values = drawn("FP32", size)
        times = least(parts_of(values), effort)
        cells = [_us(times[name]) if name in times else "" for name in PARTS]
        print(f"| {_size(values)} | " + " | ".join(cells) + " |", flush=True)
    print()


def _size(values: Values) -> str:
    return "3 x 224 x 224" if values.array.shape == PICTURE else f"{values.array.size:,}"


def _kind(title: str, values: Values) -> str:
    return f"{values.datatype}, {values.form}" if title == "From JSON" else values.datatype


def _us(seconds: float) -> str:
    """Microseconds, three digits of them."""
    us = 1e6 * seconds
    return f"{us:,.0f}" if us >= 100 else f"{us:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time infold's codec beside the fastest libraries.")
    parser.add_argument("--quick", action="store_true", help="up to 3 x 224 x 224 values, few rounds")
    parser.add_argument("--direction", nargs="*", choices=list(DIRECTIONS), metavar="TITLE",
                        help=", ".join(DIRECTIONS))  # fmt: skip
    options = parser.parse_args()
    sizes, others = (QUICK_SIZES, QUICK_OTHERS) if options.quick else (SIZES, OTHER_SIZES)
    effort = Effort(5, 0.05) if options.quick else Effort(7, 3.0)
    reached = {
        title: table(title, sizes, others, effort)
        for title in DIRECTIONS
        if not options.direction or title in options.direction
    }
    if not options.direction:
        parts(sizes, effort)
    ratio = reached.get("From JSON")
    if ratio is not None:
        verdict = "met" if ratio <= TARGET else "**missed**"
        print("| target | wanted | reached | |\n|---|---:|---:|---|")
        words = "JSON of a 3 x 224 x 224 FP32 tensor, decoded: multiple of the fastest library's parse"
        print(f"| {words} | <= {TARGET} | {ratio:.2f} | {verdict} |")


if __name__ == "__main__":
    main()
