"""`enroll adopt`: take faces that a library already holds into a ledger."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from enroll.allowed import check_settings
from enroll.commands.adopt_decisions import OwnScore
from enroll.commands.adopt_report import (
    REPORT_COLUMNS,
    REPORT_RULES,
    Adoption,
    Remarks,
    adopted_lines,
    opening_lines,
)
from enroll.commands.adopt_search import AdoptSearch
from enroll.commands.run_input import ledger_path, named_library, results_on_record
from enroll.errors import UsageError
from enroll.ledger import (
    Ledger,
    LedgerHold,
    Listing,
    check_library,
    empty_listing,
    ledger_at,
)
from enroll.manifest.manifest import Manifest, open_manifest
from enroll.manifest.scan import CHUNK_ROWS, ChosenStore, Scan, choose_photo_store
from enroll.model import Credentials
from enroll.photos import limit_memory
from enroll.session.account import connect, find_library
from enroll.session.caller import Caller
from enroll.session.library_faces import ListedLibrary, PhotoSearch, read_library
from enroll.session.session import (
    ADOPT,
    Prompt,
    command_record,
    hold_ledger,
    identity_of,
    run_start,
)
from enroll.settings import RunSettings, files_record
from enroll.text.files import InUse, Output, check_new_file
from enroll.text.tables import maybe_table
from enroll.visible import path_text

NO_GROUP_ID = "--group-id is needed: the library whose faces to adopt."


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptSettings:
    """What `enroll adopt` is to do; docs/reference.md describes the options.

    `run` holds the settings that it shares with `enroll run`. `score` is the minimum that counts as
    a photo's own face, None to learn it; `report` is a table of the rows that need review.
    """

    run: RunSettings
    score: float | None = None
    dry_run: bool = False
    report: Path | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for values that the command line refuses, with the same message."""
        check_settings(self)
        if not self.run.group_id:
            raise UsageError(NO_GROUP_ID)


def adopt(
    settings: AdoptSettings, read_credentials: Callable[[], Credentials], prompt: Prompt
) -> Adoption:
    """Match the manifest's rows with the library's faces, and record their tokens in the ledger.

    With `dry_run`, only report what that takes. Rows that the ledger has as enrolled are skipped,
    so an interrupted adoption continues. Raises EnrollError.
    """
    run = settings.run
    limit_memory(run.memory)
    manifest = open_manifest(run.manifest, **run.manifest_options)
    path = ledger_path(run)
    if settings.report is not None:
        output = Output(path=settings.report, option="--report")
        in_use = InUse(
            ledger=path,
            manifests=[manifest.path],
            results=results_on_record(path),
            files=run.in_use,
        )
        check_new_file(output, in_use)
    with ExitStack() as stack:
        store, held = ledger_at(path), None
        if store.exists() and settings.dry_run:
            store.check()  # before anything is called
        elif store.exists():
            held = stack.enter_context(hold_ledger(path, named_library(run)))
        connection = stack.enter_context(
            connect(run, read_credentials, endpoint=run.endpoint, announce=prompt.connecting)
        )
        identity = identity_of(connection, find_library(connection, run.group_id))
        if held is not None:
            check_library(path, held.ledger.identity(), identity)
        caller = stack.enter_context(
            Caller(connection, run.group_id, concurrency=run.max_in_flight)
        )
        listing = stack.enter_context(closing(empty_listing()))
        listed = read_library(
            caller, listing, on_progress=lambda n: prompt.progress(n, "faces listed")
        )
        ledger: Ledger
        if settings.dry_run:
            ledger = store.scratch(identity)
            stack.callback(ledger.close)
        else:  # a new one is made once the library has shown something
            held = held or stack.enter_context(hold_ledger(path, identity))
            ledger = held.ledger
        lock = None if held is None else held.lock
        return _Work(settings, manifest, prompt, caller, listing, ledger, lock).adopt(path, listed)


