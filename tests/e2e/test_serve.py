import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from servers import ROOT, Server, running, serve_fails, slow_model

DATATYPES = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "fp32", "fp64"]


def infer(client: httpx.Client, model: str, *inputs: dict[str, object], **more: object) -> httpx.Response:
    return client.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **more})


def tensor(name: str, array: np.ndarray, datatype: str) -> dict[str, object]:
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.tolist()}


# -- answers --------------------------------------------------------------------------------------


def test_the_digits_network_reads_held_out_digits(
    client: httpx.Client, digits: dict[str, np.ndarray]
) -> None:
    """The whole product at once: trained, converted, folded, served, asked."""
    answer = infer(client, "digits", tensor("image", digits["image"], "FP32"), id="a-1")
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("digits", "1", "a-1")
    (output,) = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [20, 10])
    logits = np.array(output["data"]).reshape(20, 10)
    assert logits.argmax(axis=1).tolist() == digits["label"].tolist()


def test_answers_equal_the_golden_ones(client: httpx.Client) -> None:
    """What is served is what was proven: equal to the unfolded model within rounding."""
    with np.load(ROOT / "models/digits/1/golden.npz") as golden:
        image, wanted = golden["in.image"], golden["out.logits"]
    data = infer(client, "digits", tensor("image", image, "FP32")).json()["outputs"][0]["data"]
    report = json.loads((ROOT / "models/digits/1/model.fold-report.json").read_text())
    allowed = report["proof"]["outputs"][0]["bound"]
    assert np.abs(np.array(data).reshape(wanted.shape) - wanted).max() <= allowed


def test_rows_and_columns_of_predict_agree(client: httpx.Client, digits: dict[str, np.ndarray]) -> None:
    """TF-Serving's two spellings of one request."""
    images = digits["image"][:3].tolist()
    rows = client.post("/v1/models/digits:predict", json={"instances": images}).json()["predictions"]
    columns = client.post("/v1/models/digits/versions/1:predict", json={"inputs": images}).json()["outputs"]
    assert rows == columns
    assert np.argmax(rows, axis=1).tolist() == digits["label"][:3].tolist()


def test_predict_takes_several_named_inputs(client: httpx.Client) -> None:
    """Rows of objects, or an object of columns."""
    rows = [{"a": [1, 2], "b": [10, 20]}, {"a": [3, 4], "b": [30, 40]}]
    by_row = client.post("/v1/models/pair:predict", json={"instances": rows}).json()
    assert by_row == {
        "predictions": [{"total": [11, 22], "same": [10, 20]}, {"total": [33, 44], "same": [30, 40]}]
    }
    columns = {"inputs": {"a": [[1, 2], [3, 4]], "b": [[10, 20], [30, 40]]}}
    by_column = client.post("/v1/models/pair:predict", json=columns).json()
    assert by_column == {"outputs": {"total": [[11, 22], [33, 44]], "same": [[10, 20], [30, 40]]}}


@pytest.mark.parametrize("name", [*DATATYPES, "fp16"])
def test_every_datatype_comes_back_as_it_went(client: httpx.Client, name: str) -> None:
    """Extremes included: nothing is rounded or wrapped on the way."""
    dtype = {"fp16": np.float16, "fp32": np.float32, "fp64": np.float64}.get(name, name)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        array = np.array([[True, False]])
    else:
        limits = np.iinfo(kind) if kind.kind in "iu" else np.finfo(kind)  # type: ignore[arg-type]
        array = np.array([[limits.min, limits.max, 0, 1]], kind)
    output = infer(client, f"echo_{name}", tensor("x", array, name.upper())).json()["outputs"][0]
    assert output["datatype"] == name.upper()
    np.testing.assert_array_equal(np.array(output["data"], kind).reshape(output["shape"]), array)


def test_strings_come_back_as_they_went(client: httpx.Client) -> None:
    """BYTES in JSON are strings."""
    data = ["", "plain", "zwölf", "a\u0000b"]
    request = {"name": "x", "shape": [4], "datatype": "BYTES", "data": data}
    assert infer(client, "text", request).json()["outputs"][0]["data"] == data


