"""`INFOLD_TRITON_COMPAT=true` over a real socket: 16-bit floats by Triton's own client, and names."""

from collections.abc import Iterator

import httpx
import ml_dtypes
import numpy as np
import onnx
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from servers import Server, running

HALVES = {"FP16": ("float16", np.float16), "BF16": ("bfloat16", ml_dtypes.bfloat16)}
SAID = "{} data via JSON is not supported. Please use the binary data format for {}"


@pytest.fixture(scope="module")
def compatible(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models that give back what they are given."""
    root = tmp_path_factory.mktemp("compatible")
    for name, (kind, _) in HALVES.items():
        folder = root / "models" / name / "1"
        folder.mkdir(parents=True)
        text = f"echo ({kind}[n] x) => ({kind}[n] y) {{ y = Identity(x) }}"
        proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
        onnx.save(proto, str(folder / "model.onnx"))
    environment = {"INFOLD_TRITON_COMPAT": "true", "INFOLD_SERVER_NAME": "ours"}
    with running(root / "models", root / "server.log", **environment) as started:
        yield started


@pytest.mark.parametrize("datatype", HALVES)
def test_halves_go_and_come_as_bytes_alone(compatible: Server, datatype: str) -> None:
    """JSON is refused in the direction in which it was asked for."""
    bits = np.array([0x3F80, 0x0001, 0x8000, 0x7F7F], np.uint16)
    kind = HALVES[datatype][1]
    sent = InferInput("x", [4], datatype)
    sent.set_data_from_numpy(bits.view(kind))
    with InferenceServerClient(compatible.address) as client:
        answer = client.infer(datatype, [sent])
        output = answer.get_output("y")
        assert (output["datatype"], output["shape"]) == (datatype, [4])
        found = answer.as_numpy("y")
        assert found is not None
        assert (found.dtype, found.tobytes()) == (kind, bits.tobytes())
        with pytest.raises(InferenceServerException) as refused:
            client.infer(datatype, [sent], outputs=[InferRequestedOutput("y", binary_data=False)])
        assert refused.value.message() == f"sending {SAID.format(datatype, 'output')}"
    tensor = {"name": "x", "shape": [1], "datatype": datatype, "data": [1.5]}
    plain = httpx.post(f"{compatible.url}/v2/models/{datatype}/infer", json={"inputs": [tensor]})
    assert (plain.status_code, plain.json()) == (
        400,
        {"error": f"receiving {SAID.format(datatype, 'input x')}"},
    )


def test_another_name_is_told_than_triton(compatible: Server) -> None:
    """Where one is given."""
    with InferenceServerClient(compatible.address) as client:
        assert client.get_server_metadata()["name"] == "ours"
