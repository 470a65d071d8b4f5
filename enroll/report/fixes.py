"""The commands that a report names: how the last run was started, and what helps with a reason or a
pair of faces."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from enroll.ledger import RUN, RunStart
from enroll.model import Status
from enroll.report.findings import Findings
from enroll.report.lines import IN_DOUBT
from enroll.report.pairs import FacePair, PairGroup
from enroll.session.resemblance import LOOKALIKE, UNLIKE_BEFORE
from enroll.settings import DEFAULT_ENDPOINT, Lookalikes, default_ledger_path
from enroll.text.wording import option_pair
from enroll.visible import visible

_OPTIONS: Mapping[str, str] = {
    "NO_FACE_FOUND": "--multi-oriented-detection --retry NO_FACE_FOUND",
    "PHOTO_TRUNCATED": "--accept-truncated",
    "PHOTO_TOO_MANY_PIXELS": "--max-pixels 200000000",
    "PHOTO_NO_FACE": "--precheck warn",
    "PHOTO_SEVERAL_FACES": "--precheck warn",
    "PHOTO_SMALL_FACE": "--precheck warn",
    "PHOTO_CUT_FACE": "--precheck warn",
    "PHOTO_TILTED_FACE": "--precheck warn",
    "PHOTO_DARK_FACE": "--precheck warn",
    "PHOTO_BRIGHT_FACE": "--precheck warn",
    "PHOTO_BLURRED_FACE": "--precheck warn",
    "PHOTO_MISSING": "--images FOLDER",
    "PHOTO_OUTSIDE": "--images FOLDER",
}
"""Options with which a run may accept what it did not, instead of a correction."""


class Commands:
    """The commands for one ledger, ready to be pasted into a shell."""

    def __init__(self, findings: Findings, ledger: Path, *, text_known: set[str]) -> None:
        """`text_known` are the codes with advice of their own; others are retried by name."""
        run = next((run for run in findings.runs if run.start.command in (RUN, "sync")), None)
        self._known = text_known
        self._place = _place(findings, ledger, run.start.endpoint if run is not None else "")
        verb = RUN if run is None else run.start.command
        self._syncs = verb != RUN
        manifest = findings.manifest or (run.start.manifest if run is not None else "")
        self._run = ["enroll", verb, manifest or "LIST", *self._place, *_given(findings.options)]
        if run is not None:
            self._run += _as_started(run.start)

    def fixing(self, code: str) -> list[str]:
        """What to run once the rows with this reason are corrected, and what might help without
        that."""
        if code == IN_DOUBT:
            by_hand = ["enroll", "resolve", *self._place, "--user-id", "ID", "--not-added"]
            return [shlex.join(self._run), shlex.join(by_hand)]
        if code in (LOOKALIKE, UNLIKE_BEFORE):
            return [shlex.join(self._run), self._accept("ID1,ID2")]
        if code not in self._known:
            return [f"{shlex.join(self._run)} --retry {shlex.quote(code)}"]
        again = shlex.join(self._run)
        return [again, f"{again} {_OPTIONS[code]}"] if code in _OPTIONS else [again]

    def comparing(self, group: PairGroup, pairs: Sequence[FacePair]) -> list[tuple[str, str]]:
        """What to run once these pairs of a group are compared, each with the key of its label."""
        found = [("command", shlex.join(self._run))]
        if group is PairGroup.NOT_ITSELF:
            verify = ["enroll", "verify", "--requeue-missing", *self._place]
            return [("command_verify", shlex.join(verify)), *found]
        # A sync deletes what is no longer in the list. Two photos that are held are not in use.
        if not self._syncs and not all(map(_both_held, pairs)):
            found.insert(0, ("command_remove", self._remove("FILE")))
        return [*found, ("command_accept", self._accept("ID1,ID2"))]

    def accepting(self, pair: FacePair) -> str:
        """What accepts this pair; empty where nothing can, or its ids may not be shown."""
        if pair.group is PairGroup.NOT_ITSELF or not _typed(pair):
            return ""
        return self._accept(",".join(pair.ids or ()))

    def removing(self, pair: FacePair) -> list[tuple[str, str]]:
        """Whose faces could be removed because of this pair, and what does that."""
        if self._syncs or pair.group is PairGroup.NOT_ITSELF or not _typed(pair):
            return []
        people = dict.fromkeys(pair.ids or ())
        if pair.sides[0].status is Status.HELD:  # that photo was not sent
            people = dict.fromkeys([] if _both_held(pair) else (pair.ids or ())[1:])
        return [
            (one, f"echo {shlex.quote(one)} > wrong.txt && {self._remove('wrong.txt')}")
            for one in people
        ]

    def _accept(self, ids: str) -> str:
        return shlex.join(["enroll", "audit", "--accept", ids, *self._place])

    def _remove(self, file: str) -> str:
        return shlex.join(["enroll", "remove", "--user-ids", file, *self._place])

    @property
    def export(self) -> str:
        """What writes every entry to a file."""
        return shlex.join(["enroll", "export", "all.xlsx", *self._place])


def _both_held(pair: FacePair) -> bool:
    return all(side.status is Status.HELD for side in pair.sides)


def _typed(pair: FacePair) -> bool:
    """Whether both ids are known, and can be typed in a pair: other programs have their own rules
    for them."""
    ids = pair.ids or ("",)
    return all(one and visible(one) == one and "," not in one for one in ids)


def _as_started(start: RunStart) -> Iterator[str]:
    """Options of a run without which the next one would not do the same to the rows at hand."""
    if start.photo_root_named:
        yield from ("--images", start.photo_root)
    lookalikes = start.options.get("lookalikes", Lookalikes.OFF)
    if lookalikes != Lookalikes.OFF:
        yield from ("--lookalikes", lookalikes)


def _given(options: Mapping[str, Any]) -> Iterator[str]:
    """The options of the manifest, as they are typed."""
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            for role, column in value.items():
                yield from (option, option_pair(role, column))
        elif isinstance(value, tuple):
            yield from (part for one in value for part in (option, one))
        elif value is not None:
            yield from (option, str(value))


def _place(findings: Findings, ledger: Path, endpoint: str) -> Sequence[str]:
    """The options that lead to library and ledger."""
    found = ["--group-id", findings.identity.group_id]
    if endpoint and endpoint != DEFAULT_ENDPOINT:
        found += ["--endpoint", endpoint]
    usual = default_ledger_path(endpoint or DEFAULT_ENDPOINT, findings.identity.group_id)
    if ledger.absolute() != usual.absolute():
        found += ["--ledger", str(ledger.absolute())]
    return found
