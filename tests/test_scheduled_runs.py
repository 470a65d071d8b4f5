"""Runs that a scheduler starts: how they end in time, and what they leave for it to look at."""

from __future__ import annotations

import gzip
import json
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from archive import GROUP, Archive, until
from moved_clock import standin
from real_command import SECONDS, Command

from enroll.commands.run import enroll_manifest
from enroll.errors import ExitCode, UnreachedError
from enroll.facesearch import client
from enroll.model import Status
from enroll.sandbox import Sandbox
from enroll.session import retry

pytestmark = pytest.mark.usefixtures("moved_clock")

RUN = ("run", "staff.csv", "--group-id", "staff")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Archive]:
    with standin(detect=False) as box:
        box.create_library(GROUP)
        yield Archive(tmp_path, box)


def of_status(place: Archive, status: Status) -> list[str]:
    return [entry.user_id for entry in place.entries() if entry.status is status]


# --max-duration


def test_a_run_ends_softly_when_its_time_is_over_and_the_next_one_goes_on(place: Archive) -> None:
    place.people(*range(12))
    place.box.latency = 0.25
    report = place.run(max_duration=1.2, max_in_flight=1)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert report.ended.bound == "--max-duration (1.2 s) was reached, and there is more to do"
    enrolled = of_status(place, Status.ENROLLED)
    assert len(enrolled) == place.box.count("add") == len(place.in_library()) < 12
    assert not of_status(place, Status.IN_DOUBT)
    place.box.latency = 0.0
    assert place.run(max_duration=600.0).exit_code is ExitCode.DONE
    assert place.box.count("add") == 12


def test_a_doubt_that_is_open_when_the_time_is_over_stays_one(place: Archive) -> None:
    place.people(1, 2)
    place.box.script(["reset-after"], user_id="u1")
    report = place.run(max_duration=1.0, settle_after=600.0)
    assert report.exit_code is ExitCode.ENDED_EARLY
    assert of_status(place, Status.IN_DOUBT) == ["u1"]
    assert of_status(place, Status.ENROLLED) == ["u2"]
    assert place.box.count("add") == 2


def test_an_earlier_doubt_that_is_open_when_the_time_is_over_is_counted_as_one(
    place: Archive,
) -> None:
    place.people(1, 2)
    place.box.script(["reset-after"], user_id="u1")
    place.run(max_duration=1.0, settle_after=600.0)
    place.people(3)
    again = place.run(max_duration=1.0, settle_after=600.0)
    assert again.exit_code is ExitCode.ENDED_EARLY
    counted = {status: n for status, n in again.ended.tally.statuses.items() if n}
    assert counted == {Status.IN_DOUBT: 1, Status.ENROLLED: 2}
    assert of_status(place, Status.IN_DOUBT) == ["u1"]


def test_a_run_that_is_through_before_its_time_is_over_is_done(place: Archive) -> None:
    place.people(1)
    assert place.run(max_duration=600.0).exit_code is ExitCode.DONE
    assert place.run(max_duration=600.0).exit_code is ExitCode.DONE


