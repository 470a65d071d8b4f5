"""enroll.manifest.results."""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enroll.errors import LocalError, ManifestError, UsageError
from enroll.manifest.manifest import Manifest, open_manifest
from enroll.manifest.results import default_results_path, write_results
from enroll.model import Entry, Row, Status
from enroll.text.files import RESULT_COLUMNS

Lookup = Callable[[Sequence[Row]], Sequence[Entry | None]]

PLAIN = "user_id,user_data,image\n7,Anna,a.jpg\n\n8,Bob,b.jpg\n"
EIGHT = ",".join(RESULT_COLUMNS)


def entry(
    row: Row, *, message: str = "", error: str = "", status: Status = Status.ENROLLED
) -> Entry:
    return Entry(
        user_id=row.user_id,
        user_data=row.user_data,
        image=row.image,
        status=status,
        face_token="f" * 32,
        error=error,
        message=message,
        attempts=2,
        request_id="1530762218,07",
        sha256="0" * 64,
        enrolled_at="2025-01-02T03:04:05Z",
        run=3,
    )


def enrolled(rows: Sequence[Row]) -> list[Entry | None]:
    return [entry(row) for row in rows]


def unknown(rows: Sequence[Row]) -> list[Entry | None]:
    return [None] * len(rows)


def saying(message: str) -> Lookup:
    return lambda rows: [entry(row, message=message) for row in rows]


def manifest_of(path: Path, content: str | bytes) -> Manifest:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_manifest(path)


def cells_of(manifest: Manifest) -> list[list[str]]:
    return [cells for chunk in manifest.chunks() for cells in chunk.to_numpy().tolist()]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "staff.results.csv"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("staff.csv", "staff.results.csv"),
        ("staff.csv.gz", "staff.results.csv"),
        ("staff.tsv", "staff.results.csv"),
        ("staff", "staff.results.csv"),
        ("staff.gz", "staff.results.csv"),
        ("staff.2025.csv", "staff.2025.results.csv"),
        ("staff.results.csv", "staff.results.results.csv"),
    ],
)
def test_the_results_lie_beside_the_manifest(name: str, expected: str) -> None:
    assert default_results_path(Path("in") / name) == Path("in") / expected


def test_each_row_is_followed_by_what_became_of_it(tmp_path: Path, target: Path) -> None:
    assert write_results(manifest_of(tmp_path / "staff.csv", PLAIN), target, enrolled)
    outcome = f'enrolled,{"f" * 32},,,2,"1530762218,07",{"0" * 64},2025-01-02T03:04:05Z'
    assert target.read_text(encoding="utf-8") == (
        f"user_id,user_data,image,{EIGHT}\n7,Anna,a.jpg,{outcome}\n8,Bob,b.jpg,{outcome}\n"
    )
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_row_that_the_ledger_does_not_know_gets_empty_cells(tmp_path: Path, target: Path) -> None:
    write_results(manifest_of(tmp_path / "staff.csv", PLAIN), target, unknown)
    assert target.read_text(encoding="utf-8").splitlines()[1] == "7,Anna,a.jpg,,,,,,,,"


def test_lookup_is_given_the_rows_with_their_lines(tmp_path: Path, target: Path) -> None:
    seen: list[Row] = []

    def lookup(rows: Sequence[Row]) -> list[Entry | None]:
        seen.extend(rows)
        return unknown(rows)

    write_results(manifest_of(tmp_path / "staff.csv", PLAIN), target, lookup)
    assert [(row.line, row.user_id) for row in seen] == [(2, "7"), (4, "8")]


def test_results_are_rewritten_only_when_something_changed(tmp_path: Path, target: Path) -> None:
    manifest = manifest_of(tmp_path / "staff.csv", PLAIN)
    assert write_results(manifest, target, enrolled)
    os.utime(target, ns=(5, 5))
    assert not write_results(manifest, target, enrolled)
    assert target.stat().st_mtime_ns == 5
    assert write_results(manifest, target, saying("late"))
    assert target.stat().st_mtime_ns > 5


def test_delimiter_and_line_end_are_the_manifests(tmp_path: Path, target: Path) -> None:
    manifest = manifest_of(tmp_path / "staff.csv", "user_id;image\r\n7;a,b.jpg\r\n")
    write_results(manifest, target, unknown)
    assert target.read_bytes().startswith(b"user_id;image;status;")
    assert target.read_bytes().endswith(b"\r\n7;a,b.jpg;;;;;;;;\r\n")


