"""What every photo store has to do. Another adapter is one more entry of ADAPTERS."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from unicodedata import normalize

import pytest
from object_servers import ObjectServer, s3_server

from enroll.model import FileContent, FileTimes, Status, Unusable
from enroll.photos import PhotoCode, PhotoStore, objects, open_store, read_photo
from enroll.photos.store import UnusableError

PHOTO, OTHER = b"BM, or what a photo begins with", b"GIF, or what another one begins with"
NONE = (-1, -1, -1)


class Backend(Protocol):
    """Where an adapter's photos are kept, as their owner changes them."""

    root: str

    def put(self, name: str, content: bytes) -> None:
        """Write or replace a photo; `name` is below the root."""

    def put_outside(self, content: bytes) -> str:
        """Write a photo beside the root; what a manifest below the root would call it."""

    def remove(self, name: str) -> None:
        """Delete a photo."""

    def lose(self) -> None:
        """Take the whole store away, as when a share is unmounted or a bucket is deleted."""

    def empty(self) -> None:
        """Delete everything in the store, and leave the store."""


class Folder:
    """A folder on a disk."""

    def __init__(self, scratch: Path) -> None:
        self._root = scratch / "photos"
        self._root.mkdir(parents=True)
        self.root = str(self._root)

    def put(self, name: str, content: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def put_outside(self, content: bytes) -> str:
        (self._root.parent / "private.jpg").write_bytes(content)
        return "../private.jpg"

    def remove(self, name: str) -> None:
        (self._root / name).unlink()

    def lose(self) -> None:
        self._root.rename(self._root.with_name("unmounted"))

    def empty(self) -> None:
        shutil.rmtree(self._root)
        self._root.mkdir()


class Zip:
    """A ZIP archive, which is written anew with each change."""

    def __init__(self, scratch: Path) -> None:
        self._path = scratch / "photos.zip"
        self.root = str(self._path)
        self._photos: dict[str, bytes] = {}
        self._write()

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in self._photos.items():
                packed.writestr(name, content)
        new.replace(self._path)

    def put(self, name: str, content: bytes) -> None:
        self._photos[name] = content
        self._write()

    def put_outside(self, content: bytes) -> str:
        self.put("../private.jpg", content)
        return "../private.jpg"

    def remove(self, name: str) -> None:
        del self._photos[name]
        self._write()

    def lose(self) -> None:
        self._path.rename(self._path.with_name("unmounted"))

    def empty(self) -> None:
        self._photos.clear()
        self._write()


class Bucket:
    """A prefix in a bucket of S3; the server keeps its objects in a folder."""

    def __init__(self, scratch: Path) -> None:
        self._bucket = scratch / "staff"
        self._photos = Folder(self._bucket)
        self.root = "s3://staff/photos"
        self.put, self.remove, self.empty = (
            self._photos.put,
            self._photos.remove,
            self._photos.empty,
        )

    def put_outside(self, content: bytes) -> str:
        (self._bucket / "private.jpg").write_bytes(content)
        return "../private.jpg"

    def lose(self) -> None:
        self._bucket.rename(self._bucket.with_name("deleted"))


ADAPTERS: dict[str, Callable[[Path], Backend]] = {"folder": Folder, "zip": Zip, "s3": Bucket}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=ADAPTERS)
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Backend]:
    adapter = ADAPTERS[request.param]
    if adapter is not Bucket:
        yield adapter(tmp_path)
        return
    monkeypatch.setattr(objects, "SEEN_SECONDS", 0.0)
    server = request.getfixturevalue("served")
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    yield Bucket(server.folder)
    for bucket in server.folder.iterdir():
        shutil.rmtree(bucket)


def known(store: PhotoStore, *images: str) -> list[tuple[int, ...]]:
    numbers = list(store.stat([store.locate(image) for image in images]))
    return [tuple(numbers[at : at + 3]) for at in range(0, len(numbers), 3)]


def why_not(store: PhotoStore, image: str) -> Unusable:
    with pytest.raises(UnusableError) as caught, store.open(store.locate(image)):
        pass
    return caught.value.unusable


def test_what_is_known_of_a_photo_is_what_is_read(backend: Backend) -> None:
    backend.put("2026/a.jpg", PHOTO)
    store = open_store(backend.root)
    ((size, mtime_ns, ctime_ns),) = known(store, "2026/a.jpg")
    with store.open(store.locate("2026/a.jpg")) as photo:
        assert photo.times == FileTimes(size, mtime_ns, ctime_ns)
        assert (photo.part(0, 2), photo.part(4, 2)) == (PHOTO[:2], PHOTO[4:6])
        assert photo.part(len(PHOTO) - 3, 99) == PHOTO[-3:]
        assert photo.part(len(PHOTO), 99) == b""
        assert photo.content() == PHOTO
    assert size == len(PHOTO)


def test_a_replaced_photo_is_known_as_another_one(backend: Backend) -> None:
    backend.put("a.jpg", PHOTO)
    store = open_store(backend.root)
    before = known(store, "a.jpg")
    assert known(store, "a.jpg") == before
    backend.put("a.jpg", OTHER)
    assert known(store, "a.jpg") != before


def test_photos_are_known_in_the_order_in_which_they_are_asked_for(backend: Backend) -> None:
    for number, name in enumerate(("a.jpg", "2025/b.jpg", "2026/c.jpg"), start=1):
        backend.put(name, bytes(number))
    store = open_store(backend.root)
    found = known(store, "2026/c.jpg", "none.jpg", "a.jpg", "", "2025/b.jpg", "2026/c.jpg")
    assert [size for size, *_ in found] == [3, -1, 1, -1, 2, 3]
    assert list(store.stat([])) == []


