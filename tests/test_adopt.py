"""enroll adopt: a library that was filled by others, searched over real HTTP, and a real ledger."""

from __future__ import annotations

import csv
import stat
from pathlib import Path
from typing import Any

import pytest
from archive import GROUP, Archive, Told
from moved_clock import standin
from real_command import Command

from enroll.commands import adopt_search
from enroll.commands.adopt import AdoptSettings, adopt
from enroll.commands.adopt_decisions import (
    Decision,
    Outcome,
    OwnScore,
    SearchedPhoto,
    decide,
    learn_own_score,
)
from enroll.commands.adopt_report import REPORT_COLUMNS, Adoption
from enroll.errors import ExitCode, LedgerBusyError, ServiceError, UsageError
from enroll.ledger import read_ledger
from enroll.ledger.sqlite_lock import LedgerLock
from enroll.model import Status
from enroll.sandbox import Limits, Sandbox
from enroll.session import library_faces
from enroll.session.library_faces import Findings, SeenFace
from enroll.session.retry import COMMAND

TRIES = int(COMMAND.unknown)


pytestmark = pytest.mark.usefixtures("short_back_off")


@pytest.fixture
def box(faceless_box: Sandbox) -> Sandbox:
    return faceless_box


@pytest.fixture
def archive(box: Sandbox, tmp_path: Path) -> Archive:
    """Six people in the manifest, and no ledger."""
    there = Archive(tmp_path, box)
    there.people(1, 2, 3, 4, 5, 6)
    return there


def adopted(
    archive: Archive,
    told: Told | None = None,
    *,
    score: float | None = None,
    dry_run: bool = False,
    report: Path | None = None,
    **changed: Any,
) -> Adoption:
    settings = AdoptSettings(
        run=archive.settings(**changed), score=score, dry_run=dry_run, report=report
    )
    return adopt(settings, lambda: archive.credentials, told or Told())


def outcomes(adoption: Adoption) -> dict[str, int]:
    return {one.value: count for one, count in adoption.outcomes.items()}


def test_a_ledger_restored_from_a_backup_adopts_what_was_enrolled_since(archive: Archive) -> None:
    assert archive.run(limit=2).exit_code is ExitCode.ENDED_EARLY
    backup = archive.ledger.read_bytes()
    assert archive.run().exit_code is ExitCode.DONE
    archive.ledger.write_bytes(backup)
    assert outcomes(adopted(archive)) == {"adopted": 4}
    assert archive.run().exit_code is ExitCode.DONE
    assert (archive.box.count("add"), len(archive.in_library())) == (6, 6)


def test_faces_that_others_added_are_taken_over_and_not_added_again(archive: Archive) -> None:
    tokens = {f"u{n}": archive.add(f"u{n}", f"{n}.jpg") for n in (1, 2, 3, 4)}
    told = Told()
    adoption = adopted(archive, told)
    assert (adoption.exit_code, outcomes(adoption)) == (ExitCode.DONE, {"adopted": 4})
    assert (adoption.rows, adoption.to_search, archive.box.count("search")) == (6, 4, 4)
    assert "2 rows of people without a face in the library." in told.text
    assert "4 rows to search for, with a call each." in told.text
    added = archive.box.count("add")
    assert archive.run().exit_code is ExitCode.DONE
    assert archive.box.count("add") == added + 2  # the other two
    ledger = {entry.user_id: entry.face_token for entry in archive.entries()}
    assert tokens.items() <= ledger.items()
    assert set(ledger.values()) == archive.in_library()
    assert {event[0] for event in archive.history()} == {"adopted"}


def test_what_is_adopted_says_what_the_library_says_of_it(archive: Archive) -> None:
    archive.add("u1", "1.jpg", user_data="other name")
    adopted(archive)
    face = archive.face("u1")
    assert face.user_data == "other name"
    assert face.enrolled_at == archive.box.faces(GROUP)[0].add_time
    assert face.attempts == 0
    assert archive.run().ended.tally.user_data_changed == 1


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(archive: Archive) -> None:
    archive.add("u1", "1.jpg")
    told = Told()
    adoption = adopted(archive, told, dry_run=True)
    assert adoption.to_search == 1
    assert "1 row to search for, with a call each." in told.text
    assert archive.box.count("search") == 0
    assert not archive.ledger.exists()
    assert not archive.ledger.with_name("ledger.sqlite.lock").exists()


