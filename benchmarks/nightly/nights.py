"""The nights: the real command against the stand-in, each export judged by the oracle."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import checks
from .exports import GOOD, UNREADABLE, Export, Sent, delivered, export
from .launcher import STUCK, Launcher
from .oracle import DAY, Bounds, Face, Oracle, Verdict
from .schedule import Night, Upheaval, fault_plan
from .staff import Company, Row, picture
from .watch import Event, Watched

GROUP_ID = "year"
TIMEOUT, SETTLE_AFTER, LATENCY, IN_FLIGHT = 1.0, 0.3, 0.004, 4
"""Seconds and calls. The stand-in applies what it has accepted within milliseconds, or when the
client goes away."""

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

_NOBODYS = 10_000_000  # numbers of pictures that the company never has
_ALL = 1_000_000


@dataclass
class Tally:
    """What there was, counted."""

    runs: int = 0
    struck: int = 0
    lifted: int = 0
    faces_added: int = 0
    faces_deleted: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    exports: Counter[tuple[Export, int]] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


@dataclass
class Year:
    """One company's nights in a folder. `say` hears of every finding."""

    folder: Path
    people: int
    seed: int
    faults: float
    bounds: Bounds
    say: Callable[[str], None]
    tally: Tally = field(default_factory=Tally)
    _yesterday: Sequence[Row] = ()
    _accepted: bool = True
    _strangers: dict[str, Face] = field(default_factory=dict)
    _where: str = ""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.company = Company(self.folder / "share", random.Random(self.seed + 1), self.people)
        self.oracle = Oracle(self.bounds)
        self.watched = Watched(GROUP_ID)

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
            }
            self._began = time.time()
            for _ in range(STRANGERS_AT_FIRST):
                self._new_stranger()
            with Launcher(self.folder, environ) as self._launcher:
                for night in nights:
                    self._night(night)
                    each(night)
        return self.tally

    def _night(self, night: Night) -> None:
        self.watched.ahead = self._began + night.number * DAY + night.at - time.time()
        if night.number:
            self._yesterday = self.company.rows()
            self.company.live(night.number, leavers=self._accepted)
            self._upheaval(night)
            self._by_others(night)
        for kind in night.exports:
            self._where = f"night {night.number}, {kind.value}"
            sent = export(kind, self.company, yesterday=self._yesterday, chance=self.chance)
            with delivered(sent, self.company, self.folder / "staff.csv"):
                self._take(sent, night)
                if night.again and kind is night.exports[-1]:
                    self._where += ", again"
                    self._take(sent, replace(night, storm=False, strikes=()))
        if night.exports:
            self._verify()

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

    def _take(self, sent: Sent, night: Night) -> None:
        """Run the command on an export until it is through with it, and judge what it has done."""
        now = self.watched.now()
        verdict = self.oracle.judge(sent.rows, sent.photos, now=now)
        code = self._judged(sent, night, verdict, lifted=False)
        if code == REFUSED and sent.kind in GOOD:
            self.tally.lifted += 1
            self._where += ", lifted"
            bounds = replace(self.bounds, removals=_ALL, changes=_ALL)
            now = self.watched.now()
            verdict = self.oracle.judge(sent.rows, sent.photos, now=now, bounds=bounds)
            code = self._judged(sent, night, verdict, lifted=True)
        self._accepted = code in (DONE, NEW_BAD)

    def _judged(self, sent: Sent, night: Night, verdict: Verdict, *, lifted: bool) -> int:
        began = self.watched.now()
        before = self.watched.library()
        asked = self.oracle.ask(sent.rows, sent.photos, now=began)
        self.watched.events.clear()
        code, runs = self._run_until_through(sent, night, asked.faces, lifted=lifted)
        self.tally.exports[sent.kind, code] += 1
        events = [*self.watched.events]
        if code not in (DONE, NEW_BAD):
            self._judge_refusal(sent, code, verdict, events)
            return code
        if verdict is Verdict.REFUSED or sent.kind is Export.NO_IMAGE_COLUMN:
            self._found(f"exit code {code}, and it should have been refused")
        if asked.news is Verdict.CARRIED_OUT and code == NEW_BAD:
            self._found("exit code 1, and no row is bad that was not")
        if asked.news is Verdict.REFUSED and code == DONE and runs == 1:
            self._found("exit code 0, and a row is bad that was not")
        library = self.watched.library()
        for wrong in (
            *checks.story(before, events, asked, strangers=self._strangers),
            *checks.ending(library, asked.faces, strangers=self._strangers),
            *checks.results(self.folder / "staff.results.csv", sent.rows, asked, library),
        ):
            self._found(wrong)
        if asked.faces == self.oracle.faces and events:
            self._found(f"{len(events)} faces came or went, and nothing was to be done")
        self.oracle.carried_out(sent.rows, asked, began=began)
        return code

    def _judge_refusal(
        self, sent: Sent, code: int, verdict: Verdict, events: Sequence[Event]
    ) -> None:
        if events:
            self._found(f"exit code {code}, and {len(events)} faces came or went")
        allowed = {UNUSABLE} if sent.kind is Export.NO_IMAGE_COLUMN else {REFUSED}
        if sent.kind in UNREADABLE:
            allowed.add(UNUSABLE)
        if verdict is Verdict.CARRIED_OUT and sent.kind is not Export.NO_IMAGE_COLUMN:
            self._found(f"exit code {code}, and it should have been carried out")
        elif code not in allowed:
            self._found(f"exit code {code}, and not {sorted(allowed)}")

    def _run_until_through(
        self, sent: Sent, night: Night, faces: frozenset[Face], *, lifted: bool
    ) -> tuple[int, int]:
        """The exit code of the last run, and how many it took."""
        code = STUCK
        for run in range(MOST_RUNS):
            stormy = night.storm and run < STORMY_RUNS
            strike = night.strikes[run] if run < len(night.strikes) else None
            self._trouble(fault_plan(self.faults) if stormy else {}, night.number * 100 + run)
            code = self._launcher.run(
                self._arguments(lifted=lifted), ahead=self.watched.ahead, strike=strike
            )
            self._ran(code)
            if code < 0 and code != STUCK:
                self.tally.struck += 1
            elif code not in RUN_AGAIN and not (
                # Rows that had failed by the service's fault are due again.
                stormy and code == NEW_BAD and self._known_faces() != faces
            ):
                return code, run + 1
            self.watched.ahead += self.chance.choice(PAUSES)
        self._found(f"not through after {MOST_RUNS} runs; the last one's exit code is {code}")
        return code, MOST_RUNS

    def _known_faces(self) -> set[Face]:
        library = self.watched.library()
        return {face for token, face in library.items() if token not in self._strangers}

    def _ran(self, code: int) -> None:
        if not self.watched.box.wait_idle(30):
            self._found("calls are under way, and nobody waits for them")
        self.tally.runs += 1
        self.tally.codes[code] += 1
        self.tally.calls.update(self.watched.calls())
        if code in (STUCK, 70, 71):
            self._found(f"exit code {code}")

    def _trouble(self, faults: Mapping[str, float], number: int) -> None:
        self.watched.trouble(faults, seed=self.seed * 1_000_000 + number, latency=LATENCY)

    def _arguments(self, *, lifted: bool) -> list[str]:
        bounds = replace(self.bounds, removals=_ALL, changes=_ALL) if lifted else self.bounds
        arguments = [
            *("sync", "staff.csv", "--group-id", GROUP_ID, "--ledger", "ledger.sqlite"),
            *("--images", "share", "--timeout", str(TIMEOUT), "--settle-after", str(SETTLE_AFTER)),
            *("--max-in-flight", str(IN_FLIGHT), "--grace", str(bounds.grace)),
            *("--no-progress", "--config", "none.toml", "--show-user-ids"),
        ]
        if bounds.removals is not None:
            arguments += ["--max-removals", str(bounds.removals)]
        if bounds.changes is not None:
            arguments += ["--max-changes", str(bounds.changes)]
        return [*arguments, "--allow-nonempty"] if self.oracle.first else arguments

    def _verify(self) -> None:
        """Ledger and library agree, but for the strangers."""
        self._trouble({}, 0)
        self.watched.ahead += 60  # faces that the service shows late are to be seen by now
        path = self.folder / "verify.csv"
        path.unlink(missing_ok=True)
        code = self._launcher.run(
            [
                *("verify", "--ledger", "ledger.sqlite", "--differences", path.name),
                *("--config", "none.toml"),
            ],
            ahead=self.watched.ahead,
        )
        if code not in (0, 1) or not path.exists():
            self._found(f"verify: exit code {code}")
            return
        for wrong in checks.differences(path, self._strangers):
            self._found(wrong)

    def _found(self, wrong: str) -> None:
        finding = f"{self._where}: {wrong}"
        self.tally.findings.append(finding)
        self.say(finding)
