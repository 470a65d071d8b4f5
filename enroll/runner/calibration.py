"""A run's calibration: looking for a face whose token is known, alongside the faces in doubt.

It shows what score a photo has for its own face, and how late the service shows a new face. Only
a face that this run has enrolled shows the latter, and only from the first look that finds it. So
one face is chosen and looked for until it is found, however many newer ones there are by then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from enroll import clock
from enroll.model import Answer, FaceRecord, Verdict
from enroll.runner.journal import Journal
from enroll.runner.lookups import Lookup, Lookups
from enroll.runner.reconcile_rules import Calibration
from enroll.session.library_faces import CALIBRATION_FACES, found_faces, listed_whole, score_of

CALIBRATION_TRIES = 12
"""How many tries are made when no further success can come: about two minutes in all."""

CHANGE_TRIES = 20
"""How often one face is looked for during the run before another is chosen: ten minutes."""

FRESH_SECONDS = 5.0
"""The maximum age of a face when it is chosen while newer ones may come: its age when it is found
bounds the lag, and looks wait for that long."""

LAG_KEPT_SECONDS = 600.0
"""How long a measured lag is relied on for further doubts."""

FIRST_TRY_SECONDS = 60.0
"""The longest lag accepted from a face found at the first try, as it is not known how long it had
been visible before."""


class Calibrator:
    """Finds a run's calibration once it is wanted: by `search`, or by `list`, which has no score.

    `found` is called when there is one, `given_up` with the reason when there is none for now.
    """

    def __init__(
        self,
        lookups: Lookups,
        journal: Journal,
        *,
        by_list: bool = False,
        found: Callable[[], None],
        given_up: Callable[[str], None],
    ) -> None:
        self._lookups = lookups
        self._journal = journal
        self._by_list = by_list
        self._found = found
        self._given_up = given_up
        self._newest: tuple[FaceRecord, float] | None = None
        self._chosen: tuple[FaceRecord, float] | None = None
        self._wanted = False
        self._under_way = False
        self._idle = False
        self._hopeless = ""
        self._tries = 0
        self._found_at = 0.0
        self.due_at: float | None = None
        """When it is looked for again (monotonic seconds)."""
        self.calibration: Calibration | None = None
        self.cannot_search: str | None = None
        """Why the service lets us not search, once that is known."""

    @property
    def ready(self) -> bool:
        """Whether looks can be judged: a calibration with an earlier run's face shows no lag, and
        is used only when there will be no better one. A face that this run has enrolled gives a
        better one, as soon as it is shown."""
        if self.calibration is None:
            return False
        none_better = self._idle and self._chosen is None and self._newest is None
        return self.calibration.lag is not None or none_better

    def enrolled(self, face: FaceRecord) -> None:
        """This run has enrolled a face: until now the newest."""
        self._newest = (face, clock.monotonic())
        self._hopeless = ""

    def want(self) -> None:
        """Start looking for a calibration, unless that is under way."""
        if not self._wanted and self.cannot_search is None:
            self._wanted, self._tries = True, 0

    def renew(self) -> None:
        """Start looking for a calibration unless there is one with a recent lag."""
        lag = self.calibration.lag if self.calibration is not None else None
        if lag is None or clock.monotonic() - self._found_at > LAG_KEPT_SECONDS:
            if lag is not None:
                self.calibration = None
            self.want()

    def work(self, *, idle: bool) -> None:
        """Do what is due; with `idle` no further success of the run can serve as calibration."""
        self._idle = idle
        due = self.due_at is None or self.due_at <= clock.monotonic()
        if not (self._wanted and due) or self._under_way:
            return
        self.due_at = None
        if idle and self._hopeless:
            self._give_up(self._hopeless)
        elif (fresh := self._fresh()) is not None:
            self._ask(fresh)
        elif idle:
            self._do_without_fresh()

    def refuse_search(self, code: str) -> str:
        """The service lets us not search: nothing can be settled by it in this run."""
        self.cannot_search = f"the service does not allow searching ({code})"
        return self.cannot_search

    def _fresh(self) -> FaceRecord | None:
        """The face to look for, always the same until that is done with."""
        if self._chosen is None and self._newest is not None:
            young = clock.monotonic() - self._newest[1] <= FRESH_SECONDS
            if young or self._idle:
                self._chosen, self._newest = self._newest, None
        return self._chosen[0] if self._chosen is not None else None

    def _do_without_fresh(self) -> None:
        """An earlier run's face gives the score; how late new ones are shown is known from there,
        too, or not at all."""
        if self._by_list:
            self.calibration = Calibration(None, earlier_lag=self._journal.ledger.lag)
        if self.calibration is not None:
            self._end()
            self._found()
            return
        known = self._journal.ledger.newest_enrolled(CALIBRATION_FACES)
        if known:
            self._ask(known[min(self._tries, len(known) - 1)])
        else:
            self._give_up("there is no known face to compare it with")

    def _ask(self, face: FaceRecord) -> None:
        self._under_way = True
        if self._by_list:
            self._lookups.list_page(1, partial(self._listed, face))
        else:
            self._lookups.search(
                face, on_answer=partial(self._searched, face), on_no_photo=self._no_photo
            )

    def _no_photo(self) -> None:
        self._chosen = None
        self._failed("there is no photo of a known face to compare it with")

    def _searched(self, face: FaceRecord, _: Lookup, answer: Answer) -> None:
        if answer.verdict is Verdict.FATAL:
            self._give_up(self.refuse_search(answer.code))
        elif answer.verdict is not Verdict.APPLIED:
            self._chosen = None
            self._failed(f"the check failed: {answer.message or answer.code}")
        elif (score := score_of(face, found_faces(answer) or [])) is None:
            self._failed("the check failed: a known face was not found")
        else:
            self._have(score)

    def _listed(self, face: FaceRecord, _: Lookup, answer: Answer) -> None:
        listed = listed_whole(answer)
        if listed is None:
            self._give_up("the library cannot be listed completely")
        elif any(one.face_token == face.face_token for one in listed):
            self._have(None)
        else:
            self._failed("the list does not show a face that was added")

    def _have(self, score: float | None) -> None:
        now, lag = clock.monotonic(), None
        if self._chosen is not None:
            age = now - self._chosen[1]
            lag = age if self._tries else min(age, FIRST_TRY_SECONDS)
        ledger = self._journal.ledger
        if lag is not None:
            ledger.remember_lag(lag)
        self.calibration = Calibration(score, lag, earlier_lag=ledger.lag)
        self._found_at, self._chosen = now, None
        self._end()
        self._found()

    def _failed(self, because: str) -> None:
        self._under_way = False
        self._tries += 1
        if self._idle and self._tries >= CALIBRATION_TRIES:
            self._chosen, self._hopeless = None, because
            self._give_up(because)
            return
        if self._tries >= CHANGE_TRIES:
            self._chosen, self._tries = None, 0
        # A lag is taken for half as long again as it is, at most, and every look waits for that.
        self.due_at = clock.monotonic() + min(1.5 ** min(self._tries, 20) / 2, 60.0)

    def _give_up(self, because: str) -> None:
        self._end()
        self._given_up(because)

    def _end(self) -> None:
        self._wanted = self._under_way = False
        self.due_at = None
