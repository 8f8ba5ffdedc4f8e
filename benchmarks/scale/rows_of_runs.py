"""How long onnxruntime alone takes for a run of so many rows, on one thread; and of one row on all.

    python benchmarks/scale/rows_of_runs.py MODEL.onnx --shape 3,224,224 --rows 1 2 4

A process of its own, so that who measures does not map what is measured. The least of several runs
counts: whatever else a machine does can only make a run longer.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import numpy as np
import onnxruntime

CORES = len(os.sched_getaffinity(0))
LEAST_RUNS = 3


def least_s(model: str, threads: int, x: np.ndarray, seconds: float) -> float:
    """The shortest run of a session with so many threads."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    session.run(None, feed)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(took) < LEAST_RUNS:
        began = time.perf_counter()
        session.run(None, feed)
        took.append(time.perf_counter() - began)
    return min(took)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time runs of several rows.")
    parser.add_argument("model")
    parser.add_argument("--shape", required=True, help="of one row")
    parser.add_argument("--rows", type=int, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=0.15)
    options = parser.parse_args()
    shape = [int(each) for each in options.shape.split(",")]
    random = np.random.default_rng(7)
    drawn = {rows: random.standard_normal((rows, *shape)).astype(np.float32) for rows in options.rows}
    narrow = {rows: least_s(options.model, 1, x, options.seconds) for rows, x in drawn.items()}
    wide = least_s(options.model, CORES, drawn[options.rows[0]], options.seconds) if CORES > 1 else None
    print(json.dumps({"narrow_s": narrow, "wide_s": wide}))


if __name__ == "__main__":
    main()
