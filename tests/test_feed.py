"""How many photos readers are given at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

from enroll.manifest.scan import Scan
from enroll.model import Candidate, Fault, ScannedRow, Status, Unusable
from enroll.runner.feed import MOST_TOGETHER, Feed
from enroll.runner.health import PhotoRootCheck
from enroll.runner.job import People, Work
from enroll.runner.journal import Journal
from enroll.runner.tasks import Tasks
from enroll.session.tally import Tally
from enroll.settings import DEFAULT_PREPARATION, Lookalikes, Preparation

READERS = 16
GONE = Unusable(status=Status.FAILED, fault=Fault(code="GONE", message="It is not there."))

Told = tuple[Sequence[Unusable], bool]


def due(number: int) -> Candidate:
    row = ScannedRow(line=number, user_id=f"u{number}", user_data="", image="", path=f"/{number}")
    return Candidate(row=row, lines=1, status=Status.PENDING)


class Readers:
    """Hands out as `Feed` asks for it, and answers when a test says so."""

    def __init__(self, rows: int) -> None:
        self._rows = iter(range(rows))
        ledger = SimpleNamespace(due_rows=SimpleNamespace(take=self._take))
        tally = Tally(scanned=True)
        journal = SimpleNamespace(ledger=ledger, tally=tally, scan_cache=None)
        work = SimpleNamespace(
            limit=None,
            sample=None,
            preparation=DEFAULT_PREPARATION,
            lookalikes=Lookalikes.OFF,
        )
        self.intake = Feed(
            cast(Work, work),
            cast(Scan, None),
            cast(Journal, journal),
            tasks=cast(Tasks, self),
            people=People(),
            photo_root=cast(PhotoRootCheck, None),
        )
        self.intake._queued = rows
        self.tasks: list[tuple[Callable[[Told], None], Sequence[str]]] = []

    def _take(self, count: int) -> list[Candidate]:
        return [due(number) for _, number in zip(range(count), self._rows, strict=False)]

    def read(
        self, paths: Sequence[str], preparation: Preparation, on_end: Callable[[Told], None]
    ) -> None:
        del preparation
        self.tasks.append((on_end, paths))

    def feed(self) -> None:
        self.intake.feed(room=READERS - self.intake.reading)

    def answer(self, *, photos: int, quick: bool) -> None:
        """Every task has read so many, at most all of its own."""
        tasks, self.tasks = self.tasks, []
        for heard, paths in tasks:
            count = min(photos, len(paths))
            heard(([GONE] * count, quick and count == len(paths)))


def test_where_reading_is_quick_a_reader_is_given_more_and_more() -> None:
    readers = Readers(1_000)
    given = []
    for _ in range(6):
        readers.feed()
        given.append(max(len(paths) for _, paths in readers.tasks))
        readers.answer(photos=MOST_TOGETHER, quick=True)
    assert given == [1, 2, 4, MOST_TOGETHER, MOST_TOGETHER, MOST_TOGETHER]


def test_where_reading_is_slow_every_reader_has_one_photo() -> None:
    readers = Readers(1_000)
    for _ in range(5):
        readers.feed()
        readers.answer(photos=MOST_TOGETHER, quick=True)
    for _ in range(3):  # the share has become slow
        readers.feed()
        readers.answer(photos=1, quick=False)
    readers.feed()
    assert [len(paths) for _, paths in readers.tasks] == [1] * READERS


def test_what_a_reader_has_left_is_read_next_and_once() -> None:
    readers = Readers(100)
    taken: list[str] = []
    pattern = (8, 3, 1, 8, 5)
    for turn in range(400):
        readers.feed()
        if not readers.tasks:
            break
        most = pattern[turn % len(pattern)]
        for _, paths in readers.tasks:
            taken += paths[:most]
        readers.answer(photos=most, quick=most == MOST_TOGETHER)
    assert readers.intake.reading == readers.intake.waiting == readers.intake.may_take == 0
    assert sorted(taken, key=lambda path: int(path[1:])) == [f"/{n}" for n in range(100)]
    assert len(readers.intake.read) == 100