def test_zero_rows_are_answered_with_zero_rows(client: httpx.Client) -> None:
    """An empty batch is legal."""
    output = infer(client, "double", tensor("x", np.zeros((0, 4)), "FP32")).json()["outputs"][0]
    assert (output["shape"], output["data"]) == ([0, 4], [])


def test_only_the_outputs_asked_for_come_in_the_order_asked(client: httpx.Client) -> None:
    """Without a list all come, in the model's order."""
    inputs = [tensor("a", np.ones((1, 2)), "FP32"), tensor("b", np.ones((1, 2), int), "INT64")]
    asked = infer(client, "pair", *inputs, outputs=[{"name": "same"}, {"name": "total"}]).json()
    assert [each["name"] for each in asked["outputs"]] == ["same", "total"]
    assert [each["name"] for each in infer(client, "pair", *inputs).json()["outputs"]] == ["total", "same"]


def test_versions_are_addressed_and_the_newest_is_the_default(client: httpx.Client) -> None:
    """`versions = "all"` in model.toml serves both."""
    request = {"inputs": [tensor("x", np.ones((1, 4)), "FP32")]}
    for path, version in (("", "2"), ("/versions/1", "1"), ("/versions/2", "2")):
        answer = client.post(f"/v2/models/double{path}/infer", json=request)
        assert answer.json()["model_version"] == version


def test_many_requests_at_once_all_get_their_own_answer(server: Server) -> None:
    """Batching mixes rows of several callers; nobody gets another's."""
    wrong: list[object] = []

    def caller(seed: int) -> None:
        rng = np.random.default_rng(seed)
        with httpx.Client(base_url=server.url, timeout=20) as own:
            for _ in range(40):
                array = rng.integers(-1000, 1000, (int(rng.integers(1, 5)), 4)).astype(np.float32)
                data = infer(own, "double", tensor("x", array, "FP32")).json()["outputs"][0]["data"]
                if data != (array * 2).reshape(-1).tolist():
                    wrong.append((array, data))

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- Triton's own client --------------------------------------------------------------------------


