"""What a scan finds is kept, used only while it holds, and never hides a row that is due."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archive import Archive, nobody, portrait, read_csv
from hypothesis import given
from hypothesis import strategies as st
from real_command import Command

from enroll.commands import run_closing
from enroll.facesearch import Call, FaceSearch
from enroll.ledger import (
    CachedScan,
    Part,
    PartCounts,
    ScanCache,
    digest_of,
    pack,
    read_ledger,
    unpack,
)
from enroll.ledger.queue import SqlDueRows
from enroll.manifest import scan
from enroll.model import Credentials, Row, Status
from enroll.photos import open_store
from enroll.sandbox import Sandbox

RUN = ("run", "staff.csv", "--group-id", "staff")


@given(st.lists(st.tuples(st.integers(1, 10**9), st.text(), st.text(), st.text()), max_size=20))
def test_rows_come_back_from_a_part_as_they_were(cells: list[tuple[int, str, str, str]]) -> None:
    rows = [Row(line=n, user_id=u, user_data=d, image=i) for n, u, d, i in cells]
    known = unpack(pack(rows, first_line=7, withheld=3), first_line=7)
    columns = (known.lines, known.user_ids, known.user_data, known.images)
    assert list(zip(*columns, strict=True)) == cells
    assert known.withheld == 3


def test_counts_come_back_from_their_text() -> None:
    counts = PartCounts(
        unchanged=5, user_data_changed=2, bad=[(Status.REJECTED, "NO_FACE_FOUND", "späť", 3)]
    )
    assert PartCounts.of(counts.text()) == counts


def test_a_digest_tells_any_other_size_or_time() -> None:
    times = [10, 20, 30, 11, 21, 31]
    digests = {digest_of(array("q", times))}
    for place in range(len(times)):
        other = list(times)
        other[place] += 1
        digests.add(digest_of(array("q", other)))
    assert len(digests) == 1 + len(times)


RECORD = CachedScan(fingerprint="m", manifest="", parts=0)


class Kept:
    """A keeper that only remembers what it was told."""

    def __init__(self) -> None:
        self.settled: dict[int, PartCounts] = {}
        self.parts = {
            0: Part(
                number=0, first_line=2, rows=b"rows", digest=b"d", counts=PartCounts(unchanged=5)
            )
        }

    def load_part(self, number: int) -> Part:
        return self.parts[number]

    def reopen_part(self, number: int) -> None:
        self.parts[number] = replace(self.parts[number], digest=None, counts=None)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def complete_part(self, number: int, digest: bytes, counts: PartCounts) -> None:
        del digest
        self.settled[number] = counts


def begun(*, due: int, settles: bool = True) -> tuple[ScanCache, Kept]:
    kept = Kept()
    surveyor = ScanCache(kept, recalled=None, record=RECORD)
    surveyor.begins(first_line=2, packed=b"rows", digest=b"d")
    surveyor.compared(unchanged=3, user_data_changed=1, bad={}, due=due, settles=settles)
    return surveyor, kept


def test_a_part_is_settled_when_its_last_due_row_has_ended() -> None:
    surveyor, kept = begun(due=2)
    surveyor.ended(4, Status.ENROLLED, "", "", lines=1)
    assert kept.settled == {}
    surveyor.ended(5, Status.REJECTED, "NO_FACE_FOUND", "said", lines=1)
    bad = [(Status.REJECTED, "NO_FACE_FOUND", "said", 1)]
    assert kept.settled == {0: PartCounts(unchanged=4, user_data_changed=1, bad=bad)}


@pytest.mark.parametrize("status", [Status.FAILED, Status.IN_DOUBT, Status.PENDING])
def test_a_row_that_is_due_again_leaves_its_part_open(status: Status) -> None:
    surveyor, kept = begun(due=2)
    surveyor.ended(4, status, "PHOTO_MISSING", "", lines=1)
    surveyor.ended(5, Status.ENROLLED, "", "", lines=1)
    assert kept.settled == {}


def test_a_part_of_which_some_rows_were_not_looked_at_stays_open() -> None:
    assert begun(due=0, settles=False)[1].settled == {}
    assert begun(due=0)[1].settled.keys() == {0}


def test_a_part_of_the_last_scan_that_is_compared_again_is_open_until_it_is_settled() -> None:
    kept = Kept()
    last = CachedScan(fingerprint="m", manifest="", parts=1)
    cache = ScanCache(kept, recalled=last, record=RECORD)
    assert (cache.next_number(), cache.next_number()) == (0, None)
    cache.begins(first_line=2, packed=None, digest=b"d")
    assert kept.parts == {0: Part(number=0, first_line=2, rows=b"rows")}


# Whole runs


@pytest.fixture
def parts_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts so small that an archive of a few people has several."""
    for name in ("LEAST_ROWS", "MOST_ROWS"):
        monkeypatch.setattr(scan, name, 2)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The user ids of each chunk of rows that is compared with the ledger."""
    seen: list[list[str]] = []
    real = SqlDueRows.compare

    def noted(due_rows: SqlDueRows, rows: Any, **options: Any) -> Any:
        seen.append([row.user_id for row in rows])
        return real(due_rows, rows, **options)

    monkeypatch.setattr(SqlDueRows, "compare", noted)
    return seen


pytestmark_runs = pytest.mark.usefixtures("parts_of_two")


@pytestmark_runs
def test_rows_that_are_as_they_were_are_not_compared_and_count_the_same(
    box: Sandbox, archive: Archive, command: Command, compared: list[list[str]]
) -> None:
    archive.photo("nobody.jpg", nobody())
    rows = [*archive.portraits(1, 2, 3), ("n1", "", "nobody.jpg"), ("bad id!", "", "nobody.jpg")]
    archive.manifest(rows)
    first = command(*RUN)
    told = archive.results()
    compared.clear()
    for _ in range(2):
        again = command(*RUN)
        assert (again.code, "nothing to do" in again.out) == (1, True), again
        for line in ("enrolled  3", "rejected  1", "invalid   1", "NO_FACE_FOUND"):
            assert line in first.out
            assert line in again.out
    assert compared == []
    assert archive.results() == told
    assert box.count("add") == 4


@pytestmark_runs
def test_a_photo_that_was_touched_or_replaced_has_its_part_compared(
    box: Sandbox, archive: Archive, command: Command, compared: list[list[str]]
) -> None:
    archive.manifest(archive.portraits(1, 2, 3, 4, 5))
    assert command(*RUN).code == 0
    compared.clear()
    archive.photo("photos/3.jpg", portrait(30))
    os.utime(archive.folder / "photos/5.jpg")
    done = command(*RUN)
    assert (done.code, "1 row enrolled" in done.out) == (0, True), done
    assert compared == [["person-0003", "person-0004"], ["person-0005"]]
    assert Counter(face.user_id for face in box.faces("staff"))["person-0003"] == 2
    compared.clear()
    assert "nothing to do" in command(*RUN).out
    assert len(compared) <= 2  # a row that was only touched is compared once more
    compared.clear()
    assert "nothing to do" in command(*RUN).out
    assert compared == []


@pytestmark_runs
@pytest.mark.parametrize(
    "options",
    [("--checksum",), ("--retry", "NO_FACE_FOUND"), ("--multi-oriented-detection",)],
    ids=lambda options: options[0],
)
def test_settings_that_decide_what_is_due_have_everything_compared(
    box: Sandbox,
    archive: Archive,
    command: Command,
    compared: list[list[str]],
    options: tuple[str, ...],
) -> None:
    archive.photo("nobody.jpg", nobody())
    archive.manifest([*archive.portraits(1, 2), ("n1", "", "nobody.jpg")])
    command(*RUN)
    compared.clear()
    command(*RUN, *options)
    assert [one for part in compared for one in part] == ["person-0001", "person-0002", "n1"]
    assert box.count("add") == (3 if options == ("--checksum",) else 4)


@pytestmark_runs
def test_a_face_that_a_command_has_made_due_again_is_sent(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3))
    assert command(*RUN).code == 0
    gone = next(face for face in box.faces("staff") if face.user_id == "person-0002")
    service = FaceSearch(box.endpoint, Credentials(box.api_key, box.api_secret), timeout=10)
    service.make(Call.delete(group_id="staff", face_tokens=[gone.face_token]))
    service.close()
    verified = command("verify", "--group-id", "staff", "--requeue-missing", "--yes")
    assert "person-0002" not in {face.user_id for face in box.faces("staff")}, verified
    assert read_ledger(command.ledger).last_scan() is None
    assert "1 row enrolled" in command(*RUN).out
    assert {face.user_id for face in box.faces("staff")} == {
        *("person-0001", "person-0002", "person-0003")
    }


@pytestmark_runs
def test_of_the_next_version_of_a_manifest_only_parts_that_are_new_are_compared(
    archive: Archive, command: Command, compared: list[list[str]]
) -> None:
    rows = archive.portraits(1, 2, 3)
    archive.manifest(rows)
    assert command(*RUN).code == 0
    archive.manifest([*rows[:2], ("person-0003", "Other", "photos/3.jpg")])
    compared.clear()
    done = command(*RUN)
    assert "1 enrolled row whose user_data differs" in done.out, done
    assert compared == [["person-0003"]]
    compared.clear()
    again = command(*RUN)
    assert "1 enrolled row whose user_data differs" in again.out
    assert compared == []


@pytestmark_runs
@pytest.mark.parametrize("word", ["run", "sync"])
def test_parts_are_found_again_in_other_places_of_the_next_export(
    box: Sandbox, archive: Archive, command: Command, compared: list[list[str]], word: str
) -> None:
    rows = archive.portraits(1, 2, 3, 4, 5, 6)
    archive.manifest(rows)
    settle = ("--grace", "0", "--max-removals", "100%") if word == "sync" else ()
    assert command(word, *RUN[1:], *settle).code == 0
    # 1 and 2 are at another line and 3 has left; 4 comes with 7, and 5 and 6 are listed twice.
    seven = archive.portraits(7)
    archive.photo("photos/7.jpg", nobody())
    archive.manifest([*rows[4:], *rows[:2], rows[3], *seven, *rows[4:]], name="next.csv")
    compared.clear()
    done = command(word, "next.csv", *RUN[2:], *settle)
    assert done.code == 1, done
    assert compared == [["person-0004", "person-0007"], ["person-0005", "person-0006"]]
    results = read_csv(archive.folder / "next.results.csv")
    assert Counter(one["status"] for one in results) == {"enrolled": 7, "rejected": 1}
    left = {face.user_id for face in box.faces("staff")}
    assert ("person-0003" in left) == (word == "run")
    compared.clear()
    again = command(word, "next.csv", *RUN[2:], *settle)
    assert again.code == (1 if word == "run" else 0), again  # a sync fails on what is new
    assert compared == []


@pytestmark_runs
def test_a_row_of_the_next_export_that_breaks_a_rule_is_not_sent_before_it_is_scanned(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    rows = archive.portraits(1, 2, 3)
    archive.manifest(rows[:2])
    assert command("sync", *RUN[1:]).code == 0
    archive.manifest([*rows[:2], ("no id", "Name", rows[2][2]), ("four", "long " * 40, rows[2][2])])
    done = command("sync", *RUN[1:])
    assert done.code == 1, done
    results = read_csv(archive.folder / "staff.results.csv")
    errors = [one["error"].partition(":")[0] for one in results[2:]]
    assert errors == ["USER_ID_CHARACTER", "USER_DATA_TOO_LONG"]
    assert box.count("add") == 2


@pytestmark_runs
def test_a_manifest_with_other_columns_drops_what_was_known(
    archive: Archive, command: Command, compared: list[list[str]]
) -> None:
    rows = [(*row, row[1]) for row in archive.portraits(1, 2, 3)]
    archive.manifest(rows, head="user_id,user_data,image,other")
    assert command(*RUN).code == 0
    compared.clear()
    assert command(*RUN, "--columns", "user_data=other").code == 0
    assert len(compared) == 2


@pytestmark_runs
def test_runs_and_syncs_use_one_scan_and_a_sync_compares_what_has_another_text(
    box: Sandbox, archive: Archive, command: Command, compared: list[list[str]]
) -> None:
    rows = archive.portraits(1, 2, 3)
    archive.manifest(rows)
    assert command(*RUN).code == 0
    archive.manifest([*rows[:2], ("person-0003", "Other", "photos/3.jpg")])
    assert command(*RUN).code == 0
    compared.clear()
    done = command("sync", *RUN[1:])
    assert (done.code, "1 enrolled again with another user_data" in done.out) == (0, True), done
    assert compared == [["person-0003"]]
    assert {face.user_data for face in box.faces("staff") if face.user_id == "person-0003"} == {
        "Other"
    }
    compared.clear()
    for word in ("run", "sync", "sync", "run"):
        done = command(word, *RUN[1:])
        assert (done.code, "nothing to do" in done.out) == (0, True), done
    assert compared == []


@pytestmark_runs
def test_a_sync_that_reads_a_touched_photo_leaves_the_scan_of_all_others(
    archive: Archive, command: Command, compared: list[list[str]]
) -> None:
    archive.manifest(archive.portraits(1, 2, 4))
    assert command("sync", *RUN[1:]).code == 0
    compared.clear()
    os.utime(archive.folder / "photos/4.jpg")
    assert command("sync", *RUN[1:]).code == 0
    assert compared == [["person-0004"]]
    assert command(*RUN).code == 0
    assert compared == [["person-0004"]]


@pytestmark_runs
def test_what_the_ledger_knows_to_be_due_is_sent_before_the_scan_and_counted_once(
    box: Sandbox, archive: Archive, command: Command, compared: list[list[str]]
) -> None:
    rows = archive.portraits(1, 2, 3, 4, 5)
    archive.manifest([*rows, rows[3]])  # one row stands twice
    assert command(*RUN, "--limit", "2").code == 6
    compared.clear()
    done = command(*RUN)
    assert (done.code, "enrolled  6" in done.out) == (0, True), done
    assert box.count("add") == 5
    statuses = Counter(line["status"] for line in archive.results())
    assert statuses == {"enrolled": 6}
    again = command(*RUN)
    assert ("nothing to do" in again.out, "enrolled  6" in again.out) == (True, True), again


@pytestmark_runs
def test_results_that_say_the_same_are_not_written_and_others_are(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.manifest(archive.portraits(1, 2))
    assert command(*RUN).code == 0
    written: list[Path] = []

    def noted(_: object, path: Path, *__: object) -> bool:
        written.append(path)
        return False

    monkeypatch.setattr(run_closing, "write_results", noted)
    assert "(unchanged)" in command(*RUN).out
    assert written == []
    results = archive.folder / "staff.results.csv"
    results.write_text("somebody's", encoding="utf-8")
    command(*RUN)
    assert written == [Path("staff.results.csv")]
    results.unlink()
    command(*RUN)
    assert len(written) == 2
    command(*RUN, "--results", "other.csv")
    assert written[2:] == [Path("other.csv")]


def test_many_photos_of_a_slow_folder_are_looked_at_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "SLOW_SECONDS", 0.0)
    rows = []
    for number in range(100):
        if number != 70:
            (tmp_path / f"{number}.jpg").write_bytes(b"x" * number)
        rows.append(Row(line=number + 2, user_id="u", user_data="", image=f"{number}.jpg"))
    scanning = scan.Scan(iter([rows]), open_store(tmp_path), concurrency=4)
    found = scanning.next_chunk()
    scanning.close()
    assert found is not None
    sizes = [None if row.times is None else row.times.size for row in found]
    assert sizes == [None if number == 70 else number for number in range(100)]
