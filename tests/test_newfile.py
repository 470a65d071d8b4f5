"""enroll.text.files."""

from __future__ import annotations

import errno
import os
import resource
import stat
from pathlib import Path

import pytest

from enroll.errors import LocalError, ManifestError, UsageError
from enroll.text.files import new_file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_file_appears_whole_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with new_file(path) as new:
        new.file.write(b"text")
        new.file.flush()
        assert not path.exists()
        (temporary,) = tmp_path.iterdir()
        assert mode(temporary) == 0o600
    assert new.replaced
    assert path.read_bytes() == b"text"
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_old_file_that_others_could_read_is_replaced_by_one_that_they_cannot(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with new_file(path) as new:
        new.file.write(b"new")
    assert mode(path) == 0o600


def test_the_same_bytes_leave_the_old_file_and_its_time(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"x" * 3_000_000)
    os.utime(path, ns=(5, 5))
    with new_file(path) as new:
        new.file.write(b"x" * 3_000_000)
    assert not new.replaced
    assert path.stat().st_mtime_ns == 5
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_and_another_users_file_are_replaced_though_they_say_the_same(
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"text")
    path = tmp_path / "out.csv"
    path.symlink_to(other)
    with new_file(path) as new:
        new.file.write(b"text")
    assert new.replaced
    assert not path.is_symlink()
    if os.geteuid() == 0:
        os.chown(path, 54_321, -1)
        with new_file(path) as new:
            new.file.write(b"text")
        assert new.replaced
        assert path.stat().st_uid == 0
    assert other.read_bytes() == b"text"


@pytest.mark.parametrize("content", [b"xz", b"x", b"xxx", b""])
def test_other_bytes_replace_the_old_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"xx")
    with new_file(path) as new:
        new.file.write(content)
    assert new.replaced
    assert path.read_bytes() == content


@pytest.mark.parametrize("error", [ManifestError("no"), KeyboardInterrupt(), ValueError()])
def test_any_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), new_file(path) as new:
        new.file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_the_old_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with (
            pytest.raises(
                LocalError, match=r"out\.csv cannot be written: File too large.*unchanged"
            ),
            new_file(path) as new,
        ):
            new.file.write(b"new" * 2_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_cannot_keep_the_file_is_one_sentence_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LocalError, match="No space left"), new_file(path) as new:
        new.file.write(b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(LocalError, match="No such file or directory"),
        new_file(tmp_path / "absent" / "out.csv"),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LocalError, match="Permission denied"), new_file(tmp_path / "out.csv"):
        pass
    tmp_path.chmod(0o700)


def test_what_is_no_plain_file_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, word in ((pipe, "a device or pipe"), (tmp_path, "a folder")):
        with pytest.raises(UsageError, match=word), new_file(path):
            pass
    assert pipe.is_fifo()
