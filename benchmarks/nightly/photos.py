"""The photos of a made-up staff: small pictures, each unlike every other, and what spoils one."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from io import BytesIO

from PIL import Image


class Spoiling(Enum):
    """What is wrong with a photo: not there, no picture, cut off, a picture of nobody."""

    MISSING = "missing"
    TEXT = "text"
    CUT = "cut"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Photo:
    """What lies at a path: `content` (None: nothing) and `face`, the SHA-256 of what the service
    gets of it, None when it can have none."""

    content: bytes | None
    face: str | None
    number: int = 0


def picture(number: int) -> bytes:
    """A JPEG of some 2 KB, unlike every other; the stand-in must not look for a real face."""
    out = BytesIO()
    noise = Image.frombytes("L", (8, 8), random.Random(number).randbytes(64))
    noise.resize((64, 64), Image.Resampling.NEAREST).save(out, "JPEG")
    return out.getvalue()


def nobody(number: int) -> bytes:
    """A JPEG of one flat grey, which the watched stand-in takes for a picture of nobody."""
    out = BytesIO()
    Image.new("L", (64 + number % 64, 64), 40 + number % 160).save(out, "JPEG")
    return out.getvalue()


def with_comment(jpeg: bytes, text: str) -> bytes:
    """The same picture with a comment in its head, as some other program writes it."""
    comment = text.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]
