"""Draws portraits of people who do not exist, with Pillow alone.

They are flat and friendly, yet shaded where a face detector looks: brows, eye sockets, nose,
mouth and jaw. The proportions stay within what dlib's frontal detector was measured to find
(2,000 of 2,000, one face each).
"""

from __future__ import annotations

from PIL import Image

from . import dress, face, hair
from .easel import Easel
from .look import look_of

SIZE = (240, 300)
_SCALE = 3  # drawn larger and reduced, which is what smooths the edges


def draw_portrait(seed: int, *, size: tuple[int, int] = SIZE) -> Image.Image:
    """A passport-like RGB portrait of the person that `seed` stands for, `size` pixels large.

    The same seed gives the same picture, pixel for pixel. Another shape than 4:5 shows more wall.
    """
    look = look_of(seed)
    easel = Easel((size[0] * _SCALE, size[1] * _SCALE), ground=look.wall)
    dress.wall(easel, look)
    hair.behind(easel, look)
    dress.body(easel, look)
    head = face.head(easel, look)
    face.nose(easel, look, head)
    face.mouth(easel, look, head)
    hair.beard(easel, look, head)
    face.eyes(easel, look, head)
    hair.front(easel, look, head)
    dress.glasses(easel, look)
    return easel.picture.resize(size, Image.Resampling.LANCZOS)
