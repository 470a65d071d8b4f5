"""The benchmark that looks for people under two ids, on a small scale, and its judges."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from identities.audited import LOOKALIKE, UNLIKE, Finding, Judged, judge
from identities.nights import Nights
from identities.oracle import Library, expected
from identities.phases import RESULTS, Phase
from identities.staff import MANIFEST, Fault, Row, Staff, founded, write_photo
from identities.stand_in import StandIn
from suite.process import Usage

from enroll.sandbox import Sandbox, made_up_photo
from enroll.sandbox.faces import FaceFinder, LikenessIndex
from enroll.sandbox.matchers import ModelMatcher

IDENTITY = Path(__file__).parents[1] / "benchmarks/identity.py"

SEED = 3
SCORE = 75.0
"""Low, so that a small staff has pairs by chance."""


def small_staff(people: int = 400) -> Staff:
    return founded(people=people, faults=30, seed=SEED)


def people_under(rows: Sequence[Row], user_id: str) -> list[int]:
    return sorted(row.photo.person for row in rows if row.user_id == user_id)


def test_every_fault_is_planted_on_other_people() -> None:
    staff = small_staff()
    assert Counter(one.fault for one in staff.planted) == dict.fromkeys(Fault, 10)
    named = [user_id for one in staff.planted for user_id in one.ids]
    assert len(named) == len(set(named)) == 60
    for one in staff.planted:
        shown = [people_under(staff.rows, user_id) for user_id in sorted(one.ids)]
        assert set(shown[0]) & set(shown[1])
        assert (
            sorted(map(len, shown))
            == {
                Fault.DOUBLE: [1, 1],
                Fault.MISFILED: [1, 2],
                Fault.SWAPPED: [2, 2],
            }[one.fault]
        )
    rest = [row for row in staff.rows if row.user_id not in named]
    assert len({row.photo.person for row in rest}) == len({row.user_id for row in rest}) == 350
    assert len(rest) == 385
    assert len({row.photo for row in staff.rows}) == len({row.path for row in staff.rows})


def test_a_staff_follows_from_its_seed() -> None:
    assert small_staff().rows == small_staff().rows
    assert small_staff().rows != founded(people=400, faults=30, seed=SEED + 1).rows


def test_the_oracle_knows_what_the_stand_in_finds(tmp_path: Path) -> None:
    rows = small_staff(200).rows
    finder = FaceFinder(ModelMatcher(SEED), detect=True)
    index = LikenessIndex(finder.matcher)
    likenesses = []
    for row in rows:
        write_photo(row, tmp_path)
        content = (tmp_path / row.path).read_bytes()
        likenesses.append(finder.find(content, field="file", turn=False)[1])
        index.add(row.path, likenesses[-1])
    found = {
        (frozenset((row.path, path)), score)
        for row, likeness in zip(rows, likenesses, strict=True)
        for path, score in index.search(likeness, now=0.0, limit=100, threshold=SCORE)
        if {other.path: other.user_id for other in rows}[path] != row.user_id
    }
    pairs = Library(rows, seed=SEED).lookalikes(score=SCORE)
    assert found == {(frozenset((one.one.path, one.other.path)), one.score) for one in pairs}
    assert sum(pair.same_person for pair in pairs) < len(pairs)


def test_pairs_that_show_different_people_are_counted() -> None:
    rows = small_staff(120).rows
    pairs = Library(rows, seed=SEED).lookalikes(score=0.0)
    assert Library(rows, seed=SEED).strangers() == sum(not pair.same_person for pair in pairs)
    assert expected(10_000_000, score=85).number == pytest.approx(100)
    assert expected(10_000_000, score=87.5).number == pytest.approx(31.6, abs=0.1)
    assert str(expected(10_000_000, score=85)) == "100.0 ± 10.0"


def judged(staff: Staff, found: Sequence[Finding], *, searches: int | None = None) -> Judged:
    calls = {"search": len(staff.rows) if searches is None else searches}
    phase = Phase("audit", Usage(1.0, 1.0, 1), StandIn("", calls))
    return judge(staff, Library(staff.rows, seed=SEED), found, phase, score=SCORE, unlike=60.0)


def test_what_an_audit_misses_invents_or_searches_twice_is_said() -> None:
    staff = small_staff()
    pairs = {
        pair.ids: Finding(LOOKALIKE, pair.ids, pair.score)
        for pair in Library(staff.rows, seed=SEED).lookalikes(score=SCORE)
    }
    whole = judged(staff, [*pairs.values()])
    assert whole.wrong == []
    assert whole.table[4].split() == ["all", "30", "30", "30", "100.0%"]
    missed = staff.planted[0].ids
    wrong = judged(staff, [one for ids, one in pairs.items() if ids != missed])
    assert len(wrong.wrong) == 1
    assert wrong.wrong[0].startswith(f"missed: {' and '.join(sorted(missed))}")
    assert wrong.table[4].split() == ["all", "30", "30", "29", "96.7%"]
    strangers = frozenset(row.user_id for row in staff.rows if row.user_id not in missed)
    pair = next(
        frozenset((one, other))
        for one in strangers
        for other in strangers
        if one != other and frozenset((one, other)) not in pairs
    )
    invented = judged(staff, [*pairs.values(), Finding(LOOKALIKE, pair, 80.0)])
    assert invented.wrong == [f"invented: {' and '.join(sorted(pair))}"]
    assert judged(staff, [*pairs.values()], searches=7).wrong == [
        f"7 searches for {len(staff.rows)} photos"
    ]


def test_people_whose_photos_are_alike_are_not_unlike() -> None:
    staff = small_staff()
    library = Library(staff.rows, seed=SEED)
    pairs = [Finding(LOOKALIKE, pair.ids, pair.score) for pair in library.lookalikes(score=SCORE)]
    counts = Counter(row.user_id for row in staff.rows)
    faulty = frozenset[str]().union(*(one.ids for one in staff.planted))
    right = next(one for one, count in counts.items() if count == 2 and one not in faulty)
    found = judged(staff, [*pairs, Finding(UNLIKE, frozenset((right,)), 50.0)])
    assert len(found.wrong) == 1
    assert found.wrong[0].startswith(f"unlike although alike: {right}")


class Night:
    """A night as it should be, in a folder: results and the stand-in's store."""

    def __init__(self, folder: Path) -> None:
        self.nights = Nights(small_staff(), folder, SEED)
        before = list(self.nights.faces)
        self.changes = self.nights.change(faults=9)
        library, found = Library(before, seed=SEED), {}
        for change in self.changes:
            alike = library.looks_like(change.row, score=85)
            own = change.before and library.score(change.before.photo, change.row.photo)
            code = "UNLIKE_BEFORE" if change.before else "LOOKALIKE"
            held = alike and not (own and own >= 75)
            found[change.row.path] = ("held", code) if held else ("enrolled", "")
        self.found, self.faces = found, before
        self.folder = folder
        self.message = "The two were probably swapped."

    def judged(self) -> Judged:
        with (self.folder / RESULTS).open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(("image", "status", "error", "message"))
            lines.writerows((path, *said, self.message) for path, said in self.found.items())
        added = [c for c in self.changes if self.found[c.row.path][0] == "enrolled"]
        gone = {change.before for change in added}
        faces = [*(row for row in self.faces if row not in gone), *(c.row for c in added)]
        with Sandbox(store=self.folder / "service.sqlite", matcher="model") as box:
            box.create_library("staff")
            for row in faces:
                content = made_up_photo(row.photo.person, row.photo.shot)
                picture = sha256(content).digest(), np.zeros(2, np.float32)
                box.account.add("staff", user_id=row.user_id, user_data="", picture=picture)
        phase = Phase("sync", Usage(1.0, 1.0, 1), StandIn("", {"search": len(self.changes)}))
        return self.nights.judge(self.changes, phase)


