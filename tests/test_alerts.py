"""docs/alerts: what each fault leaves behind, night after night, and which alerts it raises.

Every night is a process of its own, and each a day after the one before by a moved clock. An hour's
outage would take an hour: `--give-up-after` is two seconds instead of ten minutes, and the stand-in
is away for all of it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from archive import GROUP, QUICK_DOUBTS, Archive, let_nobody_look
from moved_clock import MovedClock, standin
from nights import RULES, Nights, promtool
from real_command import SECONDS, Done

from enroll.errors import ExitCode
from enroll.ledger.sqlite_lock import LedgerLock
from enroll.report.metrics import SUCCESS
from enroll.sandbox import Sandbox
from enroll.sandbox.faults import FaultPlan

pytestmark = pytest.mark.thorough

PING, PUSH = RULES.parent / "ping.py", RULES.parent / "push.py"

OUTAGE = ("--give-up-after", "2")


@pytest.fixture
def box(moved_clock: MovedClock) -> Iterator[Sandbox]:
    with standin(detect=False) as running:
        running.create_library(GROUP)
        yield running


@pytest.fixture
def nights(moved_clock: MovedClock, tmp_path: Path, box: Sandbox) -> Nights:
    """Four people, enrolled in the night that begins at hour 0."""
    return first_night(moved_clock, tmp_path, box)


def to_come(clock: MovedClock, folder: Path, box: Sandbox, **where: Path) -> Nights:
    """Nights of four people. `state` and `metrics` are folders to use instead of the usual ones."""
    state = where.get("state", folder / "state")
    state.mkdir(exist_ok=True)
    place = Archive(folder, box, ledger_folder=state)
    nights = Nights(place, clock, where.get("metrics", folder) / "staff.prom")
    nights.join(1, 2, 3, 4)
    return nights


def first_night(clock: MovedClock, folder: Path, box: Sandbox, **where: Path) -> Nights:
    nights = to_come(clock, folder, box, **where)
    nights.night(0, ExitCode.DONE)
    nights.whole()
    return nights


def let_all_look(box: Sandbox) -> None:
    """No call meets a fault any more."""
    box.plan = FaultPlan({}, seed=0)


# The service


def test_one_night_without_the_service_needs_nobody_and_two_do(
    moved_clock: MovedClock, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with ExitStack() as boxes:

        def back(port: int = 0) -> Sandbox:
            return boxes.enter_context(standin(detect=False, store=store, port=port))

        box = back()
        box.create_library(GROUP)
        nights = first_night(moved_clock, tmp_path, box)
        place = nights.place
        for day in (1, 3):
            nights.join(10 * day, 10 * day + 1)
            place.box.latency = 0.3
            before = place.calls()
            nights.begin(day)
            words = nights.sync(*OUTAGE, "--max-in-flight", "1")
            with nights.command.started(*words) as process:
                place.wait_calls(before + 1, process)
                boxes.pop_all().close()  # in the middle of a call
                out, err = process.communicate(timeout=SECONDS)
            done = nights.ended(day, ExitCode.UNREACHED, Done(process.returncode, out, err))
            assert "could not be reached" in done.out
            if day == 1:
                place.box = back(box.port)
                nights.night(2, ExitCode.DONE)
                nights.whole()
        nights.night(4, ExitCode.UNREACHED, *OUTAGE)  # it is still away
        place.box = back(box.port)
        nights.night(5, ExitCode.DONE)
        nights.whole()
        nights.assert_pages(7, ("EnrollOverdue", 2 * 24 + 56, 5 * 24))


def test_a_bound_that_ends_a_night_needs_nobody_while_it_goes_on(nights: Nights) -> None:
    nights.join(*range(10, 20))
    for day in (1, 2):
        nights.night(day, ExitCode.ENDED_EARLY, "--max-calls", "5")
    nights.night(3, ExitCode.DONE)
    nights.whole()
    nights.join(30)
    for day in (4, 5):  # not even the manifest is read in that time
        done = nights.night(day, ExitCode.ENDED_EARLY, "--max-duration", "0.001")
        assert "nothing was sent" in done.err
    nights.night(6, ExitCode.DONE)
    nights.whole()
    nights.assert_pages(8, ("EnrollOverdue", 3 * 24 + 56, 6 * 24))


def test_a_library_of_which_no_night_ever_got_on_needs_somebody(
    moved_clock: MovedClock, tmp_path: Path, box: Sandbox
) -> None:
    nights = to_come(moved_clock, tmp_path, box)
    for day in range(3):
        nights.night(day, ExitCode.ENDED_EARLY, "--max-duration", "0.001")
    nights.night(3, ExitCode.DONE)
    nights.assert_pages(4, ("EnrollOverdue", 56, 72))


def test_nights_that_all_end_at_a_bound_need_somebody_after_two_weeks(nights: Nights) -> None:
    nights.join(*range(10, 20))
    nights.night(1, ExitCode.ENDED_EARLY, "--max-calls", "5")
    nights.repeat(range(2, 16))
    nights.assert_pages(16, ("EnrollBehind", 14 * 24 + 1, 16 * 24))


def test_a_key_that_is_replaced_here_and_there_at_different_times(nights: Nights) -> None:
    box = nights.place.box
    short = ("--credentials-grace", "0")
    nights.join(10)
    box.rotate_secret("the-second-secret")  # and the file comes a day later
    done = nights.night(1, ExitCode.SERVICE, *short)
    assert "AUTHORIZATION_ERROR" in done.err
    nights.put_key()
    nights.night(2, ExitCode.DONE, *short)
    nights.whole()

    nights.join(11)
    nights.put_key("the-third-secret")  # and the service has it a day later
    nights.night(3, ExitCode.SERVICE, *short)
    box.rotate_secret("the-third-secret")
    nights.night(4, ExitCode.DONE, *short)
    nights.whole()

    nights.join(12, 13)
    box.latency = 0.3
    nights.begin(5)
    with nights.command.started(*nights.sync("--max-in-flight", "1")) as process:
        nights.place.wait_calls(7, process)
        box.rotate_secret("the-fourth-secret")  # during the run, and the file within its grace
        nights.put_key()
        out, err = process.communicate(timeout=SECONDS)
    nights.ended(5, ExitCode.DONE, Done(process.returncode, out, err))
    nights.whole()
    nights.assert_pages(7, ("EnrollStoppedByService", 24, 48), ("EnrollStoppedByService", 72, 96))


def test_rows_that_stay_in_doubt_need_somebody_after_two_more_nights(nights: Nights) -> None:
    nights.join(10)
    nights.place.box.script(["reset-after"])
    let_nobody_look(nights.place.box)
    for day in (1, 2, 3):
        nights.night(day, ExitCode.IN_DOUBT, *QUICK_DOUBTS)
    let_all_look(nights.place.box)
    nights.night(4, ExitCode.DONE)
    nights.whole()
    nights.assert_pages(5, ("EnrollInDoubt", 24 + 50, 4 * 24))


# This machine


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write until the disk is full; the file that fills it."""
    filling = folder / "filling"
    with filling.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filling


