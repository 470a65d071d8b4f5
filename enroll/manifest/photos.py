"""Finds the photos of rows that do not name them as a path below the photos' root: by the template
of `--photo`, or from paths as Windows writes them."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from enroll.errors import ManifestError
from enroll.manifest.conflicts import differing
from enroll.manifest.template import Template, parse_template
from enroll.model import Fault, Status, Unusable
from enroll.photos import PhotoCode, PhotoStore
from enroll.photos.index import (
    Pattern,
    PhotoIndex,
    escaped,
    parse_pattern,
    without_suffix,
)
from enroll.photos.store import NO_PHOTO, OpenPhoto, UnusableError

NAMED = 5
"""Photos that a message about several names."""

_STARS = re.compile(r"\*+")
_DRIVE = re.compile(r"[A-Za-z]:")


def parse_photo_template(text: str) -> Template:
    """`--photo`: a template of a relative path with `*`, in which a backslash is a slash. Raises
    ManifestError."""
    found = parse_template(text, option="--photo")
    if not found.names:
        raise ManifestError(
            f"--photo {text!r} names no column, so it would be the same photo for every row. Write "
            "{user_id}, or the name of another column in braces."
        )
    texts = [_STARS.sub("*", one.replace("\\", "/")).replace("[", "[[]") for one in found.texts]
    texts[0] = texts[0].removeprefix("./")
    texts[-1] = without_suffix(texts[-1]) if texts[-1] != ".*" else ""
    parts = "{}".join(texts).split("/")
    if _DRIVE.match(texts[0]) or not parts[0]:
        raise ManifestError(
            f"--photo {text!r} is not a relative path. Leave out what --images names, the folder "
            "that the path begins at."
        )
    if any(part in ("", ".", "..") for part in parts):
        raise ManifestError(
            f"--photo {text!r} has an empty part, or one of dots, between its slashes. Correct it."
        )
    return Template(tuple(texts), found.names)


def photo_patterns(template: Template, columns: Sequence[Sequence[str]]) -> list[str]:
    """The pattern of each row's photo, as it is shown where nothing is found; "" for a row that
    lacks a part of it. `columns` are the cells of the template's columns."""
    cells = [[escaped(cell) for cell in column] for column in columns]
    filled = template.filled(cells, wants_all=True)
    return [one if not one or one[-1] == "*" else f"{without_suffix(one)}.*" for one in filled]


class RowPhotos(Protocol):
    """Which photos the rows of a list have, where that takes more than a column's path."""

    @property
    def found_by(self) -> str:
        """All that decides it, besides the list and its options."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences for the user."""

    def images(self, lines: Sequence[int], user_ids: Sequence[str], images: list[str]) -> list[str]:
        """The images of rows; `images` are what the list has of them."""

    def explained(self, store: PhotoStore) -> PhotoStore:
        """The store, so that it says of a row why it has no photo."""


class PhotoFinder:
    """Finds photos below a store's root by patterns. A photo that rows of several people match is
    given to none of them.
    """

    notes = ()

    def __init__(self, template: Template, store: PhotoStore) -> None:
        """List the store's photos. Raises what `PhotoStore.files` raises."""
        parts = "\0".join(template.texts).split("/")
        self.root = store.root
        self._index = PhotoIndex(store.files(), depth=len(parts), words_of=_words_of(parts))
        self._shared: frozenset[int] = frozenset()
        self.found_by = self._index.digest

    def images(self, lines: Sequence[int], user_ids: Sequence[str], images: list[str]) -> list[str]:
        """The photos that match patterns."""
        return self.find(images)

    def explained(self, store: PhotoStore) -> PhotoStore:
        return FoundPhotos(store, self)

    def find(self, patterns: Sequence[str]) -> list[str]:
        """The photo of each row; the pattern itself where there is no photo, or no certain one."""
        found = []
        for pattern in patterns:
            photos = self._index.find(parse_pattern(pattern), most=2) if pattern else []
            certain = len(photos) == 1 and hash(photos[0]) not in self._shared
            found.append(photos[0] if certain else pattern)
        return found

    def learn_shared(self, rows: Iterable[tuple[Sequence[str], Sequence[str]]]) -> None:
        """Learn which photos the rows of several people match: `rows` are the user_ids and patterns
        of some at a time. 16 bytes are kept of each."""
        photos, people = array("q"), array("q")
        for user_ids, patterns in rows:
            found = zip(user_ids, self.find(patterns), strict=True)
            named = [(hash(photo), hash(user_id)) for user_id, photo in found if user_id.strip()]
            photos.extend(photo for photo, _ in named)
            people.extend(person for _, person in named)
        several, _ = differing(photos, people)
        self._shared = frozenset(photos[row] for row in several.tolist())

    def why_not(self, pattern: str) -> Unusable:
        """Why a row of this pattern has no photo."""
        parsed = parse_pattern(pattern)
        found = self._index.find(parsed, most=NAMED + 1)
        if not found:
            return Unusable(status=Status.FAILED, fault=self._missing(pattern, parsed))
        if len(found) == 1:
            why = (
                f"The photo {found[0]} is also what the rows of other people match. Let --photo "
                "name a column in which they differ, such as {user_id}."
            )
        else:
            more = " and more" if len(found) > NAMED else ""
            why = (
                f"Several photos match {pattern}: {', '.join(found[:NAMED])}{more}. Remove all but "
                "one, or let --photo describe the name more exactly."
            )
        fault = Fault(code=PhotoCode.AMBIGUOUS, message=why)
        return Unusable(status=Status.INVALID, fault=fault)

    def _missing(self, pattern: str, parsed: Pattern) -> Fault:
        near = self._index.nearest(parsed)
        instead = f"; the nearest is {near}" if near else ", and none has a similar name"
        why = f"No photo matches {pattern}{instead}. Check the row, --photo and --images."
        return Fault(code=PhotoCode.MISSING, message=why)


