"""Every picture that installed packages carry is sent and shows what it showed, or has a reason."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from real_pictures import difference, shown

from enroll.model import Fault
from enroll.photo import PhotoCode, prepare
from enroll.photo.facecheck import doubt_about
from enroll.preparation import Precheck, Preparation
from enroll.sandbox.pictures import grey_picture

PACKAGES = ("PIL", "skimage", "matplotlib")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".apng", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif"}
    | {".heic", ".heif", ".ico", ".ppm", ".pgm", ".tga", ".psd", ".jp2", ".svg", ".pdf", ".eps"}
)

REASONS = frozenset(
    {PhotoCode.TOO_SMALL, PhotoCode.FORMAT, PhotoCode.NOT_AN_IMAGE, PhotoCode.DAMAGED}
)


def pictures_of(package: str) -> list[Path]:
    spec = find_spec(package)
    assert spec is not None, f"{package} is missing: `make test` installs it"
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def pictures() -> list[Path]:
    return [path for package in PACKAGES for path in pictures_of(package)]


def test_the_packages_carry_pictures() -> None:
    assert len(pictures_of("skimage")) >= 20
    assert len(pictures_of("matplotlib")) >= 40  # Pillow carried none when this was written


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
    assert sum(seen.values()) == len(pictures())
    assert len(seen) >= 3, seen


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_face_is_found_in_the_two_portraits_among_them_and_in_nothing_else() -> None:
    looking = Preparation(precheck=Precheck.WARN)
    with_face = set()
    for path in pictures():
        found = prepare(path.read_bytes(), looking)
        if isinstance(found, Fault):
            continue
        doubt = doubt_about(found.content, found.media_type, looking)
        if doubt is None:
            with_face.add(path.name)
        else:
            assert doubt.code == PhotoCode.NO_FACE, (path, doubt)
    assert with_face == {"astronaut.png", "grace_hopper.jpg"}
