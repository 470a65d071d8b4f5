"""A ZIP archive as the manifest, and as the place of a list's photos."""

from __future__ import annotations

import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from archive import Archive, picture, read_csv
from real_command import Command

from enroll.commands.forget_search import PHOTOS, find_traces
from enroll.errors import ManifestError
from enroll.manifest.manifest import Manifest, open_manifest
from enroll.model import Credentials, Photo, Status, Unusable
from enroll.photos import LARGEST_FILE, PhotoCode, open_store, read_photo
from enroll.photos import archive as zip_archive
from enroll.photos.store import UnusableError
from enroll.photos.zip_records import Member
from enroll.photos.zipped import undated
from enroll.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("moved_clock")

Photos = Mapping[str, bytes | int | str]


@pytest.fixture
def box(faceless_box: Sandbox) -> Sandbox:
    """The photos here are `picture`s, without a face."""
    return faceless_box


def content_of(what: bytes | int | str) -> bytes:
    if isinstance(what, int):
        return picture(what)
    return what.encode() if isinstance(what, str) else what


def packed(photos: Photos, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive; a number stands for the `picture`, and a text for itself."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, what in photos.items():
            archive.writestr(name, content_of(what))
    return out.getvalue()


def pack(path: Path, photos: Photos, *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    new = path.with_suffix(".new")
    new.write_bytes(packed(photos, method=method))
    new.replace(path)
    return path


def rows(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [(row.user_id, row.user_data, row.image) for some in manifest.rows() for row in some]


def faces(box: Sandbox) -> dict[str, str]:
    return {face.user_id: face.sha256 for face in box.faces("staff")}


def digest(number: int) -> str:
    return sha256(picture(number)).hexdigest()


def read(path: Path, name: str) -> Photo | Unusable:
    store = open_store(path)
    return read_photo(store.locate(name), store)


def why_not(path: Path, name: str) -> tuple[str, str]:
    found = read(path, name)
    assert isinstance(found, Unusable), found
    return str(found.fault.code), found.fault.message


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_photo_is_read_in_any_part_and_as_a_whole(tmp_path: Path, method: int) -> None:
    content = bytes(range(256)) * 1000
    store = open_store(pack(tmp_path / "a.zip", {"x/1.jpg": content, "2.jpg": b""}, method=method))
    with store.open(store.locate("x/1.jpg")) as photo:
        for at, length in [(0, 10), (200_000, 5), (100, 70_000), (255_998, 99), (256_000, 1)]:
            assert photo.part(at, length) == content[at : at + length]
        assert photo.content() == content
        assert photo.times.size == len(content)
        assert photo.times.mtime_ns == zlib.crc32(content)
    with store.open(store.locate("2.jpg")) as photo:
        assert photo.content() == b"" == photo.part(0, 9)


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    photos = {f"{number}.jpg": number for number in range(40)}
    store = open_store(pack(tmp_path / "a.zip", photos))
    paths = [store.locate(name) for name in photos] * 5
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda path: read_photo(path, store), paths))
    digests = [one.sha256.hex() for one in found if isinstance(one, Photo)]
    assert digests == [digest(number) for number in photos.values()] * 5


@pytest.mark.parametrize(
    "around",
    [
        pytest.param(
            lambda zipped: b"MZ, a program that unpacks itself" * 99 + zipped, id="before"
        ),
        pytest.param(lambda zipped: zipped + b"\0" * 1000, id="after"),
        pytest.param(lambda zipped: zipped + packed({}), id="another end"),
    ],
)
def test_what_is_before_or_after_an_archive_does_no_harm(
    tmp_path: Path, around: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(around(packed({"1.jpg": 1})))
    found = read(path, "1.jpg")
    if isinstance(found, Unusable):  # the last archive counts, and is empty
        assert found.fault.code == PhotoCode.MISSING
    else:
        assert found.sha256.hex() == digest(1)


def test_an_archive_in_the_large_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3):
            with archive.open(f"{number}.jpg", "w", force_zip64=True) as member:
                member.write(picture(number))
    small = path.read_bytes()
    end = small.rindex(b"PK\x05\x06")
    count, length, offset = struct.unpack_from("<HLL", small, end + 10)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, offset)
    place = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    none = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    for before in (b"", b"before"):
        path.write_bytes(before + small[:end] + end64 + place + none)
        found = read(path, "2.jpg")
        assert isinstance(found, Photo)
        assert found.sha256.hex() == digest(2)