@dataclass(frozen=True, slots=True)
class _Work:
    """An adoption whose library has been read and whose ledger is open."""

    settings: AdoptSettings
    manifest: Manifest
    prompt: Prompt
    caller: Caller
    listing: Listing
    ledger: Ledger
    lock: LedgerHold | None

    def adopt(self, path: Path, listed: ListedLibrary) -> Adoption:
        run = self.settings.run
        photos = choose_photo_store(run.images, self.manifest, self.ledger)
        store, notes = photos.store, photos.notes
        adoption = Adoption(
            ledger=path,
            photo_root=store.root,
            group_id=run.group_id,
            endpoint=run.endpoint,
            listed=listed,
            notes=(*self.manifest.notes, *notes),
        )
        if self.settings.dry_run:
            self._count(adoption, photos, None)
            self._count_calls(adoption)
            self.prompt.say(*opening_lines(adoption))
            return adoption
        start = replace(
            run_start(run, command=ADOPT),
            manifest=path_text(self.manifest.path.absolute()),
            manifest_sha256=self.manifest.sha256,
            photo_root=store.root,
            photo_root_named=photos.named,
            files=files_record({"the report": self.settings.report}),
        )
        with command_record(self.ledger, start, connection=self.caller.connection) as work:
            adoption.run = work.run
            self._count(adoption, photos, work.run)
            self.prompt.say(*opening_lines(adoption))
            photo_search = PhotoSearch(group_id=run.group_id, store=store, send_as=run.send_as)
            if adoption.to_search:
                adoption.own = self._known_own_score(photo_search)
            report = self.settings.report
            with maybe_table(report, REPORT_COLUMNS, rules=REPORT_RULES) as table:
                remarks = Remarks(table)
                AdoptSearch(
                    caller=self.caller,
                    ledger=self.ledger,
                    listing=self.listing,
                    work=work,
                    photo_search=photo_search,
                    multi_oriented_detection=run.multi_oriented_detection,
                    adoption=adoption,
                    remarks=remarks,
                    prompt=self.prompt,
                ).adopt(self.listing.rows_by_person(listed_only=listed.whole))
            adoption.to_look_at = remarks.count
            adoption.unknown = sum(
                len(tokens) - len(self.ledger.holders_of(tokens))
                for tokens in self.listing.tokens()
            )
            if self.lock is not None:
                self.lock.remember_run(work.began)  # what the ledger lacked has been taken in
            work.exit_code = adoption.exit_code
        self._count_calls(adoption)
        self.prompt.say("", *adopted_lines(adoption, self.settings.report))
        return adoption

    def _count_calls(self, adoption: Adoption) -> None:
        tally = self.caller.connection.tally
        adoption.calls, adoption.calls_refused = dict(tally.calls), tally.refused

    def _count(self, adoption: Adoption, photos: ChosenStore, run: int | None) -> None:
        """Compare the manifest with the ledger; choose the rows that may have a face in the
        library."""
        scan = Scan(photos.manifest.rows(CHUNK_ROWS), photos.store)
        forgotten = self.ledger.block_list
        while (scanned := scan.next_chunk()) is not None:
            rows, withheld = forgotten.part(scanned)
            adoption.withheld += len(withheld)
            compared = self.ledger.due_rows.compare(rows, run=run)
            adoption.known += compared.unchanged + compared.gone
            sound = [
                one.row for one in compared.candidates if self.manifest.fault_of(one.row) is None
            ]
            adoption.invalid += len(compared.candidates) - len(sound)
            self.listing.add_rows(sound)
            if run is not None:
                self.ledger.commit()
        adoption.rows = self.listing.count_rows(listed_only=False)
        adoption.to_search = self.listing.count_rows(listed_only=adoption.listed.whole)

    def _known_own_score(self, photo_search: PhotoSearch) -> OwnScore | None:
        """The score of own faces: as set, or measured with a face whose token the ledger knows."""
        if self.settings.score is not None:
            return OwnScore(self.settings.score, set_by_hand=True)
        score = photo_search.own_score(self.caller, self.ledger)
        return None if score is None else OwnScore(score)
