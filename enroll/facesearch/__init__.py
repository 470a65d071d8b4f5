"""The FaceSearch service: `FaceSearch` makes a `Call`, and the readers read its answer."""

from __future__ import annotations

from enroll.facesearch.answers import OwnCode
from enroll.facesearch.api import (
    LIST_PAGE,
    Call,
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
from enroll.facesearch.client import Courier, FaceSearch, SignedCall, Way

__all__ = [
    "LIST_PAGE",
    "Call",
    "Courier",
    "Deleted",
    "FaceSearch",
    "FoundFace",
    "OwnCode",
    "SignedCall",
    "Way",
    "candidates",
    "deleted",
    "face",
    "faces",
    "libraries",
    "library",
    "next_start",
]
