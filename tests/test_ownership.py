"""Which files may decide for us."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enroll.errors import UsageError
from enroll.ownership import check_trusted, make_folder, others_can_read, pasteable


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
    assert f"run `chown {os.geteuid()} /a`" in str(caught.value)


def test_what_a_message_says_to_run_is_one_argument_whatever_the_files_name() -> None:
    path = Path("/a b;reboot.sqlite")
    with pytest.raises(UsageError, match=r"run `chmod go-w '/a b;reboot.sqlite'`"):
        check_trusted(facts(mode=0o666, owner=os.geteuid()), path, what="The ledger")
    with pytest.raises(UsageError, match=rf"run `chown {os.geteuid()} '/a b;reboot.sqlite'`"):
        check_trusted(facts(mode=0o600, owner=54_321), path, what="The ledger")


def test_a_file_of_a_group_may_be_written_by_the_group_alone_where_that_is_allowed() -> None:
    path = Path("/a")
    ours = os.geteuid()
    check_trusted(facts(mode=0o660, owner=ours), path, what="The log", group_may_write=True)
    with pytest.raises(UsageError, match="can be written by others"):
        check_trusted(facts(mode=0o666, owner=ours), path, what="The log", group_may_write=True)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_every_folder_that_is_made_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_folder(tmp_path / "state" / "enroll" / "host")
        make_folder(tmp_path / "state" / "enroll" / "host")
    finally:
        os.umask(before)
    made = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert len(made) == 3
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_folder(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_no_folder_is_made_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "a")
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize(("mode", "so"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_file_is_known_that_others_can_read(tmp_path: Path, mode: int, so: bool) -> None:
    path = tmp_path / "a"
    assert not others_can_read(path)
    path.touch()
    path.chmod(mode)
    assert others_can_read(path) is so


def test_a_command_that_is_suggested_can_be_pasted_whatever_its_path_is() -> None:
    assert pasteable("--images", Path("/a b/it's")) == """--images '/a b/it'"'"'s'"""
    assert pasteable("chmod 600", Path("plain")) == "chmod 600 plain"