@pytest.mark.parametrize("image", ["none.jpg", "nowhere/none.jpg", "a.jpg/b.jpg", "a\0.jpg"])
def test_a_missing_photo_is_told_from_a_store_that_is_gone(backend: Backend, image: str) -> None:
    backend.put("a.jpg", PHOTO)
    store = open_store(backend.root)
    assert known(store, image) == [NONE]
    why = why_not(store, image)
    assert (why.status, why.fault.code, why.share_gone) == (
        Status.FAILED,
        PhotoCode.MISSING,
        False,
    )
    assert not store.is_gone()
    assert not store.is_empty()


def test_a_photo_outside_of_the_store_is_refused_and_not_known(backend: Backend) -> None:
    image = backend.put_outside(PHOTO)
    store = open_store(backend.root)
    assert known(store, image) == [NONE]
    why = why_not(store, image)
    assert (why.status, why.fault.code) == (Status.INVALID, PhotoCode.OUTSIDE)


def test_everything_is_listed_in_a_fixed_order(backend: Backend) -> None:
    for name in ("b.jpg", "2026/a.jpg", "a.txt", "2026/11/c.JPG"):
        backend.put(name, PHOTO)
    found = list(open_store(backend.root).files())
    assert found == sorted(found) == ["2026/11/c.JPG", "2026/a.jpg", "a.txt", "b.jpg"]


def test_a_path_is_located_below_the_root_whether_relative_or_absolute(backend: Backend) -> None:
    backend.put("2026/a.jpg", PHOTO)
    store = open_store(backend.root)
    path = store.locate("2026/a.jpg")
    assert store.root == backend.root
    assert path == f"{backend.root}/2026/a.jpg" == store.locate(path)
    assert store.locate("./2025/../2026//a.jpg") == path
    assert store.locate("") == ""


@pytest.mark.parametrize("removed", [False, True])
def test_a_photo_that_changes_while_it_is_read_is_refused(backend: Backend, removed: bool) -> None:
    backend.put("a.jpg", PHOTO)
    store = open_store(backend.root)
    with store.open(store.locate("a.jpg")) as photo:
        if removed:
            backend.remove("a.jpg")
        else:
            backend.put("a.jpg", OTHER)
        if isinstance(backend, Bucket):  # an answer is of one version, whatever comes after it
            assert photo.content() == PHOTO
            return
        with pytest.raises(UnusableError) as caught:
            photo.content()
    assert caught.value.unusable.fault.code == PhotoCode.CHANGED
    assert caught.value.unusable.status is Status.FAILED


def test_a_store_that_is_gone_says_so(backend: Backend) -> None:
    backend.put("2026/a.jpg", PHOTO)
    store = open_store(backend.root)
    path = store.locate("2026/a.jpg")
    assert (store.is_gone(), store.is_empty(), store.is_reachable(path)) == (False, False, True)
    assert store.empty_above(path) == ""
    backend.lose()
    assert (store.is_gone(), store.is_empty(), store.is_reachable(path)) == (True, True, False)
    assert store.empty_above(path) == backend.root
    assert open_store(backend.root).is_gone()


def test_an_empty_store_is_empty_and_not_gone(backend: Backend) -> None:
    backend.put("2026/a.jpg", PHOTO)
    store = open_store(backend.root)
    backend.empty()
    assert (store.is_gone(), store.is_empty()) == (False, True)
    assert store.empty_above(store.locate("2026/a.jpg")) == backend.root


def test_a_folder_that_is_empty_is_told_from_the_store(backend: Backend) -> None:
    backend.put("2025/a.jpg", PHOTO)
    store = open_store(backend.root)
    assert store.empty_above(store.locate("2026/01/b.jpg")) == f"{backend.root}/2026"
    assert store.empty_above(store.locate("2025/b.jpg")) == ""


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("10001.JPG", "10001.jpg"),
        (normalize("NFD", "Jörg.jpg"), normalize("NFC", "Jörg.jpg")),
        ("10001.jpg", "10001.jpg\xa0"),
    ],
)
def test_a_missing_photo_names_one_whose_name_is_nearly_the_same(
    backend: Backend, there: str, named: str
) -> None:
    backend.put(f"2026/{there}", PHOTO)
    why = why_not(open_store(backend.root), f"2026/{named}")
    assert why.fault.code == PhotoCode.MISSING
    assert f"there is {there!r}" in why.fault.message


def test_a_store_can_be_handed_to_another_process(backend: Backend) -> None:
    backend.put("a.jpg", PHOTO)
    store = open_store(backend.root)
    other = pickle.loads(pickle.dumps(store))
    assert known(other, "a.jpg") == known(store, "a.jpg")
    backend.lose()
    assert other.is_gone()


def test_what_was_read_and_hashed_is_recorded_though_it_cannot_be_sent(backend: Backend) -> None:
    backend.put("a.jpg", PHOTO)
    store = open_store(backend.root)
    with store.open(store.locate("a.jpg")) as photo:
        times = photo.times
    found = read_photo(store.locate("a.jpg"), store)
    assert isinstance(found, Unusable)  # its bytes are no picture
    assert found.content == FileContent(times, hashlib.sha256(PHOTO).digest())
