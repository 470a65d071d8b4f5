"""How a run begins: hold its ledger, prove its library, finish what a killed run left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from enroll.commands.library import provide_library
from enroll.commands.run_input import RunInput, named_library, scan_record
from enroll.errors import UsageError
from enroll.facesearch.signing import CLOCK_SLACK_SECONDS, clock_sentence
from enroll.ledger import (
    BlockList,
    Ledger,
    ScanCache,
    check_library,
    ledger_at,
)
from enroll.manifest.carry_over import carry_over
from enroll.manifest.scan import ChosenStore, choose_photo_store
from enroll.manifest.suspects import Suspects
from enroll.model import Library
from enroll.ownership import others_can_read, pasteable
from enroll.photos import PhotoStore
from enroll.resources import Concurrency, file_limit
from enroll.runner.job import Trust
from enroll.session.account import Connection, find_library, is_empty
from enroll.session.caller import Caller
from enroll.session.deletions import settle_deleting
from enroll.session.recovery import requeue_deleted
from enroll.session.session import (
    ADOPT,
    Held,
    hold_ledger,
    identity_of,
    run_start,
)
from enroll.settings import RunSettings
from enroll.text.wording import amount
from enroll.visible import path_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a run goes, known before its first photo is sent. `photos_by` says what has chosen the
    photos' folder, where --images has not. `notes` are sentences for the user, `urgent` those that
    somebody has to see. `unforgotten` are people that `enroll forget` has not completely deleted
    yet; `not_photos` are files of a manifest that is a folder or archive."""

    endpoint: str
    library: Library
    ledger: Path
    store: PhotoStore
    new_ledger: bool
    run: int
    notes: Sequence[str]
    photos_by: str = ""
    urgent: Sequence[str] = ()
    unforgotten: int = 0
    not_photos: int = 0


def _chosen_by(photos: ChosenStore) -> str:
    if photos.inside:
        return "the manifest itself"
    return "as in the last run" if photos.inherited else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A run on record, with its ledger held and its library proved.

    `concurrency` is what this machine allows, `trust` how far the ledger is believed to know the
    library; `began` is UNIX ms, `scan_cache` what the last scan of this manifest found, `suspects`
    its rows that are probably mistakes if the scan was carried over from another manifest,
    `forgotten` who was forgotten.
    """

    given: RunInput
    connection: Connection
    concurrency: Concurrency
    held: Held
    destination: Destination
    trust: Trust
    began: int
    scan_cache: ScanCache
    suspects: Suspects | None
    forgotten: BlockList


def hold_known(stack: ExitStack, given: RunInput) -> Held | None:
    """Hold the ledger until the stack is closed; None if there is none yet. Raises LedgerBusyError,
    and LedgerMismatchError if it is another library's."""
    if not ledger_at(given.ledger).exists():
        return None
    return stack.enter_context(hold_ledger(given.ledger, named_library(given.settings)))


def begin_run(
    stack: ExitStack,
    given: RunInput,
    connection: Connection,
    *,
    held: Held | None,
    concurrency: Concurrency,
) -> Opened:
    """Prove the library, finish what a killed run left, and record that the run begins.

    `held` is the ledger, None for a new one: then the library is proved first. `concurrency` is
    what this machine allows. Raises EnrollError.
    """
    opening = _Opening(given, connection, concurrency)
    proved = opening.prove(stack, held)
    found, trust = opening.catch_up(proved)
    return opening.record(proved, found, trust)


