"""How a run begins: its ledger held, its library proved, what an earlier one left made good."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enroll import __version__
from enroll.commands.library import provide_library
from enroll.errors import EnrollError, UsageError
from enroll.facesearch.signing import CLOCK_SLACK_SECONDS, clock_sentence
from enroll.ledger import (
    SURVEY,
    BlockList,
    Ledger,
    LedgerHold,
    LibraryIdentity,
    RunStart,
    Surveyor,
    check_library,
    fingerprint,
    ledger_at,
)
from enroll.manifest.manifest import READING, Manifest, open_manifest, recall_manifest
from enroll.manifest.results import default_results_path
from enroll.manifest.scan import photos_folder
from enroll.manifest.source import Source
from enroll.model import Library
from enroll.ownership import others_can_read, pasteable
from enroll.photos import PhotoStore, marks
from enroll.run.unknown_faces import Trust
from enroll.session.account import Connection, find_library, is_empty
from enroll.session.caller import Caller
from enroll.session.deletions import settle_deleting
from enroll.session.recovery import requeue_deleted
from enroll.session.session import ADOPT, run_start
from enroll.session.tally import Tally
from enroll.settings import RunSettings, default_ledger_path, host_of
from enroll.text.files import InUse, Output, check_output, try_folder
from enroll.text.wording import amount
from enroll.visible import path_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run goes, known before its first photo is sent.

    `images_inherited`: an earlier run decided where the photos' folder is. `notes`
    are sentences for the user, `urgent` those among them that somebody has to see. `unforgotten`
    are people of whom `enroll forget` has not deleted everything yet.
    """

    endpoint: str
    library: Library
    ledger: Path
    store: PhotoStore
    new_ledger: bool
    run: int
    notes: Sequence[str]
    images_inherited: bool = False
    urgent: Sequence[str] = ()
    unforgotten: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """A ledger that is held before the service is called, and may be open by then."""

    lock: LedgerHold
    ledger: Ledger | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the ledger is believed to know the library, its lock, when this run began (UNIX
    ms), what the last scan of this manifest found, and who was forgotten."""

    trust: Trust
    lock: LedgerHold
    began: int
    survey: Surveyor
    blocked: BlockList


def results_path(settings: RunSettings) -> Path | None:
    """Where a run's results go, None for nowhere."""
    if not settings.write_results:
        return None
    return settings.results or default_results_path(settings.manifest)


def ledger_path(settings: RunSettings) -> Path:
    """The ledger's absolute path. Raises UsageError where there is no place for it."""
    named = settings.ledger or default_ledger_path(settings.endpoint, settings.group_id)
    return named.absolute()


def check_results(settings: RunSettings, results: Path) -> None:
    """Raise UsageError for results that must not or cannot be written; hours before they are."""
    output = Output(path=results, option="--results")
    manifests = [settings.manifest]
    check_output(
        output,
        InUse(ledger=ledger_path(settings), manifests=manifests, files=settings.in_use),
    )
    try_folder(output)


