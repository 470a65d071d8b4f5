"""A ledger in PostgreSQL whose connection is lost: the run goes on, and each thing happens once."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import postgres_server
import psycopg
import pytest
from archive import Archive
from cut_link import When, cut_link
from ledger_rows import STAFF, START, enroll, face, scanned, token
from moved_clock import MovedClock
from postgres_server import new_schema, server

from enroll import clock
from enroll.addresses import ledger_named
from enroll.commands.run import Screen
from enroll.errors import ExitCode, LocalError
from enroll.ledger import Changes, Ledger, ledger_at, postgres_lasting, read_ledger
from enroll.ledger import schema as s
from enroll.ledger.blocklist import BlockList
from enroll.ledger.postgres_connection import Server
from enroll.ledger.postgres_lasting import LastingConnection
from enroll.model import Event, EventKind, Status
from enroll.sandbox import Sandbox


@pytest.fixture
def name() -> Path:
    return ledger_named(new_schema())


@pytest.fixture
def staff(faceless_box: Sandbox, tmp_path: Path, name: Path) -> Archive:
    found = Archive.new(tmp_path / "staff3", faceless_box)
    found.address = name
    return found


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for a socket, whose path must be short."""
    folder = Path(tempfile.mkdtemp(prefix="enroll-link-"))
    yield folder
    shutil.rmtree(folder)


def asked(name: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """What another program does to the server, or asks it."""
    return postgres_server.asked(statement, *values, schema=Server.of(str(name)).schema)


ENDED = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s"


def through(link: Path, name: Path) -> Path:
    """The address of the same ledger by way of a link."""
    return ledger_named(str(name).replace(str(server().folder), str(link)))


def events(name: Path) -> Counter[tuple[str, EventKind]]:
    with closing(read_ledger(name)) as reader:
        return Counter((user_id, event.kind) for event, user_id in reader.history())


def enrolled_once(archive: Archive) -> Counter[tuple[str, EventKind]]:
    """The events of an archive of which each face was added once."""
    return Counter((user_id, EventKind.ENROLLED) for user_id, *_ in archive.rows)


def states(name: Path) -> list[str]:
    """In what state the server sees our sessions."""
    statement = "SELECT state FROM pg_stat_activity WHERE application_name LIKE 'enroll %'"
    return [state for (state,) in asked(name, statement)]


# Runs


def cut_often(number: int) -> When | None:
    """Before and after commits by turns, once the ledger is there."""
    return {0: "before", 3: "after"}.get(number % 6) if number > 5 else None  # type: ignore[return-value]


def test_a_link_that_is_cut_before_and_after_commits_doubles_and_loses_nothing(
    staff: Archive, short: Path, name: Path
) -> None:
    staff.crowd(12)
    with cut_link(short, server().folder, cut_often) as link:
        staff.address = through(short, name)
        report = staff.run(max_in_flight=2)
        assert (report.exit_code, report.ended.stop) == (ExitCode.DONE, None)
        staff.address = name
        assert link.cuts >= 4
    assert staff.problems() == []
    assert staff.box.count("add") == 12
    assert events(name) == enrolled_once(staff)


def test_a_run_whose_sessions_are_ended_goes_on_to_its_end(staff: Archive, name: Path) -> None:
    staff.crowd(12)
    with staff.command.started(*staff.arguments) as process:
        for calls in (1, 4, 8):
            staff.wait_calls(calls, process)
            asked(name, ENDED, f"enroll {process.pid} %")
        _, err = process.communicate(timeout=60)
    assert (process.returncode, staff.problems()) == (0, []), err
    assert "was lost" in err
    assert "is back" in err
    assert events(name) == enrolled_once(staff)


def test_a_server_that_fails_and_is_started_again_interrupts_a_run(
    staff: Archive, name: Path
) -> None:
    staff.crowd(12)
    with staff.command.started(*staff.arguments) as process:
        staff.wait_calls(4, process)
        server().kill()
        server().start()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, staff.problems()) == (0, []), err
    assert "is back" in err
    assert events(name) == enrolled_once(staff)


def test_a_server_that_stays_away_ends_the_run_and_the_next_one_goes_on(
    moved_clock: MovedClock, staff: Archive, short: Path, name: Path
) -> None:
    staff.crowd(12)

    def gone(_: int) -> When | None:
        link.away = made == 0 and staff.box.count("add") >= 4
        return "before" if link.away else None

    made = 0
    with cut_link(short, server().folder, gone) as link:
        staff.address = through(short, name)
        before = clock.monotonic()
        report = staff.run(max_in_flight=2)
        assert report.exit_code is ExitCode.LOCAL
        assert "did not come back within 60 s" in str(report.ended.stop)
        assert 60 <= clock.monotonic() - before < 120
        made = staff.box.count("add")
        link.away = False
    staff.address = name
    moved_clock.ahead += 600  # no call of that run can be applied any more
    assert staff.run().exit_code is ExitCode.DONE
    assert staff.problems() == []
    assert staff.box.count("add") >= made


