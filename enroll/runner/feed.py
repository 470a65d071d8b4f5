"""From the manifest to rows whose photos have been read: scanned, compared, queued, read ahead."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Collection, Sequence
from functools import partial

from enroll.engine import HeldPhoto, Read
from enroll.ledger import WITHHELD, PartCounts
from enroll.manifest.scan import Scan, Scanned
from enroll.manifest.suspects import NONE, NewPeople, Suspects, id_notes
from enroll.model import OPEN, Candidate, Status
from enroll.runner import transitions
from enroll.runner.comparer import IN_TURN
from enroll.runner.health import PhotoRootCheck
from enroll.runner.job import Job, People, Work
from enroll.runner.journal import Journal
from enroll.runner.tasks import Tasks
from enroll.settings import Lookalikes

MOST_TOGETHER = 8
"""Photos that one reader is given at a time where reading is quick: handing them over one by one
would take longer than reading them."""


SCATTERED = 20_000
"""Rows that are taken up in random order, where new faces are compared with those in the library.
Two rows of a person, which are often next to each other, so are far apart, and the second
search shows the first face."""


class Feed:
    """Keeps rows read ahead. Every method runs on the loop's thread."""

    def __init__(
        self,
        work: Work,
        scan: Scan,
        journal: Journal,
        *,
        tasks: Tasks,
        people: People,
        photo_root: PhotoRootCheck,
    ) -> None:
        """`photo_root` is notified of the photos that the scan has seen."""
        self._work = work
        self._scan = scan
        self._scan_cache = journal.scan_cache
        self._journal = journal
        self._tasks = tasks
        self._people = people
        self._photo_root = photo_root
        self._sample = work.sample
        self._new_people = NewPeople(journal.ledger)
        self._reported: set[str] = set()
        self._scanning = False
        self._queued = 0
        self._queued_lines = 0
        self._taken = 0
        self._taken_lines = 0
        self._left_in_doubt: list[Candidate] = []
        self._again: deque[Job] = deque()
        self._scattered: deque[Candidate] = deque()
        self._together = 1
        self.began_early = False
        """Whether rows were queued before the manifest is scanned."""
        self.reading = 0
        """Photos that are being read."""
        self.read: deque[Job] = deque()
        """Those whose photo has been read, in the order in which that happened."""

    @property
    def scanned(self) -> bool:
        """Whether the whole manifest has been compared with the ledger."""
        return self._journal.tally.scanned

    @property
    def waiting(self) -> int:
        """Rows that were taken up and whose photo has to be read (again)."""
        return len(self._again)

    @property
    def bytes_read(self) -> int:
        """Bytes of the photos that were read and not decided on yet."""
        return sum(job.seen.size for job in self.read if isinstance(job.seen, HeldPhoto))

    @property
    def may_take(self) -> int:
        """Due rows that may still be taken up: all, or what `limit` leaves of them."""
        left, limit = self._queued - self._taken, self._work.limit
        return left if limit is None else min(left, limit - self._taken)

    @property
    def all_planned(self) -> bool:
        """Whether the planner has had every row that this run may process."""
        return self.scanned and not (self.reading or self.read or self.waiting or self.may_take)

    def begin_early(self) -> bool:
        """Before this very manifest is scanned again, queue what the ledger knows to be due of it;
        True if there was anything."""
        scanned_before = self._scan_cache.recalled and not self._scan.carried_over
        if scanned_before and self._sample is None:
            known = self._journal.ledger.due_rows.add_early(
                self._scan_cache.mark, is_good=lambda row: self._work.fault_of(row) is None
            )
            self._queued += known
            self._queued_lines += known
            self._journal.tally.due += known
            self.began_early = known > 0
            self._expect()
        return self.began_early

    def undecided(self, face_ids: Collection[int]) -> list[Candidate]:
        """Due rows that point to these faces and wait to be read or to be planned."""
        if not face_ids:
            return []
        here = [job.due for job in (*self._again, *self.read) if job.due.face_id in face_ids]
        here += [due for due in self._scattered if due.face_id in face_ids]
        return here + self._journal.ledger.due_rows.of_faces(face_ids)

    def not_drawn(self, face_ids: Collection[int]) -> list[Candidate]:
        """Rows that a trial has left out and that point to these faces."""
        return [due for due in self._left_in_doubt if due.face_id in face_ids]

    def count_repeats(self) -> None:
        """Count the lines that repeat a row that was queued early, by that row's outcome."""
        tally = self._journal.tally
        for status, code, message, lines in self._journal.ledger.due_rows.early_repeats():
            tally.due += lines
            if status is not Status.PENDING:
                tally.done += lines
                tally.count(status, code, message, lines=lines)

    def scan_on(self) -> None:
        """Have the next rows of the manifest scanned, unless that is under way or done."""
        if self._scanning or self.scanned:
            return
        self._scanning = True
        if not self._scan_cache.recalled:
            self._tasks.scan(self._scan.next_part, self._hear_part)
            return
        while (number := self._scan_cache.next_number()) is not None:
            if (quiet := self._scan.quiet_part(number)) is not None:
                self._take_part(quiet)
            elif (part := self._scan_cache.load(number)) is not None:
                self._tasks.scan(partial(self._scan.same_part, part), self._hear_part)
                return
        self._hear_part(None)

    def read_later(self, job: Job) -> None:
        """Process a job again, before the rows that have not been processed yet."""
        self._again.append(job)

    def free_person(self, user_id: str) -> None:
        """A person's face is settled: read the rows next that have waited for that."""
        self._again.extend(self._people.free(user_id))

    def feed(self, *, room: int) -> None:
        """Have the photos of at most `room` due rows read. A row waits while another face of its
        person is under way."""
        taken = [self._again.popleft() for _ in range(min(room, len(self._again)))]
        fresh = min(room - len(taken), self.may_take)
        if fresh > 0:
            found = self._take(fresh)
            self._taken += len(found)
            self._taken_lines += sum(due.lines for due in found)
            taken += map(Job, found)
            self._expect()
        free = []
        for job in taken:
            if self._people.busy(job.due.row.user_id):
                self._people.park(job)
            else:
                free.append(job)
        self.reading += len(free)
        for at in range(0, len(free), self._together):
            some = free[at : at + self._together]
            paths = [job.due.row.path for job in some]
            self._tasks.read(paths, self._work.preparation, partial(self._hear_photos, some))

    def _take(self, count: int) -> list[Candidate]:
        """Take up the next due rows, at most `count` of the `may_take`."""
        due_rows = self._journal.ledger.due_rows
        if self._work.lookalikes is Lookalikes.OFF:
            return due_rows.take(count)
        if not self._scattered and (self.scanned or self.may_take >= SCATTERED):
            some = due_rows.take(min(self.may_take, SCATTERED))
            if len(some) >= IN_TURN:
                random.Random(len(some)).shuffle(some)  # noqa: S311  # which comes first
            self._scattered.extend(some)
        return [self._scattered.popleft() for _ in range(min(count, len(self._scattered)))]

    def _expect(self) -> None:
        """Count the lines that this run may process: of rows that are not taken yet, no more than
        `limit` or the trial leaves room for."""
        tally, work = self._journal.tally, self._work
        mosts = (work.limit, None if self._sample is None else self._sample.size)
        most = min((one for one in mosts if one is not None), default=None)
        tally.expected = tally.due + tally.unscanned
        left = self._queued - self._taken
        if most is not None and (room := most - self._taken) < left + tally.unscanned:
            tally.expected = tally.due - (self._queued_lines - self._taken_lines) + room

    def _hear_photos(self, some: Sequence[Job], read: Read) -> None:
        photos, quick = read
        self.reading -= len(some)
        for job, photo in zip(some, photos, strict=False):
            job.seen = photo
            self.read.append(job)
        self._again.extendleft(reversed(some[len(photos) :]))
        # On a slow share one at a time, or half of the readers would wait for the others' rows.
        self._together = min(2 * len(photos), MOST_TOGETHER) if quick else len(photos)

    def _hear_part(self, scanned: Scanned | None) -> None:
        self._scanning = False
        journal, tally = self._journal, self._journal.tally
        if scanned is None:
            tally.scanned = True
            self._suspect(self._new_people.beside(self._scan.suspects))
            self._photo_root.on_scanned()
            tally.unscanned = 0
            self._queue_sample()
            self._scan_cache.whole()
            journal.noted()
        else:
            self._take_part(scanned)
        self._expect()
        journal.observer.scanned(tally)

    def _take_part(self, scanned: Scanned) -> None:
        tally = self._journal.tally
        if scanned.any_photo:
            self._photo_root.on_seen()
        tally.unscanned = max(tally.unscanned - scanned.lines, 0)
        if scanned.withheld:
            tally.count(Status.WITHHELD, WITHHELD.code, WITHHELD.message, lines=scanned.withheld)
        if scanned.quiet is not None:
            self._scan_cache.quiet()
            self._count(scanned.quiet)
        else:
            self._compare(scanned)

    def _look_at_new(self, rows: Sequence[Candidate]) -> None:
        """Look for ids that a spreadsheet has changed, before anybody is added under one."""
        before = len(self._new_people.known_zeros)
        self._new_people.look((one.row.line, one.row.user_id) for one in rows)
        if not before and self._new_people.known_zeros:
            self._suspect(self._new_people.beside(NONE))

    def _suspect(self, suspects: Suspects) -> None:
        """Keep which rows are probably mistakes, and tell at once of ids that are."""
        self._journal.tally.suspects = suspects
        for note in id_notes(suspects):
            if note not in self._reported:
                self._reported.add(note)
                self._journal.observer.suspected(note)

    def _queue_sample(self) -> None:
        if self._sample is None:
            return
        tally, drawn = self._journal.tally, self._sample.drawn()
        taken = set(map(id, drawn))
        self._left_in_doubt = [due for due in self._left_in_doubt if id(due) not in taken]
        tally.drawn.clear()  # rows that broke a rule have ended, and are known of all rows
        tally.sampled = sum(row.lines for row in drawn)
        tally.left_out = self._sample.offered - tally.sampled
        tally.due += tally.sampled
        tally.statuses[Status.PENDING] += tally.left_out
        self._journal.ledger.due_rows.add(drawn)
        self._queued += len(drawn)
        self._queued_lines += tally.sampled

    def _count(self, quiet: PartCounts) -> None:
        tally = self._journal.tally
        tally.unchanged += quiet.unchanged
        tally.user_data_changed += quiet.user_data_changed
        tally.statuses[Status.ENROLLED] += quiet.unchanged
        for status, code, message, lines in quiet.bad:
            tally.count(status, code, message, lines=lines)

    def _compare(self, scanned: Scanned) -> None:
        journal, tally = self._journal, self._journal.tally
        self._scan_cache.begins(
            first_line=scanned.first_line, packed=scanned.packed, digest=scanned.digest
        )
        compared = journal.ledger.due_rows.compare(
            scanned.rows, run=journal.run, reread=self._work.reread
        )
        journal.noted()
        tally.unchanged += compared.unchanged
        tally.user_data_changed += compared.user_data_changed
        tally.gone += compared.gone
        self._photo_root.on_lost(compared.gone_from)
        tally.statuses[Status.ENROLLED] += compared.unchanged + compared.gone
        policy, due, known = self._work.policy, [], Counter[tuple[Status, str, str]]()
        before, new = tally.due, list[Candidate]()
        for candidate in compared.candidates:
            fault = self._work.fault_of(candidate.row)
            same_fault = fault is not None and (candidate.status, candidate.code) == (
                Status.INVALID,
                fault.code,
            )
            if same_fault or (fault is None and not transitions.is_due(candidate, policy)):
                known[candidate.status, candidate.code, candidate.message] += candidate.lines
            elif fault is not None:
                tally.due += candidate.lines
                journal.row_ends(candidate, Status.INVALID, fault.code, fault.message)
            else:
                new += [candidate] if candidate.face_id is None else []
                if self._sample is None:
                    tally.due += candidate.lines
                    due.append(candidate)
                    continue
                self._sample.offer(candidate)
                if candidate.status in OPEN:
                    self._left_in_doubt.append(candidate)  # unless it is drawn
        self._look_at_new(new)
        for (status, code, message), lines in known.items():
            tally.count(status, code, message, lines=lines)
        journal.ledger.due_rows.add(due)
        self._queued += len(due)
        self._queued_lines += sum(candidate.lines for candidate in due)
        self._scan_cache.compared(
            unchanged=compared.unchanged,
            user_data_changed=compared.user_data_changed,
            bad=known,
            due=tally.due - before,
            settles=not (compared.gone or compared.early or self._sample),
        )
