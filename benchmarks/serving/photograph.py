"""The photograph that networks are asked about: made of noise, but a decoder works on it as on a real one.

    python benchmarks/serving/photograph.py

writes it, if it is missing, to `build/serving/photograph.jpg`. Amplitudes of natural scenes fall
with frequency, so noise of every scale is added up, the finer the weaker, on gradients that differ
between colours. The file has 0.26 bytes a pixel; at this quality the two photographs that come with
scikit-learn have 0.18 and 0.36.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from catalogue import WORK
from numpy.typing import NDArray
from PIL import Image

FILE = WORK / "photograph.jpg"
WIDTH, HEIGHT, QUALITY = 640, 480, 90
CELLS = (320, 160, 80, 40, 20, 10, 5, 2)  # pixels of one cell of noise
CONTRAST = 14.0  # levels for each factor of ten in cells
COLOUR = 0.3  # of the noise, what is each colour's own


def written() -> Path:
    """The file is there."""
    if not FILE.exists():
        FILE.parent.mkdir(parents=True, exist_ok=True)
        draft = FILE.with_suffix(".draft")
        Image.fromarray(levels()).save(draft, "JPEG", quality=QUALITY)
        draft.rename(FILE)
    return FILE


def levels() -> NDArray[np.uint8]:
    """Height x width x 3; the same in every run."""
    random = np.random.default_rng(640480)
    down, right = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    grey = _noise(random)
    colours = []
    for slope, tilt in ((60.0, -30.0), (40.0, 10.0), (-20.0, 50.0)):
        own = _noise(random)
        colours.append(120 + slope * (down - 0.5) + tilt * (right - 0.5) + grey + COLOUR * own)
    return np.rint(np.clip(np.stack(colours, axis=2), 0, 255)).astype(np.uint8)


def _noise(random: np.random.Generator) -> NDArray[np.float64]:
    """Smoothed noise of every scale, strongest where it is coarsest."""
    total = np.zeros((HEIGHT, WIDTH))
    for cell in CELLS:
        coarse = random.standard_normal((-(-HEIGHT // cell) + 1, -(-WIDTH // cell) + 1)).astype(np.float32)
        smooth = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        total += CONTRAST * np.log10(1 + cell) * np.asarray(smooth)
    return total


if __name__ == "__main__":
    print(f"{written()}: {FILE.stat().st_size:,} bytes")
