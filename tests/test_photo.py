"""Photos: told by their content, read once, refused with the right reason."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from PIL import Image
from real_pictures import Made

from enroll.model import Fault, FileTimes, Photo, Status, Unusable
from enroll.photos import (
    LARGEST_FILE,
    Glance,
    PhotoCode,
    Prepared,
    glance,
    open_store,
    prepare,
    read,
    read_photo,
    read_photos,
)
from enroll.photos import folder as photo_folder


def picture(form: str = "JPEG", *, size: tuple[int, int] = (96, 128), **options: object) -> bytes:
    noisy = Image.effect_noise(size, 60).convert("RGB")
    out = BytesIO()
    noisy.save(out, form, **options)
    return out.getvalue()


def code_of(found: Photo | Unusable) -> str:
    assert isinstance(found, Unusable)
    return found.fault.code


def put(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def fault_of(content: bytes) -> Fault:
    found = prepare(content)
    assert isinstance(found, Fault)
    return found


@pytest.mark.parametrize(
    ("form", "media_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("BMP", "image/bmp")]
)
def test_a_photo_is_told_by_its_content_whatever_its_name(
    tmp_path: Path, form: str, media_type: str
) -> None:
    content = picture(form)
    found = read_photo(put(tmp_path, "portrait.gif", content), open_store(tmp_path))
    assert isinstance(found, Photo)
    assert found.media_type == media_type
    assert found.content == content
    assert found.sha256 == hashlib.sha256(content).digest()
    assert (found.sent_sha256, found.prepared) == (None, "")


def test_the_hash_of_what_is_sent_is_told_where_that_is_not_the_file(tmp_path: Path) -> None:
    content = picture(comment=b"Summer in the garden")
    found = read_photo(put(tmp_path, "a.jpg", content), open_store(tmp_path))
    assert isinstance(found, Photo)
    assert found.sha256 == hashlib.sha256(content).digest()
    assert found.content == picture_without_its_comment(content)
    assert found.sent_sha256 == hashlib.sha256(found.content).digest()
    assert found.prepared == "stripped"


def picture_without_its_comment(content: bytes) -> bytes:
    at = content.index(b"\xff\xfe")
    length = int.from_bytes(content[at + 2 : at + 4], "big")
    return content[:at] + content[at + 2 + length :]


FOREIGN = Made(
    {
        "an icon (ICO)": lambda: picture("ICO"),
        "a Netpbm (PBM, PGM, PPM or PAM)": lambda: picture("PPM"),
        "an SGI picture": lambda: picture("SGI"),
        "a JPEG 2000": lambda: picture("JPEG2000"),
        "a PostScript file (EPS)": lambda: picture("EPS"),
        "a PDF": lambda: picture("PDF"),
        "a texture (DDS)": lambda: picture("DDS"),
        "a QOI": lambda: picture("QOI"),
        "a PCX": lambda: picture("PCX"),
        "an icon (ICNS)": lambda: b"icns" + bytes(100),
        "a Photoshop document (PSD)": lambda: b"8BPS\0\1" + bytes(100),
        "a JPEG XL": lambda: b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100),
        "a camera's raw file (Fujifilm RAF)": lambda: b"FUJIFILMCCD-RAW 0201FF383501" + bytes(100),
        "a camera's raw file (Panasonic RW2)": lambda: b"IIU\0\x18\0\0\0" + bytes(100),
        "a camera's raw file (Olympus ORF)": lambda: b"IIRO\x08\0\0\0" + bytes(100),
        "a camera's raw file (Canon CR3)": lambda: (
            b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom" + bytes(100)
        ),
        "a camera's raw file (Canon CRW)": lambda: b"II\x1a\0\0\0HEAPCCDR" + bytes(100),
        "a DICOM file": lambda: bytes(128) + b"DICM" + bytes(100),
        "an SVG": lambda: (
            b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- me --><!-- it -->\n<svg xmlns='x'/>"
        ),
    }
)


@cases("name", FOREIGN)
def test_an_image_of_a_format_that_is_not_converted_names_it(name: str, tmp_path: Path) -> None:
    fault = fault_of(FOREIGN[name])
    assert fault.code == PhotoCode.FORMAT
    assert f"The photo is {name}, which is not converted." in fault.message
    assert glance(put(tmp_path, "a.jpg", FOREIGN[name]), open_store(tmp_path)) == fault


NAMING = """
import sys
from enroll.photos import prepare
for content in eval(sys.stdin.read()):
    assert "which is not converted" in prepare(content).message
