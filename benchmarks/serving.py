"""What the service adds to a bare onnxruntime loop, on the shipped digits model, in one run.

    make bench

One process serves, this one asks: closed loop, JSON bodies of one image, several
rounds; the baseline is `session.run` on the same image in a loop of its own, before
and after. Figures are medians over rounds. Ratios hold better than absolute numbers
on a busy machine; the spread over rounds says how busy it was.
"""

import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from infold.runtime import Session

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models/digits/1/model.onnx"
ROUNDS, SECONDS = 5, 1.0


def bare(image: np.ndarray) -> float:
    """Runs a second of a bare session in one thread."""
    session = Session(MODEL)
    session.run({"image": image})
    end, count = time.perf_counter() + SECONDS, 0
    while time.perf_counter() < end:
        session.run({"image": image})
        count += 1
    return count / SECONDS


def over_http(url: str, body: bytes, callers: int) -> tuple[float, list[float]]:
    """Answers a second, and the latency of each in milliseconds."""
    latencies: list[float] = []
    end = time.perf_counter() + SECONDS

    def call() -> None:
        with httpx.Client(base_url=url) as client:
            while (started := time.perf_counter()) < end:
                client.post("/v2/models/digits/infer", content=body).raise_for_status()
                latencies.append(1000 * (time.perf_counter() - started))

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(latencies) / SECONDS, latencies


def main() -> None:
    with np.load(ROOT / "examples/digits/samples.npz") as saved:
        image = saved["in.image"][:1]
    request = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": image.tolist()}
    body = httpx.Request("POST", "http://x", json={"inputs": [request]}).content
    command = [sys.executable, "-m", "infold", "serve", "models", "--port", "0", "--log-level", "error"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = next(found[1] for line in server.stdout if (found := re.search(r"on (http://\S+)", line)))
        print(f"{'':24}{'answers/s':>12}{'spread':>16}{'of bare':>9}{'p50 ms':>9}{'p99 ms':>9}")
        loops = [bare(image) for _ in range(ROUNDS)]
        limit = statistics.median(loops)
        print(f"{'bare session.run':24}{limit:12.0f}{min(loops):9.0f}..{max(loops):<5.0f}{1:9.2f}")
        for callers in (1, 4):
            rounds = [over_http(url, body, callers) for _ in range(ROUNDS)]
            rates = [rate for rate, _ in rounds]
            latencies = np.concatenate([each for _, each in rounds])
            p50, p99 = np.percentile(latencies, [50, 99])
            rate = statistics.median(rates)
            print(
                f"{f'served, {callers} callers':24}{rate:12.0f}{min(rates):9.0f}..{max(rates):<5.0f}"
                f"{rate / limit:9.2f}{p50:9.2f}{p99:9.2f}"
            )
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
