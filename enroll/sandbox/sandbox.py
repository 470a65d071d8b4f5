"""The stand-in as one object, `with Sandbox() as sandbox: ...`, and as a program, `serve`."""

from __future__ import annotations

import secrets
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from .account import Account, Face, Library, Limits
from .calls import DEFAULT_MODEL, CallKind, Calls
from .faces import FaceFinder, PictureSizes, shared_finder
from .faults import FaultPlan
from .matchers import MATCHERS, matcher_named
from .messages import Clock, SignatureCheck
from .profile import Profile
from .server import Server
from .service import Behaviour, Call, CallLog, Service

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Sandbox(Behaviour):
    """A FaceSearch service on loopback, in background threads of this process.

    - `port` 0 takes a free one. `host` must be loopback (`ValueError` otherwise; `OSError` when
      the port is taken).
    - `store`: a SQLite file (mode 0600) that keeps libraries, faces, key and secret; in memory
      without.
    - `parallel`: calls beyond this many at a time are refused (`CONCURRENCY_LIMIT_EXCEEDED`).
    - `latency`: seconds that a call which is not refused waits before it is carried out.
    - `faults`: `{"[CALL:]KIND[-before|-after]": probability}`, drawn with `seed`; for `add`
      where no call is named. The kinds are those of `FaultKind`.
    - `late_after`: seconds after which a `late` call is carried out; None waits for the client
      to go away.
    - `search_lag`: seconds for which `search` and `list` do not show a new face; `fault_lag`: for
      how much longer one that meets the fault `search-lag`.
    - `clock_skew`: seconds by which the stand-in's clock is ahead; `clock` replaces it.
    - `detect=False` treats the middle of each picture as a face, for soak tests with many pictures;
      `finder` finds faces its own way.
    - `profile`: how an account behaved that was probed: score field, errors, sizes. Its `parallel`,
      lags, latency and clock count where these are not given.
    - `matcher`: how people are distinguished, one of MATCHERS. `ImportError` when its package is
      missing. `model` knows nobody but the people of `made_up_photo`, and draws scores with `seed`.

    `account` holds the libraries: change it to do what other users of the account might do.
    """

    def __init__(  # noqa: PLR0913 - settings of a rehearsal, all optional and by name
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        store: Path | None = None,
        parallel: int | None = None,
        latency: float | None = None,
        faults: Mapping[str, float] | None = None,
        seed: int = 0,
        late_after: float | None = None,
        search_lag: float | None = None,
        fault_lag: float = 2.0,
        clock_skew: float | None = None,
        clock: Callable[[], float] = time.time,
        detect: bool = True,
        matcher: str = MATCHERS[0],
        finder: FaceFinder | None = None,
        limits: Limits | None = None,
        profile: Profile | None = None,
        api_key: str | None = None,
        api_secret: str | None = None,
    ) -> None:
        if host not in LOOPBACK:
            raise ValueError(f"{host} is not loopback; the sandbox listens on {LOOPBACK[0]} only")
        profile = profile or Profile()
        if search_lag is not None:
            profile = replace(profile, list_lag=None)
        limits = limits or Limits(
            max_request_bytes=profile.max_request_bytes, max_start=profile.max_start
        )
        self._clock = Clock(clock, profile.clock_skew if clock_skew is None else clock_skew)
        super().__init__(
            plan=FaultPlan(faults or {}, seed=seed),
            parallel=profile.parallel if parallel is None else parallel,
            latency=profile.latency if latency is None else latency,
            late_after=late_after,
            search_lag=profile.search_lag if search_lag is None else search_lag,
            fault_lag=fault_lag,
            profile=profile,
        )
        self._log = CallLog()
        self._most_libraries = limits.max_libraries
        sizes = PictureSizes(
            max_bytes=profile.max_request_bytes,
            min_side=profile.min_side,
            max_side=profile.max_side,
            formats=profile.formats,
        )
        finder = finder or shared_finder(
            matcher_named(matcher, seed=seed), detect=detect, sizes=sizes
        )
        self.account = Account(
            clock=self._clock, limits=limits, matcher=finder.matcher, store=store
        )
        try:
            self.api_key = api_key or self.account.setting(
                "api_key", default=secrets.token_urlsafe(24)
            )
            self.api_secret = api_secret or self.account.setting(
                "api_secret", default=secrets.token_urlsafe(24)
            )
            self._signatures = SignatureCheck(
                api_key=self.api_key, api_secret=self.api_secret, profile=profile
            )
            stopping = Event()
            service = Service(
                calls=Calls(
                    account=self.account,
                    finder=finder,
                    clock=self._clock,
                    limits=limits,
                    profile=profile,
                ),
                signatures=self._signatures,
                log=self._log,
                clock=self._clock,
                behaviour=self,
                stopping=stopping,
            )
            self._server = Server(
                host,
                port,
                service=service,
                clock=None if "date" in profile.quirks else self._clock,
                stopping=stopping,
                profile=replace(profile, max_request_bytes=limits.max_request_bytes),
            )
        except BaseException:
            self.account.close()
            raise
        self.port = self._server.port
        self.endpoint = (
            f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        )

    def rotate_secret(self, api_secret: str) -> None:
        """Refuse every signature that is not made with this secret from now on."""
        self.api_secret = api_secret
        self._signatures.replace_secret(api_secret)

    def start(self) -> Self:
        """Begin to accept connections."""
        self._server.start()
        return self

    def stop(self) -> None:
        """End all connections, hung ones too, and close the store."""
        self._server.stop()
        self.account.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if kind is None and self._server.bugs:
            raise self._server.bugs[0]

    def create_library(self, group_id: str, *, group_name: str = "", group_data: str = "") -> None:
        """Make a library; nothing happens when there is one of this id. Raises ValueError for one
        more than an account may have."""
        known = [library.group_id for library in self.account.libraries()]
        if group_id in known:
            return
        if len(known) >= self._most_libraries:
            raise ValueError(
                f"an account has at most {self._most_libraries} libraries, and {group_id!r} is one "
                "too many"
            )
        self.account.create(
            Library(
                group_id=group_id,
                group_name=group_name or group_id[:60],
                group_data=group_data,
                model_version=DEFAULT_MODEL,
                add_time=self._clock.now(),
            )
        )

    def faces(self, group_id: str) -> list[Face]:
        """All faces of a library, oldest first, those that `search` does not show yet too."""
        return self.account.faces(group_id, hidden=True)

    @property
    def calls(self) -> list[Call]:
        """Every call seen (the last 200,000), oldest first."""
        return self._log.calls()

    def count(self, kind: str) -> int:
        """How many calls of a kind (`"add"`, or a whole unknown path) have arrived."""
        return self._log.count(kind)

    @property
    def counts(self) -> dict[str, int]:
        """How many calls of each of the service's kinds have arrived, without those that none
        has."""
        counted = {str(kind): self._log.count(kind) for kind in CallKind}
        return {kind: count for kind, count in counted.items() if count}

    def script(
        self, faults: Iterable[str | None], *, call: str = "add", user_id: str | None = None
    ) -> None:
        """Queue faults for the next calls of a kind, before the plan's; None is no fault.

        With `user_id` for the next calls about that person only, before the general queue.
        Calls that are refused (signature, parallel limit) use nothing up. Raises `ValueError`
        for an unknown kind of fault or call.
        """
        self.plan.script(faults, call=CallKind(call), user_id=user_id)

    def unused_script(self) -> int:
        """How many entries of the scripts are left."""
        return self.plan.pending()

    def wait_idle(self, seconds: float = 10.0) -> bool:
        """Wait until no call is under way (late ones included); False when it took too long."""
        return self._log.wait_idle(seconds)

    def wait_arrived(self, count: int, seconds: float = 10.0) -> bool:
        """Wait until `count` calls of any kind have arrived; False when it took too long."""
        return self._log.wait_arrived(count, seconds)

    def wait_count(self, kind: str, count: int, seconds: float = 10.0) -> bool:
        """Wait until `count` calls of a kind have arrived; False when it took too long."""
        return self._log.wait_count(kind, count, seconds)

    @property
    def clock_skew(self) -> float:
        """Seconds by which the stand-in's clock is ahead; may be changed at any time."""
        return self._clock.skew

    @clock_skew.setter
    def clock_skew(self, seconds: float) -> None:
        self._clock.skew = seconds


