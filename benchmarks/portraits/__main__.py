"""`python -m portraits FOLDER`, in this directory's parent: draws the pictures of `enroll demo`.

FOLDER is `enroll/cli/portraits`. The demo's people are the seeds 0 to 59.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from . import SIZE, draw_portrait

PEOPLE = 60
QUALITY = 75
"""Of a JPEG: each is smaller than 8 kB, and the detector still finds every face."""


def landscape() -> Image.Image:
    """Hills under a sun, where no detector finds anybody."""
    width, height = SIZE
    picture = Image.new("RGB", SIZE, (176, 214, 240))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((150, 30, 200, 80), fill=(255, 226, 140))
    for x, y, colour in (
        (-60, 170, (142, 172, 196)),
        (70, 190, (110, 158, 120)),
        (-30, 225, (84, 136, 84)),
    ):
        draw.ellipse((x, y, x + width, y + height), fill=colour)
    return picture.filter(ImageFilter.GaussianBlur(1))


def as_jpeg(picture: Image.Image) -> bytes:
    """A picture as the demo has it."""
    out = BytesIO()
    picture.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()


def main(folder: Path) -> None:
    """Write every picture."""
    folder.mkdir(exist_ok=True)
    for number in range(PEOPLE):
        (folder / f"{number:02}.jpg").write_bytes(as_jpeg(draw_portrait(number)))
    (folder / "landscape.jpg").write_bytes(as_jpeg(landscape()))
    draw_portrait(PEOPLE).save(folder / "scan.jp2", quality_layers=[40], irreversible=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
