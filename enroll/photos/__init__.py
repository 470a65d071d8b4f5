"""From where photos are kept to a photo that the service takes, or to the reason why it is none.

`read` opens a photo in its `store` and has `prepare` make what is sent of its bytes. That asks
`inspect` what the file holds and `decision` what to do about it. If pixels have to change, `decode`
opens and decodes it, `picture` corrects colours, size and orientation, and `encode` makes the JPEG.
`bounds` decides how much memory that may take and how many photos are decoded at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from enroll.addresses import is_url
from enroll.photos.alike import Outline, Picture, outline, read_picture, read_top
from enroll.photos.bounds import BUDGET, give_back_memory, limit_memory
from enroll.photos.decision import LARGEST_FILE, Edit, PhotoCode, marks
from enroll.photos.folder import FolderStore
from enroll.photos.glance import Glance, examine, glance
from enroll.photos.listing import is_photo, suffix_of
from enroll.photos.precheck import check_installed
from enroll.photos.prepare import Prepared, prepare
from enroll.photos.read import read_photo, read_photos
from enroll.photos.refusals import reconnect
from enroll.photos.roots import AllPhotos
from enroll.photos.store import LEAST_TOGETHER, PhotoSource, PhotoStore
from enroll.photos.thumbnail import thumbnail
from enroll.photos.zipped import ZipStore, is_zip

__all__ = [
    "BUDGET",
    "LARGEST_FILE",
    "LEAST_TOGETHER",
    "AllPhotos",
    "Edit",
    "Glance",
    "Outline",
    "PhotoCode",
    "PhotoSource",
    "PhotoStore",
    "Picture",
    "Prepared",
    "check_installed",
    "examine",
    "give_back_memory",
    "glance",
    "is_photo",
    "is_zip",
    "limit_memory",
    "marks",
    "open_store",
    "open_stores",
    "outline",
    "pieces_of",
    "prepare",
    "read_photo",
    "read_photos",
    "read_picture",
    "read_top",
    "reconnect",
    "suffix_of",
    "thumbnail",
]


def open_stores(roots: Sequence[str]) -> AllPhotos:
    """The photos below any of these, at least one, as `open_store` has them."""
    return AllPhotos(roots, open_store=open_store)


def pieces_of(url: str) -> Iterator[bytes]:
    """The bytes of an object at an address; see `enroll.photos.object_reading.pieces_of`."""
    from enroll.photos import object_reading  # noqa: PLC0415 - an extra

    return object_reading.pieces_of(url)


def open_store(root: Path | str) -> PhotoStore:
    """The photos below `root`, the address of a bucket or of a prefix in it, or the absolute,
    resolved path of a folder or ZIP archive. It may be missing, which `is_gone` says. Raises
    UsageError for an address where the extra `objects` is missing, or that cannot be used."""
    if is_url(str(root)):
        from enroll.photos.objects import ObjectStore  # noqa: PLC0415 - an extra

        return ObjectStore(str(root))
    return ZipStore(root) if is_zip(root) else FolderStore(root)
