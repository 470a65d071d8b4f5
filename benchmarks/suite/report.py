"""What `enroll report` takes for a large ledger of which one row in a hundred needs a person, and
what its page takes in a browser."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from enroll.cli.rehearsal import PEOPLE, portrait
from enroll.clock import now_ms
from enroll.ledger import Changes, LibraryIdentity, RunEnd, ledger_at
from enroll.model import Event, EventKind, FaceRecord, RowRecord, Status

from .archives import Archive, kept
from .bench import Bench
from .figures import OURS, Figure, figure
from .ledgers import run_start
from .process import measured
from .ways import surroundings

_AT_ONCE = 20_000

_SHARE = 100
"""Of so many rows one needs a person."""

_ANSWER = """
([selector, value]) => {
    const node = document.querySelector(selector), began = performance.now();
    if (value === null) node.click();
    else { node.value = value; node.dispatchEvent(new Event("input", { bubbles: true })); }
    document.body.offsetHeight;  // until it is laid out
    return performance.now() - began;
}
"""
_QUESTIONS = {
    "a filter": (["#q", "family12"], ["#q", "e0047"], ["#q", ""], ["#status", "enrolled"]),
    "a sort": [[f"#entries th[data-name={name}] button", None] for name in ("id", "data", "path")],
}

_REASONS = (
    (Status.REJECTED, "NO_FACE_FOUND", ""),
    (Status.INVALID, "PHOTO_TRUNCATED", "The last 12,345 bytes of the file are missing."),
    (Status.REJECTED, "INVALID_IMAGE_SIZE", ""),
    (Status.INVALID, "USER_DATA_TOO_LONG", "130 characters; the service takes 128."),
    (Status.FAILED, "PHOTO_UNREADABLE", "Permission denied."),
    (Status.IN_DOUBT, "TIMEOUT", ""),
)
DEPARTMENTS = ("Sales", "Production", "Quality assurance", "Research", "Canteen", "Night shift")


def measure(bench: Bench) -> Iterator[Figure]:
    """Time, CPU, memory and size of a page with a picture of each row that needs a person."""
    rows = bench.size.many
    case = f"report, {rows:,} rows"
    with bench.scratch() as folder:
        archive = portraits(folder, max(rows // _SHARE, 1))
        ledger = fabricate(folder, archive, rows)
        page = folder / "report.html"
        command = (
            *(sys.executable, "-m", "enroll", "report", page, "--ledger", ledger),
            *("--thumbnails", str(archive.rows), "--memory", "400MB"),
        )
        environ = surroundings(folder, "http://127.0.0.1:9")
        used = []
        for _ in bench.rounds([OURS]):
            used.append(measured(command, cwd=folder, environ=environ))
        walls = [one.wall for one in used]
        yield figure(case, OURS, "wall time", values=walls, unit="s", target="≤ 180")
        yield figure(case, OURS, "CPU", values=[one.cpu for one in used], unit="s")
        memory = [one.memory / 1e6 for one in used]
        yield figure(case, OURS, "memory", values=memory, unit="MB", target="≤ 400")
        size = page.stat().st_size / 1e6
        yield figure(case, OURS, "size of the page", values=[size], unit="MB", target="≤ 25")
        for name, values in _in_browser(page, bench.size.rounds).items():
            target = "≤ 1000" if name == "usable" else "≤ 100"
            yield figure(
                case, OURS, f"in Chromium: {name}", values=values, unit="ms", target=target
            )


def _in_browser(page: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds until the page can be used, and until a question is answered: in each round the
    slowest of several. Nothing where there is no browser."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415
    except ImportError:
        return {}
    if chromium is None:
        return {}
    found: dict[str, list[float]] = defaultdict(list)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        for _ in range(rounds):
            opened = browser.new_page()
            opened.goto(page.as_uri())
            opened.wait_for_selector("html[data-sorted]")
            found["usable"].append(float(opened.locator("html").get_attribute("data-ready") or 0))
            for what, questions in _QUESTIONS.items():
                took = [opened.evaluate(_ANSWER, question) for question in questions]
                found[what].append(max(took))
            opened.close()
        browser.close()
    return found


def portraits(folder: Path, rows: int) -> Archive:
    """So many photos, which show the demo's people in turn."""
    return kept(Archive(folder / "portraits", rows, [portrait(n) for n in range(PEOPLE)], None))


def fabricate(folder: Path, archive: Archive, rows: int) -> Path:
    """A ledger of so many rows, of which as many need a person as the archive has photos, and the
    manifest of all of them; returns the ledger. Enrolled rows have no photo."""
    manifest = folder / "staff.csv"
    with manifest.open("w", encoding="utf-8") as file:
        file.write("user_id,user_data,image,department\n")
        for number in range(rows):
            line = *_line(archive, number, rows), DEPARTMENTS[number * 7 % len(DEPARTMENTS)]
            file.write(f"{','.join(line)}\n")
    path = folder / "ledger.sqlite"
    identity = LibraryIdentity(host="127.0.0.1", group_id="staff", add_time="2026-01-01T00:00:00Z")
    ledger = ledger_at(path).open(identity, began_empty=True)
    try:
        start = replace(run_start(archive, manifest), photo_root_named=True)
        run = ledger.start_run(start)
        changes = _changes(archive, rows, root=start.photo_root, run=run)
        while some := list(islice(changes, _AT_ONCE)):
            ledger.record(
                Changes(
                    faces=[face for face, _, _ in some],
                    rows=[row for _, row, _ in some],
                    events=[event for _, _, event in some if event],
                )
            )
            ledger.commit()
        counts = {Status.ENROLLED.value: rows - archive.rows}
        calls = {"add": rows, "list": 1}
        ledger.end_run(
            run, RunEnd(at=now_ms(), exit_code=1, reason="", calls=calls, rows=counts, limit=16)
        )
    finally:
        ledger.close()
    return path


def _line(archive: Archive, number: int, rows: int) -> tuple[str, str, str]:
    every = rows // archive.rows
    image = f"p/{number // 1000:04}/{number:08}.jpg"
    if number % every == 0 and number // every < archive.rows:
        image = archive.image(number // every)
    return f"E{number * 7919 % 10_000_019:08}", f"Given{number % 977} Family{number % 7001}", image


def _changes(
    archive: Archive, rows: int, *, root: str, run: int
) -> Iterator[tuple[FaceRecord, RowRecord, Event | None]]:
    every = rows // archive.rows
    at = now_ms()
    for number in range(rows):
        user_id, user_data, image = _line(archive, number, rows)
        sha256 = hashlib.sha256(b"%d" % number).digest()
        bad = number % every == 0 and number // every < archive.rows
        status, code, message = (
            _REASONS[number // every % len(_REASONS)] if bad else (Status.ENROLLED, "", "")
        )
        face = FaceRecord(
            face_id=number + 1,
            user_id=user_id,
            sha256=sha256,
            status=status,
            face_token=None if bad else sha256.hex()[:32],
            attempts=1,
            first_attempt_at=at,
            code=code,
            message=message,
            request_id=sha256.hex()[32:],
            prepared="" if number % 3 else "turned, shrunk",
            user_data=user_data,
            enrolled_at=None if bad else at + number,
            run=run,
        )
        row = RowRecord(
            user_id=user_id,
            path=f"{root}/{image}",
            user_data=user_data,
            face_id=number + 1,
            sha256=sha256,
            run=run,
        )
        event = Event(at=at, kind=EventKind.ENROLLED, run=run, face_id=number + 1)
        yield face, row, None if bad else event