def serve(
    sandbox: Sandbox,
    *,
    libraries: Sequence[str] = (),
    on_ready: Callable[[Sandbox], None] | None = None,
) -> None:
    """Run `sandbox` until SIGINT or SIGTERM, then stop it cleanly and return.

    `libraries` are created when they are missing; `on_ready` gets the sandbox once it accepts
    connections. Main thread only, because of the signals.
    """
    with _signals_of((signal.SIGINT, signal.SIGTERM)) as wait, sandbox:
        for group_id in libraries:
            sandbox.create_library(group_id)
        if on_ready is not None:
            on_ready(sandbox)
        wait()


@contextmanager
def _signals_of(numbers: Collection[int]) -> Iterator[Callable[[], None]]:
    """A function that waits for one of the signals to arrive after the beginning of the block.

    A socket, not an Event: the kernel may deliver the signal to a thread that answers a call, which
    wakes no thread that waits for a lock; and a handler must not take a lock that its thread holds.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    former = signal.set_wakeup_fd(writing.fileno())

    def wait() -> None:
        while not set(reading.recv(1)) & set(numbers):
            pass

    try:
        yield wait
    finally:
        signal.set_wakeup_fd(former)
        for number, handler in before.items():
            signal.signal(number, handler)
        reading.close()
        writing.close()
