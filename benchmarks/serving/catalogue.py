"""The networks by name, without anything big: who measures must not map what is measured.

Shared pages are divided among the processes that map them, so a benchmark that had onnxruntime
loaded would make servers from its own environment look smaller than they are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WORK = Path(__file__).parents[2] / "build" / "serving"
MODELS = WORK / "models"
# What infold measures of a model when it loads it; as old as the run.
CACHE = WORK / "cache"
# As torchvision prepares photographs for networks of 224 x 224: Resize(256), CenterCrop(224), and the
# mean and deviation of ImageNet. Without [classification] the answer is all numbers of the output.
TORCHVISION = """\
[image]
resize = "shorter"
size = [256]
crop = [224]
scale = 0.00392156862745098  # 1 / 255
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""


@dataclass(frozen=True)
class Network:
    """One input `x` and one output `y`, both float32 with an open batch axis."""

    name: str
    shape: tuple[int, ...]  # of one input, without the batch axis
    tolerance: float = 1e-3  # of an answer, as a part of the largest output
    config: str = ""  # its model.toml; with an [image] section it is asked about the photograph too

    @property
    def file(self) -> Path:
        """Where networks.py writes it."""
        return MODELS / self.name / "1" / "model.onnx"


NETWORKS = {
    each.name: each
    for each in (
        Network("tiny", (64,)),
        Network("mobilenetv2", (3, 224, 224), config=TORCHVISION),
        Network("resnet50", (3, 224, 224)),
        # One step of the last scale is nearly a hundredth of the largest output.
        Network("resnet50_int8", (3, 224, 224), tolerance=0.01),
    )
}


def repository(names: Sequence[str]) -> Path:
    """A model repository with just these networks, and a model.toml for those that have one."""
    folder = WORK / "repositories" / "+".join(names)
    for name in names:
        source, target = NETWORKS[name].file, folder / name / "1" / "model.onnx"
        if not target.exists() or not target.samefile(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copy2(source, target)
        if config := NETWORKS[name].config:
            (folder / name / "model.toml").write_text(config)
    return folder