def test_tritonclient_finds_its_way(server: Server, digits: dict[str, np.ndarray]) -> None:
    """Health, metadata and inference as Triton's Python client asks for them."""
    with InferenceServerClient(server.address) as triton:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready("digits")
        assert not triton.is_model_ready("nobody")
        assert triton.get_server_metadata()["name"] == "infold"
        assert triton.get_model_metadata("digits")["inputs"] == [
            {"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}
        ]
        image = InferInput("image", list(digits["image"].shape), "FP32")
        image.set_data_from_numpy(digits["image"], binary_data=False)
        wanted = [InferRequestedOutput("logits", binary_data=False)]
        result = triton.infer("digits", [image], outputs=wanted, request_id="t7")
        assert result.get_response()["id"] == "t7"
        logits = result.as_numpy("logits")
        assert logits is not None
        assert logits.argmax(axis=1).tolist() == digits["label"].tolist()


@pytest.mark.parametrize("name", DATATYPES)
def test_tritonclient_exchanges_every_datatype(server: Server, name: str) -> None:
    """In JSON; FP16 has no JSON form in that client."""
    kind = np.dtype({"fp32": "float32", "fp64": "float64"}.get(name, name))
    array = np.array([[0, 1, 1]], kind)
    with InferenceServerClient(server.address) as triton:
        sent = InferInput("x", [1, 3], name.upper())
        sent.set_data_from_numpy(array, binary_data=False)
        result = triton.infer(f"echo_{name}", [sent]).as_numpy("y")
    np.testing.assert_array_equal(result, array)


def test_tritonclient_understands_our_errors(server: Server) -> None:
    """It needs the `error` key; anything else becomes a riddle to its user."""
    with InferenceServerClient(server.address) as triton:
        sent = InferInput("x", [1, 3], "FP32")
        sent.set_data_from_numpy(np.zeros((1, 3), np.float32), binary_data=False)
        with pytest.raises(InferenceServerException, match="shape .1, 3. given, the model takes .-1, 4."):
            triton.infer("double", [sent])


# -- mistakes -------------------------------------------------------------------------------------

GOOD = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "request: not valid JSON"),
        (b"", "request: not valid JSON"),
        (b"\xff\xfe", "request: not valid JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `inputs`"),
        ({"inputs": 1}, "inputs: Expected `array`, got `int`"),
        ({"inputs": [1]}, "inputs[0]: Expected `object`, got `int`"),
        ({"inputs": []}, "inputs: 'x' is missing"),
        ({"inputs": [{**GOOD, "name": "z"}]}, "inputs[0].name: the model has no input 'z'; it has 'x'"),
        ({"inputs": [GOOD, GOOD]}, "inputs[1].name: 'x' is given twice"),
        ({"inputs": [{**GOOD, "datatype": "FP33"}]}, "inputs[0].datatype: 'FP33' is none of"),
        ({"inputs": [{**GOOD, "datatype": "FP64"}]}, "inputs[0].datatype: FP64 given, the model takes FP32"),
        ({"inputs": [{**GOOD, "shape": [4]}]}, "inputs[0].shape: shape [4] given, the model takes [-1, 4]"),
        ({"inputs": [{**GOOD, "shape": [2, 4]}]}, "inputs[0].data: 4 values given, shape [2, 4] takes 8"),
        ({"inputs": [{**GOOD, "shape": [-1, 4]}]}, "inputs[0].shape[0]: -1 is negative"),
        ({"inputs": [{**GOOD, "shape": [2**40, 2**40]}]}, "inputs[0].shape: "),
        ({"inputs": [{**GOOD, "shape": ["1", 4]}]}, "inputs[0].shape[0]: '1' is no integer"),
        ({"inputs": [{**GOOD, "data": [1, 2, 3, "4"]}]}, 'inputs[0].data[3]: "4" is no FP32'),
        (
            {"inputs": [{**GOOD, "data": [[1, 2], [3, 4]]}]},
            "inputs[0].data: nested as [2, 2], but shape is [1, 4]",
        ),
        ({"inputs": [{**GOOD, "data": [[1, 2, 3], [4]]}]}, "inputs[0].data[1]: rows differ in length"),
        (
            {"inputs": [{k: v for k, v in GOOD.items() if k != "data"}]},
            "inputs[0]: Object missing required field",
        ),
        ({"inputs": [GOOD], "outputs": [{"name": "q"}]}, "outputs[0].name: the model has no output 'q'"),
        ({"inputs": [GOOD], "outputs": [{"name": "y"}] * 2}, "outputs[1].name: 'y' is asked for twice"),
        ({"inputs": [GOOD], "id": "x" * 300}, "id: longer than 256 bytes"),
        ({"inputs": [GOOD], "id": 7}, "id: Expected `str | null`, got `int`"),
        (b'{"inputs": ' + b"[" * 250_000 + b"]" * 250_000 + b"}", "nesting depth"),
    ],
)
def test_a_wrong_request_is_refused_by_its_place(client: httpx.Client, body: object, message: str) -> None:
    """Always 400, always `{"error": ...}`, always saying where."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/v2/models/double/infer", content=content)
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        ("double", {}, "exactly one of 'instances' and 'inputs'"),
        ("double", {"instances": [], "inputs": []}, "exactly one of 'instances' and 'inputs'"),
        ("double", {"instances": 3}, "instances: must be a list of rows"),
        ("double", {"instances": [[1, 2, 3]]}, "instances.x: shape [1, 3] given, the model takes [-1, 4]"),
        ("double", {"instances": [[1, 2, 3, True]]}, "instances[0][3]: true is no FP32"),
        ("pair", {"instances": [[1, 2]]}, "the model has several inputs, name them: 'a', 'b'"),
        ("pair", {"instances": [{"a": [1, 2]}]}, "instances[0]: 'b' is missing"),
        (
            "pair",
            {"instances": [{"a": [1, 2], "b": [1, 2], "c": 1}]},
            "instances[0]: the model has no input 'c'",
        ),
        ("pair", {"instances": [{"a": [1, 2], "b": [1, 2]}, [1]]}, "rows with and without names are mixed"),
        ("pair", {"inputs": {"a": [[1, 2]], "b": [[1, 2.5]]}}, "inputs.b[0][1]: 2.5 is no INT64"),
        ("pair", {"inputs": {"a": [[1, 2]], "b": [[1, 2], [3, 4]]}}, "'batch'"),
    ],
)
def test_a_wrong_predict_request_is_refused_by_its_place(
    client: httpx.Client, model: str, body: object, message: str
) -> None:
    """The same for TF-Serving's dialect."""
    answer = client.post(f"/v1/models/{model}:predict", json=body)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v2/models/nobody", 404, "Request for unknown model: 'nobody' is not found"),
        ("POST", "/v2/models/nobody/infer", 404, "'nobody' is not found"),
        ("GET", "/v2/models/digits/versions/9", 404, "'digits' version 9 is not found"),
        ("POST", "/v2/models/digits/versions/latest/infer", 404, "'digits' version latest is not found"),
        ("POST", "/v1/models/nobody:predict", 404, "'nobody' is not found"),
        ("GET", "/v1/models/nobody", 404, "'nobody' is not found"),
        ("GET", "/nowhere", 404, "there is no /nowhere here"),
        ("GET", "/v2/models/..%2f..%2fetc/infer", 404, ""),
        ("GET", "/v2/models/digits/infer", 405, "GET is not allowed on /v2/models/digits/infer"),
        ("DELETE", "/v2", 405, "DELETE is not allowed on /v2"),
    ],
)
def test_a_wrong_address_is_told_as_json(
    client: httpx.Client, method: str, path: str, status: int, message: str
) -> None:
    """404 and 405 come as `{"error": ...}` too."""
    answer = client.request(method, path)
    assert answer.status_code == status
    assert message in answer.json()["error"]


