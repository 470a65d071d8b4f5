"""Every picture that installed packages carry is sent and shows what it showed, or has a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from real_pictures import difference, exif, saved, shown

from enroll.model import Fault
from enroll.photos import Glance, PhotoCode, examine, glance, open_store, prepare
from enroll.photos.precheck import check
from enroll.sandbox.faces import grey_picture
from enroll.settings import Precheck, Preparation

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


def heic(picture: Image.Image) -> bytes:
    out = BytesIO()
    heif = pytest.importorskip("pillow_heif").from_pillow(picture)
    heif.save(out, quality=50, enc_params={"preset": "ultrafast"})
    return out.getvalue()


SAVED: dict[str, Callable[[Image.Image], bytes]] = {
    "webp": partial(saved, form="WEBP"),
    "avif": partial(saved, form="AVIF", speed=10),
    "heic": heic,
    "tiff": partial(saved, form="TIFF"),
    "large jpeg": saved,
    "turned jpeg": partial(saved, exif=exif(6)),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_glance_tells_about_how_many_bytes_would_be_sent(name: str, tmp_path: Path) -> None:
    told, found, photos = 0, 0, 0
    preparation = Preparation(max_side=199 if name == "large jpeg" else 4096)
    for path in pictures_of("skimage"):
        if path.suffix not in (".png", ".jpg"):
            continue
        with Image.open(path) as opened:
            if min(opened.size) < 200:
                continue
            picture = opened.convert("RGB")
        picture.thumbnail((360, 360))
        photo = tmp_path / path.name
        photo.write_bytes(SAVED[name](picture))
        seen = glance(str(photo), open_store(tmp_path), preparation)
        read = examine(str(photo), open_store(tmp_path), preparation)
        assert isinstance(seen, Glance)
        assert isinstance(read, Glance)
        assert seen.edits == read.edits != ()
        told, found, photos = told + seen.to_send, found + read.to_send, photos + 1
    assert photos >= 15
    assert 0.67 < told / found < 1.5, (told, found)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_face_is_found_in_the_two_portraits_among_them_and_in_nothing_else() -> None:
    looking = Preparation(precheck=Precheck.WARN)
    with_face = set()
    for path in pictures():
        found = prepare(path.read_bytes(), looking)
        if isinstance(found, Fault):
            continue
        doubt = check(found.content, found.media_type, looking).fault
        if doubt is None:
            with_face.add(path.name)
        else:
            assert doubt.code == PhotoCode.NO_FACE, (path, doubt)
    assert with_face == {"astronaut.png", "grace_hopper.jpg"}
