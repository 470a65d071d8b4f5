"""The object-store adapter of the photo store: objects below `s3://bucket/prefix`, `gs://`, `az://`.

A photo is known by its size, its time of modification, and its ETag. A few photos are each asked
for; where many are asked for, the objects below the root are listed instead, a thousand at a time.
A photo is read with one request, and what is known of it is what that answer says of itself, so a
photo is always of one version.

Credentials, endpoint and region come from where the cloud's own tools have them (`object_account`),
and are in no path, message or pickle.
"""

from __future__ import annotations

import logging
import math
import posixpath
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from enroll import clock
from enroll.addresses import is_url, normal_key, normal_url, parse_url
from enroll.errors import LocalError, ManifestError, UsageError
from enroll.photos.decision import PhotoCode
from enroll.photos.object_account import connect
from enroll.photos.object_errors import (
    is_answer,
    is_bucket_gone,
    is_invalid_name,
    is_misplaced,
    is_missing,
    is_object_missing,
    is_of_store,
    is_refused,
    raise_shortage,
    reason,
    remedy,
)
from enroll.photos.object_listing import Listing, Numbers, is_folder, numbers_of
from enroll.photos.object_reading import OpenObject
from enroll.photos.refusals import OUTSIDE, failed, invalid
from enroll.photos.similar_name import (
    Listings,
    describe_difference,
    describe_unseen,
    folded,
)
from enroll.photos.store import NO_PHOTO, UNREADABLE, UnusableError, empty_above, name_below
from enroll.photos.zipped import is_zip
from enroll.threads import interruptibly

if TYPE_CHECKING:
    from obstore import ObjectMeta

SEEN_SECONDS, _MOST_SEEN = 1.0, 1_000
"""How long a folder that holds something is not listed again for a photo that is missing, as a
million may be, and of how many folders that is kept."""

_MOST_LOOKED_AT = 20_000
"""Objects in a folder, and in those below it, among which a name like that of a missing photo is
looked for."""

_INVALID_NAME = "a name with an empty part, a part of dots or a control character"
_WITHOUT_IT = "Copy that object to another name and delete it, or name a prefix without it."


