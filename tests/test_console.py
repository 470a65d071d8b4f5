"""What a person or a program sees of a run: lines, a bar, a summary, a log."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import termios
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from archive import Archive, nobody
from moved_clock import StoppedClock
from real_command import Command

from enroll.commands import run
from enroll.commands.run_closing import Report
from enroll.commands.run_opening import Destination
from enroll.errors import ExitCode, ServiceError
from enroll.ledger import RunPace
from enroll.limiter.limits import LimiterState
from enroll.model import CallKind, Candidate, Library, ScannedRow, SharedPhoto, Status
from enroll.photos import open_store
from enroll.report.console import BAR, Console, _Bar
from enroll.report.summary import summary_lines
from enroll.sandbox import Sandbox
from enroll.session.tally import Ended, Tally
from enroll.settings import RunSettings
from enroll.text.logs import LOGGER, LastingStream, log, mask, set_up
from enroll.text.remedies import UNKNOWN_CODE, remedy
from enroll.text.wording import (
    amount,
    as_shown,
    columns,
    counted,
    duration,
    error_table,
    pace_words,
    percent,
    size,
)

RUN = ("run", "staff.csv", "--group-id", "staff")

PLACE = Destination(
    endpoint="https://a.example",
    library=Library(group_id="staff"),
    ledger=Path("/state/staff.sqlite"),
    store=open_store("/photos"),
    new_ledger=False,
    run=7,
    notes=(),
)


ONE = Tally(enrolled_now=1, done=1)


SHARED = "enrolled under more than one user_id: check them (--show-user-ids names the people)."


def report_of(
    ended: Ended, *, results: str | None = "/here/staff.results.csv", changed: bool = True
) -> Report:
    return Report(
        seconds=ended.seconds,
        place=PLACE,
        ended=ended,
        exit_code=ExitCode.DONE,
        results=None if results is None else Path(results),
        results_written=changed,
        gauge=LimiterState(limit=8, taken=0),
    )


def whole(tally: Tally) -> Ended:
    """A run that ended by itself."""
    return Ended(tally=tally, seconds=75.0)


# JSON log lines


def test_a_json_log_is_one_object_a_line_with_stable_keys(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.photo("nobody.jpg", nobody())
    archive.manifest([*archive.portraits(1), ("person-7", "", "nobody.jpg")])
    done = command.run(*RUN, "--log-format", "json", "--log-file", "run.jsonl")
    assert (done.code, done.out) == (1, "")
    events = [json.loads(line) for line in done.err.splitlines()]
    kinds = ["connecting", "run_started", "row", "run_ended"]
    assert [event["event"] for event in events] == kinds
    common = ["time", "level", "event", "run", "message"]
    connecting, started, row, ended = events
    assert [list(event)[:5] for event in events] == [common] * 4
    assert list(connecting)[5:] == ["endpoint", "credentials"]
    assert connecting["endpoint"] == box.endpoint
    assert connecting["credentials"].endswith("… (ENROLL_API_KEY and ENROLL_API_SECRET)")
    assert list(started)[5:] == ["endpoint", "group_id", "ledger", "manifest"]
    assert list(row)[5:] == ["line", "user_id", "status", "code"]
    assert list(ended)[5:] == [
        "exit_code", "rows", "errors", "calls", "refused", "limit", "ceiling", "spacing",
        "seconds", "ledger", "results",
    ]  # fmt: skip
    assert row["line"] == 3
    assert (row["level"], row["status"], row["code"]) == ("warning", "rejected", "NO_FACE_FOUND")
    assert (started["run"], started["endpoint"]) == (1, box.endpoint)
    assert (ended["exit_code"], ended["refused"]) == (1, 0)
    assert ended["rows"] == {"enrolled": 1, "rejected": 1}
    assert ended["errors"] == {"NO_FACE_FOUND": 1}
    assert ended["calls"] == {"group_list": 1, "list": 1, "add": 2}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", started["time"])
    logged = (archive.folder / "run.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in logged] == kinds


def test_a_text_log_file_says_why_a_run_could_not_begin_and_the_terminal_says_it_once(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    command.environ["ENROLL_API_SECRET"] = "wrong"
    done = command(*RUN, "--quiet", "--log-file", "run.log")
    assert done.code == ExitCode.SERVICE
    assert done.err.count("AUTHORIZATION_ERROR") == 1
    first, line = (archive.folder / "run.log").read_text().splitlines()
    assert " info: calling http://127.0.0.1:" in first
    assert " error: The service cannot be used: AUTHORIZATION_ERROR" in line


def test_a_text_log_file_has_every_row_with_its_time(archive: Archive, command: Command) -> None:
    archive.manifest([(f"person-{number}", "", f"{number}.jpg") for number in range(6)])
    done = command(*RUN, "--log-file", "run.log")
    lines = (archive.folder / "run.log").read_text().splitlines()
    assert sum("PHOTO_MISSING" in line for line in lines) == 6
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (info|warning): ", line) for line in lines)
    assert command(*RUN, "--log-file", "run.log").code == 1
    assert len((archive.folder / "run.log").read_text().splitlines()) == 2 * len(lines)

    shown = [line for line in done.err.splitlines() if "PHOTO_MISSING" in line]
    assert [line.startswith("Line ") for line in shown] == [True, True, True, False]
    further = "Further rows with PHOTO_MISSING are not shown here; the results have all of them."
    assert shown[3] == further


def test_rows_of_one_error_have_one_level_however_many_there_are(
    archive: Archive, command: Command
) -> None:
    archive.manifest([(f"person-{number}", "", f"{number}.jpg") for number in range(6)])
    done = command(*RUN, "--log-format", "json", "--log-file", "run.jsonl")
    logged = (archive.folder / "run.jsonl").read_text(encoding="utf-8")
    for text in (done.err, logged):
        rows = [each for each in map(json.loads, text.splitlines()) if each["event"] == "row"]
        assert [row["level"] for row in rows] == ["warning"] * 6
    command(*RUN, "--log-file", "run.log")
    lines = (archive.folder / "run.log").read_text(encoding="utf-8").splitlines()
    assert sum(" warning: " in line and "PHOTO_MISSING" in line for line in lines) == 6


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_quiet_log_format_and_log_file_go_together(
    archive: Archive, command: Command, quiet: tuple[str, ...], log_format: str
) -> None:
    guessed(archive)
    archive.photo("1.jpg", nobody())
    options = ("--images", ".", "--log-format", log_format, "--log-file", "run.log", *quiet)
    done = command(*RUN, *options)
    assert done.code == 1
    logged = (archive.folder / "run.log").read_text(encoding="utf-8").splitlines()
    if log_format == "text":
        assert [line.split()[2] for line in logged] == [
            *("info:", "info:", "warning:", "warning:", "info:")
        ]
        assert ["NO_FACE_FOUND" in done.err, "Endpoint" in done.err] == [not quiet] * 2
        assert done.err.count("--encoding") == 1
        assert "NO_FACE_FOUND" in done.out
        return
    everything = ["connecting", "run_started", "note", "row", "run_ended"]
    assert [json.loads(line)["event"] for line in logged] == everything
    shown = [json.loads(line)["event"] for line in done.err.splitlines()]
    assert shown == (["note", "run_ended"] if quiet else everything)
    assert done.out == ""


def test_quiet_prints_only_what_needs_a_person(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    done = command(*RUN, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    archive.manifest([("a1", "", "missing.jpg")])
    done = command(*RUN, "--quiet")
    assert (done.code, done.err) == (1, "")
    assert "PHOTO_MISSING" in done.out
    assert [line.split()[0] for line in done.out.splitlines()[-2:]] == ["Ledger", "Results"]
    assert {"Calls", "Limit", "Latency", "Time"}.isdisjoint(done.out.split())


@pytest.mark.parametrize(
    ("user_id", "masked"),
    [("8400123", "84***3"), ("123456", "12***6"), ("12345", "***"), ("", "***")],
)
def test_a_masked_user_id_can_be_recognised_but_not_read(user_id: str, masked: str) -> None:
    assert mask(user_id) == masked


class Gone(io.StringIO):
    """A stream whose reader has gone away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.parametrize("as_json", [True, False])
