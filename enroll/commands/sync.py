"""`enroll sync`: compare the manifest with the ledger, enroll what is new, delete what has gone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import replace

from enroll import clock
from enroll.addresses import resolved
from enroll.commands.run import Run, Screen, open_run, pool_on
from enroll.commands.run_closing import Report
from enroll.commands.run_input import RunInput, named_library, prepare
from enroll.commands.run_opening import hold_known
from enroll.commands.sync_compare import (
    ManifestDifference,
    check_differences,
    compare,
    refuse_too_much,
)
from enroll.commands.sync_guards import too_many_held
from enroll.errors import EnrollError, GuardError, ServiceError, name_run
from enroll.ledger import Ledger, empty_ledger
from enroll.model import Credentials
from enroll.session.deletions import delete_chosen
from enroll.session.resemblance import UNLIKE_BEFORE
from enroll.session.session import command_record, run_start
from enroll.session.tally import Ended
from enroll.settings import SyncSettings
from enroll.text.wording import duration
from enroll.threads import OneCore
from enroll.visible import path_text


def sync_manifest(
    settings: SyncSettings,
    read_credentials: Callable[[], Credentials],
    *,
    screen: Screen | None = None,
    core: OneCore | None = None,
    show_user_ids: bool = False,
) -> Report:
    """Make the library match the manifest, as far as the ledger knows it.

    The arguments are those of `enroll_manifest`; `show_user_ids` is for the message of a
    GuardError, which says why nothing was done.
    """
    if settings.images is not None:  # once, so that what is compared is what is sent
        settings = replace(settings, images=resolved(settings.images))
    check_differences(settings)
    given = prepare(settings)
    with ExitStack() as stack:
        held = hold_known(stack, given)
        if held is None:
            with closing(empty_ledger(named_library(settings))) as nothing:
                difference = compare(settings, given, nothing)
                refuse_too_much(difference, settings, nothing, show_user_ids=show_user_ids)
        else:
            difference = _compare_on_record(settings, given, held.ledger, show_user_ids)
        given = replace(given, manifest=difference.manifest)  # its photos are found
        run = stack.enter_context(
            open_run(given, read_credentials, pool=pool_on(core), screen=screen, held=held)
        )
        deletions = _Deletions(settings, run, difference)
        if held is None:  # nobody was there before, so there is nobody to delete
            return run.close(run.drive(core), sync_result=deletions.result)
        ended = _stop_if_mixed_up(_enroll(run, deletions, difference, core), difference, settings)
        ended = deletions.finish(ended)
        return run.close(ended, sync_result=deletions.result)


def _compare_on_record(
    settings: SyncSettings, given: RunInput, ledger: Ledger, show_user_ids: bool
) -> ManifestDifference:
    """The difference, which may be carried out. The ledger records a refusal, and nothing else of
    a refused sync. Raises GuardError."""
    try:
        difference = compare(settings, given, ledger)
        refuse_too_much(difference, settings, ledger, show_user_ids=show_user_ids)
    except GuardError as error:
        last_scan = ledger.last_scan()
        start = replace(
            run_start(settings),
            manifest=path_text(given.manifest.path.absolute()),
            manifest_sha256=given.manifest.sha256,
            scan_mark="" if last_scan is None else last_scan.fingerprint,
        )
        with suppress(GuardError), command_record(ledger, start) as refused:
            name_run(error, refused.run)
            raise GuardError(error.masked) from None
        raise
    ledger.commit()
    return difference


def _enroll(
    run: Run,
    deletions: _Deletions,
    difference: ManifestDifference,
    core: OneCore | None,
) -> Ended:
    """Delete what earlier syncs left to be deleted at once, then enroll."""
    try:
        run.ledger.diff.accept(run.number)
        run.ledger.commit()
        with suppress(ServiceError):  # `finish` tries again and reports it
            deletions.delete_replaced()
    except EnrollError as error:
        return run.ended(stop=error)
    except KeyboardInterrupt:  # library users may have no signal handler
        return run.ended(signal=signal.SIGINT)
    return run.drive(core, quiet=difference.quiet, suspects=difference.suspects)


def _stop_if_mixed_up(
    ended: Ended, difference: ManifestDifference, settings: SyncSettings
) -> Ended:
    """Stop a sync whose guards could not know how many of the new photos would be held."""
    held, counted = ended.tally.held_now[UNLIKE_BEFORE], difference.result.counted
    because = too_many_held(held, counted, settings)
    if not because or ended.stop is not None:
        return ended
    return replace(ended, stop=GuardError([because], counts=counted.figures()))


class _Deletions:
    """A sync's deletions: replaced faces once their new ones are there, leavers last."""

    def __init__(self, settings: SyncSettings, run: Run, difference: ManifestDifference) -> None:
        self.result = difference.result
        self._settings = settings
        self._run = run
        self._ledger = run.ledger
        self._cutoff = difference.cutoff
        self._bound = ""

    def finish(self, ended: Ended) -> Ended:
        """Delete replaced faces and leavers if the run reached its end; returns how the sync
        ended."""
        through = not (ended.stop or ended.signal or ended.bound)
        diff = self._ledger.diff
        try:
            try:
                if through:
                    self.delete_replaced()
                    self._delete_leavers()
            finally:
                diff.forget_done()
                kept = diff.count_outdated()
                self.result = replace(self.result, kept=kept)
            if through and (behind := diff.count_held_back()):
                self.result = replace(self.result, kept=kept + behind)
                self._run.tally.behind = behind
            self._ledger.commit()
        except EnrollError as error:
            ended = replace(ended, stop=ended.stop or error)
        except KeyboardInterrupt:  # library users may have no signal handler
            ended = replace(ended, signal=signal.SIGINT)
        else:
            if through and self._run.signal is not None:
                ended = replace(ended, signal=self._run.signal)
            elif through:
                ended = replace(ended, bound=self._bound or None)
        return replace(ended, seconds=self._run.ended().seconds)

    def delete_replaced(self) -> None:
        """Delete replaced faces of people whose rows are all enrolled. Raises ServiceError."""
        chosen = self._ledger.deletions.choose_replaced()
        if chosen.faces:
            try:
                self._delete()
            finally:  # what was deleted before an error counts
                left = self._ledger.deletions.choose_replaced()
                replaced = self.result.replaced + chosen.faces - left.faces
                self.result = replace(self.result, replaced=replaced)

    def _delete_leavers(self) -> None:
        chosen = self._ledger.deletions.choose_leavers(cutoff=self._cutoff)
        if chosen.faces and self._check_bounds():
            try:
                self._delete()
            finally:
                left = self._ledger.deletions.choose_leavers(cutoff=self._cutoff)
                self.result = replace(
                    self.result,
                    people=chosen.people - left.people,
                    faces=chosen.faces - left.faces,
                )

    def _delete(self) -> None:
        with self._run.caller() as caller:
            delete_chosen(
                self._ledger, caller, run=self._run.number, go_on=self._check_bounds, seen=True
            )

    def _check_bounds(self) -> bool:
        """Note the bound that was reached, if one was. Returns whether another call may be made."""
        settings, more = self._settings, "and there is more to delete"
        if self._run.signal is not None:
            return False
        if clock.monotonic() >= self._run.given.until:
            after = duration(settings.max_duration or 0.0)
            self._bound = f"--max-duration ({after}) was reached, {more}"
        elif settings.max_calls is not None and self._run.tally.calls.total() >= settings.max_calls:
            self._bound = f"--max-calls was reached, {more}"
        return not self._bound
