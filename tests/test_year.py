"""The year of nights, on a small scale, and its judges by themselves."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from nightly import checks
from nightly.exports import GOOD, Export, delivered, export
from nightly.launcher import Strike
from nightly.ledgers import Database, LedgerPlace
from nightly.nights import Year
from nightly.oracle import DAY, Asked, Bounds, Face, Oracle, Verdict
from nightly.photos import Photo, picture, with_comment
from nightly.schedule import Night, Upheaval, plan_nights
from nightly.staff import Company, Row, manifest
from nightly.watch import Came, Event, Went
from postgres_server import server

from enroll.photos import open_store, read_photo

SMALL = Bounds(removals=6, changes=12)
"""Guards that fit a small company: the least that shares allow are larger than it is."""


def company_of(folder: Path, *, people: int = 30) -> Company:
    company = Company(folder / "share", random.Random(7), people)
    company.found()
    return company


def photos_of(rows: Sequence[Row]) -> dict[str, Photo]:
    """A photo at every path, each another."""
    return {row.image: Photo(b"x", sha256(row.image.encode()).hexdigest()) for row in rows}


def face_of(row: Row, photos: Mapping[str, Photo]) -> Face:
    return Face(row.user_id, row.user_data, photos[row.image].face or "")


JOINERS = [Row(f"n{number:02}", "", f"{number}.jpg") for number in range(13)]
ROWS = [Row(f"{number:03}", "A", f"{number}.jpg") for number in range(20)]


def begun(bounds: Bounds = SMALL, rows: Sequence[Row] = ROWS) -> Oracle:
    """An oracle after the first night."""
    oracle = Oracle(bounds)
    oracle.carried_out(rows, oracle.ask(rows, photos_of(rows), now=0.0), began=0.0)
    return oracle


def lived(oracle: Oracle, rows: Sequence[Row], photos: Mapping[str, Photo], *, day: float) -> Asked:
    asked = oracle.ask(rows, photos, now=day * DAY)
    oracle.carried_out(rows, asked, began=day * DAY)
    return asked


def test_a_leaver_stays_until_the_grace_is_over() -> None:
    oracle = begun()
    rows, photos = ROWS[1:], photos_of(ROWS)
    gone = face_of(ROWS[0], photos)
    assert gone in lived(oracle, rows, photos, day=1).faces
    assert gone in lived(oracle, rows, photos, day=2).faces
    # Two days after the first night without this person, by a night that is 50 minutes early.
    asked = lived(oracle, rows, photos, day=3 - 50 / 1440)
    assert asked.leaving == {gone}
    assert gone not in oracle.faces


def test_a_leaver_without_a_grace_goes_at_once() -> None:
    oracle = begun(replace(SMALL, grace=0.0))
    assert (
        face_of(ROWS[0], photos_of(ROWS))
        not in lived(oracle, ROWS[1:], photos_of(ROWS), day=1).faces
    )


def test_whoever_comes_back_in_time_is_no_leaver_any_more() -> None:
    oracle, photos = begun(), photos_of(ROWS)
    lived(oracle, ROWS[1:], photos, day=1)
    lived(oracle, ROWS, photos, day=2)
    lived(oracle, ROWS[1:], photos, day=3)
    assert face_of(ROWS[0], photos) in oracle.faces  # gone for no time, by now


def test_the_old_face_stays_while_a_row_of_the_person_is_bad() -> None:
    photos = photos_of(ROWS)
    oracle = begun()
    other = {**photos, "0.jpg": Photo(b"text", None)}
    renamed = [replace(ROWS[0], user_data="B"), *ROWS[1:]]
    asked = lived(oracle, renamed, other, day=1)
    assert face_of(ROWS[0], photos) in asked.faces
    assert asked.news is Verdict.REFUSED
    assert lived(oracle, renamed, other, day=2).news is Verdict.CARRIED_OUT
    mended = lived(oracle, renamed, photos, day=3)
    assert face_of(renamed[0], photos) in mended.faces
    assert face_of(ROWS[0], photos) not in mended.faces


def test_a_photo_that_is_gone_leaves_its_row_as_it_was() -> None:
    photos = photos_of(ROWS)
    asked = begun().ask(ROWS, {**photos, "0.jpg": Photo(None, None)}, now=DAY)
    assert face_of(ROWS[0], photos) in asked.faces
    assert not asked.bad


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (ROWS, Verdict.CARRIED_OUT),
        ((), Verdict.REFUSED),
        (ROWS[6:], Verdict.CARRIED_OUT),
        (ROWS[7:], Verdict.REFUSED),
        ([*ROWS, *JOINERS[1:]], Verdict.CARRIED_OUT),
        ([*ROWS, *JOINERS], Verdict.REFUSED),
        ([*(replace(row, user_data="B") for row in ROWS[:13]), *ROWS[13:]], Verdict.REFUSED),
    ],
)
def test_the_guards_let_so_much_pass_and_no_more(rows: Sequence[Row], verdict: Verdict) -> None:
    assert begun().judge(rows, photos_of(ROWS), now=DAY) is verdict


def test_shares_allow_some_even_where_the_company_is_small() -> None:
    oracle = begun(Bounds())
    assert oracle.judge(ROWS[10:], photos_of(ROWS), now=DAY) is Verdict.CARRIED_OUT
    assert oracle.judge(ROWS[11:], photos_of(ROWS), now=DAY) is Verdict.REFUSED


def test_a_tenth_of_the_photos_may_be_missing() -> None:
    photos = photos_of(ROWS)
    for missing, verdict in ((2, Verdict.CARRIED_OUT), (3, Verdict.REFUSED)):
        left = {image: photos[image] for image in [*photos][missing:]}
        assert begun().judge(ROWS, left, now=DAY) is verdict


@pytest.mark.parametrize("kind", Export)
def test_every_export_is_judged_as_its_kind_must_be(kind: Export, tmp_path: Path) -> None:
    company = company_of(tmp_path)
    rows = company.rows()
    oracle = Oracle(SMALL)
    oracle.carried_out(rows, oracle.ask(rows, company.photos, now=0.0), began=0.0)
    sent = export(kind, company, yesterday=rows, chance=random.Random(1))
    verdict = oracle.judge(sent.rows, sent.photos, now=DAY)
    accepted = kind in GOOD or kind in (Export.STALE, Export.NO_IMAGE_COLUMN)
    assert verdict is (Verdict.CARRIED_OUT if accepted else Verdict.REFUSED)
    before = {file.name: file.read_bytes() for file in company.folder.iterdir()}
    with delivered(sent, company, tmp_path / "staff.csv"):
        there = {image for image in sent.photos if (company.folder / image).exists()}
        assert there == {image for image, photo in sent.photos.items() if photo.content is not None}
    assert {file.name: file.read_bytes() for file in company.folder.iterdir()} == before


def test_a_comment_in_a_photo_leaves_what_would_be_sent_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(with_comment(picture(1), "edited"))
    assert read_photo(str(tmp_path / "a.jpg"), open_store(tmp_path)).content == picture(1)


def test_what_happens_in_a_company_follows_from_its_seed(tmp_path: Path) -> None:
    lives = []
    for name in ("one", "two"):
        company = company_of(tmp_path / name)
        days = []
        for night in range(1, 40):
            company.live(night)
            days.append((manifest(company.rows()), dict(company.photos)))
        lives.append(days)
    assert lives[0] == lives[1]
    exports = [export for export, _ in lives[0]]
    assert len(set(exports)) > 20


FACES = {row.user_id: face_of(row, photos_of(ROWS)) for row in ROWS}
NEW = replace(FACES["000"], user_data="B")


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([Came("n", NEW), Went("000")], ""),
        ([Went("000"), Came("n", NEW)], "deleted before"),
        ([Came("n", NEW), Came("m", NEW)], "added twice"),
        ([Came("n", replace(NEW, user_data="C"))], "never asked for"),
        ([Went("001")], "although the manifest asks for it"),
        ([Went("stranger")], "cannot know"),
        ([Went("019")], "before its grace was over"),
    ],
)
def test_the_story_of_a_night_tells_what_was_wrong_on_the_way(
    events: list[Event], found: str
) -> None:
    oracle = begun()
    rows = [replace(ROWS[0], user_data="B"), *ROWS[1:19]]
    asked = oracle.ask(rows, photos_of(ROWS), now=DAY)
    before = {**FACES, "stranger": Face("visitor", "", "0")}
    wrong = checks.story(before, events, asked, strangers={"stranger"})
    assert bool(wrong) == bool(found)
    assert all(found in one for one in wrong)


def test_a_night_s_plan_has_every_kind_of_export_and_upheaval() -> None:
    for nights in (12, 365):
        plan = plan_nights(nights, chance=random.Random(1))
        assert {kind for night in plan for kind in night.exports} == set(Export)
        assert {night.upheaval for night in plan} == {None, *Upheaval}
        assert plan[0].exports == (Export.PLAIN,)


def small_year(folder: Path, *, ledger: LedgerPlace | None = None) -> Year:
    """Twelve nights with every kind of export, one of them with faults, two with a kill; after one
    the ledger is put back. A server of the ledger fails on three more, if it has one."""
    plan = plan_nights(12, chance=random.Random(1))
    plain = [night.number for night in plan if night.exports == (Export.PLAIN,)]
    strikes = {2: Strike("commit", "after", 6), 8: Strike("call", "after", 3)}
    if ledger is not None:
        points = zip((4, 5, 10), ledger.points, strict=True)
        strikes |= {number: Strike(point, "after", 300) for number, point in points}
    nights = [
        replace(
            night,
            storm=night.number == 6,
            again=night.number == 3,
            restored=night.number == plain[1],
            strikes=tuple(strike for number, strike in strikes.items() if number == night.number),
        )
        for night in plan
    ]
    year = Year(folder, 25, 1, 0.15, SMALL, lambda _: None, pauses=(30.0,), ledger=ledger)
    year.live(nights, each=lambda _: None)
    return year


@pytest.mark.thorough
def test_after_every_night_the_library_holds_what_the_rules_ask_for(tmp_path: Path) -> None:
    tally = small_year(tmp_path).tally
    assert tally.findings == []
    assert {kind for kind, _ in tally.exports} == set(Export)
    assert {0, 1, 2, 8} <= set(tally.codes)
    assert tally.struck >= 2
    assert tally.restored == 1
    assert tally.rehearsed
    assert tally.calls["delete"]


@pytest.mark.thorough
def test_nights_with_the_ledger_in_a_server_that_fails_come_to_the_same(tmp_path: Path) -> None:
    place = Database(server().address(), server()).place("small_year", tmp_path)
    tally = small_year(tmp_path, ledger=place).tally
    assert tally.findings == []
    assert tally.cut >= 3
    assert tally.restored == 1
    assert not list(tmp_path.glob("ledger.sqlite*"))


def test_a_library_that_is_not_as_the_rules_ask_for_is_found_out(tmp_path: Path) -> None:
    said: list[str] = []
    year = Year(tmp_path, 25, 1, 0.0, SMALL, said.append)
    year.oracle.bounds = replace(SMALL, grace=0.0)  # the command is told two days
    nights = [
        Night(number=0, exports=(Export.PLAIN,)),
        Night(number=1, exports=(Export.PLAIN,), upheaval=Upheaval.CLOSING),
    ]
    tally = year.live(nights, each=lambda _: None)
    assert tally.findings == said
    gone = [finding for finding in said if "there, and should not be" in finding]
    assert len(gone) == 9  # as many as are one too many for the guard, and two more
    assert not [finding for finding in said if "not there:" in finding]