print(*sorted(name for name in sys.modules if name.endswith("ImagePlugin")))
"""


def test_an_image_of_another_format_is_named_without_a_decoder_of_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NAMING],
        input=repr(list(FOREIGN.values())),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    loaded = {name.removeprefix("PIL.").removesuffix("ImagePlugin") for name in done.stdout.split()}
    assert loaded <= {"Avif", "Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP"}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.75, 0.97])
def test_a_photo_without_its_end_is_truncated(form: str, kept: float) -> None:
    content = picture(form)
    assert fault_of(content[: int(len(content) * kept)]).code == PhotoCode.TRUNCATED


def test_a_thumbnails_end_does_not_pass_for_the_pictures() -> None:
    thumbnail = picture(size=(32, 32))
    content = picture(size=(400, 400), comment=thumbnail, progressive=True)
    assert isinstance(prepare(content), Prepared)
    assert fault_of(content[: len(content) // 2]).code == PhotoCode.TRUNCATED


def test_a_png_with_a_broken_chunk_is_damaged() -> None:
    content = bytearray(picture("PNG"))
    content[len(content) // 2] ^= 0xFF
    assert fault_of(bytes(content)).code == PhotoCode.DAMAGED


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", PhotoCode.EMPTY),
        (b"hello, world\n" * 100, PhotoCode.NOT_AN_IMAGE),
        (b"%PDF-1.4 something", PhotoCode.FORMAT),
        (b"<!---->" * 200 + b"<html>", PhotoCode.NOT_AN_IMAGE),
        (b"\xff\xd8\xff\xe0rubbish", PhotoCode.TRUNCATED),
        (os.urandom(5000), PhotoCode.NOT_AN_IMAGE),
    ],
)
def test_what_is_no_image_is_invalid_and_its_content_is_known(
    tmp_path: Path, content: bytes, code: PhotoCode
) -> None:
    found = read_photo(put(tmp_path, "a.jpg", content), open_store(tmp_path))
    assert isinstance(found, Unusable)
    assert (found.status, found.fault.code) == (Status.INVALID, code)
    assert found.content is not None
    assert found.content.sha256 == hashlib.sha256(content).digest()


def test_a_photo_that_is_not_there_is_failed_and_due_again(tmp_path: Path) -> None:
    found = read_photo(str(tmp_path / "gone.jpg"), open_store(tmp_path))
    assert isinstance(found, Unusable)
    assert (found.status, found.fault.code) == (Status.FAILED, PhotoCode.MISSING)
    assert found.content is None
    assert list(open_store(tmp_path).stat([str(tmp_path / "gone.jpg")])) == [-1, -1, -1]


def test_a_path_in_the_words_of_windows_gets_a_hint(tmp_path: Path) -> None:
    found = read_photo(str(tmp_path / "a\\b.jpg"), open_store(tmp_path))
    assert isinstance(found, Unusable)
    assert "/" in found.fault.message


@pytest.mark.parametrize("target", ["inside.jpg", "../outside.jpg"])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    put(root, "inside.jpg", picture())
    put(tmp_path, "outside.jpg", picture())
    (root / "link.jpg").symlink_to(root / target)
    assert code_of(read_photo(str(root / "link.jpg"), open_store(root))) == PhotoCode.SYMLINK


def test_a_folder_that_leads_out_of_the_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    put(tmp_path, "elsewhere/a.jpg", picture())
    (root / "photos").symlink_to(tmp_path / "elsewhere")
    assert code_of(read_photo(str(root / "photos/a.jpg"), open_store(root))) == PhotoCode.OUTSIDE


NOTHING = [-1, -1, -1]


@pytest.fixture(params=["/proc/self/fd", "/nowhere"], ids=["proc", "no proc"])
def where_open_files_are_told(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that says where an open file lies, and one that does not."""
    monkeypatch.setattr(photo_folder, "_DESCRIPTORS", request.param)


@pytest.mark.usefixtures("where_open_files_are_told")
@pytest.mark.parametrize("what", ["photos/2026", "photos", ""])
def test_a_folder_that_is_exchanged_for_a_link_leads_nowhere(tmp_path: Path, what: str) -> None:
    root = tmp_path / "root"
    path = put(root, "photos/2026/a.jpg", picture())
    private = put(tmp_path, "private/photos/2026/a.jpg", picture())
    assert isinstance(read_photo(path, open_store(root)), Photo)
    assert list(open_store(root).stat([path])) != NOTHING
    (root / what).rename(tmp_path / "away")
    (root / what).symlink_to(tmp_path / "private" / what)
    assert Path(path).samefile(private)
    assert code_of(read_photo(path, open_store(root))) == PhotoCode.OUTSIDE
    assert list(open_store(root).stat([path])) == NOTHING


