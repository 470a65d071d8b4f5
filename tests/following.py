"""A library that is kept like its manifest, night after night."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from checked_library import GROUP, Place

from enroll.enrollment import Report
from enroll.settings import Bound, SyncSettings
from enroll.sync import sync_manifest

ANY = Bound(100, percent=True)
"""For tests that are not about guards."""


def sync_settings(place: Place, **changed: Any) -> SyncSettings:
    """Settings of a sync, without a grace and without guards where nothing else is said."""
    own = place.settings()
    common = {
        field.name: getattr(own, field.name)
        for field in fields(own)
        if field.name not in ("give_up_after", "fail_on")
    }
    free = {"max_removals": ANY, "max_changes": ANY, "max_missing": ANY, "grace": 0.0}
    return SyncSettings(**{**common, **free, **changed})


def night(place: Place, **changed: Any) -> Report:
    """One sync of the manifest as it is."""
    return sync_manifest(sync_settings(place, **changed), lambda: place.credentials)


def there(place: Place) -> list[tuple[str, str]]:
    """The library's faces: whose, and with which text."""
    return sorted((face.user_id, face.user_data) for face in place.box.faces(GROUP))
