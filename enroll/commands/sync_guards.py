"""Whether a sync may carry out a difference, and what to say of the difference. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from enroll.ledger import Diagnosis, DiffCounts, RowDiffKind, SyncResult
from enroll.settings import Bound, SyncSettings
from enroll.text.wording import amount

LEAST_REMOVALS = 10
"""People who may be removed from even the smallest library, if the limit is a percentage."""

LEAST_CHANGES = 100
"""Faces that may be added to it likewise."""

LEAST_EMPTIED = 3
"""If so many texts or more become empty, a column may be at fault."""

MANY_PERCENT = 50
"""The share of rows or people from which a pattern counts as the cause."""


class Guard(StrEnum):
    """What is guarded."""

    EMPTY = "empty"
    """The manifest has no rows."""
    REMOVALS = "removals"
    """People and faces that are to be removed now."""
    GONE = "gone"
    """People who are absent from the manifest for the first time."""
    CHANGES = "changes"
    """Faces that are to be added or replaced."""
    MISSING = "missing"
    """Photos that are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A guard that refuses: how many there are, and how many there may be. `option` and `bound` are
    the option that says so, and its value."""

    guard: Guard
    count: int = 0
    most: int = 0
    option: str = ""
    bound: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen of a refused manifest: its `signs`, whether the photos' folder is empty, and
    some rows of each kind of change, as they may be shown."""

    signs: Diagnosis = field(default_factory=Diagnosis)
    folder_empty: bool = False
    examples: Mapping[RowDiffKind, Sequence[str]] = field(default_factory=dict)


KINDS = {
    Guard.EMPTY: (),
    Guard.REMOVALS: (RowDiffKind.LEAVER, RowDiffKind.OLD),
    Guard.GONE: (RowDiffKind.LEAVER,),
    Guard.CHANGES: (RowDiffKind.JOINER, RowDiffKind.PHOTO, RowDiffKind.USER_DATA),
    Guard.MISSING: (RowDiffKind.MISSING,),
}
"""The kinds of which a guard's message gives examples."""


def refusals(found: DiffCounts, settings: SyncSettings) -> list[Refusal]:
    """Every guard that refuses the difference."""
    if not found.rows:
        return [Refusal(guard=Guard.EMPTY)]
    removals, changes = settings.max_removals, settings.max_changes
    people, least = found.people, LEAST_REMOVALS
    found_over = [
        _over(Guard.MISSING, found.missing, settings.max_missing, of=found.rows),
        _over(Guard.GONE, found.newly_gone, removals, of=people, least=least),
        _over(Guard.REMOVALS, found.removed, removals, of=people, least=least),
    ]
    if found.people and not found.first:  # without faces there is nothing to spoil
        least = 0 if _texts_are_lost(found) else LEAST_CHANGES
        found_over.append(_over(Guard.CHANGES, found.added, changes, of=people, least=least))
    return [one for one in found_over if one is not None]


def _texts_are_lost(found: DiffCounts) -> bool:
    """Whether hardly anybody would keep a text. Then the column is missing, which is not among the
    changes that even the smallest library may make."""
    return found.emptied >= LEAST_EMPTIED and 2 * found.emptied >= found.people


def _over(guard: Guard, count: int, bound: Bound, *, of: int, least: int = 0) -> Refusal | None:
    most = bound.most(of, least=least)
    if count <= most:
        return None
    return Refusal(guard=guard, count=count, most=most, option=_OPTIONS[guard], bound=str(bound))


_OPTIONS = {
    Guard.REMOVALS: "--max-removals",
    Guard.GONE: "--max-removals",
    Guard.CHANGES: "--max-changes",
    Guard.MISSING: "--max-missing",
}


def too_many_held(held: int, found: DiffCounts, settings: SyncSettings) -> str:
    """Why a sync deletes nothing after it has `held` this many new photos of people with a face;
    empty if it may go on."""
    most = settings.max_changes.most(found.people, least=LEAST_CHANGES)
    if held <= most:
        return ""
    return (
        f"{amount(held, 'new photo')} were held because they look like other people, and not like "
        f"the faces that they replace; the limit is {most:,} (--max-changes "
        f"{settings.max_changes}). The photos were probably mixed up, so nothing was deleted. "
        "Restore the photos, then sync again."
    )


