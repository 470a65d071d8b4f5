"""Syncs that are killed: started again, the library is what the manifest says."""

from __future__ import annotations

import csv
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from killing import Kill, Runner
from small_case import Case, picture

from enroll.model import Status
from enroll.sandbox import Limits, Sandbox

FREE = ("--grace", "0", "--max-removals", "100%", "--max-changes", "100", "--max-missing", "100%")
"""No grace, and no guard."""

EVERY = int(os.environ.get("ENROLL_TEST_EVERY", "21"))
"""Of the points at which a sync may be killed, one in so many is tried."""


@dataclass
class Nights(Case):
    """The same with a text for each row, kept like its manifest."""

    texts: dict[tuple[str, str], str] = field(default_factory=dict)

    def person(self, name: str, number: int, text: str = "") -> str:
        user_id = self.row(name, number)
        self.texts[self.rows[-1]] = text
        return user_id

    def gone(self, name: str) -> None:
        self.rows = [row for row in self.rows if row[0] != f"{self.group_id}-{name}"]

    def write_manifest(self) -> None:
        with (self.folder / "staff.csv").open("w", encoding="utf-8", newline="") as file:
            lines = [(*row, self.texts.get(row, "")) for row in self.rows]
            csv.writer(file).writerows([("user_id", "image", "user_data"), *lines])

    @property
    def arguments(self) -> list[str]:
        return ["sync", *super().arguments[1:], *FREE]

    def texts_wanted(self) -> Counter[tuple[str, str, str]]:
        return Counter({(*face, self.texts[face[0], image]): 1 for face, image in self._faces()})

    def _faces(self) -> Iterator[tuple[tuple[str, str], str]]:
        for user_id, image in self.rows:
            yield (user_id, self.digest(image)), image

    def texts_there(self) -> Counter[tuple[str, str, str]]:
        faces = self.box.faces(self.group_id)
        return Counter((face.user_id, face.sha256, face.user_data) for face in faces)

    def wrong(self) -> list[str]:
        """What is wrong between manifest, library and ledger; nothing, if all is well."""
        wanted, there = self.texts_wanted(), self.texts_there()
        found = [f"too many: {face}" for face in there - wanted]
        found += [f"lost: {face}" for face in wanted - there]
        tokens = {face.face_token for face in self.box.faces(self.group_id)}
        held = {entry.face_token for entry in self.entries() if entry.status is not Status.REMOVED}
        found += [f"tokens: {tokens ^ held}"] if tokens != held else []
        return found

    def nobody_to_be_found(self) -> list[str]:
        """Who was enrolled, is still to be, and cannot be found."""
        there = {face.user_id for face in self.box.faces(self.group_id)}
        return [f"not to be found: {one}" for one in STAY if f"{self.group_id}-{one}" not in there]


STAY = ("same", "photo", "moved", "text", "both", "two", "late")


def night_of_changes(folder: Path, box: Sandbox, runner: Runner) -> Nights:
    """A library that is like its manifest; then everything changes that can, with troubles."""
    case = Nights(folder, box)
    for number, name in enumerate([*STAY, "leaver", "leaver2"]):
        case.person(name, number, "before")
    case.person("two", 20, "second")
    case.person("leaver", 21, "second")
    case.write_manifest()
    assert runner.run(case.arguments, folder=folder, environ=case.environ) == 0
    case.gone("leaver")
    case.gone("leaver2")
    (folder / "1.jpg").write_bytes(picture(101))
    case.gone("moved")
    case.person("moved", 102, "before")
    for name, image in (("text", 3), ("both", 4), ("late", 6)):
        case.texts[f"{case.group_id}-{name}", f"{image}.jpg"] = "after"
    (folder / "4.jpg").write_bytes(picture(104))
    case.rows.remove((f"{case.group_id}-two", "20.jpg"))
    case.person("joiner", 105, "new")
    case.person("joiner2", 106, "new")
    for name, fault in (("photo", "500-after"), ("text", "reset-after"), ("late", "late")):
        box.script([fault], user_id=f"{case.group_id}-{name}")
    box.script(["503-before"], user_id=f"{case.group_id}-both")
    case.write_manifest()
    return case


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(detect=False, fault_lag=0.2, limits=Limits(max_libraries=1000)) as running:
        yield running


def killed_and_done(
    folder: Path, box: Sandbox, runner: Runner, kill: Kill
) -> tuple[bool, list[str]]:
    """Kill a sync at a point, start it again until it is done; whether it was killed at all, and
    what is wrong."""
    case = night_of_changes(folder, box, runner)
    code = runner.run(case.arguments, folder=folder, environ=case.environ, kill=kill)
    problems = case.nobody_to_be_found()
    codes = []
    if code:
        assert code == -signal.SIGKILL, (folder, code)
    while code:
        code = runner.run(case.arguments, folder=folder, environ=case.environ)
        codes.append(code)
        problems += case.nobody_to_be_found()
        if len(codes) > 3:
            problems.append(f"{codes}")
            break
    problems += case.wrong()
    return bool(codes), [f"{kill}: {problem}" for problem in problems]


def test_who_is_back_after_a_kill_before_the_deletion_keeps_the_face(
    box: Sandbox, runner: Runner, tmp_path: Path
) -> None:
    case = Nights(tmp_path / "case", box)
    for number, name in enumerate(("same", "both", "leaver")):
        case.person(name, number, "before")
    case.write_manifest()
    assert runner.run(case.arguments, folder=case.folder, environ=case.environ) == 0
    rows = list(case.rows)
    case.gone("leaver")
    case.write_manifest()
    kill = Kill("call", "before", 2)
    code = runner.run(case.arguments, folder=case.folder, environ=case.environ, kill=kill)
    assert (code, len(box.faces(case.group_id))) == (-signal.SIGKILL, 3)
    case.rows = rows  # the list is corrected, and the photo is not there
    case.write_manifest()
    (case.folder / "2.jpg").unlink()
    assert runner.run(case.arguments, folder=case.folder, environ=case.environ) == 4
    assert len(box.faces(case.group_id)) == 3


def test_a_kill_at_any_point_leaves_no_face_too_many_and_nobody_unfound(
    box: Sandbox, runner: Runner, tmp_path: Path
) -> None:
    kills = [
        Kill(point, when, number)
        for point, most in (("commit", 45), ("call", 30), ("rename", 2))
        for when in ("before", "after")
        for number in range(1, most)
    ]
    with ThreadPoolExecutor(16) as threads:
        started = [
            threads.submit(killed_and_done, tmp_path / f"case{place}", box, runner, kill)
            for place, kill in enumerate(kills)
            if place % EVERY == 0
        ]
        found = [one.result() for one in started]
    assert [problem for _, problems in found for problem in problems] == []
    assert any(killed for killed, _ in found)