def test_a_stream_whose_reader_is_gone_drops_what_it_is_given(
    as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGER, "handlers", [])
    closed = io.StringIO()
    closed.close()
    for stream in (Gone(), closed):
        lasting = LastingStream(stream)
        assert lasting.write("lost") == 4
        lasting.flush()
        assert lasting.isatty() is False
        set_up(stream=lasting, as_json=as_json, file=None, quiet=False)
        log("event", "message", {}, level=30)


# A run that is watched


def watching(stream: io.StringIO, *, stats: float = 60.0, progress: bool | None = None) -> Console:
    settings = RunSettings(manifest=Path("staff.csv"), group_id="staff")
    return Console(settings, LastingStream(stream), stats=stats, progress=progress)


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(
    stopped_clock: StoppedClock,
) -> None:
    stopped_clock.at = 100.0
    stream = io.StringIO()
    console = watching(stream, stats=60.0)
    console.opened(PLACE, lambda _: None)
    tally = Tally(due=400, expected=400, done=100, scanned=True)
    stopped_clock.at += 59.0
    console.ticked(tally)
    assert "rows done" not in stream.getvalue()
    stopped_clock.at += 1.0
    console.ticked(tally)
    console.ticked(tally)
    (line,) = [line for line in stream.getvalue().splitlines() if "rows done" in line]
    assert line == ("100 of 400 rows done (25 %), 0 failed, 0 in doubt, 1.7 rows/s, 3 min left")