def test_another_photo_of_a_person_is_not_taken_for_this_one(
    archive: Archive, tmp_path: Path
) -> None:
    archive.add("u1", "1.jpg")
    archive.photo("older.jpg", 8)
    theirs = archive.add("u2", "older.jpg")
    report = tmp_path / "report.csv"
    told = Told()
    adoption = adopted(archive, told, report=report)
    assert outcomes(adoption) == {"adopted": 1, "not_found": 1}
    assert adoption.exit_code is ExitCode.SOME_ROWS_FAILED
    assert adoption.unknown == 1
    assert "1 face of the library still unknown to the ledger" in told.text
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    with report.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames or ()) == REPORT_COLUMNS
        (line,) = reader
    assert (line["line"], line["user_id"], line["outcome"]) == ("3", "u2", "not_found")
    assert 50 < float(line["score"]) < 99
    assert f"1 row to review in {report}." in told.text
    assert theirs not in {entry.face_token for entry in archive.entries()}


def test_a_report_without_a_row_to_look_at_is_said_to_be_empty(
    archive: Archive, tmp_path: Path
) -> None:
    archive.add("u1", "1.jpg")
    told = Told()
    adopted(archive, told, report=tmp_path / "report.csv")
    assert f"No row needs review: {tmp_path / 'report.csv'} has only its header." in told.text


def test_a_face_under_another_user_id_is_not_taken(archive: Archive) -> None:
    archive.add("somebody", "1.jpg")
    archive.add("u2", "2.jpg")
    adoption = adopted(archive)
    assert (outcomes(adoption), archive.box.count("search")) == ({"adopted": 1}, 1)


def test_of_several_copies_the_oldest_is_adopted_and_the_rest_is_surplus(
    archive: Archive, tmp_path: Path
) -> None:
    first, *rest = [archive.add("u1", "1.jpg") for _ in range(3)]
    told = Told()
    adoption = adopted(archive, told, report=tmp_path / "report.csv")
    assert archive.face("u1").face_token == first
    assert (adoption.surplus, adoption.exit_code) == (2, ExitCode.SOME_ROWS_FAILED)
    assert sorted(archive.history()) == sorted(
        [("adopted", "u1", first), *[("surplus", "u1", token) for token in rest]]
    )
    assert "2 further copies of these faces recorded as surplus" in told.text
    assert "2 further copies recorded as surplus" in (tmp_path / "report.csv").read_text()


def test_two_photos_that_look_the_same_share_no_token(archive: Archive) -> None:
    same = (archive.folder / "1.jpg").read_bytes()
    (archive.folder / "again.jpg").write_bytes(same[:2] + b"\xff" + same[2:])  # a fill byte
    archive.rows.append(("u1", "", "again.jpg"))
    token = archive.add("u1", "1.jpg")
    adoption = adopted(archive)
    assert outcomes(adoption) == {"adopted": 1, "contested": 1}
    assert archive.face("u1").face_token == token
    second = archive.add("u1", "again.jpg")
    assert outcomes(adopted(archive)) == {"adopted": 1}
    assert {face.face_token for face in archive.faces("u1")} == {token, second}


def test_a_photo_that_stands_twice_is_one_face(archive: Archive) -> None:
    (archive.folder / "copy.jpg").write_bytes((archive.folder / "1.jpg").read_bytes())
    archive.rows.append(("u1", "", "copy.jpg"))
    archive.add("u1", "1.jpg")
    adoption = adopted(archive)
    assert (outcomes(adoption), adoption.surplus) == ({"adopted": 2}, 0)
    archive.add("u2", "2.jpg")
    archive.run()
    assert {entry.image for entry in archive.entries() if entry.user_id == "u1"} == {"copy.jpg"}
    assert archive.run().ended.tally.unchanged == 7


def test_an_adoption_goes_on_where_it_was_and_learns_from_what_it_has(archive: Archive) -> None:
    for number in (1, 2, 3):
        archive.add(f"u{number}", f"{number}.jpg")
    adopted(archive)
    archive.add("u4", "4.jpg")
    searched = archive.box.count("search")
    adoption = adopted(archive)
    assert (adoption.known, outcomes(adoption)) == (3, {"adopted": 1})
    assert archive.box.count("search") == searched + 2  # the control, and the new one


def test_a_touched_photo_is_known_by_its_content(archive: Archive) -> None:
    token = archive.add("u1", "1.jpg")
    adopted(archive)
    (archive.folder / "1.jpg").rename(archive.folder / "renamed.jpg")
    archive.rows[0] = ("u1", "", "renamed.jpg")
    assert outcomes(adopted(archive)) == {"known": 1}
    assert archive.face("u1").face_token == token