def refusal_lines(
    refusals: Sequence[Refusal],
    found: DiffCounts,
    seen: Seen,
    *,
    manifest: str,
) -> list[str]:
    """Why nothing was done: what is too much, some rows, what probably happened, and what to do
    about it."""
    lines = [f"Nothing was done: {manifest} {_too_much(refusals)}."]
    for refusal in refusals:
        if refusal.guard is Guard.EMPTY:
            lines.append(
                "  Syncing it would remove everybody: the export has probably failed. No option "
                "allows that; to remove people, use `enroll remove`."
            )
            continue
        examples = [one for kind in KINDS[refusal.guard] for one in seen.examples.get(kind, ())][:5]
        shown = f" Among them: {', '.join(examples)}." if examples else ""
        reason = _reason(refusal.guard, found, seen)
        lines.append(
            f"  {_sentence(refusal, found)}{shown}{f' {reason}' if reason else ''} If that is "
            f"intended, allow it once with {refusal.option} {refusal.count}."
        )
    if any(refusal.guard is not Guard.EMPTY for refusal in refusals):
        lines.append(
            "  To list all of them without making a call, run the same command with --dry-run "
            "--differences FILE."
        )
    return lines


def _too_much(refusals: Sequence[Refusal]) -> str:
    words = {
        Guard.EMPTY: "has no rows",
        Guard.REMOVALS: "would remove too many faces",
        Guard.GONE: "lacks too many people",
        Guard.CHANGES: "would change too many faces",
        Guard.MISSING: "names too many missing photos",
    }
    return ", and ".join(dict.fromkeys(words[refusal.guard] for refusal in refusals))


def _sentence(refusal: Refusal, found: DiffCounts) -> str:
    count = refusal.count
    allowed = f"the limit is {refusal.most:,} ({refusal.option} {refusal.bound})"
    if refusal.guard is Guard.GONE:
        return (
            f"{count:,} of the {amount(found.people, 'person', 'people')} with a face in the "
            f"library are no longer in the manifest; {allowed}."
        )
    if refusal.guard is Guard.REMOVALS:
        faces = [f"{amount(found.dropped, 'face')} of others"] if found.dropped else []
        if found.superseded:
            faces.append(f"{amount(found.superseded, 'face')} that `enroll run` has superseded")
        who = f"{amount(found.together, 'person', 'people')} past the grace period"
        if found.together < found.leaving:
            who += f", all found absent by one sync; {found.leaving:,} in all"
        what = ", ".join([who, *faces])
        return f"{count:,} would be removed ({what}); {allowed}."
    if refusal.guard is Guard.CHANGES:
        return (
            f"{amount(count, 'face')} would be added ({found.joiners:,} of people who have none, "
            f"{found.photos:,} with a new photo, {found.user_data:,} with a new user_data); "
            f"{allowed}."
        )
    return f"{count:,} of {amount(found.rows, 'photo')} are missing; {allowed}."


def _reason(guard: Guard, found: DiffCounts, seen: Seen) -> str:
    """What probably happened, if there are signs of it."""
    signs = seen.signs
    if guard is Guard.MISSING:
        return _OF_MISSING[seen.folder_empty]
    if signs.swapped >= MANY_PERCENT:
        return (
            "The user ids look like names or photos: the columns were probably renamed or "
            "swapped. Name them with --columns."
        )
    if signs.zeros_lost and 100 * signs.zeros_lost >= MANY_PERCENT * max(found.newly_gone, 1):
        return (
            f"{signs.zeros_lost:,} of the absent people are in the manifest with more or fewer "
            "zeros before the user_id: leading zeros were probably lost, as in a spreadsheet."
        )
    if guard is Guard.REMOVALS and 2 * found.superseded >= found.removed:
        return (
            "A run has replaced their photos: if its list or photos were wrong, the faces to be "
            "removed are the right ones."
        )
    if guard is not Guard.CHANGES and signs.other_manifest:
        return about_another(signs.other_manifest)
    reasons = _OF_CHANGES if guard is Guard.CHANGES else _OF_REMOVALS
    return next((words for holds, words in reasons if holds(found, signs)), "")


