"""What callers of one model notice while another one is loaded for the first time.

    python benchmarks/serving/loading.py                   # mobilenetv2, 3 rounds of 10 seconds twice
    python benchmarks/serving/loading.py --network resnet50 --rounds 5 --rate 1000

A service answers the tiny network, asked at a steady rate by the load generator (open loop: a request
that waits counts from when it was due). In turn, spells in which nothing else happens, and spells in
which another network is loaded and unloaded over and over, each time with an empty cache: it is tried in a
child process, optimized, measured, opened and warmed up. The ratio is of medians over all rounds.
"""

from __future__ import annotations

import argparse
import http.client
import shutil
import statistics
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import measure
import questions
from catalogue import repository
from load import Load, compile_load

from servers import Server, named

ASKED = "tiny"


def ordered(port: int, network: str, what: str) -> None:
    """A model is loaded, or unloaded."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", f"/v2/repository/models/{network}/{what}")
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"{what} of {network}: {answer.status} {text.decode()}")


def forget(cache: Path) -> None:
    """The next load is a first one; what is mapped stays mapped."""
    for entry in cache.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


class Loading:
    """Loads one model again and again until the end of the `with` block.

    Attributes:
        seconds: Of each load.
    """

    def __init__(self, port: int, network: str, cache: Path) -> None:
        self.seconds: list[float] = []
        self._port, self._network, self._cache = port, network, cache
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Loading:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._is_over.is_set():
            forget(self._cache)
            began = time.perf_counter()
            ordered(self._port, self._network, "load")
            self.seconds.append(time.perf_counter() - began)
            ordered(self._port, self._network, "unload")


def server_with(network: str, cache: Path) -> Server:
    """Infold, with models loaded by name and a cache of its own."""
    models = str(repository([ASKED, network]))
    variables = {
        "INFOLD_MODEL_CONTROL": "explicit",
        "INFOLD_LOAD_MODELS": f'["{ASKED}"]',
        "INFOLD_CACHE_DIR": str(cache),
    }
    infold = named("infold")
    command = tuple(models if word == "{repository}" else word for word in infold.command)
    return replace(infold, command=command, variables=infold.variables | variables)


def main() -> None:
    """Print a row for each kind of spell, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="mobilenetv2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=500.0)
    given = parser.parse_args()
    compile_load()
    questions.prepare([ASKED, given.network])
    quiet: list[Load] = []
    loading: list[Load] = []
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        with measure.Running(server_with(given.network, cache), [ASKED], "binary") as running:
            for _ in range(given.rounds):
                quiet.append(spell(running, given.seconds, given.rate))
                with Loading(running.port, given.network, cache) as under_way:
                    loading.append(spell(running, given.seconds, given.rate))
                seconds += under_way.seconds
    tell(given.network, quiet, loading, seconds)


def spell(running: measure.Running, seconds: float, rate: float) -> Load:
    """One spell of load; every answer is checked."""
    load = running.measure(ASKED, 4, seconds, 1.0, rate).load
    if load.wrong or load.errors or load.refused or load.unanswered:
        raise SystemExit(f"not every request was answered rightly: {load}")
    return load


def tell(network: str, quiet: list[Load], loading: list[Load], seconds: list[float]) -> None:
    """The table."""
    print("| spell | p50 ms | p99 ms | p99 of each round |")
    print("|---|---:|---:|---|")
    for name, loads in (("nothing else", quiet), (f"{network} is loaded", loading)):
        rounds = ", ".join(f"{each.p99_ms:.2f}" for each in loads)
        print(f"| {name} | {median('p50_ms', loads):.2f} | {median('p99_ms', loads):.2f} | {rounds} |")
    ratios = [median(key, loading) / median(key, quiet) for key in ("p99_ms", "p50_ms")]
    each_s = statistics.median(seconds)
    print(
        f"\np99 {ratios[0]:.2f} times, p50 {ratios[1]:.2f} times; {len(seconds)} loads of {each_s:.2f} s each"
    )


def median(key: str, loads: list[Load]) -> float:
    """Of a number of each spell."""
    return statistics.median(getattr(each, key) for each in loads)


if __name__ == "__main__":
    main()
