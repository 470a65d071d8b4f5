"""What the stand-in keeps: the store, the journal, and the program around it."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from sandbox_caller import LIBRARY, Caller, face_photo

from enroll.cli.rehearsal import portrait
from enroll.sandbox import Sandbox
from enroll.sandbox.messages import Fields

PROGRAM = """
import sys
from pathlib import Path
from enroll.sandbox.messages import Fields
from enroll.sandbox import Sandbox, serve

def ready(box):
    print(box.endpoint, box.api_key, box.api_secret, flush=True)

serve(Sandbox(store=Path(sys.argv[1])), libraries=["staff"], on_ready=ready)
print("stopped", flush=True)
"""


def test_a_store_survives_a_restart_with_its_credentials_and_faces(tmp_path: Path) -> None:
    store = tmp_path / "box.sqlite"
    with Sandbox(store=store) as box, Caller(box) as caller:
        box.create_library(LIBRARY)
        tokens = [caller.add(f"u{seed}", file=portrait(seed)) for seed in range(3)]
        caller.call("delete", face_tokens=tokens[1])
        before, key = box.faces(LIBRARY), (box.api_key, box.api_secret)
    with Sandbox(store=store) as box, Caller(box) as caller:
        assert (box.api_key, box.api_secret) == key
        assert box.faces(LIBRARY) == before
        results = caller.call("search", limit="9", file=portrait(2)).json()["results"]
        assert [result["face_token"] for result in results] == [tokens[2], tokens[0]]
        assert results[0]["confidence"] == 100.0
        assert len(caller.call("group_list").json()["group_infos"]) == 1


def test_a_store_and_its_companions_are_for_their_owner_alone(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with Sandbox(store=tmp_path / "box.sqlite") as box, Caller(box) as caller:
            box.create_library(LIBRARY)
            caller.add()
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(mask)
    assert modes.keys() >= {"box.sqlite", "box.sqlite-wal"}
    assert set(modes.values()) == {0o600}


def test_a_store_that_was_there_is_made_private_and_another_file_is_not(tmp_path: Path) -> None:
    store, other = tmp_path / "box.sqlite", tmp_path / "other.sqlite"
    program = Program(store)
    program.end(signal.SIGKILL)  # its -wal stays behind
    left = sorted(path.name for path in tmp_path.iterdir())
    assert "box.sqlite-wal" in left
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    with sqlite3.connect(other) as something_else:
        something_else.execute("CREATE TABLE t (c)")
    something_else.close()
    other.chmod(0o644)
    with Sandbox(store=store):
        for path in tmp_path.iterdir():
            wanted = 0o644 if path == other else 0o600
            assert (path.name, stat.S_IMODE(path.stat().st_mode)) == (path.name, wanted)
    with pytest.raises(ValueError, match="not a store of the stand-in"):
        Sandbox(store=other)
    assert stat.S_IMODE(other.stat().st_mode) == 0o644


def test_a_second_sandbox_cannot_open_the_same_store(tmp_path: Path) -> None:
    store = tmp_path / "box.sqlite"
    with Sandbox(store=store), pytest.raises(OSError, match="in use by another"):
        Sandbox(store=store)


def test_a_file_of_something_else_is_refused_and_untouched(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, though long enough to look like one. " * 20)
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE precious (x)")
    connection.commit()
    connection.close()
    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(ValueError, match="not a store of the stand-in"):
            Sandbox(store=path)
        assert path.read_bytes() == before


def test_a_host_that_is_not_loopback_is_refused() -> None:
    for host in ("0.0.0.0", "192.0.2.1", "example.org", ""):
        with pytest.raises(ValueError, match="loopback"):
            Sandbox(host=host)


def test_a_taken_port_is_an_oserror_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Sandbox() as box, pytest.raises(OSError, match="in use"):
        Sandbox(port=box.port)
    assert capfd.readouterr() == ("", "")


def test_a_sandbox_that_was_never_started_can_be_stopped() -> None:
    Sandbox().stop()


def test_calls_are_silent_and_recorded(capfd: pytest.CaptureFixture[str]) -> None:
    now = [1_700_000_000.0]
    with Sandbox(clock=lambda: now[0]) as box, Caller(box) as caller:
        box.create_library(LIBRARY)
        sign = caller.sign(now=1_700_000_000, expires=1_700_000_600)
        caller.add("u1", sign=sign)
        now[0] += 10
        caller.call("face_info", face_token="x", sign=sign)
        caller.call("unheard-of", sign=sign)
        add, info, unknown = box.calls
        assert (add.kind, add.user_id, add.status, add.code) == ("add", "u1", 200, "")
        assert (add.applied, add.finished, add.fault, add.under_way) == (True, True, "", 1)
        assert (info.kind, info.code, info.applied) == ("face_info", "INVALID_FACE_TOKEN", False)
        assert (info.time - add.time, info.status) == (10, 400)
        assert (unknown.kind, unknown.status) == ("/finauth/search/group/unheard-of", 404)
        assert (box.count("add"), box.count("face_info"), box.count("list")) == (1, 1, 0)
    assert capfd.readouterr() == ("", "")


def test_a_bug_at_the_desk_comes_out_where_the_sandbox_is_left(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Fields, "of", broken)
    with (
        pytest.raises(ZeroDivisionError, match="a bug"),
        Sandbox() as box,
        Caller(box) as caller,
        pytest.raises(requests.ConnectionError),
    ):
        caller.call("group_list")
    assert "ZeroDivisionError: a bug" in capfd.readouterr().err


def test_create_library_twice_is_once() -> None:
    with Sandbox() as box:
        box.create_library(LIBRARY)
        box.create_library(LIBRARY)
        assert box.faces(LIBRARY) == []


class Program:
    """`serve` in a process of its own."""

    def __init__(self, store: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, str(store)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.endpoint, self.api_key, self.api_secret = self.process.stdout.readline().split()

    def end(self, number: signal.Signals) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=10)
        return self.process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_cleanly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    program = Program(tmp_path / "box.sqlite")
    assert program.end(number) == (0, "stopped\n", "")


SIGNALLED = """
import signal, sys, threading
from enroll.sandbox.messages import Fields
from enroll.sandbox import Sandbox, serve

