"""What tests of a report write into a ledger, and what its page holds."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enroll.ledger import (
    Changes,
    Finding,
    LibraryIdentity,
    Point,
    RunEnd,
    RunPace,
    RunStart,
    Searched,
    ledger_at,
)
from enroll.model import FaceRecord, RowRecord, Status

STAFF = LibraryIdentity(host="host", group_id="staff", add_time="2026-01-01T00:00:00Z")

COURSE: Sequence[Point] = [
    (n / 2, float(min(n, 8)), n * 4, n // 3 if n < 10 else 3) for n in range(1, 24)
]


@dataclass(frozen=True)
class Person:
    """A row of the manifest, and what became of it; without a `status` it is in no ledger. Those
    with equal `content` have the same photo."""

    user_id: str
    user_data: str = ""
    image: str = ""
    department: str = "Sales"
    status: Status | None = Status.ENROLLED
    code: str = ""
    message: str = ""
    prepared: str = ""
    content: str = ""


def write(
    folder: Path,
    people: Sequence[Person],
    *,
    name: str = "staff.csv",
    course: bool = True,
    command: str = "run",
) -> Path:
    """The manifest of these people in the folder, and a ledger after a run of it; returns the
    ledger's path."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / name
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("user_id", "user_data", "image", "Department"))
        writer.writerows((p.user_id, p.user_data, p.image, p.department) for p in people)
    path = folder / "ledger.sqlite"
    ledger = ledger_at(path).open(STAFF)
    start = RunStart(
        at=1_767_225_600_000,
        host="desk",
        user="ada",
        pid=1,
        version="0",
        manifest=str(manifest.resolve()),
        manifest_sha256="",
        options={},
        command=command,
        endpoint="https://host",
        photo_root=str(folder.resolve()),
    )
    try:
        run = ledger.start_run(start)
        for number, person in enumerate(people, start=1):
            if person.status is not None:
                ledger.record(_changes(folder.resolve(), number, person, run))
        pace = RunPace(limit=8, in_flight=0, ceiling=8, calls=92, refused=3)
        ledger.note_pace(pace, COURSE if course else ())
        ledger.commit()
        rows = {"enrolled": 1}
        end = RunEnd(
            at=start.at + 12_000, exit_code=1, reason="", calls={"add": 92}, rows=rows, limit=8
        )
        ledger.end_run(run, end)
    finally:
        ledger.close()
    return path


def token(number: int) -> str:
    """The token of the person with this number, from 1."""
    return f"{number:032x}"


def find(
    ledger: Path, found: Mapping[int, Sequence[Finding]], *, held: Collection[int] = ()
) -> None:
    """Record what searches with the photos of people have found; `held` ones have no token."""
    opened = ledger_at(ledger).open(STAFF)
    searched = [
        Searched(
            face_id=number,
            face_token=None if number in held else token(number),
            at=1_767_225_600_000,
            run=1,
            findings=findings,
        )
        for number, findings in found.items()
    ]
    opened.record(Changes(searched=searched))
    opened.commit()
    opened.close()


def _changes(root: Path, number: int, person: Person, run: int) -> Changes:
    assert person.status is not None
    path = f"{root}/{person.image}"
    sha256 = hashlib.sha256((person.content or f"{number}").encode()).digest()
    if person.status in (Status.INVALID, Status.PENDING):
        row = RowRecord(
            user_id=person.user_id,
            path=path,
            user_data=person.user_data,
            sha256=sha256,
            status=person.status,
            code=person.code,
            message=person.message,
            run=run,
        )
        return Changes(rows=[row])
    enrolled = person.status is Status.ENROLLED
    face = FaceRecord(
        face_id=number,
        user_id=person.user_id,
        sha256=sha256,
        status=person.status,
        face_token=token(number) if enrolled else None,
        code=person.code,
        message=person.message,
        prepared=person.prepared,
        user_data=person.user_data,
        enrolled_at=1_767_225_600_000 if enrolled else None,
        run=run,
    )
    row = RowRecord(
        user_id=person.user_id,
        path=path,
        user_data=person.user_data,
        face_id=number,
        sha256=sha256,
        run=run,
    )
    return Changes(faces=[face], rows=[row])


@dataclass(frozen=True)
class Page:
    """What a page holds: the HTML that a browser shows at once, and the lines for its script."""

    html: str
    facts: dict[str, Any]
    lines: dict[str, list[Any]]
    same: list[dict[str, Any]]
    pairs: list[list[dict[str, Any]]]

    @property
    def everything(self) -> str:
        """All text in it, packed or not."""
        return "\n".join(
            [self.html, json.dumps([self.lines, self.same, self.pairs], ensure_ascii=False)]
        )


def read(path: Path) -> Page:
    """The page at this path."""
    html = path.read_text(encoding="utf-8")
    facts = json.loads(_blocks(html, 'type="application/json" id="facts"')[0])
    blocks = [_unpacked(text) for text in _blocks(html, 'type="text/plain" class="rows"')]
    same = [_unpacked(text) for text in _blocks(html, 'type="text/plain" class="same"')]
    pairs = [_unpacked(text) for text in _blocks(html, 'type="text/plain" class="pairs"')]
    lines = {name: [one for block in blocks for one in block[name]] for name in facts["columns"]}
    return Page(html, facts, lines, same[0] if same else [], pairs[0] if pairs else [])


def _blocks(html: str, attributes: str) -> list[str]:
    return re.findall(rf"<script {re.escape(attributes)}>(.*?)</script>", html, flags=re.DOTALL)


def _unpacked(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(text)))
