"""A run's figures for programs: what is in them, and that they are there whatever happens."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import stat
import sys
from contextlib import closing
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from archive import QUICK_DOUBTS, Archive, let_nobody_look, nobody, portrait
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from real_command import SECONDS, Command

from enroll.commands import run, run_closing
from enroll.errors import ExitCode, LocalError
from enroll.ledger.sqlite_lock import LedgerLock
from enroll.model import Status
from enroll.report import publishing
from enroll.report import summary as run_summary
from enroll.report.figures import OF_RUN
from enroll.report.outcome import OF_COMMAND, Figure
from enroll.sandbox import Sandbox
from enroll.visible import path_text

pytestmark = pytest.mark.usefixtures("moved_clock")

RUN = ("run", "staff.csv", "--group-id", "staff", "--summary", "run.json")
FIGURES: list[Figure[Any]] = [*OF_COMMAND, *OF_RUN]
ROOT = Path(__file__).parent.parent


def summary(archive: Archive) -> dict[str, Any]:
    path = archive.folder / "run.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def metrics(archive: Archive) -> dict[tuple[str, str], float]:
    """The samples by name and second label's value; they are the same in both text forms."""
    text = (archive.folder / "run.prom").read_text(encoding="utf-8")
    found: dict[tuple[str, str], float] = {}
    for parse in (prometheus, open_metrics):
        one: dict[tuple[str, str], float] = {}
        for family in parse(text):
            assert family.type == "gauge"
            assert family.documentation
            for sample in family.samples:
                labels = dict(sample.labels)
                assert (labels.pop("host"), labels.pop("group_id")) == ("127.0.0.1", "staff")
                one[sample.name, "".join(labels.values())] = sample.value
        assert not found or found == one
        found = one
    return found


