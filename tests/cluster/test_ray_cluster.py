"""A real Ray cluster of three nodes on one machine: nothing wrong, whatever goes.

Run by `make cluster-test`, in an environment of its own. Everything is on 127.0.0.1.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from cluster.askers import (
    Ask,
    Reference,
    all_asks,
    crowd,
    get,
    json_ask,
    scaled_ask,
    send,
    slow_ask,
    wide_ask,
)
from cluster.stand import NAME, Stand, stand, until
from graphs import model
from servers import slow_model
from shelves import Shelf

# Ray warns of much that is its own; here only its answers count.
pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]

DIGITS = Path(__file__).parents[2] / "models" / "digits"
STEPS = 20_000
QUICK = {
    "upscale_delay_s": 0.5,
    "downscale_delay_s": 2.0,
    "look_back_period_s": 2.0,
    "metrics_interval_s": 0.5,
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a path short enough for Ray's sockets."""
    found = Path(tempfile.mkdtemp(prefix="ray"))
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Stand]:
    """Three nodes: digits twice, two tiny models, and a slow one that scales."""
    repository = folder / "models"
    shelf = Shelf(repository)
    for number, factor in ((1, 2.0), (2, 3.0)):
        shelf.put("scaled", number, factor)
    shutil.copytree(DIGITS, repository / "digits")
    slow_model(repository)
    wide = repository / "wide" / "1"
    wide.mkdir(parents=True)
    onnx.save(model("g (float[1,n] x) => (float[1,n] y) { y = Neg (x) }"), str(wide / "model.onnx"))
    config = {
        "name": NAME,
        "import_path": "infold.cluster.ray_serve:app",
        "args": {
            "repository": repository.as_uri(),
            "settings": {"cache_dir": str(folder / "cache"), "load_trial": False, "log_level": "warning"},
            "ingress": {"min_replicas": 2},
            "models": {
                "digits": {"min_replicas": 2},
                "scaled": {"versions": [1], "num_cpus": 0.5, "settings": {"max_body_bytes": 2000}},
                "wide": {"num_cpus": 0.5},
                "slow": {"max_replicas": 3, "target_ongoing_requests": 2, "autoscaling": QUICK},
            },
        },
    }
    with stand(config, folder) as found:
        yield found


@pytest.fixture(scope="module")
def reference() -> Reference:
    """What digits answers."""
    return Reference(str(DIGITS / "1" / "model.onnx"))


def test_every_way_to_ask_is_answered_as_by_infold_alone(cluster: Stand, reference: Reference) -> None:
    """JSON, binary and `:predict`, plain and compressed, by every proxy."""
    until(lambda: all(_is_ready(port) for port in cluster.ports), "every proxy is ready")
    for port in cluster.ports:
        for ask in all_asks(reference)[:6]:
            status, headers, body = send(port, ask)
            assert status == 200 and ask.is_right(headers, body), body
    ask = json_ask(reference.images[0], reference.logits[0])
    squeezed = {**ask.headers, "Content-Encoding": "gzip", "X-Request-Id": "mine"}
    status, headers, body = send(
        cluster.ports[0], Ask(ask.path, gzip.compress(ask.body), squeezed, ask.is_right)
    )
    assert status == 200 and ask.is_right(headers, body)
    assert headers["x-request-id"] == "mine"


def test_long_bodies_go_both_ways(cluster: Stand) -> None:
    """Megabytes, by way of Ray's object store; on the head's proxy there is no ingress beside it."""
    ask = wide_ask(np.random.default_rng(1).random(2**21, np.float32))
    status, headers, body = send(cluster.ports[0], ask)
    assert status == 200 and ask.is_right(headers, body)


def test_a_caller_that_leaves_is_not_worked_for(cluster: Stand) -> None:
    """Its replica hears of it, and counts it as one that left."""
    with pytest.raises(TimeoutError):
        send(cluster.ports[1], slow_ask(10**7), timeout_s=0.5)
    left = 'infold_refusals_total{model="slow",reason="abandoned",version="1"} 1.0'
    until(lambda: left in get(cluster.ports[1], "/metrics")[2].decode(), "the replica knows", 20)


