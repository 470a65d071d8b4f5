"""Which files that a ledger knows of name certain people: manifests, results, logs, reports."""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from enroll.ledger import RunRecord
from enroll.manifest.results import default_results_path
from enroll.visible import named_path

MANIFEST = "a manifest"
RESULTS = "the results"

_REMEDIES = {
    MANIFEST: "remove the rows; as long as they are there, runs withhold them",
    RESULTS: "the next run writes it again, with the people in its manifest; else delete it",
    "the log file": "delete it, or the lines",
}
"""What to do about a file, by what it is; all else can be deleted."""

_OLD_LEDGERS = (".new", ".saved")
"""What a kill may leave beside a ledger: a copy of it."""

_WORD = re.compile(rb"[0-9A-Za-z\-%@#&_]+")
"""What may be a user id, by the service's rules; as bytes, whatever the file's encoding."""

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
            found[manifest] = MANIFEST
            found.setdefault(default_results_path(manifest), RESULTS)
        for what, path in run.start.files.items():
            found.setdefault(named_path(path), what)
    return {**others, **found}


def find_traces(files: Mapping[Path, str], people: Sequence[str]) -> Iterator[Trace]:
    """Those of the files that are there and name any of these people as a word."""
    wanted = {user_id.encode("utf-8", "surrogatepass"): user_id for user_id in people}
    for path, what in files.items():
        if not path.is_file():
            continue
        try:
            named = frozenset(wanted[word] for word in _named_in(path, wanted.keys()))
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
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
    """The lines of a file, unpacked if needed: for a workbook, those of its XML."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            for name in packed.namelist():
                with packed.open(name) as part:
                    yield from part
    elif path.suffix.lower() == ".gz":
        with gzip.open(path) as unpacked:
            yield from unpacked
    else:
        with path.open("rb") as plain:
            yield from plain
