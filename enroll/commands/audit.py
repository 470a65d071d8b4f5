"""`enroll audit`: search the library with each enrolled face, and find whoever is somebody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

from enroll import clock
from enroll.commands.audit_report import Audited, audited_lines, first_findings, write_findings
from enroll.commands.audit_search import AuditSearch, photos_gone
from enroll.errors import EnrollError, ExitCode, LocalError, ServiceError, UsageError
from enroll.ledger import Ledger
from enroll.manifest.rules import read_user_ids
from enroll.model import OPEN, Credentials, Status
from enroll.photos import limit_memory, open_stores
from enroll.runner.sample import Reservoir
from enroll.session.library_faces import PhotoSearch
from enroll.session.session import (
    CommandRecord,
    Prompt,
    Session,
    SessionSettings,
    changing,
    command_record,
    command_start,
    hold_ledger,
    known_library,
    open_session,
    run_defaults,
)
from enroll.settings import LOOKALIKE_SCORE, UNLIKE_SCORE, files_record
from enroll.text.logs import mask, several
from enroll.text.wording import amount
from enroll.visible import path_text

NAMED = 5
"""How many unknown people are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings(SessionSettings):
    """What `enroll audit` is to do.

    Faces that no audit has searched with are chosen, with `again` all; only those that `of_run`
    enrolled, or of the people in the file `user_ids`; and of these `sample`, drawn at random.
    `findings` is a table to write the findings to. `accept` are groups of people who may look
    alike, which `accept_pairs` records.
    """

    command: ClassVar[str] = "audit"

    sample: int | None = None
    seed: int = 0
    again: bool = False
    of_run: int | None = None
    user_ids: Path | None = None
    score: float = LOOKALIKE_SCORE
    unlike: float = UNLIKE_SCORE
    findings: Path | None = None
    accept: Sequence[Sequence[str]] = ()
    show_user_ids: bool = False

    @property
    def tables(self) -> Mapping[str, Path | None]:
        return {"--findings": self.findings}

    def record(self) -> dict[str, Any]:
        return {
            "sample": self.sample,
            "seed": self.seed,
            "again": self.again,
            "audit_run": self.of_run,
            "user_ids": path_text(self.user_ids or ""),
            "score": self.score,
            "unlike": self.unlike,
        }

    @property
    def files(self) -> dict[str, str]:
        return files_record(
            {
                "the findings": self.findings,
                "the summary": self.summary,
                "the user ids": self.user_ids,
            }
        )


def audit(
    settings: AuditSettings, read_credentials: Callable[[], Credentials], prompt: Prompt
) -> Audited:
    """Search the library with the faces that are chosen, and record and show what is wrong.

    What is found is on record, so that a stopped audit goes on. Once it has begun, what stopped it
    is in the outcome's `stop`. Raises EnrollError where it cannot begin.
    """
    people = None if settings.user_ids is None else read_user_ids(settings.user_ids)
    limit_memory(None)
    with (
        open_session(settings, read_credentials, prompt) as session,
        changing(session) as (ledger, work),
    ):
        if settings.of_run is not None and settings.of_run >= work.run:
            raise UsageError(f"There is no run {settings.of_run}. `enroll status` lists them.")
        chosen = _chosen(settings, ledger, people, prompt)
        if settings.again:
            ledger.findings.audit_again(chosen)
            ledger.commit()
        prompt.say(_plan(settings, len(chosen)))
        search = _search(session, ledger, work)
        stop = _stopped(search, chosen, ledger)
        audited = _audited(session, search, work, stop=stop)
        work.exit_code, work.reason = audited.exit_code, str(stop or "")
        if settings.findings is not None:
            write_findings(settings.findings, ledger)
        prompt.say(
            "",
            *audited_lines(audited, shown=settings.show_user_ids, file=settings.findings),
        )
        return audited


def _plan(settings: AuditSettings, chosen: int) -> str:
    if chosen or settings.again:
        return f"{amount(chosen, 'face')} to search the library with, one call each."
    return "No new face to search the library with. --again searches with all once more."


def _chosen(
    settings: AuditSettings, ledger: Ledger, people: Sequence[str] | None, prompt: Prompt
) -> Sequence[int]:
    """The numbers of the faces to search with, in order."""
    if people is not None:
        people = ledger.forgetting.as_known(people)
        if unknown := [one for one, faces in ledger.faces_of(people).items() if not faces]:
            names = several(unknown, most=NAMED, shown=settings.show_user_ids)
            prompt.say(
                f"The ledger has no face of {len(unknown):,} of the "
                f"{amount(len(people), 'person', 'people')}: {names}."
            )
    found = ledger.findings.to_audit(again=settings.again, run=settings.of_run, people=people)
    if settings.sample is None:
        return list(found)
    sample: Reservoir[int] = Reservoir(settings.sample, settings.seed)
    for face_id in found:
        sample.offer(face_id)
    return sorted(sample.drawn)


def _search(session: Session[AuditSettings], ledger: Ledger, work: CommandRecord) -> AuditSearch:
    settings, defaults = session.settings, session.defaults
    photos = open_stores(ledger.photo_roots or [""])
    return AuditSearch(
        photos=photos,
        caller=session.caller,
        ledger=ledger,
        work=work,
        photo_search=PhotoSearch(
            group_id=session.group_id,
            store=photos,
            send_as=defaults.send_as,
            threshold=min(settings.score, settings.unlike),
        ),
        score=settings.score,
        unlike=settings.unlike,
        settle=max(ledger.lag, defaults.settle_after),
        prompt=session.prompt,
    )


