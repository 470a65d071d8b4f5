"""enroll remove: real HTTP against the stand-in, real ledgers, and commands that die on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archive import GROUP, Archive, Told, read_csv
from real_command import Command

from enroll.commands.remove import Removed, RemoveSettings, remove
from enroll.errors import ExitCode, ServiceError, UsageError
from enroll.ledger import read_ledger
from enroll.manifest.rules import read_user_ids
from enroll.model import Status
from enroll.report.status import read_status, status_lines
from enroll.sandbox import Sandbox
from enroll.session import deletions

pytestmark = pytest.mark.usefixtures("short_back_off")


@pytest.fixture
def archive(faceless_box: Sandbox, tmp_path: Path) -> Archive:
    """Three people enrolled by run 1, two more by run 2."""
    there = Archive(tmp_path, faceless_box)
    there.people(1, 2, 3)
    there.run()
    there.people(4, 5)
    there.run()
    return there


def removed(archive: Archive, told: Told | None = None, **changed: Any) -> Removed:
    settings = replace(RemoveSettings(ledger=archive.ledger), **changed)
    return remove(settings, lambda: archive.credentials, told or Told())


def ids(archive: Archive, *people: str) -> Path:
    path = archive.folder / "ids.txt"
    path.write_text("".join(f"{one}\n" for one in people), encoding="utf-8")
    return path


def there(archive: Archive) -> list[str]:
    """Whose faces the library holds."""
    return sorted(face.user_id for face in archive.box.faces(GROUP))


def statuses(archive: Archive) -> dict[Status, int]:
    reader = read_ledger(archive.ledger)
    counts = dict(reader.status(runs=0).counts)
    reader.close()
    return {status: count for status, count in counts.items() if count}


def test_what_a_run_has_added_is_taken_out_again(archive: Archive) -> None:
    told = Told()
    tokens = {user_id: archive.face(user_id).face_token for user_id in ("u4", "u5")}
    found = removed(archive, told, of_run=2)
    assert (found.exit_code, found.gone, found.unknown) == (ExitCode.DONE, 2, 0)
    assert there(archive) == ["u1", "u2", "u3"]
    assert statuses(archive) == {Status.ENROLLED: 3, Status.REMOVED: 2}
    assert "Delete 2 faces of 2 people from the library staff?" in told.questions[0]
    assert str(tokens["u4"]) in told.text
    assert not {"u4", "4.jpg"} & set(told.text.split())
    assert archive.face("u4").face_token is None
    assert sorted(archive.history()) == sorted(
        (kind, user_id, token or "")
        for kind in ("removing", "removed")
        for user_id, token in tokens.items()
    )
    assert archive.box.count("delete") == 1


def test_who_wants_to_see_whose_faces_they_are_says_so(archive: Archive) -> None:
    told = Told(agrees=False)
    removed(archive, told, of_run=2, show_user_ids=True)
    assert "u4" in told.text.split()
    assert "4.jpg" in told.text


def test_nothing_is_deleted_without_consent(archive: Archive) -> None:
    told = Told(agrees=False)
    found = removed(archive, told, of_run=1)
    assert (found.exit_code, found.gone) == (ExitCode.INTERRUPTED, 0)
    assert "Nothing was deleted." in told.text
    status, _ = read_status(archive.ledger)
    (last, *_) = (line for line in status_lines(status, archive.ledger) if "  remove  " in line)
    assert last.endswith(": answered with no, so nothing was deleted")
    assert len(there(archive)) == 5
    assert archive.box.count("delete") == 0


def test_every_face_of_a_person_goes_and_copies_too_and_nobody_elses(archive: Archive) -> None:
    copy = archive.add("u1", "1.jpg")
    archive.surplus("u1", copy)
    stranger = archive.add("u2", "2.jpg")
    archive.photo("new.jpg", 77)
    archive.rows[0] = ("u1", "name 1", "new.jpg")
    archive.run(allow_nonempty=True)
    assert there(archive).count("u1") == 3
    told = Told()
    found = removed(archive, told, user_ids=ids(archive, "u1", "nobody-12"))
    assert found.gone == 3
    assert "The ledger has no face of 1 of the 2 people: no***2." in told.text
    assert there(archive) == ["u2", "u2", "u3", "u4", "u5"]
    assert stranger in archive.in_library()


def test_where_there_is_nothing_to_delete_it_says_of_what(archive: Archive) -> None:
    for _ in range(2):
        told = Told()
        removed(archive, told, of_run=2)
    assert told.said == ["Nothing to delete: the library holds no face that run 2 added."]
    told = Told()
    assert removed(archive, told, superseded=True).exit_code is ExitCode.DONE
    assert told.said == ["Nothing to delete: the library holds no superseded face."]
    told = Told()
    removed(archive, told, user_ids=ids(archive, "nobody-1"))
    assert told.said == [
        "The ledger has no face of this person: no***1.",
        "Nothing to delete: the library holds no face of these people.",
    ]


def test_a_token_that_a_face_has_twice_is_deleted_once(archive: Archive) -> None:
    face = archive.face("u1")
    archive.record(replace(face, former_token=face.face_token, former_user_data="name"))
    found = removed(archive, user_ids=ids(archive, "u1"))
    assert (found.exit_code, found.gone) == (ExitCode.DONE, 1)
    assert (archive.face("u1").face_token, archive.face("u1").former_token) == (None, None)


def test_superseded_faces_go_and_their_people_keep_the_new_one(archive: Archive) -> None:
    archive.photo("1.jpg", 99)
    archive.run()
    assert statuses(archive) == {Status.ENROLLED: 5, Status.SUPERSEDED: 1}
    assert there(archive).count("u1") == 2
    assert removed(archive, superseded=True).gone == 1
    assert there(archive) == ["u1", "u2", "u3", "u4", "u5"]
    (kept,) = [face for face in archive.faces("u1") if face.status is Status.ENROLLED]
    assert kept.face_token in archive.in_library()


def test_who_still_stands_in_a_manifest_is_enrolled_again_and_once(archive: Archive) -> None:
    archive.run()  # the scan cache says that nothing is to be done
    removed(archive, of_run=2)
    assert archive.run().ended.tally.enrolled_now == 2
    assert there(archive) == ["u1", "u2", "u3", "u4", "u5"]
    assert archive.run().ended.tally.enrolled_now == 0
    assert statuses(archive) == {Status.ENROLLED: 5}


def test_a_face_that_the_library_does_not_hold_any_more_counts_as_gone(archive: Archive) -> None:
    archive.delete(archive.face("u4").face_token or "")
    assert removed(archive, of_run=2).gone == 2
    assert statuses(archive) == {Status.ENROLLED: 3, Status.REMOVED: 2}


@pytest.mark.parametrize("fault", ["500", "late", "reset"])
def test_an_answer_that_leaves_it_open_is_settled(archive: Archive, fault: str) -> None:
    archive.box.script([fault], call="delete")
    found = removed(archive, of_run=2, timeout=1.0)
    assert (found.gone, found.unknown) == (2, 0)
    assert there(archive) == ["u1", "u2", "u3"]


def test_a_refusal_leaves_ledger_and_library_as_they_were(archive: Archive) -> None:
    archive.box.script(["auth"] * 3, call="delete")
    with pytest.raises(ServiceError):
        removed(archive, of_run=2)
    assert statuses(archive) == {Status.ENROLLED: 5}
    assert archive.run().ended.tally.enrolled_now == 0
    assert archive.box.count("delete") <= 3
    assert len(there(archive)) == 5


def test_a_run_finishes_what_a_killed_command_was_about_to_delete(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else the ledger would go on believing in faces that are gone.
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(deletions, "_carry_out", die)
        with pytest.raises(Killed):
            removed(archive, of_run=2)
    archive.delete(archive.face("u4").face_token or "")  # applied in part, before it was killed
    report = archive.run()
    assert there(archive) == ["u1", "u2", "u3", "u4", "u5"]
    assert report.ended.tally.enrolled_now == 2
    assert statuses(archive) == {Status.ENROLLED: 5}


def test_faces_in_doubt_stay_and_are_said(archive: Archive) -> None:
    archive.doubt("u4")
    told = Told()
    found = removed(archive, told, user_ids=ids(archive, "u4", "u5"))
    assert (found.exit_code, found.gone) == (ExitCode.IN_DOUBT, 1)
    assert "1 face of these people is in doubt and not deleted" in told.text
    assert there(archive) == ["u1", "u2", "u3", "u4"]


def test_more_faces_than_a_call_takes_are_deleted_in_several(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletions, "DELETE_PAGE", 2)
    assert removed(archive, of_run=1).gone == 3
    assert archive.box.count("delete") == 2
    assert there(archive) == ["u4", "u5"]


def test_the_faces_can_be_written_down_first(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    token = archive.face("u4").face_token
    removed(archive, Told(agrees=False), of_run=2, list=path)
    assert {"user_id": "u4", "face_token": token, "image": "4.jpg"} in [
        {**line, "image": Path(line["image"]).name} for line in read_csv(path)
    ]


def test_a_run_that_has_not_been_is_refused(archive: Archive) -> None:
    with pytest.raises(UsageError, match=r"There is no run 9\."):
        removed(archive, of_run=9)


@pytest.mark.parametrize(
    "text",
    ["a1\nb2\n\na1\n", "user_id\na1\nb2\n", "name,user_id\nx,a1\ny,b2\n", "user_id;n\na1;x\nb2;\n"],
)
def test_ids_come_one_a_line_or_in_a_column(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ids"
    path.write_text(text, encoding="utf-8-sig")
    assert read_user_ids(path) == ["a1", "b2"]


@pytest.mark.parametrize(
    ("text", "said"), [("", "There is no user_id"), ("name,id\nx,1\n", "no column user_id")]
)
def test_a_file_without_ids_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "ids"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        read_user_ids(path)


def test_the_command_needs_one_choice_and_consent(archive: Archive, tmp_path: Path) -> None:
    environ = {"ENROLL_API_KEY": archive.box.api_key, "ENROLL_API_SECRET": archive.box.api_secret}
    command = Command(home=tmp_path / "home", folder=archive.folder, environ=environ)
    assert command("remove", "--ledger", archive.ledger).code == ExitCode.USAGE
    assert command("remove", "--ledger", archive.ledger, "--run", "1", "--superseded").code == 2
    done = command("remove", "--ledger", archive.ledger, "--run", "2")
    assert done.code == ExitCode.USAGE
    assert "Agree with --yes" in done.err
    done = command("remove", "--ledger", archive.ledger, "--run", "2", "--yes")
    assert (done.code, done.told) == (0, "")
    assert "2 faces deleted from the library staff." in done.out
    assert there(archive) == ["u1", "u2", "u3"]
    people = ids(archive, "u1")
    done = command(
        *("remove", "--ledger", archive.ledger, "--yes", "--user-ids", people, "--list", people)
    )
    assert done.code == ExitCode.USAGE
    assert people.read_text(encoding="utf-8") == "u1\n"
    assert there(archive) == ["u1", "u2", "u3"]


def test_ids_in_a_column_that_is_quoted_are_the_ids(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_text('"user_id"\n"8400123"\n')
    assert read_user_ids(path) == ["8400123"]


def test_a_quote_in_a_list_of_ids_does_not_make_one_id_of_two(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text('"12\n34\n56\n', encoding="utf-8")
    assert "123456" not in read_user_ids(path)


def test_quotes_within_a_line_of_ids_do_not_make_anothers_id_of_it(tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text('84 "00123"\n"99""01"\n', encoding="utf-8")
    assert not {"8400123", "9901"} & set(read_user_ids(ids))


def test_a_note_with_a_line_separator_does_not_name_somebody_else(tmp_path: Path) -> None:
    ids = tmp_path / "ids.csv"
    ids.write_text("user_id,note\n84001,as asked by\x0b84002\n84003,\n", encoding="utf-8")
    assert read_user_ids(ids) == ["84001", "84003"]