def test_an_index_out_of_range_is_the_callers_mistake(client: httpx.Client) -> None:
    """It fits the signature, but the graph cannot take it: 400, not 500, and the server lives."""
    bad = infer(client, "lookup", {"name": "index", "shape": [1], "datatype": "INT64", "data": [7]})
    assert bad.status_code == 400
    assert "idx" in bad.json()["error"]
    good = infer(client, "lookup", {"name": "index", "shape": [1], "datatype": "INT64", "data": [2]})
    assert good.json()["outputs"][0]["data"] == [30]


def test_a_body_in_an_unknown_coding_is_refused_as_unsupported(client: httpx.Client) -> None:
    """415 with the codings that are served, and not a riddle about JSON."""
    answer = client.post("/v2/models/double/infer", content=b"x", headers={"content-encoding": "br"})
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "gzip, deflate"
    assert "content-encoding 'br' is not served" in answer.json()["error"]


def test_a_body_above_the_limit_is_413_declared_or_not(repository: Path, tmp_path: Path) -> None:
    """Nothing is read beyond the limit, chunked or not."""
    with (
        running(repository, tmp_path / "log", INFOLD_MAX_BODY_BYTES="1000") as small,
        httpx.Client(base_url=small.url) as client,
    ):
        declared = client.post("/v2/models/double/infer", content=b"x" * 1001)
        chunked = client.post("/v2/models/double/infer", content=iter([b"x" * 600, b"x" * 600]))
        for answer in (declared, chunked):
            assert answer.status_code == 413
            assert "1000 bytes" in answer.json()["error"]
        assert infer(client, "double", GOOD).status_code == 200


# -- sight ----------------------------------------------------------------------------------------