def test_the_opening_calls_wait_no_longer_than_the_run_may_take(
    place: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(client, "TRYING_SECONDS", 0.01)
    place.people(1)
    settings = place.settings(max_duration=0.3, give_up_after=7200.0)
    place.box.stop()
    with pytest.raises(UnreachedError, match="could not be reached for 0") as given_up:
        enroll_manifest(settings, lambda: place.credentials)
    assert given_up.value.exit_code is ExitCode.UNREACHED


def endless(archive: Archive) -> Path:
    """A small gzip file that unpacks to a list of a gigabyte of empty lines."""
    path = archive.folder / "staff.csv.gz"
    lines = gzip.compress(b"\n" * (1 << 24))
    path.write_bytes(gzip.compress(b"user_id,image\n") + lines * 64)
    return path


@pytest.mark.parametrize("name", ["run", "sync"])
def test_a_list_that_unpacks_without_end_is_read_no_longer_than_the_run_may_take(
    name: str, box: Sandbox, archive: Archive, command: Command
) -> None:
    done = command(name, endless(archive), "--group-id", "staff", "--max-duration", "0.5s")
    assert done.code == ExitCode.ENDED_EARLY, done
    assert "--max-duration was over while" in done.err
    assert "nothing was sent" in done.err
    assert not box.calls


@pytest.mark.parametrize("name", ["run", "plan"])
def test_ctrl_c_ends_the_reading_of_a_list(name: str, archive: Archive, command: Command) -> None:
    path = endless(archive)
    with command.started(name, path, "--group-id", "staff") as process:
        until(lambda: is_reading(process, path), process, "the list was opened")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == ExitCode.INTERRUPTED, (out, err)
    assert "Traceback" not in err


def is_reading(process: subprocess.Popen[str], path: Path) -> bool:
    """Whether a process has the file open."""
    found = []
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found.append(descriptor.readlink())
    return path in found


def test_the_summary_names_the_bound_and_says_to_run_again(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3))
    box.latency = 0.4
    done = command(*RUN, "--max-duration", "0.5s", "--max-in-flight", "1")
    assert done.code == ExitCode.ENDED_EARLY
    assert "--max-duration (0.5 s) was reached" in done.out
    assert "Run the same command again to continue." in done.out


@pytest.mark.parametrize("given", ["21600", "6h", "360m", "5h60m", "5H 59m 60s", "6.0h"])
def test_a_length_of_time_can_be_written_in_several_ways(
    archive: Archive, command: Command, given: str
) -> None:
    from enroll.cli.parameters import Duration

    assert Duration().convert(given, None, None) == 21_600.0
    archive.manifest(archive.portraits(1))
    assert command(*RUN, "--max-duration", given).code == 0


@pytest.mark.parametrize("given", ["0", "0m", "-5", "", "h", "6 days", "nan", "inf", "6m5h", "1e9"])
def test_what_is_no_length_of_time_is_refused(
    archive: Archive, command: Command, given: str
) -> None:
    archive.manifest(archive.portraits(1))
    done = command(*RUN, f"--max-duration={given}")
    assert (done.code, "'--max-duration': " in done.err) == (ExitCode.USAGE, True), done


# --quiet


def test_quiet_says_nothing_of_bad_rows_that_are_known(archive: Archive, command: Command) -> None:
    archive.manifest([*archive.portraits(1), ("gone-1", "", "gone.jpg")])
    quiet = (*RUN, "--quiet", "--fail-on", "new")
    first = command(*quiet)
    assert (first.code, "PHOTO_MISSING" in first.out, first.err) == (1, True, "")
    for more in ((), ("--checksum",), ("--log-format", "json")):
        done = command(*quiet, *more)
        assert (done.code, done.out, done.err) == (0, "", "")
    archive.manifest([*archive.portraits(1, 2), ("gone-1", "", "gone.jpg"), ("a2", "", "g.jpg")])
    assert command(*quiet).code == 1  # one more


def test_quiet_says_what_is_to_be_looked_at_although_all_is_done(
    archive: Archive, command: Command
) -> None:
    (one, *_), two = archive.portraits(1)[0], archive.portraits(2)[0]
    photo = archive.portraits(1)[0][2]
    archive.manifest([(one, "", photo), ("somebody-2", "", photo), two])
    done = command(*RUN, "--quiet")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0].endswith(
        "under more than one user_id: check them (--show-user-ids names the people)."
    )
    assert "enrolled before" not in done.out
    assert "somebody-2" not in done.out
    again = command(*RUN, "--quiet")
    assert (again.code, again.out) == (0, "")  # told once


def test_quiet_lines_for_programs_are_those_of_runs_that_need_a_person(
    archive: Archive, command: Command
) -> None:
    archive.manifest([*archive.portraits(1), ("gone-1", "", "gone.jpg")])
    done = command(*RUN, "--quiet", "--log-format", "json")
    (line,) = map(json.loads, done.err.splitlines())
    assert (line["event"], line["level"], line["exit_code"]) == ("run_ended", "warning", 1)
    archive.manifest(archive.portraits(1))
    assert command(*RUN, "--quiet", "--log-format", "json").err == ""
    done = command(*RUN, "--log-format", "json")
    assert json.loads(done.err.splitlines()[-1])["level"] == "info"