def test_a_full_disk_needs_somebody_at_once(
    moved_clock: MovedClock, tmp_path: Path, box: Sandbox
) -> None:
    with disk(tmp_path / "state") as state:
        nights = first_night(moved_clock, tmp_path, box, state=state)
        nights.join(*range(10, 20))
        box.latency = 0.1
        nights.begin(1)
        with nights.command.started(*nights.sync("--max-in-flight", "1")) as process:
            nights.place.wait_calls(6, process)
            filling = fill(state)
            out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == ExitCode.LOCAL, (out, err)
        assert "database or disk is full" in out
        assert nights.of(nights.collect(1), "enroll_run_exit_code") == ExitCode.LOCAL
        filling.unlink()
        nights.night(2, ExitCode.DONE)
        nights.whole()
    nights.assert_pages(4, ("EnrollStoppedByMachine", 24, 48))


def test_a_full_disk_that_takes_no_metrics_either_is_found_by_their_age(
    moved_clock: MovedClock, tmp_path: Path, box: Sandbox
) -> None:
    with disk(tmp_path / "state") as state:
        nights = first_night(moved_clock, tmp_path, box, state=state, metrics=state)
        nights.join(10, 11)
        filling = fill(state)
        for day in (1, 2):
            nights.begin(day)
            assert nights.command.run(*nights.sync()).code == ExitCode.LOCAL
            assert nights.collect(day) == nights.seen[0][1]
        filling.unlink()
        nights.night(3, ExitCode.DONE)
        nights.whole()
    nights.assert_pages(5, ("EnrollSilent", 51, 72))


LITTLE_MEMORY = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.oom_control"),
    (Path("/sys/fs/cgroup"), "memory.max", "memory.events"),
)
"""Where groups of processes are made, by version; their bound, and how many it has killed."""


@contextmanager
def little_memory() -> Iterator[tuple[Path, Path] | None]:
    """A group of processes that get no further page of memory: the file that takes their ids, and
    the one that counts the killed. None if this machine does not let us make one."""
    with ExitStack() as stack:
        for root, limit, counts in LITTLE_MEMORY:
            group = root / f"enroll-test-{os.getpid()}"
            with suppress(OSError):
                group.mkdir()
                stack.callback(group.rmdir)
                (group / limit).write_text("65536")
                yield group / "cgroup.procs", group / counts
                return
        yield None


