"""Every picture that installed packages carry is sent and shows what it showed, or has a reason."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from real_pictures import difference, shown

from enroll.model import Fault
from enroll.photo import PhotoCode, prepare
from enroll.preparation import Preparation
from enroll.sandbox.pictures import grey_picture

PACKAGES = ("PIL", "skimage", "matplotlib")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".apng", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif"}
    | {".heic", ".heif", ".ico", ".ppm", ".pgm", ".tga", ".psd", ".jp2", ".svg", ".pdf", ".eps"}
)

REASONS = frozenset(
    {PhotoCode.TOO_SMALL, PhotoCode.FORMAT, PhotoCode.NOT_AN_IMAGE, PhotoCode.DAMAGED}
)


def pictures() -> list[Path]:
    found = []
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent
            found += [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    return sorted(found)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_every_picture_that_packages_carry_is_sent_as_it_looks_or_has_a_reason() -> None:
    seen: Counter[str] = Counter()
    for path in pictures():
        content = path.read_bytes()
        found = prepare(content, Preparation())
        if isinstance(found, Fault):
            assert found.code in REASONS, (path, found)
            seen[found.code] += 1
            continue
        grey_picture(found.content, field="file", around=640)
        assert difference(shown(found.content), shown(content)) < 3, path
        seen[found.words or "as it is"] += 1
    assert sum(seen.values()) >= 10
    assert len(seen) >= 3, seen