def test_a_person_in_doubt_is_left_to_a_run(archive: Archive) -> None:
    archive.add("u1", "1.jpg")
    adopted(archive)
    archive.doubt("u1")
    assert outcomes(adopted(archive)) == {"in_doubt": 1}
    assert archive.face("u1").status is Status.IN_DOUBT


def test_another_photo_of_a_person_in_doubt_waits_for_that(archive: Archive) -> None:
    archive.add("u1", "1.jpg")
    adopted(archive)
    archive.doubt("u1")
    archive.photo("more.jpg", 90)
    archive.rows.append(("u1", "", "more.jpg"))
    archive.add("u1", "more.jpg")
    assert outcomes(adopted(archive)) == {"in_doubt": 2}


def test_a_photo_that_a_hundred_others_are_as_like_is_unclear(archive: Archive) -> None:
    for number in range(100):
        archive.add(f"x{number}", "1.jpg")
    archive.add("u1", "1.jpg")
    adoption = adopted(archive)
    assert outcomes(adoption) == {"unclear": 1}
    assert adoption.exit_code is ExitCode.SOME_ROWS_FAILED


def test_a_row_without_a_photo_and_one_that_can_never_be_are_told(
    archive: Archive, tmp_path: Path
) -> None:
    archive.add("u1", "1.jpg")
    archive.add("u2", "2.jpg")
    (archive.folder / "2.jpg").unlink()
    archive.rows.append(("bad id", "", "3.jpg"))
    adoption = adopted(archive, report=tmp_path / "report.csv")
    assert adoption.invalid == 1
    assert outcomes(adoption) == {"adopted": 1, "unusable": 1}
    assert "There is no photo at this path" in (tmp_path / "report.csv").read_text()


def test_a_search_that_fails_leaves_its_row_for_the_next_time(archive: Archive) -> None:
    archive.add("u1", "1.jpg")
    archive.box.script(["500"] * TRIES, call="search")
    told = Told()
    adoption = adopted(archive, told)
    assert (outcomes(adoption), adoption.exit_code) == ({"failed": 1}, ExitCode.IN_DOUBT)
    assert "Until then `enroll run` refuses the ledger." in told.text
    with pytest.raises(UsageError, match="was not finished"):
        archive.run()
    assert outcomes(adopted(archive)) == {"adopted": 1}
    assert archive.run().exit_code is ExitCode.DONE


def test_an_adoption_stops_where_the_service_always_gives_the_same_error(
    archive: Archive,
) -> None:
    archive.crowd(30)
    for number in range(30):
        archive.add(f"staff-p{number}", f"{number}.jpg")
    archive.box.script(["unknown-code"] * 30, call="search")
    with pytest.raises(ServiceError, match="FACE_LEFT_THE_BUILDING"):
        adopted(archive, max_in_flight=1)
    assert archive.box.count("search") == 20
    with pytest.raises(UsageError, match="was not finished"):
        archive.run()


def test_refused_and_lost_searches_are_made_again(archive: Archive) -> None:
    for number in (1, 2, 3):
        archive.add(f"u{number}", f"{number}.jpg")
    archive.box.script(["refused", "502", "cut", None], call="search")
    assert outcomes(adopted(archive)) == {"adopted": 3}


def test_where_list_stops_short_every_row_is_searched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_faces, "LIST_PAGE", 2)
    with standin(detect=False, limits=Limits(max_start=2)) as box:
        box.create_library(GROUP)
        archive = Archive(tmp_path, box)
        archive.people(1, 2, 3, 4)
        for number in (1, 2, 3):
            archive.add(f"u{number}", f"{number}.jpg")
        told = Told()
        adoption = adopted(archive, told)
        assert "So every row is searched for." in told.text
        assert (adoption.to_search, outcomes(adoption)) == (4, {"adopted": 3, "not_found": 1})


def test_a_ledger_that_a_run_holds_is_not_adopted_into(archive: Archive) -> None:
    archive.add("u1", "1.jpg")
    with LedgerLock(archive.ledger), pytest.raises(LedgerBusyError):
        adopted(archive)


# An adoption that was not finished


def test_a_run_after_an_unfinished_adoption_adds_nobody(archive: Archive) -> None:
    for number in (1, 2, 3):
        archive.add(f"u{number}", f"{number}.jpg")
    archive.box.script([None, "auth"], call="search")
    with pytest.raises(ServiceError, match="AUTHORIZATION_ERROR"):
        adopted(archive, max_in_flight=1)
    added = archive.box.count("add")
    with pytest.raises(UsageError, match="was not finished"):
        archive.run()
    assert archive.box.count("add") == added
    assert adopted(archive).exit_code is ExitCode.DONE
    assert archive.run().exit_code is ExitCode.DONE
    assert archive.box.count("add") == added + 3


