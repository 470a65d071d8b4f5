"""Which files a command may write to, and what is said where it may not."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import click
import pytest
from archive import Archive
from cases import cases
from moved_clock import standin
from PIL import Image
from real_command import Command, account_of

from enroll.cli import cli
from enroll.errors import ExitCode, UsageError
from enroll.sandbox import Sandbox
from enroll.text.files import InUse, Output, check_new_file, check_output

RUN = ("run", "staff.csv", "--group-id", "staff")

WRITERS = {
    "--results": (*RUN, "--results"),
    "--log-file": (*RUN, "--log-file"),
    "--summary": (*RUN, "--summary"),
    "--metrics-file": (*RUN, "--metrics-file"),
    "OUTPUT": ("export",),
    "--differences": ("verify", "--differences"),
    "--report": ("adopt", "staff.csv", "--group-id", "staff", "--report"),
}
"""For every option that names a file to write: the command, which the file's name ends."""


def keep(archive: Archive, command: Command) -> None:
    """Enroll an archive, and put everything beside it that must not be lost."""
    archive.manifest(archive.portraits(1))
    folder = archive.folder
    (folder / "keys").write_text('api_key = "k"\napi_secret = "s"\n')
    (folder / "keys").chmod(0o600)
    command.environ["ENROLL_LEDGER"] = str(folder / "ledger.sqlite")
    assert command(*RUN, "--results", "older.jsonl").code == 0
    assert command(*RUN).code == 0
    (folder / "copy.csv").write_bytes((folder / "staff.results.csv").read_bytes())
    (folder / "enroll.toml").write_text('images = "."\n')
    (folder / "link.csv").symlink_to("ledger.sqlite")
    os.link(folder / "ledger.sqlite", folder / "hard.csv")
    (folder / "manifest.csv").symlink_to("staff.csv")
    (folder / "other.sqlite").write_bytes((folder / "ledger.sqlite").read_bytes())
    (folder / "other.sqlite.lock").write_text("{}")