def test_a_night_that_holds_everybody_who_looks_like_somebody_else_is_right(tmp_path: Path) -> None:
    night = Night(tmp_path)
    assert Counter(change.fault for change in night.changes) == {
        None: 6,
        Fault.DOUBLE: 3,
        Fault.MISFILED: 3,
        Fault.SWAPPED: 6,
    }
    judged = night.judged()
    assert judged.wrong == []
    planted, shown, held, _ = judged.table[4].split()[1:]
    assert planted == shown == "12"
    assert int(held) >= 9
    manifest = (tmp_path / MANIFEST).read_text(encoding="utf-8")
    assert all(f"{change.row.user_id},{change.row.path}" in manifest for change in night.changes)


def test_who_is_let_in_or_held_for_nothing_and_a_lost_face_are_found_out(tmp_path: Path) -> None:
    night = Night(tmp_path)
    held = [path for path, (status, _) in night.found.items() if status == "held"]
    free = [path for path, (status, _) in night.found.items() if status == "enrolled"]
    night.found[held[0]] = "enrolled", ""
    night.found[held[1]] = "held", "PHOTO_MISSING"
    night.found[free[0]] = "held", "LOOKALIKE"
    lost = night.faces.pop(0)
    who = {change.row.path: change.row.user_id for change in night.changes}
    assert [finding[:30] for finding in night.judged().wrong] == [
        f"{who[free[0]]} is held and looks like nobody"[:30],
        f"{who[held[0]]} is not held and looks like"[:30],
        f"{who[held[1]]} is held by PHOTO_MISSING"[:30],
        f"{lost.user_id} lacks a face",
    ]


def test_swapped_photos_that_are_not_said_to_be_are_found_out(tmp_path: Path) -> None:
    night = Night(tmp_path)
    night.message = ""
    wrong = night.judged().wrong
    assert 1 <= len(wrong) <= 3
    assert all(finding.endswith("are not said to be swapped") for finding in wrong)


@pytest.mark.benchmark
def test_a_small_staff_is_enrolled_audited_and_lives_a_night(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, IDENTITY, "--people", "60", "--faults", "6"]
    command += ["--nights", "1", "--keep", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done
    for said in ("enroll audit --score 85", "night 1: --lookalikes hold", "0 things wrong"):
        assert said in done.stdout
    assert done.stdout.count("100.0%") >= 7, done.stdout
