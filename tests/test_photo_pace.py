"""No photo takes longer than it may: it is given up at the next step, and the others go on."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from real_pictures import difference, exif, saved, scene, shown

from enroll.model import Fault, Status, Unusable
from enroll.photos import PhotoCode, Prepared, bounds, examine, open_store, prepare, read_photo
from enroll.photos.bounds import TooSlowError, timed
from enroll.photos.decode import load, open_picture
from enroll.photos.form import Form
from enroll.photos.precheck import check
from enroll.settings import Precheck, Preparation


def heic() -> bytes:
    out = BytesIO()
    pytest.importorskip("pillow_heif").from_pillow(scene()).save(out, quality=90)
    return out.getvalue()


MADE_ANEW: dict[str, Callable[[], bytes]] = {
    "a turned JPEG": lambda: saved(scene(), exif=exif(6)),
    "a progressive JPEG": lambda: saved(scene(), exif=exif(6), progressive=True),
    "a transparent PNG": lambda: saved(scene().convert("RGBA"), "PNG"),
    "a GIF": lambda: saved(scene().quantize(64), "GIF"),
    "a TIFF": lambda: saved(scene(), "TIFF"),
    "a packed TIFF": lambda: saved(scene(), "TIFF", compression="tiff_lzw"),
    "a WebP": lambda: saved(scene(), "WEBP"),
    "an AVIF": lambda: saved(scene(), "AVIF", speed=10),
    "a HEIC": heic,
}


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SLOWEST", -1.0)


@pytest.mark.usefixtures("no_time")
@pytest.mark.parametrize("name", MADE_ANEW)
def test_a_photo_whose_time_is_up_is_given_up(name: str, tmp_path: Path) -> None:
    fault = prepare(MADE_ANEW[name]())
    assert isinstance(fault, Fault)
    assert fault.code == PhotoCode.TOO_SLOW
    path = tmp_path / "slow"
    path.write_bytes(MADE_ANEW[name]())
    read = read_photo(str(path), open_store(tmp_path))
    assert isinstance(read, Unusable)
    assert (read.status, read.fault) == (Status.INVALID, fault)
    assert examine(str(path), open_store(tmp_path)) == fault


@pytest.mark.usefixtures("no_time")
def test_what_is_sent_as_it_is_takes_no_time() -> None:
    assert isinstance(prepare(saved(scene())), Prepared)


@pytest.mark.usefixtures("no_time")
def test_it_takes_no_longer_to_tell_how_much_is_missing_or_whether_a_face_is_there() -> None:
    half = saved(scene(), "PNG")[:-3000]
    fault = prepare(half)
    assert isinstance(fault, Fault)
    assert fault.code == PhotoCode.TOO_SLOW
    doubt = check(saved(scene()), "image/jpeg", Preparation(precheck=Precheck.HOLD)).fault
    assert doubt is not None
    assert doubt.code == PhotoCode.TOO_SLOW


@pytest.mark.parametrize("form", [Form.JPEG, Form.PNG, Form.GIF, Form.BMP])
def test_decoding_ends_between_two_blocks_and_not_only_when_it_is_done(
    form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = open_picture(saved(scene(), form.value), form)
    monkeypatch.setattr(bounds, "SLOWEST", -1.0)
    with pytest.raises(TooSlowError):
        timed(lambda: load(picture))
    assert picture.tile  # not done


def test_the_next_photo_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(scene(), exif=exif(6))
    with monkeypatch.context() as patched:
        patched.setattr(bounds, "SLOWEST", -1.0)
        for _ in range(20):  # more than there are threads that decode
            assert isinstance(prepare(content), Fault)
    found = prepare(content)
    assert isinstance(found, Prepared)
    assert difference(shown(found.content), shown(content)) < 4