@pytest.mark.usefixtures("where_open_files_are_told")
def test_a_folder_that_is_exchanged_in_the_very_moment_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    path = put(root, "photos/a.jpg", picture())
    put(tmp_path, "private/a.jpg", picture())
    plain = os.open

    def exchanged(*arguments: Any, **options: Any) -> int:
        if not (root / "photos").is_symlink():
            (root / "photos").rename(tmp_path / "away")
            (root / "photos").symlink_to(tmp_path / "private")
        return plain(*arguments, **options)

    monkeypatch.setattr(os, "open", exchanged)
    assert code_of(read_photo(path, open_store(root))) == PhotoCode.OUTSIDE


@pytest.mark.usefixtures("where_open_files_are_told")
@pytest.mark.parametrize("absolute", [True, False])
def test_folders_that_are_links_which_stay_below_the_root_are_followed(
    tmp_path: Path, absolute: bool
) -> None:
    root = tmp_path / "root"
    put(root, "2026/a.jpg", picture())
    (root / "now").symlink_to(root / "2026" if absolute else "2026")
    path = str(root / "now" / "a.jpg")
    assert isinstance(read_photo(path, open_store(root)), Photo)
    assert list(open_store(root).stat([path])) == list(
        open_store(root).stat([str(root / "2026/a.jpg")])
    )


