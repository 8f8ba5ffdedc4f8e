"""Bodies without a message around them, and pictures in messages: what is answered, where they are read."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from starlette.types import Message

from graphs import model
from infold.rest.app import App, create_app
from infold.serving import Reading
from infold.settings import Settings
from pictures import encoded, noise

GREY = 'colour = "L"\nlayout = "NHW"\n'
IMAGE, ALONE = f"[image]\n{GREY}", '[image]\ncolour = "L"\nlayout = "HW"\n'
CLASSES = '[classification]\nlabels = "labels.txt"\ntop = 2\n'
X, HIGH = "(float[n, 2, 3] x)", "ReduceMax<axes = [1], keepdims = 0>(x)"
# Name, inputs and outputs, what is computed, model.toml.
MODELS = (
    ("plain", f"{X} => (float[n, 2, 3] y)", "y = Neg(x)", ""),
    ("image", f"{X} => (float[n, 2, 3] y)", "y = Neg(x)", IMAGE),
    # A class for each column: the largest level in it.
    ("seen", f"{X} => (float[n, 3] y)", f"y = {HIGH}", IMAGE + CLASSES),
    ("roots", f"{X} => (float[n, 3] y)", f"a = {HIGH}  b = Neg(a)  y = Sqrt(b)", IMAGE + CLASSES),
    ("two", f"{X} => (float[n, 3] y, float[n, 3] z)", f"y = {HIGH}  z = Neg(y)", IMAGE),
    ("apart", f"{X} => (float[n, 3] y, float z)", f"y = {HIGH}  z = ReduceMax<keepdims = 0>(x)", IMAGE),
    ("alone", "(float[2, 3] x) => (float[3] y)", f"y = {HIGH.replace('1', '0', 1)}", ALONE + CLASSES),
    (
        "pair",
        "(float[n, 2, 3] x, float[n] f) => (float[n, 2, 3] y)",
        "y = Neg(x)",
        '[image]\ninput = "x"\n' + GREY,
    ),
)
LEVELS = [noise(2, 3, seed=seed) for seed in (1, 2)]
FILES = [encoded(each) for each in LEVELS]
TEXTS = [base64.b64encode(each).decode() for each in FILES]


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    for name, ends, computed, toml in MODELS:
        folder = tmp_path / "models" / name
        (folder / "1").mkdir(parents=True)
        onnx.save(model(f"{name} {ends} {{ {computed} }}"), str(folder / "1/model.onnx"))
        (folder / "model.toml").write_text(toml)
        (folder / "labels.txt").write_text("left\nmiddle\nright\n")
    made = create_app(
        Settings(repository=tmp_path / "models", cache_dir=tmp_path / "cache", load_trial=False)
    )
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as opened:
        yield opened


def ranked(levels: Any, count: int = 2) -> list[tuple[float, int, str]]:
    """What the model `seen` tells of a picture."""
    highest = levels.max(axis=0)
    order = sorted(range(3), key=lambda index: (-int(highest[index]), index))[:count]
    return [(float(highest[index]), index, ("left", "middle", "right")[index]) for index in order]


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
async def test_pictures_are_answered_with_classes_where_the_model_has_some(
    client: httpx.AsyncClient, count: int
) -> None:
    """Objects in one dialect, strings in the other; a row for each picture, alone or in a form."""
    more: dict[str, Any] = {"files": [("p", each) for each in FILES]}
    if count == 1:
        more = {"content": FILES[0], "headers": {"content-type": "image/png"}}
    rows = [ranked(each) for each in LEVELS[:count]]
    predicted = (await client.post("/v1/models/seen:predict", **more)).json()
    classes = [[{"index": i, "score": s, "label": w} for s, i, w in row] for row in rows]
    assert predicted == {"predictions": [{"classes": each} for each in classes]}
    inferred = (await client.post("/v2/models/seen/versions/1/infer", **more)).json()
    strings = [f"{s}:{i}:{w}" for row in rows for s, i, w in row]
    output = {"name": "y", "datatype": "BYTES", "shape": [count, 2], "data": strings}
    assert inferred == {"model_name": "seen", "model_version": "1", "outputs": [output]}


async def test_a_model_without_classes_is_answered_with_its_tensors(client: httpx.AsyncClient) -> None:
    """As a message would be that asks for nothing."""
    files = [("p", each) for each in FILES]
    expected = (-np.stack(LEVELS).astype(np.float32)).tolist()
    assert (await client.post("/v1/models/image:predict", files=files)).json() == {"predictions": expected}
    (output,) = (await client.post("/v2/models/image/infer", files=files)).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP32", [2, 2, 3])
    assert output["data"] == np.ravel(expected).tolist()


async def test_several_outputs_come_in_rows_where_all_have_them(client: httpx.AsyncClient) -> None:
    """And as columns where one has none: the caller of a picture cannot ask otherwise."""
    files = [("p", each) for each in FILES]
    stack = np.stack(LEVELS).astype(np.float32)
    high, low = stack.max(axis=1).tolist(), (-stack.max(axis=1)).tolist()
    two = (await client.post("/v1/models/two:predict", files=files)).json()
    assert two == {"predictions": [{"y": y, "z": z} for y, z in zip(high, low, strict=True)]}
    apart = (await client.post("/v1/models/apart:predict", files=files)).json()
    assert apart == {"outputs": {"y": high, "z": float(stack.max())}}


async def test_a_model_that_takes_one_picture_has_one_row_of_classes(client: httpx.AsyncClient) -> None:
    """Its strings are a plain list."""
    more: dict[str, Any] = {"content": FILES[0], "headers": {"content-type": "image/png"}}
    best = ranked(LEVELS[0])
    told = (await client.post("/v1/models/alone:predict", **more)).json()["predictions"]
    assert [[each["label"] for each in row["classes"]] for row in told] == [[word for *_, word in best]]
    (output,) = (await client.post("/v2/models/alone/infer", **more)).json()["outputs"]
    assert (output["shape"], output["data"]) == ([2], [f"{s}:{i}:{w}" for s, i, w in best])


async def test_an_array_is_answered_with_tensors_though_the_model_has_classes(
    client: httpx.AsyncClient,
) -> None:
    """Whoever sends a tensor wants one; in the array's own rows."""
    file = io.BytesIO()
    np.save(file, np.stack(LEVELS).astype(np.float32))
    more: dict[str, Any] = {"content": file.getvalue(), "headers": {"content-type": "application/x-npy"}}
    expected = np.stack(LEVELS).max(axis=1).tolist()
    assert (await client.post("/v1/models/seen:predict", **more)).json() == {"predictions": expected}
    (output,) = (await client.post("/v2/models/seen/infer", **more)).json()["outputs"]
    assert output["data"] == np.ravel(expected).tolist()


