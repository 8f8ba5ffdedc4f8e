"""Writes the pictures in this folder and what training pipelines make of them, into `golden.npz`.

Run once, in an environment with torchvision (0.28), Keras (3.15, any backend), Pillow and numpy:

    python tests/serving/images/make.py

The pictures are kept if they are there: other versions of Pillow may compress them otherwise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from keras.applications.imagenet_utils import preprocess_input
from keras.utils import img_to_array, load_img
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

HERE = Path(__file__).parent
IMAGENET = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def write_pictures() -> None:
    """A gradient with noise, in each mode that a PNG commonly has; none of them square."""
    rng = np.random.default_rng(7)
    down, right = np.mgrid[0:37, 0:53]
    levels = np.stack([down * 6, right * 4, (down + right) * 2], axis=-1) + rng.integers(0, 16, (37, 53, 3))
    colour = Image.fromarray(levels.astype(np.uint8))
    alpha = Image.fromarray((right * 4).astype(np.uint8))
    pictures = {
        "colour": colour,
        "tall": colour.transpose(Image.Transpose.ROTATE_90).crop((0, 0, 30, 39)),
        "tiny": colour.crop((20, 10, 33, 18)),
        "grey": colour.convert("L").crop((0, 0, 20, 20)),
        "palette": colour.quantize(32).crop((0, 0, 30, 20)),
        "alpha": Image.merge("RGBA", (*colour.split(), alpha)).crop((30, 0, 53, 20)),
    }
    for name, picture in pictures.items():
        if not (HERE / f"{name}.png").exists():
            picture.save(HERE / f"{name}.png", optimize=True)


def torchvision(picture: str, *steps: object, mode: str = "RGB") -> np.ndarray:
    """As a dataset of folders gives it to a network."""
    with Image.open(HERE / f"{picture}.png") as opened:
        return Compose(steps)(opened.convert(mode)).numpy()


def keras(picture: str, mode: str | None, size: tuple[int, int], how: str, **load: str) -> np.ndarray:
    """As Keras's own examples prepare one picture."""
    loaded = load_img(HERE / f"{picture}.png", target_size=size, interpolation=how, **load)
    array = img_to_array(loaded, data_format="channels_last")
    return array if mode is None else preprocess_input(array, data_format="channels_last", mode=mode)


def main() -> None:
    """Every name is a case of `test_golden_images.py`."""
    write_pictures()
    golden = {
        f"torchvision-{name}": torchvision(name, Resize(12), CenterCrop(7), ToTensor(), IMAGENET)
        for name in ("colour", "tall", "palette", "alpha", "grey")
    }
    for how in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"):
        steps = (Resize((5, 8), InterpolationMode(how)), ToTensor())
        golden[f"torchvision-{how}"] = torchvision("colour", *steps)
    golden["torchvision-enlarged"] = torchvision("tiny", Resize(13), CenterCrop((6, 19)), ToTensor())
    golden["torchvision-smaller-than-crop"] = torchvision("tiny", CenterCrop((11, 10)), ToTensor(), IMAGENET)
    mnist = (ToTensor(), Normalize((0.1307,), (0.3081,)))
    golden["torchvision-mnist"] = torchvision("grey", *mnist, mode="L")
    golden["torchvision-mnist-colour"] = torchvision("colour", Resize((8, 8)), *mnist, mode="L")
    for mode, how in (("tf", "nearest"), ("tf", "bilinear"), ("caffe", "bilinear"), ("torch", "bilinear")):
        golden[f"keras-{mode}-{how}"] = keras("colour", mode, (6, 5), how)
    golden["keras-grey"] = keras("colour", None, (6, 5), "bilinear", color_mode="grayscale")
    np.savez_compressed(HERE / "golden.npz", **golden)
    for name, array in golden.items():
        print(name, array.shape, array.dtype)


if __name__ == "__main__":
    main()
