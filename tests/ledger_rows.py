"""What the tests of a ledger write into it: faces, rows and photos by number."""

from __future__ import annotations

from enroll.ledger import Changes, Ledger, LibraryIdentity, RunStart
from enroll.model import (
    FaceRecord,
    FileTimes,
    PhotoRecord,
    RowRecord,
    ScannedRow,
    Status,
)

STAFF = LibraryIdentity(host="host", group_id="staff", add_time="2026-01-01T00:00:00Z")


TIMES = FileTimes(10, 20, 30)


START = RunStart(
    at=1_000,
    host="h",
    user="u",
    pid=1,
    version="0",
    manifest="/m.csv",
    manifest_sha256="00",
    options={"limit": 3},
    photo_root="/p",
)


def token(number: int) -> str:
    return f"{number:032x}"


def sha(number: int) -> bytes:
    return bytes([number]) * 32


def face(number: int, status: Status = Status.ENROLLED, user_id: str = "") -> FaceRecord:
    return FaceRecord(
        face_id=number,
        user_id=user_id or f"u{number}",
        sha256=sha(number),
        status=status,
        face_token=token(number) if status is Status.ENROLLED else None,
        enrolled_at=5_000 if status is Status.ENROLLED else None,
        user_data="data",
        run=1,
    )


def row(number: int, user_id: str = "", face_id: int | None = None) -> RowRecord:
    return RowRecord(
        user_id=user_id or f"u{number}",
        path=f"/p/{number}.jpg",
        user_data="data",
        face_id=face_id or number,
        sha256=sha(number),
        run=1,
    )


def photo(number: int, times: FileTimes = TIMES) -> PhotoRecord:
    return PhotoRecord(path=f"/p/{number}.jpg", times=times, sha256=sha(number))


def scanned(number: int, *, times: FileTimes | None = TIMES, user_data: str = "data") -> ScannedRow:
    return ScannedRow(
        line=number + 1,
        user_id=f"u{number}",
        user_data=user_data,
        image=f"{number}.jpg",
        path=f"/p/{number}.jpg",
        times=times,
    )


def enroll(ledger: Ledger, *numbers: int) -> None:
    for number in numbers:
        ledger.record(Changes(faces=[face(number)], rows=[row(number)], photos=[photo(number)]))
    ledger.commit()
