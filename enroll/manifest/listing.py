"""Converts the listing of a folder or archive of photos to a CSV, with a row for each photo."""

from __future__ import annotations

import csv
import io
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NoReturn

from enroll import clock
from enroll.errors import ManifestError, TimeOverError
from enroll.manifest.bounds import ScratchFile
from enroll.manifest.conflicts import differing
from enroll.manifest.id_from import Ids, PathTemplate, UncertainError, parse_path_templates
from enroll.model import is_utf8
from enroll.photos import PhotoStore, is_photo, suffix_of
from enroll.photos.listing import is_kept_by_a_program
from enroll.text.wording import amount
from enroll.visible import path_text

FILES_AT_ONCE = 10_000
"""Files that are listed before the time is looked at and rows are written."""

_SUFFIXES_SHOWN = 5

_LISTS = (".csv", ".tsv", ".xlsx", ".csv.gz", ".tsv.gz")
"""Ends of names of files that may be lists of the photos. A .txt is rather a read-me."""


def is_list(path: str) -> bool:
    """Whether a file beside photos is a list by its name, and no program keeps it for itself, as
    macOS does `__MACOSX/._staff.csv` and Excel `~$staff.xlsx`."""
    name = path.rpartition("/")[2].lower()
    return name.endswith(_LISTS) and not (name.startswith("~$") or is_kept_by_a_program(path))


class PhotoListing:
    """The photos of a store as a CSV in UTF-8: user_id, user_data if a template has it, image.

    The user_id of a photo whose path does not match is empty. `others` counts the files that are
    not photos by their suffixes.
    """

    others: Counter[str]

    def __init__(
        self, store: PhotoStore, path: Path, id_from: Sequence[str], *, until: float = math.inf
    ) -> None:
        """List the photos of `store`, which `path` names; `id_from` is `--id-from`. Raises
        UsageError, LocalError, and TimeOverError."""
        self._path = path
        self._templates = parse_path_templates(id_from)
        self._names = [one.text for one in self._templates]
        self._copy, self._others = ScratchFile(path), ScratchFile(path)
        self.others = Counter()
        self._list = ""
        self._write(store, until)

    @property
    def notes(self) -> list[str]:
        """Sentences about the files that are not photos, if there are any."""
        return [*self._others_note(), *self._list_note()]

    def _list_note(self) -> list[str]:
        if not self._list:
            return []
        return [
            f"{path_text(self._path)} holds a list, {self._list}, which is not used. To use it, "
            "give it as the manifest, and the photos with --images."
        ]

    def _others_note(self) -> list[str]:
        if not self.others:
            return []
        count = self.others.total()
        kinds = [
            f"{number:,} {f'.{suffix}' if suffix else 'without a suffix'}"
            for suffix, number in self.others.most_common(_SUFFIXES_SHOWN)
        ]
        if len(self.others) > _SUFFIXES_SHOWN:
            kinds.append("others")
        are = "is not a photo" if count == 1 else "are not photos"
        return [
            f"{amount(count, 'file')} in {path_text(self._path)} {are}: {', '.join(kinds)}. "
            "`enroll plan --report` lists them."
        ]

    def open(self) -> io.BufferedReader:
        """A reader of the CSV, independent of other readers."""
        return self._copy.open()

    def other_files(self) -> Iterator[str]:
        """The paths of the files that are not photos, in their order."""
        with io.TextIOWrapper(self._others.open(), encoding="utf-8", newline="") as text:
            yield from (line[0] for line in csv.reader(text))

    def why_unmatched(self, image: str) -> str:
        """Why the path of a photo yields no user_id, as a sentence with a remedy."""
        given = " or ".join(map(repr, self._names))
        if _leads_out(image):
            return "The name in the archive leads out of it. Pack the archive again."
        try:
            matched = self._ids_of(image) is not None
        except UncertainError:
            return (
                f"The path can be split in several ways by --id-from {given}, so that it is not "
                "certain whose photo it is. Rename the photo, or describe the name more exactly: "
                "a ? is a single character."
            )
        if matched:
            return "The photo's name is not in UTF-8. Rename the file."
        return f"The path does not match --id-from {given}. Rename the photo, or add a template."

    def _write(self, store: PhotoStore, until: float) -> None:
        with_data = any(one.has_user_data for one in self._templates)
        header = ("user_id", "user_data", "image") if with_data else ("user_id", "image")
        self._copy.write(_csv([header]))
        by_name = _ByName(self._templates)
        files = store.files()
        while some := list(islice(files, FILES_AT_ONCE)):
            if clock.monotonic() >= until:
                raise TimeOverError(
                    f"--max-duration was over while {path_text(self._path)} was being listed; "
                    "nothing was sent. Give it more time."
                )
            rows: list[list[str]] = []
            others: list[list[str]] = []
            for file in some:
                image = path_text(file)
                if not is_photo(file):
                    others.append([image])
                    if not self._list and is_list(file):
                        self._list = image
                    self.others[suffix_of(image)] += 1
                    continue
                ids = self._known_ids_of(file)
                by_name.add(ids, image)
                data = [ids.user_data] if with_data else []
                rows.append([ids.user_id, *data, image])
            self._copy.write(_csv(rows))
            self._others.write(_csv(others))
        if (clash := by_name.clash()) is not None:
            self._refuse_clash(clash)

    def _known_ids_of(self, file: str) -> Ids:
        try:
            sound = (file.isascii() or is_utf8(file)) and not _leads_out(file)
            ids = self._ids_of(file) if sound else None
        except UncertainError:
            ids = None
        return ids or _NO_IDS

    def _ids_of(self, file: str) -> Ids | None:
        """What the first template that matches yields. Raises UncertainError."""
        stem = file[: -len(suffix_of(file)) - 1]
        found = (one.match(stem) for one in self._templates)
        return next(filter(None, found), None)

    def _refuse_clash(self, clash: int) -> NoReturn:
        """Raise ManifestError with two photos in different folders whose names alone yield the
        user_id with this hash."""
        with io.TextIOWrapper(self._copy.open(), encoding="utf-8", newline="") as text:
            images = [
                row[-1]
                for row in csv.reader(text)
                if hash(row[0]) == clash and self._known_ids_of(row[-1]).by_name
            ]
        first = images[0]
        second = next(image for image in images if _folder(image) != _folder(first))
        raise ManifestError(
            f"{first} and {second} would both be photos of one person, as --id-from "
            f"{' or '.join(map(repr, self._names))} looks only at the file's name. If the same "
            "name means the same person in every folder, give --id-from '*/{user_id}'; if the "
            "folder is the person, --id-from '{user_id}/*'."
        )


_NO_IDS = Ids("", "", by_name=False)


class _ByName:
    """Finds user_ids that photos in several folders yield by their names alone: 16 bytes are kept
    of each photo."""

    def __init__(self, templates: Sequence[PathTemplate]) -> None:
        self._ids, self._folders = array("q"), array("q")
        self._wanted = any(one.by_name for one in templates)

    def add(self, ids: Ids, image: str) -> None:
        """Take one more photo into account."""
        if self._wanted and ids.by_name:
            self._ids.append(hash(ids.user_id))
            self._folders.append(hash(_folder(image)))

    def clash(self) -> int | None:
        """The hash of such a user_id; None if there is none."""
        clashes, _ = differing(self._ids, self._folders)
        return self._ids[clashes[0]] if len(clashes) else None


def _leads_out(path: str) -> bool:
    return path.startswith("/") or (".." in path and ".." in path.split("/"))


def _folder(image: str) -> str:
    return image.rpartition("/")[0]


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