def test_the_figures_of_a_run_say_what_became_of_rows_and_calls(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    rows = [*archive.portraits(1, 2), ("nobody-1", "", "nobody.jpg"), ("gone-1", "", "gone.jpg")]
    archive.photo("nobody.jpg", nobody())
    archive.manifest(rows)
    before = datetime.now(UTC)
    box.parallel = 1
    box.latency = 0.05
    assert command(*RUN).code == ExitCode.SOME_ROWS_FAILED
    exported = command("export", "-", "--group-id", "staff").out
    took = {row["user_id"]: row["time_used"] for row in csv.DictReader(StringIO(exported))}
    assert took.pop("gone-1") == ""  # no call was made
    assert min(map(int, took.values())) >= 50
    figures = summary(archive)
    assert (figures["exit_code"], figures["reason"]) == (1, "SOME_ROWS_FAILED")
    assert (figures["message"], figures["run"]) == ("", 1)
    assert {status: n for status, n in figures["rows"].items() if n} == {
        "enrolled": 2,
        "rejected": 1,
        "failed": 1,
    }
    assert len(figures["rows"]) == len(Status)
    assert figures["errors"] == {"NO_FACE_FOUND": 1, "PHOTO_MISSING": 1}
    assert (figures["enrolled_now"], figures["bad"], figures["new_bad"]) == (2, 2, 2)
    calls = {kind: count for kind, count in figures["calls"].items() if count}
    assert calls == {"group_list": 1, "list": 1, "add": box.count("add")}
    assert figures["refused"] == box.count("add") - 3
    assert figures["refused_share"] == round(figures["refused"] / sum(calls.values()), 4)
    service, call = figures["service_seconds_median"], figures["call_seconds_median"]
    assert 0.04 < service < call * 1.1  # each is right to 1 %
    assert service <= figures["service_seconds_p95"]
    assert call <= figures["call_seconds_p95"]
    times = [datetime.fromisoformat(figures[name]) for name in ("started", "ended")]
    assert before.timestamp() - 0.001 <= times[0].timestamp() <= times[1].timestamp()
    assert figures["seconds"] == pytest.approx((times[1] - times[0]).total_seconds(), abs=0.01)
    assert figures["ledger"] == str(command.ledger)
    assert figures["manifest"] == str(archive.folder / "staff.csv")
    assert figures["results"] == str(archive.folder / "staff.results.csv")
    assert (figures["group_id"], figures["endpoint"]) == ("staff", box.endpoint)
    assert command(*RUN, "--fail-on", "new").code == 0
    figures = summary(archive)
    assert (figures["reason"], figures["run"], figures["new_bad"]) == ("DONE", 2, 0)
    assert (figures["bad"], figures["enrolled_now"], figures["enrolled_before"]) == (2, 0, 2)


def test_the_figures_name_no_person_and_no_photo(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.photo("photos-of/secret-name.jpg", portrait(1))
    archive.manifest([("secret-id-1", "Secret Person", "photos-of/secret-name.jpg")])
    box.script(["unknown-code"])
    done = command(*RUN, "--metrics-file", "run.prom", "--on-code", "FACE_LEFT_THE_BUILDING=stop")
    assert done.code == ExitCode.SERVICE
    for name in ("run.json", "run.prom"):
        text = (archive.folder / name).read_text(encoding="utf-8")
        assert not re.search("secret|photos-of", text, re.IGNORECASE), text
    archive.manifest([("secret-id-1", "secret-name.jpg")], head="secret-id-0,secret-name-0.jpg")
    assert command(*RUN).code == ExitCode.USAGE
    figures = summary(archive)
    assert (figures["reason"], figures["rows"]) == ("USAGE", None)
    assert "secret" not in json.dumps(figures)


def test_figures_are_written_when_no_run_could_be_begun(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    box.script(["auth"] * 3, call="group_list")
    assert command(*RUN, "--metrics-file", "run.prom").code == ExitCode.SERVICE
    figures = summary(archive)
    assert "AUTHORIZATION_ERROR" in figures["message"]
    assert (figures["reason"], figures["run"], figures["calls"]) == ("SERVICE", None, None)
    assert figures["seconds"] >= 0
    known = metrics(archive)
    assert known["enroll_run_exit_code", ""] == 3
    assert not [name for name, _ in known if name == "enroll_run_rows"]


@pytest.mark.parametrize("wrong", [None, "missing.csv"])
def test_who_could_not_begin_leaves_the_figures_of_the_run_in_progress(
    wrong: str | None, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    run = [*RUN, "--metrics-file", "run.prom"]
    assert command(*run).code == 0
    before = summary(archive), metrics(archive)
    with LedgerLock(command.ledger):
        run[1] = wrong or run[1]
        expected = ExitCode.LEDGER_BUSY if wrong is None else ExitCode.USAGE
        assert command(*run).code == expected
    assert (summary(archive), metrics(archive)) == before


def test_the_metrics_say_that_a_run_is_in_progress_and_when_one_last_succeeded(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    run = (*RUN, "--metrics-file", "run.prom")
    assert command(*run).code == 0
    first = metrics(archive)
    succeeded = "enroll_last_success_timestamp_seconds", ""
    assert first[succeeded] == pytest.approx(first["enroll_run_end_timestamp_seconds", ""])
    assert first["enroll_run_in_progress", ""] == 0
    archive.manifest(archive.portraits(1, 2))
    box.script(["timeout"])
    with command.started(*run, "--drain", "0.2") as process:
        assert box.wait_count("add", 2)
        during = metrics(archive)
        process.kill()
        process.communicate(timeout=SECONDS)
    changed = {key[0] for key, number in during.items() if first[key] != number}
    assert changed == {"enroll_run_in_progress", "enroll_run_start_timestamp_seconds"}
    assert during["enroll_run_in_progress", ""] == 1
    box.script(["auth"] * 3, call="group_list")
    assert command(*run).code == ExitCode.SERVICE
    failed = metrics(archive)
    assert failed[succeeded] == first[succeeded]
    assert failed["enroll_run_in_progress", ""] == 0


def test_metrics_of_another_library_or_program_are_not_carried_over(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    path = archive.folder / "run.prom"
    name = "enroll_last_success_timestamp_seconds"
    archive.manifest(archive.portraits(1))
    for there in (f'{name}{{host="127.0.0.1",group_id="other"}} 5', "not metrics", ""):
        path.write_text(f"# TYPE {name} gauge\n{there}\n# EOF\n")
        box.script(["auth"] * 3, call="group_list")
        assert command(*RUN, "--metrics-file", "run.prom").code == ExitCode.SERVICE
        assert (name, "") not in metrics(archive)


def test_figures_are_written_when_a_run_meets_a_bug(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("person-0001")

    archive.manifest(archive.portraits(1))
    monkeypatch.setattr(run, "close_run", broken)
    assert command(*RUN).code == ExitCode.BUG
    figures = summary(archive)
    assert (figures["exit_code"], figures["reason"]) == (70, "BUG")
    assert "person-0001" not in json.dumps(figures)


def test_figures_are_written_when_a_run_is_interrupted(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3))
    box.script(["timeout"] * 3)
    with command.started(*RUN, "--drain", "0.2", "--metrics-file", "run.prom") as process:
        assert box.wait_count("add", 1)
        process.terminate()
        process.communicate(timeout=SECONDS)
    assert process.returncode == ExitCode.TERMINATED
    figures = summary(archive)
    assert (figures["exit_code"], figures["reason"]) == (143, "TERMINATED")
    assert figures["rows"]["in_doubt"] == figures["calls"]["add"]
    assert metrics(archive)["enroll_run_exit_code", ""] == 143


def test_doubts_and_bounds_are_in_the_figures(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2))
    box.script(["reset-after"], user_id="person-0001")
    box.script([None], call="list")
    let_nobody_look(box)
    command(*RUN, *QUICK_DOUBTS, "--allow-nonempty")
    in_doubt = [row["status"] for row in archive.results()].count("in_doubt")
    assert summary(archive)["rows"]["in_doubt"] == in_doubt > 0
    archive.manifest(archive.portraits(1, 2, 3, 4))
    assert command(*RUN, *QUICK_DOUBTS, "--limit", "1").code == ExitCode.ENDED_EARLY
    assert "--limit 1 was reached" in summary(archive)["message"]


def test_metrics_are_gauges_in_both_text_forms_that_everybody_can_read(
    archive: Archive, command: Command
) -> None:
    archive.manifest([*archive.portraits(1, 2), ("gone-1", "", "gone.jpg")])
    assert command(*RUN, "--metrics-file", "run.prom").code == 1
    path = archive.folder / "run.prom"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    text = path.read_text(encoding="utf-8")
    assert text.count("# TYPE ") == text.count("# HELP ") >= 14
    known = metrics(archive)
    assert known["enroll_run_exit_code", ""] == 1
    assert known["enroll_run_rows", "enrolled"] == 2
    assert known["enroll_run_rows", "failed"] == known["enroll_run_new_bad", ""] == 1
    assert known["enroll_run_rows", "in_doubt"] == 0
    assert known["enroll_run_calls", "add"] == 2
    for name in ("service_seconds_median", "service_seconds_p95"):
        assert known[f"enroll_run_{name}", ""] < known["enroll_run_call_seconds_p95", ""] * 1.1
    assert known["enroll_run_call_seconds_median", ""] > 0
    started, ended = (known[f"enroll_run_{at}_timestamp_seconds", ""] for at in ("start", "end"))
    assert known["enroll_run_duration_seconds", ""] == pytest.approx(ended - started, abs=0.01)
    assert not list(archive.folder.glob(".run.prom*"))


def test_without_its_package_metrics_are_refused_before_anything_is_done(
    box: Sandbox, archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    archive.manifest(archive.portraits(1))
    done = command(*RUN, "--metrics-file", "run.prom")
    assert (done.code, "pip install 'enroll[metrics]'" in done.err) == (ExitCode.USAGE, True)
    assert box.calls == []
    assert command(*RUN).code == 0


def test_figures_that_cannot_be_written_any_more_are_exit_code_7(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.manifest(archive.portraits(1))

    def full(*_: object, **__: object) -> None:
        (archive.folder / "run.json").mkdir()

    monkeypatch.setattr(run_summary, "log_summary", full)
    done = command(*RUN)
    assert done.code == ExitCode.LOCAL
    assert "run.json" in done.err
    assert "1 row enrolled" in done.out


def test_each_of_the_figures_files_is_written_whatever_becomes_of_the_other(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.manifest(archive.portraits(1))
    spoiled = ["run.json"]

    def full(*_: object, **__: object) -> None:
        for name in spoiled:
            (archive.folder / name).unlink(missing_ok=True)
            (archive.folder / name).mkdir()

    monkeypatch.setattr(run_summary, "log_summary", full)
    run = (*RUN, "--metrics-file", "run.prom")
    done = command(*run)
    assert (done.code, "run.json" in done.err) == (ExitCode.LOCAL, True)
    assert metrics(archive)["enroll_run_exit_code", ""] == 0

    spoiled[:] = ["run.prom"]
    (archive.folder / "run.prom").unlink()
    (archive.folder / "run.json").rmdir()
    done = command(*run)
    assert (done.code, "run.prom" in done.err) == (ExitCode.LOCAL, True)
    assert summary(archive)["exit_code"] == 0

    spoiled[:] = ["run.json"]
    (archive.folder / "run.json").unlink()
    done = command(*run)  # run.prom is a folder still: refused before anything
    assert done.code == ExitCode.USAGE
    spoiled[:] = ["run.json", "run.prom"]
    (archive.folder / "run.prom").rmdir()
    done = command(*run)
    assert done.code == ExitCode.LOCAL
    assert ["run.json" in done.err, "run.prom" in done.err] == [True, True]


def test_a_bug_in_one_of_the_figures_files_costs_the_other_nothing(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    archive.manifest(archive.portraits(1))
    monkeypatch.setattr(publishing, "write_summary", broken)
    assert command(*RUN, "--metrics-file", "run.prom").code == ExitCode.BUG
    assert metrics(archive)["enroll_run_exit_code", ""] == 0


def test_the_figures_are_written_when_the_results_cannot_be(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.manifest(archive.portraits(1))

    def full(*_: object, **__: object) -> None:
        raise LocalError("The disk is full.")

    monkeypatch.setattr(run_closing, "write_results", full)
    assert command(*RUN, "--metrics-file", "run.prom").code == ExitCode.LOCAL
    assert metrics(archive)["enroll_run_exit_code", ""] == 7
    assert (summary(archive)["exit_code"], summary(archive)["results"]) == (7, None)


@pytest.mark.parametrize("name", ["l.sqlite", "staff.csv"])
def test_paths_that_are_no_text_are_in_the_figures_as_they_can_be_written(
    archive: Archive, command: Command, name: str
) -> None:
    odd = archive.folder / "f\udcfcr"
    odd.mkdir()
    manifest = archive.manifest(archive.portraits(1))
    if name == "staff.csv":
        manifest = manifest.rename(odd / name)
    run = ("run", manifest, *RUN[2:], "--images", archive.folder, "--log-format", "json")
    done = command.run(*run, "--ledger", odd / "l.sqlite", "--log-file", odd / "log")
    assert done.code == 0, done
    figures = summary(archive)
    assert figures["ledger"] == rf"{archive.folder}/f\xfcr/l.sqlite"
    assert name not in figures["manifest"] or figures["manifest"] == path_text(manifest)
    _, started, *_ = map(json.loads, done.err.splitlines())
    assert started["ledger"] == figures["ledger"]
    assert (odd / "log").read_text(encoding="utf-8") == done.err
    status = json.loads(command("status", "--json", "--ledger", odd / "l.sqlite").out)
    assert status["ledger"] == figures["ledger"]
    with closing(sqlite3.connect(odd / "l.sqlite")) as ledger:
        ((files,),) = ledger.execute("SELECT files FROM run").fetchall()
    assert json.loads(files)["the log file"] == path_text(odd / "log")
    assert status["images"] == str(archive.folder)
    assert command.run(*run[:-4], "--ledger", odd / "l.sqlite").code == 0  # finds the folder again
    forget = command("forget", "--user-id", "person-0001", "--ledger", odd / "l.sqlite", "--yes")
    assert f"{path_text(manifest)} (a manifest" in forget.out


def test_a_refusal_that_names_such_a_path_is_still_a_refusal(
    archive: Archive, command: Command
) -> None:
    odd = archive.folder / "f\udcfcr"
    odd.mkdir()
    archive.manifest(archive.portraits(1)).rename(odd / "staff.csv")
    done = command.run("run", odd / "staff.csv", *RUN[2:], "--metrics-file", "run.prom")
    assert (done.code, r"/f\xfcr is not in UTF-8" in done.err) == (ExitCode.USAGE, True), done
    assert r"/f\xfcr is not in UTF-8" in summary(archive)["message"]
    assert metrics(archive)["enroll_run_exit_code", ""] == 2


def test_a_users_name_that_is_no_text_is_stored_as_it_can_be(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    command.environ["LOGNAME"] = "a\udcfc"
    assert command.run(*RUN).code == 0
    assert json.loads(command("status", "--json").out)["runs"][0]["user"] == r"a\xfc"


def reference(start: str, end: str) -> str:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    _, _, after = page.partition(start)
    text, _, _ = after.partition(end)
    assert text, start
    return text


def test_the_figures_of_the_reference_are_those_of_the_table() -> None:
    lines = reference("### Figures for programs", "The others have these").splitlines()
    cells = [line.split("|")[1] for line in lines if line.startswith("|")]
    documented = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(documented) == sorted(figure.name for figure in FIGURES if figure.in_json)


def test_the_metrics_of_the_reference_are_those_of_the_table() -> None:
    documented = re.findall(r"`enroll_(\w+)`", reference("`--metrics-file FILE` gets", "### "))
    of_figures = [
        f"{'' if figure.of_ledger else 'run_'}{figure.metric or figure.name}"
        for figure in FIGURES
        if figure.help
    ]
    others = [f"last_{what}_timestamp_seconds" for what in ("success", "progress")]
    assert sorted(documented) == sorted([*of_figures, *others, "run_in_progress"])


def test_the_log_fields_of_the_reference_are_those_of_the_table() -> None:
    (row,) = re.findall(r"^\| `run_ended`.*$", reference("### Log lines", "## "), re.MULTILINE)
    documented = re.findall(r"`(\w+)`", row.split("|")[2])
    assert sorted(documented) == sorted(figure.log for figure in OF_RUN if figure.log)


def test_no_name_is_given_to_two_figures() -> None:
    names = [figure.name for figure in FIGURES]
    keys = [figure.log for figure in OF_RUN if figure.log]
    assert (len(names), len(keys)) == (len(set(names)), len(set(keys)))