def rows_end(console: Console, status: Status, *, lines: int) -> None:
    row = ScannedRow(line=2, user_id="a1", user_data="", image="1.jpg", path="/1.jpg")
    console.finished(Candidate(row=row, lines=lines), status, "CODE", "")


def test_rows_in_doubt_are_not_counted_as_failed(stopped_clock: StoppedClock) -> None:
    stopped_clock.at = 100.0
    lines, bar = io.StringIO(), io.StringIO()
    log_lines = io.StringIO()
    set_up(stream=LastingStream(log_lines), as_json=True, file=None, quiet=False)
    try:
        for console in (watching(lines), watching(bar, progress=True)):
            console.opened(PLACE, lambda _: None)
            tally = Tally(due=9, expected=9, done=7, scanned=True)
            console.scanned(tally)
            rows_end(console, Status.FAILED, lines=2)
            rows_end(console, Status.INVALID, lines=1)
            rows_end(console, Status.IN_DOUBT, lines=3)
            rows_end(console, Status.ENROLLED, lines=1)
            stopped_clock.at += 61.0
            console.ticked(tally)
            console.closed()
    finally:
        for handler in list(LOGGER.handlers):
            LOGGER.removeHandler(handler)
    assert "4 of 9 rows done (44 %), 3 failed, 3 in doubt, 0.1 rows/s" in lines.getvalue()
    assert "| 4/9 [" in bar.getvalue()
    assert "| 7/9 [" not in bar.getvalue()
    assert (
        bar.getvalue().rstrip().endswith(", 3 failed, 3 in doubt]")
    )  # tqdm pads what gets shorter
    (told,) = [
        line
        for line in map(json.loads, log_lines.getvalue().splitlines())
        if line["event"] == "progress"
    ]
    assert list(told)[5:] == ["done", "due", "failed", "in_doubt", "rate"]
    assert (told["done"], told["failed"], told["in_doubt"], told["rate"]) == (4, 3, 3, 0.066)


def test_a_bar_and_lines_tell_how_the_calls_go(stopped_clock: StoppedClock) -> None:
    stopped_clock.at = 0.0
    pace = RunPace(
        limit=17, in_flight=16, ceiling=16, calls=1000, refused=4, waits_for="the account"
    )
    tally = Tally(due=9, expected=9, done=7, scanned=True, pace=pace)
    lines, bar = io.StringIO(), io.StringIO()
    for console in (watching(lines), watching(bar, progress=True)):
        console.opened(PLACE, lambda _: None)
        console.scanned(tally)
        rows_end(console, Status.FAILED, lines=2)
        stopped_clock.at += 61.0
        console.ticked(tally)
        console.closed()
    told = "limit 16, 0.4 % refused, waits for the account"
    assert f"left; {told}\n" in lines.getvalue()
    assert ", 2 failed, limit 16, 0.4 % refused, waits: account]" in bar.getvalue()


def test_what_is_said_of_the_pace() -> None:
    assert pace_words(RunPace(limit=4, in_flight=4)) == "4 at once, 0 % refused"
    spaced = RunPace(limit=9, in_flight=1, spacing=19.96, calls=10, refused=2)
    assert pace_words(spaced) == "limit 20.0 calls/s, 20 % refused"
    assert percent(1, 1_000_000) == "0.1 %"


