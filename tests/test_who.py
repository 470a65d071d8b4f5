"""`enroll who`: the people that the library returns for a photo."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from archive import Archive, nobody, portrait
from real_command import Command

from enroll.commands.who import Resembling, Who, WhoSettings, who_lines
from enroll.facesearch import FoundFace
from enroll.ledger import ledger_at
from enroll.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("moved_clock")

RUN = ("run", "staff.csv", "--group-id", "staff")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def enrolled(box: Sandbox, archive: Archive, command: Command) -> Archive:
    archive.manifest(archive.portraits(1, 2))
    assert command(*RUN).code == 0
    return archive


def calls(box: Sandbox) -> Counter[str]:
    """The calls since everybody was enrolled."""
    return Counter(box.counts) - Counter(group_list=1, list=1, add=2)


def test_who_the_library_returns_is_shown_with_what_the_ledger_knows(
    box: Sandbox, enrolled: Archive, command: Command
) -> None:
    done = command("who", "photos/2.jpg")
    assert done.code == 0, done
    head, face, _, meaning = done.out.splitlines()
    assert head.split() == ["user_id", "user_data", "score", "added", "in", "the", "ledger"]
    assert re.fullmatch(rf"person-0002 +Name 2 +100\.0 +{TIME} +enrolled, photos/2\.jpg", face), (
        face
    )
    assert "75 by one in 1,000" in meaning
    assert "90 by one in 1,000,000" in meaning
    assert calls(box) == {"search": 1}


def test_it_works_without_a_ledger_and_then_asks_for_the_time(
    box: Sandbox, enrolled: Archive, command: Command
) -> None:
    shutil.rmtree(command.state)
    done = command("who", "photos/1.jpg", "--group-id", "staff")
    assert done.code == 0, done
    assert re.search(rf"^person-0001 +Name 1 +100\.0 +{TIME}$", done.out, re.MULTILINE)
    assert "ledger" not in done.out
    assert calls(box) == {"search": 1, "face_info": 1}
    assert not command.state.exists()
    neither = command("who", "photos/1.jpg")
    assert (neither.code, "--group-id is needed" in neither.err) == (2, True), neither


def test_it_works_while_a_run_holds_the_ledger_and_writes_nothing(
    enrolled: Archive, command: Command
) -> None:
    before = command.ledger.read_bytes()
    with ledger_at(command.ledger).hold():
        assert command("who", "photos/1.jpg").code == 0
    assert command.ledger.read_bytes() == before


def test_as_json_each_face_comes_with_its_token_and_the_ledgers_record(
    enrolled: Archive, command: Command
) -> None:
    other = enrolled.add("guest", "photos/1.jpg", user_data="by hand")
    found = json.loads(command("who", "photos/1.jpg", "--json").out)
    assert (found["group_id"], found["photo"]) == ("staff", "photos/1.jpg")
    faces = {face["user_id"]: face for face in found["faces"]}
    assert list(faces["person-0001"]) == [
        *("user_id", "user_data", "score", "added", "face_token", "ledger")
    ]
    assert faces["person-0001"]["ledger"]["image"] == "photos/1.jpg"
    assert faces["person-0001"]["ledger"]["status"] == "enrolled"
    assert faces["guest"]["ledger"] is None
    assert faces["guest"]["face_token"] == other
    assert faces["guest"]["added"]
    shown = command("who", "photos/1.jpg")
    assert re.search(r"^guest +by hand .* not known$", shown.out, re.MULTILINE)
    only = json.loads(command("who", "photos/1.jpg", "--json", "--limit", "1").out)
    assert len(only["faces"]) == 1


def test_nobody_is_said_with_an_exit_code_of_its_own(enrolled: Archive, command: Command) -> None:
    enrolled.photo("9.jpg", portrait(9))
    done = command("who", "9.jpg")
    assert (done.code, done.out.count("\n")) == (1, 1), done
    assert "Nobody in the library staff resembles 9.jpg" in done.out
    found = command("who", "9.jpg", "--json")
    assert (found.code, json.loads(found.out)["faces"]) == (1, [])


@pytest.mark.parametrize(("score", "code"), [(74.9, 1), (75.0, 0)])
def test_who_scores_less_than_the_lowest_threshold_is_not_recognized(
    score: float, code: int
) -> None:
    face = FoundFace(face_token="f" * 32, user_id="ann", user_data="", score=score)
    found = Who(
        settings=WhoSettings(photo=Path("photo.jpg")),
        endpoint="https://service",
        group_id="staff",
        faces=[Resembling(found=face, add_time=None)],
    )
    assert found.exit_code == code
    said = "\n".join(who_lines(found))
    assert "ann" in said
    assert ("it is probably none of these people" in said) is (code == 1)


def test_a_photo_that_cannot_be_used_is_refused_with_one_sentence(
    box: Sandbox, enrolled: Archive, command: Command
) -> None:
    enrolled.photo("nobody.jpg", nobody())
    enrolled.photo("text.jpg", b"text")
    (enrolled.folder / "link.jpg").symlink_to("photos/1.jpg")
    wrong = {}
    for photo, words in {
        "nobody.jpg": "Error: nobody.jpg: The service finds no face in the photo.",
        "text.jpg": "The file is not an image",
        "photos": "names a folder",
        "none.jpg": "There is no photo at this path",
    }.items():
        done = command("who", photo)
        if (done.code, done.told.count("\n")) != (2, 1) or words not in done.err:
            wrong[photo] = done
    assert not wrong
    assert calls(box) == {"search": 1}
    assert command("who", "link.jpg").code == 0


def test_a_ledger_of_another_library_is_refused(enrolled: Archive, command: Command) -> None:
    ledger = ("--ledger", command.ledger)
    done = command("who", "photos/1.jpg", *ledger, "--group-id", "guests")
    assert (done.code, "belongs to the library staff" in done.err) == (2, True), done
    assert command("who", "photos/1.jpg", "--ledger", "none.sqlite").code == 2
