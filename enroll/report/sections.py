"""The words and numbers of a report's page, as its template takes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from enroll import __version__
from enroll.ledger import RunRecord
from enroll.model import Status
from enroll.report.chart import courses, run_rows
from enroll.report.findings import Findings, Scope
from enroll.report.fixes import Commands
from enroll.report.lines import NEEDS_A_PERSON
from enroll.report.pictures import Pictures
from enroll.report.texts import Texts
from enroll.session.resemblance import LOOKALIKE, UNLIKE_BEFORE
from enroll.text.wording import size

PICTURES_IN_BLOCK = 100

GROUPS_SHOWN = 200
"""Values of --by in its table; the filter has all."""

ALL_OPEN = 30
"""Rows that need a person up to which the page shows all of them from the beginning."""

COLUMNS = (
    *("line", "id", "data", "path", "status", "reason", "message", "group", "edits", "at"),
    "picture",
)
"""What the page's script knows of a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSettings:
    """`max_bytes` of a file, at most `most_pictures` in it, when it is made, of which ledger."""

    max_bytes: int
    most_pictures: int
    made: datetime
    ledger: Path
    statuses: frozenset[Status] = frozenset()
    masked: bool = False


class Sections:
    """What the page says around its lines."""

    def __init__(
        self, findings: Findings, scope: Scope, texts: Texts, settings: PageSettings
    ) -> None:
        self._findings, self._scope = findings, scope
        self._texts, self._settings = texts, settings
        self.statuses = sorted(scope.statuses, key=by_status)
        self.reasons = [reason for reason, _ in scope.reasons.most_common()]
        self.groups = list(scope.groups)
        self.edits = ["", *sorted(filter(None, scope.edits))]
        known = {reason for reason in self.reasons if texts.knows(reason)}
        self.commands = Commands(findings, settings.ledger, text_known=known)

    def words(self, pictures: Pictures, kept: int) -> dict[str, Any]:
        """The template's variables; the first `kept` lines are in the page."""
        findings, scope, text = self._findings, self._scope, self._texts.text
        made = self._settings.made.astimezone()
        return {
            "t": SimpleNamespace(**text),  # a dict has methods of such names
            "language": self._texts.language.value,
            "version": __version__,
            "library": findings.identity,
            "manifest": findings.manifest,
            "missing": findings.missing,
            "photos": "" if findings.photos is None else findings.photos.root,
            "made": made.strftime("%Y-%m-%d %H:%M %Z"),
            "value": scope.value,
            "masked": self._settings.masked,
            "status_words": {one.value: self._texts.status[one.value] for one in Status},
            "statuses": [(one.value, scope.statuses[one]) for one in self.statuses],
            "statuses_only": sorted(one.value for one in self._settings.statuses),
            "shares": _shares(scope),
            "total": scope.total,
            "in_need": scope.in_need,
            "enrolled": scope.statuses[Status.ENROLLED],
            "reasons": self._reasons(kept),
            "pictures_shown": len(pictures.made),
            "pictures_left_out": pictures.left_out,
            "by": findings.by,
            **self._groups(),
            "pair_groups": self._pair_groups(),
            "pair_total": scope.pair_counts.total(),
            "more_pairs": scope.more_pairs,
            "same_count": len(scope.same),
            "more_same": scope.more_same,
            "edits": self._edits(),
            "courses": courses(findings.runs),
            "runs": self._runs(),
            "table_note": self._table_note(kept),
            "export_command": self.commands.export,
        }

    def facts(self, pictures: Pictures) -> dict[str, Any]:
        """What the page's script needs to know."""
        ranges = []
        first = 0
        for reason, lines in self._scope.by_reason():
            ranges.append((reason, first, first + len(lines)))
            first += len(lines)
        return {
            "language": self._texts.language.value,
            "text": self._texts.text,
            "columns": COLUMNS,
            "by": self._findings.by,
            "groups": self.groups,
            "statuses": [
                {"name": one.value, "words": self._texts.status[one.value]} for one in self.statuses
            ],
            "statusWords": self._texts.status,
            "reasons": [
                {
                    "code": reason,
                    "title": self._texts.reason(reason).title,
                    "count": self._scope.reasons[reason],
                    "from": begin,
                    "to": end,
                }
                for reason, begin, end in ranges
            ],
            "edits": [self.edit_words(words) if words else "" for words in self.edits],
            "pairs": list(self._scope.pair_counts.values()),
            "faults": [
                self._texts.reason(code).title for code in dict.fromkeys(pictures.faults.values())
            ],
            "perBlock": PICTURES_IN_BLOCK,
            "pictureType": "image/webp",
            "openAll": self._scope.in_need <= ALL_OPEN,
            "ledgerOnly": not self._findings.manifest,
        }

    def _reasons(self, kept: int) -> list[dict[str, Any]]:
        reasons = []
        first = 0
        for reason, lines in self._scope.by_reason():
            here = min(max(kept - first, 0), len(lines))
            first += len(lines)
            words = self._texts.reason(reason)
            reasons.append(
                {
                    "code": reason,
                    "title": words.title,
                    "advice": words.advice,
                    "count": self._scope.reasons[reason],
                    "left_out": self._scope.reasons[reason] - here,
                    "commands": self.commands.fixing(reason),
                    "has_pairs": reason in (LOOKALIKE, UNLIKE_BEFORE) and bool(self._scope.pairs),
                }
            )
        return reasons

    def _pair_groups(self) -> list[dict[str, Any]]:
        groups = []
        for group, count in self._scope.pair_counts.items():
            words = self._texts.pair_group(group)
            commands = self.commands.comparing(group, self._scope.pairs[group])
            groups.append(
                {
                    "name": group.value,
                    "title": words.title,
                    "advice": words.advice,
                    "count": count,
                    "left_out": count - len(self._scope.pairs[group]),
                    "commands": [(self._texts.text[label], one) for label, one in commands],
                }
            )
        return groups

    def _groups(self) -> dict[str, Any]:
        """The table of --by, whose rows with the most to do come first."""
        if not self._findings.by or self._scope.value is not None:
            return {"groups": [], "group_names": [], "groups_left_out": 0}
        groups: list[dict[str, Any]] = []
        for place, name in enumerate(self.groups):
            counts = self._scope.groups[name]
            need = sum(counts[status] for status in NEEDS_A_PERSON)
            enrolled = counts[Status.ENROLLED]
            groups.append(
                {
                    "index": place,
                    "name": name,
                    "need": need,
                    "enrolled": enrolled,
                    "others": counts.total() - need - enrolled,
                    "total": counts.total(),
                }
            )
        groups.sort(key=lambda group: (-group["need"], group["name"]))
        return {
            "groups": groups[:GROUPS_SHOWN],
            "group_names": self.groups,
            "groups_left_out": max(len(groups) - GROUPS_SHOWN, 0),
        }

    def _edits(self) -> list[dict[str, Any]]:
        """How often each thing was done to a photo; several may have been done to one."""
        counts: dict[str, int] = {}
        for words, count in self._scope.edits.items():
            for word in words.split(", "):
                counts[word] = counts.get(word, 0) + count
        whole = self._scope.edits.total() or 1
        if set(counts) <= {""}:
            return []
        return [
            {
                "words": self.edit_words(word),
                "count": count,
                "share": round(100 * count / whole, 2),
            }
            for word, count in sorted(counts.items(), key=lambda one: (one[0] == "", -one[1]))
        ]

    def edit_words(self, words: str) -> str:
        """What was done to a photo, in words; `words` is the ledger's text."""
        names = [self._texts.text.get(f"edit.{word}", word) for word in words.split(", ")]
        return ", ".join(names)

    def _runs(self) -> list[dict[str, Any]]:
        return [
            {
                "number": row.record.run,
                "command": row.record.start.command,
                "started": _local(row.record.start.at),
                "took": row.took,
                "answered": row.answered,
                "refused": row.refused,
                "answered_share": row.answered_share,
                "refused_share": row.refused_share,
                "ended": self._how_it_ended(row.record),
            }
            for row in run_rows(self._findings.runs)
        ]

    def _how_it_ended(self, run: RunRecord) -> str:
        text = self._texts.text
        if run.end is None:
            return text["ended_open"]
        words = text.get(f"ended_{run.end.exit_code}", text["ended_other"])
        return words.format(code=run.end.exit_code)

    def _table_note(self, kept: int) -> str:
        scope, text = self._scope, self._texts.text
        if kept >= scope.total:
            return ""
        held = kept >= scope.in_need
        words = text["table_part"] if held else text["table_part_cut"]
        return words.format(
            shown=f"{kept:,}", count=f"{scope.total:,}", size=size(self._settings.max_bytes)
        )


def by_status(status: Status) -> tuple[bool, int]:
    """What statuses are ordered by: the usual one first."""
    return status is not Status.ENROLLED, list(Status).index(status)


def _local(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _shares(scope: Scope) -> list[dict[str, Any]]:
    """The parts of the bar of statuses, of 1,000; the few are not too thin to be seen."""
    order = sorted(scope.statuses.items(), key=lambda one: by_status(one[0]))
    wide = [(status.value, max(1000 * count / scope.total, 4.0)) for status, count in order]
    whole = sum(width for _, width in wide)
    parts, at = [], 0.0
    for status, width in wide:
        part = 1000 * width / whole
        parts.append({"status": status, "x": round(at, 2), "width": round(part, 2)})
        at += part
    return parts
