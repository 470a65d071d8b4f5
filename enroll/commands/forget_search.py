"""Finds what names certain people: faces in the library, whether or not the ledger has them, and
files that the ledger knows of."""

from __future__ import annotations

import gzip
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from enroll import clock
from enroll.addresses import ObjectPath, named_path
from enroll.errors import EnrollError, ServiceError
from enroll.expiry import absent_from
from enroll.facesearch import FoundFace
from enroll.ledger import Ledger, Listing, RunRecord
from enroll.manifest.listing import is_list
from enroll.manifest.results import default_results_path
from enroll.model import RESULTS, Answer, FaceRecord
from enroll.photos import is_photo, is_zip, open_store
from enroll.session.caller import Caller
from enroll.session.library_faces import (
    NO_FACE_FOUND,
    SCORE_SLACK,
    ListedLibrary,
    PhotoSearch,
    cut_at,
    found_faces,
    read_library,
)


@dataclass(slots=True, kw_only=True)
class PeopleFaces:
    """The faces found of some people. `unknown` has, by `user_id`, the tokens of faces that the
    ledger does not record as theirs. `unsettled` has the people who may have more faces, with the
    reason. `because` says why the library could not be listed to its end; empty if it was."""

    unknown: dict[str, list[str]] = field(default_factory=dict)
    unsettled: dict[str, str] = field(default_factory=dict)
    because: str = ""


class PeopleSearch:
    """Finds people's faces: lists the library and, if that does not show all of it, searches with
    the photos of faces in doubt."""

    def __init__(
        self,
        caller: Caller,
        ledger: Ledger,
        listing: Listing,
        photo_search: PhotoSearch,
        *,
        settle_after: float,
        on_progress: Callable[[int], None],
    ) -> None:
        """A call may still be applied for `settle_after` seconds after its signature expires;
        `on_progress` is called with the number of faces that the library has shown so far."""
        self._caller = caller
        self._ledger = ledger
        self._listing = listing
        self._photo_search = photo_search
        self._settle_after = settle_after
        self._on_progress = on_progress

    def find(self, people: Sequence[str]) -> PeopleFaces:
        """Find all the faces of these people that can be found, and the people who may have
        more."""
        theirs = PeopleFaces()
        began = clock.now_ms()
        try:
            listed = read_library(
                self._caller,
                self._listing,
                on_progress=self._on_progress,
            )
        except ServiceError as error:
            listed = ListedLibrary(faces=0, began=began, because=str(error))
        theirs.because = listed.because
        known = self._ledger.faces_of(people)
        for user_id, faces in known.items():
            shown = [one.face_token for one in self._listing.faces_of(user_id)]
            self._add_unknown(theirs, user_id, faces, shown)
            if (left := self._seconds_left(faces, listed.began)) > 0:
                theirs.unsettled[user_id] = (
                    f"a call for a face of theirs may still be applied for {left:,} s"
                )
        if not listed.whole:
            self._search(theirs, known)
        return theirs

    def _add_unknown(
        self, theirs: PeopleFaces, user_id: str, faces: Sequence[FaceRecord], tokens: Sequence[str]
    ) -> None:
        """Take those of the tokens that the ledger does not have as this person's."""
        own = {face.face_id for face in faces}
        holders = self._ledger.holders_of(tokens)
        new = [token for token in tokens if holders.get(token) not in own]
        if new:
            there = theirs.unknown.setdefault(user_id, [])
            there += [token for token in new if token not in there]

    def _seconds_left(self, faces: Sequence[FaceRecord], began: int) -> int:
        """For how long the library may not show yet what a call in doubt has added: as long as a
        run waits before a second look without a result counts."""
        expires = max((face.expires or 0.0 for face in faces if face.open), default=None)
        shown_from = absent_from(expires, settle_after=self._settle_after, lag=self._ledger.lag)
        return math.ceil(shown_from - began / 1000 - self._caller.connection.service.clock.least)

    # Where the library cannot be listed

    def _search(self, theirs: PeopleFaces, known: Mapping[str, Sequence[FaceRecord]]) -> None:
        doubts = [face for faces in known.values() for face in faces if face.open or face.recheck]
        left = {face.face_id: face for face in doubts}
        try:
            own = self._photo_search.own_score(self._caller, self._ledger) if doubts else None
            paths = self._ledger.paths_of(list(left))
            for face, answer in self._photo_search.each(self._caller, doubts, paths):
                del left[face.face_id]
                found = found_faces(answer)
                tokens = [one.face_token for one in found or () if one.user_id == face.user_id]
                self._add_unknown(theirs, face.user_id, known[face.user_id], tokens)
                if because := _left_open(answer, found, own):
                    theirs.unsettled.setdefault(face.user_id, because)
        except ServiceError as error:  # an account may have no right to search
            for face in left.values():
                because = f"the library can neither be listed nor searched: {error}"
                theirs.unsettled.setdefault(face.user_id, because)


