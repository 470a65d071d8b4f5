"""Text that others wrote: what is seen of it, what is stored, the one door it leaves by."""

from __future__ import annotations

import ast
import io
import json
import os
from pathlib import Path

import pytest
from archive import Archive
from hypothesis import given
from hypothesis import strategies as st
from real_command import Command
from sources import nodes_of

import enroll
from enroll.addresses import named_path
from enroll.sandbox import Sandbox
from enroll.text.logs import LOGGER, LastingStream, log, set_up
from enroll.text.wording import as_shown
from enroll.visible import json_text, path_text, storable, visible

PACKAGE = Path(enroll.__file__).parent
RUN = ("run", "staff.csv", "--group-id", "staff")

STEERS = "\x1b]0;title\x07\x1b[2J\x9b31m\r\u202etxt\u2066\u200b\u2028\n\x7f"
"""Escapes of a terminal (also as one character), a return, marks of direction, line ends."""

ANYTHING = st.text(st.characters(codec=None))
"""Half surrogate pairs, too."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("José 张 – “x”", "José 张 – “x”"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\r\nb\tc\0", r"a\r\nb\tc\x00"),
        ("\x9b31m", r"\u009b31m"),
        ("abc\u202etxt.exe", r"abc\u202etxt.exe"),
        ("no\xa0break", r"no\u00a0break"),
        ("f\udcfcr", r"f\xfcr"),
        ("\ud83d", r"\ud83d"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_has_no_shape_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(ANYTHING)
def test_whatever_is_shown_is_one_line_of_printable_text_and_stays_so(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown
    assert as_shown([text, text]).split("\n") == [shown, shown, ""]


@given(st.dictionaries(ANYTHING, ANYTHING))
def test_json_is_printable_and_says_the_same(value: dict[str, str]) -> None:
    text = json_text(value)
    assert text.isprintable()
    kept = "".join(map("".join, value.items()))
    if storable(kept) == kept:
        assert json.loads(text) == value
    json_text(value).encode()


def test_bytes_that_are_no_text_are_the_same_in_json_as_anywhere_else() -> None:
    assert json.loads(json_text({"path": "/f\udcfcr"})) == {"path": path_text("/f\udcfcr")}
    assert path_text(Path("/f\udcfcr")) == r"/f\xfcr"


def test_a_path_that_was_stored_finds_its_file_again(tmp_path: Path) -> None:
    for name in ("plain.csv", "f\udcfcr.csv", "线.csv"):
        assert named_path(path_text(tmp_path / name)) == tmp_path / name
    spelled_out = tmp_path / r"f\xfcr.csv"
    spelled_out.touch()
    assert named_path(path_text(spelled_out)) == spelled_out


def test_only_one_module_prints() -> None:
    # Else text of others would reach a terminal raw from there.
    doors = {"text/wording.py", "text/logs.py", "cli/signals.py", "cli/terminal.py"}
    doors.add("engine/local_scheduler.py")  # a process that says its address into the run's pipe
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("sandbox/") or name in doors:
            continue
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                "print",
                "click.echo",
                "click.secho",
                "click.confirm",
                "click.prompt",
                "click.echo_via_pager",
                "sys.stdout.write",
                "sys.stdout.buffer.write",
                "sys.stderr.write",
                "tqdm.write",
                "os.write",
            }:
                found.add((name, ast.unparse(node.func)))
    assert found == set()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_log_line_is_one_line_whatever_it_says(as_json: bool, tmp_path: Path) -> None:
    stream, file = io.StringIO(), tmp_path / "run.log"
    set_up(stream=LastingStream(stream), as_json=as_json, file=file, quiet=False)
    try:
        log("row", STEERS, {"code": STEERS, "path": "f\udcfcr"}, level=30)
        LOGGER.getChild("library").warning("%s", STEERS)
    finally:
        for handler in list(LOGGER.handlers):
            LOGGER.removeHandler(handler)
            handler.close()
    for text in (stream.getvalue(), file.read_text(encoding="utf-8")):
        lines = text.removesuffix("\n").split("\n")
        assert len(lines) == 2
        assert all(line.isprintable() for line in lines)
        if as_json:
            assert [json.loads(line)["message"] for line in lines] == [STEERS, STEERS]
            assert json.loads(lines[0])["path"] == r"f\xfcr"


def steers_nothing(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_a_librarys_name_and_a_files_steer_no_terminal_and_no_log(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    box.create_library("other", group_name=STEERS)
    archive.manifest(archive.portraits(1))
    run = ("run", "staff.csv", "--group-id", "other")
    for done in (
        command("library", "list"),
        command(*run, "--log-file", "run.log"),
        command(*run[:-1], "\x1b[31m"),
        command("run", "no\x1b[2J\nsuch.csv", "--group-id", "other", "--log-file", "run.log"),
        command("run", "staff.csv", "--\x1b[31m"),
        command("status", "--ledger", "no\x1b[2J\n.sqlite"),
    ):
        assert steers_nothing(done.out + done.err), done
    text = (archive.folder / "run.log").read_text(encoding="utf-8")
    assert steers_nothing(text)
    assert r"no\x1b[2J\nsuch.csv" in text
    assert r"\x1b]0;title\x07\x1b[2J\u009b31m\r\u202etxt" in command("library", "list").out


def test_help_shows_no_escape_of_a_settings_file(archive: Archive, command: Command) -> None:
    del command.environ["ENROLL_ENDPOINT"]
    (archive.folder / "enroll.toml").write_text('endpoint = "\\u001b[31mhttps://a.example"\n')
    done = command("run", "--config", "enroll.toml", "--help")
    assert (done.code, r"\x1b[31mhttps" in "".join(done.out.split())) == (0, True), done
    assert steers_nothing(done.out)


def test_a_table_on_standard_output_is_exact_for_a_program_and_harmless_on_a_terminal(
    archive: Archive, command: Command
) -> None:
    archive.manifest([("a1", "x", "no\u202ephoto.jpg")])
    assert command(*RUN).code == 1
    assert "no\u202ephoto.jpg" in command("export", "-").out
    terminal, end = os.openpty()
    with command.started("export", "-", stdout=end) as process:
        os.close(end)
        assert process.wait(60) == 0
        shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert r"no\u202ephoto.jpg" in shown
    assert "\u202e" not in shown


def test_only_a_files_name_may_be_bytes_that_are_not_text(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    for arguments in (
        ("run", "staff.csv", "--group-id", "a\udcfc"),
        ("history", "--user-id", "a\udcfc"),
        ("library", "create", "--group-id", "x", "--name", "a\udcfc"),
        (*RUN, "--columns", "user_id=a\udcfc"),
    ):
        done = command(*arguments)
        assert (done.code, "not text in UTF-8" in done.err) == (2, True), done
