"""`enroll sync`: the manifest is the whole truth for the faces that the ledger knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from enroll import clock
from enroll.commands.run import Screen, enroll_manifest
from enroll.commands.run_closing import Report
from enroll.commands.run_opening import Held, hold_ledger, ledger_path
from enroll.commands.sync_diff import removal_cutoff
from enroll.commands.sync_judging import Judge, as_it_is, check_differences, identity_before
from enroll.engine.threads import OneCore
from enroll.errors import EnrollError, GuardError, ServiceError
from enroll.ledger import SURVEY, Counted, Followed, Ledger, ledger_at
from enroll.manifest.manifest import Manifest
from enroll.manifest.scan import resolved
from enroll.model import Credentials
from enroll.session.account import Connection
from enroll.session.caller import Caller
from enroll.session.deletions import delete_chosen
from enroll.session.session import command_record
from enroll.session.tally import Ended, Tally
from enroll.settings import SyncSettings
from enroll.text.logs import mask
from enroll.text.wording import amount, duration
from enroll.visible import path_text


def sync_manifest(
    settings: SyncSettings,
    read_credentials: Callable[[], Credentials],
    *,
    screen: Screen | None = None,
    core: OneCore | None = None,
    show_user_ids: bool = False,
) -> Report:
    """Make the library what the manifest says, as far as the ledger knows it.

    The arguments are those of `enroll_manifest`; `show_user_ids` is about the message of a
    GuardError, which says why nothing was done.
    """
    if settings.images is not None:  # once, so that what is judged is what is sent
        settings = replace(settings, images=resolved(settings.images))
    check_differences(settings)
    night = _Night(settings, show=as_it_is if show_user_ids else mask)
    return enroll_manifest(settings, read_credentials, screen=screen, core=core, night=night)


class _Night:
    """See `enroll.commands.run.Night`."""

    def __init__(self, settings: SyncSettings, *, show: Callable[[str], str]) -> None:
        self._settings = settings
        self._show = show
        until = settings.max_duration
        self._until = math.inf if until is None else clock.monotonic() + until
        self._knows = False  # the ledger was there, so that something may be to be deleted
        self._signal: int | None = None
        self._bound = ""
        self._other_manifest = ""
        self._counted = Counted()
        self._now = 0
        self._people = self._faces = self._replaced = self._kept = 0
        self._run = 0
        self._ledger: Ledger
        self._connection: Connection
        self._tally: Tally

    def begin(self, stack: ExitStack, manifest: Manifest) -> Held | None:
        settings, path = self._settings, ledger_path(self._settings)
        if not ledger_at(path).exists():
            ledger: Ledger = ledger_at(path).scratch(identity_before(settings))
            try:
                self._judged(manifest, ledger)
            finally:
                ledger.close()
            return None
        lock = hold_ledger(stack, path).lock
        ledger = ledger_at(path).open(identity_before(settings))
        stack.callback(ledger.close)
        try:
            self._judged(manifest, ledger)
        except GuardError as error:
            _put_on_record(ledger, settings, manifest, error)
            raise
        ledger.commit()
        self._knows = True
        return Held(lock, ledger)

    def _judged(self, manifest: Manifest, ledger: Ledger) -> None:
        judge = Judge(self._settings, manifest, ledger, show=self._show, until=self._until)
        self._counted = judge.find()
        self._now = judge.now
        judge.refuse()
        self._other_manifest = ledger.following.other_manifest(judge.path)

    def accept(self, ledger: Ledger, connection: Connection, tally: Tally, run: int) -> None:
        self._ledger, self._connection, self._tally, self._run = ledger, connection, tally, run
        if not self._knows:
            return
        ledger.following.accept(run)
        ledger.commit()
        with suppress(ServiceError), self._caller() as caller:  # it is said when all is to go
            self._delete_replaced(caller)

    def softened(self, interrupt: Callable[[int], None]) -> Callable[[int], None]:
        def soften(number: int) -> None:
            self._signal = number
            interrupt(number)

        return soften

    def end(self, ended: Ended) -> Ended:
        through = not (ended.stop or ended.signal or ended.bound)
        if not self._knows:
            return ended
        try:
            try:
                if through:
                    with self._caller() as caller:
                        self._delete_replaced(caller)
                        self._delete_leavers(caller)
            finally:
                following = self._ledger.following
                following.tidy()
                self._kept = following.kept()
            if through and (behind := following.behind()):
                self._kept += behind
                self._bound = self._bound or _about_those_behind(behind)
            self._ledger.commit()
        except EnrollError as error:
            return replace(ended, stop=ended.stop or error)
        if not through:
            return ended
        if self._signal is not None:
            return replace(ended, signal=self._signal)
        return replace(ended, bound=self._bound or None)

    def followed(self) -> Followed:
        return Followed(
            counted=self._counted,
            people=self._people,
            faces=self._faces,
            replaced=self._replaced,
            kept=self._kept,
            other_manifest=self._other_manifest,
        )

    @contextmanager
    def _caller(self) -> Iterator[Caller]:
        with Caller(
            self._connection,
            self._tally,
            at_once=self._settings.max_in_flight,
            known=self._ledger.ceiling,
            most_calls=self._settings.max_calls,
        ) as caller:
            yield caller

    def _delete_replaced(self, caller: Caller) -> None:
        chosen = self._ledger.removals.choose_replaced()
        if chosen.faces:
            before = self._replaced

            def told(gone: int) -> None:
                self._replaced = before + gone

            self._delete(caller, told)

    def _delete_leavers(self, caller: Caller) -> None:
        cutoff = removal_cutoff(self._now, self._settings.grace)
        chosen = self._ledger.removals.choose_leavers(cutoff=cutoff)
        if chosen.faces and self._may_go_on():

            def told(gone: int) -> None:
                self._faces = gone

            self._delete(caller, told)
            left = self._ledger.removals.choose_leavers(cutoff=cutoff)
            self._people = chosen.people - left.people

    def _delete(self, caller: Caller, told: Callable[[int], None]) -> None:
        delete_chosen(
            self._ledger,
            caller,
            self._settings.group_id,
            run=self._run,
            told=told,
            go_on=self._may_go_on,
            seen=True,
        )

    def _may_go_on(self) -> bool:
        """Whether another call may be made; else it is remembered why not."""
        settings, more = self._settings, "and more is to be deleted"
        if self._signal is not None:
            return False
        if clock.monotonic() >= self._until:
            after = duration(settings.max_duration or 0.0)
            self._bound = f"--max-duration ({after}) was reached, {more}"
        elif settings.max_calls is not None and self._tally.calls.total() >= settings.max_calls:
            self._bound = f"--max-calls was reached, {more}"
        return not self._bound


def _about_those_behind(people: int) -> str:
    have = "has" if people == 1 else "have"
    return (
        f"{amount(people, 'person', 'people')} {have} another text in the library yet than in the "
        "manifest: it had to be found out first what an earlier night had added"
    )


def _put_on_record(
    ledger: Ledger, settings: SyncSettings, manifest: Manifest, error: GuardError
) -> None:
    """Let the ledger remember that a sync was refused, and nothing else."""
    survey = ledger.last_scan()
    mark = {} if survey is None else {SURVEY: survey.fingerprint}
    with (
        suppress(GuardError),
        command_record(
            ledger,
            options={**settings.record(), **mark},
            tally=Tally(),
            manifest=path_text(manifest.path.absolute()),
            manifest_sha256=manifest.sha256,
        ),
    ):
        raise GuardError(error.masked)