async def test_scores_that_are_no_numbers_are_null_and_counted(client: httpx.AsyncClient, app: App) -> None:
    """Those that are told, not those of the whole output."""
    dark = np.array([[1, 0, 2], [0, 0, 0]], np.uint8)
    more: dict[str, Any] = {"content": encoded(dark), "headers": {"content-type": "image/png"}}
    (row,) = (await client.post("/v1/models/roots:predict", **more)).json()["predictions"]
    assert [(each["index"], each["score"]) for each in row["classes"]] == [(1, 0.0), (0, None)]
    assert app.state.service.metrics.of_model("roots", 1).nulls.count == 1


# -- refusals --------------------------------------------------------------------------------------


async def called(app: App, path: str, content_type: str) -> tuple[int, str]:
    """Status and error of a request whose body may not be read."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body is read")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", content_type.encode()), (b"content-length", b"70000")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]


@pytest.mark.parametrize(
    "path", ["/v1/models/{}:predict", "/v2/models/{}/infer", "/v2/models/{}/versions/1/infer"]
)
async def test_what_a_model_does_not_take_is_refused_before_it_is_read(app: App, path: str) -> None:
    """Pictures where there is no section for them, several inputs, types that nobody takes."""
    for content_type in ("image/png", "multipart/form-data; boundary=b"):
        status, error = await called(app, path.format("plain"), content_type)
        assert (status, error) == (415, "the model takes no pictures: its model.toml has no section [image]")
        status, error = await called(app, path.format("pair"), content_type)
        assert (status, error.startswith("body: holds one input, and the model has several")) == (400, True)
    status, error = await called(app, path.format("seen"), "video/mp4")
    assert (status, error.startswith("content-type 'video/mp4' is not served; JSON is, and ")) == (415, True)
    status, error = await called(app, path.format("nobody"), "image/png")
    assert status == 404
    assert app.state.service.metrics.of_model("plain", 1).refused.count == 2


@pytest.mark.parametrize(
    "content_type", ["image/png", "multipart/form-data; boundary=b", "application/x-npy"]
)
async def test_an_empty_body_is_refused_by_its_place(client: httpx.AsyncClient, content_type: str) -> None:
    """As one that holds the wrong thing is; never with 500."""
    for path in ("/v1/models/seen:predict", "/v2/models/seen/infer"):
        for content in (b"", b"{}", b"--b--", b"\0" * 100_000):
            answer = await client.post(path, content=content, headers={"content-type": content_type})
            assert answer.status_code == 400
            assert answer.json()["error"].startswith(("body: ", "parts["))


# -- where a body is read --------------------------------------------------------------------------


def v2_text(datatype: str = "BYTES", **more: Any) -> str:
    return json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": datatype, **more}]})


FORM = "multipart/form-data; boundary=b"
BLOB = struct.pack("<I", len(FILES[0])) + FILES[0]
BEHIND = v2_text(parameters={"binary_data_size": len(BLOB)})
PICTURES: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "a picture": ("infer", FILES[0], {"content-type": "image/png"}),
    "a picture for predict": ("predict", FILES[0], {"content-type": "image/png"}),
    "a form": ("infer", b"--b\r\n\r\n" + FILES[0] + b"\r\n--b--", {"content-type": FORM}),
    "base64": ("infer", v2_text(data=TEXTS[:1]).encode(), {}),
    "base64 under another name of its type": (
        "infer", v2_text("@", data=TEXTS[:1]).replace("@", r"B\u0059TES").encode(), {}
    ),
    "bytes": ("infer", BEHIND.encode() + BLOB, {"inference-header-content-length": str(len(BEHIND))}),
    "rows": ("predict", json.dumps({"instances": [{"b64": TEXTS[0]}]}).encode(), {}),
    "columns": ("predict", json.dumps({"inputs": {"x": {"b64": TEXTS[0]}}}).encode(), {}),
}  # fmt: skip


@pytest.mark.parametrize("how", PICTURES)
async def test_a_picture_is_never_decoded_where_the_event_loop_runs(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """However it comes and however short it is: a few bytes may be millions of pixels."""
    where: list[bool] = []
    prepared = Reading.tensor_of

    def tensor_of(*arguments: Any) -> Any:
        try:
            asyncio.get_running_loop()
            where.append(True)
        except RuntimeError:
            where.append(False)
        return prepared(*arguments)

    monkeypatch.setattr(Reading, "tensor_of", tensor_of)
    verb, content, headers = PICTURES[how]
    path = "/v2/models/seen/infer" if verb == "infer" else "/v1/models/seen:predict"
    answer = await client.post(path, content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    assert where == [False]
