"""Which file system a path is on, and why a ledger must not be on some of them.

SQLite's write-ahead log lies in memory that processes share, and its locks and ours are the
kernel's: neither reaches the other machines of a network file system
(https://www.sqlite.org/wal.html, https://www.sqlite.org/howtocorrupt.html).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from enroll.errors import LocalError
from enroll.resources import shortage_in

MOUNTINFO = Path("/proc/self/mountinfo")
"""The kernel's list of mounts: proc_pid_mountinfo(5). Linux only; elsewhere nothing is known."""

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "glusterfs"}
    | {"lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "ocfs2", "gfs2", "davfs"}
)
"""File systems whose files another machine may have open. Not 9p and virtiofs: under these names
a virtual machine or container sees the disk of its own host."""

NETWORK_FUSE = frozenset(
    {"sshfs", "glusterfs", "ceph", "cephfs", "s3fs", "rclone", "gcsfuse", "goofys", "davfs"}
    | {"juicefs", "curlftpfs", "afp", "smbnetfs", "mfs", "blobfuse", "blobfuse2", "seaweedfs"}
)
"""The same behind FUSE, which the kernel calls `fuse.` and this name."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


def refuse_network(ledger: Path) -> None:
    """Raise LocalError where the ledger would lie on a network file system."""
    try:
        mounts = MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        if (short := shortage_in(error)) is not None:
            raise short from error
        return
    found = file_system(Path(os.path.realpath(ledger.parent)), mounts)
    if is_network(found):
        raise LocalError(
            f"The ledger {ledger} would be on a network file system ({found}), which cannot keep "
            "two machines from writing it at once. Choose a local place with --ledger."
        )


def is_network(file_system: str) -> bool:
    """Whether other machines may have this kind of file system mounted, too."""
    kind, dot, behind = file_system.partition(".")
    return kind in NETWORK or (kind == "fuse" and bool(dot) and behind in NETWORK_FUSE)


def file_system(path: Path, mounts: str) -> str:
    """The kind of file system that a path (absolute, resolved) is on, by a mountinfo's text.

    Empty where the text does not tell.
    """
    best, found = -1, ""
    for line in mounts.splitlines():
        # "36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw": there may be
        # any number of optional fields before the lonely hyphen.
        place, hyphen, about = line.partition(" - ")
        fields = place.split(" ")
        if not hyphen or len(fields) < 5:
            continue
        point = Path(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields[4]))
        # Of two mounts at one point the later one hides the earlier.
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, found = len(point.parts), about.split(" ")[0]
    return found
