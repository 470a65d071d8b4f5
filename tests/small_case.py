"""An archive of small made-up pictures, a library of its own for it, and what must be true."""

from __future__ import annotations

import csv
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from real_command import SECONDS, Command

from enroll.ledger import read_ledger
from enroll.model import Entry, Status
from enroll.sandbox import Sandbox

TIMEOUT, SETTLE_AFTER = 1.0, 0.3
"""Seconds. The stand-in applies what it has accepted within milliseconds, or when the client
goes away."""


@lru_cache(maxsize=1000)
def picture(number: int) -> bytes:
    """A JPEG of some 2 KB, unlike every other; the stand-in has to be told not to look for
    faces."""
    out = BytesIO()
    noise = Image.frombytes("L", (8, 8), random.Random(number).randbytes(64))
    noise.resize((64, 64), Image.Resampling.NEAREST).save(out, "JPEG")
    return out.getvalue()


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
class Case:
    """A folder with pictures and a manifest of them; the library bears the folder's name."""

    folder: Path
    box: Sandbox
    rows: list[tuple[str, str]] = field(default_factory=list)
    place: Path | None = None
    """Where the ledger is, if not in the folder."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.box.create_library(self.group_id)

    @property
    def group_id(self) -> str:
        return self.folder.name

    @property
    def ledger(self) -> Path:
        return (self.place or self.folder) / "ledger.sqlite"

    def row(self, person: str, number: int) -> str:
        """Add a row with the picture of that number; the user id, which no other case has."""
        user_id = f"{self.group_id}-{person}"
        (self.folder / f"{number}.jpg").write_bytes(picture(number))
        self.rows.append((user_id, f"{number}.jpg"))
        return user_id

    def people(self, count: int) -> None:
        """So many people with a picture each, and the manifest."""
        for number in range(count):
            self.row(f"p{number}", number)
        self.write_manifest()

    def write_manifest(self) -> None:
        with (self.folder / "staff.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("user_id", "image"), *self.rows])

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
    def environ(self) -> dict[str, str]:
        return {
            "ENROLL_ENDPOINT": self.box.endpoint,
            "ENROLL_API_KEY": self.box.api_key,
            "ENROLL_API_SECRET": self.box.api_secret,
        }

    @property
    def command(self) -> Command:
        """`enroll` as a process of its own, in the folder."""
        return Command(home=self.folder / "home", folder=self.folder, environ=self.environ)

    def calls(self, *, ended: bool = False) -> int:
        """How many calls of `add` for our people have arrived, or have `ended`."""
        return sum(
            call.kind == "add"
            and call.user_id.startswith(self.group_id)
            and (call.finished or not ended)
            for call in self.box.calls
        )

    def wait_calls(
        self, count: int, process: subprocess.Popen[str], *, ended: bool = False
    ) -> None:
        """Wait until there have been that many of them."""
        until(lambda: self.calls(ended=ended) >= count, process, f"there were no {count} calls")

    def digest(self, image: str) -> str:
        return sha256((self.folder / image).read_bytes()).hexdigest()

    def wanted(self) -> Counter[tuple[str, str]]:
        """Every face that the manifest stands for, once: `user_id` and SHA-256."""
        return Counter({(user_id, self.digest(image)): 1 for user_id, image in self.rows})

    def there(self) -> Counter[tuple[str, str]]:
        """Every face of the library."""
        return Counter((face.user_id, face.sha256) for face in self.box.faces(self.group_id))

    def entries(self) -> list[Entry]:
        reader = read_ledger(self.ledger)
        try:
            return list(reader.entries())
        finally:
            reader.close()

    def results(self, path: Path | None = None) -> list[dict[str, str]]:
        found = path or self.folder / "staff.results.csv"
        with found.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def statuses(self) -> Counter[str]:
        return Counter(line["status"] for line in self.results())

    def problems(self, results: Path | None = None) -> list[str]:
        """What is wrong between manifest, library, ledger and results; nothing, if all is well."""
        of_token = {
            face.face_token: (face.user_id, face.sha256) for face in self.box.faces(self.group_id)
        }
        found = [f"twice: {face}" for face in self.there() - self.wanted()]
        found += [f"lost: {face}" for face in self.wanted() - self.there()]
        entries = self.entries()
        found += [f"not enrolled: {entry}" for entry in entries if entry.status != Status.ENROLLED]
        found += [
            f"another's token in the ledger: {entry}"
            for entry in entries
            if of_token.get(entry.face_token) != (entry.user_id, entry.sha256)
        ]
        found += [
            f"another's token in the results: {line}"
            for (user_id, image), line in zip(self.rows, self.results(results), strict=True)
            if of_token.get(line["face_token"]) != (user_id, self.digest(image))
        ]
        return found