def test_an_interrupted_adoption_keeps_what_it_has_found_and_goes_on(archive: Archive) -> None:
    for number in (1, 2, 3):
        archive.add(f"u{number}", f"{number}.jpg")

    class ImpatientAfterTwo(Told):
        def progress(self, done: int, what: str, *, of: int | None = None) -> None:
            if "searched" in what and done == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adopted(archive, ImpatientAfterTwo(), max_in_flight=1)
    with pytest.raises(UsageError, match="was not finished"):
        archive.run()
    adoption = adopted(archive)
    assert (adoption.known, outcomes(adoption)) == (2, {"adopted": 1})
    reader = read_ledger(archive.ledger)
    codes = [run.end.exit_code for run in reader.status().runs if run.end is not None]
    reader.close()
    assert codes == [ExitCode.DONE, ExitCode.INTERRUPTED]


def test_a_library_that_shows_nothing_leaves_no_ledger(archive: Archive) -> None:
    archive.box.script(["unknown-code"], call="list")
    with pytest.raises(ServiceError, match="does not list"):
        adopted(archive)
    assert not archive.ledger.exists()


def test_an_adoption_is_on_record_as_a_run(archive: Archive) -> None:
    archive.add("u1", "1.jpg")
    adopted(archive)
    reader = read_ledger(archive.ledger)
    (record,) = reader.status().runs
    reader.close()
    assert record.start.options["command"] == "adopt"
    assert record.start.manifest == str(archive.folder / "staff.csv")
    assert record.end is not None
    assert record.end.calls == {"group_list": 1, "list": 1, "search": 1}


# The score of own faces


def test_the_highest_score_there_is_needs_no_second() -> None:
    assert learn_own_score([("a", 99.95)], all_asked=False) == OwnScore(99.95)


def test_a_lower_score_counts_when_three_people_share_it() -> None:
    tops = [("a", 97.21), ("b", 97.2), ("c", 97.15), ("d", 88.0)]
    assert learn_own_score(tops, all_asked=True) == OwnScore(97.21)
    assert learn_own_score(tops, all_asked=False) is None  # too few to be believed yet
    many = [*tops, *[(f"x{n}", 80.0) for n in range(16)]]
    assert learn_own_score(many, all_asked=False) == OwnScore(97.21)


@pytest.mark.parametrize(
    "tops",
    [
        [],
        [("a", 97.2), ("b", 97.2), ("c", 96.9)],
        [("a", 97.2), ("a", 97.2), ("a", 97.2)],
        [("a", 89.0), ("b", 89.0), ("c", 89.0)],
    ],
)
def test_scores_that_do_not_agree_or_are_low_teach_nothing(tops: list[tuple[str, float]]) -> None:
    assert learn_own_score(tops, all_asked=True) is None


def test_where_no_score_can_be_learned_nothing_is_adopted(archive: Archive) -> None:
    for number in (1, 2):
        archive.photo(f"older{number}.jpg", number * 3 + 2)
        archive.add(f"u{number}", f"older{number}.jpg")
    adoption = adopted(archive)
    assert (outcomes(adoption), adoption.exit_code) == ({"no_score": 2}, ExitCode.IN_DOUBT)
    with pytest.raises(UsageError, match="was not finished"):
        archive.run()
    assert [entry.status for entry in archive.entries()] == [Status.PENDING] * 6
    assert outcomes(adopted(archive, score=60.0)) == {"adopted": 2}


def test_too_many_searches_without_a_score_end_the_adoption(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopt_search, "MOST_UNDECIDED", 2)
    for number in (1, 2, 3):
        archive.photo(f"older{number}.jpg", number * 3 + 2)
        archive.add(f"u{number}", f"older{number}.jpg")
    with pytest.raises(UsageError, match="with --score"):
        adopted(archive, max_in_flight=1)
    assert archive.box.count("search") <= 3


def test_a_score_above_that_of_own_faces_ends_the_adoption(archive: Archive) -> None:
    """A ledger whose only token is another photo's teaches a score that is too low."""
    archive.photo("older.jpg", 5)
    wrong = archive.add("u1", "older.jpg")
    adopted(archive, score=60.0)
    assert archive.face("u1").face_token == wrong
    archive.add("u2", "2.jpg")
    with pytest.raises(UsageError, match=r"above the .* that a photo was thought to get"):
        adopted(archive)
    assert {entry.face_token for entry in archive.entries()} == {wrong, ""}