def test_a_member_is_never_unpacked_beyond_what_a_photo_may_have(tmp_path: Path) -> None:
    path = pack(tmp_path / "bomb.zip", {"bomb.jpg": bytes(LARGEST_FILE + 1)})
    assert why_not(path, "bomb.jpg")[0] == "PHOTO_TOO_LARGE"
    content = bytearray(packed({"bomb.jpg": bytes(20 << 20)}))
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<L", 1000)  # a size that is not true
    path.write_bytes(content)
    store = open_store(path)
    with store.open(store.locate("bomb.jpg")) as photo:
        assert len(photo.part(0, 10**9)) < 100_000
        with pytest.raises(UnusableError, match="checksum does not match"):
            photo.content()


def damaged(path: Path, name: str, change: Callable[[bytearray], None]) -> tuple[str, str]:
    content = bytearray(packed({name: 1, "other.jpg": 2}))
    change(content)
    path.write_bytes(content)
    assert isinstance(read(path, "other.jpg"), Photo)
    return why_not(path, name)


def _flip(content: bytearray) -> None:
    content[100] ^= 0xFF


def _rename(content: bytearray) -> None:
    content[30] = ord("9")


def _encrypt(content: bytearray) -> None:
    content[content.index(b"PK\x01\x02") + 8] |= 1


def _deflate64(content: bytearray) -> None:
    content[content.index(b"PK\x01\x02") + 10] = 9


def _link(content: bytearray) -> None:
    at = content.index(b"PK\x01\x02")
    content[at + 38 : at + 42] = struct.pack("<L", 0o120777 << 16)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (_flip, "PHOTO_UNREADABLE", "cannot be read"),
        (_rename, "PHOTO_UNREADABLE", "another name"),
        (_encrypt, "PHOTO_UNREADABLE", "encrypted with a password"),
        (_deflate64, "PHOTO_UNREADABLE", "packed with Deflate64 instead of Deflate"),
        (_link, "PHOTO_SYMLINK", "symbolic link"),
    ],
)
def test_a_member_that_cannot_be_read_says_why(
    tmp_path: Path, change: Callable[[bytearray], None], code: str, said: str
) -> None:
    found, message = damaged(tmp_path / "a.zip", "1.jpg", change)
    assert (found, said in message) == (code, True), message


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_nobodys_photo_unless_they_are_the_same(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, number in [("1.jpg", 1), ("./1.jpg", 2), ("2.jpg", 3), ("2.jpg", 3)]:
            archive.writestr(name, picture(number))
    assert why_not(path, "1.jpg")[0] == "PHOTO_AMBIGUOUS"
    assert isinstance(read(path, "2.jpg"), Photo)


LEADING_OUT = (
    "../1.jpg",
    "/etc/1.jpg",
    "a/../1.jpg",
    "C:/1.jpg",
    "C:\\1.jpg",
    "..\\1.jpg",
    "x\\1.jpg",
)


def test_names_that_lead_out_of_the_archive_are_refused(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    photos = dict.fromkeys(LEADING_OUT, 1)
    pack(archive.folder / "photos.zip", {**photos, "2.jpg": 2})
    done = command("run", "photos.zip", "--group-id", "staff")
    assert done.code == 1, done
    results = {line["image"]: line for line in read_csv(archive.folder / "photos.results.csv")}
    assert results.keys() == {*LEADING_OUT, "2.jpg"}
    assert {results[name]["status"] for name in LEADING_OUT} == {"invalid"}
    assert faces(box) == {"2": digest(2)}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("Jörg.jpg".encode(), "Jörg"),  # as macOS packs it, without a mark
        ("Jörg.jpg".encode("cp437"), "Jörg"),
        ("Jörg.jpg".encode("cp1252"), "Jörg"),
        ("张伟.jpg".encode("gbk"), "张伟"),
        (b"plain.jpg", "plain"),
    ],
)
def test_names_are_decoded_as_they_were_meant(tmp_path: Path, raw: bytes, shown: str) -> None:
    stand_in = "x" * (len(raw) - 4) + ".jpg"
    path = tmp_path / "a.zip"
    path.write_bytes(packed({stand_in: 1}).replace(stand_in.encode(), raw))
    manifest = open_manifest(path)
    ((user_id, _, image),) = rows(manifest)
    assert (user_id, image) == (shown, f"{shown}.jpg")
    guessed = any("does not say how names" in note for note in manifest.notes)
    assert guessed is not (raw.isascii() or raw == "Jörg.jpg".encode())
    assert isinstance(read(path, image), Photo)


