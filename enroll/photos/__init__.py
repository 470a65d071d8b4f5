"""From a file to a photo that the service takes, or to the reason why it is none."""

from __future__ import annotations

from enroll.photos.decision import LARGEST_FILE, Deed, PhotoCode, marks
from enroll.photos.file import locate, look, read_photo, read_photos
from enroll.photos.glance import Glance, examine, glance
from enroll.photos.precheck import check_installed
from enroll.photos.prepare import Prepared, prepare

__all__ = [
    "LARGEST_FILE",
    "Deed",
    "Glance",
    "PhotoCode",
    "Prepared",
    "check_installed",
    "examine",
    "glance",
    "locate",
    "look",
    "marks",
    "prepare",
    "read_photo",
    "read_photos",
]
