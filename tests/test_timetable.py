"""`--rate` by the time of day."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from archive import Archive
from real_command import Command

from enroll.errors import ExitCode, UsageError
from enroll.sandbox import Sandbox
from enroll.settings import RunSettings
from enroll.timetable import Timetable

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
def test_a_timetable_holds_by_local_time() -> None:
    table = Timetable.of("08:00-18:00=5, 22:30-6:00=0.5 ,else=50")
    at = {
        text: table.at(datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp())
        for text in (
            "2026-11-30 07:59:59", "2026-11-30 08:00", "2026-11-30 17:59", "2026-11-30 18:00",
            "2026-11-30 22:30", "2026-12-01 00:00", "2026-12-01 05:59", "2026-12-01 06:00",
            "2026-07-01 08:00",
        )
    }  # fmt: skip
    assert list(at.values()) == [50, 5, 5, 50, 0.5, 0.5, 0.5, 50, 5]
    assert str(table) == "08:00-18:00=5,22:30-06:00=0.5,else=50"
    assert Timetable.of(str(table)) == table
    assert table.mean == pytest.approx((10 * 5 + 7.5 * 0.5 + 6.5 * 50) / 24)


def test_without_else_there_is_no_limit_at_other_times() -> None:
    table = Timetable.of("00:00-24:00=3")
    assert (table.at(0.0), table.mean) == (3, 3)
    half = Timetable.of("00:00-12:00=3")
    assert {half.at(0.0), half.at(12 * 3600.0)} == {3, None}
    assert half.mean is None


@pytest.mark.parametrize(
    "text",
    [
        "8-18=5", "08:00-18:00=", "08:00-18:00=0", "08:00-18:00=-1", "08:00-18:00=nan",
        "25:00-26:00=5", "08:00-18:00=5,", "else=5", "08:00-18:00=5,else=1,else=2",
        "08:00-18:00=5,17:00-19:00=6", "22:00-06:00=5,05:00-07:00=6", "08:00-08:00=5,09:00-10:00=6",
        "08:00-18:00=5 else=6", "08:00-18:00=1e400",
    ],
)  # fmt: skip
def test_what_is_no_timetable_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Timetable.of(text)


def test_a_run_takes_a_timetable_and_records_it(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    run = ("run", "staff.csv", "--group-id", "staff", "--rate")
    wrong = command(*run, "08:00-18:00=5,17:00-18:00=6")
    assert (wrong.code, "overlap" in wrong.err) == (ExitCode.USAGE, True), wrong
    assert "4.0 calls a second" in command(*run, "00:00-24:00=4", "--dry-run").out
    assert command(*run, "00:00-12:00=40,else=50").code == 0
    assert (
        RunSettings(
            manifest=archive.folder / "staff.csv",
            group_id="staff",
            rate=Timetable.of("1:00-2:00=3"),
        ).record()["rate"]
        == "01:00-02:00=3"
    )
