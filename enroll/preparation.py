"""How a photo is to be made fit for the service: settings, as they travel with the reading task."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from importlib.util import find_spec

DEFAULT_MAX_SIDE = 4096
"""Pixels a side; the limit of the vendor family's other services."""

DEFAULT_MAX_BYTES = 2_000_000
"""The service refuses requests above 2 MiB (413): this leaves 97 kB for the form around a photo."""

DEFAULT_MAX_PIXELS = 100_000_000
"""Ours: the largest cameras that people carry have fewer."""


class Precheck(StrEnum):
    """What is done about a photo in which no face is found, or not one face for certain."""

    OFF = "off"
    """No face is looked for."""
    WARN = "warn"
    """It is sent, and said."""
    HOLD = "hold"
    """It is not sent."""


@lru_cache
def heif_installed() -> bool:
    """Whether HEIC can be read: the extra `heif` is there."""
    return find_spec("pillow_heif") is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """Pixels a side, bytes and pixels that a photo may have, and what may be done to it.

    `max_pixels` is of the file, before anything is decoded; `max_side` and `max_bytes` are of what
    is sent. Without `convert` only JPEG, PNG and BMP are sent, in colours that need no conversion.
    With `accept_truncated` a photo whose end is missing is sent as far as it goes. `heif` says
    whether HEIC can be read here.

    `precheck` has faces looked for in what would be sent, with `multi_oriented_detection` also
    turned as the service does; `min_face` is the least side of a face in pixels of that photo.
    """

    max_side: int = DEFAULT_MAX_SIDE
    max_bytes: int = DEFAULT_MAX_BYTES
    max_pixels: int = DEFAULT_MAX_PIXELS
    convert: bool = True
    accept_truncated: bool = False
    precheck: Precheck = Precheck.OFF
    min_face: int = 0
    multi_oriented_detection: bool = False
    heif: bool = field(default_factory=heif_installed)


AS_USUAL = Preparation()
"""What holds where nothing else is said."""

FOR_A_LOOK = Preparation(accept_truncated=True)
"""For a photo that is searched for: it may have been sent under any settings."""