@pytest.fixture
def kept(archive: Archive, command: Command) -> Archive:
    """An archive that has been enrolled, with everything beside it that must not be lost."""
    keep(archive, command)
    return archive


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Runs a command in such an archive that must refuse it: no file changes, and no call is made.
    What the command says."""
    with standin() as box:
        archive = Archive.new(tmp_path_factory.mktemp("kept") / "staff", box)
        command = Command(tmp_path_factory.mktemp("home"), archive.folder, account_of(box))
        keep(archive, command)

        def refusal(*words: str) -> str:
            before, calls = state(archive.folder), len(box.calls)
            done = command(*words)
            assert done.code == ExitCode.USAGE, done
            assert state(archive.folder) == before
            assert len(box.calls) == calls
            return done.err

        yield refusal


def state(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@cases("option", WRITERS)
@cases(
    ("name", "words"),
    [
        ("ledger.sqlite", "would overwrite the ledger"),
        ("link.csv", "would overwrite the ledger"),
        ("hard.csv", "would overwrite the ledger"),
        ("ledger.sqlite.lock", "belongs to the ledger"),
        ("ledger.sqlite-wal", "belongs to the ledger"),
        ("ledger.sqlite-shm", "belongs to the ledger"),
        ("staff.csv", "would overwrite the manifest"),
        ("manifest.csv", "would overwrite the manifest"),
        ("other.sqlite", "would overwrite a database, perhaps another ledger"),
        ("other.sqlite.lock", "would overwrite a database, perhaps another ledger"),
        ("photos/1.jpg", "would overwrite a picture"),
        ("enroll.toml", "would overwrite the settings file"),
        ("photos", "is a folder"),
    ],
)
def test_nothing_is_written_over_what_is_in_use_a_ledger_or_a_photo(
    refused: Callable[..., str], option: str, name: str, words: str
) -> None:
    said = refused(*WRITERS[option], name)
    assert f"Error: {option} {name}" in said
    assert words in said
    assert "give another name" in said


def test_results_of_a_run_are_written_over_by_the_next_run_alone(
    refused: Callable[..., str],
) -> None:
    others = {option: words for option, words in WRITERS.items() if option != "--results"}
    others |= {
        "--findings": ("audit", "--findings"),
        "audit --summary": ("audit", "--summary"),
        "--accept": ("audit", "--accept", "x,x", "--findings"),
        "--duplicates": ("plan", "staff.csv", "--duplicates"),
        "--list": ("remove", "--run", "1", "--list"),
        "--profile": ("probe", "--profile"),
    }
    wrong = []
    for option, words in others.items():
        for name in ("staff.results.csv", "copy.csv", "older.jsonl"):
            in_vain = option == "--profile" and name == "older.jsonl"  # it knows no ledger
            if not in_vain and "would overwrite the results" not in refused(*words, name):
                wrong.append((option, name))
    assert not wrong


SYNC = ("sync", "staff.csv", "--group-id", "staff", "--max-missing", "1")

TABLES = {
    "run --results": WRITERS["--results"],
    "sync --results": (*SYNC, "--results"),
    "sync --differences": (*SYNC, "--differences"),
    "sync --dry-run": (*SYNC, "--dry-run", "--differences"),
    "export": WRITERS["OUTPUT"],
    "verify --differences": WRITERS["--differences"],
    "audit --findings": ("audit", "--findings"),
    "plan --report": ("plan", "staff.csv", "--group-id", "staff", "--report"),
    "plan --orphans": ("plan", "staff.csv", "--group-id", "staff", "--orphans"),
    "plan --duplicates": ("plan", "staff.csv", "--group-id", "staff", "--duplicates"),
    "match --output": ("match", "staff.csv", "photos", "--output"),
    "adopt --report": WRITERS["--report"],
    "remove --list": ("remove", "--run", "1", "--list"),
}
"""Every option that names a table."""


def test_every_option_that_names_a_table_is_among_these() -> None:
    context = click.Context(cli)
    named = {
        f"{name} {option.opts[0]}"
        for name in cli.list_commands(context)
        for command in [cli.get_command(context, name)]
        for option in (command.params if command else ())
        if isinstance(option, click.Option) and ".parquet" in (option.help or "")
    }
    assert named == set(TABLES) - {"export", "sync --dry-run"}


def test_a_table_with_another_suffix_is_refused_with_those_that_there_are(
    refused: Callable[..., str],
) -> None:
    wrong = []
    for option, words in TABLES.items():
        for name in ("out.ods", "out.csv.gz", "out", "out.XLS", "out.json", "-x", ".csv"):
            said = refused(*words, f"./{name}")
            if "must end in .csv, .xlsx, .jsonl or .parquet" not in said:
                wrong.append((option, name, said))
    assert not wrong


def test_nothing_is_made_before_the_suffix_is_refused(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    before = state(archive.folder)
    for option in ("run --results", "sync --results", "sync --differences", "adopt --report"):
        assert command(*TABLES[option], "out.xls").code == ExitCode.USAGE, option
    assert (state(archive.folder), len(box.calls)) == (before, 0)
    assert not list(command.home.rglob("*.sqlite*"))


@pytest.mark.parametrize("option", ["--log-file", "--summary", "--metrics-file"])
def test_what_is_no_table_is_not_named_like_one(refused: Callable[..., str], option: str) -> None:
    for name in ("out.xlsx", "OUT.XLSX", "out.ods", "out.csv.gz"):
        suffix = f".{name.lower().rpartition('.')[2]}"
        said = refused(*WRITERS[option], name)
        assert f"{name} ends in {suffix}, but its content is " in said


def table_of(path: Path) -> list[list[str]]:
    """The header and rows of a table, as text."""
    openpyxl, parquet = pytest.importorskip("openpyxl"), pytest.importorskip("pyarrow.parquet")
    kind = path.suffix.lower()
    if kind == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))
    if kind == ".xlsx":
        rows = [list(row) for row in openpyxl.load_workbook(path).active.values]
    elif kind == ".jsonl":
        objects = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [list(one) for one in objects[:1]] + [list(one.values()) for one in objects]
    else:
        found = parquet.read_table(path)
        rows = [found.column_names, *[list(one.values()) for one in found.to_pylist()]]
    return [["" if cell is None else str(cell) for cell in row] for row in rows]


def test_every_command_writes_the_same_table_in_every_format(
    archive: Archive, command: Command
) -> None:
    """Each in an archive where it has something to write."""
    one, two = archive.portraits(1, 2)
    archive.manifest([one])
    assert command(*RUN).code == 0
    ledger = command.ledger.read_bytes()
    archive.manifest([one, two, ("0012", "Müller\nÄ,", "missing.jpg"), one])
    archive.photo("photos/orphan.jpg", b"x")
    wrong, empty = [], []
    for option, words in TABLES.items():
        expected = None
        for name in ("csv.csv", "xlsx.XLSX", "jsonl.jsonl", "parquet.Parquet"):
            out = archive.folder / name
            out.unlink(missing_ok=True)
            if option in ("sync --differences", "sync --dry-run", "plan --report"):
                command.ledger.write_bytes(ledger)
            done = command(*words, name)
            unconfirmed = option == "remove --list" and "Confirmation is needed" in done.err
            if done.code not in (ExitCode.DONE, ExitCode.SOME_ROWS_FAILED) and not unconfirmed:
                wrong.append(f"{option} {name}: {done}")
                continue
            rows = table_of(out)
            expected = expected or rows
            if len(expected) == 1 and name.endswith(".jsonl"):
                rows = [*expected, *rows]  # without a row there is nothing to name the columns
            if rows != expected or out.stat().st_mode & 0o77:
                wrong.append(f"{option} {name}: {rows}, not {expected}")
        empty += [option] if expected and len(expected) == 1 else []
    assert not wrong, "\n".join(wrong)
    assert empty == ["audit --findings", "adopt --report"]


def test_results_as_a_workbook_are_a_manifest_and_nobody_is_added_twice(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    ids = ["0012", "12345678901234567890", "-", "@x", "1e5"]
    photos = [image for _, _, image in archive.portraits(*range(len(ids) + 1))]
    rows = [(one, "=1+1, 'a\n''=Ä", image) for one, image in zip(ids, photos, strict=False)]
    archive.manifest([*rows, ("=1+1", "x", photos[-1])])
    assert command(*RUN, "--results", "out.xlsx").code == ExitCode.SOME_ROWS_FAILED
    again = command("run", "out.xlsx", "--group-id", "staff", "--results", "again.xlsx")
    assert (again.code, box.count("add")) == (ExitCode.SOME_ROWS_FAILED, len(ids)), again
    assert table_of(archive.folder / "again.xlsx") == table_of(archive.folder / "out.xlsx")
    assert {(face.user_id, face.user_data) for face in box.faces("staff")} == {
        (one, text) for one, text, _ in rows
    }


def test_a_manifest_whose_texts_no_workbook_holds_is_refused_before_any_call(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    (one,) = archive.portraits(1)
    archive.manifest([(one[0], "x" * 40_000, one[2])])
    done = command(*RUN, "--results", "out.xlsx")
    assert done.code == ExitCode.USAGE
    assert "the text in line 2, column 'user_data', has 40,000 characters" in done.err
    assert (len(box.calls), (archive.folder / "out.xlsx").exists()) == (0, False)


@pytest.mark.parametrize("option", [option for option in WRITERS if option != "OUTPUT"])
def test_the_credentials_in_use_are_not_written_over(
    refused: Callable[..., str], option: str
) -> None:
    first, *words = WRITERS[option]
    said = refused(first, "--credentials", "keys", *words, "keys")
    assert "would overwrite the credentials file" in said


def test_two_outputs_of_a_command_are_two_files(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    for names in (("out.csv", "./out.csv"), ("out.csv", "alias.csv")):
        (archive.folder / "alias.csv").unlink(missing_ok=True)
        (archive.folder / "alias.csv").symlink_to("out.csv")
        done = command(*RUN, "--results", names[0], "--log-file", names[1])
        assert (done.code, "would overwrite the results out.csv" in done.err) == (2, True), done
    assert len(box.calls) == 0
    assert not (archive.folder / "out.csv").exists()


@pytest.mark.parametrize("option", WRITERS)
def test_yesterdays_file_is_written_over(kept: Archive, command: Command, option: str) -> None:
    out = kept.folder / "out.csv"
    out.write_text("BMI,yesterday\n")
    assert command(*WRITERS[option], "out.csv").code == 0
    assert ("BMI,yesterday" in out.read_text()) is (option == "--log-file")  # a log is appended to
    assert out.read_text() != "BMI,yesterday\n"


def test_a_manifest_of_an_earlier_run_may_become_results_again(
    kept: Archive, command: Command
) -> None:
    assert command("run", "staff.results.csv", "--group-id", "staff").code == 0
    done = command("export", "staff.results.csv")
    assert (done.code, "would overwrite the manifest" in done.err) == (2, True), done
    kept.manifest(kept.portraits(1, 2))
    assert command(*RUN).code == 0
    assert len(kept.results()) == 2


@pytest.mark.parametrize("name", ["/dev/full", "/dev/null", "pipe"])
def test_results_are_refused_into_a_device_or_pipe_before_any_call(
    box: Sandbox, archive: Archive, command: Command, name: str
) -> None:
    archive.manifest(archive.portraits(1))
    os.mkfifo(archive.folder / "pipe")
    done = command(*RUN, "--results", name)
    assert done.code == ExitCode.USAGE
    assert "is a device or pipe" in done.err
    assert "--results none" in done.err
    assert len(box.calls) == 0


def test_a_log_that_cannot_be_written_is_said(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    os.mkfifo(archive.folder / "pipe")
    done = command(*RUN, "--log-file", "pipe")
    assert (done.code, "a pipe that nobody reads" in done.err) == (ExitCode.USAGE, True), done
    assert len(box.calls) == 0
    done = command(*RUN, "--quiet", "--log-file", "/dev/full")
    assert (done.code, done.err.count("No space left")) == (0, 1), done


@pytest.mark.parametrize("option", [option for option in WRITERS if option != "OUTPUT"])
@pytest.mark.parametrize("name", ["absent/out.csv", "staff.csv/out.csv", "/proc/out.csv"])
def test_a_place_that_cannot_be_written_is_refused_before_any_call(
    refused: Callable[..., str], option: str, name: str
) -> None:
    said = refused(*WRITERS[option], name)
    assert name in said
    assert "cannot be written" in said


def test_the_manifests_own_folder_is_tried_where_no_results_are_named(
    box: Sandbox, archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> tuple[int, str]:
        raise PermissionError(13, "Permission denied")

    archive.manifest(archive.portraits(1))
    monkeypatch.setattr(tempfile, "mkstemp", read_only)
    done = command(*RUN)
    assert (done.code, "--results staff.results.csv cannot be written" in done.err) == (2, True)
    assert len(box.calls) == 0
    assert command(*RUN, "--results", "none").code == 0


def picture(kind: str) -> bytes:
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000"])
def test_a_picture_is_known_by_its_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(picture(kind))
    with pytest.raises(UsageError, match="would overwrite a picture"):
        check_output(Output(path=path, option="OUTPUT"), InUse(ledger=tmp_path / "l.sqlite"))


@pytest.mark.parametrize("make", [lambda path: path, lambda path: path / ".." / path.name])
def test_a_ledger_that_is_not_there_yet_is_not_written_over_either(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    ledger = make(folder) / "new.sqlite"
    for name in ("new.sqlite", "new.sqlite.lock"):
        output = Output(path=folder / name, option="--results")
        with pytest.raises(UsageError, match="ledger"):
            check_output(output, InUse(ledger=ledger))


def test_a_name_that_no_file_can_have_is_one_sentence(tmp_path: Path) -> None:
    output = Output(path=tmp_path / ("x" * 300), option="--results")
    with pytest.raises(UsageError, match="name too long"):
        check_output(output, InUse(ledger=tmp_path / "l.sqlite"))


def test_to_try_a_folder_leaves_nothing(tmp_path: Path) -> None:
    output = Output(path=tmp_path / "out.csv", option="--results")
    check_new_file(output, InUse(ledger=tmp_path / "l.sqlite"))
    assert list(tmp_path.iterdir()) == []