def killed_for_memory(nights: Nights, day: int) -> None:
    """A night that the kernel kills in the middle of a call; if it does not let us set a bound for
    its memory, we do."""
    place = nights.place
    place.box.latency = 0.5
    before = place.calls()
    nights.begin(day)
    with little_memory() as group, nights.command.started(*nights.sync()) as process:
        place.wait_calls(before + 1, process)
        if group is None:
            process.kill()
        else:
            group[0].write_text(str(process.pid))
        process.communicate(timeout=SECONDS)
        assert process.returncode == -signal.SIGKILL
        assert group is None or "oom_kill 1\n" in group[1].read_text()
    place.box.latency = 0.0
    assert nights.of(nights.collect(day), "enroll_run_in_progress") == 1


def test_a_kill_for_memory_is_made_good_by_the_next_night_and_two_need_somebody(
    nights: Nights,
) -> None:
    nights.join(10, 11)
    killed_for_memory(nights, 1)
    nights.night(2, ExitCode.DONE)
    nights.whole()
    nights.join(12, 13)
    killed_for_memory(nights, 3)
    nights.join(14, 15)
    killed_for_memory(nights, 4)
    nights.night(5, ExitCode.DONE)
    nights.whole()
    nights.assert_pages(7, ("EnrollOverdue", 2 * 24 + 56, 5 * 24))


def test_two_pods_at_once_a_long_run_and_one_that_hangs(nights: Nights) -> None:
    place = nights.place
    nights.join(10, 11)
    place.box.latency = 0.5
    nights.begin(1)
    with (
        nights.command.started(*nights.sync()) as one,
        nights.command.started(*nights.sync()) as other,
    ):
        assert place.box.wait_count("add", 5)
        assert nights.of(nights.collect(1), "enroll_run_in_progress") == 1  # for seven hours
        said = [process.communicate(timeout=SECONDS) for process in (one, other)]
    codes = sorted((one.returncode, other.returncode))
    assert codes == [ExitCode.DONE, ExitCode.LEDGER_BUSY], said
    nights.ended(1 + 7 / 24, ExitCode.DONE, Done(0, *said[one.returncode != 0]))
    nights.whole()

    nights.join(12)
    place.box.latency = 0.0
    place.box.script(["timeout"])  # no answer, and the run may wait for one
    before = place.calls()
    nights.begin(2)
    with nights.command.started(*nights.sync("--timeout", "600")) as hung:
        place.wait_calls(before + 1, hung)
        during = nights.collect(2)
        assert nights.of(during, "enroll_run_in_progress") == 1
        nights.begin(3)
        assert nights.command.run(*nights.sync()).code == ExitCode.LEDGER_BUSY
        assert nights.collect(3) == during
        hung.kill()
        hung.communicate(timeout=SECONDS)
    nights.night(4, ExitCode.DONE)
    nights.whole()
    nights.assert_pages(6, ("EnrollStuck", 2 * 24 + 27, 4 * 24))


def test_a_shutdown_needs_nobody(nights: Nights) -> None:
    nights.join(10, 11)
    nights.place.box.latency = 0.3
    nights.begin(1)
    with nights.command.started(*nights.sync("--max-in-flight", "1")) as process:
        nights.place.wait_calls(5, process)
        process.terminate()
        out, err = process.communicate(timeout=SECONDS)
    nights.ended(1, ExitCode.TERMINATED, Done(process.returncode, out, err))
    nights.night(2, ExitCode.DONE)
    nights.whole()
    nights.assert_pages(4)


# What a person did


def test_yesterdays_ledger(nights: Nights) -> None:
    place = nights.place
    copy = place.ledger.with_suffix(".copy")

    def put_back() -> None:
        for end in ("-wal", "-shm"):
            place.ledger.with_name(place.ledger.name + end).unlink(missing_ok=True)
        shutil.copy(copy, place.ledger)

    shutil.copy(place.ledger, copy)
    del place.rows[0]
    nights.join(10, 11)
    nights.night(1, ExitCode.DONE)
    put_back()
    nights.night(2, ExitCode.DONE)
    nights.whole()

    shutil.copy(place.ledger, copy)
    nights.join(12)
    nights.night(3, ExitCode.DONE)
    put_back()
    let_nobody_look(place.box)  # so that the library cannot be compared
    done = nights.night(4, ExitCode.USAGE)
    assert "restored from a backup" in done.out
    let_all_look(place.box)
    nights.night(5, ExitCode.DONE)
    nights.whole()
    nights.assert_pages(7, ("EnrollNotStarted", 4 * 24, 5 * 24))


def test_an_export_that_lost_most_of_its_rows(nights: Nights) -> None:
    nights.join(*range(10, 40))
    nights.night(1, ExitCode.DONE)
    rows, nights.place.rows = nights.place.rows, nights.place.rows[:3]
    nights.place.manifest()
    nights.night(2, ExitCode.GUARD)
    nights.place.rows = rows
    nights.place.manifest()
    nights.night(3, ExitCode.DONE)
    nights.whole()
    nights.assert_pages(5, ("EnrollRefused", 48, 72))