def test_the_summary_tells_the_limit_and_what_was_waited_for() -> None:
    tally = Tally(done=1, enrolled_now=1, refused=4)
    tally.calls[CallKind.ADD] = 1000
    tally.waited.update({"the account": 70, "photos": 27, "the manifest": 3})
    ended = Ended(tally=tally, seconds=25.0)
    found = replace(report_of(ended), gauge=LimiterState(limit=17, taken=0, ceiling=16))
    lines = summary_lines(found)
    assert "Calls    1,000 add; 4 (0.4 %) refused by the service's limit" in lines
    assert "Limit    the account takes 16 calls at a time" in lines
    assert "Time     25 s; waited for the account 70 %, photos 27 % of it" in lines
    spaced = replace(found, gauge=LimiterState(limit=17, taken=0, spacing=19.96))
    assert "the account takes 20.0 calls a second" in "\n".join(summary_lines(spaced))


def test_the_summary_tells_how_long_calls_took() -> None:
    tally = Tally(done=1, enrolled_now=1)
    for _ in range(19):
        tally.calls_took.add(0.5)
    tally.calls_took.add(3.0)

    def latency() -> list[str]:
        lines = summary_lines(report_of(Ended(tally=tally, seconds=1.0)))
        return [line for line in lines if line.startswith("Latency")]

    whole = "500 ms (95 % within 500 ms) as a whole"
    assert latency() == [f"Latency  half of the calls within {whole}"]
    tally.service_took.add(2.0)
    service = "2.0 s (95 % within 2.0 s) in the service"
    assert latency() == [f"Latency  half of the calls within {service}, {whole}"]


def test_a_bar_counts_the_due_rows_and_never_passes_their_number(
    archive: Archive, command: Command
) -> None:
    rows = archive.portraits(1, 2, 3)
    archive.manifest(rows[:1])
    assert command(*RUN).code == 0
    archive.manifest([*rows, rows[2], ("a9", "", "missing.jpg")])
    done = command(*RUN, "--progress")
    counts = [tuple(map(int, found)) for found in re.findall(r"(\d+)/(\d+) \[", done.err)]
    assert counts[-1] == (4, 4), done.err
    assert all(done_rows <= due for done_rows, due in counts if due)
    assert "1 failed" in done.err


@pytest.mark.parametrize("progress", [True, False])
def test_a_service_that_is_away_is_said_at_once_on_the_bar_and_once_in_the_log(
    progress: bool,
) -> None:
    stream = io.StringIO()
    console = watching(stream, progress=progress)
    console.opened(PLACE, lambda _: None)
    tally = Tally(due=400, expected=400, done=100, scanned=True)
    console.scanned(tally)
    for seconds in (3.1, 75.0):
        console.unreached(seconds, "CANNOT_CONNECT", "no connection to a.example:443: refused")
        console.ticked(tally)
    bar = stream.getvalue().rpartition("\r")[2]
    if progress:
        assert bar.startswith("Service away for 1 min 15 s (CANNOT_CONNECT): ")
        assert "rows/s" not in bar
    console.reached()
    console.ticked(tally)
    console.closed()
    shown = stream.getvalue()
    assert "Service away" not in shown.rpartition("\r")[2]
    began = (
        "The service has been away for 3.1 s: no connection to a.example:443: refused. "
        "Rows wait and are sent again.\n"
    )
    assert shown.count(began) == 1
    assert shown.count("The service is back, after 1 min 15 s.\n") == 1


def test_json_lines_say_when_the_service_is_away_and_when_it_is_back() -> None:
    stream = io.StringIO()
    settings = RunSettings(manifest=Path("staff.csv"), group_id="staff")
    set_up(stream=LastingStream(stream), as_json=True, file=None, quiet=False)
    try:
        console = Console(settings, LastingStream(stream), as_json=True)
        for seconds in (3.125, 4.0):
            console.unreached(seconds, "TLS_FAILED", "no TLS with a.example")
        console.reached()
    finally:
        for handler in list(LOGGER.handlers):
            LOGGER.removeHandler(handler)
    away, back = map(json.loads, stream.getvalue().splitlines())
    assert list(away)[2:] == ["event", "run", "message", "seconds", "code", "because"]
    assert (away["event"], away["seconds"], away["code"]) == ("unreached", 3.125, "TLS_FAILED")
    assert list(back)[2:] == ["event", "run", "message", "seconds"]
    assert (back["event"], back["seconds"]) == ("reached", 4.0)


def test_on_a_terminal_there_is_a_bar(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1, 2))
    terminal, end = os.openpty()
    termios.tcsetwinsize(end, (24, 100))
    with command.started(*RUN, stderr=end) as process:
        os.close(end)
        shown = b""
        with suppress(OSError):  # what Linux says when the other end is closed
            while part := os.read(terminal, 4096):
                shown += part
        assert process.wait(60) == 0
    os.close(terminal)
    assert "100%|" in shown.decode()
    assert "2/2 [" in shown.decode()


