"""Draws `seven.png`: a digit as a pen writes it, dark on white, for the network to read.

python examples/digits/draw.py
"""

from pathlib import Path

from PIL import Image, ImageDraw

SIZE, PEN = 160, 26
SEVEN = [(44, 18), (116, 18), (72, 142)]
BAR = [(58, 80), (112, 80)]


def main() -> None:
    """Four times as large first, so that its edges are smooth."""
    large = Image.new("L", (4 * SIZE, 4 * SIZE), 255)
    pen = ImageDraw.Draw(large)
    for line in (SEVEN, BAR):
        points = [(4 * x, 4 * y) for x, y in line]
        pen.line(points, fill=20, width=4 * PEN, joint="curve")
        for x, y in points:
            pen.ellipse((x - 2 * PEN, y - 2 * PEN, x + 2 * PEN, y + 2 * PEN), fill=20)
    picture = large.resize((SIZE, SIZE), Image.Resampling.BOX)
    picture.save(Path(__file__).with_name("seven.png"), optimize=True)


if __name__ == "__main__":
    main()
