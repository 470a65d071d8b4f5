"""Head, eyes, nose and mouth. `head` is the mask of the face, inside which shading keeps."""

from __future__ import annotations

from PIL import Image, ImageChops

from .easel import BLACK, WHITE, Easel, Point, mixed, smooth, stretched, symmetric
from .look import Look


def head(easel: Easel, look: Look) -> Image.Image:
    """Ears and head, lit from one side; returns the mask of the face."""
    wide, jaw, chin = look.face_width, look.face_width * look.jaw, look.chin
    for side in (-1, 1):
        ear = easel.ovals(((side * (wide + 0.004), 0.02), 0.03, 0.06))
        easel.paint(ear, mixed(look.skin, (120, 40, 20), 0.14))
    skull = [(0, -0.27), (-0.55, -0.25), (-0.92, -0.15), (-1, -0.02), (-0.97, 0.1)]
    below = [(-1, 0.19), (-0.62, chin * 0.87), (-0.25, chin * 0.99), (0, chin)]
    outline = [*stretched(skull, wide), *stretched(below, jaw)]
    mask = easel.polygon(smooth(symmetric(outline)))
    easel.paint(mask, look.skin)
    dark = look.shadow(0.3)
    easel.shade(mask, (-look.light * wide * 1.12, 0.08), (wide * 0.42, 0.3), dark)
    easel.shade(mask, (look.light * wide * 1.2, 0.12), (wide * 0.3, 0.22), dark)
    easel.shade(mask, (0, chin * 1.06), (jaw * 0.9, 0.05), dark)
    easel.shade(mask, (0, -0.13), (wide * 0.5, 0.06), look.shine(0.3))
    for side in (-1, 1):
        easel.shade(mask, (side * 0.13, 0.1), (0.05, 0.035), mixed(look.skin, (215, 90, 80), 0.26))
    return mask


def eyes(easel: Easel, look: Look, mask: Image.Image) -> None:
    """Sockets, eyes and brows."""
    socket = look.shadow(0.36)
    for side in (-1, 1):
        x = side * look.eye_gap
        easel.shade(mask, (x, -0.014), (look.eye_width * 1.3, 0.03), socket)
        easel.shade(mask, (x * 0.5, -0.01), (0.018, 0.035), socket)
        _eye(easel, look, side)
        _brow(easel, look, side)


def _eye(easel: Easel, look: Look, side: int) -> None:
    x, out = side * look.eye_gap, side * look.eye_width  # out is towards the temple
    lid = [(x - out, 0.006), (x - out * 0.4, -0.019), (x + out * 0.35, -0.021), (x + out, 0.001)]
    almond = easel.polygon(smooth([*lid, (x + out * 0.4, 0.018), (x - out * 0.45, 0.017)]))
    easel.paint(almond, (244, 241, 238))
    rim = mixed(look.iris, BLACK, 0.35)
    for colour, radius in ((rim, 0.0225), (look.iris, 0.0185), ((16, 12, 12), 0.0095)):
        disc = easel.ovals(((x, -0.001), radius, radius))
        easel.paint(ImageChops.multiply(disc, almond), colour)
    easel.paint(easel.ovals(((x + 0.007 * look.light, -0.008), 0.005, 0.005)), WHITE)
    lash = [*lid[:-1], (x + out * 1.06, -0.001)]
    easel.line(lash, 0.0085, mixed(look.hair, (20, 10, 10), 0.75))
    crease = [(px, py - 0.015) for px, py in lash]
    easel.line(crease, 0.0035, mixed(look.skin, (60, 20, 10), 0.4))


def _brow(easel: Easel, look: Look, side: int) -> None:
    x, y = side * look.eye_gap, -look.brow_lift
    points = [
        (x - side * 0.052, y - look.brow_slope),
        (x + side * 0.015, y - 0.009),
        (x + side * 0.062, y + 0.011),
    ]
    colour = mixed(look.hair, (34, 22, 20), 0.62)
    easel.line(points, look.brow_weight, mixed(colour, look.skin, 0.1))


def nose(easel: Easel, look: Look, mask: Image.Image) -> None:
    """A ridge with a light and a dark side, tip, wings and nostrils."""
    dark, tip, wide = look.shadow(0.38), look.nose_length, look.nose_width
    for side in (-1, 1):
        ridge = [(0.012, -0.03), (0.03, -0.03), (wide, tip * 0.85), (0.016, tip * 0.8)]
        flank = easel.polygon(stretched(ridge, side))
        strength = 0.75 if side == -look.light else 0.4
        easel.paint(flank, dark, blur=0.012, within=mask, strength=strength)
    easel.shade(mask, (0, tip + 0.012), (wide * 1.1, 0.014), dark)
    easel.shade(mask, (0, 0.03), (0.009, 0.06), look.shine(0.45))
    easel.shade(mask, (0, tip * 0.83), (0.017, 0.014), look.shine(0.5))
    for side in (-1, 1):
        wing = [(wide, tip - 0.026), (wide + 0.003, tip - 0.004), (wide * 0.72, tip + 0.006)]
        easel.line(stretched(wing, side), 0.005, dark)
        nostril = easel.ovals(((side * wide * 0.46, tip + 0.002), 0.012, 0.006))
        easel.paint(nostril, mixed(look.skin, (40, 10, 10), 0.7), blur=0.002)


def mouth(easel: Easel, look: Look, mask: Image.Image) -> None:
    """Two lips, their parting, and the shadow below."""
    y, wide, lips, smile = look.mouth_height, look.mouth_width, look.lips, look.smile
    red = mixed(look.skin, (168, 52, 56), 0.5)
    corner = y - smile
    lower: list[Point] = [
        (-0.92, corner + 0.003), (0, y + smile * 0.5), (0.92, corner + 0.003),
        (0.45, y + lips * 1.2), (-0.45, y + lips * 1.2),
    ]  # fmt: skip
    upper: list[Point] = [
        (-1, corner), (-0.4, y - lips * 0.75), (0, y - lips * 0.5),
        (0.4, y - lips * 0.75), (1, corner), (0, y + smile * 0.6),
    ]  # fmt: skip
    parting: list[Point] = [
        (-1, corner), (-0.5, y + smile * 0.1), (0, y + smile * 0.35),
        (0.5, y + smile * 0.1), (1, corner),
    ]  # fmt: skip
    light_red, dark_red = mixed(red, (255, 230, 220), 0.14), mixed(red, (40, 5, 10), 0.2)
    for points, colour in ((lower, light_red), (upper, dark_red)):
        lip = easel.polygon(smooth(stretched(points, wide)))
        easel.paint(lip, colour, blur=0.002)
    easel.line(stretched(parting, wide), 0.007, mixed(red, (40, 5, 10), 0.7))
    below = mixed(look.skin, (60, 20, 10), 0.35)
    easel.shade(mask, (0, y + lips * 1.2 + 0.016), (wide * 0.5, 0.01), below)