def test_every_origin_is_said_before_the_first_photo_is_sent() -> None:
    stream = io.StringIO()
    origins = {"endpoint": "ENROLL_ENDPOINT", "ledger": "--ledger"}
    settings = RunSettings(manifest=Path("staff.csv"), group_id="staff", origins=origins)
    console = Console(settings, LastingStream(stream))
    console.connecting(PLACE.endpoint, "key … (keys)")
    console.opened(PLACE, lambda _: None)
    assert stream.getvalue().splitlines() == [
        "Endpoint  https://a.example (ENROLL_ENDPOINT)",
        "Account   key … (keys)",
        "Library   staff, created  (default)",
        "Ledger    /state/staff.sqlite (--ledger)",
        "Photos    /photos (default)",
    ]


# Terminals


@pytest.fixture
def narrow() -> Iterator[LastingStream]:
    """A terminal of 60 columns."""
    terminal, end = os.openpty()
    termios.tcsetwinsize(end, (24, 60))
    with open(end, "w", encoding="utf-8") as stream:  # noqa: PTH123  # a descriptor
        yield LastingStream(stream)
    os.close(terminal)


def test_lines_wrap_at_words_below_their_last_column_on_a_terminal_only(
    narrow: LastingStream,
) -> None:
    lines = [
        "Latency  half of the calls within 402 ms (95 % within 410 ms) in the service",
        "  rejected  NO_FACE_FOUND  3  Take a photo with the face clear.",
        "Run the same command again with --max-in-flight 16 to go on with the rest.",
        "Ledger   /srv/" + 60 * "x",
    ]
    assert as_shown(lines, narrow).splitlines() == [
        "Latency  half of the calls within 402 ms (95 % within 410",
        "         ms) in the service",
        "  rejected  NO_FACE_FOUND  3  Take a photo with the face",
        "                              clear.",
        "Run the same command again with --max-in-flight 16 to go on",
        "with the rest.",
        "Ledger   /srv/" + 60 * "x",
    ]
    assert as_shown(lines, io.StringIO()).splitlines() == lines
    assert as_shown(lines).splitlines() == lines


def test_a_bar_leaves_out_remarks_that_its_terminal_has_no_room_for() -> None:
    pace = RunPace(
        limit=16, in_flight=16, ceiling=16, spacing=None, calls=1000, refused=4, waits_for="it"
    )
    bars = []
    for width in (60, 80, 120):
        drawn = io.StringIO()
        bar = _Bar(total=40, file=drawn, ncols=width - 1, bar_format=BAR)
        bar.set_postfix_str(f"2 failed, {pace_words(pace, brief=True)}", refresh=False)
        bars.append(str(bar))
        bar.close()
    assert [len(bar) for bar in bars] == [59, 79, 119]
    assert bars[0].endswith("it/s, 2 failed, limit 16]")
    assert bars[1].endswith(", 2 failed, limit 16, 0.4 % refused]")
    assert bars[2].endswith(", 2 failed, limit 16, 0.4 % refused, waits: it]")


# The summary


def test_the_summary_counts_explains_and_says_where_things_are() -> None:
    tally = Tally(
        enrolled_now=3,
        unchanged=1_200,
        done=5,
        refused=2,
        calls=Counter({CallKind.GROUP_LIST: 1, CallKind.ADD: 7}),
    )
    tally.count(Status.ENROLLED, "", "", lines=1_203)
    tally.count(Status.REJECTED, "NO_FACE_FOUND", "NO_FACE_FOUND", lines=1)
    tally.count(Status.FAILED, "NEVER_HEARD_OF", "NEVER_HEARD_OF: the roof is on fire", lines=1)
    assert summary_lines(report_of(whole(tally))) == [
        "Run 7: 3 rows enrolled, 1,200 rows enrolled before.",
        "",
        "  enrolled  1,203",
        "  rejected      1",
        "  failed        1",
        "",
        "What went wrong, how often, and what to do",
        f"  rejected  NO_FACE_FOUND   1  {remedy('NO_FACE_FOUND')}",
        f"  failed    NEVER_HEARD_OF  1  {UNKNOWN_CODE} "
        "It said: NEVER_HEARD_OF: the roof is on fire",
        "",
        "Calls    1 group_list, 7 add; 2 (25 %) refused by the service's limit",
        "Limit    at most 8 calls in flight",
        "Time     1 min 15 s",
        "Ledger   /state/staff.sqlite",
        "Results  /here/staff.results.csv",
    ]


