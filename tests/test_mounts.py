"""A ledger on a network file system is refused, wherever the mounts say that it would be."""

from __future__ import annotations

from pathlib import Path

import pytest

from enroll.errors import LocalError
from enroll.ledger import sqlite_connection as connection
from enroll.ledger.sqlite_connection import file_system, is_network
from enroll.ledger.sqlite_lock import LedgerLock

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 0 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:40 / /home rw,relatime shared:2 master:3 - nfs4 server:/export/home rw,vers=4.2
41 40 254:1 / /home/local rw - xfs /dev/vdb rw
42 27 0:42 / /mnt/two\040words\134\011 rw - cifs //server/share rw
43 27 0:43 / /mnt/auto rw - autofs systemd-1 rw
44 43 0:44 / /mnt/auto rw - fuse.sshfs me@server: rw
45 27 0:45 / /mnt/s rw - fuse /dev/fuse rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "ext4"),
        ("/var/lib", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/state", "nfs4"),
        ("/homely", "ext4"),
        ("/home/local/enroll", "xfs"),
        ("/mnt/two words\\\t/enroll", "cifs"),
        ("/mnt/auto/enroll", "fuse.sshfs"),
        ("/mnt/s", "fuse"),
    ],
)
def test_the_innermost_and_latest_mount_counts(path: str, expected: str) -> None:
    assert file_system(Path(path), MOUNTS) == expected


def test_without_mounts_nothing_is_known() -> None:
    assert file_system(Path("/home"), "") == ""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph", "lustre"])
def test_file_systems_of_the_network_are_known(kind: str) -> None:
    assert is_network(kind)


@pytest.mark.parametrize(
    "kind", ["", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuse", "fuse.ntfs-3g", "9p"]
)
def test_local_file_systems_are_not_taken_for_them(kind: str) -> None:
    assert not is_network(kind)


def test_a_ledger_on_a_network_file_system_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "mountinfo"
    share = tmp_path / "share"
    share.mkdir()
    (tmp_path / "link").symlink_to(share)
    point = str(share.resolve()).replace(" ", r"\040")
    listed.write_text(f"{MOUNTS}50 27 0:50 / {point} rw - nfs4 server:/share rw\n", "utf-8")
    monkeypatch.setattr(connection, "MOUNTINFO", listed)
    with pytest.raises(LocalError, match=r"network file system \(nfs4\).*--ledger"):
        LedgerLock(tmp_path / "link" / "ledger.sqlite")
    assert list(share.iterdir()) == []
    with LedgerLock(tmp_path / "ledger.sqlite"):
        pass


def test_a_system_that_lists_no_mounts_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOUNTINFO", tmp_path / "nowhere")
    with LedgerLock(tmp_path / "ledger.sqlite"):
        pass
