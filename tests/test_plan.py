"""`enroll plan`: what a run would do."""

from __future__ import annotations

import os
import re
import sqlite3
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from archive import QUICK_DOUBTS, Archive, let_nobody_look, nobody, portrait
from PIL import Image
from real_command import Command

from enroll.commands import plan
from enroll.commands.plan import make_plan
from enroll.commands.plan_report import Plan, Rate, plan_lines
from enroll.manifest.manifest import open_manifest
from enroll.model import Fault, SendAs, Status
from enroll.photos import open_store
from enroll.sandbox import Sandbox
from enroll.settings import RunSettings
from enroll.text.remedies import UNKNOWN_CODE

pytestmark = pytest.mark.usefixtures("moved_clock")

RUN = ("run", "staff.csv", "--group-id", "staff")
PLAN = ("plan", "staff.csv", "--group-id", "staff")


@dataclass(frozen=True)
class Seen:
    """A file or folder as it stands."""

    mtime_ns: int
    content: bytes | None


def everything_below(folder: Path) -> dict[Path, Seen]:
    return {
        path: Seen(path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in (folder, *folder.rglob("*"))
    }


def planned(archive: Archive, command: Command, *, full: bool = False, **settings: object) -> Plan:
    return make_plan(
        RunSettings(
            manifest=archive.folder / "staff.csv",
            group_id="staff",
            endpoint=command.environ["ENROLL_ENDPOINT"],
            ledger=command.ledger,
            **settings,  # type: ignore[arg-type]
        ),
        rate=None,
        full=full,
    )


def test_a_plan_calls_nothing_and_writes_nothing(
    box: Sandbox, archive: Archive, command: Command, tmp_path: Path
) -> None:
    archive.manifest(archive.portraits(1, 2))
    command.surroundings()  # makes the home
    before = everything_below(tmp_path)
    for arguments in (PLAN, (*RUN, "--dry-run"), ("plan", "staff.csv")):
        done = command(*arguments)
        assert (done.code, " No calls were made." in done.out) == (0, True), done
    assert everything_below(tmp_path) == before
    assert box.calls == []


def test_a_plan_with_a_ledger_writes_nothing_either(
    box: Sandbox, archive: Archive, command: Command, tmp_path: Path
) -> None:
    archive.manifest(archive.portraits(1, 2))
    assert command.run(*RUN).code == 0
    before = everything_below(tmp_path)
    calls = len(box.calls)
    assert command.run(*PLAN).code == 0
    assert len(box.calls) == calls
    # SQLite makes files beside the ledger and takes them away again: its folder's time changes.
    after = everything_below(tmp_path)
    folder = command.ledger.parent
    assert {**after, folder: None} == {**before, folder: None}


def test_a_plan_of_no_library_says_that_it_knows_nothing(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    assert "every row counts as new" in command("plan", "staff.csv").out
    assert "every row counts as new" not in command(*PLAN).out


def test_a_plan_needs_no_credentials(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    command.environ.clear()
    assert command(*PLAN).code == 0


def test_a_plan_says_what_the_run_then_does(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    rows = archive.portraits(1, 2, 3, 4)
    archive.manifest(rows[:2])
    assert command(*RUN).code == 0
    os.utime(archive.folder / "photos/2.jpg", ns=(0, 0))
    archive.photo("twin.jpg", portrait(3))
    archive.photo("text.jpg", b"no photo")
    archive.photo("empty.jpg", b"")
    archive.manifest(
        [
            *rows,
            rows[3],
            ("twin", "", "twin.jpg"),
            ("text", "", "text.jpg"),
            ("empty", "", "empty.jpg"),
            ("missing", "", "missing.jpg"),
            ("bad id", "", "photos/1.jpg"),
            ("away", "", "../away.jpg"),
        ]
    )
    plan = planned(archive, command)
    assert (plan.rows, plan.enrolled, plan.to_read, plan.due, plan.calls) == (11, 1, 1, 4, 3)
    assert plan.content == 2 * len(portrait(3)) + len(portrait(4))
    assert plan.shared == 1
    assert {code: (status.value, count) for (status, code), count in plan.faults.items()} == {
        "PHOTO_NOT_AN_IMAGE": ("invalid", 1),
        "PHOTO_EMPTY": ("invalid", 1),
        "PHOTO_MISSING": ("failed", 1),
        "USER_ID_CHARACTER": ("invalid", 1),
        "PHOTO_OUTSIDE": ("invalid", 1),
    }

    calls = box.count("add")
    done = command(*RUN)
    assert done.code == 1
    assert box.count("add") - calls == plan.calls
    assert "1 photo enrolled under more than one user_id" in done.out
    found = [line["status"] for line in archive.results()]
    assert found.count("enrolled") == plan.enrolled + plan.to_read + plan.due
    for (status, code), count in plan.faults.items():
        wanted = (status.value, code)
        assert [(one["status"], one["error"]) for one in archive.results()].count(wanted) == count

    after = planned(archive, command)
    assert (after.due, after.calls, after.to_read, after.enrolled) == (0, 0, 0, 6)
    assert after.faults == plan.faults


def test_what_was_rejected_is_planned_only_when_it_would_be_tried_again(
    archive: Archive, command: Command
) -> None:
    archive.photo("nobody.jpg", nobody())
    archive.manifest([("a1", "", "nobody.jpg")])
    assert command(*RUN).code == 1
    plan = planned(archive, command)
    assert (plan.calls, dict(plan.faults)) == (0, {(Status.REJECTED, "NO_FACE_FOUND"): 1})
    assert planned(archive, command, retry=frozenset({"NO_FACE_FOUND"})).calls == 1
    assert planned(archive, command, multi_oriented_detection=True).calls == 1
    archive.photo("nobody.jpg", portrait(1))
    assert planned(archive, command).calls == 1


def test_the_time_is_of_the_rate_asked_for_or_else_of_the_last_run(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.manifest(archive.portraits(1))
    assert planned(archive, command).rate == Rate(4 / 1.9, "assuming 4 calls of 1.9 s at a time")
    asked = command(*PLAN, "--rate", "0.5").out
    assert "2.0 s at 0.5 calls a second (as asked)" in asked
    monkeypatch.setattr(plan, "ENOUGH_CALLS", 1)
    assert command(*RUN).code == 0
    assert command(*RUN).code == 0  # without a call: its rate says nothing
    rate = planned(archive, command).rate
    assert (rate.source, 0.1 < rate.calls_per_second < 100) == ("as in run 1", True)


def test_the_rate_is_that_of_the_last_run_that_has_one_however_many_commands_came_after(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "ENOUGH_CALLS", 1)
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    for _ in range(3):
        assert (command("verify").code, command(*RUN).code) == (0, 0)
    assert planned(archive, command).rate.source == "as in run 1"


def test_the_opening_calls_and_the_faces_in_doubt_are_planned_too(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    told = command(*PLAN).out
    assert "Calls    1 group_list, 1 list, 1 add" in told
    assert "in doubt" not in told
    assert command(*RUN).code == 0
    rows = archive.portraits(1, 2)
    archive.manifest(rows)
    box.script(["500-after"])
    let_nobody_look(box)
    assert command(*RUN, *QUICK_DOUBTS).code == 4
    archive.manifest(rows[:1])  # a face in doubt is settled whatever the manifest says
    for status in ("in_doubt", "sending"):  # the latter is what a killed run leaves
        with sqlite3.connect(command.ledger) as ledger:
            ledger.execute("UPDATE face SET status = ? WHERE status = 'in_doubt'", [status])
        ledger.close()
        told = command(*PLAN).out
        assert "1 face in doubt is settled first, with list or search calls" in told
        assert "Calls    1 group_list, 0 add" in told


def test_the_list_that_a_run_makes_before_it_judges_any_photo_is_planned_too(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest([*archive.portraits(1), ("gone", "", "gone.jpg")])
    assert command(*RUN).code == 1
    made = box.count("list")
    assert "Calls    1 group_list, 1 list, 0 add" in command(*PLAN).out  # the photo may be back
    assert command(*RUN).code == 1
    assert box.count("list") == made + 1


def test_checksum_plans_to_read_every_photo(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1, 2))
    assert command(*RUN).code == 0
    plan = planned(archive, command, checksum=True)
    assert (plan.to_read, plan.calls) == (2, 0)


def test_a_plan_is_printed_with_what_to_do_about_each_fault(tmp_path: Path) -> None:
    (tmp_path / "staff.csv").write_text("user_id,user_data,image\na,b,c\n")
    plan = Plan(
        manifest=open_manifest(tmp_path / "staff.csv"),
        ledger=None,
        store=open_store(tmp_path),
        notes=["Photos are looked for elsewhere."],
        rate=Rate(2.0, "as asked"),
        rows=1_005,
        due=1_000,
        calls=1_000,
        content=64_000_000,
        user_data_changed=1,
        gone=2,
        shared=1,
    )
    plan.fault(Status.INVALID, Fault(code="PHOTO_EMPTY", message="It is empty."), 4)
    plan.fault(Status.FAILED, Fault(code="UNHEARD_OF", message="What now?"), 1)
    assert plan_lines(plan) == [
        f"Planned from {tmp_path / 'staff.csv'}, 1,005 rows. No calls were made.",
        "Note: Photos are looked for elsewhere.",
        "",
        "  due                                     1,000",
        "  touched since, to be read and compared      0",
        "  already enrolled                            0",
        "  not sent (see below)                        5",
        "",
        "What would not be sent, how often, and what to do",
        "  invalid  PHOTO_EMPTY  4  Export the photo again.",
        f"  failed   UNHEARD_OF   1  {UNKNOWN_CODE} It said: What now?",
        "",
        "1 photo under more than one user_id, enrolled for each: --duplicates FILE lists them.",
        "1 enrolled row whose user_data differs from the library's: left as enrolled, because "
        "the service cannot update it.",
        "2 enrolled rows whose photo is no longer there.",
        "",
        "Calls    1 group_list, 1 list, 1,000 add",
        "To send  about 64 MB of photos",
        "Time     8 min 20 s at 2.0 calls a second (as asked)",
        f"Photos   {tmp_path}",
        "Ledger   none yet",
    ]


def test_a_photos_folder_that_is_gone_is_said_by_a_plan_too(
    archive: Archive, command: Command
) -> None:
    archive.manifest(
        [(user_id, "", Path(image).name) for user_id, _, image in archive.portraits(1)]
    )
    assert command(*RUN, "--images", "photos").code == 0
    (archive.folder / "photos").rename(archive.folder / "unmounted")
    done = command(*PLAN)
    assert done.code == 7
    assert re.search(r"The photos' folder .*/photos is gone", done.err)


def test_a_photo_that_is_sent_as_text_is_planned_to_be_a_quarter_smaller(
    archive: Archive, command: Command
) -> None:
    archive.photo("noise.png", noise())
    archive.manifest([("a1", "", "noise.png")])
    options = ("--full", "--max-bytes", "40000")
    sizes = [
        planned(archive, command, full=True, max_bytes=40_000, send_as=send_as).content
        for send_as in SendAs
    ]
    assert 30_000 < sizes[0] <= 40_000
    assert sizes[1] <= 30_000
    assert command(*PLAN, *options, "--send-as", "image").code == 0


def noise() -> bytes:
    out = BytesIO()
    Image.effect_noise((400, 400), 60).save(out, "PNG")
    return out.getvalue()
