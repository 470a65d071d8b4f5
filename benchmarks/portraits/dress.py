"""What is around the face: wall, neck, clothing and glasses."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFilter

from .easel import BLACK, WHITE, Colour, Easel, mixed, smooth, stretched, symmetric
from .look import Collar, Glasses, Look


def wall(easel: Easel, look: Look) -> None:
    """A glow on the wall, from where the light comes."""
    # A wide blur is dear, so the glow is made small and stretched.
    small = Image.new("L", (48, 60), 0)
    x = 24 + 6 * look.light
    ImageDraw.Draw(small).ellipse((x - 23, -10, x + 23, 44), fill=255)
    glow = small.filter(ImageFilter.GaussianBlur(8)).resize(easel.picture.size)
    easel.picture.paste(mixed(look.wall, WHITE, 0.65), (0, 0), glow)


def body(easel: Easel, look: Look) -> None:
    """Shoulders, clothing and neck."""
    half = look.face_width * 0.56
    skin = mixed(look.skin, (60, 20, 10), 0.1)
    side = [(0, 0.95), (-0.55, 0.95), (-0.47, 0.6), (-0.36, 0.475), (-0.14, 0.4), (0.0, 0.44)]
    torso = easel.polygon(smooth(symmetric(side)))
    easel.paint(torso, look.cloth)
    easel.shade(torso, (-0.3 * look.light, 0.6), (0.3, 0.3), mixed(look.cloth, BLACK, 0.3))
    _opening(easel, look, skin)
    neck = easel.polygon([(-half, 0.15), (half, 0.15), (half, 0.41), (0, 0.47), (-half, 0.41)])
    easel.paint(neck, skin)
    shadow = mixed(look.skin, (50, 20, 10), 0.42)
    easel.shade(neck, (0, look.chin * 0.92), (half * 1.15, 0.09), shadow)
    if look.collar in (Collar.SHIRT, Collar.BLAZER):
        _flaps(easel, look)


def _opening(easel: Easel, look: Look, skin: Colour) -> None:
    """What the collar leaves free, or the shirt in it."""
    if look.collar is Collar.CREW:
        mask = easel.ovals(((0, 0.4), 0.15, 0.085))
    else:
        mask = easel.polygon([(-0.15, 0.39), (0.15, 0.39), (0.0, 0.57)])
    bare = look.collar in (Collar.CREW, Collar.V)
    easel.paint(mask, skin if bare else (240, 242, 245))


def _flaps(easel: Easel, look: Look) -> None:
    """The two halves of a shirt's collar."""
    white = look.collar is Collar.BLAZER
    colour = (250, 250, 252) if white else mixed(look.cloth, WHITE, 0.25)
    edge = mixed(colour, BLACK, 0.25)
    for side in (-1, 1):
        points = [(0.15, 0.375), (0.005, 0.48), (0.075, 0.55), (0.185, 0.425)]
        flap = easel.polygon(stretched(points, side))
        easel.paint(flap, colour)
        easel.shade(flap, (side * 0.08, 0.555), (0.1, 0.03), edge)


def glasses(easel: Easel, look: Look) -> None:
    """Two frames, the bridge and the temples."""
    if look.glasses is Glasses.NONE:
        return
    colour = mixed(look.cloth, (20, 20, 24), 0.75)
    is_round = look.glasses is Glasses.ROUND
    wide, high = (0.068, 0.056) if is_round else (0.074, 0.046)
    middle = look.eye_gap + 0.003
    for side in (-1, 1):
        x = side * middle
        radius = high if is_round else 0.018
        easel.frame((x, 0.008), (wide, high), radius=radius, width=0.0085, colour=colour)
        temple = (side * (look.face_width + 0.004), -0.006)
        easel.line([(x + side * wide, 0.0), temple], 0.008, colour)
    gap = middle - wide
    easel.line([(-gap, 0.0), (0, -0.008), (gap, 0.0)], 0.008, colour)