_OF_MISSING = {
    True: "The photos' folder is empty: its share is probably not mounted.",
    False: "The photos were probably moved or not copied yet, or the image column is the wrong "
    "one.",
}
"""By whether the photos' folder is empty."""


def about_another(manifest: str) -> str:
    """The sentence about leavers who were enrolled from another manifest."""
    return (
        f"They were enrolled from {manifest}, and hardly anybody else was. A sync takes its "
        "manifest for the complete list: use one manifest for everybody, or a library for each "
        "manifest."
    )


_OF_REMOVALS: Sequence[tuple[Callable[[DiffCounts, Diagnosis], bool], str]] = (
    (
        lambda found, signs: signs.behind and not found.joiners,
        "All of them were enrolled after everybody else: the file was probably cut off.",
    ),
    (
        lambda found, _: 10 * found.joining >= 9 * found.newly_gone > 0,
        "As many are new: the user ids were probably renamed.",
    ),
    (
        lambda found, _: 2 * found.newly_gone >= found.people,
        "The manifest is probably the wrong one, or half a file.",
    ),
)

_OF_CHANGES: Sequence[tuple[Callable[[DiffCounts, Diagnosis], bool], str]] = (
    (
        lambda found, _: found.emptied * 2 >= found.added,
        "Their user_data has become empty: its column was probably renamed.",
    ),
    (
        lambda found, _: 2 * found.user_data >= found.added,
        "The user_data column, or its encoding, is probably the wrong one.",
    ),
    (
        lambda found, _: 2 * found.photos >= found.added,
        "Another program has probably written all photos again.",
    ),
)


def difference_lines(counted: DiffCounts) -> Iterator[str]:
    """The numbers of a difference."""
    yield f"  {counted.joiners:>9,}  joiners: rows of people without a face in the library"
    yield f"  {counted.photos:>9,}  new photos of people with a face"
    yield f"  {counted.user_data:>9,}  rows with a changed user_data"
    if counted.held_back:
        yield f"  {counted.held_back:>9,}  more of these, not added because their photo is missing"
    if counted.accepted:
        yield f"  {counted.accepted:>9,}  rows still to be added, as accepted by an earlier sync"
    yield f"  {counted.dropped:>9,}  faces of people in the manifest whose row is gone"
    if counted.superseded:
        yield f"  {counted.superseded:>9,}  faces superseded by another command"
    yield f"  {counted.leaving:>9,}  leavers to be removed now"
    yield f"  {counted.waiting:>9,}  leavers within the grace period"
    if counted.awaited:
        yield f"  {counted.awaited:>9,}  of these leavers are kept: a held photo looks like theirs"
    if counted.newly_gone:
        yield f"  {counted.newly_gone:>9,}  of these leavers are absent for the first time"
    if counted.returned:
        yield f"  {counted.returned:>9,}  leavers who are back"
    if counted.missing:
        among = ", those of changed rows included" if counted.held_back else ""
        yield f"  {counted.missing:>9,}  missing photos{among}"


def strange_lines(found: SyncResult) -> Iterator[str]:
    """What somebody has to see of a sync even if all was done."""
    if found.other_manifest:
        gone = found.counted.waiting + found.counted.leaving
        count = amount(gone, "leaver has", "leavers have")
        yield f"{count} probably not left. {about_another(found.other_manifest)}"


def sync_lines(found: SyncResult) -> Iterator[str]:
    """A sync's part of the summary."""
    yield "How the manifest differed from the ledger"
    yield from difference_lines(found.counted)
    if found.replaced:
        yield f"{amount(found.replaced, 'face')} deleted after being replaced."
    if found.people:
        faces = amount(found.faces, "face")
        yield f"{amount(found.people, 'leaver')} removed, with {faces}."
    if (left := found.counted.leaving - found.people) > 0:
        yield f"{amount(left, 'leaver')} not removed yet: the next sync continues."
    if found.kept:
        yield (
            f"{amount(found.kept, 'person', 'people')} with a face to be removed: kept until all "
            "their rows are enrolled, or until the next sync."
        )