@pytest.mark.parametrize(
    ("ended", "headline"),
    [
        (
            Ended(tally=ONE, seconds=1, signal=2),
            "Run 7: 1 row enrolled, then interrupted. Run the same command again to continue.",
        ),
        (
            Ended(tally=ONE, seconds=1, stop=ServiceError("No key.")),
            "Run 7: 1 row enrolled, then stopped: No key.",
        ),
        (
            Ended(tally=ONE, seconds=1, bound="--limit 1 was reached"),
            "Run 7: 1 row enrolled, then ended early: --limit 1 was reached. "
            "Run the same command again to continue.",
        ),
    ],
)
def test_the_headline_says_why_a_run_ended_before_its_end(ended: Ended, headline: str) -> None:
    assert summary_lines(report_of(ended))[0] == headline


def test_the_summary_says_when_there_was_nothing_to_do_and_nothing_to_write() -> None:
    lines = summary_lines(report_of(whole(Tally(unchanged=4)), changed=False))
    assert lines[0] == "Run 7: nothing to do; no photo was read and no face was added."
    assert lines[-1] == "Results  /here/staff.results.csv (unchanged)"
    assert not [line for line in lines if line.startswith("Limit")]
    assert summary_lines(report_of(whole(Tally()), results=None))[-1] == "Results  not written"
    assert "  The manifest has no rows." in summary_lines(report_of(whole(Tally(scanned=True))))


def test_the_summary_remarks_on_what_a_person_should_look_at() -> None:
    tally = Tally(user_data_changed=1, gone=2, kept=1, superseded=1, shared=2)
    remarks = "\n".join(summary_lines(report_of(whole(tally))))
    assert "1 enrolled row whose user_data differs from the library's" in remarks
    assert "2 enrolled rows whose photo is no longer there" in remarks
    assert "1 row whose new photo cannot be used: the face enrolled before stays" in remarks
    assert "1 older face superseded by new photos" in remarks
    assert f"2 photos {SHARED}" in remarks


def test_the_summary_says_what_became_of_doubts() -> None:
    tally = Tally(adopted=3, not_applied=1, surplus=2)
    remarks = "\n".join(summary_lines(report_of(whole(tally))))
    assert "3 faces found in the library that the ledger did not know" in remarks
    assert "1 face in doubt not found in the library: not added by then, and due again." in remarks
    assert "2 further copies of a face found in the library: `enroll verify" in remarks
    assert "not found in the library" not in "\n".join(summary_lines(report_of(whole(Tally()))))


def test_the_summary_names_photos_of_several_people_and_masks_their_ids() -> None:
    photos = [
        SharedPhoto(path="p/8400123.jpg", user_ids=("8400123", "8400777"), people=2),
        SharedPhoto(path="b.jpg", user_ids=("123456", "654321"), people=5),
    ]
    report = report_of(whole(Tally(shared=9, shared_examples=photos)))
    lines = summary_lines(report)
    first = lines.index(f"9 photos {SHARED}") + 1
    assert lines[first : first + 4] == [
        "  p/84***3.jpg: 84***3, 84***7",
        "  b.jpg: 12***6, 65***1 and 3 others",
        "  and 7 more",
        "",
    ]
    shown = summary_lines(report, show_user_ids=True)
    assert "  p/8400123.jpg: 8400123, 8400777" in shown
    assert "9 photos enrolled under more than one user_id: check them." in shown


# Texts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.84, "0.8 s"),
        (45.4, "45 s"),
        (59.6, "1 min"),
        (725, "12 min 5 s"),
        (21_600, "6 h"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_a_length_of_time_is_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (12_345, "12 kB"), (3.4e9, "3.4 GB"),
     (2.5e15, "2,500.0 TB")],
)  # fmt: skip
def test_a_size_is_readable(count: float, text: str) -> None:
    assert size(count) == text


def test_numbers_agree_with_their_nouns() -> None:
    assert [amount(count, "row") for count in (0, 1, 1_000)] == ["0 rows", "1 row", "1,000 rows"]
    assert amount(2, "entry", "entries") == "2 entries"


def test_tables_are_aligned() -> None:
    assert counted({"a": 1, "long": 1_000}) == ["  a         1", "  long  1,000"]
    assert columns([("a", "b"), ("long", "x")]) == ["a     b", "long  x"]
    assert error_table([]) == []