def test_every_request_has_an_id_and_one_access_line(server: Server, client: httpx.Client) -> None:
    """A caller's own id is kept if it is sane; the log has it as JSON."""
    answer = client.get("/v2", headers={"x-request-id": "order-66"})
    assert answer.headers["x-request-id"] == "order-66"
    made = client.get("/v2", headers={"x-request-id": "not sane!"}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "order-66"]
    assert (line["event"], line["method"], line["path"], line["status"]) == (
        "request answered",
        "GET",
        "/v2",
        200,
    )


def test_metrics_count_requests_and_runs(client: httpx.Client) -> None:
    """Routes are labelled by pattern, so that strangers cannot grow them."""
    infer(client, "fixed", tensor("x", np.zeros((2, 3)), "FP32"))
    client.get("/v2/models/stranger-1")
    page = client.get("/metrics").text
    assert 'infold_model_requests_total{model="fixed",version="1"}' in page
    assert 'route="/v2/models/{model}/infer",status="200"' in page.replace('method="POST",', "")
    assert 'infold_model_state{model="digits",state="ready",version="1"} 1.0' in page
    assert "stranger" not in page


def test_the_docs_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    """All it loads comes from this server, so it works on a closed network."""
    page = client.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) == 3
    for path in loaded:
        assert path.startswith("/docs/assets/")
        assert client.get(path).status_code == 200


def test_status_of_a_model_lists_its_versions(client: httpx.Client) -> None:
    """TF-Serving's form, newest first."""
    status = client.get("/v1/models/double").json()
    assert [each["version"] for each in status["model_version_status"]] == ["2", "1"]
    assert {each["state"] for each in status["model_version_status"]} == {"AVAILABLE"}


# -- life -----------------------------------------------------------------------------------------


def test_sigterm_answers_what_was_accepted_and_exits_0(tmp_path: Path) -> None:
    """Requests in flight are finished, readiness turns false, the exit code is 0."""
    slow = slow_model(tmp_path / "models")
    with running(slow, tmp_path / "log") as server, httpx.Client(base_url=server.url, timeout=30) as client:
        answers: list[httpx.Response] = []

        def call() -> None:
            answers.append(
                infer(client, "slow", {"name": "n", "shape": [1], "datatype": "INT64", "data": [SPINS]})
            )

        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        while not re.search(IN_FLIGHT, httpx.get(f"{server.url}/metrics").text):
            time.sleep(0.01)
        code = server.stop()
        for caller in callers:
            caller.join()
        assert code == 0
        assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Whoever asks twice does not want to wait for a request that takes minutes."""
    slow = slow_model(tmp_path / "models")
    with running(slow, tmp_path / "log") as server:

        def call() -> None:
            with (
                contextlib.suppress(httpx.HTTPError),
                httpx.Client(base_url=server.url, timeout=60) as client,
            ):
                infer(client, "slow", {"name": "n", "shape": [1], "datatype": "INT64", "data": [SPINS * 100]})

        caller = threading.Thread(target=call)
        caller.start()
        while not re.search(IN_FLIGHT, httpx.get(f"{server.url}/metrics").text):
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(httpx.HTTPError):  # until it is not ready, or takes no connection
            while httpx.get(f"{server.url}/v2/health/ready", timeout=1).status_code == 200:
                time.sleep(0.01)
        started = time.monotonic()
        assert server.stop() == 1
        assert time.monotonic() - started < 5
        caller.join()


SPINS = 400_000
IN_FLIGHT = r'infold_requests_in_flight\{model="slow",version="1"\} [1-9]'


def test_a_repository_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    """Exit 1, and the path."""
    code, text = serve_fails(str(tmp_path / "nowhere"), "--port", "0")
    assert code == 1
    assert text == f"infold: {tmp_path}/nowhere: there is no such model repository folder"


def test_a_corrupt_model_stops_the_start_and_is_named(tmp_path: Path, repository: Path) -> None:
    """A broken roll-out must not look healthy."""
    shutil.copytree(repository / "digits", tmp_path / "digits")
    whole = (tmp_path / "digits/1/model.onnx").read_bytes()
    (tmp_path / "digits/1/model.onnx").write_bytes(whole[: len(whole) // 2])
    code, text = serve_fails(str(tmp_path), "--port", "0")
    assert code == 1
    assert "digits/1/model.onnx" in text


def test_a_mistake_in_model_toml_is_named(tmp_path: Path, repository: Path) -> None:
    """File, key, and what is known."""
    shutil.copytree(repository / "digits", tmp_path / "digits")
    (tmp_path / "digits/model.toml").write_text("[batching]\nmax_row = 3\n")
    code, text = serve_fails(str(tmp_path), "--port", "0")
    assert code == 2
    assert "model.toml: batching.max_row: unknown; known are max_rows" in text


def test_a_taken_port_is_one_clear_line(server: Server, repository: Path) -> None:
    """Whoever has it keeps it."""
    port = server.url.rpartition(":")[2]
    code, text = serve_fails(str(repository), "--port", port)
    assert code == 2
    assert f"127.0.0.1:{port}: cannot listen here" in text


def test_cuda_is_refused_where_there_is_none(repository: Path) -> None:
    """Never silently the CPU: exit 1, what is missing, how to get it."""
    code, text = serve_fails(str(repository), "--port", "0", "--device", "cuda")
    assert code == 1
    assert "device cuda" in text
    assert "infold[gpu]" in text


def test_a_setting_that_makes_no_sense_names_its_source(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag or the variable, whichever it came from."""
    code, text = serve_fails(str(repository), "--device", "tpu")
    assert (code, text.startswith("infold: --device:")) == (2, True)
    monkeypatch.setenv("INFOLD_DEADLINE_S", "soon")
    code, text = serve_fails(str(repository))
    assert (code, text.startswith("infold: INFOLD_DEADLINE_S:")) == (2, True)