def open_run(
    stack: ExitStack,
    settings: RunSettings,
    manifest: Manifest,
    connection: Connection,
    tally: Tally,
    *,
    held: Held | None,
) -> tuple[Ledger, Place, Standing]:
    """Lock the ledger, prove the library, open the ledger, record that the run begins.

    For a new ledger the library is proved first: a run that cannot begin leaves nothing behind.
    """
    path = ledger_path(settings)
    new, empty = not ledger_at(path).exists(), False
    if new:
        library, made = _library(settings, connection, tally, ledger=None)
        empty = _proved_empty(settings, connection, tally, f"there is no ledger ({path})")
    else:
        held = held or hold_ledger(stack, path)
        library, made = _library(settings, connection, tally, ledger=path)
    lock, ledger = _opened(stack, path, held, identity_of(settings, library), empty=empty)
    if ledger.unfinished(ADOPT) and not settings.allow_nonempty:
        raise UsageError(
            f"The adoption of the library {settings.group_id} into {path} was not finished: "
            "enrolling now may add people twice. Run the same `enroll adopt` again, or add to "
            "the library all the same with --allow-nonempty."
        )
    put_back = bool(not new and lock.last_run and not ledger.has_run(lock.last_run))
    lacking = lock if put_back and not settings.allow_nonempty else None
    found = _catch_up(settings, connection, tally, ledger, path, lacking=lacking)
    if not (new or put_back or ledger.knows_a_face()):
        empty = _proved_empty(settings, connection, tally, f"the ledger {path} knows none of them")
        if empty:
            ledger.begins(empty=True)
    if put_back:
        ledger.begins(empty=False)
    photos = photos_folder(settings.images, manifest, ledger)
    store, notes = photos.store, [*made, *photos.notes, *found]
    offset = connection.service.clock_offset
    urgent = list(manifest.notes[:1]) if manifest.encoding_was_guessed else []
    if abs(offset) > CLOCK_SLACK_SECONDS:
        notes = [*notes, clock_sentence(offset)]
        urgent.append(clock_sentence(offset))
    unforgotten = ledger.forgetting.unfinished()
    urgent += [*found, *unforgotten_notes(unforgotten)]
    due_rules = [settings.due_rules(), marks(settings.preparation)]
    blocked = ledger.block_list
    key = _manifest_key(settings, manifest.sha256)
    mark = fingerprint(*key, store.root, due_rules, blocked.mark)
    start = _run_start(settings, manifest, {**photos.record(), SURVEY: mark})
    run = ledger.start_run(
        start, images=store.root, given=photos.named, clock_offset=connection.service.clock_offset
    )
    trust = Trust.LESS if put_back else Trust.UNLESS_SEEN
    if empty or settings.allow_nonempty:
        trust = Trust.WHOLE
    if trust is not Trust.LESS:
        lock.remember_run(start.at)
    place = Place(
        endpoint=settings.endpoint,
        library=library,
        ledger=path,
        store=store,
        new_ledger=new,
        run=run,
        notes=[
            *manifest.notes,
            *notes,
            *retry_notes(settings, ledger),
            *unforgotten_notes(unforgotten),
            *_exposed_notes({"ledger": path, "results file": results_path(settings)}),
        ],
        images_inherited=photos.inherited,
        urgent=urgent,
        unforgotten=unforgotten,
    )
    survey = Surveyor(
        ledger.surveys,
        recalled=ledger.last_scan(),
        manifest=json.dumps([key, manifest.remembered()]),
        mark=mark,
    )
    return ledger, place, Standing(trust, lock, start.at, survey, blocked)


def _catch_up(
    settings: RunSettings,
    connection: Connection,
    tally: Tally,
    ledger: Ledger,
    path: Path,
    *,
    lacking: LedgerHold | None,
) -> list[str]:
    """Find out what became of deletions that were begun, and, where the ledger lacks a run that its
    lock remembers, of faces that were deleted since its copy was taken; sentences about it."""
    if lacking is None and not ledger.removals.intended():
        return []
    with Caller(
        connection,
        tally,
        at_once=settings.max_in_flight,
        known=ledger.ceiling,
        most_calls=settings.max_calls,
    ) as caller:
        said = [settle_deleting(ledger, caller, settings.group_id)]
        if lacking is not None:
            said += requeue_deleted(
                path, ledger, lacking, caller, settings.group_id, options=settings.record()
            )
    return [sentence for sentence in said if sentence]


def hold_ledger(stack: ExitStack, path: Path) -> Held:
    """Lock a ledger that is there. Raises LedgerBusyError, and for a file that is none."""
    ledger_at(path).check()  # before a lock is made beside a file that is something else
    return Held(stack.enter_context(ledger_at(path).hold()))


def _opened(
    stack: ExitStack, path: Path, held: Held | None, identity: LibraryIdentity, *, empty: bool
) -> tuple[LedgerHold, Ledger]:
    """The ledger of this library, whether it was held or not, and open or not."""
    held = held or Held(stack.enter_context(ledger_at(path).hold()))
    if held.ledger is not None:
        check_library(path, held.ledger.identity(), identity)
        return held.lock, held.ledger
    ledger = ledger_at(path).open(identity, began_empty=empty)
    stack.callback(ledger.close)
    return held.lock, ledger