# What is said before the first row


def wrong_key(command: Command, archive: Archive) -> None:
    command.environ["ENROLL_API_SECRET"] = "wrong"


def no_manifest(command: Command, archive: Archive) -> None:
    (archive.folder / "staff.csv").unlink()


def wrong_option(command: Command, archive: Archive) -> None:
    command.environ["ENROLL_LIMIT"] = "0"


def results_in_a_folder(command: Command, archive: Archive) -> None:
    command.environ["ENROLL_RESULTS"] = "photos"


def no_library(command: Command, archive: Archive) -> None:
    (archive.folder / "enroll.toml").write_text('group_id = "nobody"\n')


@pytest.mark.parametrize(
    ("spoil", "words", "code"),
    [
        (wrong_key, "The service cannot be used", ExitCode.SERVICE),
        (no_manifest, "There is no manifest at staff.csv", ExitCode.USAGE),
        (wrong_option, "0 is out of range: it must be at least 1.", ExitCode.USAGE),
        (results_in_a_folder, "is a folder", ExitCode.USAGE),
        (no_library, "no library 'nobody'", ExitCode.SERVICE),
    ],
)
@pytest.mark.parametrize("more", [(), ("--quiet",)])
def test_what_stops_a_command_before_it_begins_is_an_object_of_a_json_log(
    archive: Archive,
    command: Command,
    spoil: Callable[[Command, Archive], None],
    words: str,
    code: ExitCode,
    more: tuple[str, ...],
) -> None:
    archive.manifest(archive.portraits(1))
    spoil(command, archive)
    group = () if spoil is no_library else RUN[2:]
    done = command.run(*RUN[:2], *group, "--log-format", "json", *more)
    assert (done.code, done.out) == (code, "")
    *before, event = [json.loads(line) for line in done.err.splitlines()]
    assert [told["event"] for told in before] in ([], ["connecting"])
    assert list(event) == ["time", "level", "event", "run", "message", "exit_code"]
    assert (event["level"], event["event"], event["exit_code"]) == ("error", "error", code)
    assert words in event["message"]
    assert not event["message"].startswith("Error")


def guessed(archive: Archive) -> None:
    """A manifest whose encoding has to be guessed."""
    archive.portraits(1)
    text = "user_id,user_data,image\nperson-0001,José Muñoz,1.jpg\n"
    (archive.folder / "staff.csv").write_bytes(text.encode("cp1252"))


def test_notes_are_records_of_a_json_log(archive: Archive, command: Command) -> None:
    guessed(archive)
    done = command(*RUN, "--images", "photos", "--log-format", "json", "--log-file", "run.jsonl")
    assert done.code == 0
    logged = (archive.folder / "run.jsonl").read_text()
    for text in (done.err, logged):
        events = [json.loads(line) for line in text.splitlines()]
        (note,) = [event for event in events if event["event"] == "note"]
        assert list(note) == ["time", "level", "event", "run", "message"]
        assert (note["level"], "--encoding" in note["message"]) == ("warning", True)
    done = command(*RUN, "--log-format", "json")
    levels = [
        event["level"]
        for event in map(json.loads, done.err.splitlines())
        if event["event"] == "note"
    ]
    assert levels == ["warning", "info"]  # the folder of the last run's photos is no worry


@pytest.mark.parametrize("skew", [0.0, 600.0])
def test_quiet_still_prints_a_note_that_somebody_has_to_see(
    box: Sandbox, archive: Archive, command: Command, skew: float
) -> None:
    guessed(archive)
    box.clock_skew = skew
    assert command(*RUN, "--images", "photos", "--quiet").code == 0
    done = command(*RUN, "--quiet", "--log-file", "run.log")
    notes = done.err.splitlines()
    assert [note.startswith("Note: ") for note in notes] == [True] * len(notes)
    assert "--encoding" in notes[0]
    assert len(notes) == (2 if skew else 1)
    assert ("clock is 10.0 minutes behind" in notes[-1]) is (skew > 0)
    logged = (archive.folder / "run.log").read_text()
    assert "as in the last run" in logged
    assert "as in the last run" not in done.err
    assert logged.count(" warning: This machine's clock") == (1 if skew else 0)
    assert " info: This machine's clock" not in logged


