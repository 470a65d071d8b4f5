"""Libraries made for a run and deleted by a person."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from archive import GROUP, Archive, Told
from moved_clock import standin
from real_command import Command

from enroll.commands.library import delete_library
from enroll.errors import ExitCode, ServiceError, UsageError
from enroll.facesearch import Call
from enroll.ledger.sqlite_lock import LedgerLock
from enroll.sandbox import Sandbox
from enroll.session.account import connect
from enroll.settings import CallSettings

pytestmark = pytest.mark.usefixtures("moved_clock")

RUN = ("run", "staff.csv", "--group-id", "new")
DELETE = ("library", "delete", "--group-id", "staff")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Archive]:
    with standin(detect=False) as box:
        yield Archive(tmp_path, box)


def libraries(command: Command) -> list[str]:
    listed = command("library", "list").out.splitlines()
    return [line.split()[0] for line in listed[1:]] if "group_id" in listed[0] else []


# run --create-library


def test_a_run_makes_the_library_once_and_only_if_it_is_told_to(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == ExitCode.SERVICE
    assert libraries(command) == ["staff"]
    done = command(*RUN, "--create-library")
    assert done.code == 0, done
    assert "The account had no library new; it was created." in done.err
    assert "2 group_list, 1 create, 1 list, 1 add" in done.out
    again = command(*RUN, "--create-library")
    assert (again.code, "it was created" in again.err) == (0, False)
    assert box.count("create") == 1
    assert libraries(command) == ["staff", "new"]


def test_a_library_that_is_there_is_not_made(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command("run", "staff.csv", "--group-id", "staff", "--create-library").code == 0
    assert box.count("create") == 0


def test_a_dry_run_says_that_the_library_would_be_made(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    done = command(*RUN, "--create-library", "--dry-run")
    assert "The library new would be created if the account does not have it." in done.out
    assert "would be made" not in command(*RUN, "--dry-run").out
    assert box.calls == []


def test_no_settings_make_a_library(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    (archive.folder / "enroll.toml").write_text("create_library = true\n")
    done = command(*RUN)
    assert (done.code, "can only be given on the command line" in done.err) == (
        ExitCode.USAGE,
        True,
    )


def test_a_library_whose_making_is_not_known_is_looked_for(place: Archive) -> None:
    place.people(1)
    place.box.script(["reset-after"], call="create")
    assert place.run(create_library=True).exit_code is ExitCode.DONE
    assert place.box.count("create") == 1


def test_a_library_that_was_not_made_stops_the_run_and_leaves_no_ledger(place: Archive) -> None:
    place.people(1)
    place.box.script(["502-before"], call="create")
    with pytest.raises(ServiceError, match="not known whether the library was created"):
        place.run(create_library=True)
    assert not place.ledger.exists()
    place.box.script(["refused"] * 2, call="create")
    assert place.run(create_library=True).exit_code is ExitCode.DONE
    assert place.box.count("create") == 4


def test_a_word_of_the_service_that_nobody_knows_is_said_with_whom_to_ask(
    box: Sandbox, command: Command
) -> None:
    for number in range(10 - 1):
        box.create_library(f"more-{number}")
    done = command("library", "create", "--group-id", "one-too-many")
    assert done.code == ExitCode.SERVICE
    assert "QUOTA_EXCEEDED: group. enroll does not know this code" in done.err


def test_no_library_is_made_for_a_ledger_of_one_that_is_gone(place: Archive) -> None:
    place.people(1)
    place.run(create_library=True)
    with_faces(place)
    with pytest.raises(UsageError, match="belongs to one that it had"):
        place.run(create_library=True)
    assert place.box.count("create") == 1


def with_faces(place: Archive) -> None:
    """Somebody deletes the library with its faces."""
    service = place.service
    service.make(Call.free(group_id=GROUP, check_empty=False))
    service.close()


def test_a_bound_on_calls_that_is_too_small_to_make_a_library_is_said(place: Archive) -> None:
    place.people(1)
    with pytest.raises(UsageError, match="too few calls to create it"):
        place.run(create_library=True, max_calls=2)
    assert place.box.count("create") == 0
    report = place.run(create_library=True, max_calls=3)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert report.ended.tally.calls.total() == 3


# library delete


class Person(Told):
    """Answers a question, after something else has happened."""

    def __init__(self, place: Archive, *, agrees: bool = True, adds: bool = False) -> None:
        super().__init__(agrees=agrees)
        self.place, self.adds = place, adds
        self.question = ""

    def confirm(self, question: str, *, changes: bool = True) -> bool:
        self.question = question
        if self.adds:
            self.place.add("u1", "1.jpg")
        return self.agrees


def delete(place: Archive, person: Person, *, force: bool = False) -> bool:
    with connect(
        CallSettings(timeout=2.0), lambda: place.credentials, endpoint=place.box.endpoint
    ) as connection:
        return delete_library(connection, group_id=GROUP, force=force, prompt=person)


def test_an_empty_library_is_deleted_when_a_person_agrees(place: Archive) -> None:
    place.box.create_library(GROUP)
    person = Person(place, agrees=False)
    assert not delete(place, person)
    assert place.box.count("free") == 0
    assert "which holds no face" in person.question
    assert delete(place, Person(place))
    with pytest.raises(UsageError, match="has no library staff"):
        delete(place, Person(place))


def test_a_library_with_faces_needs_force_and_says_how_many(place: Archive) -> None:
    place.box.create_library(GROUP)
    place.people(1, 2)
    place.run()
    with pytest.raises(UsageError, match="holds 2 faces"):
        delete(place, Person(place))
    assert len(place.in_library()) == 2
    person = Person(place)
    assert delete(place, person, force=True)
    assert "which holds 2 faces" in person.question


def test_a_library_that_fills_meanwhile_is_not_deleted_even_by_force(place: Archive) -> None:
    place.box.create_library(GROUP)
    place.people(1)
    with pytest.raises(UsageError, match="no longer empty"):
        delete(place, Person(place, adds=True), force=True)
    assert len(place.in_library()) == 1


@pytest.mark.parametrize(("fault", "gone"), [("reset-after", True), ("reset-before", False)])
def test_whether_it_was_deleted_is_looked_up_when_the_answer_is_lost(
    place: Archive, fault: str, gone: bool
) -> None:
    place.box.create_library(GROUP)
    place.box.script([fault], call="free")
    if gone:
        assert delete(place, Person(place))
    else:
        with pytest.raises(ServiceError, match="it is still there"):
            delete(place, Person(place))
    assert place.box.count("free") == 1


def test_the_command_asks_and_says_what_becomes_of_the_ledger(
    box: Sandbox, archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.manifest(archive.portraits(1))
    assert command("run", "staff.csv", "--group-id", "staff").code == 0
    assert "Use --force" in command(*DELETE, "--yes").err
    asked = command(*DELETE, "--force")  # nobody is there to answer
    assert (asked.code, "Agree with --yes" in asked.err) == (ExitCode.USAGE, True)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "confirm", lambda question, **how: False)
    no = command(*DELETE, "--force")
    assert (no.code, no.told) == (ExitCode.INTERRUPTED, "Nothing was done.\n")
    assert libraries(command) == ["staff"]
    done = command(*DELETE, "--force", "--yes")
    assert done.code == 0, done
    assert f"Its ledger {command.ledger} stays" in done.out
    assert libraries(command) == []
    gone = command(*DELETE, "--yes")
    assert (gone.code, "Nothing was deleted" in gone.err) == (ExitCode.USAGE, True)
    box.create_library("staff")
    again = command("run", "staff.csv", "--group-id", "staff")
    assert (again.code, box.count("add")) == (ExitCode.USAGE, 1), again


def test_a_library_that_a_run_fills_is_not_deleted(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command("run", "staff.csv", "--group-id", "staff").code == 0
    with LedgerLock(command.ledger):
        assert command(*DELETE, "--force", "--yes").code == ExitCode.LEDGER_BUSY
    assert box.count("free") == 0


def test_a_library_without_a_ledger_is_deleted_without_a_word_of_one(command: Command) -> None:
    done = command(*DELETE, "--yes")
    assert (done.code, "ledger" in done.out) == (0, False)
    assert not command.ledger.exists()
