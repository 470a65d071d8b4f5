"""The soak command, on a small scale; `make soak` is the real one."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from suite import postgres

from enroll.sandbox import Sandbox

SOAK = Path(__file__).parents[1] / "benchmarks/soak.py"


in_a_server = pytest.mark.skipif(
    bool(postgres.missing()), reason=f"there is no {postgres.missing()}"
)


@pytest.mark.thorough
@pytest.mark.parametrize("database", ["", pytest.param("local", marks=in_a_server)])
def test_a_small_soak_finds_nothing_wrong(tmp_path: Path, database: str) -> None:
    command = [sys.executable, str(SOAK), "--rows", "40", "--kills", "1", "--keep", str(tmp_path)]
    command += ["--database", database] if database else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done
    assert "1 seeds, 0 of them bad: 40 rows" in done.stdout
    assert "1 kills, 0 duplicates, 0 lost, 0 differing, 0 surplus" in done.stdout


def test_a_soak_tells_of_every_face_that_is_twice_there_or_missing_or_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library is falsified after the run and before the comparison.
    faces = Sandbox.faces

    def falsified(box: Sandbox, group_id: str) -> list[object]:
        first, second, _third, *others = faces(box, group_id)
        twin = type(first)(
            face_token="0" * 32,
            user_id=first.user_id,
            user_data=first.user_data,
            add_time=first.add_time,
            sha256=first.sha256,
        )
        swapped = type(second)(
            face_token=second.face_token,
            user_id=second.user_id,
            user_data=second.user_data,
            add_time=second.add_time,
            sha256=others[0].sha256,
        )
        return [first, twin, swapped, *others]

    monkeypatch.setattr(Sandbox, "faces", falsified)
    main = runpy.run_path(str(SOAK))["main"]
    options = ["--rows", "30", "--faults", "0", "--kills", "0", "--keep", str(tmp_path)]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 1, done.output
    assert "1 seeds, 1 of them bad" in done.output
    assert ", 2 duplicates, " in done.output  # the twin, and what nobody asked for
    assert "0 lost" not in done.output
    assert "0 differing" not in done.output
