"""How fast onnxruntime alone is: the limit that every served figure is a share of.

    python benchmarks/serving/bare.py MODEL.onnx --seconds 1 --batch 8 --shape 3,224,224

runs the model in a loop in each of the layouts below and prints one JSON object. It is a process
of its own, so that CPU seconds are those of the loop and of nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from dataclasses import asdict, dataclass

import numpy as np
import onnxruntime

CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Layout:
    """How the cores are shared out."""

    name: str
    intra_threads: int  # inside one run
    callers: int  # threads that run the one session
    batch: int = 1


@dataclass(frozen=True)
class Loop:
    """What one layout reached."""

    name: str
    images_per_s: float
    p50_ms: float
    cpu_s_per_image: float


def layouts(batch: int) -> list[Layout]:
    """Those that are tried."""
    return [
        Layout("one thread", 1, 1),
        Layout(f"intra {CORES}", CORES, 1),
        Layout(f"{CORES} threads", 1, CORES),
        Layout(f"{CORES} threads, batch {batch}", 1, CORES, batch),
    ]


def loop(session: onnxruntime.InferenceSession, layout: Layout, x: object, seconds: float) -> Loop:
    """Runs for the given time after a short warm-up."""
    name = session.get_inputs()[0].name
    outputs = [session.get_outputs()[0].name]
    took: list[list[float]] = [[] for _ in range(layout.callers)]
    # With several callers no run has threads of its own, so each caller's clock tells all.
    clock = time.thread_time if layout.callers > 1 else time.process_time
    used = [0.0] * layout.callers
    session.run(outputs, {name: x})
    start = time.perf_counter() + min(0.2, seconds / 4)
    end = start + seconds

    def call(number: int) -> None:
        mine, feed = took[number], {name: x}
        while time.perf_counter() < start:
            session.run(outputs, feed)
        used_before, before = clock(), time.perf_counter()
        while before < end or len(mine) < 2:
            session.run(outputs, feed)
            after = time.perf_counter()
            mine.append(after - before)
            before = after
        used[number] = clock() - used_before

    threads = [threading.Thread(target=call, args=(number,)) for number in range(layout.callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Each caller by its own clock: the last run of each ends after the bell.
    rate = layout.batch * sum(len(mine) / sum(mine) for mine in took)
    runs = sum(len(mine) for mine in took)
    p50 = statistics.median([each for mine in took for each in mine])
    return Loop(layout.name, rate, 1e3 * p50, sum(used) / (runs * layout.batch))


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a model in a loop.")
    parser.add_argument("model")
    parser.add_argument("--shape", required=True, help="of one input, without the batch axis")
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    shape = [int(each) for each in options.shape.split(",")]
    random = np.random.default_rng(7)
    sessions: dict[int, onnxruntime.InferenceSession] = {}
    done = []
    for layout in layouts(options.batch):
        if layout.intra_threads not in sessions:
            sessions.clear()  # the threads of the last one would go on spinning
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = layout.intra_threads
            sessions[layout.intra_threads] = onnxruntime.InferenceSession(
                options.model, settings, providers=["CPUExecutionProvider"]
            )
        x = random.standard_normal((layout.batch, *shape)).astype(np.float32)
        done.append(asdict(loop(sessions[layout.intra_threads], layout, x, options.seconds)))
    print(json.dumps(done))


if __name__ == "__main__":
    main()
