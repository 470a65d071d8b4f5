"""A ledger in PostgreSQL: addresses, refusals, and runs that are killed or lose the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import ledger_rows
import psycopg
import pytest
from archive import Archive
from ledger_rows import STAFF, START, face, row, scanned
from moved_clock import MovedClock
from postgres_server import new_schema
from psycopg.conninfo import make_conninfo

import enroll
from enroll.addresses import ledger_named
from enroll.errors import LedgerMismatchError, LocalError, UsageError
from enroll.ledger import Changes, ledger_at
from enroll.ledger.postgres_connection import Server, Session
from enroll.model import Status
from enroll.sandbox import Sandbox

REFUSED = {
    "postgresql://me:secret@db/staff?schema=staff": "must not hold a password",
    "postgresql://db/staff?schema=staff&password=secret": "must not hold a password",
    "postgresql://db/staff": "must end with the schema",
    "postgresql://db/staff?schema=pg_own": "must end with the schema",
    'postgresql://db/staff?schema=a"b': "must end with the schema",
    "postgresql://db/staff?schema=staff&options=-c%20x": "has options",
    "postgresql://db/staff?schema=staff&schema=other": "has a parameter twice",
    "postgresql://me:sec/ret@db/staff?schema=staff": "not a valid address",
    "postgresql://me:secret/ret@db/staff?schema=staff": "not a valid address",
    "postgresql://[::1/secret?schema=staff": "not a valid address",
    "postgresql://db:secret/staff?schema=staff": "not a valid address",
    "postgresql://db/staff?schema=staff#secret": "not a valid address",
    "postgresql://db/staff%00secret?schema=staff": "not a valid address",
}


def test_an_address_that_says_too_much_or_too_little_is_refused_without_a_secret() -> None:
    said = {}
    for address in REFUSED:
        with pytest.raises(UsageError) as refused:
            ledger_at(ledger_named(address))
        said[address] = str(refused.value)
    assert [one for one, text in said.items() if REFUSED[one] not in text or "secret" in text] == []


def test_an_address_is_shown_as_it_was_given_and_read_as_libpq_reads_it() -> None:
    socket, host = "postgresql:///staff?schema=a", "postgresql://me@db:6543/staff?schema=a&port=1"
    assert [str(ledger_named(one)) for one in (socket, host)] == [socket, host]
    assert ledger_named(socket).absolute() == ledger_named(socket)
    assert Server.of(socket).parameters == {"dbname": "staff"}
    assert Server.of("postgresql://one:1,two,[::1]:3/staff?schema=a").parameters == {
        "host": "one,two,::1",
        "port": "1,,3",
        "dbname": "staff",
    }
    assert Server.of("postgresql://me@[::1]:6543/staff?schema=a&sslmode=require").parameters == {
        "host": "::1",
        "port": "6543",
        "user": "me",
        "dbname": "staff",
        "sslmode": "require",
    }


@pytest.fixture
def name() -> Path:
    return ledger_named(new_schema())


def other_session(name: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """What another program does to the server."""
    server = Server.of(str(name))
    with psycopg.connect(make_conninfo("", **server.parameters), autocommit=True) as connection:
        connection.execute(f"SET search_path = {server.schema}".encode())
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def test_a_schema_with_other_tables_is_refused_and_left_as_it_was(name: Path) -> None:
    schema = Server.of(str(name)).schema
    other_session(name, f"CREATE SCHEMA {schema} CREATE TABLE theirs (n int)")
    store = ledger_at(name)
    for opens in (store.exists, store.check, store.read, lambda: store.open(STAFF)):
        with pytest.raises(LedgerMismatchError, match="holds other tables"):
            opens()
    assert other_session(name, "SELECT tablename FROM pg_tables WHERE schemaname = %s", schema) == [
        ("theirs",)
    ]


def test_a_server_that_does_not_wait_for_its_disk_is_refused(
    name: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c synchronous_commit=off")
    with pytest.raises(UsageError, match="synchronous_commit=off"):
        ledger_at(name).exists()


def test_a_role_that_may_not_ask_where_the_ledger_is_gets_to_know_what_to_grant(name: Path) -> None:
    """A role that may do no more than docs/postgres.md says."""
    role = f"plain_{Server.of(str(name)).schema}"
    other_session(name, f"CREATE ROLE {role} LOGIN")
    other_session(name, f"GRANT CREATE ON DATABASE postgres TO {role}")
    plain = ledger_named(str(name).replace("user=enroll", f"user={role}"))
    other_session(name, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    try:
        with pytest.raises(UsageError, match=rf"GRANT EXECUTE .*control_system\(\) TO {role};"):
            ledger_at(plain).hold()
    finally:
        other_session(name, "GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
    store = ledger_at(plain)
    with store.hold() as hold, closing(store.open(STAFF)) as ledger:
        ledger.start_run(START)
        hold.remember_run(START.at)


def test_a_role_that_only_reads_cannot_hold_a_ledger_and_still_reads_it(name: Path) -> None:
    with closing(ledger_at(name).open(STAFF)):
        pass
    schema = Server.of(str(name)).schema
    role = f"viewer_{schema}"
    other_session(name, f"CREATE ROLE {role} LOGIN")
    other_session(name, f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    other_session(name, f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
    other_session(name, f"ALTER ROLE {role} SET default_transaction_read_only = on")
    viewer = ledger_at(ledger_named(str(name).replace("user=enroll", f"user={role}")))
    with pytest.raises(UsageError, match=rf"ALTER ROLE {role} SET default_transaction_read_only"):
        viewer.hold()
    with closing(viewer.read()) as reader:
        assert reader.identity() == STAFF


def test_a_server_that_is_not_there_is_named_and_so_is_what_to_do() -> None:
    store = ledger_at(ledger_named("postgresql:///staff?schema=staff&host=/nowhere"))
    with pytest.raises(LocalError, match=r"cannot be reached: .*/nowhere"):
        store.exists()
    assert store.holder() is None


def test_texts_are_in_the_order_of_their_bytes(name: Path) -> None:
    with closing(ledger_at(name).open(STAFF)) as ledger:
        for user_id in ("a", "Z", "é", "_"):
            pending = replace(row(1), user_id=user_id, face_id=None, status=Status.PENDING)
            ledger.record(Changes(rows=[pending]))
        ledger.commit()
        assert [one.user_id for one in ledger.entries()] == ["Z", "_", "a", "é"]


@pytest.mark.parametrize("count", [1, 40])
def test_a_nul_comes_back_as_it_was(name: Path, count: int) -> None:
    """No list can hold one; what a service answers can."""
    texts = [f"{number}\0\U0010ffff\U0010ffff0" for number in range(count)]
    with closing(ledger_at(name).open(STAFF)) as ledger:
        ledger.start_run(START)
        rows = [replace(scanned(1), user_id=text, path=text) for text in texts]
        found = ledger.due_rows.compare(rows, run=1)
        assert {one.row.user_id for one in found.candidates} == set(texts)
        ledger.due_rows.add(found.candidates)
        assert {one.row.path for one in ledger.due_rows.take(count)} == set(texts)
        faces = [
            replace(face(1), face_id=number, face_token=None, user_id=text, message=text)
            for number, text in enumerate(texts, start=1)
        ]
        ledger.record(Changes(faces=faces))
        ledger.commit()
        assert [one.message for one in ledger.entries([Status.ENROLLED])] == texts


def test_a_run_stops_at_its_next_commit_when_another_has_begun(name: Path) -> None:
    with closing(ledger_at(name).open(STAFF)) as ledger:
        ledger.start_run(START)
        with closing(ledger_at(name).open(STAFF)) as later:
            later.start_run(START)
        ledger.record(Changes(faces=[face(1)]))
        with pytest.raises(LocalError, match="Another run has begun"):
            ledger.commit()
    with closing(ledger_at(name).read()) as reader:
        assert reader.status().counts == {}


def test_a_ledger_that_was_put_back_lacks_the_last_run_until_one_is_remembered(name: Path) -> None:
    store = ledger_at(name)
    with store.hold() as hold, closing(store.open(STAFF)) as ledger:
        ledger.start_run(START)
        hold.remember_run(START.at)
    other_session(name, "UPDATE enroll_ledger SET place = '1 00000001 2'")
    with store.hold() as hold, closing(store.open(STAFF)) as ledger:
        assert hold.last_run != 0
        assert not ledger.has_run(hold.last_run)
        hold.mark_caught_up()
    with store.hold() as hold, closing(store.open(STAFF)) as ledger:
        assert hold.caught_up
        assert not ledger.has_run(hold.last_run)
        hold.remember_run(START.at)
    with store.hold() as hold, closing(store.open(STAFF)) as ledger:
        assert ledger.has_run(hold.last_run)


def sampled(name: Path) -> str:
    """The user ids that the planner's statistics hold."""
    statement = "SELECT histogram_bounds::text FROM pg_stats WHERE schemaname = %s AND attname = %s"
    schema = Server.of(str(name)).schema
    ((found,),) = other_session(name, f"{statement} AND tablename = 'face'", schema, "user_id")
    return str(found)


