"""`enroll sync`: the manifest is the whole truth for the faces that the ledger knows."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from enroll.calling.asking import Asking
from enroll.calling.deleting import delete_chosen
from enroll.calling.opening import Connection
from enroll.calling.upkeep import upkeep
from enroll.clock import now_ms
from enroll.cores import OneCore
from enroll.enrollment import (
    Held,
    Report,
    Screen,
    enroll_manifest,
    hold_ledger,
    ledger_path,
    results_path,
)
from enroll.errors import EnrollError, GuardError, ServiceError
from enroll.ledger import SURVEY, Change, ChangeKind, Counted, Followed, Ledger, LibraryIdentity
from enroll.ledger.files import ledger_exists, open_known_ledger, scratch_ledger
from enroll.ledger.reading import iso_time
from enroll.model import Credentials
from enroll.output.logs import NAMELESS, mask
from enroll.output.newfile import new_file
from enroll.output.outputs import InUse, Output, check_output, try_folder
from enroll.output.texts import amount, duration
from enroll.rows.escape import escape
from enroll.rows.manifest import Manifest, open_manifest
from enroll.rows.photofolder import FolderGoneError, NoFolderError, in_utf8, photos_folder
from enroll.rows.results import csv_bytes
from enroll.settings import SyncSettings, host_of
from enroll.sync import guards
from enroll.sync.difference import find_difference, know_listed, removal_cutoff
from enroll.sync.guards import Refusal, Seen
from enroll.tally import Ended, Tally

CHANGE_COLUMNS = ("change", "user_id", "user_data", "image", "face_token", "since")
"""What a file of differences has."""

EXAMPLES = 3
"""Rows of a kind that a refusal names."""


def sync_manifest(
    settings: SyncSettings,
    read_credentials: Callable[[], Credentials],
    *,
    screen: Screen | None = None,
    executors: Callable[[int], Executor] = ThreadPoolExecutor,
    core: OneCore | None = None,
    show_user_ids: bool = False,
) -> Report:
    """Make the library what the manifest says, as far as the ledger knows it.

    The arguments are those of `enroll_manifest`; `show_user_ids` is about the message of a
    GuardError, which says why nothing was done.
    """
    check_differences(settings)
    night = _Night(settings, show=_as_it_is if show_user_ids else mask)
    return enroll_manifest(
        settings, read_credentials, screen=screen, executors=executors, core=core, night=night
    )


def preview(settings: SyncSettings, *, show_user_ids: bool = False) -> Iterator[Followed]:
    """What a sync would do, told without a call; nothing is written but `differences`.

    Yields the difference, then raises GuardError where it would be refused.
    """
    check_differences(settings)
    manifest = open_manifest(
        settings.manifest,
        columns=settings.columns,
        encoding=settings.encoding,
        sheet=settings.sheet,
    )
    path = ledger_path(settings)
    with ExitStack() as stack:
        ledger = scratch_ledger(path if ledger_exists(path) else None, _identity(settings))
        stack.callback(ledger.close)
        show = _as_it_is if show_user_ids else mask
        judge = _Judge(settings, manifest, ledger, show=show, keep=False)
        counted = judge.find()
        other = ledger.following.other_manifest(judge.path)
        yield Followed(counted=counted, other_manifest=other)
        judge.refuse()


def check_differences(settings: SyncSettings) -> None:
    """Raise UsageError for a file of differences that must not or cannot be written."""
    if settings.differences is None:
        return
    output = Output(path=settings.differences, option="--differences")
    files = dict(settings.in_use)
    files = {what: path for what, path in files.items() if path is not settings.differences}
    if (results := results_path(settings)) is not None:
        files["the results"] = results
    in_use = InUse(ledger=ledger_path(settings), manifests=[settings.manifest], files=files)
    check_output(output, in_use)
    try_folder(output)


class _Judge:
    """Finds a difference, writes it down, and refuses it."""

    def __init__(
        self,
        settings: SyncSettings,
        manifest: Manifest,
        ledger: Ledger,
        *,
        show: Callable[[str], str],
        until: float = math.inf,
        keep: bool = True,
    ) -> None:
        """Without `keep` the ledger is only looked at."""
        self._settings = settings
        self._keep = keep
        self._until = until
        self._manifest = manifest
        self._ledger = ledger
        self._show = show
        self._images = Path()
        self.now = now_ms()
        self.counted = Counted()

    def find(self) -> Counted:
        """The difference. Raises GuardError where there is no folder of photos."""
        try:
            photos = photos_folder(self._settings.images, self._manifest, self._ledger)
        except (FolderGoneError, NoFolderError) as error:
            know_listed(self._manifest, self._ledger, Path(), self._settings, keep=self._keep)
            raise GuardError(f"Nothing was done. {error}") from error
        self._images = photos.path
        self.counted = find_difference(
            self._manifest,
            self._ledger,
            photos.path,
            self._settings,
            now=self.now,
            until=self._until,
            keep=self._keep,
        )
        if self._settings.differences is not None:
            changes = self._ledger.following.changes(images=str(photos.path))
            write_changes(changes, self._settings.differences)
        return self.counted

    def refuse(self) -> None:
        """Raise GuardError where the difference must not be carried out."""
        refusals = guards.judge(self.counted, self._settings)
        if refusals:
            words, masked = (
                guards.message(
                    refusals,
                    self.counted,
                    self._seen(refusals, show),
                    manifest=in_utf8(self._manifest.path),
                )
                for show in (self._show, mask)
            )
            raise GuardError(words, counts=self.counted.figures(), masked=masked)

    def _examples(
        self, refusals: list[Refusal], show: Callable[[str], str]
    ) -> dict[ChangeKind, list[str]]:
        def shown(change: Change) -> str:
            name = show(change.user_id)
            if change.line:
                return f"{name} (line {change.line})"
            return "" if name == NAMELESS else name

        kinds = {kind for refusal in refusals for kind in guards.KINDS[refusal.guard]}
        return {
            kind: list(dict.fromkeys(filter(None, map(shown, islice(found, EXAMPLES)))))
            for kind in kinds
            for found in [self._ledger.following.changes([kind], images="")]
        }

    def _seen(self, refusals: list[Refusal], show: Callable[[str], str]) -> Seen:
        return Seen(
            signs=self._ledger.following.signs(manifest=self.path),
            folder_empty=_is_empty(self._images),
            examples=self._examples(refusals, show),
        )

    @property
    def path(self) -> str:
        """The manifest's, as the ledger has it."""
        return in_utf8(self._manifest.path.absolute())


