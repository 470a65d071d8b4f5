"""What an audit has found, beside what is planted and what the scores show."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from .oracle import RATES, Library, Pair, expected
from .phases import FINDINGS, SUMMARY, Phase, lines
from .staff import Fault, Photo, Planted, Row, Staff

LOOKALIKE, UNLIKE, NOT_ITSELF = "lookalike", "unlike", "not_itself"


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the findings; one id where it is about one person."""

    kind: str
    ids: frozenset[str]
    score: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """A table for people, and all that is wrong."""

    table: list[str]
    wrong: list[str]


def findings(folder: Path) -> list[Finding]:
    """What the audit in this folder has written."""
    return [
        Finding(
            line["finding"],
            frozenset(filter(None, (line["user_id"], line["other_user_id"]))),
            float(line["score"]) if line["score"] else None,
        )
        for line in lines(folder / FINDINGS)
    ]


def told_apart(folder: Path, planted: Sequence[Planted]) -> str:
    """What the audit says to be swapped or misplaced."""
    said = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    swapped, misfiled = (
        sum(one.fault is fault for one in planted) for fault in (Fault.SWAPPED, Fault.MISFILED)
    )
    return (
        f"said to be swapped: {said['swapped']:,} ({swapped:,} planted); "
        f"misplaced: {said['misplaced']:,} ({misfiled:,})"
    )


def judge(
    staff: Staff,
    library: Library,
    found: Sequence[Finding],
    phase: Phase,
    *,
    score: float,
    unlike: float,
) -> Judged:
    """Compare what `--score` and `--unlike` have found with what they must find."""
    pairs = library.lookalikes(score=score)
    true = {pair.ids for pair in pairs if pair.same_person}
    scores = _best(pairs)
    named = {one.ids for one in found if one.kind == LOOKALIKE}
    searches = phase.calls("search")
    own = _own_scores(staff.rows, library)
    table = [
        *fault_table(
            ((one.fault, one.ids in true, one.ids in named) for one in staff.planted), done="found"
        ),
        "",
        *_false_pairs(library, staff.planted, found, true=_ids_of_a_person(staff), lowest=score),
        "",
        *_about_one_person(found, own, unlike=unlike),
        f"searches: {searches:,} for {len(staff.rows):,} photos",
    ]
    wrong = [
        *(
            f"missed: {_names(ids)} {scores[ids]}"
            for ids in sorted(scores.keys() - named, key=_names)
        ),
        *(f"invented: {_names(ids)}" for ids in sorted(named - scores.keys(), key=_names)),
        *(f"{one.kind}: {_names(one.ids)}" for one in found if one.kind == NOT_ITSELF),
        *_unlike_but_alike(found, own, unlike=unlike),
    ]
    if searches != len(staff.rows):
        wrong.append(f"{searches:,} searches for {len(staff.rows):,} photos")
    return Judged(table, wrong)


def fault_table(planted: Iterable[tuple[Fault, bool, bool]], *, done: str) -> list[str]:
    """A line for each kind of fault, and one for all. Each fault comes with whether the scores show
    it, and whether it was found."""
    faults = [*planted]
    heads = ("planted", "shown by scores", done, "share")
    rows = [("", *heads)]
    for name in (*Fault, None):
        of = [one for one in faults if name in (None, one[0])]
        shown, found = sum(one[1] for one in of), sum(one[2] for one in of)
        share = f"{found / len(of):.1%}" if of else ""
        rows.append((name or "all", f"{len(of):,}", f"{shown:,}", f"{found:,}", share))
    return [f"{name:<26}" + "".join(f"{cell:>17}" for cell in cells) for name, *cells in rows]


def _false_pairs(
    library: Library,
    planted: Sequence[Planted],
    found: Sequence[Finding],
    *,
    true: set[frozenset[str]],
    lowest: float,
) -> Iterator[str]:
    """How many pairs of ids would be found with higher scores, too."""
    strangers = library.strangers()
    yield f"{'--score':<10}{'faults found':>14}{'false pairs':>14}{'expected by the rate':>24}"
    for score in sorted({lowest, *(each for each in RATES if each > lowest)}):
        named = {
            one.ids
            for one in found
            if one.kind == LOOKALIKE and one.score is not None and one.score >= score
        }
        right = sum(one.ids in named for one in planted)
        chance = expected(strangers, score=score)
        yield f"{score:<10g}{right:>14,}{len(named - true):>14,}{chance!s:>24}"


def _ids_of_a_person(staff: Staff) -> set[frozenset[str]]:
    """All pairs of ids under which one person is shown."""
    ids = defaultdict[int, set[str]](set)
    for row in staff.rows:
        ids[row.photo.person].add(row.user_id)
    return {frozenset(pair) for known in ids.values() for pair in combinations(known, 2)}


def _about_one_person(
    found: Sequence[Finding], own: Mapping[str, float], *, unlike: float
) -> Iterator[str]:
    apart = {user_id for user_id, lowest in own.items() if lowest < unlike}
    named = {user_id for one in found if one.kind == UNLIKE for user_id in one.ids}
    yield f"unlike: {len(named & apart):,} of {len(apart):,} people whose photos are not alike"
    yield f"not_itself: {sum(one.kind == NOT_ITSELF for one in found):,}"


def _unlike_but_alike(
    found: Sequence[Finding], own: Mapping[str, float], *, unlike: float
) -> Iterator[str]:
    """People whose photos are said not to resemble each other, and do by the scores."""
    named = {user_id for one in found if one.kind == UNLIKE for user_id in one.ids}
    for user_id in sorted(named):
        if own[user_id] >= unlike:
            yield f"unlike although alike: {user_id} {own[user_id]}"


def _own_scores(rows: Sequence[Row], library: Library) -> dict[str, float]:
    """The lowest score of any two photos of each person who has several."""
    photos = defaultdict[str, list[Photo]](list)
    for row in rows:
        photos[row.user_id].append(row.photo)
    return {
        user_id: min(library.score(one, other) for one, other in combinations(own, 2))
        for user_id, own in photos.items()
        if len(own) > 1
    }


def _best(pairs: Iterable[Pair]) -> dict[frozenset[str], float]:
    """The highest score of each pair of ids."""
    best: dict[frozenset[str], float] = {}
    for pair in pairs:
        best[pair.ids] = max(pair.score, best.get(pair.ids, 0.0))
    return best


def _names(ids: Iterable[str]) -> str:
    return " and ".join(sorted(ids))
