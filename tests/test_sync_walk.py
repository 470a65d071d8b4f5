"""A sync that compares few comes to what a sync that compares everybody comes to.

Random nights are lived twice, in two libraries: one ledger keeps its scan cache, the other loses it
before every command.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from archive import GROUP, Archive, Told
from moved_clock import MovedClock, standin

from enroll.commands import run, sync_compare
from enroll.commands.adopt import AdoptSettings, adopt
from enroll.commands.forget import ForgetSettings, forget, readmit
from enroll.commands.remove import RemoveSettings, remove
from enroll.commands.run_closing import Report
from enroll.commands.sync import sync_manifest
from enroll.commands.sync_compare import preview
from enroll.commands.sync_rows import take_few
from enroll.commands.verify import VerifySettings, verify
from enroll.errors import EnrollError, ExitCode
from enroll.manifest import scan
from enroll.report.summary import summary_lines
from enroll.settings import Bound

DAY = 86_400.0
SPOILED = b"no photo at all"

LONG = "x" * 200
"""A user_data that breaks a rule."""

TABLES = {
    "row": "user_id, path, user_data, sha256, status, code",
    "face": "user_id, sha256, status, face_token IS NULL, former_token IS NULL, former_user_data, "
    "user_data, code, recheck, run",
    "absence": "user_id, run",
    "photo": "path, size, sha256",
    "event": "kind, run, detail",
    "forgotten": "faces, wiped_at IS NULL, lifted_at IS NULL",
    "run": "run, command, exit_code, json_extract(calls, '$.add'), "
    "json_extract(calls, '$.delete'), "
    "json_extract(rows, '$.enrolled'), json_extract(rows, '$.failed')",
}
"""What must be the same in both ledgers."""

OF_FACES = ("surplus", "deletion", "face_to_delete")
"""Tables of which the faces must be the same."""


class World:
    """An archive, its stand-in and its ledger."""

    def __init__(self, archive: Archive, *, forgets: Sequence[str] = ()) -> None:
        self.archive = archive
        self.forgets = forgets

    def photo(self, name: str, content: int) -> None:
        self.archive.photo(name, content)

    def before(self) -> None:
        if self.archive.ledger.exists():
            with closing(sqlite3.connect(self.archive.ledger)) as raw, raw:
                for table in self.forgets:
                    raw.execute(f"DELETE FROM {table}")

    def says(self, command: Callable[[Archive], Any]) -> list[str]:
        """What a command says, without times, tokens and paths."""
        self.before()
        try:
            said = command(self.archive)
        except EnrollError as error:
            lines = [type(error).__name__, str(error)]
        else:
            lines = shown(said)
        return [one.replace(str(self.archive.folder), "FOLDER") for one in lines]

    def state(self) -> dict[str, list[Any]]:
        """Ledger, library and results."""
        archive = self.archive
        found: dict[str, list[Any]] = {"library": sorted(archive.held().items())}
        found["texts"] = [*archive.there()]
        if not archive.ledger.exists():
            return {}
        with closing(sqlite3.connect(archive.ledger)) as raw:
            for table, columns in TABLES.items():
                found[table] = list(raw.execute(f"SELECT {columns} FROM {table}"))
            for table in OF_FACES:
                found[table] = list(
                    raw.execute(f"SELECT user_id, sha256 FROM {table} JOIN face USING (face_id)")
                )
        results = archive.folder / "staff.results.csv"
        if results.exists():
            unlike = ("face_token", "request_id", "enrolled_at")
            found["results"] = [
                tuple(v for k, v in line.items() if k not in unlike) for line in archive.results()
            ]
        return {
            name: sorted(repr(one).replace(str(archive.folder), "FOLDER") for one in lines)
            for name, lines in found.items()
        }


def shown(said: Any) -> list[str]:
    """The summary of a run or sync, else what is known of what was done."""
    if isinstance(said, Report):
        unlike = ("Calls", "Time", "Limit", "Latency", "Results", "Library")
        lines = [one for one in summary_lines(said) if not one.startswith(unlike)]
        lines[0] = lines[0].partition(" in ")[0]
        figures = said.sync_result and sorted(said.sync_result.figures().items())
        return [str(said.exit_code), repr(figures), *lines]
    return [repr(said)]


@dataclass
class Walk:
    """A seeded walk in both worlds."""

    worlds: list[World]
    random: random.Random
    clock: MovedClock
    strict: bool
    photos: int = 0
    people: int = 0

    def night(self) -> None:
        """Some commands, before which photos and, in some nights, rows are changed."""
        if self.random.random() < 0.4:
            for _ in range(self.random.randint(1, 3)):
                self.random.choice(OF_ROWS)(self)
        for _ in range(self.random.randint(2, 4)):
            for _ in range(self.random.choice([0, 0, 1, 2])):
                self.random.choice(OF_PHOTOS)(self)
            command = self.random.choice(COMMANDS)(self)
            said, expected = (world.says(command) for world in self.worlds)
            # Without its cache, a run reads what cannot be sent. How much of the manifest a run has
            # compared when a bound ends it depends on its threads.
            whole = self.strict and said[0] != str(ExitCode.ENDED_EARLY)
            most = None if whole else 2
            assert sorted(said[:most]) == sorted(expected[:most]), command
            one, other = (world.state() for world in self.worlds)
            for name, lines in one.items():
                assert lines == other[name], name
        self.clock.ahead += self.random.choice([0.1, 1.0, 1.0, 1.5]) * DAY

    # The manifest and the photos, alike in both worlds

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return self.worlds[0].archive.rows

    def set_rows(self, rows: list[tuple[str, ...]]) -> None:
        for world in self.worlds:
            world.archive.rows = list(rows)

    def pick(self) -> int:
        return self.random.randrange(len(self.rows))

    def write(self, name: str, content: int) -> None:
        for world in self.worlds:
            world.photo(name, content)

    def new_photo(self) -> str:
        self.photos += 1
        self.write(f"{self.photos}.jpg", self.photos * 7)
        return f"{self.photos}.jpg"

    def join(self) -> None:
        self.people += 1
        rows = list(self.rows)
        row = (f"u{self.people}", f"name {self.people}", self.new_photo())
        rows.insert(self.random.randint(0, len(rows)), row)
        self.set_rows(rows)

    def leave(self) -> None:
        if len(self.rows) > 4:
            rows = list(self.rows)
            del rows[self.pick()]
            self.set_rows(rows)

    def come_back(self) -> None:
        """Or a further row of somebody who is there."""
        person = self.random.randint(1, self.people)
        image = f"{self.random.randint(1, self.photos)}.jpg"
        text = self.random.choice([f"name {person}", "again", ""])
        text = next((d for u, d, i in self.rows if (u, i) == (f"u{person}", image)), text)
        self.set_rows([*self.rows, (f"u{person}", text, image)])

    def other_text(self) -> None:
        at = self.pick()
        rows = list(self.rows)
        text = self.random.choice([f"text {self.random.randint(1, 5)}", "", LONG])
        key = (rows[at][0], rows[at][2])  # the same row again has the same text
        self.set_rows([(u, text, i) if (u, i) == key else (u, d, i) for u, d, i in rows])

    def other_image(self) -> None:
        at = self.pick()
        rows = list(self.rows)
        image = self.random.choice([self.new_photo(), f"{self.photos}.jpg", "nowhere.jpg", ""])
        if (rows[at][0], image) not in {(row[0], row[2]) for row in rows}:
            rows[at] = (*rows[at][:2], image)
        self.set_rows(rows)

    def twice(self) -> None:
        """The same row again, or the same photo at another path with another text."""
        row = self.rows[self.pick()]
        if self.random.random() < 0.5 and row[2]:
            copy = f"copy-{row[2]}"
            for world in self.worlds:
                folder = world.archive.folder
                if (folder / row[2]).exists():
                    (folder / copy).write_bytes((folder / row[2]).read_bytes())
            row = (row[0], "another text", copy)
        self.set_rows([*self.rows, row])

    def shuffle(self) -> None:
        rows = list(self.rows)
        self.random.shuffle(rows)
        self.set_rows(rows)

    def replace_photo(self) -> None:
        self.write(f"{self.random.randint(1, self.photos)}.jpg", self.random.randint(1, 400))

    def spoil_photo(self) -> None:
        name = f"{self.random.randint(1, self.photos)}.jpg"
        for world in self.worlds:
            world.archive.photo(name, SPOILED)

    def touch_photo(self) -> None:
        name = f"{self.random.randint(1, self.photos)}.jpg"
        for world in self.worlds:
            if (path := world.archive.folder / name).exists():
                os.utime(path)

    def lose_photo(self) -> None:
        name = f"{self.random.randint(1, self.photos)}.jpg"
        for world in self.worlds:
            (world.archive.folder / name).unlink(missing_ok=True)

    def fault(self) -> None:
        """A call of somebody's does not come through, or nobody knows whether it did."""
        kind = self.random.choice(["500-after", "500-before", "unknown-code", "late"])
        person = f"u{self.random.randint(1, self.people + 1)}"
        for world in self.worlds:
            world.archive.box.script([kind], user_id=person)

    # What is done

    def sync(self, **more: Any) -> Callable[[Archive], Any]:
        options: dict[str, Any] = {"grace": self.random.choice([0.0, 1.0, 2.0]), **more}
        match self.random.randrange(12):
            case 0 if self.strict:  # what is queued first depends on the cache
                options["limit"] = self.random.randint(1, 2)
            case 1 if self.strict:
                options["max_calls"] = self.random.randint(1, 4)
            case 2:
                options["max_removals"] = Bound(1)
            case 3:
                options["max_changes"] = Bound(1)
            case 4:
                options["max_missing"] = Bound(0)
            case 5:
                options["checksum"] = True
            case 6:
                options["retry"] = frozenset({"PHOTO_NOT_IMAGE", "ODD_THING"})
        return lambda archive: archive.sync(**options, **COMMON)

    def dry_run(self) -> Callable[[Archive], Any]:
        grace = self.random.choice([0.0, 1.0])

        def look(archive: Archive) -> Any:
            differences = archive.folder / "differences.csv"
            differences.unlink(missing_ok=True)
            settings = archive.sync_settings(grace=grace, differences=differences, **COMMON)
            found = [one.figures() for one in preview(settings)]
            lines = differences.read_text(encoding="utf-8").splitlines()
            columns = (4, 5)  # tokens and times
            return found, [
                [v for n, v in enumerate(line.split(",")) if n not in columns] for line in lines
            ]

        return look

    def run(self) -> Callable[[Archive], Any]:
        options: dict[str, Any] = self.random.choice([{}, {}, {"limit": 1} if self.strict else {}])
        return lambda archive: archive.run(**options, **COMMON)

    def run_of_some(self) -> Callable[[Archive], Any]:
        """A run or a sync of another manifest."""
        most = self.random.randint(1, len(self.rows))
        word = self.random.choice(["run", "sync"])
        bound = self.random.choice([Bound(1), Bound(100, percent=True)])

        def other(archive: Archive) -> Any:
            changed = {**COMMON, "write_results": False}
            syncing = archive.sync_settings(max_removals=bound, **changed)
            running = archive.settings(**changed)
            path = archive.manifest(archive.rows[:most], name="some.csv")
            if word == "run":
                given = replace(running, manifest=path)
                return run.enroll_manifest(given, lambda: archive.credentials)
            return sync_manifest(replace(syncing, manifest=path), lambda: archive.credentials)

        return other

    def remove(self) -> Callable[[Archive], Any]:
        person = f"u{self.random.randint(1, self.people)}"
        chosen: dict[str, Any] = self.random.choice(
            [{"superseded": True}, {"user_ids": "ids.txt"}, {"of_run": 2}]
        )

        def taken(archive: Archive) -> Any:
            ids = archive.folder / "ids.txt"
            ids.write_text(f"{person}\n", encoding="utf-8")
            of_them = {"user_ids": ids} if "user_ids" in chosen else chosen
            settings = replace(RemoveSettings(ledger=archive.ledger), **of_them)
            return remove(settings, lambda: archive.credentials, Told()).exit_code

        return taken

    def forget(self) -> Callable[[Archive], Any]:
        person = f"u{self.random.randint(1, self.people)}"
        again = self.random.random() < 0.5

        def gone(archive: Archive) -> Any:
            settings = ForgetSettings(ledger=archive.ledger, people=(person,))
            code = forget(settings, lambda: archive.credentials, Told()).exit_code
            if again:
                readmit(ForgetSettings(ledger=archive.ledger, readmitted=(person,)), Told())
            return code

        return gone

    def by_others(self) -> Callable[[Archive], Any]:
        """Another program adds or deletes a face, and somebody looks after the ledger."""
        person = f"u{self.random.randint(1, self.people)}"
        adds = self.random.random() < 0.5

        def looked(archive: Archive) -> Any:
            faces = [face for face in archive.box.faces(GROUP) if face.user_id == person]
            if adds and faces:
                image = next((row[2] for row in archive.rows if row[0] == person), "")
                photo = archive.folder / image
                if photo.is_file() and photo.read_bytes() != SPOILED:
                    archive.add(person, image)
                settings = AdoptSettings(run=archive.settings())
                return adopt(settings, lambda: archive.credentials, Told()).exit_code
            archive.delete(*(face.face_token for face in faces[:1]))
            mending = VerifySettings(ledger=archive.ledger, requeue_missing=True)
            return verify(mending, lambda: archive.credentials, Told()).exit_code

        return looked