def endless() -> bytes:
    """An archive whose list is said to have 4 GB."""
    content = bytearray(packed({"a.csv": "user_id,image\n"}, method=zipfile.ZIP_STORED))
    at = content.index(b"PK\x01\x02")
    content[at + 20 : at + 28] = b"\xff" * 8
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (endless(), "its end is missing"),
        (b"", "its end is missing"),
        (packed({"1.jpg": 1})[:-30], "its end is missing"),
        (packed({f"{n}.jpg": n for n in range(20)})[:5000], "its end is missing"),
        (b"user_id,image\n1,1.jpg\n", "another kind of file"),
        (packed({"1.jpg": 1}).replace(b"PK\x01\x02", b"PK\x01\x03"), "its end is missing"),
        (
            packed({"1.jpg": 1}).replace(
                b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\1"
            ),
            "encrypted",
        ),
        (packed({"1_jpg": 1}).replace(b"_jpg", b"\0jpg"), "has a NUL"),
    ],
)
def test_a_damaged_archive_is_one_clear_message(
    archive: Archive, command: Command, content: bytes, said: str
) -> None:
    (archive.folder / "photos.zip").write_bytes(content)
    archive.manifest([("1", "", "1.jpg")])
    as_photos = [("staff.csv", "--images", "photos.zip")] if b"a.csv" not in content else []
    for arguments in [("photos.zip",), *as_photos]:
        done = command("run", *arguments, "--group-id", "staff")
        assert (done.code, said in " ".join(done.err.split())) == (2, True), done


def test_the_photos_of_an_archive_are_listed_and_other_files_counted(tmp_path: Path) -> None:
    names = ["b.jpg", "2026/a.PNG", "2026/", "__MACOSX/._b.jpg", ".DS_Store", "read me.txt"]
    path = pack(tmp_path / "photos.zip", dict.fromkeys(names, 1))
    manifest = open_manifest(path)
    assert rows(manifest) == [("a", "", "2026/a.PNG"), ("b", "", "b.jpg")]
    assert f"3 files in {path} are not photos" in manifest.notes[0]


def test_a_nightly_archive_with_a_date_in_its_name_is_quiet_until_a_photo_changes(
    box: Sandbox, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos: dict[str, int] = {"1.jpg": 1, "2.jpg": 2, "3.jpg": 3}
    unpacked: list[str] = []
    real = zip_archive.Archive.unpack

    def unpack(self: zip_archive.Archive, member: Member) -> Iterator[bytes]:
        unpacked.append(member.name)
        return real(self, member)

    monkeypatch.setattr(zip_archive.Archive, "unpack", unpack)

    def night(date: str, **changed: int) -> list[str]:
        photos.update({f"{name[1:]}.jpg": number for name, number in changed.items()})
        path = pack(archive.folder / f"export-{date}.zip", photos)
        before = {kind: box.count(kind) for kind in ("add", "delete", "search")}
        unpacked.clear()
        report = archive.sync(manifest=path)
        assert report.exit_code == 0
        return [kind for kind, count in before.items() if box.count(kind) > count]

    assert "add" in night("2026-11-30")
    (archive.folder / "export-2026-11-30.zip").unlink()
    assert (night("2026-12-01"), unpacked) == ([], [])
    assert (night("2026-12-02"), unpacked) == ([], [])
    os.utime(archive.folder / "export-2026-12-02.zip", (0, 0))
    assert night("2026-12-03", _2=22) == ["add", "delete"]
    assert set(unpacked) == {"2.jpg"}
    assert faces(box) == {"1": digest(1), "2": digest(22), "3": digest(3)}
    del photos["3.jpg"]
    assert night("2026-12-04") == ["delete"]
    assert faces(box).keys() == {"1", "2"}
    assert {entry.image for entry in archive.entries()} >= {"1.jpg", "2.jpg"}


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("export-2026-12-01.zip", "export-*.zip"),
        ("export_20261201.zip", "export_*.zip"),
        ("export 01.12.2026.zip", "export *.zip"),
        ("export-2026-12-01T0230.zip", "export-*.zip"),
        ("export-20261201-023000.zip", "export-*.zip"),
        ("export-1764547200.zip", "export-*.zip"),
        ("site1.zip", "site1.zip"),
        ("building-12-34.zip", "building-12-34.zip"),
    ],
)
def test_a_date_in_an_archives_name_is_no_part_of_a_photos_path(name: str, kept: str) -> None:
    assert undated(f"/2026-01-01/{name}") == f"/2026-01-01/{kept}"