def other_calls(settings: RunSettings, connection: Connection, ledger: Ledger) -> Caller:
    """Makes calls outside of the loop, which count with the run's."""
    return Caller(
        connection,
        settings.group_id,
        concurrency=settings.max_in_flight,
        known=ledger.ceiling,
        max_calls=settings.max_calls,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proved:
    """The library, as the account has it, and its ledger. `new`: the ledger was just created;
    `empty`: the library is known to hold no face; `notes` are for the user."""

    library: Library
    held: Held
    new: bool
    empty: bool
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Opening:
    """How a run begins: `prove`, `catch_up`, `record`, and what these go by."""

    given: RunInput
    connection: Connection
    concurrency: Concurrency

    @property
    def settings(self) -> RunSettings:
        return self.given.settings

    def prove(self, stack: ExitStack, held: Held | None) -> _Proved:
        """Prove that the library is the ledger's; create the ledger if there is none."""
        path = self.given.ledger
        new, empty = held is None, False
        library, notes = self._library(known=not new)
        identity = identity_of(self.connection, library)
        if held is None:
            empty = self._prove_empty(f"there is no ledger ({path})")
            held = stack.enter_context(hold_ledger(path, identity, began_empty=empty))
        check_library(path, held.ledger.identity(), identity)
        return _Proved(library=library, held=held, new=new, empty=empty, notes=notes)

    def catch_up(self, proved: _Proved) -> tuple[list[str], Trust]:
        """Finish what earlier commands left; returns notes about it, and how far the ledger can be
        trusted to know the library."""
        settings, path, held = self.settings, self.given.ledger, proved.held
        ledger, last_run, empty = held.ledger, held.lock.last_run, proved.empty
        if ledger.unfinished(ADOPT) and not settings.allow_nonempty:
            raise UsageError(
                f"The adoption of the library {settings.group_id} into {path} was not finished: "
                "enrolling now may add people twice. Run the same `enroll adopt` again, or add to "
                "the library anyway with --allow-nonempty."
            )
        put_back = bool(not proved.new and last_run and not ledger.has_run(last_run))
        found = self._finish_left_over(held, put_back=put_back)
        if put_back:
            ledger.begins(empty=False)
        elif not (proved.new or ledger.knows_a_face()):
            empty = self._prove_empty(f"the ledger {path} knows none of them")
            if empty:
                ledger.begins(empty=True)
        if empty or settings.allow_nonempty:
            return found, Trust.WHOLE
        return found, Trust.LESS if put_back else Trust.UNLESS_SEEN

    def record(self, proved: _Proved, found: Sequence[str], trust: Trust) -> Opened:
        """Record that the run begins; from then on, what a killed run left is in doubt."""
        held, settings, manifest = proved.held, self.settings, self.given.manifest
        ledger, forgotten = held.ledger, held.ledger.block_list
        photos = choose_photo_store(settings.images, manifest, ledger)
        manifest = photos.manifest
        scan = scan_record(settings, manifest, photos.store, forgotten)
        suspects = carry_over(ledger, manifest, photos.store, record=scan)
        start = replace(
            run_start(settings),
            manifest=path_text(manifest.path.absolute()),
            manifest_sha256=manifest.sha256,
            scan_mark=scan.fingerprint,
            photo_root=photos.store.root,
            photo_root_named=photos.named,
        )
        run = ledger.start_run(start, offsets=self.connection.service.clock.offsets)
        if trust is not Trust.LESS:
            held.lock.remember_run(start.at)
        scan_cache = ScanCache(ledger.scan_cache, recalled=ledger.last_scan(), record=scan)
        return Opened(
            given=replace(self.given, manifest=manifest),
            connection=self.connection,
            concurrency=self.concurrency,
            held=held,
            destination=self._destination(proved, photos, found, run=run),
            trust=trust,
            began=start.at,
            scan_cache=scan_cache,
            suspects=suspects,
            forgotten=forgotten,
        )

    def _destination(
        self, proved: _Proved, photos: ChosenStore, found: Sequence[str], *, run: int
    ) -> Destination:
        given, settings, ledger = self.given, self.settings, proved.held.ledger
        manifest, unforgotten = given.manifest, ledger.forgetting.unfinished()
        offset = self.connection.service.clock.offset
        wrong_clock = [clock_sentence(offset)] if abs(offset) > CLOCK_SLACK_SECONDS else []
        bounds, to_forget = _bound_notes(settings, self.concurrency), unforgotten_notes(unforgotten)
        return Destination(
            endpoint=settings.endpoint,
            library=proved.library,
            ledger=given.ledger,
            store=photos.store,
            new_ledger=proved.new,
            run=run,
            notes=[
                *manifest.notes,
                *proved.notes,
                *photos.notes,
                *found,
                *wrong_clock,
                *retry_notes(settings, ledger),
                *to_forget,
                *_exposed_notes({"ledger": given.ledger, "results file": given.results}),
                *bounds,
            ],
            photos_by=_chosen_by(photos),
            urgent=[
                *(manifest.notes[:1] if manifest.encoding_was_guessed else []),
                *wrong_clock,
                *found,
                *to_forget,
                *bounds,
            ],
            unforgotten=unforgotten,
            not_photos=0 if manifest.listing is None else manifest.listing.others.total(),
        )

    def _library(self, *, known: bool) -> tuple[Library, Sequence[str]]:
        """The library, created first if that was asked for, and notes about it; `known` says that
        it has a ledger."""
        settings, ledger = self.settings, self.given.ledger if known else None
        if not settings.create_library:
            return find_library(self.connection, settings.group_id, ledger=ledger), []
        library, made = provide_library(
            self.connection, settings.group_id, ledger=ledger, most_calls=settings.max_calls
        )
        return library, [f"The account had no library {library.group_id}; it was created."] * made

    def _prove_empty(self, because: str) -> bool:
        """Ask whether the library holds no face; False also where no call is left for it. Raises
        UsageError if it holds any, unless that is allowed."""
        settings, connection = self.settings, self.connection
        if settings.max_calls is not None and connection.tally.calls.total() >= settings.max_calls:
            return False  # this run has no call left for it, nor for a photo
        empty = is_empty(connection, settings.group_id)
        if not (empty or settings.allow_nonempty):
            raise UsageError(
                f"The library {settings.group_id} already holds faces, and {because}: enrolling "
                "into it may add people twice. Take them into the ledger with `enroll adopt`, name "
                "the ledger that knows them with --ledger, or add to them anyway with "
                "--allow-nonempty."
            )
        return empty

    def _finish_left_over(self, held: Held, *, put_back: bool) -> list[str]:
        """Find out what became of deletions that were begun and, if the lock remembers a run that
        the ledger lacks, of faces deleted since the ledger was copied; returns notes about it."""
        settings, ledger = self.settings, held.ledger
        lacking = put_back and not settings.allow_nonempty
        if not (lacking or ledger.deletions.intended()):
            return []
        with other_calls(settings, self.connection, ledger) as caller:
            said = [settle_deleting(ledger, caller)]
            if lacking:
                said += requeue_deleted(
                    self.given.ledger,
                    ledger,
                    held.lock,
                    caller,
                    settings=settings,
                )
        return [sentence for sentence in said if sentence]


def retry_notes(settings: RunSettings, ledger: Ledger) -> list[str]:
    """The note if no row ended with a code given to --retry: probably a typing mistake."""
    if not settings.retry:
        return []
    known = sorted({error.code for error in ledger.status(runs=0).errors})
    there = f"it has {', '.join(known)}" if known else "it has none"
    return [
        f"No entry of the ledger ended with {code}, which --retry names; {there}."
        for code in sorted(settings.retry.difference(known))
    ]


def unforgotten_notes(people: int) -> list[str]:
    """The note if that many people are not completely forgotten yet."""
    if not people:
        return []
    are = "is" if people == 1 else "are"
    return [
        f"{amount(people, 'person', 'people')} {are} not completely forgotten yet: run the same "
        "`enroll forget` again."
    ]


def _exposed_notes(files: Mapping[str, Path | None]) -> list[str]:
    """One sentence for each file of this user that names people and that others can read."""
    return [
        f"Others on this machine can read the {what} {path}, which names people. Run "
        f"`{pasteable('chmod 600', path)}`."
        for what, path in files.items()
        if path is not None and others_can_read(path)
    ]


def _bound_notes(settings: RunSettings, concurrency: Concurrency) -> list[str]:
    """What to say where fewer calls may be made at a time than was asked for."""
    wanted = settings.max_in_flight
    if wanted is None or wanted <= concurrency.calls:
        return []
    return [
        f"--max-in-flight {wanted:,} needs more connections than this command may open: of "
        f"{file_limit():,.0f} open files (ulimit -n) there are {concurrency.calls:,} for calls. "
        "Raise that limit for more."
    ]
