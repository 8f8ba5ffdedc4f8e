"""What KServe's own client makes of a server: run by the Python of an environment that has it.

Prints one JSON object, by the name of each thing tried: what came of it, or the
error that the client raised. It judges nothing; `test_kserve` does.

    python kserve_script.py http://127.0.0.1:8080
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, InferResponse, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

Tried = Callable[[str], Awaitable[object]]
TRIED: dict[str, Tried] = {}
ROW = np.array([[1, 2, 3, 4]], np.float32)
KINDS = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip

v1 = InferenceRESTClient(RESTConfig(protocol="v1"))
v2 = InferenceRESTClient(RESTConfig(protocol="v2"))


def tried(call: Tried) -> Tried:
    """It is one of the things tried, by its name."""
    TRIED[call.__name__] = call
    return call


def sample(datatype: str) -> np.ndarray:
    """Least, largest and 1; some strings."""
    if datatype == "BYTES":
        return np.array([[b"", "zwölf".encode(), b"plain"]], np.object_)
    if datatype == "BOOL":
        return np.array([[False, True, True]])
    kind = np.dtype(KINDS[datatype])
    limits = np.iinfo(kind) if kind.kind in "iu" else np.finfo(kind)
    return np.array([[limits.min, limits.max, 1]], kind)


def request(model: str, array: np.ndarray, datatype: str, *, binary: bool, **more: object) -> InferRequest:
    """A request with one input."""
    tensor = InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model, [tensor], **more)


def told(response: InferResponse) -> dict[str, object]:
    """An answer as JSON."""
    outputs = {each.name: np.asarray(each.as_numpy()).tolist() for each in response.outputs}
    shapes = {each.name: each.shape for each in response.outputs}
    return {"id": response.id, "model": response.model_name, "outputs": outputs, "shapes": shapes}


async def back(url: str, datatype: str, *, binary: bool) -> object:
    """True where an array comes back as it went, else what came."""
    array = sample(datatype)
    model = f"echo_{datatype.lower()}"
    asked = request(model, array, datatype, binary=binary, parameters={"binary_data_output": binary})
    answer = (await v2.infer(url, asked, model_name=model)).outputs[0].as_numpy()
    if datatype == "BYTES":
        texts = [each.decode() if isinstance(each, bytes) else each for each in answer.reshape(-1)]
        return texts == [each.decode() for each in array.reshape(-1)] or texts
    return bool(answer.dtype == array.dtype and np.array_equal(answer, array)) or answer.tolist()


@tried
async def live_and_ready(url: str) -> object:
    return [await v2.is_server_live(url), await v2.is_server_ready(url)]


@tried
async def model_ready(url: str) -> object:
    return [await v2.is_model_ready(url, "times"), await v2.is_model_ready(url, "nobody")]


@tried
async def json_both_ways(url: str) -> object:
    asked = request("times", ROW, "FP32", binary=False, request_id="order-66")
    return told(await v2.infer(url, asked, model_name="times"))


@tried
async def plain_dict(url: str) -> object:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ROW.tolist()}
    return told(await v2.infer(url, {"inputs": [tensor]}, model_name="times"))


@tried
async def bytes_both_ways(url: str) -> object:
    headers: dict[str, str] = {}
    asked = request("times", ROW, "FP32", binary=True, parameters={"binary_data_output": True})
    answer = told(await v2.infer(url, asked, model_name="times", response_headers=headers))
    return {**answer, "length": headers.get("inference-header-content-length")}


@tried
async def bytes_for_one_output(url: str) -> object:
    outputs = [RequestedOutput("difference", {"binary_data": True}), RequestedOutput("sum")]
    tensors = [InferInput(name, [1, 4], "FP32") for name in ("a", "b")]
    for tensor in tensors:
        tensor.set_data_from_numpy(ROW, binary_data=tensor.name == "a")
    asked = InferRequest("add_sub", tensors, request_outputs=outputs)
    return told(await v2.infer(url, asked, model_name="add_sub"))


@tried
async def datatypes_as_bytes(url: str) -> object:
    return {datatype: await back(url, datatype, binary=True) for datatype in (*KINDS, "BYTES")}


@tried
async def datatypes_as_json(url: str) -> object:
    return {each: await back(url, each, binary=False) for each in (*KINDS, "BYTES") if each != "FP16"}


@tried
async def no_rows_as_json(url: str) -> object:
    asked = request("times", ROW[:0], "FP32", binary=False)
    return told(await v2.infer(url, asked, model_name="times"))


@tried
async def no_rows_as_bytes(url: str) -> object:
    asked = request("times", ROW[:0], "FP32", binary=True)
    return told(await v2.infer(url, asked, model_name="times"))


@tried
async def unknown_model(url: str) -> object:
    asked = request("nobody", ROW, "FP32", binary=True)
    return told(await v2.infer(url, asked, model_name="nobody"))


@tried
async def wrong_shape(url: str) -> object:
    asked = request("times", ROW[:, :3], "FP32", binary=False)
    return told(await v2.infer(url, asked, model_name="times"))


@tried
async def v1_live(url: str) -> object:
    return await v1.is_server_live(url)


@tried
async def v1_model_ready(url: str) -> object:
    return await v1.is_model_ready(url, "times")


@tried
async def v1_unknown_model_ready(url: str) -> object:
    return await v1.is_model_ready(url, "nobody")


@tried
async def v1_predict(url: str) -> object:
    return await v1.infer(url, {"instances": ROW.tolist()}, model_name="times")


@tried
async def v1_wrong_shape(url: str) -> object:
    return await v1.infer(url, {"instances": [[1]]}, model_name="times")


@tried
async def v1_explain(url: str) -> object:
    return await v1.explain(url, "times", {"instances": ROW.tolist()})


async def main(url: str) -> dict[str, object]:
    """Everything tried, one after another."""
    found: dict[str, object] = {}
    for name, call in TRIED.items():
        try:
            found[name] = await call(url)
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    await v1.close()
    await v2.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