COMPARED = ["compared_scan", "to_compare"]
SCANNED = ["scan_cache", "scan_cache_part"]
COMMON: dict[str, Any] = {"max_in_flight": 1, "timeout": 2.0, "readers": 1, "attempts": 2}
OF_ROWS = [
    *[Walk.join, Walk.leave, Walk.leave, Walk.come_back, Walk.other_text, Walk.other_image],
    *[Walk.twice, Walk.shuffle],
]
OF_PHOTOS = [
    *[Walk.replace_photo, Walk.replace_photo, Walk.touch_photo, Walk.touch_photo],
    *[Walk.spoil_photo, Walk.lose_photo, Walk.fault],
]
COMMANDS = [
    *[Walk.sync] * 12,
    *[Walk.run] * 5,
    *[Walk.dry_run] * 2,
    *[Walk.run_of_some, Walk.remove, Walk.forget, Walk.by_others],
]


@contextmanager
def two_worlds(folder: Path, *, forgets: Sequence[str]) -> Iterator[list[World]]:
    with standin(detect=False, fault_lag=1.0) as one, standin(detect=False, fault_lag=1.0) as two:
        for name, box in (("kept", one), ("wiped", two)):
            box.create_library(GROUP)
            (folder / name).mkdir()
        yield [
            World(Archive(folder / "kept", one)),
            World(Archive(folder / "wiped", two), forgets=forgets),
        ]


