"""What this machine lets the process have, shared out; and that its want is nobody else's fault."""

from __future__ import annotations

import errno
import math
import os
import resource
import ssl
from pathlib import Path
from typing import cast

import pytest
from facesearch_servers import free_port
from scarce import no_file_left

from enroll import resources
from enroll.errors import ShortageError
from enroll.facesearch import Call, FaceSearch
from enroll.facesearch.answers import OwnCode
from enroll.facesearch.wire import BlockedError, not_sent
from enroll.ledger import Ledger
from enroll.model import Answer, Credentials, Verdict
from enroll.photos import glance, open_store, read_photo, read_photos
from enroll.resources import (
    RESERVE,
    Concurrency,
    core_limit,
    files_left,
    hidden_shortage,
    memory_limit,
    raise_file_limit,
    retry_on_shortage,
    share_out,
    shortage_in,
)
from enroll.runner.health import PhotoRootCheck, Reachability


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tried again."""
    monkeypatch.setattr(resources, "PATIENCE_SECONDS", 0.0)


@pytest.fixture
def limits() -> object:
    """The limits of open files, put back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_open_files_is_raised_to_the_most(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    raise_file_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard == limits[1]


def test_open_files_are_counted(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    before = files_left()
    end, other = os.pipe()
    assert before < 200
    assert files_left() == before - 2
    os.close(end)
    os.close(other)
    with no_file_left():
        assert files_left() == 0


@pytest.mark.parametrize(
    ("left", "wanted", "shared"),
    [
        (528, Concurrency(512, 16), Concurrency(512, 16)),
        (527, Concurrency(512, 16), Concurrency(511, 16)),
        (40, Concurrency(512, 16), Concurrency(30, 10)),
        (4, Concurrency(512, 16), Concurrency(3, 1)),
        (2, Concurrency(512, 16), Concurrency(1, 1)),
        (-5, Concurrency(512, 16), Concurrency(1, 1)),
        (4, Concurrency(2, 16), Concurrency(2, 1)),
        (100, Concurrency(0, 16), Concurrency(0, 16)),
    ],
)
def test_what_is_wanted_is_shared_out(
    monkeypatch: pytest.MonkeyPatch, left: int, wanted: Concurrency, shared: Concurrency
) -> None:
    monkeypatch.setattr(resources, "files_left", lambda: RESERVE + left)
    assert share_out(calls=wanted.calls, readers=wanted.readers) == shared


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, "x"), "ulimit -n"),
        (OSError(errno.ENFILE, "x"), "fs.file-max"),
        (OSError(errno.ENOMEM, "x"), "no memory left"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (ImportError(f"a.so: {os.strerror(errno.EMFILE)}"), "ulimit -n"),
    ],
)
def test_a_want_of_this_machine_is_a_sentence_with_a_remedy(error: Exception, words: str) -> None:
    short = shortage_in(error)
    assert short is not None
    assert words in str(short)


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "x"), RuntimeError("x"), ImportError("x"), ValueError()]
)
def test_any_other_error_is_none(error: Exception) -> None:
    assert shortage_in(error) is None
    assert hidden_shortage(error) is None


def test_a_file_that_can_be_opened_in_a_moment_is_waited_for() -> None:
    errors = [OSError(errno.EMFILE, "x"), OSError(errno.ENFILE, "x")]

    def task() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert retry_on_shortage(task) == "done"