def test_the_note_about_the_clock_is_a_warning_in_every_log_and_is_shown_once(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    box.clock_skew = -600.0
    said = "This machine's clock is 10.0 minutes ahead of the service's"
    for form in ("text", "json"):
        for quiet in ([], ["--quiet"]):
            file = archive.folder / f"{form}{len(quiet)}.log"
            done = command(*RUN, "--log-format", form, "--log-file", file, *quiet)
            assert done.code == 0, done
            assert done.err.count(said) == 1
            (line,) = [line for line in file.read_text().splitlines() if said in line]
            assert ("warning:" if form == "text" else '"level": "warning"') in line


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        ("failed", "HTTP_403", "Ask whoever runs the proxy or firewall; run again."),
        ("pending", "HTTP_302", "Check --endpoint."),
        ("in_doubt", "HTTP_502", remedy("HTTP_502")),
        # In a 5xx a known code proves nothing.
        ("in_doubt", "NO_FACE_FOUND", remedy("TIMEOUT")),
        ("failed", "NEW", f"{UNKNOWN_CODE} It said: NEW: a\\x1b[31m b"),
    ],
)
def test_what_to_do_is_a_remedy_and_not_what_the_service_said(
    status: str, code: str, told: str
) -> None:
    (line,) = error_table([(status, code, 3, f"{code}: a\x1b[31m\nb")])
    assert line == f"  {status}  {code}  3  {told}"


def test_faces_that_are_looked_for_count_as_in_doubt_and_no_time_is_told_for_them(
    stopped_clock: StoppedClock,
) -> None:
    stopped_clock.at = 0.0
    lines, bar = io.StringIO(), io.StringIO()
    tally = Tally(due=9, expected=9, done=7, scanned=True, in_doubt_now=2)
    for console in (watching(lines), watching(bar, progress=True)):
        console.opened(PLACE, lambda _: None)
        console.scanned(tally)
        stopped_clock.at += 70.0
        console.ticked(tally)
        console.closed()
    told = "7 of 9 rows done (78 %), 0 failed, 2 in doubt, 0.1 rows/s, "
    assert f"{told}the rest is being searched for in the library\n" in lines.getvalue()
    assert bar.getvalue().rstrip().endswith(", 2 in doubt, waits: faces in doubt]")
    assert " left" not in bar.getvalue().rpartition("\r")[2]


STRAY = """
import sys, threading, warnings
import enroll.commands.run
def stray(*_, **__):
    warnings.warn("a\\x1b[31m\\nwarning")
    import logging
    logging.getLogger("urllib3").warning("a\\x1b[31m\\nlibrary")
    one = threading.Thread(target=lambda: 1 / 0)
    one.start()
    one.join()
    class Final:
        def __del__(self):
            raise ValueError("a\\x1b[31m\\nfinalizer")
    Final()
    raise ZeroDivisionError("a\\x1b[31m\\nbug")
enroll.commands.run.enroll_manifest = stray
from enroll.cli import main
sys.argv[0] = "enroll"
main()
"""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_python_itself_would_print_is_a_log_line(
    archive: Archive, command: Command, log_format: str
) -> None:
    archive.manifest(archive.portraits(1))
    done = subprocess.run(
        [sys.executable, "-c", STRAY, *RUN, "--log-format", log_format],
        cwd=archive.folder,
        env=command.surroundings(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert all(line.isprintable() for line in lines)
    if log_format == "json":
        told = [json.loads(line)["message"] for line in lines]
    else:  # the bug's traceback stands before the sentence about it
        at = lines.index("Traceback (most recent call last):")
        told = [*lines[:at], lines[-1]]
    wanted = ["warning", "library", "division by zero", "finalizer", "a bug in enroll"]
    assert [word for word in wanted if any(word in line for line in told)] == wanted
    assert (done.returncode, len(told)) == (70, len(wanted)), told


def test_a_traceback_that_no_file_takes_is_in_the_json_log(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("f\udcfcr")

    archive.manifest(archive.portraits(1))
    monkeypatch.setattr(run, "close_run", broken)
    done = command(*RUN, "--log-format", "json")
    assert [json.loads(line)["event"] for line in done.err.splitlines()][-1] == "error"
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    done = command(*RUN, "--log-format", "json")
    bug = json.loads(done.err.splitlines()[-1])
    assert (done.code, bug["event"], "ZeroDivisionError" in bug["traceback"]) == (70, "error", True)
    done = command(*RUN)
    assert any(line.endswith(r"ZeroDivisionError: f\xfcr") for line in done.err.splitlines())