class _Night:
    """See `enroll.enrollment.Night`."""

    def __init__(self, settings: SyncSettings, *, show: Callable[[str], str]) -> None:
        self._settings = settings
        self._show = show
        until = settings.max_duration
        self._until = math.inf if until is None else time.monotonic() + until
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
        if not ledger_exists(path):
            ledger: Ledger = scratch_ledger(None, _identity(settings))
            try:
                self._judged(manifest, ledger)
            finally:
                ledger.close()
            return None
        lock = hold_ledger(stack, path).lock
        ledger = open_known_ledger(
            path, host=host_of(settings.endpoint), group_id=settings.group_id
        )
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
        judge = _Judge(self._settings, manifest, ledger, show=self._show, until=self._until)
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
        with suppress(ServiceError), self._asking() as asking:  # it is said when all is to go
            self._delete_replaced(asking)

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
                    with self._asking() as asking:
                        self._delete_replaced(asking)
                        self._delete_leavers(asking)
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
    def _asking(self) -> Iterator[Asking]:
        with Asking(
            self._connection,
            self._tally,
            at_once=self._settings.max_in_flight,
            known=self._ledger.ceiling,
            most_calls=self._settings.max_calls,
        ) as asking:
            yield asking

    def _delete_replaced(self, asking: Asking) -> None:
        chosen = self._ledger.removals.choose_replaced()
        if chosen.faces:
            before = self._replaced

            def told(gone: int) -> None:
                self._replaced = before + gone

            self._delete(asking, told)

    def _delete_leavers(self, asking: Asking) -> None:
        cutoff = removal_cutoff(self._now, self._settings.grace)
        chosen = self._ledger.removals.choose_leavers(cutoff=cutoff)
        if chosen.faces and self._may_go_on():

            def told(gone: int) -> None:
                self._faces = gone

            self._delete(asking, told)
            left = self._ledger.removals.choose_leavers(cutoff=cutoff)
            self._people = chosen.people - left.people

    def _delete(self, asking: Asking, told: Callable[[int], None]) -> None:
        delete_chosen(
            self._ledger,
            asking,
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
        if time.monotonic() >= self._until:
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
    survey = ledger.surveys.survey()
    mark = {} if survey is None else {SURVEY: survey.fingerprint}
    with (
        suppress(GuardError),
        upkeep(
            ledger,
            options={**settings.record(), **mark},
            tally=Tally(),
            manifest=in_utf8(manifest.path.absolute()),
            manifest_sha256=manifest.sha256,
        ),
    ):
        raise GuardError(error.masked)


def write_changes(changes: Iterator[Change], path: Path) -> None:
    """Write them as CSV, readable by its owner alone. Raises LocalError."""
    with new_file(path) as new:
        new.file.write(csv_bytes([CHANGE_COLUMNS]))
        while some := list(islice(changes, 1000)):
            new.file.write(
                csv_bytes(
                    (
                        one.kind.value,
                        one.user_id,
                        escape(one.user_data),
                        one.image,
                        one.face_token,
                        iso_time(one.since),
                    )
                    for one in some
                )
            )


def _identity(settings: SyncSettings) -> LibraryIdentity:
    return LibraryIdentity(host=host_of(settings.endpoint), group_id=settings.group_id, add_time="")


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as found:
            return next(found, None) is None
    except OSError:
        return True


def _as_it_is(user_id: str) -> str:
    return user_id
