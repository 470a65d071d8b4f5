"""The nights: each export given to the real command, and judged by the oracle."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import checks
from .command import GROUP_ID, LIFTED, SHOWN_LATE_SECONDS, NightlyCommand, Tally
from .exports import GOOD, UNREADABLE, Export, Sent, delivered, export
from .launcher import STUCK, Launcher
from .ledgers import FilePlace, LedgerPlace, libpq_environ
from .oracle import DAY, Asked, Bounds, Face, Oracle, Verdict
from .photos import picture
from .schedule import Night, Upheaval
from .staff import Company, Row
from .watch import Event, Watched

DONE, NEW_BAD, UNUSABLE, REFUSED = 0, 1, 2, 8
RUN_AGAIN = (3, 4, 6, 7, 129, 130, 143)
"""Exit codes after which the same command is run again in the same night."""

MOST_RUNS, STORMY_RUNS = 8, 3
"""Runs for one export at most, and after how many of them the service is well again."""

PAUSES = (0.0, 20.0, 30.0, 45.0, 60.0)
"""Seconds to the next run after one that was killed or stopped."""

STRANGERS_AT_FIRST, NEW_STRANGER, GONE_BEFORE = 3, 0.1, 0.2
"""Faces that somebody else has put into the library; the chances of one more on a night, and that
somebody else has deleted a face on the night on which it is to go."""

REHEARSED_EVERY = 6
"""On every so-many-th night each export is first given to `--dry-run`."""

_NOBODYS = 10_000_000  # numbers of pictures that the company never has


@dataclass
class Year:
    """One company's nights in a folder. `say` hears of every finding."""

    folder: Path
    people: int
    seed: int
    faults: float
    bounds: Bounds
    say: Callable[[str], None]
    pauses: Sequence[float] = PAUSES
    ledger: LedgerPlace | None = None
    """A file in the folder if not given."""
    tally: Tally = field(default_factory=Tally)
    _yesterday: Sequence[Row] = ()
    _accepted: bool = True
    _left: bool = False
    _strangers: dict[str, Face] = field(default_factory=dict)
    _known_wrong: set[str] = field(default_factory=set)
    _where: str = ""
    _restored: bool = False
    """Whether the ledger has just been put back, and lacks what was done since."""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.company = Company(self.folder / "share", random.Random(self.seed + 1), self.people)
        self.oracle = Oracle(self.bounds)
        self.watched = Watched(GROUP_ID)
        self.place = self.ledger or FilePlace(self.folder)

    def live(self, nights: Sequence[Night], *, each: Callable[[Night], None]) -> Tally:
        """All nights; `each` is called after every one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "none.toml").touch()
        self.company.found()
        with self.watched.running(faces=100 * self.people):
            box = self.watched.box
            environ = {
                "ENROLL_ENDPOINT": box.endpoint,
                "ENROLL_API_KEY": box.api_key,
                "ENROLL_API_SECRET": box.api_secret,
                **libpq_environ(),
            }
            self._began = time.time()
            for _ in range(STRANGERS_AT_FIRST):
                self._new_stranger()
            with Launcher(self.folder, environ) as launcher:
                self._command = NightlyCommand(
                    folder=self.folder,
                    ledger=self.place,
                    watched=self.watched,
                    launcher=launcher,
                    tally=self.tally,
                    bounds=self.bounds,
                    seed=self.seed,
                    found=self._found,
                )
                for night in nights:
                    self._night(night)
                    each(night)
        return self.tally

    def _night(self, night: Night) -> None:
        self._left = False
        self.watched.ahead = self._began + night.number * DAY + night.at - time.time()
        if night.number:
            self._yesterday = self.company.rows()
            # Of whoever leaves on a night that is left unfinished, nobody could say since when.
            unfinished = night.abandoned and bool(night.strikes)
            self.company.live(night.number, leavers=self._accepted and not unfinished)
            self._upheaval(night)
            self._by_others(night)
        for kind in night.exports:
            self._where = f"night {night.number}, {kind.value}"
            sent = export(kind, self.company, yesterday=self._yesterday, chance=self.chance)
            with delivered(sent, self.company, self.folder / "staff.csv"):
                if night.number % REHEARSED_EVERY == 0:
                    self._rehearse(sent)
                last, lifted = kind is night.exports[-1], self.tally.lifted
                if night.restored and last:
                    self.place.back_up()
                self._take(sent, night)
                if not last or self._left:
                    continue
                quiet = replace(night, storm=False, strikes=())
                if night.again:
                    self._where += ", again"
                    self._take(sent, quiet)
                if night.restored and lifted == self.tally.lifted:
                    self._where += ", with the ledger of the day before"
                    self._take_restored(sent, quiet)
        if night.exports and not self._left:
            self._command.verify(self._strangers)

    def _upheaval(self, night: Night) -> None:
        """What befalls everybody, and is too much for the guards."""
        company, bounds = self.company, self.bounds
        match night.upheaval:
            case Upheaval.MERGER:
                count = 10 + (bounds.changes or max(100, self.people // 10))
                company.size += count
                for _ in range(count):
                    company.hire()
            case Upheaval.CLOSING:
                count = 3 + (bounds.removals or max(10, self.people // 100))
                company.size -= count
                people = [company.people[user_id] for user_id in sorted(company.people)]
                for person in people[2 : 2 + count]:
                    company.leave(person, night.number)
            case Upheaval.PHOTOGRAPHER:
                company.photograph_all()
            case None:
                pass

    def _by_others(self, night: Night) -> None:
        """What somebody else does in the library meanwhile."""
        if self.chance.random() < NEW_STRANGER:
            self._new_stranger()
        if night.exports == (Export.PLAIN,) and self.chance.random() < GONE_BEFORE:
            asked = self.oracle.ask(
                self.company.rows(), self.company.photos, now=self.watched.now()
            )
            for token, face in self.watched.library().items():
                if face in asked.leaving and token not in self._strangers:
                    self.watched.delete_by_hand(token)
                    break

    def _new_stranger(self) -> None:
        """Another face: of nobody of the staff, or of somebody who has one already."""
        number = _NOBODYS + len(self._strangers)
        user_id = self.chance.choice(["visitor-7", *sorted(self.company.people)[:20]])
        content = picture(number)
        token = self.watched.put_by_hand(user_id.replace(" ", "-"), "by hand", content)
        self._strangers[token] = self.watched.library()[token]

    def _rehearse(self, sent: Sent) -> None:
        """What `--dry-run` says must be what would be done."""
        now = self.watched.now()
        verdict = self.oracle.judge(sent.rows, sent.photos, now=now)
        asked = self.oracle.ask(sent.rows, sent.photos, now=now)
        code, path = self._command.rehearse(first=self.oracle.first)
        if not self._fits(sent, code, verdict):
            self._found(f"--dry-run: exit code {code}, where a sync would be {verdict.value}")
        if code == DONE:
            gone = {face.user_id for face in self.oracle.faces} - asked.wanted.keys()
            for wrong in checks.rehearsed(
                path,
                asked,
                self.oracle.faces,
                sent.photos,
                gone=gone,
                overdue=self.oracle.overdue,
            ):
                self._found(wrong)

    def _take(self, sent: Sent, night: Night) -> None:
        """Run the command on an export until it is through with it, and judge what it has done."""
        code = self._judged(sent, night, self.bounds)
        if code == REFUSED and sent.kind in GOOD:
            self.tally.lifted += 1
            self._where += ", lifted"
            code = self._judged(sent, night, replace(self.bounds, removals=LIFTED, changes=LIFTED))
        self._accepted = code in (DONE, NEW_BAD)

    def _take_restored(self, sent: Sent, night: Night) -> None:
        """Put back the ledger as it was before this night: all that it lacks is in the library."""
        self.watched.ahead += SHOWN_LATE_SECONDS
        self.place.put_back()
        self.tally.restored += 1
        self._restored = True
        self._take(sent, night)
        self._restored = False

    def _judged(self, sent: Sent, night: Night, bounds: Bounds) -> int:
        began = self.watched.now()
        before = self.watched.library()
        verdict = self.oracle.judge(sent.rows, sent.photos, now=began, bounds=bounds)
        asked = self.oracle.ask(sent.rows, sent.photos, now=began)
        self.watched.events.clear()
        lifted = bounds != self.bounds
        may_end = night.abandoned and verdict is Verdict.CARRIED_OUT and not lifted
        code, runs = self._run_until_through(
            night, asked.faces, lifted=lifted, once=may_end and self.oracle.may_miss(sent.rows)
        )
        self.tally.exports[sent.kind, code] += 1
        events = [*self.watched.events]
        if code < 0 and code != STUCK:
            self._abandoned(asked, before, events)
            return code
        if not self._fits(sent, code, verdict):
            self._found(f"exit code {code}, where it should be {verdict.value}")
        if code not in (DONE, NEW_BAD):
            if events:
                self._found(f"exit code {code}, and {len(events)} faces came or went")
            if code == REFUSED and sent.kind is not Export.FOLDER_MISSING:
                self.oracle.refused(sent.rows)
            return code
        for wrong in (
            # What is bad is news to a ledger that was put back.
            *(() if self._restored else _exit_code(code, asked, runs=runs)),
            *self._carried_out(sent, asked, before, events),
        ):
            self._found(wrong)
        self.oracle.carried_out(sent.rows, asked, began=began)
        return code

    def _abandoned(self, asked: Asked, before: dict[str, Face], events: Sequence[Event]) -> None:
        """A night that was killed and left: what was done must have been right so far."""
        self.tally.abandoned += 1
        self._left = True
        for wrong in checks.story(before, events, asked, strangers=self._strangers):
            self._found(wrong)
        self.oracle.interrupted(asked, frozenset(self._known_faces()))

    def _carried_out(
        self, sent: Sent, asked: Asked, before: dict[str, Face], events: Sequence[Event]
    ) -> list[str]:
        """What is wrong after an export that was accepted."""
        library = self.watched.library()
        wrong = [
            *checks.story(before, events, asked, strangers=self._strangers),
            *checks.ending(library, asked.faces, strangers=self._strangers),
            *checks.results(self.folder / "staff.results.csv", sent.rows, asked, library),
        ]
        if asked.faces == self.oracle.faces and events:
            wrong.append(f"{len(events)} faces came or went, and nothing was to be done")
        return wrong

    def _fits(self, sent: Sent, code: int, verdict: Verdict) -> bool:
        """Whether this is an exit code for such an export."""
        if sent.kind is Export.NO_IMAGE_COLUMN:
            return code == UNUSABLE
        if sent.kind in UNREADABLE and code == UNUSABLE:
            return True
        carried_out = code in (DONE, NEW_BAD)
        fitting = {Verdict.CARRIED_OUT: carried_out, Verdict.REFUSED: code == REFUSED}
        return fitting.get(verdict, carried_out or code == REFUSED)

    def _run_until_through(
        self, night: Night, faces: frozenset[Face], *, lifted: bool, once: bool
    ) -> tuple[int, int]:
        """The exit code of the last run, and how many it took; `once` is enough if it is killed."""
        code = STUCK
        for run in range(MOST_RUNS):
            stormy = night.storm and run < STORMY_RUNS
            code = self._command.sync(
                lifted=lifted,
                first=self.oracle.first,
                faults=self.faults if stormy else 0.0,
                number=night.number * 100 + run,
                strike=night.strikes[run] if run < len(night.strikes) else None,
            )
            if code < 0 and code != STUCK:
                self.tally.struck += 1
                if once:
                    return code, run + 1
            elif code not in RUN_AGAIN and not (
                # Rows that had failed by the service's fault are due again.
                stormy and code == NEW_BAD and self._known_faces() != faces
            ):
                return code, run + 1
            self.watched.ahead += self.chance.choice(self.pauses)
        self._found(f"not through after {MOST_RUNS} runs; the last one's exit code is {code}")
        return code, MOST_RUNS

    def _known_faces(self) -> set[Face]:
        library = self.watched.library()
        return {face for token, face in library.items() if token not in self._strangers}

    def _found(self, wrong: str) -> None:
        """Note and tell it, once: what stays wrong is not found anew every night."""
        if wrong in self._known_wrong:
            return
        self._known_wrong.add(wrong)
        finding = f"{self._where}: {wrong}"
        self.tally.findings.append(finding)
        self.say(finding)


def _exit_code(code: int, asked: Asked, *, runs: int) -> list[str]:
    """What is wrong about 0 or 1; an earlier one of several runs may have told what is bad."""
    if asked.news is Verdict.CARRIED_OUT and code == NEW_BAD:
        return ["exit code 1, and no row is bad that was not"]
    if asked.news is Verdict.REFUSED and code == DONE and runs == 1:
        return ["exit code 0, and a row is bad that was not"]
    return []
