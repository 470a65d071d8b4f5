"""enroll.report.export."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import resource
import secrets
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest

from enroll.cli.printing import printing
from enroll.errors import LocalError, UsageError
from enroll.manifest.header import EXPORT_COLUMNS
from enroll.manifest.manifest import open_manifest
from enroll.model import Entry, Status
from enroll.report.export import write_export

PARQUET = pytest.param(
    ".parquet", marks=pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
)
SUFFIXES = [".csv", ".jsonl", PARQUET]

ENTRIES = [
    Entry(
        user_id="-007",
        user_data="=1+1",
        image="@照片/a.jpg",
        status=Status.ENROLLED,
        face_token="f" * 32,
        attempts=1,
        request_id="1530762218,07",
        sha256="0" * 64,
        prepared="1280 pixels",
        enrolled_at="2025-01-02T03:04:05Z",
        run=3,
        time_used=1900,
    ),
    Entry(
        user_id="8",
        user_data="Müller, '张'",
        image="b.jpg",
        status=Status.REJECTED,
        error="NO_FACE_FOUND",
        message="no\nface \ud800",
    ),
]


def csv_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_csv_has_one_escaped_line_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    assert write_export(ENTRIES, path) == 2
    text = path.read_bytes().decode()
    assert text.splitlines()[0] == ",".join(EXPORT_COLUMNS)
    first, second = csv_of(text)
    assert (first["user_id"], first["user_data"], first["image"]) == (
        "-007",
        "'=1+1",
        "@照片/a.jpg",
    )
    assert (first["status"], first["attempts"], first["run"]) == ("enrolled", "1", "3")
    assert second["user_data"] == "Müller, '张'"
    assert second["message"] == "no\nface \\ud800"
    assert path.stat().st_mode & 0o777 == 0o600


def test_raw_leaves_a_csv_unescaped(tmp_path: Path) -> None:
    write_export(ENTRIES, tmp_path / "out.csv", raw=True)
    assert csv_of((tmp_path / "out.csv").read_bytes().decode())[0]["user_data"] == "=1+1"


def test_an_exported_csv_is_a_manifest(tmp_path: Path) -> None:
    write_export(ENTRIES, tmp_path / "out.csv")
    manifest = open_manifest(tmp_path / "out.csv")
    assert manifest.is_results
    (rows,) = manifest.rows()
    assert [(row.user_id, row.user_data, row.image) for row in rows] == [
        (entry.user_id, entry.user_data, entry.image) for entry in ENTRIES
    ]


def test_json_lines_have_one_unescaped_object_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    assert write_export(ENTRIES, path) == 2
    lines = path.read_text(encoding="utf-8").splitlines()
    first, second = map(json.loads, lines)
    assert tuple(first) == EXPORT_COLUMNS
    assert (first["user_data"], first["attempts"], first["run"]) == ("=1+1", 1, 3)
    assert second["message"] == "no\nface \ud800"
    assert "张" in lines[1]


def test_parquet_has_the_columns_with_their_types(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "out.parquet"
    assert write_export(ENTRIES, path) == 2
    table = parquet.read_table(path)
    assert tuple(table.column_names) == EXPORT_COLUMNS
    first, second = table.to_pylist()
    assert (first["user_data"], first["attempts"], first["run"]) == ("=1+1", 1, 3)
    assert (second["status"], second["message"]) == ("rejected", "no\nface \\ud800")
    assert path.stat().st_mode & 0o777 == 0o600


def test_parquet_without_pyarrow_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'enroll\[parquet\]'"):
        write_export(ENTRIES, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_entries_are_an_empty_export(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    assert write_export([], path) == 0
    assert path.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_entries_are_drawn_as_they_are_written(tmp_path: Path, suffix: str) -> None:
    drawn = 0

    def many() -> Iterator[Entry]:
        nonlocal drawn
        for drawn in range(60_000):
            yield replace(ENTRIES[0], sha256=hashlib.sha256(b"%d" % drawn).hexdigest())
            if drawn == 50_000:
                (temporary,) = tmp_path.iterdir()
                assert temporary.stat().st_size > 0

    assert write_export(many(), tmp_path / f"out{suffix}") == 60_000


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_takes_no_more_leaves_the_old_export(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"old")
    entries = (replace(ENTRIES[0], message=secrets.token_hex()) for _ in range(30_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(LocalError, match=r"out\..*cannot be written.*unchanged"):
            write_export(entries, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["out.xls", "out", "out.csv.gz"])
def test_another_suffix_is_refused_with_those_that_there_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.csv, \.xlsx, \.jsonl or \.parquet"):
        write_export(ENTRIES, tmp_path / name)


def test_a_dash_is_csv_on_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert write_export(ENTRIES, Path("-")) == 2
    assert csv_of(capfdbinary.readouterr().out.decode())[0]["user_id"] == "-007"


class BrokenOutput(io.RawIOBase):
    def __init__(self, number: int) -> None:
        self.number = number

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(self.number, "No space left on device")


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, LocalError), (errno.EPIPE, click.exceptions.Exit)]
)
def test_a_full_disk_behind_standard_output_is_told_from_a_reader_that_left(
    monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(BrokenOutput(number)))  # type: ignore[type-var]
    with pytest.raises(error), printing():
        write_export(ENTRIES, Path("-"))
    monkeypatch.undo()
