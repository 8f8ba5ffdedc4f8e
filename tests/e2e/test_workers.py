"""`infold serve --workers 2`: real processes, real signals."""

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from servers import Server, running, serve_fails, slow_model

BODY = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
SPINS = 400_000


@pytest.fixture(scope="module")
def small(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model that loads at once."""
    root = tmp_path_factory.mktemp("small")
    shutil.copytree(repository / "double", root / "double")
    return root


@pytest.fixture
def pair(small: Path, tmp_path: Path) -> Iterator[Server]:
    """Two workers; killed with their supervisor if a test leaves them."""
    with running(small, tmp_path / "log", INFOLD_WORKERS="2") as server:
        yield server


def test_both_workers_answer_at_once_and_their_metrics_are_summed(pair: Server) -> None:
    """32 kept connections land on both; no total ever falls, and all requests are in it."""
    asked = 0
    counted = [0.0]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=pair.url)) for _ in range(32)]
        for _ in range(4):
            for client in clients:
                answer = client.post("/v2/models/double/infer", json=BODY).raise_for_status().json()
                assert answer["outputs"][0]["data"] == [2, 4, 6, 8]
                asked += 1
            counted += [total_of(client, "infold_model_requests_total") for client in clients[::4]]
            assert counted[-8:] == [asked] * 8  # whichever worker is asked
    assert counted == sorted(counted)
    answered_by = [line["worker"] for line in log_of(pair) if line.get("path") == "/v2/models/double/infer"]
    assert len(answered_by) == asked
    assert 4 * 4 <= answered_by.count(0) <= 4 * 28


def test_one_announcement_for_all(pair: Server) -> None:
    """And once it is made, all are ready."""
    assert httpx.get(f"{pair.url}/v2/health/ready").status_code == 200
    assert [line["worker"] for line in log_of(pair) if line["event"] == "worker ready"] in ([0, 1], [1, 0])
    assert pair.stop() == 0
    assert pair.process.stdout is not None
    assert "serves" not in pair.process.stdout.read()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_small_answers_on_a_kept_connection_do_not_wait(small: Path, tmp_path: Path, workers: str) -> None:
    """Without TCP_NODELAY each would cost 40 ms."""
    with (
        running(small, tmp_path / "log", INFOLD_WORKERS=workers) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        took = []
        for _ in range(30):
            started = time.perf_counter()
            client.post("/v2/models/double/infer", json=BODY).raise_for_status()
            took.append(time.perf_counter() - started)
    assert statistics.median(took) < 0.02


def test_a_killed_worker_is_replaced_while_the_other_answers(pair: Server) -> None:
    """Not ready meanwhile, but serving; and no total falls."""
    for _ in range(10):
        httpx.post(f"{pair.url}/v2/models/double/infer", json=BODY).raise_for_status()
    counted = [total(pair, "infold_model_requests_total")]
    os.kill(workers_of(pair)[0], signal.SIGKILL)
    wait_until(lambda: "worker died" in events_of(pair))
    readiness = set()
    while len(workers_of(pair)) < 3 or events_of(pair).count("worker ready") < 3:
        httpx.post(f"{pair.url}/v2/models/double/infer", json=BODY).raise_for_status()
        readiness.add(httpx.get(f"{pair.url}/v2/health/ready").status_code)
        readiness.add(httpx.get(f"{pair.url}/v2/models/double/ready").status_code)
        counted.append(total(pair, "infold_model_requests_total"))
    assert 503 in readiness
    wait_until(lambda: httpx.get(f"{pair.url}/v2/health/ready").status_code == 200)
    counted += [total(pair, "infold_model_requests_total") for _ in range(10)]
    assert counted == sorted(counted)
    assert counted[0] == 10
    assert "\ninfold_worker_restarts_total 1.0\n" in httpx.get(f"{pair.url}/metrics").text
    (died,) = [line for line in log_of(pair) if line["event"] == "worker died"]
    assert (died["worker"], died["cause"]) == (0, "ended by SIGKILL")
    assert pair.stop() == 0
    wait_until(lambda: not any(map(is_alive, workers_of(pair))), 1)


def test_sigterm_answers_what_was_accepted_and_leaves_nothing(tmp_path: Path) -> None:
    """Requests in flight in both workers are finished; exit code 0."""
    answers: list[int] = []
    with running(slow_model(tmp_path / "models"), tmp_path / "log", INFOLD_WORKERS="2") as server:
        callers = [call_slowly(server, SPINS, answers) for _ in range(6)]
        wait_until(lambda: total(server, "infold_requests_in_flight") >= 2)
        assert server.stop() == 0
        for caller in callers:
            caller.join()
        assert answers == [200] * 6
        assert not any(map(is_alive, workers_of(server)))
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)


def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    """Exit code 1, whatever is in flight."""
    with running(slow_model(tmp_path / "models"), tmp_path / "log", INFOLD_WORKERS="2") as server:
        caller = call_slowly(server, SPINS * 100, [])
        wait_until(lambda: total(server, "infold_requests_in_flight") >= 1)
        server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(httpx.HTTPError):
            while httpx.get(server.url, timeout=1):
                time.sleep(0.01)
        assert server.process.poll() is None
        started = time.monotonic()
        assert server.stop() == 1
        wait_until(lambda: not any(map(is_alive, workers_of(server))), 5)
        assert time.monotonic() - started < 5
        caller.join()


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    """They answer what they accepted, and leave."""
    answers: list[int] = []
    with running(slow_model(tmp_path / "models"), tmp_path / "log", INFOLD_WORKERS="2") as server:
        caller = call_slowly(server, SPINS, answers)
        wait_until(lambda: total(server, "infold_requests_in_flight") >= 1)
        server.process.kill()
        wait_until(lambda: not any(map(is_alive, workers_of(server))), 15)
        caller.join()
        assert answers == [200]


def test_a_start_that_fails_is_one_line_and_leaves_nothing(small: Path, tmp_path: Path) -> None:
    """The line and the code of a single process."""
    nowhere = str(tmp_path / "nowhere")
    text = f"infold: {nowhere}: there is no such model repository folder"
    assert serve_fails(nowhere, "--port", "0", "--workers", "3") == (1, text)
    broken = tmp_path / "broken"
    shutil.copytree(small, broken)
    (broken / "double/model.toml").write_text("[batching]\nmax_row = 3\n")
    alone = serve_fails(str(broken), "--port", "0")
    assert serve_fails(str(broken), "--port", "0", "--workers", "2") == alone
    assert alone[0] == 2


def test_a_taken_port_is_one_clear_line(pair: Server, small: Path) -> None:
    """Two services never share one, whoever came first had how many workers."""
    port = pair.url.rpartition(":")[2]
    for workers in ("1", "2"):
        code, text = serve_fails(str(small), "--port", port, "--workers", workers)
        assert code == 2
        assert f"127.0.0.1:{port}: cannot listen here" in text


def call_slowly(server: Server, spins: int, answers: list[int]) -> threading.Thread:
    """A request of a long run, from another thread."""
    body = {"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [spins]}]}

    def call() -> None:
        with contextlib.suppress(httpx.HTTPError):
            answers.append(
                httpx.post(f"{server.url}/v2/models/slow/infer", json=body, timeout=60).status_code
            )

    thread = threading.Thread(target=call)
    thread.start()
    return thread


def log_of(server: Server) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.endswith("}")]


def events_of(server: Server) -> list[object]:
    return [line["event"] for line in log_of(server)]


def workers_of(server: Server) -> list[int]:
    """Processes in the order they were started."""
    return [int(str(line["pid"])) for line in log_of(server) if line["event"] == "worker started"]


def is_alive(pid: int) -> bool:
    """It runs; what nobody has waited for yet does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return state.strip() != "" and not state.startswith("Z")


def total(server: Server, family: str) -> float:
    with httpx.Client(base_url=server.url) as client:
        return total_of(client, family)


def total_of(client: httpx.Client, family: str) -> float:
    """The sum of a family's samples on the page."""
    found = re.findall(rf"^{family}{{.*}} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(map(float, found))


def wait_until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
