"""`--ping` and `--after`: others learn how a run goes, and none of them can fail or delay it."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from archive import Archive
from real_command import Command

from enroll.errors import ExitCode
from enroll.ledger.sqlite_lock import LedgerLock
from enroll.report import notifying
from enroll.sandbox import Sandbox

RUN = ("run", "staff.csv", "--group-id", "staff")


class Monitor(BaseHTTPRequestHandler):
    """Answers every ping, after `hang` if that is set, with `status`."""

    pings: ClassVar[list[str]]
    url: ClassVar[str]
    status: ClassVar[int] = 200
    hang: ClassVar[threading.Event | None] = None

    def do_GET(self) -> None:
        self.pings.append(self.path)
        if self.hang is not None:
            self.hang.wait(30)
        self.send_response(self.status)
        if self.status == 302:
            self.send_header("Location", "/login")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def monitor() -> Iterator[type[Monitor]]:
    class Mine(Monitor):
        pings: ClassVar[list[str]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Mine) as server:
        Mine.url = f"http://127.0.0.1:{server.server_port}/ping/5f3c?x=1"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Mine
        if Mine.hang is not None:
            Mine.hang.set()
        server.shutdown()
        thread.join()


def test_a_monitor_learns_that_a_run_begins_and_how_it_ends(
    box: Sandbox, archive: Archive, command: Command, monitor: type[Monitor]
) -> None:
    ping = ("--ping", monitor.url)
    archive.manifest(archive.portraits(1, 2))
    assert command(*RUN, *ping, "--dry-run").code == 0
    assert monitor.pings == []
    assert command(*RUN, *ping, "--limit", "1").code == ExitCode.ENDED_EARLY
    assert command(*RUN, *ping).code == 0
    with LedgerLock(command.ledger):  # the run that has it pings by itself
        assert command(*RUN, *ping).code == ExitCode.LEDGER_BUSY
    start = "/ping/5f3c/start?x=1"
    assert sorted(monitor.pings) == sorted(
        [start, "/ping/5f3c/6?x=1", start, "/ping/5f3c?x=1", start]
    )


def test_a_monitor_that_fails_hangs_or_is_gone_changes_nothing(
    archive: Archive,
    command: Command,
    monitor: type[Monitor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = monitor.url
    archive.manifest(archive.portraits(1))
    monitor.status = 500
    done = command(*RUN, "--ping", url)
    assert (done.code, "HTTP 500" in done.err) == (0, True), done
    assert "5f3c" not in done.err  # who has the URL can fake a ping
    monitor.status = 302  # to a page that answers 200 to anybody
    monitor.pings.clear()
    done = command(*RUN, "--ping", url)
    assert (done.code, "HTTP 302" in done.err) == (0, True), done
    assert len(monitor.pings) == 2
    done = command(*RUN, "--ping", "http://127.0.0.1:1/ping/5f3c")
    assert (done.code, "The ping to 127.0.0.1 failed" in done.err) == (0, True), done
    monkeypatch.setattr(notifying, "MOST_SECONDS", 0.2)
    monitor.hang = threading.Event()
    began = time.monotonic()
    assert command(*RUN, "--ping", url).code == 0
    assert time.monotonic() - began < 30  # what the monitor takes


def test_a_command_gets_the_figures_when_the_run_has_ended(
    box: Sandbox, archive: Archive, command: Command, tmp_path: Path
) -> None:
    archive.manifest(archive.portraits(1))
    script = tmp_path / "after it.sh"
    script.write_text(f"cat > '{tmp_path}/figures'; env > '{tmp_path}/environment'; echo said\n")
    after = ("--after", f"sh '{script}' 'a b'")
    done = command(*RUN, *after)
    assert (done.code, "said" in done.out + done.err) == (0, False), done
    assert json.loads((tmp_path / "figures").read_text())["enrolled_now"] == 1
    names = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert "PATH" in names
    assert not names & {"ENROLL_API_KEY", "ENROLL_API_SECRET"}
    box.script(["auth"] * 3, call="group_list")
    assert command(*RUN, *after).code == ExitCode.SERVICE
    assert json.loads((tmp_path / "figures").read_text())["exit_code"] == 3


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("sh -c 'echo oh; exit 9'", "ended with exit code 9; the run is not affected. It printed"),
        ("sh -c 'kill -9 $$'", "was killed by signal 9; the run is not affected"),
        ("no-such-command", "could not be started: No such file"),
        ("sh -c 'sleep 60'", "took longer than"),
        ("sh -c 'sleep 60 & exit 0'", ""),  # what it leaves in the background is not waited for
    ],
)
def test_a_command_that_fails_or_hangs_changes_nothing(
    after: str,
    said: str,
    archive: Archive,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifying, "MOST_SECONDS", 0.5)
    archive.manifest(archive.portraits(1))
    began = time.monotonic()
    done = command(*RUN, "--after", after)
    assert time.monotonic() - began < 60  # what the command takes
    assert (done.code, said in done.err) == (0, True), done
    assert bool(said) == ("Warning" in done.err), done


@pytest.mark.parametrize(("end", "code"), [("", 0), ("; exit 9", 9)])
def test_a_command_gets_the_figures_although_no_temporary_file_can_be_made(
    end: str,
    code: int,
    archive: Archive,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive.manifest(archive.portraits(1))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))  # or on a disk that is full
    done = command(*RUN, "--after", f"sh -c 'cat > \"{tmp_path}/figures\"; echo said{end}'")
    assert (done.code, f"exit code {code};" in done.err) == (0, bool(code)), done
    assert json.loads((tmp_path / "figures").read_text())["enrolled_now"] == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--ping", "hc.example/5f3c"),
        ("--ping", "ftp://x"),
        ("--ping", "http://[::1/5f3c"),
        ("--ping", "http://x:99999/5f3c"),
        ("--after", "sh 'a"),
        ("--after", " "),
    ],
)
def test_what_cannot_be_called_is_wrong_usage(
    option: str, value: str, box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    done = command(*RUN, option, value)
    assert (done.code, option in done.err) == (ExitCode.USAGE, True), done
    assert not box.calls


def test_every_json_line_names_the_run(archive: Archive, command: Command) -> None:
    archive.manifest([*archive.portraits(1), ("gone", "", "gone.jpg")])
    for number in (1, 2):
        lines = [
            json.loads(line) for line in command(*RUN, "--log-format", "json").err.splitlines()
        ]
        numbers = [line["run"] for line in lines]
        assert numbers == sorted(numbers, key=lambda one: one is not None)
        assert set(numbers[1:]) <= {None, number}
        assert {line["event"] for line in lines if line["run"]} >= {"run_started", "row"}
