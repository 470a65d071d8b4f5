"""A command that begins while its PostgreSQL server takes no sessions yet, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from moved_clock import MovedClock
from suite import postgres
from suite.postgres import PostgresServer

from enroll.addresses import ledger_named
from enroll.errors import LocalError
from enroll.ledger import ledger_at
from enroll.ledger.postgres_connection import Server, Session


@pytest.fixture
def recovering() -> Iterator[PostgresServer]:
    if missing := postgres.missing():
        pytest.skip(f"there is no {missing}")
    with postgres.running(root=os.environ.get("PYTEST_DEBUG_TEMPROOT")) as server:
        server.kill()
        server.follow()
        yield server


def opened(server: PostgresServer) -> int:
    with closing(Session(Server.of(server.address("staff")), reads=True)) as session:
        return int(session.scalar("SELECT 1"))


def test_a_command_waits_for_a_server_that_is_in_recovery(
    recovering: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadPoolExecutor() as pool:
        opening = pool.submit(opened, recovering)
        while not caplog.records and not opening.done():
            pass
        recovering.promote()
        assert opening.result() == 1
    (said,) = caplog.messages
    assert "cannot be reached yet" in said
    assert "for up to 60 s" in said


def test_a_server_that_recovers_for_longer_ends_the_command_after_one_line(
    recovering: PostgresServer, caplog: pytest.LogCaptureFixture, moved_clock: MovedClock
) -> None:
    began = moved_clock.monotonic()
    for _ in range(3):  # as a command asks
        with pytest.raises(LocalError, match="cannot be reached: "):
            opened(recovering)
    assert len(caplog.messages) == 1
    assert moved_clock.monotonic() < began + 90


def test_nobody_waits_for_a_recovering_server_to_learn_who_holds_the_ledger(
    recovering: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    assert ledger_at(ledger_named(recovering.address("staff"))).holder() is None
    assert caplog.messages == []


def test_a_server_that_is_not_there_ends_the_command_at_once(
    recovering: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    recovering.kill()
    with pytest.raises(LocalError, match=r"cannot be reached: .*Check --ledger"):
        opened(recovering)
    assert caplog.messages == []
