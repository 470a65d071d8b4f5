"""Lists that hold the photos themselves, as an LDAP export does in `jpegPhoto`."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from archive import Archive, portrait, read_csv
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook
from real_command import Command

from enroll.errors import ManifestError
from enroll.manifest import embedded
from enroll.manifest.embedded import EmbeddedPhotos, NotBase64Error, decoded, image_name
from enroll.manifest.manifest import Manifest, open_manifest
from enroll.photos.store import UnusableError

LDAP = {"user_id": "uid", "user_data": "{sn}, {givenName}", "photo_base64": "jpegPhoto"}


def in_lines(content: bytes) -> str:
    return base64.encodebytes(content).decode()


def plain(content: bytes) -> str:
    return base64.b64encode(content).decode()


def listed(
    folder: Path,
    rows: Sequence[tuple[str, str]],
    *,
    encoding: str = "utf-8",
    name: str = "people.csv",
    title: str = "",
) -> Path:
    path = folder / name
    with path.open("w", encoding=encoding, newline="") as file:
        file.write(title)
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["uid", "sn", "givenName", "jpegPhoto", "mail"])
        writer.writerows([uid, "Müller", "Jo", photo, f"{uid}@x"] for uid, photo in rows)
    return path


def opened(path: Path, **options: object) -> tuple[Manifest, EmbeddedPhotos]:
    manifest = open_manifest(path, columns=LDAP, **options)  # type: ignore[arg-type]
    store = manifest.store
    assert isinstance(store, EmbeddedPhotos)
    return manifest.located(store), store


def contents(manifest: Manifest, store: EmbeddedPhotos) -> list[tuple[str, str, bytes]]:
    found = []
    for rows in manifest.rows(2):
        for row in rows:
            content = b""
            if row.image:
                with store.open(store.locate(row.image)) as photo:
                    content = photo.content()
                    assert photo.part(1, 3) == content[1:4]
                    assert photo.times.size == len(content)
            found.append((row.user_id, row.image, content))
    return found


PHOTOS = [b"one", b"two", b"three", b"four more"]
ROWS = [
    ("7", in_lines(PHOTOS[0])),
    ("8", plain(PHOTOS[1])),
    ("7", f" data:image/jpeg;base64,{plain(PHOTOS[2])}\r\n"),
    ("9", ""),
    ("ü/8", plain(PHOTOS[3])),
]
FOUND = [
    ("7", "7", PHOTOS[0]),
    ("8", "8", PHOTOS[1]),
    ("7", "7/2", PHOTOS[2]),
    ("9", "", b""),
    ("ü/8", "%C3%BC%2F8", PHOTOS[3]),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("title", ["", 'A "title\r\n\r\n'])
def test_each_row_has_its_photo_in_any_encoding(tmp_path: Path, encoding: str, title: str) -> None:
    path = listed(tmp_path, ROWS, encoding=encoding, title=title)
    options = {"header_row": 3} if title else {}
    manifest, store = opened(path, **options)
    assert contents(manifest, store) == FOUND
    in_place = isinstance(store._cells, embedded._InList)
    assert in_place == (encoding != "utf-16")  # it is not split into lines by its bytes


def test_each_row_has_its_photo_in_a_packed_list_and_with_old_line_ends(tmp_path: Path) -> None:
    path = listed(tmp_path, ROWS)
    packed = tmp_path / "people.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert contents(*opened(packed)) == FOUND
    old = [(uid, "".join(photo.split("\n"))) for uid, photo in ROWS]
    path = listed(tmp_path, [(uid, photo.replace("\r", "")) for uid, photo in old])
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\r"))
    assert contents(*opened(path)) == FOUND
    path.write_bytes(b"A title\r\r" + path.read_bytes())
    assert contents(*opened(path, header_row=3)) == FOUND


def test_each_row_has_its_photo_in_a_sheet(tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["uid", "sn", "givenName", "jpegPhoto"])
    for uid, photo in ROWS:
        sheet.append([uid, "M", "J", photo])
    sheet.append(["10", "M", "J", plain(bytes(30_000))[:32_767]])  # all that a cell can hold
    book.save(tmp_path / "people.xlsx")
    manifest, store = opened(tmp_path / "people.xlsx")
    *found, (_, image, _) = [
        (row.user_id, row.image, b"") for rows in manifest.rows() for row in rows
    ]
    assert [one[:2] for one in found] == [one[:2] for one in FOUND]
    with pytest.raises(UnusableError) as caught, store.open(store.locate(image)) as cut:
        cut.content()
    unusable = caught.value.unusable
    assert (unusable.status, unusable.fault.code) == ("invalid", "PHOTO_NOT_BASE64")
    assert "cut off by a spreadsheet" in unusable.fault.message


def test_neither_rows_nor_results_columns_have_the_photos(tmp_path: Path) -> None:
    manifest, _ = opened(listed(tmp_path, ROWS))
    assert manifest.own_columns == ("uid", "sn", "givenName", "mail")
    (chunk,) = manifest.chunks()
    assert tuple(chunk.columns) == manifest.own_columns
    assert {row.user_data for rows in manifest.rows() for row in rows} == {"Müller, Jo"}


def test_a_photo_is_known_by_its_content_wherever_its_row_is(tmp_path: Path) -> None:
    _, store = opened(listed(tmp_path, [("7", plain(b"a")), ("8", plain(b"b"))]))
    _, other = opened(
        listed(tmp_path, [("1", ""), ("8", in_lines(b"b")), ("7", plain(b"c"))], name="new.csv")
    )
    paths = [store.locate(image) for image in ("7", "8", "9", "8/2", "x/y", "8/0")]
    before, after = store.stat(paths), other.stat(paths)
    assert before[:3] != after[:3]
    assert before[3:6] == after[3:6]
    assert list(before[6:]) == [-1] * 12
    assert min(before[:6]) >= 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/9j/4AAQ!Skz", "it has '!' after 8 characters"),
        ("/9j/4AAQSk", "probably cut off"),
        ("/9j/4A=QSkzz", "it was damaged"),
        ("data:image/jpeg,abcd", "data URL without ';base64'"),
        ("photos/Müller.jpg", "it has 'ü' after 8 characters"),
    ],
)
def test_what_is_not_base64_is_named(text: str, words: str) -> None:
    with pytest.raises(NotBase64Error) as caught:
        decoded(text)
    assert words in str(caught.value)


@given(
    st.binary(), st.booleans(), st.sampled_from(["", "data:image/jpeg;base64,", "DATA:;base64,"])
)
def test_base64_comes_back_in_every_form(content: bytes, broken: bool, prefix: str) -> None:
    text = in_lines(content) if broken else base64.urlsafe_b64encode(content).decode()
    assert decoded(prefix + text) == content


def test_a_photo_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    content = bytes(range(256)) * 30_000
    path = listed(tmp_path, [("7", plain(content)), ("8", plain(b"x"))])
    assert path.stat().st_size > 10_000_000
    found = contents(*opened(path))
    assert [hashlib.sha256(one).digest() for _, _, one in found] == [
        hashlib.sha256(one).digest() for one in (content, b"x")
    ]
    with pytest.raises(ManifestError, match="longer than"):
        open_manifest(path, columns={"user_id": "uid", "image": "mail"})


def test_a_list_that_changes_while_photos_are_read_is_noticed(tmp_path: Path) -> None:
    path = listed(tmp_path, [("7", plain(b"abc"))])
    _, store = opened(path)
    path.write_bytes(path.read_bytes().replace(plain(b"abc").encode(), plain(b"abd").encode()))
    with pytest.raises(UnusableError) as caught, store.open(store.locate("7")) as photo:
        photo.content()
    assert caught.value.unusable.fault.code == "PHOTO_CHANGED"


def test_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    path = listed(tmp_path, [])
    for columns, photo in (
        ({"photo_base64": "jpegPhoto", "image": "mail", "user_id": "uid"}, None),
        ({"photo_base64": "{jpegPhoto}", "user_id": "uid"}, None),
        ({"photo_base64": "jpegPhoto", "user_id": "uid"}, "{user_id}"),
        ({"photo_base64": "photo", "user_id": "uid"}, None),
    ):
        with pytest.raises(ManifestError):
            open_manifest(path, columns=columns, photo=photo)
    # A column of that name is taken if there is no column for paths.
    assert "photo_base64" in open_manifest(_written(tmp_path, "user_id,photo_base64\n")).columns
    both = open_manifest(_written(tmp_path, "user_id,photo_base64,image\n"))
    assert set(both.columns) == {"user_id", "image"}


def _written(folder: Path, text: str) -> Path:
    path = folder / "small.csv"
    path.write_text(text)
    return path


def test_names_of_people_never_lead_anywhere() -> None:
    names = {image_name(one) for one in ("", "..", "a/b", "a%2Fb", "/etc", "a~2", "\ud800")}
    assert len(names) == 7
    assert not any("/" in name for name in names)
    assert embedded.image_name("7", 2) == "7/2"


def test_an_ldap_export_enrolls_once_and_keeps_no_photo(archive: Archive, command: Command) -> None:
    photos = {str(n): portrait(n) for n in (1, 2, 3)}
    rows = [(uid, in_lines(photo)) for uid, photo in photos.items()]
    listed(archive.folder, [*rows, ("4", "no photo"), ("5", "")], name="monday.csv")
    columns = ",".join(f'{role}="{name}"' for role, name in LDAP.items())
    options = ("--group-id", "staff", "--columns", columns)
    first = command.run("run", "monday.csv", *options)
    assert first.code == 1, first.err
    assert archive.there() == [(uid, "Müller, Jo") for uid in photos]
    with (archive.folder / "monday.results.csv").open(encoding="utf-8", newline="") as file:
        results = list(csv.DictReader(file, delimiter=";"))
    assert [one["error"] for one in results] == ["", "", "", "PHOTO_NOT_BASE64", "IMAGE_EMPTY"]
    again = command.run("run", "monday.csv", *options)
    assert (again.code, archive.box.count("add")) == (1, 3), again.err
    # Tomorrow's export has other places and line breaks, and one other photo.
    changed = [("2", plain(portrait(2))), ("3", plain(portrait(4))), ("1", in_lines(photos["1"]))]
    listed(archive.folder, changed, name="tuesday.csv")
    sync = command.run("sync", "tuesday.csv", *options, "--max-changes", "100%")
    assert (sync.code, archive.box.count("add")) == (0, 4), sync.err
    assert len(archive.in_library()) == 3
    quiet = command.run("sync", "tuesday.csv", *options)
    assert (quiet.code, archive.box.count("add")) == (0, 4), quiet.err
    other = (*options, "--ledger", "other.sqlite")
    adopted = command.run("adopt", "tuesday.csv", *other)
    assert adopted.code == 0, adopted.err
    assert command.run("run", "tuesday.csv", *other).code == 0
    assert archive.box.count("add") == 4
    # A list with paths in the same place is read from folders again.
    archive.photo("6.jpg", portrait(5))
    archive.manifest([("6", "", "6.jpg")], name="tuesday.csv")
    paths = command.run("run", "tuesday.csv", "--group-id", "staff")
    assert (paths.code, archive.box.count("add")) == (0, 5), paths.err
    kept = [path for path in (*archive.folder.glob("*results*"), command.ledger) if path.exists()]
    assert len(kept) == 3
    for path in kept:
        for photo in photos.values():
            assert plain(photo)[100:140].encode() not in path.read_bytes()
    assert read_csv(archive.folder / "tuesday.results.csv")[0]["status"] == "enrolled"
