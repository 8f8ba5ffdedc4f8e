"""MLServer: a runtime of our own, since the one for ONNX is in no registry.

Run as a program it writes the two settings files into the folder given and becomes the server.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """One session."""

    async def load(self) -> bool:
        """In each worker."""
        from model import Model

        self._model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One request."""
        (given,) = payload.inputs
        if given.datatype == "BYTES":
            x = self._model.of_picture(Base64Codec.decode_input(given)[0])
        else:
            x = NumpyCodec.decode_input(given).astype("float32", copy=False)
        y = self._model.run(x)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])


if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(os.environ["BENCH_PORT"])
    folder.mkdir(parents=True, exist_ok=True)
    workers = int(os.environ["BENCH_WORKERS"])
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "parallel_workers": 0 if workers == 1 else workers,  # 0: in the server's own process
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": os.environ["BENCH_NETWORK"], "implementation": "mlserver_app.OnnxModel"}
    (folder / "model-settings.json").write_text(json.dumps(model))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    command = str(Path(sys.executable).with_name("mlserver"))
    os.execv(command, [command, "start", str(folder)])
