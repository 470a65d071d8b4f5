"""The FaceSearch service: `FaceSearch` makes the calls, the readers take answers apart."""

from __future__ import annotations

from enroll.facesearch.answers import OwnCode
from enroll.facesearch.client import FaceSearch, SignedCall
from enroll.facesearch.responses import (
    Deleted,
    FoundFace,
    candidates,
    deleted,
    face,
    faces,
    libraries,
    library,
    next_start,
)

__all__ = [
    "Deleted",
    "FaceSearch",
    "FoundFace",
    "OwnCode",
    "SignedCall",
    "candidates",
    "deleted",
    "face",
    "faces",
    "libraries",
    "library",
    "next_start",
]