def test_a_folder_may_be_a_link_out_of_the_root_and_then_none(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(tmp_path, "elsewhere/a.jpg", picture())
    put(root, "kept/a.jpg", picture())
    (root / "photos").symlink_to(tmp_path / "elsewhere")
    path = str(root / "photos/a.jpg")
    assert code_of(read_photo(path, open_store(root))) == PhotoCode.OUTSIDE
    (root / "photos").unlink()
    (root / "kept").rename(root / "photos")
    assert isinstance(read_photo(path, open_store(root)), Photo)


@pytest.mark.usefixtures("where_open_files_are_told")
def test_links_that_go_round_in_circles_are_no_bug(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    path = str(tmp_path / "a" / "1.jpg")
    assert code_of(read_photo(path, open_store(tmp_path))) == PhotoCode.SYMLINK
    assert list(open_store(tmp_path).stat([path])) == NOTHING
    assert code_of(read_photo(path, open_store(tmp_path / "a"))) == PhotoCode.SYMLINK


def test_photos_lie_below_the_systems_root(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jpg", picture())
    assert isinstance(read_photo(path, open_store("/")), Photo)
    assert list(open_store("/").stat([path, "/a.jpg"]))[3:] == NOTHING


@pytest.mark.parametrize("inside", [True, False])
def test_photos_are_looked_at_when_no_descriptor_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    root = tmp_path / "root"
    put(root, "2026/a.jpg", picture())
    put(tmp_path, "private/a.jpg", picture())
    (root / "photos").symlink_to(root / "2026" if inside else tmp_path / "private")

    def none_left(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", none_left)
    assert (list(open_store(root).stat([str(root / "photos/a.jpg")])) != NOTHING) is inside


def test_a_photo_that_another_has_taken_the_place_of_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "photos/a.jpg", picture())
    put(tmp_path, "newer/a.jpg", picture())
    plain = os.read

    def exchanged(descriptor: int, size: int) -> bytes:
        if (tmp_path / "newer").exists():
            (tmp_path / "photos").rename(tmp_path / "older")
            (tmp_path / "newer").rename(tmp_path / "photos")
        return plain(descriptor, size)

    monkeypatch.setattr(os, "read", exchanged)
    assert code_of(read_photo(path, open_store(tmp_path))) == PhotoCode.CHANGED
    assert isinstance(read_photo(path, open_store(tmp_path)), Photo)


def test_a_photo_that_is_rewritten_within_one_tick_of_the_clock_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = picture()
    new = old[:-40] + bytes(38) + old[-2:]
    path = put(tmp_path, "a.jpg", old)
    monkeypatch.setattr(photo_folder, "_times", lambda found: FileTimes(found.st_size, 0, 0))
    plain = os.read
    writes = iter([new])

    def rewritten(descriptor: int, size: int) -> bytes:
        content = plain(descriptor, size)
        for other in writes:
            Path(path).write_bytes(other)
        return content

    monkeypatch.setattr(os, "read", rewritten)
    assert code_of(read_photo(path, open_store(tmp_path))) == PhotoCode.CHANGED


def test_a_path_that_climbs_out_of_the_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    put(tmp_path, "a.jpg", picture())
    assert (
        code_of(read_photo(open_store(root).locate("../a.jpg"), open_store(root)))
        == PhotoCode.OUTSIDE
    )


def test_a_folder_a_pipe_and_a_device_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, root in [("folder", tmp_path), ("pipe", tmp_path), ("null", Path("/dev"))]:
        found = read_photo(str(root / path), open_store(root))
        assert code_of(found) == PhotoCode.NOT_A_FILE, path


def test_a_file_too_large_for_a_photo_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.bmp"
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)  # a hole: takes no space
    assert code_of(read_photo(str(path), open_store(tmp_path))) == PhotoCode.TOO_LARGE


def test_looking_tells_times_without_reading(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jpg", b"12345")
    found = Path(path).lstat()
    times = [5, found.st_mtime_ns, found.st_ctime_ns]
    told = open_store(tmp_path).stat([path, "/no\0where", "", path])
    assert list(told) == [*times, *NOTHING, *NOTHING, *times]


@pytest.mark.parametrize(
    ("image", "path"),
    [
        ("a.jpg", "/photos/a.jpg"),
        ("x/y/a.jpg", "/photos/x/y/a.jpg"),
        ("./a.jpg", "/photos/a.jpg"),
        ("x//a.jpg", "/photos/x/a.jpg"),
        ("x/../a.jpg", "/photos/a.jpg"),
        ("../a.jpg", "/a.jpg"),
        ("/other/a.jpg", "/other/a.jpg"),
        ("dir.d/.hidden.jpg", "/photos/dir.d/.hidden.jpg"),
        ("", ""),
    ],
)
def test_where_a_manifests_photo_lies(image: str, path: str) -> None:
    assert open_store("/photos").locate(image) == path


def test_a_glance_agrees_with_reading_on_what_it_can_see(tmp_path: Path) -> None:
    cases = {
        "good.jpg": picture(),
        "empty.jpg": b"",
        "text.jpg": b"hello" * 50,
        "a.gif": picture("GIF"),
        "a.ico": picture("ICO"),
        "small.png": picture("PNG", size=(47, 100)),
    }
    for name, content in cases.items():
        path = put(tmp_path, name, content)
        seen, read = glance(path, open_store(tmp_path)), read_photo(path, open_store(tmp_path))
        if isinstance(read, Photo):
            assert isinstance(seen, Glance)
            assert seen.size == len(content)
        else:
            assert not isinstance(seen, Glance)
            assert seen.code == read.fault.code, name


def test_a_glance_never_reads_a_folder_or_a_device(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, root in [(tmp_path / "folder", tmp_path), (Path("/dev/null"), Path("/dev"))]:
        seen = glance(str(path), open_store(root))
        assert not isinstance(seen, Glance)
        assert seen.code == PhotoCode.NOT_A_FILE


def test_photos_look_alike_only_with_the_same_content(tmp_path: Path) -> None:
    first, other = picture(), picture()
    one = glance(put(tmp_path, "1.jpg", first), open_store(tmp_path))
    same = glance(put(tmp_path, "2.jpg", first), open_store(tmp_path))
    different = glance(put(tmp_path, "3.jpg", other), open_store(tmp_path))
    assert one == same
    assert one != different


def test_small_photos_are_read_together_and_large_ones_are_left_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [put(tmp_path, f"{number}.jpg", picture()) for number in range(4)]
    paths.append(str(tmp_path / "gone.jpg"))
    monkeypatch.setattr(read, "TOGETHER_SECONDS", 60.0)
    photos, quick = read_photos(paths, open_store(tmp_path))
    assert quick
    assert [isinstance(photo, Photo) for photo in photos] == [True] * 4 + [False]
    first_two = sum(Path(path).stat().st_size for path in paths[:2])
    monkeypatch.setattr(read, "TOGETHER_BYTES", first_two)
    photos, quick = read_photos(paths, open_store(tmp_path))
    assert (len(photos), quick) == (2, False)
    monkeypatch.setattr(read, "TOGETHER_SECONDS", 0.0)
    assert len(read_photos(paths, open_store(tmp_path))[0]) == 1


def test_a_folder_with_a_slash_behind_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    found = read_photo(open_store(tmp_path).locate("photos/"), open_store(tmp_path))
    assert code_of(found) == PhotoCode.NOT_A_FILE