class FoundPhotos:
    """A store whose photos a finder has looked for: says of a pattern why there is no photo."""

    def __init__(self, store: PhotoStore, finder: PhotoFinder) -> None:
        self._store = store
        self._finder = finder
        self.root = store.root
        self.locate, self.files = store.locate, store.files
        self.check, self.is_gone, self.is_empty = store.check, store.is_gone, store.is_empty
        self.is_reachable, self.empty_above = store.is_reachable, store.empty_above

    def stat(self, paths: Sequence[str]) -> array[int]:
        times = self._store.stat(paths)
        for number, path in enumerate(paths):
            if self._pattern(path):
                times[3 * number : 3 * number + 3] = array("q", NO_PHOTO)
        return times

    def open(self, path: str) -> AbstractContextManager[OpenPhoto]:
        if pattern := self._pattern(path):
            raise UnusableError(self._finder.why_not(pattern))
        return self._store.open(path)

    def _pattern(self, path: str) -> str:
        """The pattern that a path is; empty for a photo's path, which has no star."""
        return path.removeprefix(self.root).lstrip("/") if "*" in path[len(self.root) :] else ""


class WindowsPaths:
    r"""Reads paths as Windows writes them, such as `photos\1.jpg` or `C:\Export\photos\1.jpg`,
    where no file has that literal name.

    Of absolute paths, one folder is taken for the photos' root: that of the first of them of which
    the rest is a photo there. Paths that begin with another folder stay as they are.
    """

    def __init__(self, store: PhotoStore, images: Iterable[str]) -> None:
        """`images` are some of the list's paths. They decide about that folder, and whether literal
        names are looked for at all: on a slow share that takes long for a million rows."""
        images = [image for image in images if "\\" in image]
        self._store = store
        self._folder = next((one for image in images for one in self._folders_of(image)), "")
        """That folder, with slashes; empty for none."""
        self._literal = any(map(self._is_there, images))

    @property
    def found_by(self) -> str:
        return f"{self._folder}\\" if self._literal else self._folder

    @property
    def notes(self) -> Sequence[str]:
        if not self._folder:
            return ()
        return [f"Paths that begin with {self._folder} are read below the photos' folder."]

    def explained(self, store: PhotoStore) -> PhotoStore:
        return store

    def images(self, lines: Sequence[int], user_ids: Sequence[str], images: list[str]) -> list[str]:
        """The paths, with `/` between their parts."""
        if not any("\\" in image for image in images):
            return images
        return [self._read(image) if "\\" in image else image for image in images]

    def _read(self, image: str) -> str:
        if self._literal and self._is_there(image):
            return image
        path = image.replace("\\", "/")
        if not _is_absolute(path):
            return path
        folder, rest = path[: len(self._folder)], path[len(self._folder) :]
        return rest if folder and folder.casefold() == self._folder.casefold() else image

    def _folders_of(self, image: str) -> Iterator[str]:
        """The beginnings of an absolute path without which it names a photo in the store."""
        path = image.replace("\\", "/")
        if not _is_absolute(path):
            return
        for slash in re.finditer("/+", path):
            rest = path[slash.end() :]
            if rest and self._is_there(rest):
                yield path[: slash.end()]

    def _is_there(self, image: str) -> bool:
        return self._store.stat([self._store.locate(image)])[0] >= 0


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or _DRIVE.match(path) is not None


def _words_of(parts: Sequence[str]) -> int | None:
    """The last part of a template that has a column, if that is behind a star; parts of a template
    have a NUL for each column."""
    begun = ""
    last = None
    for number, part in enumerate(parts):
        for place, character in enumerate(part):
            if character == "\0" and "*" in begun + part[:place]:
                last = number
        begun += part
    return last