@pytest.mark.parametrize(
    ("encoding", "marked"),
    [("ascii", False), ("utf-8", False), ("utf-8-sig", True), ("utf-16", True), ("cp1252", True)],
)
def test_results_have_a_mark_where_the_manifest_came_from_a_spreadsheet(
    tmp_path: Path, target: Path, encoding: str, marked: bool
) -> None:
    name = "Anna" if encoding == "ascii" else "Müller"
    content = f"user_id,user_data,image\n7,{name},a.jpg\n".encode(encoding)
    write_results(manifest_of(tmp_path / "staff.csv", content), target, unknown)
    assert target.read_bytes().startswith(b"\xef\xbb\xbf") is marked
    assert f"7,{name},a.jpg" in target.read_text(encoding="utf-8")
    assert cells_of(open_manifest(target)) == [["7", name, "a.jpg"]]


def test_formulas_are_escaped_but_never_in_ids_and_paths(tmp_path: Path, target: Path) -> None:
    manifest = manifest_of(
        tmp_path / "staff.csv", "user_id,user_data,image,=x\n-7,=1+1,@a.jpg,+1\n"
    )
    write_results(manifest, target, saying("=cmd"))
    header, row = list(csv.reader(io.StringIO(target.read_text(encoding="utf-8"))))
    assert header[:4] == ["user_id", "user_data", "image", "'=x"]
    assert row[:4] == ["-7", "'=1+1", "@a.jpg", "'+1"]
    assert row[header.index("message")] == "'=cmd"
    again = open_manifest(target)
    assert again.own_columns == ("user_id", "user_data", "image", "=x")
    assert cells_of(again) == [["-7", "=1+1", "@a.jpg", "+1"]]


def test_ids_and_paths_that_are_invalid_are_escaped_and_read_as_they_were(
    tmp_path: Path, target: Path
) -> None:
    ids = ["=1+1", "-7", "@a", "'=1", "+49 170", "-" * 48, "-" * 49, "'7"]
    paths = ["=1.jpg", "-.jpg", "=\x01.jpg", "'=\x01.jpg", "'=1.jpg", "@" + "a" * 300, "\t", "+"]
    text = io.StringIO()
    csv.writer(text).writerows([("EMP", "PHOTO"), *zip(ids, paths, strict=True)])
    (tmp_path / "staff.csv").write_bytes(text.getvalue().encode())
    columns = {"user_id": "EMP", "image": "PHOTO"}
    manifest = open_manifest(tmp_path / "staff.csv", columns=columns)
    write_results(manifest, target, unknown)
    _, *rows = csv.reader(io.StringIO(target.read_text(encoding="utf-8")))
    assert [row[0] for row in rows] == [
        *("'=1+1", "-7", "@a", "''=1", "'+49 170", "-" * 48, "'" + "-" * 49, "'7")
    ]
    assert [row[1] for row in rows] == [
        *("=1.jpg", "-.jpg", "'=\x01.jpg", "''=\x01.jpg", "'=1.jpg", "'@" + "a" * 300, "'\t", "+")
    ]
    again = open_manifest(target, columns=columns)
    assert cells_of(again) == [list(row) for row in zip(ids, paths, strict=True)]
    write_results(manifest, target, unknown, raw=True)
    _, *rows = csv.reader(io.StringIO(target.read_text(encoding="utf-8")))
    assert [row[0] for row in rows] == ids


def test_raw_leaves_formulas_as_they_are(tmp_path: Path, target: Path) -> None:
    manifest = manifest_of(tmp_path / "staff.csv", "user_id,user_data,image,=x\n7,=1+1,a.jpg,\n")
    write_results(manifest, target, saying("=cmd"), raw=True)
    header, row = list(csv.reader(io.StringIO(target.read_text(encoding="utf-8"))))
    assert (header[3], row[1], row[header.index("message")]) == ("=x", "=1+1", "=cmd")