def when_it_waits(box):
    main, seen = threading.main_thread().ident, []
    while len(seen) < 20 or len(set(seen[-20:])) > 1:  # so long at one instruction
        frame = sys._current_frames()[main]
        seen.append((frame.f_code.co_name, frame.f_lasti))
        threading.Event().wait(0.01)  # or the main thread would not get on
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # as the kernel may choose to

serve(Sandbox(), on_ready=lambda box: threading.Thread(target=when_it_waits, args=[box]).start())
print("stopped")
"""


def test_serve_ends_at_the_first_signal_whichever_thread_the_kernel_hands_it_to() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SIGNALLED],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


def test_faces_added_before_a_kill_are_there_after_it(tmp_path: Path) -> None:
    store = tmp_path / "box.sqlite"
    program = Program(store)
    with Caller(program) as caller:  # type: ignore[arg-type]  # it has all that is asked for
        tokens = [caller.add(f"u{number}", file=face_photo()) for number in range(5)]
    program.end(signal.SIGKILL)
    with Sandbox(store=store) as box:
        assert [face.face_token for face in box.faces(LIBRARY)] == tokens
        assert (box.api_key, box.api_secret) == (program.api_key, program.api_secret)


def test_the_package_imports_nothing_from_the_rest_of_enroll() -> None:
    code = (
        "import sys, enroll.sandbox;"
        "print(*[m for m in sys.modules if m.startswith('enroll')"
        " and m != 'enroll' and not m.startswith('enroll.sandbox')])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")
