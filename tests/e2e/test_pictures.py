"""Pictures and arrays sent to the digits network over real sockets, by every client that is at hand.

After each test the server's log is free of failures: whatever is sent, it is never the server's.
"""

import base64
import gzip
import http.client
import io
import json
import select
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from infold.rest.connection import LONG_BYTES
from pictures import encoded, noise, png_header
from servers import ROOT, Server, running

SEVEN = (ROOT / "examples/digits/seven.png").read_bytes()
TEXT = base64.b64encode(SEVEN).decode()
INFER, PREDICT = "/v2/models/digits/infer", "/v1/models/digits:predict"
NONE = "is no JPEG, PNG or WebP picture"
# As long as a body that goes its own way from the socket, and as a short one.
LONG_PICTURE = encoded(noise(400, 400))
assert len(SEVEN) < LONG_BYTES < len(LONG_PICTURE)


@pytest.fixture(scope="module")
def shared(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The digits network, which takes pictures, and others, which do not."""
    root = tmp_path_factory.mktemp("pictures")
    for name in ("digits", "double", "echo_fp32", "pair", "text"):
        shutil.copytree(repository / name, root / "models" / name)
    settings = root / "models/digits/model.toml"
    settings.write_text(settings.read_text() + '[session]\ninline = "always"\n')
    with running(root / "models", root / "server.log") as started:
        yield started


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    yield shared
    for line in shared.log.read_text().splitlines():
        assert json.loads(line)["level"] in ("info", "warning"), line


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as opened:
        yield opened


@pytest.fixture
def triton(server: Server) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server.address) as opened:
        yield opened


def predicted(answer: Any) -> list[list[str]]:
    """The labels of each row, as v1 tells them."""
    return [[each["label"] for each in row["classes"]] for row in answer["predictions"]]


def inferred(answer: Any) -> list[list[str]]:
    """The labels of each row, as protocol v2 tells them."""
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"]) == ("logits", "BYTES")
    labels = [each.split(":")[2] for each in output["data"]]
    rows, top = output["shape"]
    return [labels[row * top : (row + 1) * top] for row in range(rows)]


def refusal(answer: httpx.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    return str(answer.json()["error"])


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def kind(name: str) -> dict[str, str]:
    return {"content-type": name}


# -- one picture, every way ------------------------------------------------------------------------


def curl(server: Server, *arguments: str) -> Any:
    done = subprocess.run(
        ["curl", "-sS", "--fail-with-body", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["examples/digits/seven.png", "long"])
@pytest.mark.parametrize("expect", ["Expect:", "Expect: 100-continue"])
def test_curl_sends_a_file(server: Server, tmp_path: Path, name: str, expect: str) -> None:
    """In a form, or as the body; whether or not it asks first."""
    if name == "long":
        (tmp_path / "long.png").write_bytes(LONG_PICTURE)
        name = str(tmp_path / "long.png")
    for path, labels in ((INFER, inferred), (PREDICT, predicted)):
        url = server.url + path
        form = curl(server, url, "-H", expect, "-F", f"image=@{name}")
        body = curl(server, url, "-H", expect, "-H", "content-type: image/png", "--data-binary", f"@{name}")
        assert form == body
        ((first, *_),) = labels(form)
        assert first == "7" or name.endswith("long.png")


def test_both_dialects_tell_the_same_scores(client: httpx.Client) -> None:
    """Probabilities, the largest first."""
    rows = client.post(PREDICT, files={"image": SEVEN}).json()["predictions"]
    strings = client.post(INFER, files={"image": SEVEN}).json()["outputs"][0]["data"]
    ((seven, *others),) = [row["classes"] for row in rows]
    assert strings == [f"{each['score']}:{each['index']}:{each['label']}" for each in (seven, *others)]
    assert (seven["index"], seven["label"], len(others)) == (7, "7", 2)
    assert seven["score"] > 0.99


def test_a_picture_in_json(client: httpx.Client) -> None:
    """As TF-Serving has it, and as BYTES in base64; a message is answered with what it asks for."""
    logits = None
    for request in (
        {"instances": [{"b64": TEXT}]},
        {"instances": [{"image": {"b64": TEXT}}]},
        {"inputs": {"image": [{"b64": TEXT}]}},
    ):
        answer = client.post(PREDICT, json=request).json()
        (row,) = answer.get("predictions") or answer["outputs"]
        assert np.argmax(row) == 7
        assert logits in (None, row)
        logits = row
    entry = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
    (output,) = client.post(INFER, json={"inputs": [entry]}).json()["outputs"]
    assert (output["datatype"], output["data"]) == ("FP32", logits)
    wanted = [{"name": "logits", "parameters": {"classification": 2}}]
    answer = client.post(INFER, json={"inputs": [entry], "outputs": wanted}).json()
    ((first, _),) = inferred(answer)
    assert first == "7"


def bytes_input(*pictures: bytes, binary: bool = True) -> InferInput:
    whole = pictures if binary else [base64.b64encode(each).decode() for each in pictures]
    given = InferInput("image", [len(pictures)], "BYTES")
    return given.set_data_from_numpy(np.array(whole, np.object_), binary_data=binary)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip"])
def test_tritons_client_sends_pictures_as_bytes(
    triton: InferenceServerClient, binary: bool, coding: str | None
) -> None:
    """As they are behind the JSON, in base64 within it."""
    given = [bytes_input(SEVEN, LONG_PICTURE, SEVEN, binary=binary)]
    logits = triton.infer("digits", given, request_compression_algorithm=coding).as_numpy("logits")
    assert logits.shape == (3, 10)
    assert logits[0].tolist() == logits[2].tolist() != logits[1].tolist()
    assert logits[0].argmax() == 7
    wanted = [InferRequestedOutput("logits", class_count=1)]
    told = triton.infer("digits", given, outputs=wanted).as_numpy("logits")
    assert [each.decode().split(":")[2] for each in told[::2, 0]] == ["7", "7"]


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_is_told_which_of_its_pictures_is_none(
    triton: InferenceServerClient, binary: bool
) -> None:
    """By the place of it."""
    with pytest.raises(InferenceServerException, match=r"inputs\[0\]\.data\[1\]: is no JPEG") as caught:
        triton.infer("digits", [bytes_input(SEVEN, b"hello", SEVEN, binary=binary)])
    assert caught.value.status() == "400"


@pytest.mark.parametrize("path", [INFER, PREDICT, "/v2/models/digits/versions/1/infer"])
def test_a_compressed_upload_is_read(client: httpx.Client, path: str) -> None:
    """A form or a file, short or long."""
    for picture in (SEVEN, LONG_PICTURE):
        plain = client.post(path, content=picture, headers=kind("image/png"))
        form = httpx.Request("POST", "http://here", files={"image": picture})
        for body, headers in (
            (picture, kind("image/png")),
            (form.read(), kind(form.headers["content-type"])),
        ):
            packed = client.post(
                path, content=gzip.compress(body), headers=headers | {"content-encoding": "gzip"}
            )
            assert packed.status_code == 200
            assert packed.json() == plain.json()


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_picture_is_told_by_its_first_bytes(client: httpx.Client, format_: str, mode: str) -> None:
    """Whatever its type or its name says, in grey, colours or a palette."""
    image = Image.open(io.BytesIO(SEVEN)).convert(mode)
    picture = encoded(image.convert("RGB") if format_ == "JPEG" and mode == "P" else image, format_)
    for name in ("image/png", "image/jpeg", "image/gif", "IMAGE/anything; q=1"):
        ((first, *_),) = predicted(client.post(PREDICT, content=picture, headers=kind(name)).json())
        assert first == "7"


# -- several ---------------------------------------------------------------------------------------


def test_two_pictures_are_two_rows(client: httpx.Client) -> None:
    """In the order of the form, under one name or two."""
    alone = client.post(PREDICT, files={"image": LONG_PICTURE}).json()["predictions"]
    for names in (("image", "image"), ("b", "a")):
        files = [(name, ("n.png", each)) for name, each in zip(names, (SEVEN, LONG_PICTURE), strict=True)]
        answer = client.post(PREDICT, files=files).json()
        assert predicted(answer)[0][0] == "7"
        assert answer["predictions"][1:] == alone
        assert len(inferred(client.post(INFER, files=files).json())) == 2


def test_a_bad_picture_among_good_ones_is_told_by_its_part(client: httpx.Client) -> None:
    """No row is answered then."""
    files = [("image", SEVEN), ("image", SEVEN[:-40]), ("image", SEVEN)]
    for path in (INFER, PREDICT):
        error = refusal(client.post(path, files=files))
        assert error.startswith("parts[1] 'image': is no readable PNG picture: ")
    form: Any = {"files": {"image": SEVEN}, "data": {"comment": "a seven"}}
    assert refusal(client.post(PREDICT, **form)) == f"parts[0] 'comment': {NONE}"


# -- what is none ----------------------------------------------------------------------------------

GIF = encoded(noise(8, 8), "GIF")
BAD: dict[str, tuple[bytes, str]] = {
    "a billion pixels wide": (png_header(10**9, 1), "has 1000000000 x 1 pixels, which is more than "),
    "a billion pixels in all": (png_header(40_000, 40_000), "has 40000 x 40000 pixels, which is more than "),
    "no pixels": (png_header(0, 8), "is no readable PNG picture: "),
    "a header alone": (png_header(8, 8), "is no readable PNG picture: "),
    "cut off": (SEVEN[: len(SEVEN) // 2], "is no readable PNG picture: "),
    "cut off within its header": (SEVEN[:20], "is no readable PNG picture: "),
    "a text": (b"7\n", NONE),
    "a GIF": (GIF, NONE),
    "a page": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NONE),
    "nothing": (b"", "is empty"),
    "60 MB of zeros": (bytes(60_000_000), NONE),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_picture_is_refused_in_words(client: httpx.Client, what: str) -> None:
    """As the body and in a form; the connection goes on."""
    content, words = BAD[what]
    as_body = {"content": content, "headers": kind("image/png")}
    as_part = {"files": [("image", ("n.png", content))]}
    for more, place in ((as_body, "body"), (as_part, "parts[0] 'image'")):
        assert refusal(client.post(PREDICT, **more)).startswith(f"{place}: {words}")
    assert predicted(client.post(PREDICT, files={"image": SEVEN}).json())[0][0] == "7"


def test_a_body_above_the_limit_is_413(client: httpx.Client) -> None:
    """Said to be so, or grown to be so from a few bytes."""
    packed = gzip.compress(bytes(70_000_000))
    headers = kind("image/png") | {"content-encoding": "gzip"}
    assert "exceeds the maximum" in refusal(client.post(INFER, content=packed, headers=headers), 413)
    with httpx.Client(base_url=client.base_url) as other:
        assert "exceeds" in refusal(
            other.post(INFER, content=bytes(70_000_000), headers=kind("image/png")), 413
        )


@pytest.mark.parametrize("path", [INFER, PREDICT])
@pytest.mark.parametrize(
    "name", ["video/mp4", "application/pdf", "multipart/mixed; boundary=b", "application/xml"]
)
def test_a_type_that_is_not_served_is_415_with_those_that_are(
    client: httpx.Client, path: str, name: str
) -> None:
    """Whatever the body is."""
    for content in (SEVEN, LONG_PICTURE):
        error = refusal(client.post(path, content=content, headers=kind(name)), 415)
        assert error.startswith(f"content-type '{name.partition(';')[0]}' is not served")
        assert "image/png" in error
    assert client.post(path, content=SEVEN, headers=kind("image/png")).status_code == 200


def test_a_picture_that_is_not_said_to_be_one_is_no_message(client: httpx.Client) -> None:
    """What `curl --data-binary` sends without a type, or bytes of no type: they are taken for JSON."""
    for path in (INFER, PREDICT):
        for headers in ({}, kind("application/x-www-form-urlencoded"), kind("application/octet-stream")):
            assert "JSON" in refusal(client.post(path, content=SEVEN, headers=headers))


@pytest.mark.parametrize("model", ["double", "text", "pair"])
def test_a_model_without_a_section_for_pictures_takes_none(client: httpx.Client, model: str) -> None:
    """415, with what is missing; in messages too they are none."""
    for path in (f"/v2/models/{model}/infer", f"/v1/models/{model}:predict"):
        for picture in (SEVEN, LONG_PICTURE):
            for more in ({"files": {"image": picture}}, {"content": picture, "headers": kind("image/png")}):
                assert "no section [image]" in refusal(client.post(path, **more), 415)  # type: ignore[arg-type]
    if model == "double":
        assert "is no FP32" in refusal(
            client.post("/v1/models/double:predict", json={"instances": [{"b64": TEXT}]})
        )
        assert refusal(client.post("/v2/models/nobody/infer", files={"image": SEVEN}), 404)


@pytest.mark.parametrize(
    ("content_type", "body", "error"),
    [
        ("multipart/form-data", b"--b--", "content-type: multipart/form-data without a boundary"),
        ("multipart/form-data; boundary=b", b"--b--", "body: the form has no parts"),
        ("multipart/form-data; boundary=b", SEVEN, "body: the boundary that content-type tells is not in it"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\n\r\n" + SEVEN,
            "parts[0]: the form ends before this part does",
        ),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\n\r\n1\r\n" * 1025 + b"--b--",
            "body: more than 1024 parts",
        ),
    ],
)
def test_what_is_no_form_is_refused_in_words(
    client: httpx.Client, content_type: str, body: bytes, error: str
) -> None:
    """By the header, the body or the part."""
    for path in (INFER, PREDICT):
        assert refusal(client.post(path, content=body, headers=kind(content_type))) == error


def test_a_form_made_to_take_long_is_refused_at_once(client: httpx.Client) -> None:
    """60 MB of what begins like a boundary."""
    body = b"--b\r\n\r\n" + b"\r\n--bx" * 10_000_000
    error = refusal(client.post(INFER, content=body, headers=kind("multipart/form-data; boundary=b")))
    assert error == "parts[1]: begins behind a boundary whose line goes on"


# -- asking first ----------------------------------------------------------------------------------


def test_who_asks_first_is_told_before_sending(server: Server) -> None:
    """To go on where the model takes pictures, and why not where it does not."""
    host, port = server.address.split(":")
    for picture in (SEVEN, LONG_PICTURE):
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            for path, first in ((PREDICT, b"100 Continue"), ("/v1/models/double:predict", b"415 ")):
                head = (
                    f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\nexpect: 100-continue\r\n"
                )
                sock.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(picture))
                told = sock.recv(2**16)
                assert told.startswith(b"HTTP/1.1 " + first), told
                if first == b"100 Continue":
                    sock.sendall(picture)
                    answer = sock.recv(2**16)
                    assert answer.startswith(b"HTTP/1.1 200 OK"), answer
                    assert b'"label":"' in answer


# -- arrays ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(digits: dict[str, Any]) -> Any:
    return digits["image"][:4]


@pytest.mark.parametrize("path", [INFER, PREDICT])
def test_an_array_is_answered_as_its_numbers_in_json_are(client: httpx.Client, rows: Any, path: str) -> None:
    """In either order of axes and of bytes, packed or not."""
    if path == PREDICT:
        expected = client.post(path, json={"instances": rows.tolist()}).json()
    else:
        entry = {
            "name": "image",
            "shape": list(rows.shape),
            "datatype": "FP32",
            "data": rows.ravel().tolist(),
        }
        expected = client.post(path, json={"inputs": [entry]}).json()
    for array in (rows, np.asfortranarray(rows), rows.astype(">f4"), np.asfortranarray(rows.astype(">f4"))):
        file = saved(array)
        for name in ("application/x-npy", "application/npy"):
            assert client.post(path, content=file, headers=kind(name)).json() == expected
        packed = {"content": gzip.compress(file), "headers": kind(name) | {"content-encoding": "gzip"}}
        assert client.post(path, **packed).json() == expected  # type: ignore[arg-type]


def test_a_long_array_is_read_too(client: httpx.Client, rows: Any) -> None:
    """And one of no rows."""
    long = np.random.default_rng(4).normal(size=(4, 30_000)).astype(np.float32)
    assert long.nbytes > LONG_BYTES
    for array in (long, np.asfortranarray(long), long.astype(">f4")):
        path = "/v1/models/echo_fp32:predict"
        answer = client.post(path, content=saved(array), headers=kind("application/x-npy")).json()
        assert np.array(answer["predictions"], np.float32).tolist() == long.tolist()
    none = client.post(PREDICT, content=saved(rows[:0]), headers=kind("application/x-npy")).json()
    assert none == {"predictions": []}


class Trap:
    """What leaves a trace where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_an_array_of_objects_is_never_unpickled(client: httpx.Client, tmp_path: Path) -> None:
    """It is code of the caller's."""
    body = saved(np.array([Trap(tmp_path / "trace")], np.object_))
    for path in (INFER, PREDICT, "/v1/models/text:predict"):
        error = refusal(client.post(path, content=body, headers=kind("application/x-npy")))
        assert error == "body: holds '|O', which is no type of tensors"
    assert not (tmp_path / "trace").exists()


def header_of(array: Any, **changes: object) -> bytes:
    """An array's file with another header."""
    fields = {"descr": "<f4", "fortran_order": False, "shape": array.shape} | changes
    text = repr(fields).encode()
    return b"\x93NUMPY\2\0" + len(text).to_bytes(4, "little") + text + array.tobytes()


def test_what_is_no_such_array_is_refused_in_words(client: httpx.Client, rows: Any) -> None:
    """Its type, its shape, its length, or what its header claims."""
    bombs = (
        header_of(rows, shape=(2**40, 1, 8, 8)),
        header_of(rows, shape=(10**30,)),
        header_of(rows, shape=(True, 1, 8, 8)),
        header_of(rows, shape=(-1, 1, 8, 8)),
        header_of(rows, descr=[("x", "<f4")] * 2000),
        header_of(rows, shape="(" * 9000),
        b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(1000),
    )
    for body, words in (
        (saved(rows.astype(np.float64)), "holds float64, the model takes float32 (FP32)"),
        (saved(rows.astype(np.uint8)), "holds uint8, the model takes float32 (FP32)"),
        (saved(rows[:, 0]), "shape [4, 8, 8] given, the model takes [-1, 1, 8, 8]"),
        (saved(rows)[:-1], "1023 bytes behind the header, shape [4, 1, 8, 8] of float32 takes 1024"),
        (saved(rows.astype(">f4")) + b"\0", "1025 bytes behind the header"),
        (SEVEN, "is no .npy file"),
        *((bomb, "") for bomb in bombs),
    ):
        for path in (INFER, PREDICT):
            error = refusal(client.post(path, content=body, headers=kind("application/x-npy")))
            assert error.startswith(f"body: {words}")
            assert len(error) < 250
    more = {"content": saved(rows), "headers": kind("application/x-npy")}
    assert "the model has several" in refusal(client.post("/v2/models/pair/infer", **more))


# -- many ------------------------------------------------------------------------------------------


def ask(connection: http.client.HTTPConnection, request: httpx.Request) -> None:
    """The whole request is on its way."""
    connection.request(request.method, request.url.path, request.read(), dict(request.headers))


def test_tensors_are_answered_while_pictures_are_decoded(server: Server, digits: dict[str, Any]) -> None:
    """32 pictures of 40 million pixels, sent in three ways: none of them keeps others waiting."""
    flat = encoded(Image.new("1", (8000, 5000)))
    entry: dict[str, Any] = {"name": "image", "shape": [1], "datatype": "BYTES"}
    in_json = {"inputs": [entry | {"data": [base64.b64encode(flat).decode()]}]}
    assert len(json.dumps(in_json)) < 2**14, "what is short may be read at once"
    ways: list[dict[str, Any]] = [
        {"content": flat, "headers": kind("image/png")},
        {"files": {"image": flat}},
        {"json": in_json},
    ]
    data = digits["image"][0].ravel().tolist()
    numbers = {"inputs": [entry | {"shape": [1, 1, 8, 8], "datatype": "FP32", "data": data}]}
    opened = [http.client.HTTPConnection(server.address, timeout=60) for _ in range(33)]
    for each in opened:  # none is accepted later than another asks
        ask(each, httpx.Request("GET", server.url + "/v2/health/live"))
        assert each.getresponse().read()
    *many, one = opened
    for index, each in enumerate(many):
        ask(each, httpx.Request("POST", server.url + INFER, **ways[index % 3]))
    ask(one, httpx.Request("POST", server.url + INFER, json=numbers))
    assert json.loads(one.getresponse().read())["outputs"][0]["shape"] == [1, 10]
    told = select.select([each.sock for each in many], [], [], 0)[0]
    waiting = {index % 3 for index, each in enumerate(many) if each.sock not in told}
    assert waiting == {0, 1, 2}, "the tensor was answered after all pictures of some way"
    answers = [json.loads(each.getresponse().read())["outputs"] for each in many]
    for way in (0, 1, 2):
        assert answers[way][0]["datatype"] == ("BYTES", "BYTES", "FP32")[way]
        assert all(each == answers[way] for each in answers[way::3])
    for each in opened:
        each.close()