def test_photos_on_record_are_found_in_the_newest_archive(tmp_path: Path) -> None:
    old = pack(tmp_path / "export-2026-12-01.zip", {"1.jpg": 1})
    new = pack(tmp_path / "export-2026-12-02.zip", {"1.jpg": 2})
    pack(tmp_path / "other-2026-12-03.zip", {"1.jpg": 3})
    os.utime(old, (1, 1))
    root = open_store(new).root
    assert root == open_store(old).root == f"{tmp_path}/export-*.zip"
    found = read(Path(root), "1.jpg")
    assert isinstance(found, Photo)
    assert found.sha256.hex() == digest(2)
    for path in (old, new):
        path.unlink()
    assert open_store(root).is_gone()


def test_photos_of_an_archive_that_is_replaced_are_not_mixed(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"1.jpg": 1, "2.jpg": 2})
    store = open_store(path)
    assert isinstance(read_photo(store.locate("1.jpg"), store), Photo)
    pack(path, {"1.jpg": 2, "2.jpg": 1})
    for name in ("1.jpg", "2.jpg"):
        found = read_photo(store.locate(name), store)
        assert isinstance(found, Unusable)
        assert (found.status, found.fault.code) == (Status.FAILED, PhotoCode.CHANGED)


def test_an_archive_that_is_replaced_during_a_run_enrolls_nobody_with_anothers_photo(
    box: Sandbox, archive: Archive
) -> None:
    path = pack(
        archive.folder / "a.zip",
        {"a.csv": "user_id,image\n1,1.jpg\n2,2.jpg\n", "1.jpg": 1, "2.jpg": 2},
    )

    def replace() -> Credentials:  # the list has been read, and no photo
        pack(path, {"a.csv": "user_id,image\n1,2.jpg\n2,1.jpg\n", "1.jpg": 2, "2.jpg": 1})
        return archive.credentials

    report = archive.run(manifest=path, read=replace)
    assert report.exit_code == 1
    assert report.ended.tally.codes == {(Status.FAILED, PhotoCode.CHANGED): 2}
    assert archive.run(manifest=path).exit_code == 0
    assert faces(box) == {"1": digest(1), "2": digest(2)}


