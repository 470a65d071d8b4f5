"""A web application's part: enroll a person from an uploaded photo, and say who is in a photo."""

from __future__ import annotations

import threading

import enroll

settings = enroll.Settings.from_toml("enroll.toml")
turn = threading.Lock()  # a ledger takes one run at a time

SECONDS = 300.0
"""How long a request waits for a service that is away. After a lost answer, it takes two or three
minutes to find out whether the face was added: so no less."""


def enroll_person(user_id: str, name: str, photo: bytes) -> tuple[int, dict[str, str]]:
    """The HTTP status and the JSON body of an answer."""
    try:
        with turn:
            report = enroll.run(
                [enroll.Row(user_id, name, photo)], settings=settings, give_up_after=SECONDS
            )
        if report.stop is not None:
            raise report.stop
    except enroll.LedgerBusyError:  # another process has its turn
        return 503, {"error": "BUSY"}
    except enroll.ServiceError as error:
        return 502, {"error": error.exit_code.name}
    entry = next(report.rows())
    if entry.status is enroll.Status.ENROLLED:
        return 200, {"face_token": entry.face_token}
    if entry.status in (enroll.Status.PENDING, enroll.Status.IN_DOUBT, enroll.Status.FAILED):
        # Nothing is wrong with the photo: the same request later goes on from here.
        return 503, {"error": entry.status.name}
    return 422, {"error": entry.error, "message": entry.message}


def recognise(photo: bytes) -> list[tuple[str, float]]:
    """The people in a photo, and their scores; empty if it is nobody in the library."""
    found = enroll.who(photo, settings=settings, limit=3)
    if found.exit_code is not enroll.ExitCode.DONE:
        return []
    return [(face.user_id, face.score) for face in found.result]
