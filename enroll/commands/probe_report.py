"""What `enroll probe` prints and writes: a table, and the profile for the stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from enroll.commands.probe import ProbeReport, removal
from enroll.commands.probe_notes import Observed, Outcome
from enroll.commands.probe_rules import DOCUMENTED_REQUEST_BYTES, SMALLEST_SIDE, TOO_LARGE
from enroll.settings import DEFAULT_MAX_SIDE
from enroll.text.files import new_file
from enroll.text.wording import amount, columns

PROFILE_VERSION = 1
_BY_NUMBERS = frozenset(
    {
        *("request_id", "score_field", "self_score", "visible_in_search", "visible_in_list"),
        *("side_47", "side_48", "side_4096", "side_4097", "bytes_accepted", "bytes_refused"),
        "signature_single",
    }
)
"""Facts that the profile has members of their own for."""
_MARKS = {Outcome.HOLDS: "", Outcome.DIFFERS: "!", Outcome.UNCHECKED: "?"}


def probe_lines(report: ProbeReport) -> Iterator[str]:
    """The report for a person: documented and observed side by side."""
    head = ("", "fact", "documented", "observed")
    rows = [
        (_MARKS[fact.outcome], fact.name, fact.documented, fact.observed) for fact in report.facts
    ]
    yield from columns([head, *rows])
    yield ""
    held = report.count(Outcome.HOLDS)
    counted = [f"{held} of {amount(len(rows), 'fact')} as documented"]
    differing = [fact.name for fact in report.facts if fact.outcome is Outcome.DIFFERS]
    if differing:
        counted.append(f"{len(differing)} {'differs' if len(differing) == 1 else 'differ'} (!)")
    if unchecked := report.count(Outcome.UNCHECKED):
        counted.append(f"{unchecked} not checked (?)")
    yield f"{', '.join(counted)}. {amount(report.calls, 'call')}."
    if differing:
        yield f"Not as documented: {', '.join(differing)}."
    if report.cleaned:
        yield f"Removed what earlier probes had left: {', '.join(report.cleaned)}."
    yield removal(report.group_id, report.left)


def profile_of(report: ProbeReport) -> dict[str, Any]:
    """What was observed, as `enroll sandbox --profile` reads it; docs/probing.md describes it."""
    seen = report.observed
    return {
        "profile": PROFILE_VERSION,
        "endpoint": report.endpoint,
        "time": report.time.isoformat(),
        "latency": None if report.seconds is None else round(report.seconds, 3),
        "clock_skew": round(report.clock_offset) if abs(report.clock_offset) >= 2 else 0,
        "score_field": seen.score_field,
        "self_score": seen.self_score,
        "search_lag": seen.search_lag,
        "list_lag": None if seen.list_lag == seen.search_lag else seen.list_lag,
        "parallel": seen.parallel,
        "max_start": seen.max_start,
        "max_request_bytes": _most_bytes(seen),
        "min_side": _least_side(seen),
        "max_side": _most_side(seen),
        "answers": {
            name: {"status": status, "error": error} if status >= 400 else {"status": status}
            for name, (status, error) in sorted(seen.answers.items())
            if name not in _BY_NUMBERS or status not in (200, TOO_LARGE)
        },
        "missing": seen.missing,
        "bare": seen.bare,
        "quirks": [
            fact.name
            for fact in report.facts
            if fact.outcome is Outcome.DIFFERS
            and fact.name not in {*seen.answers, *_BY_NUMBERS}
            and not fact.name.endswith("_fields")
        ],
        "facts": [asdict(fact) for fact in report.facts],
    }


def write_profile(report: ProbeReport, path: Path) -> None:
    """Write the profile. Raises LocalError if it cannot be written."""
    text = json.dumps(profile_of(report), ensure_ascii=False, indent=2)
    with new_file(path) as new:
        new.file.write(f"{text}\n".encode())


def _most_bytes(seen: Observed) -> int | None:
    """The largest request: as documented, unless a smaller one was refused or a larger accepted."""
    refused, accepted = seen.refused_bytes, seen.accepted_bytes
    if refused is not None and refused < DOCUMENTED_REQUEST_BYTES:
        return refused - 1
    if accepted is not None and accepted > DOCUMENTED_REQUEST_BYTES:
        return 2 * accepted
    return None if refused is accepted is None else DOCUMENTED_REQUEST_BYTES


def _least_side(seen: Observed) -> int | None:
    small = SMALLEST_SIDE
    if small in seen.refused_sides:
        return small + 1
    if small - 1 in seen.accepted_sides:
        return 1
    return small if small in seen.accepted_sides else None


def _most_side(seen: Observed) -> int | None:
    large = DEFAULT_MAX_SIDE
    if large in seen.refused_sides:
        return large - 1
    if large + 1 in seen.accepted_sides:
        return 4 * large
    return large if large in seen.accepted_sides else None