def _stopped(
    search: AuditSearch, chosen: Sequence[int], ledger: Ledger
) -> ServiceError | LocalError | None:
    """Search; what has stopped it, if anything."""
    if chosen and search.photos.none_is_there():
        return photos_gone(search.photos.roots[0])
    try:
        search.search(chosen)
    except (ServiceError, LocalError) as error:
        if ledger.holds_back:  # the disk is full, and nothing can be said of the ledger
            raise
        return error
    return None


def _audited(
    session: Session[AuditSettings],
    search: AuditSearch,
    work: CommandRecord,
    *,
    stop: EnrollError | None,
) -> Audited:
    status = search.ledger.status(runs=0)
    tally = session.caller.connection.tally
    return Audited(
        ledger=session.settings.ledger,
        endpoint=session.defaults.endpoint,
        group_id=session.group_id,
        run=work.run,
        chosen=search.chosen,
        searched=search.searched,
        photos_gone=search.photos_gone,
        too_new=search.too_new,
        uncompared=search.uncompared,
        cut_at=search.cut_at,
        refused=dict(search.refused),
        left=search.left,
        enrolled=status.counts.get(Status.ENROLLED, 0),
        in_doubt=sum(status.counts.get(one, 0) for one in OPEN),
        not_audited=status.not_audited,
        found=search.ledger.audits().findings,
        findings=first_findings(search.ledger),
        calls=dict(tally.calls),
        calls_refused=tally.refused,
        stop=stop,
    )


# Accepting


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """How many pairs of people were accepted, `own` of them of one person twice, how many had been
    before, and how many held photos are due again. `waiting` are the pairs for which photos of
    these people are still held, each with the held photo's person first."""

    pairs: int
    own: int
    known: int
    released: int
    waiting: Sequence[tuple[str, str]] = ()
    run: int
    exit_code: ClassVar[ExitCode] = ExitCode.DONE
    stop: ClassVar[EnrollError | None] = None

    def figures(self) -> dict[str, Any]:
        """What was accepted, in numbers."""
        return {
            "run": self.run,
            "accepted": self.pairs,
            "accepted_before": self.known,
            "released": self.released,
        }


def accept_pairs(settings: AuditSettings, prompt: Prompt) -> Accepted:
    """Record that people may look alike, each group's members with each other, without a call.
    Raises EnrollError."""
    groups = [[one.strip() for one in group] for group in settings.accept]
    if any(len(group) < 2 or not all(group) for group in groups):
        raise UsageError(
            "--accept takes the ids of people who may look alike, separated by commas: ID1,ID2. "
            "For two photos of one person that may differ, give the same id twice: ID,ID."
        )
    library = known_library(settings.ledger, group_id=settings.group_id)
    with hold_ledger(settings.ledger, library) as held:
        ledger = held.ledger
        _check_known(ledger, sorted({one for group in groups for one in group}))
        defaults = run_defaults(ledger, endpoint=None)
        start = command_start(settings, defaults, group_id=library.group_id)
        with command_record(ledger, start) as work:
            accepted = _accept(groups, ledger, work)
        if settings.findings is not None:
            write_findings(settings.findings, ledger)
    prompt.say(*_accepted_lines(accepted, shown=settings.show_user_ids))
    return accepted


def _check_known(ledger: Ledger, people: Sequence[str]) -> None:
    """Raise UsageError for people that neither ledger nor findings know."""
    unknown = ledger.forgetting.unknown_people(people)
    if not unknown:
        return
    named = {pair.finding.other_user_id for pair in ledger.pairs()}
    lines = []
    for user_id, alike in unknown.items():
        if user_id not in named:
            hint = f" Perhaps {' or '.join(alike[:NAMED])} is meant." if alike else ""
            lines.append(f"The ledger has no {user_id}, and no finding names it.{hint}")
    if lines:
        raise UsageError(" ".join([*lines, "Nothing was accepted. Correct --accept."]))


def _accept(groups: Sequence[Sequence[str]], ledger: Ledger, work: CommandRecord) -> Accepted:
    pairs = {(min(pair), max(pair)) for group in groups for pair in combinations(group, 2)}
    known = ledger.findings.accepted(one for pair in pairs for one in pair)
    released = sum(
        ledger.findings.accept(*pair, at=clock.now_ms(), run=work.run)
        for pair in sorted(pairs)  # once more, too: what held a photo may have been forgotten
    )
    ledger.commit()
    people = {one for pair in pairs for one in pair}
    waiting = {
        (pair.user_id, pair.finding.other_user_id): None
        for pair in ledger.pairs()
        if pair.status is Status.HELD and pair.user_id in people
    }
    return Accepted(
        pairs=len(pairs - known),
        own=sum(one == other for one, other in pairs - known),
        known=len(pairs & known),
        released=released,
        waiting=list(waiting),
        run=work.run,
    )


def _accepted_lines(accepted: Accepted, *, shown: bool) -> Iterator[str]:
    if of_two := accepted.pairs - accepted.own:
        yield (
            f"{amount(of_two, 'pair of people', 'pairs of people')} accepted: that they look alike "
            "is no finding."
        )
    if accepted.own:
        own = amount(accepted.own, "person", "people")
        yield f"{own} accepted: photos of one person may differ."
    if accepted.known:
        yield f"{amount(accepted.known, 'pair', 'pairs')} had been accepted before."
    if accepted.released:
        yield (
            f"{amount(accepted.released, 'held photo')} due again: the next `enroll run` or "
            "`enroll sync` sends them."
        )
    if accepted.waiting:
        yield "Photos are still held, because they look like others, too. If that is right:"
        for pair in accepted.waiting[:NAMED]:
            yield f"  enroll audit --accept {','.join(pair if shown else map(mask, pair))}"
        if (more := len(accepted.waiting) - NAMED) > 0:
            yield f"  and {amount(more, 'more pair')}"
        if not shown:
            yield "  --show-user-ids shows the ids."
