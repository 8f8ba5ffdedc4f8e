"""What JSON has no number for: null out and counted, exact as bytes, refused by its place."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from infold.rest.app import create_app
from infold.rest.codec import DTYPES
from infold.rest.v2 import HEADER_LENGTH
from infold.settings import Settings

KINDS = {
    "FP16": "float16", "BF16": "bfloat16", "FP32": "float", "FP64": "double",
    "INT8": "int8", "INT64": "int64", "UINT64": "uint64", "BOOL": "bool", "BYTES": "string",
}  # fmt: skip
FLOATS = ["FP16", "BF16", "FP32", "FP64"]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Models that give back what they are given."""
    for name, kind in KINDS.items():
        folder = tmp_path / "models" / name / "1"
        folder.mkdir(parents=True)
        text = f"echo ({kind}[n] x) => ({kind}[n] y) {{ y = Identity(x) }}"
        proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
        onnx.save(proto, str(folder / "model.onnx"))
    app = create_app(Settings(repository=tmp_path / "models", cache_dir=tmp_path / "cache", load_trial=False))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as opened,
    ):
        yield opened


async def infer(client: httpx.AsyncClient, datatype: str, data: str, **more: Any) -> httpx.Response:
    """A request whose data is given as text, of as many values as it has commas and one."""
    entry = {"name": "x", "shape": [data.count(",") + 1], "datatype": datatype, "data": "HERE"}
    body = json.dumps({"inputs": [entry], **more}).replace('"HERE"', data)
    return await client.post(f"/v2/models/{datatype}/infer", content=body)


async def nulls(client: httpx.AsyncClient, model: str) -> float:
    """What the page says of a model."""
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    samples = [each for family in families for each in family.samples]
    return sum(
        each.value
        for each in samples
        if each.name == "infold_null_values_total" and each.labels["model"] == model
    )


@pytest.mark.parametrize("datatype", FLOATS)
async def test_nan_and_infinities_come_as_null_and_are_counted(
    client: httpx.AsyncClient, datatype: str
) -> None:
    """In both dialects; as bytes they come as they are, and are not."""
    values = np.array([np.nan, 1.5, np.inf, -np.inf, -0.0]).astype(DTYPES[datatype])
    entry = {"name": "x", "shape": [5], "datatype": datatype}
    entry["parameters"] = {"binary_data_size": values.nbytes}
    assert await nulls(client, datatype) == 0
    for as_bytes in (True, False):
        text = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": as_bytes}}).encode()
        answer = await client.post(
            f"/v2/models/{datatype}/infer",
            content=text + values.tobytes(),
            headers={HEADER_LENGTH: str(len(text))},
        )
        assert answer.status_code == 200, answer.text
        if as_bytes:
            assert answer.content.endswith(values.tobytes())
            assert await nulls(client, datatype) == 0
        else:
            assert answer.text.endswith('"data":[null,1.5,null,null,-0.0]}]}')
            assert await nulls(client, datatype) == 3
    rows = await client.post(f"/v1/models/{datatype}:predict", json={"instances": [None, 2.0]})
    assert rows.text == '{"predictions":[null,2.0]}'
    assert await nulls(client, datatype) == 4


async def test_null_is_nan_for_floats(client: httpx.AsyncClient) -> None:
    """It comes back as it went."""
    answer = await infer(client, "FP32", "[null, -0.0, 1]")
    assert answer.text.endswith('"data":[null,-0.0,1.0]}]}')
    assert await nulls(client, "FP32") == 1


async def test_a_text_of_null_is_no_null(client: httpx.AsyncClient) -> None:
    """Nor a name."""
    answer = await infer(client, "BYTES", '["null", "NaN"]', id="null")
    assert answer.json()["outputs"][0]["data"] == ["null", "NaN"]
    assert await nulls(client, "BYTES") == 0


@pytest.mark.parametrize("datatype", ["INT8", "INT64", "UINT64", "BOOL", "BYTES"])
async def test_null_is_nothing_else(client: httpx.AsyncClient, datatype: str) -> None:
    """400, and where it stands, in both dialects."""
    value = {"BOOL": "true", "BYTES": '"a"'}.get(datatype, "1")
    answer = await infer(client, datatype, f"[{value}, null]")
    assert answer.status_code == 400
    assert answer.json() == {"error": f"inputs[0].data[1]: null is no {datatype}"}
    rows = f'{{"instances": [{value}, null]}}'
    answer = await client.post(f"/v1/models/{datatype}:predict", content=rows)
    assert (answer.status_code, answer.json()) == (400, {"error": f"instances[1]: null is no {datatype}"})


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "nan", "inf"])
async def test_what_is_no_json_is_400(client: httpx.AsyncClient, literal: str) -> None:
    """Short or long, in both dialects; Python's json writes it unless told not to."""
    for more in ("", ", 1" * 4000):
        answer = await infer(client, "FP32", f"[1, {literal}{more}]")
        assert answer.status_code == 400
        assert "not valid JSON" in answer.json()["error"]
        rows = f'{{"instances": [1, {literal}{more}]}}'
        answer = await client.post("/v1/models/FP32:predict", content=rows)
        assert answer.status_code == 400


@pytest.mark.parametrize("more", ["", ", 1" * 4000], ids=["short", "long"])
@pytest.mark.parametrize(
    ("datatype", "value", "shown"),
    [
        ("FP32", "1e39", "1e+39"),
        ("FP64", "1e400", "1e400"),
        ("FP32", "-1e400", "-1e400"),
        ("FP16", "65520", "65520"),
        ("BF16", "3.4e38", "3.4e+38"),
        ("INT64", "1e400", "1e400"),
        ("UINT64", "18446744073709551616", "1.8446744073709552e+19"),
        ("INT64", "9223372036854775808", "9223372036854775808"),
        ("INT8", "-129", "-129"),
    ],
)
async def test_a_number_that_is_too_large_is_told_so(
    client: httpx.AsyncClient, datatype: str, value: str, shown: str, more: str
) -> None:
    """It is good JSON: 400, what does not fit, and where."""
    answer = await infer(client, datatype, f"[1, {value}{more}]")
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": f"inputs[0].data[1]: {shown} does not fit {datatype}"},
    )
    rows = f'{{"instances": [1, {value}{more}]}}'
    answer = await client.post(f"/v1/models/{datatype}:predict", content=rows)
    assert answer.json() == {"error": f"instances[1]: {shown} does not fit {datatype}"}


async def test_the_largest_number_that_fits_does(client: httpx.AsyncClient) -> None:
    """To the last digit."""
    answer = await infer(client, "UINT64", "[18446744073709551615, 0]")
    assert answer.json()["outputs"][0]["data"] == [2**64 - 1, 0]
    answer = await infer(client, "FP64", "[1.7976931348623157e308]")
    assert answer.json()["outputs"][0]["data"] == [1.7976931348623157e308]
