"""Versions that must not be served: each is refused with its reason, and the old one answers on."""

from __future__ import annotations

import functools
import io
import shutil
from collections.abc import Callable

import numpy as np

from faults.models import BROAD, LINE, WEIGHTS, WIDTHS, answer, graph, graph_beside
from faults.stage import Stage

__all__ = ["CORRUPTIONS"]

SPARE = "spare"

# Makes a model file of a sound version, and what lies beside it.
Spoil = Callable[[str, int], tuple[bytes, dict[str, bytes]]]


def _whole(name: str, version: int) -> bytes:
    return graph(name, version).SerializeToString()


def _truncated(name: str, version: int) -> tuple[bytes, dict[str, bytes]]:
    whole = _whole(name, version)
    return whole[: len(whole) * 2 // 3], {}


def _random(name: str, version: int) -> tuple[bytes, dict[str, bytes]]:
    return bytes((each * 167 + version) % 251 for each in range(5000)), {}


def _empty(name: str, version: int) -> tuple[bytes, dict[str, bytes]]:
    return b"", {}


def _flipped(name: str, version: int) -> tuple[bytes, dict[str, bytes]]:
    """An operator that nobody has heard of."""
    return _whole(name, version).replace(b"Mul", b"Mol"), {}


def _without_its_weights(name: str, version: int) -> tuple[bytes, dict[str, bytes]]:
    return graph_beside(name, version, WEIGHTS, 4 * WIDTHS[name]).SerializeToString(), {}


def _with_short_weights(name: str, version: int) -> tuple[bytes, dict[str, bytes]]:
    size = 4 * WIDTHS[name]
    return graph_beside(name, version, WEIGHTS, size).SerializeToString(), {WEIGHTS: bytes(size // 2)}


def _with_too_few_weights(name: str, version: int) -> tuple[bytes, dict[str, bytes]]:
    size = 4 * WIDTHS[name]
    return graph_beside(name, version, WEIGHTS, size // 2).SerializeToString(), {WEIGHTS: bytes(size)}


def _with_weights_from_elsewhere(name: str, version: int) -> tuple[bytes, dict[str, bytes]]:
    return graph_beside(name, version, "../../../../../etc/passwd", 16).SerializeToString(), {}


SPOILS: dict[str, Spoil] = {
    "truncated": _truncated,
    "random bytes": _random,
    "empty": _empty,
    "an unknown operator": _flipped,
    "weights missing": _without_its_weights,
    "weights cut short": _with_short_weights,
    "weights too few": _with_too_few_weights,
    "weights outside": _with_weights_from_elsewhere,
}


def load_corrupt(stage: Stage, spoil: Spoil) -> str:
    """The next version is corrupt: the order says so, so does the index, and nothing else has changed."""
    name = stage.dice.choice(list(WIDTHS))
    version = stage.newest[name] + 1
    refused(stage, name, version, *spoil(name, version))
    stage.shelf.take(name, version)
    status, text = stage.order("load", name)
    assert status == 200, text
    return "refused, the old one answers"


def refused(stage: Stage, name: str, version: int, model: bytes, beside: dict[str, bytes]) -> None:
    """A file in the place of a version is not taken, and the index tells why."""
    folder = stage.shelf.put(name, version, graph=model, **beside)
    status, text = stage.order("load", name)
    assert status == 400 and text.startswith(f"failed to load '{name}', "), (status, text)
    file = f"{name}/{version}/model.onnx"
    assert file in text, text
    _, reason = stage.rows()[name, str(version)]
    assert file in reason, reason
    assert stage.is_ready()
    assert folder.is_dir()


def corrupt_in_place(stage: Stage) -> str:
    """The file of the version that answers is damaged and loaded again: what is in memory answers on."""
    name = BROAD
    version = stage.newest[name]
    sound = stage.shelf.root / name / str(version)
    kept = stage.shelf.root / ".kept"
    shutil.copytree(sound, kept)
    model, beside = _truncated(name, version)
    refused(stage, name, version, model, beside)
    shutil.rmtree(sound)
    kept.rename(sound)
    status, text = stage.order("load", name)
    assert status == 200, text
    return "refused, what is in memory answers"


def contradicted(stage: Stage) -> str:
    """A model that loads, and does not answer as the golden samples beside it say; nobody asks it."""
    x = np.ones((1, WIDTHS[LINE]), np.float32)
    samples = io.BytesIO()
    np.savez(samples, **{"in.x": x, "out.y": answer(1, x) + 1})
    beside = {"golden.npz": samples.getvalue()}
    stage.shelf.put(SPARE, 1, graph=_whole(LINE, 1), **beside)
    status, text = stage.order("load", SPARE)
    assert status == 400 and "golden" in text, text
    assert stage.order("unload", SPARE)[0] == 200
    stage.shelf.take(SPARE)
    return "refused"


CORRUPTIONS: dict[str, Callable[[Stage], str]] = {
    f"load a corrupt version: {name}": functools.partial(load_corrupt, spoil=spoil)
    for name, spoil in SPOILS.items()
}
CORRUPTIONS["damage the version that answers"] = corrupt_in_place
CORRUPTIONS["load what golden samples contradict"] = contradicted
