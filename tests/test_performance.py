"""The suite of benchmarks, at a tiny size: that it runs, not what it measures."""

from __future__ import annotations

import csv
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from suite import postgres, programs
from suite.archives import PHOTO_BYTES, small, usual
from suite.database import COMPARED, QUIET, RECORDED
from suite.figures import OURS, figure, rows
from suite.ledgers import fabricate
from suite.programs import MissingError, find, need

from enroll.ledger import read_ledger
from enroll.model import Photo, Status
from enroll.photos import open_store, read_photo

PERFORMANCE = Path(__file__).parents[1] / "benchmarks/performance.py"
SECONDS = 250.0
"""No process takes so long at this size; one that does is stuck."""

CASES = {
    "startup": {"enroll --help"},
    "row-cost": {"a row of 64 KB"},
    "tls-row-cost": {"a row of 64 KB over HTTPS"},
    "preparing": {"a photo of 12 megapixels to 1280"},
    "unchanged": {"nothing to do, 60 rows"},
    "quiet-sync": {"quiet sync, 60 rows"},
    "due": {"60 rows, 30 % due, 1 taken up"},
    "first-call": {"first call after a restart, 60 entries"},
    "in-flight": {
        "2 in flight, photos of 12 megapixels",
        "2 in flight, photos of mixed kinds, --memory 400MB",
    },
    "growth": {f"growth: {step}, 20 rows" for step in ("plan", "first run", "run, nothing to do")},
    "limits": {"hidden limit 4", "hidden limit 16→6→24"},
    "report": {"report, 60 rows"},
    "match": {"match, 60 people"},
    "objects": {
        "a photo of 250 KB from a bucket",
        "a row of 64 KB from a bucket",
        "nothing to do in a bucket, 60 rows",
    },
    "engines": {
        "a row of 64 KB by two workers of Dask",
        "4 places by two workers of Dask, calls of 0.1 s",
        "preparing by workers of one core each",
    },
    "database": {
        *(f"{QUIET}: {word}, 60 rows" for word in ("first run", "first sync", "run", "sync")),
        COMPARED,
        RECORDED,
    },
}
needed = [
    *(name for name in ("nginx",) if find(name) is None),
    *(name for name in ("aiohttp", "matplotlib") if find_spec(name) is None),
]


@pytest.mark.benchmark
@pytest.mark.skipif(bool(needed), reason=f"there is no {', '.join(needed)} here")
@pytest.mark.parametrize(
    "cases",
    [
        ("startup", "row-cost", "tls-row-cost", "unchanged", "due"),
        ("first-call", "limits", "report", "match", "objects"),
        ("in-flight", "preparing", "growth", "engines"),
        pytest.param(
            ("database",),
            marks=pytest.mark.skipif(
                bool(postgres.missing()), reason=f"there is no {postgres.missing()}"
            ),
        ),
    ],
    ids="+".join,
)
def test_cases_of_the_suite_run_and_write_their_figures(
    cases: tuple[str, ...], tmp_path: Path
) -> None:
    only = [word for case in cases for word in ("--only", case)]
    command: list[str | Path]
    command = [sys.executable, PERFORMANCE, "--size", "tiny", *only, "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done
    with (tmp_path / "figures.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["case"] for line in lines} == set().union(*(CASES[case] for case in cases))
    for case in cases:
        assert OURS in {line["way"] for line in lines if line["case"] in CASES[case]}
    assert all(line["case"] in done.stdout for line in lines)
    assert (tmp_path / "limit.png").exists() == ("limits" in cases)


def test_a_program_that_is_missing_is_exit_code_2_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(programs, "_ALSO_IN", ())
    with pytest.raises(MissingError, match="apt-get install nginx-light") as raised:
        need("nginx")
    assert raised.value.exit_code == 2


def test_photos_have_their_size_and_are_unlike_each_other(tmp_path: Path) -> None:
    archive = usual(tmp_path, 3)
    first, last = (
        read_photo(str(archive.folder / archive.image(number)), open_store(tmp_path))
        for number in (0, 2)
    )
    assert isinstance(first, Photo)
    assert isinstance(last, Photo)
    assert len(first.content) == len(last.content) == PHOTO_BYTES
    assert first.sha256 != last.sha256


def test_a_ledger_says_of_as_many_rows_as_asked_that_they_are_enrolled(tmp_path: Path) -> None:
    fabricate(tmp_path / "l.sqlite", small(tmp_path, 10), 10, enrolled=0.7)
    ledger = read_ledger(tmp_path / "l.sqlite")
    assert ledger.status().counts == {Status.ENROLLED: 7}
    ledger.close()


def test_ratios_are_to_ours_in_the_same_case_and_measure() -> None:
    ours = figure("a row", OURS, "CPU", values=[0.4, 0.6, 0.5], unit="ms", target="≤ 0.7")
    rival = figure("a row", "script", "CPU", values=[2.0], unit="ms", target="≤ 0.7")
    other = figure("a row", "script", "memory", values=[70.0], unit="MB")
    ends = [line[-2:] for line in rows([ours, rival, other])]
    assert ends == [("", "≤ 0.7"), ("4.00", ""), ("", "")]
    assert rows([ours])[0][3:8] == ("0.5", "ms", "0.4", "0.6", "3")