@pytest.mark.usefixtures("at_once")
def test_a_photo_that_cannot_be_opened_for_want_of_files_is_not_judged(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    path = tmp_path / "1.jpg"
    path.write_bytes(b"x")
    for read in (read_photo, glance):
        with no_file_left(), pytest.raises(ShortageError, match="ulimit -n"):
            read(str(path), store)
    with no_file_left(), pytest.raises(ShortageError):
        read_photos([str(path)], store)


@pytest.mark.usefixtures("at_once")
def test_a_missing_photo_whose_folder_cannot_be_listed_is_not_judged_either(tmp_path: Path) -> None:
    with no_file_left(), pytest.raises(ShortageError):
        read_photo(str(tmp_path / "none.jpg"), open_store(tmp_path))


class Known:
    """A ledger that knows photos below every folder."""

    def knows_photos_below(self, folder: str) -> bool:
        return bool(folder)

    def some_photos_below(self, folder: str, *, most: int) -> list[str]:
        return [f"{folder}/known.jpg"][:most]


def known() -> Ledger:
    return cast(Ledger, Known())


def test_a_folder_that_cannot_be_listed_for_want_of_files_is_not_gone(tmp_path: Path) -> None:
    share = PhotoRootCheck(open_store(tmp_path), known())
    with no_file_left():
        assert share.missing(str(tmp_path / "1.jpg"), was_there=False) is None
        assert open_store(tmp_path).is_reachable(str(tmp_path / "1.jpg"))
    assert share.missing(str(tmp_path / "1.jpg"), was_there=False) is not None  # it is empty


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_call_without_a_file_left_is_blocked_and_leaves_at_once_when_there_is_one(
    host: str,
) -> None:
    service = FaceSearch(f"http://{host}:{free_port()}", Credentials("k", "s"), timeout=5.0)
    with no_file_left():
        answer = service.make(Call.group_list())
    assert (answer.verdict, answer.code) == (Verdict.BLOCKED, OwnCode.OUT_OF_RESOURCES)
    assert not answer.may_have_arrived
    assert "ulimit -n" in answer.message
    assert service.make(Call.group_list()).verdict is Verdict.NOT_SENT  # nobody listens there


def test_errors_that_hide_their_reason_are_asked_for_it() -> None:
    # OpenSSL says so of a folder of certificates that it could not read.
    error = ssl.SSLCertVerificationError("unable to get local issuer certificate")
    with no_file_left():
        assert isinstance(not_sent(OwnCode.TLS_FAILED, "x", error), BlockedError)
    assert not_sent(OwnCode.TLS_FAILED, "x", error).code is OwnCode.TLS_FAILED


def test_a_blocked_call_tells_nothing_of_the_service_and_something_of_this_machine() -> None:
    let_go: list[str] = []
    reach = Reachability(make_room=lambda: let_go.append("what rests"))
    reach.heard(Answer(verdict=Verdict.NOT_SENT, code="CANNOT_CONNECT", message="refused"), 1.0)
    assert not let_go
    reach.heard(Answer(verdict=Verdict.BLOCKED, message="No file."), 2.0)
    assert let_go == ["what rests"]
    assert (reach.since, reach.because) == (1.0, "refused")
    assert (reach.shortage.since, reach.shortage.because) == (2.0, "No file.")
    assert reach.shortage.too_long(3.0, 4.9) is None
    assert str(reach.shortage.too_long(3.0, 5.0)) == "No file."
    reach.heard(Answer(verdict=Verdict.APPLIED), 6.0)
    assert reach.since is reach.shortage.since is None


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("", {}, None),
        ("0::/job\n", {"job/memory.max": "600000000"}, 600_000_000),
        # The machine's, or that of a group above, is less.
        ("0::/job\n", {"job/memory.max": "9" * 18}, None),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "500000000"}, 500_000_000),
        # In a container the group's path is the host's.
        ("0::/docker/12ab\n", {"memory.max": "700000000"}, 700_000_000),
        (
            "3:cpu:/job\n2:memory:/job\n",
            {"memory/job/memory.limit_in_bytes": "800000000"},
            800_000_000,
        ),
        ("0::/job\n", {"job/memory.max": "nonsense"}, None),
    ],
)
def test_a_cgroup_limits_the_memory(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int | None
) -> None:
    control_groups(tmp_path, groups, files)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory_limit(tmp_path) == (limit or machine)


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("", {}, math.inf),
        ("0::/job\n", {"job/cpu.max": "150000 100000"}, 1.5),
        ("0::/job\n", {"job/cpu.max": "max 100000"}, math.inf),
        # The least of its own and those above.
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "100000 50000"}, 2.0),
        # In a container the group's path is the host's.
        ("0::/docker/12ab\n", {"cpu.max": "20000 100000"}, 0.2),
        (
            "4:memory:/job\n2:cpu,cpuacct:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "300000", "cpu/job/cpu.cfs_period_us": "100000"},
            3.0,
        ),
        (
            "2:cpu:/a/b\n0::/\n",
            {
                "cpu/a/b/cpu.cfs_quota_us": "-1",
                "cpu/a/b/cpu.cfs_period_us": "100000",
                "cpu/a/cpu.cfs_quota_us": "50000",
                "cpu/a/cpu.cfs_period_us": "50000",
            },
            1.0,
        ),
        ("2:cpu:/job\n", {"cpu/job/cpu.cfs_quota_us": "300000"}, math.inf),
        ("0::/job\n", {"job/cpu.max": "nonsense"}, math.inf),
        ("0::/job\n", {"job/cpu.max": "100000 0"}, math.inf),
    ],
)
def test_a_cgroup_limits_the_cores(
    tmp_path: Path, groups: str, files: dict[str, str], limit: float
) -> None:
    control_groups(tmp_path, groups, files)
    assert core_limit(tmp_path) == limit


def control_groups(root: Path, groups: str, files: dict[str, str]) -> None:
    """Write what the kernel says of this process's cgroups, and their files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