def _library(
    settings: RunSettings, connection: Connection, tally: Tally, *, ledger: Path | None
) -> tuple[Library, Sequence[str]]:
    """The library, made first where that is wanted, and what there is to say of it."""
    if not settings.create_library:
        return find_library(connection, settings.group_id, tally, ledger=ledger), []
    library, made = provide_library(
        connection, settings.group_id, tally, ledger=ledger, most_calls=settings.max_calls
    )
    return library, [f"The account had no library {library.group_id}; it was made."] * made


def _manifest_key(settings: RunSettings, sha256: str) -> list[Any]:
    """What a manifest's rows depend on, beside the photos' folder."""
    columns = [list(pair) for pair in sorted(settings.columns.items())]
    return [
        __version__,
        READING,
        sha256,
        columns,
        settings.encoding,
        settings.sheet,
    ]  # as JSON gives it back


def recall_or_open(settings: RunSettings, *, until: float = math.inf) -> Manifest:
    """The manifest, by what the ledger remembers of a file of the same content if it does. It is
    read no longer than `until` (monotonic), else TimeOverError is raised."""
    source = Source.of(settings.manifest, settings.sheet, until=until)
    known = None
    with suppress(EnrollError):  # what is wrong with the ledger is said when it is opened
        store = ledger_at(ledger_path(settings))
        if store.exists():
            with closing(store.read()) as reader:
                known = reader.last_scan()
    if known is not None:
        key, remembered = json.loads(known.manifest)
        if key == _manifest_key(settings, source.sha256):
            return recall_manifest(source, remembered)
    return open_manifest(
        settings.manifest, columns=settings.columns, encoding=settings.encoding, source=source
    )


def _proved_empty(
    settings: RunSettings, connection: Connection, tally: Tally, because: str
) -> bool:
    """Whether the library holds no face. Raises UsageError for one that does, unless allowed."""
    if settings.max_calls is not None and tally.calls.total() >= settings.max_calls:
        return False  # this run has no call left for it, nor for a photo
    empty = is_empty(connection, settings.group_id, tally)
    if not (empty or settings.allow_nonempty):
        raise UsageError(
            f"The library {settings.group_id} already holds faces, and {because}: enrolling into "
            "it may add people twice. Take them into the ledger with `enroll adopt`, name the "
            "ledger that knows them with --ledger, or add to them all the same with "
            "--allow-nonempty."
        )
    return empty


def identity_of(settings: RunSettings, library: Library) -> LibraryIdentity:
    """What the ledger knows a library by."""
    return LibraryIdentity(
        host=host_of(settings.endpoint), group_id=library.group_id, add_time=library.add_time
    )


def retry_notes(settings: RunSettings, ledger: Ledger) -> list[str]:
    """What to say where no row ended with a code that is to be retried: a slip of the pen."""
    if not settings.retry:
        return []
    known = sorted({error.code for error in ledger.status(runs=0).errors})
    there = f"it has {', '.join(known)}" if known else "it has none"
    return [
        f"No entry of the ledger ended with {code}, which --retry names; {there}."
        for code in sorted(settings.retry.difference(known))
    ]


def unforgotten_notes(people: int) -> list[str]:
    """What to say where so many people are to be forgotten and not everything is gone yet."""
    if not people:
        return []
    are = "is" if people == 1 else "are"
    return [
        f"{amount(people, 'person', 'people')} {are} to be forgotten, and not everything of "
        "theirs is gone yet: the same `enroll forget` goes on."
    ]


def _exposed_notes(files: Mapping[str, Path | None]) -> list[str]:
    """A sentence for each file of ours that names people and that others can read."""
    return [
        f"The {what} {path} can be read by others here, and names people: "
        f"`{pasteable('chmod 600', path)}`."
        for what, path in files.items()
        if path is not None and others_can_read(path)
    ]


def _run_start(settings: RunSettings, manifest: Manifest, found: Mapping[str, object]) -> RunStart:
    return run_start(
        {**settings.record(), **found},
        manifest=path_text(manifest.path.absolute()),
        manifest_sha256=manifest.sha256,
    )