class LateReaders(ThreadPoolExecutor):
    """Threads that do the first two tasks at once, and the others when it is `time`."""

    def __init__(self, threads: int, *, time: threading.Event) -> None:
        super().__init__(threads)
        self._tasks, self._time = count(), time

    def submit(self, task: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        if next(self._tasks) < 2:
            return super().submit(task, *args, **named)
        return super().submit(lambda: self._time.wait(60) and task(*args, **named))


def test_no_transaction_is_open_while_the_service_is_waited_for(staff: Archive, name: Path) -> None:
    """Both slots are taken when the other photos are there, whose faces are looked up."""
    staff.crowd(8)
    slow = Screen()
    slow.opened = lambda *_: setattr(staff.box, "latency", 1.5)  # type: ignore[method-assign]
    both_are_taken = threading.Event()
    pools: Iterator[Callable[[int], Executor]]
    pools = iter([ThreadPoolExecutor, partial(LateReaders, time=both_are_taken)])
    seen = Counter[str]()
    with ThreadPoolExecutor(1) as aside:
        run = aside.submit(
            staff.run,
            max_in_flight=2,
            screen=slow,
            pool=lambda size: next(pools)(size),  # noqa: PLW0108  # another each time
        )
        while staff.calls() < 2:
            assert not run.done()
            time.sleep(0.01)
        both_are_taken.set()
        until = time.monotonic() + 0.8
        while time.monotonic() < until:
            seen.update(states(name))
        staff.box.latency = 0
        assert run.result().exit_code is ExitCode.DONE
    assert seen["idle"] > 10
    assert seen["idle in transaction"] <= 1  # it may be about to be committed


# A ledger


@contextmanager
def held(name: Path) -> Iterator[Ledger]:
    """The ledger, as a run has it."""
    store = ledger_at(name)
    with store.hold(), closing(store.open(STAFF)) as ledger:
        yield ledger


def test_a_ledger_at_rest_has_no_transaction_open(name: Path) -> None:
    with held(name) as ledger:
        run = ledger.start_run(START)
        assert ledger.faces_of(["u1"]) == {"u1": []}
        assert states(name) == ["idle"]
        ledger.diff.add_rows([scanned(1), scanned(2)])
        assert states(name) == ["idle in transaction"]
        ledger.rest()
        assert states(name) == ["idle"]
        ledger.diff.compare(now=1, cutoff=1, withheld=BlockList())
        ledger.diff.accept(run)
        ledger.commit()
        assert {one.user_id for one in ledger.diff.row_diffs(photo_root="/p")} == {"u1", "u2"}
        assert states(name) == ["idle in transaction"]  # of which the server has kept the rows
        ledger.rest()
        assert states(name) == ["idle"]


def test_a_run_whose_session_was_lost_stops_when_another_has_written_meanwhile(
    name: Path,
) -> None:
    with held(name) as ledger:
        ledger.start_run(START)
        ledger.record(Changes(faces=[face(1)]))
        asked(name, ENDED, "enroll %")
        with held(name):
            pass  # as a command that begins no run
        with pytest.raises(LocalError, match="Another run has begun"):
            ledger.commit()
        with pytest.raises(LocalError, match="Another run has begun"):
            ledger.commit()
    with closing(read_ledger(name)) as reader:
        assert reader.status().counts == {}


def test_a_ledger_that_is_elsewhere_when_it_is_back_is_not_written(name: Path) -> None:
    with held(name) as ledger:
        ledger.start_run(START)
        ledger.record(Changes(faces=[face(1)]))
        asked(name, ENDED, "enroll %")
        asked(name, "ALTER TABLE enroll_ledger RENAME TO former")
        asked(name, "CREATE TABLE enroll_ledger AS SELECT * FROM former")
        with pytest.raises(LocalError, match="is at another place"):
            ledger.commit()


def test_the_lock_is_waited_for_while_the_server_ends_the_lost_session(
    moved_clock: MovedClock, name: Path
) -> None:
    """Another session stands for it, which has the lock as long as we like."""
    with held(name) as ledger, psycopg.connect(server().address()) as old:
        ledger.start_run(START)
        ((key,),) = asked(name, LOCKS)
        ledger.record(Changes(faces=[face(1)]))
        asked(name, ENDED, "enroll %")
        old.execute("SELECT pg_advisory_lock(%s)", [key])
        with pytest.raises(LocalError, match="has not ended the former session yet"):
            ledger.commit()


LOCKS = """
SELECT (classid::bigint << 32 | objid::bigint) FROM pg_locks WHERE locktype = 'advisory'
"""


# Everything that is written


def work(ledger: Ledger) -> None:
    """Write what each command writes, in each way."""
    run = ledger.start_run(START)
    rows = [scanned(number) for number in range(1, 21)]
    found = ledger.due_rows.compare(rows, run=run)
    ledger.due_rows.add(found.candidates)
    ledger.rest()
    assert len(ledger.due_rows.take(20)) == 20
    enroll(ledger, *range(1, 11))
    for number in range(1, 11):
        enrolled = Event(at=1, kind=EventKind.ENROLLED, run=run, face_id=number)
        ledger.record(Changes(events=[enrolled]))
    ledger.commit()
    assert ledger.due_rows.compare(rows, run=run).unchanged == 10
    # A sync
    ledger.diff.clear()
    ledger.diff.add_rows([scanned(number) for number in range(3, 25)])
    ledger.rest()
    ledger.diff.match_photos(reread=False)
    ledger.diff.compare(now=10_000, cutoff=20_000, withheld=BlockList())
    assert ledger.diff.counts().leaving == 2
    assert sum(1 for _ in ledger.diff.row_diffs(photo_root="/p")) > 0
    ledger.diff.accept(run)
    ledger.commit()
    chosen = ledger.deletions.choose_leavers(cutoff=20_000)
    assert chosen.faces == 2
    targets = ledger.deletions.chosen(after="", most=10, run=run)
    ledger.deletions.intend(targets)
    ledger.commit()
    ledger.deletions.confirm([token(1), token(2)], run=run)
    ledger.diff.forget_done()
    ledger.commit()
    # Decisions
    ledger.findings.accept("u3", "u4", at=1, run=run)
    ledger.remember_lag(2.0)
    ledger.begins(empty=False)
    ledger.commit()
    ledger.forgetting.block(["u5"], at=5, run=run)
    ledger.commit()
    ledger.forgetting.wipe(["u5"])


def dumped(name: Path) -> dict[str, list[str]]:
    """What a ledger holds, but for what differs from one to the next: times, keys, and the numbers
    of events."""
    hidden = {
        "event": "- 'event'",
        "run": "- 'alive_at'",
        "library": "- 'forget_key'",
        "forgotten": "- 'digest'",
    }
    return {
        table: sorted(
            str(line)
            for line in asked(name, f'SELECT to_jsonb(t) {hidden.get(table, "")} FROM "{table}" t')
        )
        for table in s.metadata.tables
    }


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.thorough), 3])
def test_whatever_is_written_is_so_once_though_commits_and_statements_lose_their_session(
    name: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """All commits do, and every so many statements; before and after the server has done them."""
    with held(name) as ledger:
        work(ledger)
    expected = dumped(name)
    again, insist = ledger_named(new_schema()), LastingConnection._insist
    losses, numbers = Counter[str](), count()

    def insisting(self: LastingConnection, act: Callable[[], Any]) -> Any:
        loses = self._resume and (act == self._commit or next(numbers) % every == 0)
        when = ("before", "after")[losses.total() % 2] if loses else ""

        def attempt() -> Any:
            nonlocal when
            lost, when = when, ""
            if not lost:
                return act()
            losses[lost] += 1
            if lost == "after" and isinstance(gone := act(), psycopg.ServerCursor):
                gone.close()
            self.raw.close()
            raise psycopg.OperationalError("lost")

        return insist(self, attempt)

    monkeypatch.setattr(postgres_lasting, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(LastingConnection, "_insist", insisting)
    with held(again) as ledger:
        work(ledger)
    monkeypatch.undo()
    assert dumped(again) == expected
    assert min(losses.values()) > 20


def test_rows_that_were_queued_are_not_seen_by_who_only_compares(name: Path) -> None:
    with held(name) as ledger:
        run = ledger.start_run(START)
        found = ledger.due_rows.compare([scanned(1), scanned(2)], run=run)
        ledger.due_rows.add(found.candidates)
        ledger.commit()
        with suppress(psycopg.errors.DuplicateObject):
            asked(name, "CREATE ROLE viewer LOGIN")
        schema = Server.of(str(name)).schema
        asked(name, f"GRANT USAGE ON SCHEMA {schema} TO viewer")
        asked(name, f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO viewer")
        viewing = ledger_named(str(name).replace("user=enroll", "user=viewer"))
        with closing(ledger_at(viewing).scratch(STAFF)) as scratch:
            assert scratch.due_rows.take(9) == []
            scratch.due_rows.add(found.candidates[:1])
            assert len(scratch.due_rows.take(9)) == 1
        with closing(read_ledger(viewing)) as reader:
            assert reader.status().counts == {Status.PENDING: 2}
        assert len(ledger.due_rows.take(9)) == 2
        ledger.due_rows.add(found.candidates)
    with held(name) as ledger:
        assert ledger.due_rows.take(9) == []