def test_whoever_is_forgotten_leaves_no_row_though_somebody_reads(name: Path) -> None:
    store = ledger_at(name)
    with closing(store.open(STAFF)) as ledger:
        run = ledger.start_run(START)
        ledger_rows.enroll(ledger, 1, 2, 3)
        other_session(name, "ANALYZE face")
        assert sampled(name) == "{u1,u2,u3}"
        ledger.forgetting.block(["u1"], at=5, run=run)
        ledger.commit()
        ledger.forgetting.wipe(["u1"])
        with closing(store.read()) as reader:
            reader.status()
            with pytest.raises(LocalError, match="cannot be rewritten"):
                ledger.forgetting.scrub(["u1"], at=6)
        ledger.forgetting.scrub(["u1"], at=6)
        assert ledger.forgetting.unfinished() == 0
    assert sampled(name) == "{u2,u3}"


# Runs


LATER = 600.0
"""Seconds after which no call of a run that died can be applied."""


@pytest.fixture
def staff(faceless_box: Sandbox, tmp_path: Path, name: Path) -> Archive:
    """An archive whose ledger is in PostgreSQL."""
    found = Archive.new(tmp_path / "staff2", faceless_box)
    found.address = name
    return found


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_a_run_that_is_killed_goes_on_and_adds_nobody_twice(
    moved_clock: MovedClock, staff: Archive
) -> None:
    staff.crowd(12)
    with staff.command.started(*staff.arguments) as process:
        until(lambda: staff.calls() >= 5)
        process.kill()
    moved_clock.ahead += LATER
    done = staff.command.run(*staff.arguments)
    assert (done.code, staff.problems()) == (0, []), done.err
    assert f"Ledger    {staff.ledger}" in done.err


