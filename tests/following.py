"""A library that is kept like its manifest, night after night."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from checked_library import GROUP, Place

from enroll.clock import now_ms
from enroll.commands.run_closing import Report
from enroll.commands.sync import sync_manifest
from enroll.ledger import Changes, Target
from enroll.model import Event, EventKind
from enroll.settings import Bound, SyncSettings

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


def synced(place: Place, **changed: Any) -> Report:
    """One sync of the manifest as it is."""
    return sync_manifest(sync_settings(place, **changed), lambda: place.credentials)


def there(place: Place) -> list[tuple[str, str]]:
    """The library's faces: whose, and with which text."""
    return sorted((face.user_id, face.user_data) for face in place.box.faces(GROUP))


def as_listed(place: Place) -> list[tuple[str, str]]:
    """The same of the manifest's rows."""
    return sorted((user_id, user_data) for user_id, user_data, _ in place.rows)


def about_to_delete(place: Place, *user_ids: str, ago: float = 86_400.0) -> None:
    """Leave the ledger as a sync that was killed so many seconds ago, about to delete them."""
    faces = [place.face(user_id) for user_id in user_ids]
    targets = [
        Target(face_token=face.face_token or "", face_id=face.face_id, user_id=face.user_id, run=1)
        for face in faces
    ]
    at = now_ms() - round(ago * 1000)
    removing = [
        Event(
            at=at,
            kind=EventKind.REMOVING,
            run=1,
            face_id=one.face_id,
            face_token=one.face_token,
            detail="",
        )
        for one in targets
    ]
    with place.writing() as ledger:
        ledger.deletions.intend(targets)
        ledger.record(Changes(events=removing))