def test_a_column_of_the_manifest_that_is_called_like_ours_is_renamed(
    tmp_path: Path, target: Path
) -> None:
    manifest = manifest_of(
        tmp_path / "staff.csv", "user_id,status,image,Error,manifest_status\n7,on leave,a,no,x\n"
    )
    assert "'status'" in manifest.notes[0]
    assert "'manifest_manifest_status'" in manifest.notes[0]
    write_results(manifest, target, enrolled)
    again = open_manifest(target)
    own = ("user_id", "manifest_manifest_status", "image", "manifest_Error", "manifest_status")
    assert again.own_columns == own
    assert again.notes == ()
    assert cells_of(again) == [["7", "on leave", "a", "no", "x"]]


def test_two_columns_are_never_renamed_to_one(tmp_path: Path, target: Path) -> None:
    manifest = manifest_of(tmp_path / "staff.csv", "user_id,image,status,Status\n7,a,x,y\n")
    write_results(manifest, target, enrolled)
    renamed = open_manifest(target).own_columns[2:]
    assert renamed == ("manifest_status", "manifest_manifest_Status")


def test_results_of_results_replace_our_columns(tmp_path: Path, target: Path) -> None:
    write_results(manifest_of(tmp_path / "staff.csv", PLAIN), target, enrolled)
    again = open_manifest(target)
    assert again.is_results
    second = tmp_path / "second.csv"
    write_results(again, second, enrolled)
    assert second.read_bytes() == target.read_bytes()


def test_our_columns_in_a_results_file_cannot_be_inputs(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "staff.csv"
    path.write_text("user_id,message,image\n7,Anna,a\n", encoding="utf-8")
    columns = {"user_data": "message"}
    write_results(open_manifest(path, columns=columns), target, enrolled)
    with pytest.raises(ManifestError, match="'manifest_message'"):
        open_manifest(target, columns=columns)
    again = open_manifest(target, columns={"user_data": "manifest_message"})
    assert next(again.rows())[0].user_data == "Anna"


def test_the_manifest_is_never_overwritten(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path / "staff.csv", PLAIN)
    link = tmp_path / "link.csv"
    link.symlink_to(manifest.path)
    for path in (manifest.path, link, tmp_path / ".." / tmp_path.name / "staff.csv"):
        with pytest.raises(UsageError, match="would overwrite the manifest"):
            write_results(manifest, path, enrolled)
    assert manifest.path.read_text(encoding="utf-8") == PLAIN


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path / "staff.csv", PLAIN)
    with pytest.raises(LocalError, match=r"absent.*cannot be written"):
        write_results(manifest, tmp_path / "absent" / "results.csv", enrolled)


def test_a_manifest_that_changes_meanwhile_leaves_the_old_results(
    tmp_path: Path, target: Path
) -> None:
    manifest = manifest_of(tmp_path / "staff.csv", PLAIN)
    write_results(manifest, target, enrolled)
    before = target.read_bytes()
    manifest.path.write_text(PLAIN + "9,Carl,c.jpg\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="was changed"):
        write_results(manifest, target, saying("other"))
    assert target.read_bytes() == before


CELLS = st.lists(
    st.sampled_from([*"'=+-@\t\r\n＝,;\" \ufeffa", "\r\n"])
    | st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    max_size=6,
).map("".join)
MESSAGES = st.lists(st.sampled_from(list("'=\0\ud800\r\n\",;")) | st.characters()).map("".join)


@settings(max_examples=80)
@given(
    table=st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), max_size=5),
    delimiter=st.sampled_from(",;\t"),
    crlf=st.booleans(),
    message=MESSAGES,
)
def test_the_rows_survive_results_of_results(
    tmp_path_factory: pytest.TempPathFactory,
    table: list[tuple[str, ...]],
    delimiter: str,
    crlf: bool,
    message: str,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    text = io.StringIO(newline="")
    csv.writer(
        text, delimiter=delimiter, lineterminator="\r\n" if crlf else "\n", quoting=csv.QUOTE_ALL
    ).writerows([("user_id", "user_data", "image", "'=more"), *table])
    original = manifest_of(folder / "any.csv", text.getvalue())
    expected = [list(cells) for cells in table if any(cell.strip() for cell in cells)]
    assert cells_of(original) == expected
    manifest = original
    for name in ("first.csv", "second.csv", "third.csv"):
        write_results(manifest, folder / name, saying(message))
        manifest = open_manifest(folder / name)
        assert manifest.own_columns == original.own_columns
        assert cells_of(manifest) == expected
    assert (folder / "third.csv").read_bytes() == (folder / "first.csv").read_bytes()
