"""docs/scheduling.md: its examples are taken by what they are for."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import forked
import pytest
from archive import Archive
from forked import Forked
from real_command import SECONDS, Command

from enroll.cli.enrolling import run
from enroll.errors import ExitCode
from enroll.sandbox import Sandbox

PAGE = (Path(__file__).parent.parent / "docs" / "scheduling.md").read_text(encoding="utf-8")
ENROLL = "/opt/enroll/bin/enroll"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def jobs() -> dict[str, list[str]]:
    """The words of each example's command, from the program on."""
    (cron,) = blocks("cron")
    service, _ = blocks("ini")
    (line,) = [line for line in cron.splitlines() if ENROLL in line]
    (start,) = re.findall(r"^ExecStart=(.*)$", service, flags=re.MULTILINE)
    return {
        "cron": shlex.split(line[line.index(ENROLL) :]),
        "systemd": shlex.split(start),
    }


def here(archive: Archive, text: str) -> str:
    """An example's text with its folders moved into the archive's."""
    return re.sub(r"(?<!\w)/(?=(?:etc|var/lib)/enroll|srv/staff)", f"{archive.folder}/", text)


@pytest.mark.parametrize("name", ["cron", "systemd"])
def test_the_job_of_an_example_runs_in_a_bare_environment(
    box: Sandbox, archive: Archive, name: str
) -> None:
    (settings,) = blocks("toml")
    for folder in ("etc/enroll", "var/lib/enroll", "srv/staff/photos", "handed"):
        (archive.folder / folder).mkdir(parents=True)
    (archive.folder / "etc/enroll/staff.toml").write_text(
        f'endpoint = "{box.endpoint}"\n' + here(archive, settings)
    )
    (one,) = archive.portraits(1)
    shutil.copy(archive.folder / one[2], archive.folder / "srv/staff/photos/1.jpg")
    archive.manifest([(one[0], "", "1.jpg")], name="srv/staff/staff.csv")
    keys = f"api_key={box.api_key}\napi_secret={box.api_secret}\n"
    environ = {"PATH": "/usr/bin:/bin"}
    if name == "systemd":
        environ["CREDENTIALS_DIRECTORY"] = str(archive.folder / "handed")
        files = {archive.folder / "handed/enroll": keys}
    else:
        files = {archive.folder / "etc/enroll/credentials": keys}
    for path, text in files.items():
        path.write_text(text)
        path.chmod(0o440)
    program, *words = jobs()[name]
    assert program == ENROLL
    words = [here(archive, word) for word in words]
    options: dict[str, Any] = {"cwd": "/", "env": environ, "stdin": subprocess.DEVNULL}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Loading the modules needs no more for one example than for the others.
    if forked.available and name != "cron":
        process: subprocess.Popen[str] = Forked(words, **options)
    else:
        start = [sys.executable, "-m", "enroll", *words]
        process = subprocess.Popen(start, text=True, **options)
    with process:
        assert process.communicate(timeout=SECONDS) == ("", "")
    assert process.returncode == 0
    assert len(box.faces("staff")) == 1
    assert {path.name for path in (archive.folder / "var/lib/enroll").iterdir()} >= {
        "staff.sqlite",
        "staff.results.csv",
        "staff.json",
        "staff.log",
    }


def test_the_settings_are_options_of_the_command() -> None:
    (settings,) = blocks("toml")
    names = {parameter.name for parameter in run.params}
    assert set(tomllib.loads(settings)) <= names


def test_the_units_pass_systemds_own_check(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not there")
    units = dict(zip(("enroll-staff.service", "enroll-staff.timer"), blocks("ini"), strict=True))
    for name, text in units.items():
        program = str(Path(sys.executable).parent / "enroll")
        (tmp_path / name).write_text(text.replace(ENROLL, program))

    def verified() -> str:
        done = subprocess.run(
            [analyze, "verify", *(str(tmp_path / name) for name in units)],
            env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        # It looks at all units of this machine that these name; only ours are ours.
        told = [line for line in (done.stdout + done.stderr).splitlines() if "enroll-staff" in line]
        return "\n".join(told)

    assert verified() == ""
    timer = tmp_path / "enroll-staff.timer"
    timer.write_text(timer.read_text().replace("OnCalendar=", "OnCalender="))
    assert "OnCalender" in verified()  # else the check above could not fail


def test_the_cron_line_has_five_times_a_user_and_no_percent_sign() -> None:
    (cron,) = blocks("cron")
    (line,) = [line for line in cron.splitlines() if ENROLL in line]
    times = line.split()[:5]
    assert all(re.fullmatch(r"\*|\d+", one) for one in times)
    assert line.split()[5:7] == ["enroll", ENROLL]
    assert "%" not in line


def test_every_exit_code_of_a_run_is_explained() -> None:
    table = PAGE[PAGE.index("## What the exit code says") :]
    for code in ExitCode:
        assert re.search(rf"^\|[^|]*\b{int(code)}\b[^|]*\|[^|]*`{code.name}`", table, re.MULTILINE)


def test_a_ledger_that_does_not_outlive_the_night_ends_with_exit_code_2(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    job = ("run", "staff.csv", "--group-id", "staff", "--ledger")
    assert command(*job, "one.sqlite").code == 0
    assert command(*job, "other.sqlite").code == ExitCode.USAGE
