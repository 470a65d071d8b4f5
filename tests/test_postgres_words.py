"""What is said where a server refuses what a ledger needs."""

import pytest

from enroll.ledger.postgres_lasting import failure

errors = pytest.importorskip("psycopg.errors")


def test_tables_that_are_gone_or_forbidden_are_not_said_to_be_safe() -> None:
    for error in (errors.UndefinedTable("no face"), errors.InsufficientPrivilege("no")):
        said = str(failure("postgresql:///x?schema=s", error))
        assert "Nothing that it recorded is lost" not in said
        assert "Grant" in said
    assert "Nothing that it recorded is lost" in str(failure("x", errors.DiskFull("no room")))
