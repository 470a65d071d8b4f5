"""Who is on a portrait: everything that tells one drawn person from another, from a seed."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from enum import Enum, auto
from random import Random

from .easel import Colour, mixed

SKINS: tuple[Colour, ...] = (
    (250, 219, 196), (242, 205, 178), (233, 190, 160), (222, 171, 138),
    (203, 150, 115), (179, 125, 91), (152, 101, 71), (128, 84, 60), (116, 77, 56),
)  # fmt: skip
HAIRS: tuple[Colour, ...] = (
    (28, 24, 26), (46, 34, 30), (74, 50, 36), (104, 70, 44), (146, 98, 56),
    (196, 152, 92), (150, 66, 36), (128, 124, 124), (202, 198, 194),
)  # fmt: skip
IRISES: tuple[Colour, ...] = (
    (72, 46, 30), (96, 62, 36), (58, 82, 62), (62, 94, 128), (84, 98, 104),
)  # fmt: skip
# Sums of red, green and blue below which skin is dark in the sense of each use.
_DARK_SKIN = 300
_DARK_HAIRED = 400
_DARK_EYED = 450


class HairStyle(Enum):
    """How the hair is worn."""

    LONG = auto()
    BOB = auto()
    BUN = auto()
    CURLS = auto()
    FRINGE = auto()
    SHORT = auto()
    PARTED = auto()
    CROP = auto()
    BALD = auto()


class Beard(Enum):
    """What grows around the mouth."""

    NONE = auto()
    STUBBLE = auto()
    FULL = auto()
    MOUSTACHE = auto()


class Glasses(Enum):
    """What is worn before the eyes."""

    NONE = auto()
    ROUND = auto()
    SQUARE = auto()


class Collar(Enum):
    """How the clothing ends at the neck."""

    CREW = auto()
    V = auto()
    SHIRT = auto()
    BLAZER = auto()


_LONG = (HairStyle.LONG, HairStyle.BOB, HairStyle.BUN, HairStyle.CURLS, HairStyle.FRINGE)
_SHORT = (HairStyle.SHORT, HairStyle.PARTED, HairStyle.CROP, HairStyle.BALD, HairStyle.CURLS)
_BEARDS = (Beard.NONE, Beard.NONE, Beard.STUBBLE, Beard.FULL, Beard.MOUSTACHE)
_GLASSES = (Glasses.NONE, Glasses.NONE, Glasses.NONE, Glasses.ROUND, Glasses.SQUARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One person. Lengths are in the easel's unit; `light` is the side it comes from (-1, 1)."""

    skin: Colour
    hair: Colour
    iris: Colour
    wall: Colour
    cloth: Colour
    hair_style: HairStyle
    beard: Beard
    glasses: Glasses
    collar: Collar
    face_width: float
    jaw: float
    chin: float
    eye_gap: float
    eye_width: float
    brow_lift: float
    brow_slope: float
    brow_weight: float
    nose_width: float
    nose_length: float
    mouth_width: float
    smile: float
    lips: float
    light: int

    @property
    def mouth_height(self) -> float:
        """Where between nose and chin the mouth is."""
        return self.nose_length + (self.chin - self.nose_length) * 0.42

    def shadow(self, share: float) -> Colour:
        """The skin in shadow; dark skin takes more of it to show any relief at all."""
        dark = sum(self.skin) < _DARK_SKIN
        return mixed(self.skin, (50, 18, 12), share * (1.7 if dark else 1.0))

    def shine(self, share: float) -> Colour:
        """The skin in the light."""
        return mixed(self.skin, (255, 250, 240), share)


def look_of(seed: int) -> Look:
    """The person that a seed stands for; the same seed is the same person.

    The bounds of each length are those between which the detector was measured to be sure.
    """
    rng = Random(seed * 2654435761 + 97)
    skin = rng.choice(SKINS)
    long_haired = rng.random() < 0.5
    return Look(
        skin=skin,
        hair=rng.choice(HAIRS[:4] if sum(skin) < _DARK_HAIRED else HAIRS),
        iris=rng.choice(IRISES[:2] if sum(skin) < _DARK_EYED else IRISES),
        wall=_tint(rng, lightness=(0.74, 0.88), saturation=(0.25, 0.6)),
        cloth=_tint(rng, lightness=(0.25, 0.6), saturation=(0.2, 0.6)),
        hair_style=rng.choice(_LONG if long_haired else _SHORT),
        beard=Beard.NONE if long_haired else rng.choice(_BEARDS),
        glasses=rng.choice(_GLASSES),
        collar=rng.choice(tuple(Collar)),
        face_width=rng.uniform(0.225, 0.25),
        jaw=rng.uniform(0.72, 0.9),
        chin=rng.uniform(0.307, 0.338),
        eye_gap=rng.uniform(0.098, 0.11),
        eye_width=rng.uniform(0.048, 0.056),
        brow_lift=rng.uniform(0.058, 0.07),
        brow_slope=rng.uniform(-0.004, 0.004),
        brow_weight=rng.uniform(0.014, 0.022),
        nose_width=rng.uniform(0.042, 0.056),
        nose_length=rng.uniform(0.115, 0.135),
        mouth_width=rng.uniform(0.082, 0.104),
        smile=rng.uniform(0.004, 0.024),
        lips=rng.uniform(0.016, 0.024),
        light=rng.choice((-1, 1)),
    )


def _tint(
    rng: Random, *, lightness: tuple[float, float], saturation: tuple[float, float]
) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(
        rng.random(), rng.uniform(*lightness), rng.uniform(*saturation)
    )
    return round(red * 255), round(green * 255), round(blue * 255)
