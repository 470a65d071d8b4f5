"""The account's limit, found and held over real HTTP, and remembered in the ledger."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from archive import Archive
from PIL import Image
from real_command import Command, account_of

from enroll.commands.run import enroll_in_pools, enroll_manifest
from enroll.commands.run_closing import Report
from enroll.errors import ExitCode
from enroll.ledger import read_ledger
from enroll.model import Credentials
from enroll.sandbox import Sandbox
from enroll.settings import RunSettings

LIMIT = 8


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A stand-in that takes `LIMIT` calls at a time, and any picture for a face."""
    with Sandbox(parallel=LIMIT, latency=0.05, detect=False) as running:
        running.create_library("staff")
        yield running


@pytest.fixture
def settings(archive: Archive, box: Sandbox) -> RunSettings:
    return RunSettings(
        manifest=archive.folder / "staff.csv",
        group_id="staff",
        endpoint=box.endpoint,
        ledger=archive.folder / "ledger.sqlite",
    )


def rows(archive: Archive, first: int, count: int) -> None:
    """A manifest of so many people with pictures of one colour."""
    manifest = []
    for number in range(first, first + count):
        out = io.BytesIO()
        Image.new("RGB", (60, 60), (number % 256, number // 256, 99)).save(out, "JPEG")
        archive.photo(f"{number}.jpg", out.getvalue())
        manifest.append((f"u{number}", "", f"{number}.jpg"))
    archive.manifest(manifest)


def enrolled(settings: RunSettings, box: Sandbox, **more: object) -> Report:
    given = replace(settings, **more)  # type: ignore[arg-type]
    return enroll_manifest(given, lambda: Credentials(box.api_key, box.api_secret))


def test_no_row_fails_by_refusals_and_the_next_run_starts_at_what_was_found(
    archive: Archive, settings: RunSettings, box: Sandbox
) -> None:
    rows(archive, 0, 300)
    report = enrolled(settings, box)
    assert report.exit_code is ExitCode.DONE
    assert {line["status"] for line in archive.results()} == {"enrolled"}
    assert {line["attempts"] for line in archive.results()} == {"1"}
    assert report.ended.tally.refused > 0
    found = report.gauge.ceiling
    assert found is not None
    assert LIMIT - 2 <= found <= LIMIT + 2  # some are on their way, and not at the service
    ledger = read_ledger(report.place.ledger)
    assert ledger.ceiling == found
    ledger.close()

    rows(archive, 300, 100)
    again = enrolled(settings, box)
    assert again.exit_code is ExitCode.DONE
    # No slow start, which would have met the limit from above.
    assert again.ended.tally.refused <= 5
    assert again.gauge.ceiling is not None
    assert abs(again.gauge.ceiling - found) <= 2


def test_a_run_makes_no_more_threads_than_calls_were_in_flight(
    archive: Archive, settings: RunSettings, box: Sandbox
) -> None:
    threads: set[int] = set()

    class DiffCounts(ThreadPoolExecutor):
        def __init__(self, most: int) -> None:
            self.asked = most
            super().__init__(most, initializer=self._begin)

        def _begin(self) -> None:
            if self.asked > 100:
                threads.add(threading.get_ident())

    rows(archive, 0, 120)
    report = enroll_in_pools(
        settings, lambda: Credentials(box.api_key, box.api_secret), pool=DiffCounts
    )
    assert report.exit_code is ExitCode.DONE
    assert 4 <= len(threads) <= 2 * LIMIT + 4


def test_a_rate_bounds_a_run_and_is_what_it_waits_for(
    archive: Archive, settings: RunSettings, box: Sandbox
) -> None:
    rows(archive, 0, 30)
    report = enrolled(settings, box, rate=15.0)
    assert report.exit_code is ExitCode.DONE
    assert box.count("add") == 30
    # From before the first call leaves until after the last: their arrivals may be closer together.
    assert report.ended.seconds >= 27 / 15.0
    waited = report.ended.tally.waited
    assert waited.most_common(1)[0][0] == "our own bound, --rate"


def test_a_fixed_number_is_kept_and_proves_nothing(
    archive: Archive, settings: RunSettings, box: Sandbox
) -> None:
    rows(archive, 0, 40)
    report = enrolled(settings, box, max_in_flight=3)
    assert (report.gauge.limit, report.gauge.ceiling) == (3, None)
    assert report.ended.tally.refused == 0
    ledger = read_ledger(report.place.ledger)
    assert ledger.ceiling is None
    ledger.close()


def test_what_was_found_is_in_the_ledger_while_the_run_goes_on(
    archive: Archive, box: Sandbox, tmp_path: Path
) -> None:
    box.latency = 0.2
    rows(archive, 0, 1500)
    command = Command(home=tmp_path / "home", folder=archive.folder, environ=account_of(box))
    ledger = archive.folder / "ledger.sqlite"
    with command.started(
        "run", "staff.csv", "--group-id", "staff", "--ledger", ledger, "--stats", 1
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "waits for the account" in line and "refused" in line:
                break
        assert box.wait_count("add", box.count("add") + 300, seconds=20.0)
        process.kill()
    told = command("status", "--ledger", ledger, "--json")
    status = json.loads(told.out)
    assert LIMIT - 2 <= status["ceiling"] <= LIMIT + 2
    pace = status["runs"][0]["pace"]
    assert pace["calls"] > 300
    assert pace["waits_for"] == "the account"
    assert "takes" in command("status", "--ledger", ledger).out
