"""Hair behind the head and on it, and beards."""

from __future__ import annotations

from PIL import Image, ImageChops

from .easel import BLACK, Easel, Point, mixed, smooth, stretched, symmetric
from .look import Beard, HairStyle, Look

# Outlines behind the head from the crown down the left side; x in units of the face's width.
_CROWN: list[Point] = [(0, -0.34), (-1.1, -0.24)]
_LONG: list[Point] = [*_CROWN, (-1.34, 0.05), (-1.4, 0.4), (-0.9, 0.56), (0, 0.5)]
_BOB: list[Point] = [*_CROWN, (-1.36, 0.03), (-1.3, 0.26), (-0.8, 0.3), (0, 0.26)]

# Where the hair ends: at the forehead, at the temples, and beside the face.
_HAIRLINES: dict[HairStyle, tuple[float, float, float]] = {
    HairStyle.LONG: (-0.17, -0.06, 0.16),
    HairStyle.BOB: (-0.165, -0.09, 0.12),
    HairStyle.FRINGE: (-0.138, -0.115, 0.1),
    HairStyle.BUN: (-0.2, -0.09, 0.0),
    HairStyle.CURLS: (-0.18, -0.1, -0.01),
    HairStyle.SHORT: (-0.195, -0.11, 0.0),
    HairStyle.PARTED: (-0.175, -0.12, 0.0),
    HairStyle.CROP: (-0.215, -0.14, -0.03),
}
_WITH_PARTING = frozenset({HairStyle.PARTED, HairStyle.LONG, HairStyle.BOB})


def behind(easel: Easel, look: Look) -> None:
    """What the head hides a part of."""
    wide = look.face_width
    match look.hair_style:
        case HairStyle.LONG:
            mask = easel.polygon(smooth(symmetric(stretched(_LONG, wide))))
        case HairStyle.BOB | HairStyle.FRINGE:
            mask = easel.polygon(smooth(symmetric(stretched(_BOB, wide))))
        case HairStyle.BUN:
            mask = easel.ovals(((0, -0.36), 0.1, 0.09))
        case HairStyle.CURLS:
            across = [-1 + 2 * step / 13 for step in range(14)]
            mask = easel.ovals(
                *(((x * wide * 1.02, -0.27 + 0.13 * x * x), 0.085, 0.08) for x in across)
            )
        case _:
            return
    easel.paint(mask, mixed(look.hair, BLACK, 0.25))


def front(easel: Easel, look: Look, head: Image.Image) -> None:
    """What lies on the head, or the shine of the bald one."""
    if look.hair_style is HairStyle.BALD:
        shine = mixed(look.skin, (255, 255, 250), 0.5)
        easel.shade(head, (0.05 * look.light, -0.2), (0.07, 0.03), shine)
        return
    wide = look.face_width
    forehead, temple, end = _HAIRLINES[look.hair_style]
    top = 0.295 if look.hair_style is HairStyle.CROP else 0.335
    parted = look.hair_style in _WITH_PARTING
    part = (0.07 * look.light, forehead - 0.045) if parted else (0.0, forehead)
    lower = [
        *stretched([(-1, end), (-0.87, temple)], wide),
        (-0.11, forehead), part, (0.11, forehead),
        *stretched([(0.87, temple), (1, end)], wide),
    ]  # fmt: skip
    crown = [(1.09, end), (1.13, -0.1), (0.85, -top * 0.84), (0.0, -top)]
    upper = stretched([*crown, *((-x, y) for x, y in reversed(crown[:-1]))], wide)
    mask = easel.polygon([*smooth(lower, closed=False), *smooth(upper, closed=False)])
    if look.hair_style is HairStyle.CURLS:
        across = [-1 + step / 4 for step in range(9)]
        curls = (((x * wide * 0.95, -0.25 + 0.1 * x * x), 0.06, 0.055) for x in across)
        mask = ImageChops.lighter(mask, easel.ovals(*curls))
    easel.paint(mask, look.hair)
    gloss = mixed(look.hair, (255, 240, 220), 0.3)
    easel.shade(mask, (0.1 * look.light, -0.27), (0.1, 0.025), gloss)


def beard(easel: Easel, look: Look, head: Image.Image) -> None:
    """Around the mouth, which stays free."""
    y, wide = look.mouth_height, look.face_width
    match look.beard:
        case Beard.NONE:
            return
        case Beard.MOUSTACHE:
            half = [(0, y - 0.03), (-0.05, y - 0.032), (-0.085, y - 0.006), (0, y - 0.014)]
            mask = easel.polygon(smooth(symmetric(half)))
        case Beard.FULL | Beard.STUBBLE:
            left = [(-0.1, y - 0.035), (-wide * 0.8, 0.13), (-wide, 0.1), (-wide, 0.4)]
            mask = easel.polygon([*left, *((-x, py) for x, py in reversed(left))])
    mouth = easel.ovals(((0, y + 0.004), look.mouth_width * 1.02, look.lips * 1.35))
    mask = ImageChops.multiply(mask, ImageChops.invert(mouth))
    strength = 0.28 if look.beard is Beard.STUBBLE else 0.82
    colour = mixed(look.hair, (24, 14, 10), 0.3)
    easel.paint(mask, colour, blur=0.012, within=head, strength=strength)
