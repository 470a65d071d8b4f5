"""Whether a run can go on: service, credentials, repeated errors, photos' root, open files."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from enroll.errors import LocalError, ShortageError
from enroll.facesearch.answers import CREDENTIAL_CODES, OwnCode
from enroll.ledger import Ledger
from enroll.model import Answer, Verdict
from enroll.photos import PhotoStore, reconnect
from enroll.session.account import CREDENTIAL_SECONDS


@dataclass(slots=True)
class Shortage:
    """Keeps track of files and threads that this machine has run out of. `since` is monotonic
    seconds, None while all is well; `because` is the latest reason, a sentence."""

    since: float | None = None
    because: str = ""

    def met(self, because: str, now: float) -> None:
        """Note that there was no file or thread left for something."""
        self.since = now if self.since is None else self.since
        self.because = because

    def passed(self) -> None:
        """Note that something got all that it needed."""
        self.since = None

    def too_long(self, most: float, now: float) -> ShortageError | None:
        """What to stop the run with when nothing has left for `most` seconds."""
        if self.since is None or now - self.since < most:
            return None
        return ShortageError(self.because)


@dataclass(slots=True)
class Reachability:
    """Judges from every answer of a run whether the service can be reached. `since` is monotonic
    seconds, None while all is well.

    `away` means more than an answer or two that prove nothing: a call could not be sent, or many
    answers in a row were of no use. `code` and `because` are those of the latest one. `make_room`
    closes files that nothing needs at the moment, which would keep calls from being sent.
    """

    make_room: Callable[[], None] = lambda: None
    since: float | None = None
    away: bool = False
    code: str = ""
    because: str = ""
    shortage: Shortage = field(default_factory=Shortage)
    """Whether the cause is on this machine."""
    _unknown: int = 0

    def heard(self, answer: Answer, now: float) -> None:
        """Take an answer into account, unless it says nothing about the service."""
        if answer.verdict is Verdict.BLOCKED:
            self.shortage.met(answer.message, now)
            self.make_room()
            return
        self.shortage.passed()
        if answer.code == OwnCode.WORKER_LOST:
            return
        if answer.verdict not in (Verdict.NOT_SENT, Verdict.UNKNOWN):
            self.since, self.away, self._unknown = None, False, 0
            return
        if self.since is None:
            self.since = now
        self._unknown += answer.verdict is Verdict.UNKNOWN
        if answer.verdict is Verdict.NOT_SENT or self._unknown >= UNKNOWN_RUNNING:
            self.away = True
        self.code = answer.code
        self.because = answer.message or answer.code

    def rest(self) -> None:
        """Note that no call is to be made for a while: after a lost answer, the wait until the next
        look is no outage."""
        if not self.away:
            self.since = None


RUNNING = 20
"""How many times in a row the same error stops the run: few calls, but more than the bad rows that
happen to be next to each other."""

WINDOW = 100
"""How many of the last answers are searched for an error that recurs between others."""

MOST = 90
"""How many times the same error among the last WINDOW answers stops the run."""

UNKNOWN_RUNNING = 10
"""After this many answers in a row that prove nothing, calls are made one at a time."""

LONGEST_CAUTION = 60.0
"""The longest time between two calls that are made one at a time, in seconds."""


@dataclass(slots=True)
class Breaker:
    """Stops a run whose calls keep failing in the same way.

    It is given every answer to an `add` call that the service did not refuse.
    """

    _last: deque[str] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _running: int = 0
    _unknown: int = 0
    _caution: float = 1.0
    _not_before: float = float("-inf")

    def heard(self, answer: Answer, *, rejected: bool, now: float) -> str | None:
        """Take an answer into account. Returns the code to stop the run for, if it has come too
        often.

        `rejected` means that a rule made it a rejection, like the known codes: those never stop a
        run, because a bad row must not.
        """
        definite = answer.verdict in (Verdict.APPLIED, Verdict.REJECTED)
        if definite:
            self._unknown = 0
            self._caution = 1.0
        elif answer.verdict is Verdict.UNKNOWN:
            self._unknown += 1
            # Calls that were in flight together count, but only the first lengthens the wait.
            if self._unknown >= UNKNOWN_RUNNING and now >= self._not_before:
                self._not_before = now + self._caution
                self._caution = min(2 * self._caution, LONGEST_CAUTION)
        code = "" if definite or rejected else answer.code
        self._running = self._running + 1 if self._last and self._last[-1] == code else 1
        self._last.append(code)
        if code and (self._running >= RUNNING or self._last.count(code) >= MOST):
            return code
        return None

    def may_send(self, in_flight: int, now: float) -> bool:
        """Whether one more call may leave, beside so many that are in flight."""
        if self._unknown < UNKNOWN_RUNNING:
            return True
        return in_flight == 0 and now >= self._not_before

    def due_at(self) -> float | None:
        """When the next call may leave, if they go one at a time (monotonic seconds)."""
        return self._not_before if self._unknown >= UNKNOWN_RUNNING else None


class CredentialWait:
    """Waits for other credentials once the service refuses the signature of a call: a new key may
    reach this machine later than the service, or earlier.

    Meanwhile one call is made every `CREDENTIAL_SECONDS`, and after it the credentials are read
    again.
    """

    def __init__(self, grace: float, *, on_wait: Callable[[], None] = lambda: None) -> None:
        """`grace` is for how many seconds; `on_wait` is called when the waiting begins."""
        self._grace = grace
        self._on_wait = on_wait
        self._since: float | None = None
        self._next = 0.0

    def refused(self, answer: Answer, now: float) -> bool:
        """Whether a call is to be made again that ended with `answer`, and for which there are no
        other credentials yet."""
        if answer.code not in CREDENTIAL_CODES or not self._grace:
            return False
        if self._since is None:
            self._since = now
            self._on_wait()
        self._next = now + CREDENTIAL_SECONDS
        return now - self._since < self._grace

    def accepted(self, left_at: float) -> None:
        """A signature was accepted of a call that left then (monotonic seconds): others may leave,
        unless it was on its way already when the first was refused."""
        if self._since is not None and left_at >= self._since:
            self._since = None

    def renewed(self) -> None:
        """There are other credentials: calls may leave."""
        self._since = None

    def may_send(self, in_flight: int, now: float) -> bool:
        """Whether one more call may leave, beside so many that are in flight."""
        return self._since is None or (in_flight == 0 and now >= self._next)

    def due_at(self) -> float | None:
        """When the next call may leave, if they go one at a time (monotonic seconds)."""
        return None if self._since is None else self._next


MISSING_RUNNING = 20
"""Photos that were there and are not there, or missing where nothing is, that stop a run: the
breaker's streak."""