# Whose face is whose


OWN = OwnScore(98.0)


def searched(
    name: str, *seen: tuple[str, int | None, float], cut_at: float | None = None
) -> SearchedPhoto:
    faces = tuple(SeenFace(token, at, score) for token, at, score in seen)
    return SearchedPhoto(content=name.encode(), line=ord(name), findings=Findings(faces, cut_at))


def decided(*photos: SearchedPhoto, own: OwnScore = OWN) -> dict[str, Decision]:
    return {content.decode(): one for content, one in decide(photos, own).items()}


def test_the_oldest_face_at_the_own_score_is_the_photos() -> None:
    seen = [("new", 20, 98.0), ("old", 10, 97.95), ("unlike", 5, 91.0), ("undated", None, 98.0)]
    assert decided(searched("a", *seen)) == {
        "a": Decision(
            outcome=Outcome.ADOPTED, face_token="old", surplus=("new", "undated"), score=98.0
        )
    }


def test_photos_that_look_the_same_get_one_face_each_and_no_surplus() -> None:
    both = [("t1", 1, 98.0), ("t2", 2, 98.0)]
    found = decided(searched("a", *both), searched("b", *both))
    assert [(one.face_token, one.surplus, one.alike) for one in found.values()] == [
        ("t1", (), True),
        ("t2", (), True),
    ]


def test_a_copy_of_two_photos_that_look_the_same_is_recorded_once() -> None:
    three = [("t1", 1, 98.0), ("t2", 2, 98.0), ("t3", 3, 98.0)]
    found = decided(searched("a", *three), searched("b", *three))
    assert [one.surplus for one in found.values()] == [("t3",), ()]


def test_the_photo_with_fewer_choices_chooses_first() -> None:
    found = decided(searched("a", ("t1", 1, 98.0), ("t2", 2, 98.0)), searched("b", ("t1", 1, 98.0)))
    assert {name: one.face_token for name, one in found.items()} == {"a": "t2", "b": "t1"}


def test_a_photo_whose_faces_went_to_others_is_contested() -> None:
    found = decided(searched("a", ("t1", 1, 98.0)), searched("b", ("t1", 1, 98.0)))
    assert [found[name].outcome for name in "ab"] == [Outcome.ADOPTED, Outcome.CONTESTED]


def test_a_search_that_shows_a_hundred_others_as_like_is_unclear() -> None:
    found = decided(searched("a", cut_at=97.95), searched("b", cut_at=97.0))
    assert [found[name].outcome for name in "ab"] == [Outcome.UNCLEAR, Outcome.NOT_FOUND]


def test_a_score_set_by_hand_takes_all_above() -> None:
    seen = searched("a", ("t1", 1, 91.0), ("t2", 2, 99.0))
    assert decided(seen, own=OwnScore(90.0, set_by_hand=True))["a"].face_token == "t1"
    assert decided(seen, own=OwnScore(90.0))["a"].outcome is Outcome.NOT_FOUND


# The command


@pytest.fixture
def command(archive: Archive, tmp_path: Path) -> Command:
    environ = {
        "ENROLL_ENDPOINT": archive.box.endpoint,
        "ENROLL_API_KEY": archive.box.api_key,
        "ENROLL_API_SECRET": archive.box.api_secret,
    }
    return Command(home=tmp_path / "home", folder=archive.folder, environ=environ)


def test_the_way_from_a_refused_run_over_an_adoption_to_an_agreeing_library(
    archive: Archive, command: Command
) -> None:
    for number in (1, 2):
        archive.add(f"u{number}", f"{number}.jpg")
    manifest = archive.manifest()
    refused = command("run", manifest, "--group-id", GROUP)
    assert refused.code == ExitCode.USAGE
    assert "`enroll adopt`" in refused.err
    done = command("adopt", manifest, "--group-id", GROUP)
    assert (done.code, done.told) == (0, "")
    assert "  adopted  2  their faces are in the ledger now" in done.out
    assert command("run", manifest, "--group-id", GROUP).code == 0
    assert len(archive.in_library()) == 6
    assert command("verify").code == 0


def test_the_command_needs_a_library(archive: Archive, command: Command) -> None:
    done = command("adopt", archive.manifest())
    assert done.code == ExitCode.USAGE
    assert "--group-id is needed" in done.err