def test_rows_in_memory_go_into_it_and_leave_nothing_where_the_command_was(
    staff: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    photos = [staff.photo(f"{number}.jpg", number) for number in (1, 2)]
    for _ in range(2):
        report = enroll.run(
            [enroll.Row(f"u{number}", "", photo) for number, photo in enumerate(photos)],
            ledger=str(staff.ledger),
            group_id=staff.group_id,
            endpoint=staff.box.endpoint,
            credentials=staff.credentials,
        )
        assert [row.status for row in report.rows()] == [Status.ENROLLED] * 2
    assert staff.box.count("add") == 2
    with enroll.open_ledger(str(staff.ledger)) as ledger:
        assert ledger.status().counts == {Status.ENROLLED: 2}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["staff2", "state"]


def test_before_a_ledger_is_open_a_lost_session_is_not_replaced(name: Path) -> None:
    """Another one would have neither its lock nor what it has written."""
    session = Session(Server.of(str(name)), reads=False)
    assert session.try_lock()
    other_session(
        name, "SELECT pg_terminate_backend(%s)", session.scalar("SELECT pg_backend_pid()")
    )
    for _ in range(2):
        with pytest.raises(LocalError):
            session.scalar("SELECT 1")
    session.close()


def test_the_planner_knows_how_many_rows_a_sync_compares(name: Path) -> None:
    """Without, a first sync of 100,000 rows took six minutes instead of ten seconds."""
    numbers = range(200)
    store = ledger_at(name)
    with closing(store.hold()), closing(store.open(STAFF)) as ledger:
        run = ledger.start_run(START)
        ledger_rows.enroll(ledger, *numbers)
        ledger.diff.add_rows([scanned(number) for number in numbers])
        ledger.diff.match_photos(reread=False)
        ledger.diff.compare(now=1, cutoff=0, withheld=ledger.block_list)
        ledger.diff.accept(run)
        ledger.commit()
    tables = "face", "row", "photo", "manifest_row"
    found = other_session(name, "SELECT relname, reltuples FROM pg_class WHERE reltuples = 200")
    assert {table for table, _ in found} >= set(tables)