def test_health_tells_ready_from_not(server: Server) -> None:
    """The container's health check, without curl."""
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "infold", "health", "--port"]
    assert subprocess.run([*command, port], capture_output=True).returncode == 0
    assert subprocess.run([*command, "1"], capture_output=True).returncode == 1


def test_a_body_that_does_not_come_is_408(repository: Path, tmp_path: Path) -> None:
    """Short or long, from the start or from the middle: nobody is waited for for ever."""
    head = b"POST /v2/models/double/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    with running(repository, tmp_path / "log", INFOLD_BODY_TIMEOUT_S="0.2") as server:
        host, port = server.address.split(":")
        for size, sent in ((100, b""), (100, b"{"), (1_000_000, b""), (1_000_000, b"x" * 200_000)):
            with socket.create_connection((host, int(port)), timeout=20) as slow:
                slow.sendall(head % size + sent)
                answer = b"".join(iter(lambda: slow.recv(4096), b""))
                assert answer.startswith(b"HTTP/1.1 408 ")
                assert b"did not come within 0.2 s" in answer
        with httpx.Client(base_url=server.url) as client:
            assert infer(client, "double", GOOD).status_code == 200


def test_overload_is_refused_at_once_and_told_when_to_come_again(tmp_path: Path) -> None:
    """What was accepted is answered; the rest hears 503 with Retry-After, and soon there is room again."""
    models = slow_model(tmp_path / "models")
    (models / "slow/model.toml").write_text("[batching]\nmax_rows = 1\ncapacity_rows = 2\n")
    with running(models, tmp_path / "log") as server:
        answers: list[httpx.Response] = []

        def call() -> None:
            request = {"name": "n", "shape": [1], "datatype": "INT64", "data": [SPINS]}
            with httpx.Client(base_url=server.url, timeout=60) as client:
                answers.append(infer(client, "slow", request))

        callers = [threading.Thread(target=call) for _ in range(12)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 503}
        assert statuses.count(200) >= 2
        for answer in answers:
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["error"].startswith("the queue is full")
        call()
        assert answers[-1].status_code == 200