# The environment of a scheduler

HOMELESS = """
import pwd, sys
def nobody(*_):
    raise KeyError("no such user")
pwd.getpwuid = pwd.getpwnam = nobody
sys.argv[0] = "enroll"
from enroll.cli import main
main()
"""
"""The command for a user whom the system does not know, as a container's bare number."""


def bare(
    folder: Path,
    *arguments: object,
    homeless: bool = True,
    environ: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """The command as cron and its fellows start it: a path, no language, no terminal, in `/`."""
    start = ["-c", HOMELESS] if homeless else ["-m", "enroll"]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(folder), **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def bare_run(archive: Archive, box: Sandbox, *more: object) -> list[object]:
    keys = archive.folder / "keys"
    keys.write_text(f"api_key={box.api_key}\napi_secret={box.api_secret}\n")
    keys.chmod(0o600)
    run = ["run", archive.folder / "staff.csv", "--group-id", "staff", "--endpoint", box.endpoint]
    return [*run, "--credentials", keys, *more]


def test_a_run_needs_neither_a_home_nor_a_language_nor_a_user(
    box: Sandbox, archive: Archive
) -> None:
    (_, _, image), *_ = archive.portraits(1)
    archive.photo("Fotos/Müller.jpg", (archive.folder / image).read_bytes())
    archive.manifest([("person-1", "Jürgen Müller", "Fotos/Müller.jpg")])
    ledger = archive.folder / "ledger.sqlite"
    files = ("--summary", archive.folder / "run.json", "--metrics-file", archive.folder / "m.prom")
    run = bare_run(archive, box, "--ledger", ledger, *files)
    done = bare(archive.folder, *run)
    assert (done.returncode, "1 row enrolled" in done.stdout) == (0, True), done
    assert json.loads((archive.folder / "run.json").read_text())["enrolled_now"] == 1
    again = bare(archive.folder, *run, "--quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    status = bare(archive.folder, "status", "--ledger", ledger)
    assert (status.returncode, "enrolled" in status.stdout) == (0, True), status
    assert box.faces("staff")[0].user_data == "Jürgen Müller"


class Bare(Command):
    """The command without a home, and nothing else around it but `environ`."""

    def surroundings(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", **self.environ}


def test_what_is_missing_without_a_home_is_said_in_a_sentence(
    box: Sandbox, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object) -> None:
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(pwd, "getpwnam", nobody)
    command = Bare(archive.folder, Path("/"))
    archive.manifest(archive.portraits(1))
    done = command(*bare_run(archive, box))
    assert done.code == ExitCode.USAGE
    assert "no home folder for the ledger. Name a place with --ledger" in done.err
    run = ["run", archive.folder / "staff.csv", "--group-id", "staff", "--endpoint", box.endpoint]
    run += ["--ledger", archive.folder / "ledger.sqlite"]
    done = command(*run)
    assert done.code == ExitCode.USAGE
    assert "There are no credentials. Set ENROLL_API_KEY" in done.err
    keys = {"ENROLL_API_KEY": box.api_key, "ENROLL_API_SECRET": box.api_secret}
    assert Bare(archive.folder, Path("/"), keys)(*run).code == 0


def test_with_a_home_a_bare_run_finds_the_usual_places(box: Sandbox, archive: Archive) -> None:
    archive.manifest(archive.portraits(1))
    home = {"HOME": str(archive.folder)}
    done = bare(archive.folder, *bare_run(archive, box), homeless=False, environ=home)
    assert done.returncode == 0, done
    assert (archive.folder / ".local/state/enroll/127.0.0.1/staff.sqlite").exists()


def test_a_manifest_without_rows_is_reported_even_if_quiet(
    archive: Archive, command: Command
) -> None:
    archive.manifest([])
    done = command(*RUN, "--quiet")
    assert done.code == ExitCode.DONE
    assert "The manifest has no rows: if it is an export, that has probably failed." in done.out
    told = command(*RUN, "--quiet", "--log-format", "json").err.splitlines()
    assert [json.loads(line)["message"] for line in told] == [
        "Run 2: nothing to do; the manifest has no rows."
    ]