def test_what_is_refused_is_refused_in_infolds_words(cluster: Stand) -> None:
    """Unknown models, long bodies, deadlines, orders; and counts are those of all replicas."""
    port = cluster.ports[1]
    assert get(port, "/v2/models/nobody")[0] == 404
    assert get(port, "/nowhere")[2] == b'{"error":"there is no /nowhere here; /docs lists what there is"}'
    long = Ask("/v2/models/scaled/infer", b" " * 2001, {}, lambda *_: True)
    assert send(port, long)[0] == 413
    assert send(port, slow_ask(10**7, **{"X-Request-Timeout-Ms": "100"}))[0] == 504
    order = Ask("/v2/repository/models/scaled/load", b"", {}, lambda *_: True)
    assert send(port, order)[0] == 403
    page = get(port, "/metrics")[2].decode()
    assert (
        'infold_http_requests_total{method="POST",route="/v2/models/{model}/infer",status="413"} 1.0' in page
    )
    assert 'infold_model_state{model="digits",state="ready",version="1"} 1.0' in page


def test_another_user_config_swaps_the_version_under_load(cluster: Stand) -> None:
    """No request is lost or wrong, and the replica's process stays."""
    before = cluster.pids("scaled")
    with crowd(cluster.ports[1:], [scaled_ask(2.0, 3.0)]) as callers:
        callers.answered(50)
        cluster.deploy(scaled={"versions": [2]})
        until(lambda: _version_is(cluster, "2"), "version 2 answers")
        callers.answered(50)
    assert not callers.ledger.again
    assert cluster.pids("scaled") == before
    status, _, _ = send(cluster.ports[1], scaled_ask(3.0))
    assert status == 200


def test_replicas_come_and_go_with_the_load(cluster: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    """One becomes three, and one again, and nobody gets a wrong answer meanwhile."""
    assert cluster.replicas("slow") == 1
    with crowd(cluster.ports[1:], [slow_ask(STEPS)], 2) as callers:
        alone = 100 / callers.answered(100)
    with crowd(cluster.ports[1:], [slow_ask(STEPS)], 12) as callers:
        up_s = until(lambda: cluster.replicas("slow") == 3, "three replicas")
        callers.answered(50)
        together = 200 / callers.answered(200)
    down_s = until(lambda: cluster.replicas("slow") == 1, "one replica again")
    assert not callers.ledger.again
    with capsys.disabled():
        print(f"\none replica {alone:.0f}/s, three {together:.0f}/s: {together / alone:.2f} times as much")
        print(f"three after {up_s:.1f} s of load, one again {down_s:.1f} s after it")


@pytest.mark.parametrize("deployment", ["slow", "Ingress"])
def test_a_crash_is_a_503_to_those_it_meets(
    cluster: Stand, deployment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever had a request in a process that dies is told to ask again, and then gets an answer."""
    with crowd(cluster.ports[1:], [slow_ask(STEPS)], 3) as callers:
        callers.answered(20)
        back_s = cluster.crash(deployment)
        callers.answered(20)
        settled = sum(callers.ledger.again.values())
        callers.answered(50)
        assert sum(callers.ledger.again.values()) == settled
    assert callers.ledger.again.keys() == {"503"}
    with capsys.disabled():
        print(f"\n{deployment} crashed: asked again {dict(callers.ledger.again)}, back after {back_s:.1f} s")


def test_a_crashed_replica_and_a_lost_node_make_nothing_wrong(
    cluster: Stand, reference: Reference, capsys: pytest.CaptureFixture[str]
) -> None:
    """Callers meet resets and 503, go on at the proxy that is left, and meet none once all is back."""
    asks = [*all_asks(reference), *[scaled_ask(3.0)] * 32]
    with crowd(cluster.ports[1:], asks, 6) as callers:
        callers.answered(100)
        crash_s = cluster.crash("digits")
        cluster.kill_node(0)
        until(lambda: _known_nodes(cluster) == 2, "the loss is known")
        wanted = {"digits": 2, "scaled": 1, "slow": 1, "wide": 1, "Ingress": 2}
        lost_s = until(lambda: all(cluster.has_back(*each) for each in wanted.items()), "all is back")
        until(lambda: time.monotonic() - callers.ledger.last_again > 2, "nobody has to ask again")
        settled = sum(callers.ledger.again.values())
        callers.answered(300)
        assert sum(callers.ledger.again.values()) == settled
    with capsys.disabled():
        print(f"\nasked again: {dict(callers.ledger.again)}; back after {crash_s:.1f} s and {lost_s:.1f} s")


def _is_ready(port: int) -> bool:
    try:
        return get(port, "/v2/health/ready")[0] == 200
    except OSError:
        return False


def _version_is(cluster: Stand, number: str) -> bool:
    return f'"versions":["{number}"]'.encode() in get(cluster.ports[1], "/v2/models/scaled")[2]


def _known_nodes(cluster: Stand) -> int:
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())