FORGETS = {"compared": COMPARED, "all": [*COMPARED, *SCANNED]}
SEEDS = [int(seed) for seed in os.environ.get("WALK_SEEDS", "").split()]
NIGHTS = int(os.environ.get("WALK_NIGHTS", "8"))
WALKS: list[Any] = [(seed, forgets, NIGHTS) for seed in SEEDS for forgets in FORGETS] or [
    (1, "all", 4),
    (2, "compared", 3),
    pytest.param(1, "all", NIGHTS, marks=pytest.mark.thorough),
    pytest.param(2, "compared", NIGHTS, marks=pytest.mark.thorough),
]


@pytest.mark.parametrize(("seed", "what", "nights"), WALKS)
def test_a_kept_scan_changes_nothing_that_nights_come_to(
    seed: int,
    what: str,
    nights: int,
    tmp_path: Path,
    moved_clock: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, rows in {"LEAST_ROWS": 2, "MEAN_ROWS": 2, "MOST_ROWS": 5}.items():
        monkeypatch.setattr(scan, name, rows)
    forgets = FORGETS[what]
    few: list[bool] = []

    def counted(*given: Any, **options: Any) -> Any:
        taken = take_few(*given, **options)
        few.append(taken is not None)
        return taken

    monkeypatch.setattr(sync_compare, "take_few", counted)
    with two_worlds(tmp_path, forgets=forgets) as worlds:
        walk = Walk(worlds, random.Random(seed), moved_clock, forgets == COMPARED)
        for _ in range(12):
            walk.join()
        for _ in range(nights):
            walk.night()
    assert any(few)
