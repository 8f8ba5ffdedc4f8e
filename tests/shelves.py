"""A model repository that changes while it is served: versions that multiply by a number of their own."""

import shutil
from pathlib import Path

import numpy as np
import onnx

from graphs import model

GARBAGE = b"no graph"


class Shelf:
    """A repository of tiny models; whatever is put there appears at once, as a renamed folder does.

    Args:
        root: Its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._built = 0
        root.mkdir(exist_ok=True)

    def put(self, name: str, number: int = 1, factor: float = 1.0, **more: bytes) -> Path:
        """A version that answers `x * factor`; with `graph=`, one of these bytes.

        Args:
            name: Of the model.
            number: Of the version; what was there before is gone.
            factor: What it multiplies by.
            more: `graph`, and whatever lies beside it by the names of files.
        """
        self._built += 1
        hidden = self.root / f".{self._built}"
        hidden.mkdir()
        if "graph" in more:
            (hidden / "model.onnx").write_bytes(more["graph"])
        else:
            onnx.save(scaled(factor), str(hidden / "model.onnx"))
        for file, content in more.items():
            if file != "graph":
                (hidden / file).write_bytes(content)
        final = self.root / name / str(number)
        final.parent.mkdir(exist_ok=True)
        if final.is_dir():
            final.rename(self.root / f".{self._built}.old")
        hidden.rename(final)
        return final

    def spoil(self, name: str, number: int = 1) -> Path:
        """A version that does not load."""
        return self.put(name, number, graph=GARBAGE)

    def configure(self, name: str, text: str) -> Path:
        """The `model.toml` of a model."""
        path = self.root / name / "model.toml"
        path.parent.mkdir(exist_ok=True)
        hidden = self.root / f".{name}.toml"
        hidden.write_text(text)
        hidden.rename(path)
        return path

    def take(self, name: str, number: int | None = None) -> None:
        """A version, or a whole model, is there no more."""
        shutil.rmtree(self.root / name if number is None else self.root / name / str(number))


def scaled(factor: float) -> onnx.ModelProto:
    """`y = x * factor`, of two numbers."""
    return model(
        "g (float[2] x) => (float[2] y) { y = Mul (x, factor) }", {"factor": np.array([factor], np.float32)}
    )
