"""What the framework examples share: the digits, and the way from a saved model to a curl."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "examples"
INFOLD = (sys.executable, "-m", "infold")
REQUIRED_ACCURACY = 0.95
ROWS = 16  # of one request

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


def digits() -> tuple[Images, Labels, Images, Labels]:
    """Training images [N, 8, 8] with values 0 to 1 and labels, then test images and labels."""
    data = load_digits()
    images, labels = (data.images / 16.0).astype(np.float32), data.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=0
    )
    return train_x, train_y, test_x, test_y


def fresh(name: str) -> Path:
    """An empty folder for one example."""
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def infold(*arguments: object) -> None:
    """Run a verb of infold and show what it prints."""
    print(f"\n$ infold {' '.join(map(str, arguments))}", flush=True)
    subprocess.run([*INFOLD, *map(str, arguments)], check=True)


def serve_and_ask(repository: Path, name: str, test_x: NDArray[np.float32], test_y: Labels) -> None:
    """Serve a repository on a free port, ask about one image with curl and about all over HTTP.

    Args:
        repository: Where the model was converted to.
        name: The model.
        test_x: Images in the layout of the model's input.
        test_y: What they show.
    """
    print(f"\n$ infold serve {repository} --port 0", flush=True)
    server = subprocess.Popen(
        [*INFOLD, "serve", str(repository), "--port", "0", "--log-level", "warning"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = _address(server)
        with urlopen(f"{address}/v2/models/{name}") as reply:
            metadata = json.load(reply)
        url = f"{address}/v2/models/{name}/infer"
        _curl(url, _body(metadata, test_x[:1]), int(test_y[0]))
        answers = [
            _answer(url, _body(metadata, test_x[rows : rows + ROWS])) for rows in range(0, len(test_x), ROWS)
        ]
    finally:
        server.terminate()
        server.wait(30)
    accuracy = float((np.concatenate(answers).argmax(axis=1) == test_y).mean())
    print(f"over HTTP: {accuracy:.1%} of {len(test_y)} test images are right")
    assert accuracy >= REQUIRED_ACCURACY, "the served network has forgotten what it learnt"


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        print(line, end="", flush=True)
        if found := re.search(r"http://[\d.]+:\d+", line):
            return found[0]
    raise SystemExit("the server did not start")


def _body(metadata: dict[str, object], images: NDArray[np.float32]) -> dict[str, object]:
    """A request of the Open Inference Protocol."""
    (spec,) = metadata["inputs"]  # type: ignore[misc]  # a list, as the protocol says
    data = images.reshape(-1).tolist()
    tensor = {"name": spec["name"], "datatype": spec["datatype"], "shape": list(images.shape), "data": data}
    return {"inputs": [tensor]}


def _answer(url: str, body: dict[str, object]) -> NDArray[np.float64]:
    """What the network makes of some images: [N, 10]."""
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as reply:
        (output,) = json.load(reply)["outputs"]
    return np.array(output["data"]).reshape(output["shape"])


def _curl(url: str, body: dict[str, object], label: int) -> None:
    request = BUILD / "request.json"
    request.write_text(json.dumps(body))
    print(f"\n$ curl -s {url} -d @request.json", flush=True)
    if shutil.which("curl") is None:
        print("(curl is not installed)")
        return
    done = subprocess.run(
        ["curl", "-s", url, "-d", f"@{request}"], capture_output=True, text=True, check=True
    )
    print(done.stdout)
    (output,) = json.loads(done.stdout)["outputs"]
    print(f"answer: {int(np.argmax(output['data']))}, the image shows a {label}")