def test_the_faces_of_a_library_are_adopted_by_the_photos_of_an_archive(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    path = pack(archive.folder / "photos.zip", {"7_1.jpg": 1, "8_1.jpg": 2})
    run = ("photos.zip", "--group-id", "staff", "--id-from", "{user_id}_*")
    assert command("run", *run).code == 0
    command.ledger.unlink()
    adopted = command("adopt", *run)
    assert adopted.code == 0, adopted
    calls = box.count("add")
    assert (command("run", *run).code, box.count("add")) == (0, calls)
    assert path.exists()


def test_an_archive_with_one_list_is_that_list_and_its_photos(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    listed = "id;Name;photo\n7;Jörg;faces/a.jpg\n8;Anna;faces/b.jpg\n9;Ben;faces/c.jpg\n"
    photos: Photos = {
        "staff.csv": listed.encode("utf-8-sig"),
        "faces/a.jpg": 1,
        "faces/b.jpg": 2,
        "faces/list.csv": "not at the top",
        "._staff.csv": "junk",
        "__MACOSX/._staff.csv": "junk",
        "read me.txt": "please, read; me",
    }
    pack(archive.folder / "export.zip", photos)
    columns = "user_id=id,user_data=Name,image=photo"
    run = ("run", "export.zip", "--group-id", "staff", "--columns", columns)
    done = command(*run)
    assert (done.code, "The list is staff.csv in export.zip." in done.err) == (1, True), done
    assert faces(box) == {"7": digest(1), "8": digest(2)}
    results = (archive.folder / "export.results.csv").read_text("utf-8-sig")
    assert [line.count("PHOTO_MISSING") for line in results.splitlines()] == [0, 0, 0, 1]
    calls = box.count("add")
    assert (command(*run).code, box.count("add")) == (1, calls)


def test_an_archive_with_several_lists_names_them(archive: Archive, command: Command) -> None:
    pack(archive.folder / "export.zip", {"a.csv": "x", "b.XLSX": "y", "~$b.xlsx": "", "1.jpg": 1})
    done = command("plan", "export.zip")
    assert (done.code, "a.csv, b.XLSX" in " ".join(done.err.split())) == (2, True), done


def test_a_list_beside_an_archive_of_photos(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    pack(archive.folder / "photos.zip", {"a/1.JPG": 1, "2.jpg": 2})
    archive.manifest([("u1", "", "a/1.jpg"), ("u2", "", "2.jpg"), ("u3", "", "../3.jpg")])
    done = command("run", "staff.csv", "--images", "photos.zip", "--group-id", "staff")
    assert done.code == 1, done
    case, enrolled, outside = archive.results()
    assert (case["error"], "there is '1.JPG'" in case["message"]) == ("PHOTO_MISSING", True)
    assert (enrolled["status"], outside["error"]) == ("enrolled", "PHOTO_OUTSIDE")
    again = command("run", "staff.csv", "--group-id", "staff")
    assert (again.code, box.count("add")) == (1, 1), again  # the archive is remembered


def test_a_sync_of_an_empty_or_missing_archive_removes_nobody(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    path = archive.folder / "photos.zip"
    pack(path, {f"{number}.jpg": number for number in range(30)})
    sync = ("sync", "photos.zip", "--group-id", "staff", "--grace", "0")
    assert command(*sync).code == 0
    kept = faces(box)
    path.unlink()
    assert command(*sync).code == 2
    pack(path, {})
    assert command(*sync).code == 8
    assert command("run", *sync[1:4]).code == 7
    pack(path, {"1.jpg": 1, "notes.txt": "x"})
    assert command(*sync).code == 8
    path.write_bytes(packed({f"{number}.jpg": number for number in range(30)})[:5000])
    assert command(*sync).code == 2
    assert faces(box) == kept


def test_a_manifest_error_names_an_archive_for_what_it_is(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"1.jpg": 1})
    with pytest.raises(ManifestError, match="--columns"):
        open_manifest(path, columns={"user_id": "NO"})
    with pytest.raises(ManifestError, match="--sheet"):
        open_manifest(path, sheet="Staff")
    pack(path, {"a.csv": "user_id,image\n"})
    with pytest.raises(ManifestError, match="--id-from"):
        open_manifest(path, id_from=["{user_id}"])


def test_a_folder_or_archive_whose_photos_name_somebody_forgotten_is_found(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"x/10001_1.jpg": 1, "10002.jpg": 2})
    folder = tmp_path / "photos"
    (folder / "10003").mkdir(parents=True)
    (folder / "10003" / "1.jpg").touch()
    wanted = ["10001", "10003", "10004"]
    found = list(find_traces({path: PHOTOS, folder: PHOTOS}, wanted))
    assert [(one.path, sorted(one.people)) for one in found] == [
        (path, ["10001"]),
        (folder, ["10003"]),
    ]
    assert all("delete their photos" in one.remedy for one in found)


def test_a_damaged_archive_never_yields_another_photo(tmp_path: Path) -> None:
    photos: dict[str, int] = {"a/1.jpg": 1, "a/2.jpg": 2, "ü.jpg": 3}
    whole, path = packed(photos), tmp_path / "a.zip"
    chance = random.Random(1)
    seen = set()
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(chance.choice([1, 1, 3, 10])):
            at = chance.randrange(chance.choice([0, whole.index(b"PK\x01\x02")]), len(content))
            if chance.random() < 0.8:
                content[at] = chance.randrange(256)
            else:
                del content[at : at + chance.randrange(1, 20)]
        path.write_bytes(content)
        store = open_store(path)
        for name, number in photos.items():
            found = read_photo(store.locate(name), store)
            if isinstance(found, Photo):
                assert found.sha256.hex() == digest(number)
            seen.add(found.fault.code if isinstance(found, Unusable) else "")
    assert seen >= {"", PhotoCode.MISSING, PhotoCode.UNREADABLE}