class ObjectStore:
    """The objects below an address; see `PhotoStore`."""

    def __init__(self, root: str) -> None:
        """`root` is an address; there may be no such bucket. Raises UsageError for a ZIP archive,
        without the extra `objects`, or where credentials or endpoint cannot be used."""
        if is_zip(root):
            raise UsageError(
                f"{root} is a ZIP archive in a bucket, which is not read there. Copy it to this "
                "machine, or unpack it into the bucket."
            )
        scheme, bucket, prefix = parse_url(root)
        self._scheme = scheme
        self._bucket = f"{scheme}://{bucket}"
        self._prefix = prefix
        self.root = f"{self._bucket}/{prefix}" if prefix else self._bucket
        self._client = connect(self._bucket)
        self._lock = Lock()
        self._listing = Listing(self._pages)
        self._names = Listings(self._names_in)
        self._seen: dict[str, float] = {}
        """When folders last had an object, by `clock.monotonic`."""

    def __reduce__(self) -> tuple[type[ObjectStore], tuple[str]]:
        """Another process connects by itself, with its own credentials."""
        return type(self), (self.root,)

    def locate(self, image: str) -> str:
        if not image:
            return ""
        if is_url(image):
            return normal_url(image)
        key = normal_key(image) if image[0] == "/" else normal_key(f"{self._prefix}/{image}")
        return f"{self._bucket}/{key}"

    def stat(self, paths: Sequence[str]) -> array[int]:
        names = [self._name(path) for path in paths]
        with self._lock:
            found = self._find([name for name in names if name])
        numbers = array("q")
        any_missing = False
        for name in names:
            known = found[name] if name else NO_PHOTO
            if known is None:
                known = self._ask(name)
                any_missing = any_missing or known == NO_PHOTO
            numbers.extend(known)
        if any_missing:  # or the bucket is, which the answer to HEAD does not say
            self._ask_for_any()
        return numbers

    def _find(self, names: Sequence[str]) -> dict[str, Numbers | None]:
        try:
            return self._listing.find(names)
        except Exception as error:
            if not is_invalid_name(error):
                raise self._unreachable(error) from error
            self._listing.give_up()
            logging.getLogger("enroll").warning(
                "%s",
                f"The photos below {self.root} cannot be listed, because of {_INVALID_NAME}: "
                f"{reason(error)}. Each photo is asked for by itself, a request (HEAD) for each "
                f"row. {_WITHOUT_IT}",
                extra={"event": "bucket_unlisted", "fields": {}},
            )
            return dict.fromkeys(names)

    def _ask(self, name: str) -> Numbers:
        """What is known of one photo. Raises LocalError where the store does not answer."""
        try:
            key = self._key(name)
            return numbers_of(interruptibly(lambda: self._client.head(key)))
        except Exception as error:
            if is_missing(error):
                return NO_PHOTO
            self._ask_for_any()
            if is_answer(error):
                return UNREADABLE
            raise self._unreachable(error) from error

    def _ask_for_any(self) -> None:
        """Raise LocalError if the store answers nothing at all, with its reason."""
        try:
            self._first("")
        except Exception as error:
            if not is_invalid_name(error):
                raise self._unreachable(error) from error

    def files(self) -> Iterator[str]:
        last = ""
        for page in self._listed():
            for name, _ in page:
                if name < last:
                    raise self._unordered()
                last = name
                yield name

    def _listed(self) -> Iterator[list[tuple[str, Numbers]]]:
        """All pages. Raises ManifestError and LocalError."""
        try:
            yield from self._pages()
        except Exception as error:
            if is_invalid_name(error):
                raise ManifestError(
                    f"The photos below {self.root} cannot be listed, because of {_INVALID_NAME}: "
                    f"{reason(error)}. {_WITHOUT_IT}"
                ) from error
            raise self._unusable(error) from error

    def _unordered(self) -> ManifestError:
        return ManifestError(
            f"The store lists the photos below {self.root} in no fixed order, as directory buckets "
            "do, or a name begins with a slash. Give a list of the photos as the manifest."
        )

    def _pages(self, after: str = "") -> Iterator[list[tuple[str, Numbers]]]:
        """The objects below the root, by their names below it, from the one after `after` on."""
        start = len(self._prefix) + 1 if self._prefix else 0
        offset = self._key(after) if after else None
        for page in self._list(self._prefix, after=offset):
            yield [(one["path"][start:], numbers_of(one)) for one in page if not is_folder(one)]

    def _list(
        self, prefix: str, *, after: str | None = None, most: int = 1000
    ) -> Iterator[Sequence[ObjectMeta]]:
        """The objects below a prefix, so many at a time. Raises what obstore raises."""
        pages = iter(self._client.list(prefix=prefix or None, offset=after, chunk_size=most))
        while page := interruptibly(lambda: next(pages, None)):
            yield page

    @contextmanager
    def open(self, path: str) -> Iterator[OpenObject]:
        name = self._name(path)
        if not name:
            raise UnusableError(invalid(OUTSIDE))
        try:
            yield OpenObject(self._client, self._key(name))
        except UnusableError:
            raise
        except Exception as error:
            if not is_of_store(error):
                raise
            raise_shortage(error)
            raise self._cannot_read(error, name) from error

    def _cannot_read(self, error: Exception, name: str) -> UnusableError:
        if is_missing(error):
            if is_object_missing(error) or not self._is_bucket_gone():
                message = f"There is no photo at this path{self._instead(name)}"
                return UnusableError(failed(PhotoCode.MISSING, message))
            message = f"The bucket {self._bucket} does not exist, or no longer."
            return UnusableError(failed(PhotoCode.UNREADABLE, message, share_gone=True))
        gone = not (is_answer(error) and self.is_reachable(""))
        message = f"The photo cannot be read: {reason(error)}."
        if not gone:
            message += f" {remedy(error, self._scheme)}"
        return UnusableError(failed(PhotoCode.UNREADABLE, message, share_gone=gone))

    def _instead(self, name: str) -> str:
        folder, _, last = name.rpartition("/")
        there = self._names.names(folder).get(folded(last), "")
        if there and there != last:
            difference = describe_difference(there, last)
            return f"; there is {difference}. Correct the path, or rename the object."
        if unseen := describe_unseen(name, ""):
            return f": its part {unseen}. Remove that from the path."
        return ". Check the path; upper and lower case differ."

    def _names_in(self, folder: str, most: int) -> list[str]:
        """The first names in a folder."""
        whole = self._key(folder) if folder else self._prefix
        start = len(whole) + 1 if whole else 0
        most = min(most, _MOST_LOOKED_AT)
        names: list[str] = []
        for page in self._list(whole):
            names += [name for one in page if "/" not in (name := one["path"][start:])]
            most -= len(page)
            if most <= 0:
                break
        return names

    def check(self) -> None:
        try:
            self._first("")
        except Exception as error:
            if not is_invalid_name(error):
                raise self._unusable(error) from error

    def is_gone(self) -> bool:
        return not self._just_seen("") and self._is_bucket_gone()

    def _is_bucket_gone(self) -> bool:
        try:
            self._first("")
        except Exception as error:  # noqa: BLE001  # sorted by what it says
            return is_missing(error) and not is_invalid_name(error)
        return False

    def is_empty(self) -> bool:
        return not self._has_below("")

    def is_reachable(self, path: str) -> bool:
        try:
            self._first(self._name(path).rpartition("/")[0])
        except Exception as error:  # noqa: BLE001  # sorted by what it says
            return is_invalid_name(error)
        return True

    def empty_above(self, path: str) -> str:
        return empty_above(self.root, self._name(path), self._has_below)

    def _has_below(self, folder: str) -> bool:
        try:
            return self._just_seen(folder) or self._first(folder)
        except Exception as error:  # noqa: BLE001  # sorted by what it says
            return is_invalid_name(error) or is_refused(error)

    def _first(self, folder: str) -> bool:
        """Whether there is an object below a folder. Raises what obstore raises."""
        now = clock.monotonic()
        prefix = posixpath.join(self._prefix, folder) if folder else self._prefix
        if all(is_folder(one) for page in self._list(prefix, most=1) for one in page):
            return False
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[folder] = now
        return True

    def _just_seen(self, folder: str) -> bool:
        return clock.monotonic() - self._seen.get(folder, -math.inf) < SEEN_SECONDS

    def _name(self, path: str) -> str:
        """The name below the root; empty for a path that leads out of it."""
        return name_below(self.root, path)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _unusable(self, error: Exception) -> ManifestError | LocalError:
        """Why the photos cannot be listed: as these settings cannot work, or not now."""
        if is_refused(error) or is_misplaced(error):
            return ManifestError(
                f"The photos below {self.root} cannot be listed: {reason(error)}. "
                f"{remedy(error, self._scheme)}"
            )
        return self._unreachable(error)

    def _unreachable(self, error: Exception) -> LocalError:
        raise_shortage(error)
        if is_bucket_gone(error):
            return LocalError(
                f"The bucket {self._bucket} does not exist, or no longer. Every row stays due."
            )
        return LocalError(
            f"The photos below {self.root} cannot be reached: {reason(error)}. "
            f"{remedy(error, self._scheme)} Every row stays due."
        )
