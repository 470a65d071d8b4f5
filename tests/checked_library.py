"""An archive, a stand-in, a ledger, and what other programs do to the library meanwhile."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from small_archive import read_csv

from enroll.clock import now_ms
from enroll.commands.run import Screen, enroll_in_pools
from enroll.commands.run_closing import Report
from enroll.facesearch import FaceSearch
from enroll.ledger import Changes, read_ledger
from enroll.ledger.sqlite import SqliteLedger
from enroll.ledger.store import SqliteStore
from enroll.model import (
    Credentials,
    Entry,
    Event,
    EventKind,
    FaceRecord,
    Photo,
    SendAs,
    Status,
    Surplus,
)
from enroll.photos import open_store, read_photo
from enroll.sandbox import Sandbox
from enroll.settings import RunSettings

GROUP = "staff"


@dataclass
class Told:
    """Whom a command talks to: remembers what was said, and agrees or not."""

    agrees: bool = True
    said: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.said)

    def connecting(self, endpoint: str, credentials: str) -> None:
        assert endpoint
        assert credentials

    def say(self, *lines: str) -> None:
        self.said += lines

    def progress(self, done: int, what: str) -> None:
        assert done > 0

    def confirm(self, question: str) -> bool:
        self.questions.append(question)
        return self.agrees


@dataclass
class Place:
    """A folder of photos with a manifest, a stand-in's library, and the ledger of both.

    `token` is one that a test is about.
    """

    folder: Path
    box: Sandbox
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    token: str = ""

    def photo(self, name: str, shade: int, *, size: int = 64) -> Path:
        """A picture whose likeness follows from `shade` (the stand-in takes its middle)."""
        out = BytesIO()
        picture = Image.linear_gradient("L").rotate(shade).resize((size, size + 16))
        picture.convert("RGB").save(out, "JPEG")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(out.getvalue() + bytes([shade % 251]))
        return path

    def people(self, *numbers: int) -> None:
        """A photo and a row for each: user `u1`, `1.jpg`."""
        for number in numbers:
            self.photo(f"{number}.jpg", number * 3)
            self.rows.append((f"u{number}", f"name {number}", f"{number}.jpg"))

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.sqlite"

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.box.api_key, self.box.api_secret)

    @property
    def service(self) -> FaceSearch:
        return FaceSearch(self.box.endpoint, self.credentials, timeout=10.0)

    def manifest(self) -> Path:
        path = self.folder / "staff.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user_id", "user_data", "image"])
            writer.writerows(self.rows)
        return path

    def settings(self, **changed: Any) -> RunSettings:
        given = RunSettings(
            manifest=self.manifest(),
            group_id=GROUP,
            endpoint=self.box.endpoint,
            ledger=self.ledger,
            settle_after=0.0,
            timeout=5.0,
        )
        return replace(given, **changed)

    def run(
        self,
        *,
        screen: Screen | None = None,
        pool: Callable[[int], Executor] = ThreadPoolExecutor,
        read: Callable[[], Credentials] | None = None,
        **changed: Any,
    ) -> Report:
        return enroll_in_pools(
            self.settings(**changed), read or (lambda: self.credentials), screen=screen, pool=pool
        )

    def results(self) -> list[dict[str, str]]:
        return read_csv(self.folder / "staff.results.csv")

    def statuses(self) -> list[str]:
        return [line["status"] for line in self.results()]

    # What others do to the library

    def add(self, user_id: str, image: str, *, user_data: str = "by others") -> str:
        """Another program adds a face; its token."""
        photo = read_photo(str(self.folder / image), open_store(self.folder))
        assert isinstance(photo, Photo)
        service = self.service
        answer = service.add(
            group_id=GROUP,
            user_id=user_id,
            user_data=user_data,
            photo=photo,
            send_as=SendAs.FILE,
            multi_oriented_detection=False,
        )
        service.close()
        assert answer.face_token
        return answer.face_token

    def delete(self, *face_tokens: str) -> None:
        """Another program deletes faces."""
        service = self.service
        service.delete(group_id=GROUP, face_tokens=face_tokens)
        service.close()

    def in_library(self) -> set[str]:
        return {face.face_token for face in self.box.faces(GROUP)}

    # What is in the ledger

    @contextmanager
    def writing(self) -> Iterator[SqliteLedger]:
        reader = read_ledger(self.ledger)
        identity = reader.identity()
        reader.close()
        ledger = SqliteStore(self.ledger).open(identity)
        try:
            yield ledger
            ledger.commit()
        finally:
            ledger.close()

    def face(self, user_id: str) -> FaceRecord:
        """The only face that the ledger has of a person."""
        (face,) = self.faces(user_id)
        return face

    def faces(self, user_id: str) -> list[FaceRecord]:
        with self.writing() as ledger:
            return ledger.faces_of([user_id])[user_id]

    def record(self, *faces: FaceRecord, events: Sequence[Event] = ()) -> None:
        """Write what a run might have written."""
        with self.writing() as ledger:
            ledger.record(Changes(faces=faces, events=events))

    def doubt(self, user_id: str, *, token: str | None = None) -> FaceRecord:
        """Leave a person's face in doubt, or only let it have been so once, with `token`."""
        face = self.face(user_id)
        event = Event(at=now_ms(), kind=EventKind.IN_DOUBT, run=1, face_id=face.face_id)
        if token is None:
            face = replace(
                face, status=Status.IN_DOUBT, face_token=None, enrolled_at=None, code="TIMEOUT"
            )
        else:
            face = replace(face, face_token=token)
        self.record(face, events=[event])
        return face

    def surplus(self, user_id: str, token: str) -> None:
        """Put a copy on record, as settling does."""
        face = self.face(user_id)
        copy = Surplus(face_token=token, face_id=face.face_id, found_at=now_ms(), run=1)
        with self.writing() as ledger:
            ledger.record(Changes(surplus=[copy]))

    def entries(self) -> list[Entry]:
        reader = read_ledger(self.ledger)
        try:
            return list(reader.entries())
        finally:
            reader.close()

    def tokens_agree(self) -> bool:
        """Whether ledger and library hold the same tokens under the same user ids."""
        held = {
            (entry.user_id, entry.face_token)
            for entry in self.entries()
            if entry.status in (Status.ENROLLED, Status.SUPERSEDED)
        }
        there = [(face.user_id, face.face_token) for face in self.box.faces(GROUP)]
        return len(there) == len(set(there)) and held == set(there)

    def history(self) -> list[tuple[str, str, str]]:
        """The events but for `enrolled`: kind, user_id, token."""
        reader = read_ledger(self.ledger)
        try:
            return [
                (event.kind.value, user_id, event.face_token or "")
                for event, user_id in reader.history()
                if event.kind is not EventKind.ENROLLED
            ]
        finally:
            reader.close()
