"""The picture under way, and the strokes that portraits are made of.

Points and lengths are fractions of the picture's width; the origin is between the eyes and y
grows downwards. Shapes are masks (mode `L`), painted with a colour, softly where wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Point = tuple[float, float]

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)


class Easel:
    """One portrait while it is drawn, from the back to the front."""

    def __init__(self, size: tuple[int, int], *, ground: Colour) -> None:
        self.picture = Image.new("RGB", size, ground)
        self._unit = min(size[0], size[1] * 0.8)
        self._origin = (size[0] / 2, size[1] * 0.445)

    def ovals(self, *ovals: tuple[Point, float, float]) -> Image.Image:
        """The mask of ovals, each a middle and half its width and height."""
        mask = Image.new("L", self.picture.size, 0)
        draw = ImageDraw.Draw(mask)
        for middle, wide, high in ovals:
            draw.ellipse(self._box(middle, wide, high), fill=255)
        return mask

    def polygon(self, points: Sequence[Point]) -> Image.Image:
        """The mask of a closed outline."""
        mask = Image.new("L", self.picture.size, 0)
        ImageDraw.Draw(mask).polygon([self._at(point) for point in points], fill=255)
        return mask

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Paint a smooth stroke with round ends."""
        path = [self._at(point) for point in smooth(points, closed=False)]
        draw = ImageDraw.Draw(self.picture)
        thick = max(round(width * self._unit), 1)
        draw.line(path, fill=colour, width=thick, joint="curve")
        for x, y in (path[0], path[-1]):
            draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=colour)

    def frame(
        self, middle: Point, size: Point, *, radius: float, width: float, colour: Colour
    ) -> None:
        """Paint the outline of a box with round corners; `size` is half its width and height."""
        ImageDraw.Draw(self.picture).rounded_rectangle(
            self._box(middle, *size),
            radius=radius * self._unit,
            outline=colour,
            width=round(width * self._unit),
        )

    def shade(self, within: Image.Image, middle: Point, size: Point, colour: Colour) -> None:
        """Paint a soft oval that keeps inside `within`; `size` is half its width and height."""
        self.paint(self.ovals((middle, *size)), colour, blur=min(size) * 0.55, within=within)

    def paint(
        self,
        mask: Image.Image,
        colour: Colour,
        *,
        blur: float = 0.0,
        within: Image.Image | None = None,
        strength: float = 1.0,
    ) -> None:
        """Paint a mask, blurred, weakened and kept inside another mask as wanted."""
        box = mask.getbbox()
        if box is None:
            return
        # Only the part that the mask touches is worked on, which is most of the speed.
        reach = 3 * blur * self._unit
        left, top = (max(int(side - reach), 0) for side in box[:2])
        right = min(int(box[2] + reach) + 1, mask.width)
        bottom = min(int(box[3] + reach) + 1, mask.height)
        part = mask.crop((left, top, right, bottom))
        if blur:
            part = part.filter(ImageFilter.GaussianBlur(blur * self._unit))
        if strength < 1:
            part = part.point(lambda level: level * strength)
        if within is not None:
            part = ImageChops.multiply(part, within.crop((left, top, right, bottom)))
        self.picture.paste(colour, (left, top), part)

    def _at(self, point: Point) -> Point:
        return self._origin[0] + point[0] * self._unit, self._origin[1] + point[1] * self._unit

    def _box(self, middle: Point, wide: float, high: float) -> tuple[float, float, float, float]:
        x, y = middle
        return (*self._at((x - wide, y - high)), *self._at((x + wide, y + high)))


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with a `share` (0 to 1) of `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def stretched(points: Sequence[Point], wide: float) -> list[Point]:
    """The points with x in units of `wide`."""
    return [(x * wide, y) for x, y in points]


def symmetric(left: Sequence[Point]) -> list[Point]:
    """A closed outline from its left half, which starts and ends in the middle."""
    return [*left, *((-x, y) for x, y in reversed(left[1:-1]))]


def smooth(points: Sequence[Point], *, closed: bool = True, steps: int = 8) -> list[Point]:
    """A Catmull-Rom curve through the points."""
    count = len(points)

    def at(index: int) -> Point:
        return points[index % count] if closed else points[min(max(index, 0), count - 1)]

    curve: list[Point] = []
    for index in range(count if closed else count - 1):
        corners = [at(index + offset) for offset in (-1, 0, 1, 2)]
        xs, ys = zip(*corners, strict=True)
        curve.extend(
            (_between(xs, step / steps), _between(ys, step / steps)) for step in range(steps)
        )
    return curve if closed else [*curve, points[-1]]


def _between(corners: Sequence[float], t: float) -> float:
    """The curve from the second to the third of four numbers, at `t` from 0 to 1."""
    a, b, c, d = corners
    slope, bend = (c - a) / 2, a - 2.5 * b + 2 * c - d / 2
    return b + t * slope + t * t * bend + t**3 * (-a + 3 * b - 3 * c + d) / 2
