"""The tests' world: an archive of photos, a stand-in with its library, the ledger of both, what
other programs do to the library meanwhile, and what must be true in the end."""

from __future__ import annotations

import csv
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from postgres_server import OF_POSTGRES, postgres_ledger
from real_command import SECONDS, Command, account_of

from enroll.cli import rehearsal
from enroll.clock import now_ms
from enroll.commands.run import Screen, enroll_in_pools
from enroll.commands.run_closing import Report
from enroll.commands.sync import sync_manifest
from enroll.facesearch import Call, FaceSearch
from enroll.ledger import Changes, Target, ledger_at, read_ledger
from enroll.ledger.writer import SqlLedger
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
from enroll.settings import Bound, RunSettings, SyncSettings

GROUP = "staff"

COLUMNS = ("user_id", "user_data", "image")

QUICK_DOUBTS = ("--timeout", "2", "--settle-after", "0")
"""Options with which a doubt is looked at after some four seconds."""

TIMEOUT, SETTLE_AFTER = 1.0, 0.3
"""Seconds. The stand-in applies what it has accepted within milliseconds, or when the client
goes away."""

ANY = Bound(100, percent=True)
"""For tests that are not about guards."""


def portrait(person: int) -> bytes:
    """The JPEG of one of the demo's people."""
    return rehearsal.portrait(person)


@lru_cache
def nobody() -> bytes:
    """A JPEG without a face."""
    return _jpeg(Image.new("RGB", (120, 120), (90, 120, 90)))


@lru_cache(maxsize=1000)
def picture(number: int) -> bytes:
    """A JPEG of some 2 KB, unlike every other; the stand-in has to be told not to look for
    faces."""
    noise = Image.frombytes("L", (8, 8), random.Random(number).randbytes(64))
    return _jpeg(noise.resize((64, 64), Image.Resampling.NEAREST))


@lru_cache(maxsize=1000)
def shaded(shade: int, *, size: int = 64) -> bytes:
    """A JPEG whose likeness follows from `shade`: the stand-in takes its middle."""
    gradient = Image.linear_gradient("L").rotate(shade).resize((size, size + 16))
    return _jpeg(gradient.convert("RGB")) + bytes([shade % 251])


def _jpeg(drawn: Image.Image) -> bytes:
    out = BytesIO()
    drawn.save(out, "JPEG")
    return out.getvalue()


def let_nobody_look(box: Sandbox) -> None:
    """Have the account not search or list, so that no doubt can be settled."""
    for call in ("list", "search"):
        box.script(["auth"] * 100, call=call)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a results file or an export, by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def until(true: Callable[[], bool], process: subprocess.Popen[str], what: str) -> None:
    """Wait until something is so, which a process brings about; it must not end before."""
    deadline = time.monotonic() + SECONDS
    while not true():
        ended = process.poll()
        if ended is not None and not true():
            said = process.communicate() if process.stderr else ("", "its streams went elsewhere")
            pytest.fail(f"{what} before the command left with {ended}: {said}")
        assert time.monotonic() < deadline, f"{what}, ever"
        time.sleep(0.01)


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

    def progress(self, done: int, what: str, *, of: int | None = None) -> None:
        assert done > 0

    def confirm(self, question: str, *, changes: bool = True) -> bool:
        self.questions.append(question)
        return self.agrees