KNOWN_TRIED = 100
"""Photos on record that are looked for, drawn from all of them, when none has been seen yet."""


class PhotoRootCheck:
    """Distinguishes a single missing photo from a photo folder that is gone.

    The `on_...` methods record what the run encounters. Used on the loop's thread only.
    """

    def __init__(self, store: PhotoStore, known: Ledger) -> None:
        self._store = store
        self._known = known
        self._found = False
        self._scanned = False
        self._asked = False
        self._missing = 0
        self._lost: Counter[str] = Counter()
        self._running = 0

    @property
    def certain(self) -> bool:
        """Whether a missing photo can be judged: one was found, or all were looked for."""
        return self._found or self._scanned

    def on_read(self) -> None:
        """A photo was read."""
        self._found = True
        self._running = 0

    def on_seen(self) -> None:
        """The scan has seen a photo."""
        self._found = True

    def on_scanned(self) -> None:
        """The scan has looked for every photo of the manifest."""
        self._scanned = True

    def on_lost(self, folders: Mapping[str, int]) -> None:
        """The scan has not found so many photos of enrolled rows in these folders."""
        self._lost.update(folders)

    def missing(self, path: str, *, was_there: bool) -> LocalError | None:
        """A photo is not there; what to stop the run with, if it is not the photo alone.

        `was_there` says that the scan saw it. Call it only once this check is `certain`.
        """
        self._missing += 1
        self._running += was_there
        if self._store.is_gone():
            return self._gone(self._store.root)
        folder = self._store.empty_above(path)
        if self._running >= MISSING_RUNNING:
            return self._gone(folder or path.rpartition("/")[0])
        if folder and self._lost_below(folder) >= MISSING_RUNNING:
            return self._gone(folder)
        return None if self._found else self._nothing_seen(folder)

    def lost(self) -> LocalError | None:
        """What to end a run with that has nothing to read, if enrolled rows' photos are not there,
        or nothing is: their folder may be gone, and nobody can see whether any has changed."""
        if not self._lost:
            return self._gone(self._store.root) if self._is_emptied() else None
        if self._store.is_gone():
            return self._gone(self._store.root)
        empty = Counter[str]()
        for folder, count in self._lost.items():
            empty[self._store.empty_above(f"{folder}/photo")] += count
        del empty[""]  # those that hold something
        for folder, count in empty.items():
            if count >= MISSING_RUNNING:
                return self._gone(folder)
        return None if self._found else self._nothing_seen(next(iter(empty), ""))

    def _is_emptied(self) -> bool:
        """Whether nothing is there where photos were, so that a manifest which is the folder itself
        has no rows."""
        store = self._store
        if self._found or self._missing or not store.is_empty():
            return False
        return self._known.knows_photos_below(store.root)

    def unreachable(self, path: str, message: str) -> LocalError | None:
        """The same for a photo of which the file system says, with `message`, that its server or
        device is gone. A disk says so of a single bad file, too."""
        self._running += 1
        if self._store.is_reachable(path) and self._running < MISSING_RUNNING:
            return None
        return LocalError(
            f"The photos can no longer be reached. {message} {reconnect(path)}, then run the same "
            "command: every row that is not enrolled yet stays due."
        )

    def _nothing_seen(self, folder: str) -> LocalError | None:
        """What to stop with where no photo of the manifest has been seen."""
        known: Sequence[str] = ()
        if not self._asked:
            self._asked = True
            known = self._known.some_photos_below(self._store.root, most=KNOWN_TRIED)
            self._found = any(map(self._is_there, known))
        if self._found:
            return None
        if folder and self._known.knows_photos_below(folder):
            return self._gone(folder)
        if len(known) >= MISSING_RUNNING:
            return self._gone(self._store.root)
        if self._missing >= MISSING_RUNNING:
            return LocalError(
                f"The first {self._missing} photos are all missing below {self._store.root}. "
                f"{reconnect(self._store.root).removesuffix(' again')}, or name the folder of the "
                "photos with --images; every row stays due."
            )
        return None

    def _is_there(self, path: str) -> bool:
        try:
            return self._store.stat([path])[0] >= 0
        except LocalError:  # its folder does not answer
            return False

    def _lost_below(self, folder: str) -> int:
        return sum(
            lost
            for name, lost in self._lost.items()
            if name == folder or name.startswith(folder.rstrip("/") + "/")
        )

    def _gone(self, folder: str) -> LocalError:
        return LocalError(
            f"The photos' folder {folder} is gone; it was there before. {reconnect(folder)}, "
            "then run the same command: every row that is not enrolled yet stays due."
        )
