"""`--json` and `--summary` of commands: one object each, with the same names, however they end."""

from __future__ import annotations

import json
import re
import signal
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from archive import Archive
from real_command import Command, account_of

import enroll
from enroll.commands import plan as planning
from enroll.errors import ExitCode
from enroll.ledger.sqlite_lock import LedgerLock
from enroll.report.outcome import OF_COMMAND
from enroll.sandbox import Sandbox

ROOT = Path(__file__).parent.parent
SHARED = [figure.name for figure in OF_COMMAND]
MOMENTS = {"started", "ended", "seconds", "run"}
"""What differs between a command and the same one again."""


def documented(command: str) -> set[str]:
    """The names of a command's own figures, by the reference."""
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    _, _, table = page.partition("The others have these")
    table, _, _ = table.partition("`--metrics-file")
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("|")]
    return {
        name for names, of in rows if f"`{command}`" in of for name in re.findall(r"`(\w+)`", names)
    }


@pytest.fixture
def archive(tmp_path: Path, faceless_box: Sandbox) -> Archive:
    """Three people, who are enrolled."""
    there = Archive.new(tmp_path / "photos", faceless_box)
    there.crowd(3)
    return there


@pytest.fixture
def command(archive: Archive, tmp_path: Path) -> Command:
    found = Command(tmp_path / "home", archive.folder, account_of(archive.box))
    assert (
        found("run", "staff.csv", "--group-id", archive.group_id, "--ledger", "l.sqlite").code == 0
    )
    return found


def commands(archive: Archive) -> dict[str, Sequence[str]]:
    """A command line for each that has --summary."""
    ledger = ("--ledger", "l.sqlite")
    library = ("staff.csv", "--group-id", archive.group_id, "--ledger")
    return {
        "verify": ("verify", *ledger),
        "audit": ("audit", *ledger),
        "plan": ("plan", *library, "l.sqlite"),
        "adopt": ("adopt", *library, "new.sqlite"),
    }


def one_object(out: str) -> dict[str, Any]:
    """What was printed, which is one object on a line of its own and nothing else."""
    assert out.endswith("}\n"), out
    assert out.count("\n") == 1, out
    found: dict[str, Any] = json.loads(out)
    assert list(found)[: len(SHARED)] == SHARED, found
    return found


def test_every_command_prints_and_writes_its_figures_and_returns_them_in_python(
    archive: Archive, command: Command
) -> None:
    wrong = []
    for name, words in commands(archive).items():
        done = command(*words, "--json", "--summary", f"{name}.json")
        figures = one_object(done.out)
        path = archive.folder / f"{name}.json"
        assert json.loads(path.read_text(encoding="utf-8")) == figures
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        own = set(figures) - set(SHARED)
        accepting = {"accepted", "accepted_before", "released"}
        if own != documented(name) - accepting:
            wrong.append((name, own ^ documented(name)))
        about = {key: figures[key] for key in ("command", "exit_code", "endpoint", "group_id")}
        assert about == {
            "command": name,
            "exit_code": done.code,
            "endpoint": archive.box.endpoint,
            "group_id": archive.group_id,
        }
        assert figures["reason"] == "DONE", figures
        assert figures["run"] == {"audit": 2, "adopt": 1}.get(name), figures
    assert not wrong
    manifest, people = str(archive.folder / "staff.csv"), "staff-p0"
    given: dict[str, Any] = {
        "ledger": str(archive.folder / "l.sqlite"),
        "endpoint": archive.box.endpoint,
    }
    reach: dict[str, Any] = {**given, "credentials": archive.credentials}
    library = {"group_id": archive.group_id, "ledger": str(archive.folder / "new.sqlite")}
    returned: dict[str, enroll.Outcome[Any]] = {
        "verify": enroll.verify(**reach),
        "audit": enroll.audit(**reach),
        "plan": enroll.plan(manifest, group_id=archive.group_id, **given),
        "adopt": enroll.adopt(manifest, **{**reach, **library}),
    }
    for name, outcome in returned.items():
        printed = one_object(command(*commands(archive)[name], "--json").out)
        told = outcome.to_dict()
        assert json.loads(json.dumps(told)) == told, name
        same = {key: told[key] for key in told if key not in MOMENTS}
        assert same == {key: printed[key] for key in printed if key not in MOMENTS}, name
        assert list(told) == list(printed), name
        assert people not in json.dumps(told), name


def test_the_figures_are_published_however_a_command_ends(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(words: Sequence[str], code: ExitCode, *more: str, written: bool = True) -> None:
        path = archive.folder / "s.json"
        path.unlink(missing_ok=True)
        done = command(*words, *more, "--json", "--summary", "s.json")
        figures = one_object(done.out)
        found = figures["command"], figures["exit_code"], figures["reason"], done.code
        assert found == (words[0], code, code.name, code), (done, figures)
        assert figures["message"], figures
        assert path.exists() is written, (words, figures)
        if written:
            assert json.loads(path.read_text(encoding="utf-8")) == figures
            assert figures["ledger"] == str(archive.folder / words[words.index("--ledger") + 1])

    for name, words in commands(archive).items():
        ends(words, ExitCode.USAGE, "--no-such-option", written=False)
        if name == "plan":
            continue
        archive.box.script(["auth"], call="group_list")
        ends(words, ExitCode.SERVICE)
    ends(("verify", "--ledger", "none.sqlite"), ExitCode.USAGE, written=False)
    with LedgerLock(archive.folder / "l.sqlite"):
        ends(commands(archive)["audit"], ExitCode.LEDGER_BUSY)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("staff-p0")

    monkeypatch.setattr(planning, "open_manifest", broken)
    ends(commands(archive)["plan"], ExitCode.BUG)
    assert "staff-p0" not in (archive.folder / "s.json").read_text(encoding="utf-8")
    # Others with --json print the same when they fail.
    for words, named in (
        (("status", "--ledger", "none.sqlite"), {"ledger": str(archive.folder / "none.sqlite")}),
        (("library", "show", "--group-id", "no"), {"group_id": "no"}),
    ):
        done = command(*words, "--json")
        failed = one_object(done.out)
        assert (failed["command"], failed["exit_code"]) == (" ".join(words[:-2]), done.code)
        assert done.code in (2, 3)
        assert named.items() <= failed.items()


def test_an_interrupted_command_publishes_its_figures_with_its_run(
    archive: Archive, command: Command
) -> None:
    archive.box.latency = 0.5
    words = commands(archive)["adopt"]
    with command.started(
        *words, "--max-in-flight", "1", "--json", "--summary", "s.json"
    ) as process:
        assert archive.box.wait_count("search", 1)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate()
    figures = one_object(out)
    assert process.returncode == figures["exit_code"] == ExitCode.TERMINATED
    assert (figures["run"], figures["group_id"]) == (1, archive.group_id)
    assert json.loads((archive.folder / "s.json").read_text(encoding="utf-8")) == figures


def test_figures_that_cannot_be_written_any_more_end_a_command_with_7(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_plan = planning.make_plan

    def spoiled(*given: Any, **more: Any) -> Any:
        (archive.folder / "s.json").mkdir()
        return make_plan(*given, **more)

    monkeypatch.setattr(planning, "make_plan", spoiled)
    done = command(*commands(archive)["plan"], "--json", "--summary", "s.json")
    assert done.code == one_object(done.out)["exit_code"] == ExitCode.LOCAL
    assert "s.json" in done.err
