"""Which files may decide for us."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enroll.errors import UsageError
from enroll.ownership import check_trusted


def facts(*, mode: int, owner: int) -> os.stat_result:
    """What `fstat` says of a file of such a mode and owner."""
    return os.stat_result((0o100000 | mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))


@pytest.mark.parametrize("owner", [os.geteuid(), 0])
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444, 0o755])
def test_a_file_of_ours_or_of_root_that_only_its_owner_may_write_is_trusted(
    mode: int, owner: int
) -> None:
    check_trusted(facts(mode=mode, owner=owner), Path("a"), what="The settings file")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o664, 0o777, 0o1777])
def test_a_file_that_others_may_write_is_refused_with_the_remedy(mode: int) -> None:
    with pytest.raises(UsageError) as caught:
        check_trusted(
            facts(mode=mode, owner=os.geteuid()),
            Path("/a/enroll.toml"),
            what="The settings file",
            otherwise="name it with --config",
        )
    assert str(caught.value) == (
        f"The settings file /a/enroll.toml can be written by others (mode {mode:04o}). Check what "
        "it holds and run `chmod go-w /a/enroll.toml`, or name it with --config."
    )


def test_a_file_of_another_user_is_refused_and_both_are_named() -> None:
    with pytest.raises(
        UsageError, match=r"^The ledger /a belongs to user 54321, not to "
    ) as caught:
        check_trusted(facts(mode=0o600, owner=54_321), Path("/a"), what="The ledger")
    assert f"`chown {os.geteuid()} /a`" in str(caught.value)
