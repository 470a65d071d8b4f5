"""What it takes to make a large photo ready to be sent, beside libvips' `vipsthumbnail`.

Ours is a whole run against nginx, which answers at once. Theirs is a process per core with its part
of the photos, to the size, quality and sampling of colour that ours has chosen. Each way does few
photos and many, and the difference is what a photo takes: start-up is left out of both.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image, JpegImagePlugin

from enroll.photos import Prepared, prepare
from enroll.photos.encode import style_of
from enroll.settings import DEFAULT_MAX_SIDE, Preparation

from .archives import Archive
from .bench import Bench
from .figures import OURS, Figure, figure
from .nginx import running
from .programs import find
from .row_cost import cost
from .ways import IN_FLIGHT, Command, Way, ours, tokens_in_results

VIPS = "vipsthumbnail"

_SIDES = {24: (6000, 4000), 12: (4000, 3000)}
"""Of photos of so many megapixels."""

_TARGETS = {DEFAULT_MAX_SIDE: f"≤ 1.2 × {VIPS}", 1280: f"≤ 1.0 × {VIPS}"}
"""For each longest side that they are brought to."""

_COARSE = 2
"""Pillow's number for colour at every fourth pixel."""

Cores = Sequence[int]


def measure(bench: Bench) -> Iterator[Figure]:
    """Wall time and CPU of a photo at both sizes, on all cores; at the usual size also on one core,
    and how many times as many photos a second all of them make."""
    cores = sorted(os.sched_getaffinity(0))
    for megapixels in bench.size.megapixels:
        archive = bench.camera(*_SIDES[megapixels])
        for side in bench.size.sides:
            case = f"a photo of {megapixels} megapixels to {side}"
            used = {"": cores}
            if side == max(bench.size.sides) and len(cores) > 1:
                used[" on one core"] = cores[:1]
            yield from _measured(bench, case, archive, side, used)


def _measured(
    bench: Bench, case: str, archive: Archive, side: int, used: Mapping[str, Cores]
) -> Iterator[Figure]:
    """Every way, on each of the sets of cores `used`, which are named by what is put to the way."""
    target = _TARGETS[side]
    side //= bench.size.shrink
    makers: dict[str, Callable[[Cores], Way]] = {OURS: partial(_ours, side)}
    if find(VIPS):
        makers[VIPS] = partial(_vips, side, _like_ours(archive, side))
    known = {f"{name}{on}": (name, cores) for on, cores in used.items() for name in makers}
    wall, cpu = defaultdict(list), defaultdict(list)
    photos = bench.size.prepared
    with running() as nginx:
        for _, way in bench.rounds(list(known)):
            name, cores = known[way]
            found = cost(bench, makers[name](cores), archive, nginx.endpoint, photos)
            wall[way].append(found.wall)
            cpu[way].append(found.cpu)
    for way in known:
        yield figure(case, way, "wall time", values=wall[way], unit="ms", target=target)
        yield figure(case, way, "CPU", values=cpu[way], unit="ms")
    for name in makers if len(used) > 1 else ():
        pairs = zip(*(wall[f"{name}{on}"] for on in used), strict=True)
        times = [one / every for every, one in pairs]
        measure = f"{len(used[''])} cores"
        yield figure(case, name, measure, values=times, unit="× one", target="≥ 1.85")


def _ours(side: int, cores: Cores) -> Way:
    options = "--max-side", str(side), "--max-in-flight", str(IN_FLIGHT)
    return Way(
        command=lambda manifest, _, folder: _pinned(cores, ours("run", manifest, folder, *options)),
        tokens=tokens_in_results,
    )


def _vips(side: int, output: str, cores: Cores) -> Way:
    """A process per core, which is given its part of the photos at once."""
    size = "--size", f"{side}x{side}>"

    def command(manifest: Path, _: str, folder: Path) -> Command:
        with manifest.open(encoding="utf-8", newline="") as file:
            photos = [str(manifest.parent / row["image"]) for row in csv.DictReader(file)]
        (folder / "photos").write_text("\n".join(photos), encoding="utf-8")
        each = -(-len(photos) // len(cores))
        return _pinned(
            cores,
            (
                *("xargs", "-d", "\\n", "-a", folder / "photos"),
                *("-n", str(each), "-P", str(len(cores))),
                *(VIPS, *size, "-o", f"{folder}/{output}"),
            ),
        )

    return Way(command=command, tokens=lambda folder: len(list(folder.glob("*.jpg"))))


def _pinned(cores: Cores, command: Command) -> Command:
    return ("taskset", "-c", ",".join(map(str, cores)), *command)


def _like_ours(archive: Archive, side: int) -> str:
    """Where vipsthumbnail puts a photo, and how it encodes it: as ours has."""
    found = prepare(archive.content(0), Preparation(max_side=side))
    assert isinstance(found, Prepared)
    picture = Image.open(BytesIO(found.content))
    assert isinstance(picture, JpegImagePlugin.JpegImageFile)
    quality = style_of(picture, on_its_side=False).quality
    coarse = "on" if JpegImagePlugin.get_sampling(picture) == _COARSE else "off"
    return f"%s.jpg[Q={quality},strip,subsample_mode={coarse}]"