def _left_open(answer: Answer | None, found: Sequence[FoundFace] | None, own: float | None) -> str:
    """Why a search does not prove whether the library holds a face; empty if it does."""
    if answer is None:
        return "the library cannot be listed, and the photo to search with is gone"
    if answer.code == NO_FACE_FOUND:
        return ""
    if found is None:
        return f"the library cannot be listed, and the search failed: {answer.code}"
    if own is None:
        return "the library cannot be listed, and there is no known face to compare with"
    least = cut_at(found)
    if least is not None and least >= own - SCORE_SLACK:
        return "the library cannot be listed, and too many faces match the photo equally well"
    return ""


# Files

MANIFEST = "a manifest"
PHOTOS = "a folder or archive of photos"

_REMEDIES = {
    MANIFEST: "remove the rows; as long as they are there, runs withhold them",
    PHOTOS: "delete their photos; as long as they are there, runs withhold them",
    RESULTS: "the next run rewrites it from its manifest; else delete it",
    "the log file": "delete it, or the lines",
}
"""What to do about a file, by what it is; all else can be deleted."""

_OLD_LEDGERS = (".new", ".saved", ".before-upgrade")
"""What a kill or an upgrade may leave beside a ledger: a copy of it."""

_WORD = re.compile(rb"[0-9A-Za-z\-%@#&_]+")
"""What may be a user id, by the service's rules; as bytes, whatever the file's encoding."""

_BLOCK = 1 << 16

_PART = re.compile(rb"[0-9A-Za-z]+")
"""What may be one in a longer word, such as the name of a photo."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A file that names `people`, or that could not be read, as `because` says."""

    path: Path
    what: str
    people: Set[str]
    because: str = ""

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _REMEDIES.get(self.what, "delete it")


def files_of(
    runs: Iterable[RunRecord], ledger: Path, others: Mapping[Path, str]
) -> dict[Path, str]:
    """The files in which people may be named, by what they are: those of a ledger's runs, copies
    of the ledger, and `others`."""
    found = {
        ledger.with_name(ledger.name + end): "an old copy of the ledger" for end in _OLD_LEDGERS
    }
    for run in runs:
        if run.start.manifest:
            manifest = named_path(run.start.manifest)
            found[manifest] = MANIFEST if _is_list(manifest) else PHOTOS
            found.setdefault(default_results_path(manifest), RESULTS)
        for what, path in run.start.files.items():
            found.setdefault(named_path(path), what)
    return {**others, **found}


def _is_list(manifest: Path) -> bool:
    if isinstance(manifest, ObjectPath):
        return is_list(manifest.name)
    return not (manifest.is_dir() or is_zip(manifest))


_UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, EnrollError)
"""Errors of a file that is damaged, encrypted, or in a folder that may not be listed."""


def find_traces(files: Mapping[Path, str], people: Sequence[str]) -> Iterator[Trace]:
    """Those of the files that are there and name any of these people as a word."""
    wanted = {user_id.encode("utf-8", "surrogatepass"): user_id for user_id in people}
    for path, what in files.items():
        if isinstance(path, ObjectPath):
            yield Trace(path, what, frozenset(), because="it is in a bucket")
            continue
        if not (path.is_file() or (path.is_dir() and what == PHOTOS)):
            continue
        try:
            named = frozenset(wanted[word] for word in _named_in(path, wanted.keys()))
        except _UNREADABLE as error:
            yield Trace(path, what, frozenset(), because=str(error))
            continue
        if named:
            yield Trace(path, what, named)


def _named_in(path: Path, wanted: Set[bytes]) -> set[bytes]:
    odd = {word for word in wanted if not _WORD.fullmatch(word)}  # no rule of a word fits these
    named: set[bytes] = set()
    for line in _lines(path):
        plain = line.replace(b"\0", b"")  # of UTF-16
        named |= wanted & set(_WORD.findall(plain))
        named |= wanted & set(_PART.findall(plain))
        named |= {word for word in odd if word in plain}
        if len(named) == len(wanted):
            break
    return named


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, unpacked if needed: for a workbook the texts between the tags of its
    XML, for Parquet the texts of its cells. Of photos in a folder or archive only the paths."""
    if path.is_dir():
        yield from map(os.fsencode, open_store(path).files())
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            for name in packed.namelist():
                yield name.encode("utf-8", "surrogatepass")
                if not is_photo(name):
                    with packed.open(name) as part:
                        yield from _between_tags(part) if name.endswith(".xml") else part
    elif path.suffix.lower() == ".parquet":
        yield from _parquet_cells(path)
    elif path.suffix.lower() == ".gz":
        with gzip.open(path) as unpacked:
            yield from unpacked
    else:
        with path.open("rb") as plain:
            yield from plain


def _between_tags(part: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while block := part.read(_BLOCK):
        *whole, rest = (rest + block).split(b"<")
        yield from (one.partition(b">")[2].replace(b"&amp;", b"&") for one in whole)


def _parquet_cells(path: Path) -> Iterator[bytes]:
    """Raises OSError if they cannot be read."""
    try:
        from pyarrow import ArrowInvalid, parquet  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise OSError("to look into it, run `pip install 'enroll[parquet]'`") from error
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for column in batch.columns:
                    yield from (str(cell).encode() for cell in column.to_pylist())
    except ArrowInvalid as error:
        raise OSError(str(error)) from error