# What the scripts of the page send


@contextmanager
def listening(sent: list[tuple[str, str, bytes]]) -> Iterator[str]:
    """The address of a server that notes the method, path and body of each request."""

    class Noting(BaseHTTPRequestHandler):
        def note(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append((self.command, self.path, body))
            self.send_response(200)
            self.end_headers()

        do_POST = do_PUT = note  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Noting) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def after(nights: Nights, *words: object) -> tuple[str, Path]:
    """The option for nights that end with a command of Python."""
    settings = nights.place.folder / "nights.toml"
    command = shlex.join([sys.executable, *map(str, words)])
    settings.write_text(f"after = '{command}'\n", encoding="utf-8")
    return "--config", settings


def test_a_check_of_a_monitor_fails_for_what_needs_somebody_and_hears_of_the_rest(
    nights: Nights,
) -> None:
    sent: list[tuple[str, str, bytes]] = []
    with listening(sent) as address:
        ping = after(nights, PING, f"{address}/check")
        nights.join(*range(10, 20))
        nights.night(1, ExitCode.ENDED_EARLY, "--max-calls", "5", *ping)
        nights.night(2, ExitCode.ENDED_EARLY, "--max-duration", "0.001", *ping)
        nights.night(3, ExitCode.DONE, *ping)
        with LedgerLock(nights.place.ledger):
            done = nights.command.run(*nights.sync(*ping))
        assert done.code == ExitCode.LEDGER_BUSY
        nights.place.manifest([])
        done = nights.night(4, ExitCode.GUARD, *ping)
    assert "--after" not in done.err
    assert sent == [
        ("POST", "/check", b"ENDED_EARLY"),
        ("POST", "/check/log", b"ENDED_EARLY"),
        ("POST", "/check", b"DONE"),
        ("POST", "/check/8", b"GUARD"),
    ]


def test_the_metrics_of_a_night_are_pushed_as_they_are_in_its_file(nights: Nights) -> None:
    sent: list[tuple[str, str, bytes]] = []
    with listening(sent) as address:
        url = f"{address}/metrics/job/enroll/library/staff"
        done = nights.night(1, ExitCode.DONE, *after(nights, PUSH, nights.metrics_file, url))
    assert "--after" not in done.err
    metrics = nights.metrics_file.read_bytes()
    assert sent == [("PUT", "/metrics/job/enroll/library/staff", metrics)]
    assert b"enroll_run_exit_code{" in metrics
    assert b"\nenroll_run_in_progress{" in metrics
    assert metrics.endswith(b"\n")  # a gateway refuses the last line otherwise


def test_rules_and_ping_agree_on_the_exit_codes() -> None:
    ping = dict(re.findall(r"^(\w+) = \((.*)\)$", PING.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(map(int, ping["GOT_ON"].split(", "))) == SUCCESS
    paged = set(map(int, ping["NEEDS_A_PERSON"].split(", ")))
    rules = RULES.read_text(encoding="utf-8")
    assert set(map(int, re.findall(r"expr: enroll_run_exit_code == (\d+)$", rules, re.M))) == paged
    _, _, overdue = rules.partition("alert: EnrollOverdue")
    excepted, _, _ = overdue.partition("labels:")
    assert set(map(int, re.findall(r"exit_code == (\d+)", excepted))) == paged


# Nothing happens any more


def test_nights_that_nobody_starts_and_metrics_that_are_gone(nights: Nights) -> None:
    nights.metrics_file.rename(nights.state / "away")
    nights.collect(4)
    (nights.state / "away").rename(nights.metrics_file)
    nights.night(6, ExitCode.DONE)
    nights.assert_pages(8, ("EnrollSilent", 51, 4 * 24), ("EnrollMetricsGone", 4 * 24 + 26, 6 * 24))


def test_the_page_explains_every_alert() -> None:
    page = RULES.parent.with_suffix(".md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `(Enroll\w+)` \| (at once|after \d+ (?:hours|days)) ", page, re.M)
    alerts = RULES.read_text(encoding="utf-8").split("- alert: ")[1:]
    assert {name for name, _ in explained} == {alert.split()[0] for alert in alerts}
    for alert in alerts:
        rule, _, _ = alert.partition("labels:")
        words = dict(explained)[alert.split()[0]].removeprefix("after ")
        number, _, unit = words.partition(" ")
        sought = rf"\b{number}( \* 24)? \* 3600|\b{number}{unit[:1]}\b"
        assert words == "at once" or re.search(sought, rule), alert


def test_the_rules_are_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES)