@dataclass
class Archive:
    """A folder of photos with a manifest, a stand-in's library, and the ledger of both.

    `rows` are the manifest's; `token` is one that a test is about.
    """

    folder: Path
    box: Sandbox
    group_id: str = GROUP
    rows: list[tuple[str, ...]] = field(default_factory=list)
    token: str = ""
    ledger_folder: Path | None = None
    """Where the ledger is, if not in the folder."""
    address: Path | None = None
    """The address of the ledger, if it is in a server."""

    @classmethod
    def new(cls, folder: Path, box: Sandbox, *, ledger_folder: Path | None = None) -> Archive:
        """Make the folder, and a library of the same name."""
        folder.mkdir(parents=True)
        box.create_library(folder.name)
        return cls(folder, box, folder.name, ledger_folder=ledger_folder)

    # Photos and the manifest

    def photo(self, name: str, content: bytes | int, *, size: int = 64) -> Path:
        """Write a photo; a number stands for the `shaded` one."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shaded(content, size=size) if isinstance(content, int) else content)
        return path

    def people(self, *numbers: int) -> None:
        """A photo and a row for each, and the manifest: user `u1`, `1.jpg`."""
        for number in numbers:
            self.photo(f"{number}.jpg", number * 3)
            self.rows.append((f"u{number}", f"name {number}", f"{number}.jpg"))
        self.manifest()

    def crowd(self, count: int) -> None:
        """So many people, each with a `picture` that is sent as it is, and the manifest."""
        for number in range(count):
            self.row(f"p{number}", number)
        self.manifest()

    def portraits(self, *persons: int) -> list[tuple[str, ...]]:
        """A photo with a face for each, and rows to be: `person-0001`, their name, a path."""
        for person in persons:
            self.photo(f"photos/{person}.jpg", portrait(person))
        return [
            (f"person-{person:04}", f"Name {person}", f"photos/{person}.jpg") for person in persons
        ]

    def row(self, person: str, number: int, text: str = "") -> str:
        """Add a row with the `picture` of a number; the user id, which no other library has."""
        user_id = f"{self.group_id}-{person}"
        self.photo(f"{number}.jpg", picture(number))
        self.rows.append((user_id, text, f"{number}.jpg"))
        return user_id

    def manifest(
        self,
        rows: Iterable[tuple[str, ...]] | None = None,
        *,
        name: str = "staff.csv",
        head: str = "",
    ) -> Path:
        """Write a manifest of our rows, or of these."""
        path = self.folder / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(head.split(",") if head else COLUMNS)
            writer.writerows(self.rows if rows is None else rows)
        return path

    # Commands

    @property
    def ledger(self) -> Path:
        if self.address is not None:
            return self.address
        folder = self.ledger_folder or self.folder
        return postgres_ledger(folder) if OF_POSTGRES else folder / "ledger.sqlite"

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.box.api_key, self.box.api_secret)

    @property
    def service(self) -> FaceSearch:
        return FaceSearch(self.box.endpoint, self.credentials, timeout=10.0)

    @property
    def arguments(self) -> list[str]:
        """The command that enrolls it all, with short times."""
        return [
            "run",
            "staff.csv",
            *("--group-id", self.group_id, "--ledger", str(self.ledger)),
            *("--timeout", str(TIMEOUT), "--settle-after", str(SETTLE_AFTER)),
            *("--max-in-flight", "2", "--images", str(self.folder)),
        ]

    @property
    def command(self) -> Command:
        """`enroll` as a process of its own, in the folder."""
        return Command(self.folder / "home", self.folder, account_of(self.box))

    def settings(self, **changed: Any) -> RunSettings:
        """Write the manifest; how a run in this process enrolls it."""
        given = RunSettings(
            manifest=self.manifest(),
            group_id=self.group_id,
            endpoint=self.box.endpoint,
            ledger=self.ledger,
            settle_after=0.0,
            credentials_grace=0.0,
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

    def sync_settings(self, **changed: Any) -> SyncSettings:
        """Settings of a sync, without a grace and without guards where nothing else is said."""
        own = self.settings()
        common = {
            field.name: getattr(own, field.name)
            for field in fields(own)
            if field.name not in ("give_up_after", "fail_on")
        }
        free = {"max_removals": ANY, "max_changes": ANY, "max_missing": ANY, "grace": 0.0}
        return SyncSettings(**{**common, **free, **changed})

    def sync(self, **changed: Any) -> Report:
        """One sync of the manifest as it is."""
        return sync_manifest(self.sync_settings(**changed), lambda: self.credentials)

    def results(self, path: Path | str = "staff.results.csv") -> list[dict[str, str]]:
        return read_csv(self.folder / path)

    def statuses(self) -> list[str]:
        return [line["status"] for line in self.results()]

    # What the stand-in has seen and holds

    def calls(self, *, ended: bool = False) -> int:
        """How many calls of `add` for our people have arrived, or have `ended`."""
        ours = {row[0] for row in self.rows}
        return sum(
            call.kind == "add" and call.user_id in ours and (call.finished or not ended)
            for call in self.box.calls
        )

    def wait_calls(
        self, count: int, process: subprocess.Popen[str], *, ended: bool = False
    ) -> None:
        """Wait until there have been that many of them."""
        until(lambda: self.calls(ended=ended) >= count, process, f"there were no {count} calls")

    def in_library(self) -> set[str]:
        """The tokens of the library's faces."""
        return {face.face_token for face in self.box.faces(self.group_id)}

    def there(self) -> list[tuple[str, str]]:
        """The library's faces: whose, and with which text."""
        return sorted((face.user_id, face.user_data) for face in self.box.faces(self.group_id))

    def as_listed(self) -> list[tuple[str, str]]:
        """The same of the manifest's rows."""
        return sorted((user_id, user_data) for user_id, user_data, _ in self.rows)

    def held(self) -> Counter[tuple[str, str]]:
        """The library's faces: `user_id` and SHA-256."""
        return Counter((face.user_id, face.sha256) for face in self.box.faces(self.group_id))

    def wanted(self) -> Counter[tuple[str, str]]:
        """The same of the manifest's rows, each face once."""
        return Counter({(user_id, self.digest(image)): 1 for user_id, _, image in self.rows})

    def digest(self, image: str) -> str:
        return sha256((self.folder / image).read_bytes()).hexdigest()

    def problems(self, results: Path | str = "staff.results.csv") -> list[str]:
        """What is wrong between manifest, library, ledger and results; nothing, if all is well."""
        of_token = {
            face.face_token: (face.user_id, face.sha256) for face in self.box.faces(self.group_id)
        }
        found = [f"twice: {face}" for face in self.held() - self.wanted()]
        found += [f"lost: {face}" for face in self.wanted() - self.held()]
        entries = self.entries()
        found += [f"not enrolled: {entry}" for entry in entries if entry.status != Status.ENROLLED]
        found += [
            f"another's token in the ledger: {entry}"
            for entry in entries
            if of_token.get(entry.face_token) != (entry.user_id, entry.sha256)
        ]
        found += [
            f"another's token in the results: {line}"
            for (user_id, _, image), line in zip(self.rows, self.results(results), strict=True)
            if of_token.get(line["face_token"]) != (user_id, self.digest(image))
        ]
        return found

    # What others do to the library

    def add(self, user_id: str, image: str, *, user_data: str = "by others") -> str:
        """Another program adds a face; its token."""
        photo = read_photo(str(self.folder / image), open_store(self.folder))
        assert isinstance(photo, Photo)
        service = self.service
        call = Call.add(
            group_id=self.group_id,
            user_id=user_id,
            user_data=user_data,
            send_as=SendAs.FILE,
            multi_oriented_detection=False,
        )
        answers = (service.make(call, photo) for _ in range(3))  # a scripted fault may meet it
        token = next(filter(None, (answer.face_token for answer in answers)))
        service.close()
        return token

    def delete(self, *face_tokens: str) -> None:
        """Another program deletes faces."""
        service = self.service
        service.make(Call.delete(group_id=self.group_id, face_tokens=face_tokens))
        service.close()

    # What is in the ledger

    @contextmanager
    def writing(self) -> Iterator[SqlLedger]:
        reader = read_ledger(self.ledger)
        identity = reader.identity()
        reader.close()
        ledger = ledger_at(self.ledger).open(identity)
        assert isinstance(ledger, SqlLedger)
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
        there = [(face.user_id, face.face_token) for face in self.box.faces(self.group_id)]
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

    def about_to_delete(self, *user_ids: str, ago: float = 86_400.0) -> None:
        """Leave the ledger as a sync that was killed so many seconds ago, about to delete them."""
        faces = [self.face(user_id) for user_id in user_ids]
        targets = [
            Target(
                face_token=face.face_token or "", face_id=face.face_id, user_id=face.user_id, run=1
            )
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
        with self.writing() as ledger:
            ledger.deletions.intend(targets)
            ledger.record(Changes(events=removing))
