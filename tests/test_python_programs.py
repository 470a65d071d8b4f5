"""`import enroll` in other programs: threads, processes, notebooks, tasks that are ended, and rare
outcomes of rows."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import pickle
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from archive import Archive, picture, portrait
from moved_clock import MovedClock, standin

import enroll
import enroll.errors
from enroll import Row
from enroll.api import options
from enroll.ledger import ledger_at
from enroll.sandbox import Sandbox
from enroll.sandbox.account import Limits
from enroll.session import library_faces

ROOT = Path(__file__).parents[1]


@pytest.fixture
def archive(tmp_path: Path, faceless_box: Sandbox) -> Archive:
    return Archive.new(tmp_path / "photos", faceless_box)


def reach(archive: Archive, **more: Any) -> dict[str, Any]:
    """How the functions reach the archive's library."""
    return {
        "group_id": archive.group_id,
        "ledger": archive.ledger,
        "endpoint": archive.box.endpoint,
        "credentials": archive.credentials,
        **more,
    }


def crowd(archive: Archive, count: int) -> list[Row]:
    return [Row(f"u{n}", photo=archive.photo(f"{n}.jpg", picture(n))) for n in range(count)]


def enrolled(archive: Archive) -> list[str]:
    return sorted(face.user_id for face in archive.box.faces(archive.group_id))


def test_every_error_comes_through_a_pipe_between_processes() -> None:
    kinds = [
        one
        for one in vars(enroll.errors).values()
        if inspect.isclass(one) and issubclass(one, enroll.EnrollError)
    ]
    assert len(kinds) > 8
    errors = [kind("One thing.", "Another.") for kind in kinds if kind is not enroll.GuardError]
    errors += [
        enroll.GuardError(["Too much.", "u1"], counts={"leaving": 7}, masked=["Too much."]),
        enroll.NotDoneError("Two rows.", enroll.ExitCode.SOME_ROWS_FAILED),
    ]
    for error in errors:
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), back.exit_code) == (type(error), str(error), error.exit_code)
        assert vars(back) == vars(error)


def test_rows_and_settings_come_through_it_too(examples: Path) -> None:
    settings = enroll.Settings.from_toml("enroll.toml")
    report = enroll.run("manifests/people.csv", settings=pickle.loads(pickle.dumps(settings)))
    rows = list(report.rows())
    assert pickle.loads(pickle.dumps(rows)) == rows


PROGRAM = """
import io, json, logging, os, signal, sys, threading, warnings
import enroll
from PIL import Image

def left():
    files = {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
             if os.path.exists(f"/proc/self/fd/{name}")}
    return [sorted(files.values()), sorted(os.sched_getaffinity(0)), logging.getLogger().handlers,
            str(signal.getsignal(signal.SIGINT)), str(warnings.filters)]

broken = io.BytesIO()
Image.effect_noise((90, 90), 60).save(broken, "TIFF", compression="tiff_lzw")
content = bytearray(broken.getvalue())
content[300:900] = bytes(range(200, 250)) * 12  # about which libtiff would print
with open("1.tif", "wb") as file:
    file.write(content)
rows = [enroll.Row("u1", photo="1.tif"), enroll.Row("u2", photo="2.jpg")]
endpoint, key, secret = sys.argv[1:]
import pandas, requests  # which add filters of warnings
enroll.run, enroll.audit  # are loaded now
before, seen = left(), []

def work():
    reach = {"group_id": "photos", "ledger": "l.sqlite", "endpoint": endpoint,
             "credentials": enroll.Credentials(key, secret)}
    report = enroll.run(rows, **reach)
    seen.append([row.error for row in report.rows()])
    for outcome in (enroll.verify(**reach), enroll.audit(**reach), enroll.who("2.jpg", **reach),
                    enroll.adopt(rows, dry_run=True, **reach), enroll.remove(["u2"], **reach)):
        seen.append(int(outcome.exit_code))

worker = threading.Thread(target=work)  # where Python takes no signals
worker.start()
worker.join()
from enroll.photos.bounds import DECODERS
DECODERS._pool.shutdown()  # idle threads, one a core, stay for the photos of the next call
for one in threading.enumerate():
    if one is not threading.main_thread():
        one.join(30)  # the last call's threads are not waited for, as its calls may take long
threads = [one.name for one in threading.enumerate()]
after = left()
with open("found.json", "w") as file:
    json.dump([before, after, threads, os.listdir("."), seen], file, default=str)
"""


def test_a_call_prints_nothing_and_leaves_nothing_behind_in_its_process(archive: Archive) -> None:
    archive.photo("2.jpg", picture(2))
    box = archive.box
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, box.endpoint, box.api_key, box.api_secret],
        cwd=archive.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("", "")
    before, after, threads, files, seen = json.loads((archive.folder / "found.json").read_text())
    assert after == before
    assert threads == ["MainThread"]
    assert set(files) <= {"1.tif", "2.jpg", "l.sqlite", "l.sqlite.lock", "found.json"}
    assert seen == [["PHOTO_DAMAGED", ""], 0, 0, 0, 0, 0]


def test_two_ledgers_are_filled_at_once_from_an_event_loop(archive: Archive) -> None:
    """Each with settings of its own, such as its memory."""
    other = Archive.new(archive.folder.parent / "others", archive.box)
    rows, meet = crowd(archive, 12), threading.Barrier(2, timeout=60)

    def fill(one: Archive, memory: str) -> enroll.RunReport:
        met: list[str] = []

        def first(entry: enroll.Entry) -> None:
            met.append(entry.user_id)
            if len(met) == 1:
                meet.wait()  # both are under way

        return enroll.run(rows, on_row=first, memory=memory, **reach(one))

    async def both() -> tuple[enroll.RunReport, enroll.RunReport]:
        return await asyncio.gather(
            asyncio.to_thread(fill, archive, "500MB"), asyncio.to_thread(fill, other, "800MB")
        )

    for report, one in zip(asyncio.run(both()), (archive, other), strict=True):
        report.raise_for_status()
        assert enrolled(one) == sorted(row.user_id for row in rows)
        assert report.ledger == one.ledger
        assert {row.run for row in report.rows()} == {1}


def test_the_stop_button_of_a_notebook_ends_a_call_and_the_same_call_continues(
    archive: Archive,
) -> None:
    def stop(*seen: object) -> None:
        signal.raise_signal(signal.SIGINT)

    report = enroll.run(crowd(archive, 20), on_row=stop, max_in_flight=1, **reach(archive))
    assert report.exit_code is enroll.ExitCode.INTERRUPTED
    assert 0 < len(enrolled(archive)) < 20
    enroll.run(crowd(archive, 20), **reach(archive)).raise_for_status()
    with pytest.raises(KeyboardInterrupt):
        enroll.audit(on_progress=stop, max_in_flight=1, **reach(archive))
    left = enroll.audit(**reach(archive)).result.chosen
    assert 0 < left < 20
    with enroll.open_ledger(archive.ledger) as ledger:
        codes = [run.end.exit_code for run in ledger.runs() if run.end is not None]
    assert codes == [0, 130, 0, 130]
    assert len(enrolled(archive)) == 20


def test_the_other_commands_show_progress_and_can_be_cancelled(archive: Archive) -> None:
    steps: list[enroll.Step] = []
    wanted = reach(archive, max_in_flight=1)
    enroll.run(crowd(archive, 6), **wanted).raise_for_status()
    enroll.verify(on_progress=steps.append, **wanted)
    enroll.audit(on_progress=steps.append, sample=1, **wanted)
    other = {**wanted, "ledger": archive.folder / "other.sqlite"}
    enroll.adopt(crowd(archive, 6), on_progress=steps.append, score=90.0, **other)
    enroll.remove(["u5"], on_progress=steps.append, **wanted)
    enroll.forget(["u4"], on_progress=steps.append, **wanted)
    assert {(step.what, step.of) for step in steps} == {
        ("faces listed", None),
        ("faces searched for", 1),
        ("rows searched for", 6),
        ("faces deleted", 1),
        ("faces deleted", None),
    }
    assert enrolled(archive) == ["u0", "u1", "u2", "u3"]

    cancel = threading.Event()
    with pytest.raises(enroll.NotDoneError, match="Cancelled") as caught:
        enroll.audit(on_progress=lambda step: cancel.set(), cancel=cancel, **wanted)
    assert caught.value.exit_code is enroll.ExitCode.INTERRUPTED
    deleted = archive.box.count("delete")
    for act in (enroll.verify, enroll.audit):
        with pytest.raises(enroll.NotDoneError):
            act(cancel=cancel, **wanted)
    for change in (enroll.remove, enroll.forget):
        with pytest.raises(enroll.NotDoneError):
            change(["u0"], cancel=cancel, **wanted)
    with pytest.raises(enroll.NotDoneError):
        enroll.adopt(crowd(archive, 6), cancel=cancel, **other)
    assert archive.box.count("delete") == deleted

    def broken(step: enroll.Step) -> None:
        raise ZeroDivisionError(step.what)

    with pytest.raises(ZeroDivisionError, match="faces searched for"):
        enroll.audit(on_progress=broken, **wanted)
    with enroll.open_ledger(archive.ledger) as ledger:
        assert [one.end and one.end.exit_code for one in ledger.runs(1)] == [130]
    assert enroll.audit(**wanted).result.not_audited == 0


def test_a_dry_run_says_what_it_would_do_and_does_not_even_finish_earlier_deletions(
    archive: Archive,
) -> None:
    enroll.run(crowd(archive, 4), **reach(archive)).raise_for_status()
    archive.box.script(["500"] * 9, call="delete")
    assert enroll.remove(["u0"], **reach(archive)).exit_code is enroll.ExitCode.IN_DOUBT
    archive.box.script([], call="delete")
    deleted = archive.box.count("delete")
    tried = enroll.remove(["u1"], dry_run=True, **reach(archive))
    assert (tried.exit_code, tried.result.chosen.faces, tried.result.unknown) == (0, 1, 1)
    assert "Not asked in a dry run: Delete 1 face of 1 person from the library" in tried.text
    tried_too = enroll.forget(["u1", "u2"], dry_run=True, **reach(archive))
    assert (tried_too.exit_code, tried_too.to_dict()["people"]) == (0, 2)
    assert (tried_too.result.people, tried_too.result.chosen) == (["u1", "u2"], 2)
    assert archive.box.count("delete") == deleted
    assert enrolled(archive) == ["u0", "u1", "u2", "u3"]
    with enroll.open_ledger(archive.ledger) as ledger:
        assert [run.end.exit_code for run in ledger.runs(2) if run.end] == [0, 0]


def test_people_that_are_none_are_refused_before_anything_is_deleted(archive: Archive) -> None:
    enroll.run(crowd(archive, 2), **reach(archive)).raise_for_status()
    for people, said in (
        ([], "user_ids is empty"),
        (["u1", None], "user_ids has None, a NoneType"),
        (["u1", float("nan")], "user_ids has nan, a float"),
        (["u1", " "], "user_ids has ' '"),
        ("u1", "There is no file u1"),
    ):
        for act in (enroll.remove, enroll.forget):
            with pytest.raises(enroll.UsageError, match=said):
                act(people, **reach(archive))  # type: ignore[arg-type]
    assert enrolled(archive) == ["u0", "u1"]
    assert enroll.remove(pd.Series(["u1"]), **reach(archive)).to_dict()["gone"] == 1


def test_a_dry_run_of_verify_looks_faces_up_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_faces, "LIST_PAGE", 1)
    with standin(detect=False, limits=Limits(max_start=1)) as box:
        archive = Archive.new(tmp_path / "photos", box)
        enroll.run(crowd(archive, 3), **reach(archive)).raise_for_status()
        archive.delete(archive.face("u2").face_token or "")
        listed = enroll.verify(**reach(archive)).result.unchecked
        found = enroll.verify(deep=True, requeue_missing=True, dry_run=True, **reach(archive))
    assert (listed, found.result.unchecked) == (2, 0)
    assert found.to_dict()["differences"]["missing"] == 1
    assert "Not asked in a dry run: Make 1 face due again" in found.text
    with enroll.open_ledger(archive.ledger) as ledger:
        assert len(list(ledger.entries([enroll.Status.ENROLLED]))) == 3


def test_a_face_in_doubt_is_shown_among_the_rows_and_settled_by_hand(archive: Archive) -> None:
    cancel = threading.Event()
    archive.box.script(["timeout-after"], user_id="u1")

    def end(progress: enroll.Progress) -> None:
        if archive.box.count("add") == 2:
            cancel.set()

    report = enroll.run(
        crowd(archive, 2), on_progress=end, cancel=cancel, drain=0.1, timeout=5, **reach(archive)
    )
    assert report.exit_code is enroll.ExitCode.INTERRUPTED
    _, doubt = report.rows()
    assert (doubt.status, doubt.face_token) == (enroll.Status.IN_DOUBT, "")
    assert doubt.error
    assert doubt.message
    archive.box.wait_count("add", 2)
    token = next(face.face_token for face in archive.box.faces("photos") if face.user_id == "u1")
    with pytest.raises(enroll.UsageError, match="Give one of token and not_added"):
        enroll.resolve("u1", **reach(archive))
    with pytest.raises(enroll.UsageError, match="holds 1 face of this person"):
        enroll.resolve("u1", not_added=True, dry_run=True, **reach(archive))
    tried = enroll.resolve("u1", token=token, dry_run=True, **reach(archive))
    assert tried.text.startswith("Would be recorded as enrolled, with the token")
    with enroll.open_ledger(archive.ledger) as ledger:
        assert [entry.user_id for entry in ledger.entries([enroll.Status.IN_DOUBT])] == ["u1"]
    resolved = enroll.resolve("u1", token=token, **reach(archive))
    assert resolved.to_dict()["added"] is True
    again = enroll.run(crowd(archive, 2), **reach(archive))
    again.raise_for_status()
    assert [row.face_token for row in again.rows()][1] == token
    assert archive.box.count("add") == 2


def test_held_and_withheld_rows_say_why_and_a_photo_says_who_it_shows(
    tmp_path: Path, box: Sandbox
) -> None:
    archive = Archive.new(tmp_path / "photos", box)
    rows = [Row("a", "Ann", portrait(1)), Row("b", "Bo", portrait(2))]
    enroll.run(rows, **reach(archive)).raise_for_status()
    enroll.forget(["b"], **reach(archive)).raise_for_status()
    rows = [*rows, Row("twin", photo=portrait(1))]
    report = enroll.run(rows, lookalikes="hold", **reach(archive))
    table = pd.DataFrame(list(report.rows()))
    assert list(table["status"]) == ["enrolled", "withheld", "held"]
    assert list(table["error"]) == ["", "FORGOTTEN", "LOOKALIKE"]
    assert all(table["message"][1:])
    with pytest.raises(enroll.NotDoneError, match=r"1 rows? (is|are) not enrolled \(1 LOOKALIKE"):
        report.raise_for_status()

    (archive.folder / "ann.jpg").write_bytes(portrait(1))
    for photo in (portrait(1), str(archive.folder / "ann.jpg")):
        found = enroll.who(photo, limit=1, **reach(archive))
        found.raise_for_status()
        faces = pd.DataFrame(found.result)
        assert list(faces[["user_id", "user_data", "status"]].iloc[0]) == ["a", "Ann", "enrolled"]
        assert faces["score"][0] > 90
        assert faces["added"][0].endswith("Z")
        assert found.to_dict().keys() == {
            *("command", "exit_code", "reason", "faces", "best_score")
        }
    stranger = enroll.who(portrait(3), **{**reach(archive), "ledger": None})
    with pytest.raises(enroll.NotDoneError):
        stranger.raise_for_status()
    with pytest.raises(enroll.UsageError, match="not an image"):
        enroll.who(b"none", **reach(archive))


def test_help_names_every_option_of_a_function() -> None:
    for function, known in {
        enroll.run: options.RunOptions,
        enroll.plan: options.PlanOptions,
        enroll.adopt: options.AdoptOptions,
        enroll.audit: options.AuditOptions,
        enroll.verify: options.LedgerOptions,
        enroll.who: options.WhoOptions,
    }.items():
        written = inspect.getdoc(function) or ""
        missing = [name for name in known.__annotations__ if f"`{name}`" not in written]
        assert missing == [], function
    differing = options.SyncOptions.__annotations__.keys() ^ options.RunOptions.__annotations__
    assert all(f"`{name}`" in (inspect.getdoc(enroll.sync) or "") for name in differing)


@pytest.fixture
def examples(tmp_path: Path, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which those of docs/examples run, with the environment that they expect."""
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    (tmp_path / "enroll.toml").write_text(
        f'group_id = "staff"\nendpoint = "{box.endpoint}"\nledger = "staff.sqlite"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENROLL_API_KEY", box.api_key)
    monkeypatch.setenv("ENROLL_API_SECRET", box.api_secret)
    return tmp_path


def test_the_example_for_airflow_runs_with_stubs_of_its_decorators(
    examples: Path, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow itself is too heavy to install for a test: with these stubs a task runs when it is
    called, and what it returns goes through JSON, as it does as an XCom."""

    class AirflowFailException(Exception):  # noqa: N818  # its name there
        pass

    came_of: list[Any] = []

    def task(function: Any = None, **options: Any) -> Any:
        def ran(*given: Any) -> Any:
            came_of.append(json.loads(json.dumps(function(*given))))
            return came_of[-1]

        return ran if function is not None else task

    airflow: dict[str, Any] = {
        "decorators": {"dag": lambda **options: lambda function: function, "task": task}
    }
    airflow |= {"exceptions": {"AirflowFailException": AirflowFailException}}
    monkeypatch.setitem(sys.modules, "airflow", ModuleType("airflow"))
    for name, content in airflow.items():
        module = ModuleType(f"airflow.{name}")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, f"airflow.{name}", module)
    dag = str(ROOT / "docs/examples/enroll_dag.py")

    runpy.run_path(dag)
    figures, joined = came_of
    assert (figures["exit_code"], joined) == (0, 5)
    assert not any(face.user_id in json.dumps(figures) for face in box.faces("staff"))
    runpy.run_path(dag)  # the next night
    assert came_of[-1] == 0
    with ledger_at(examples / "staff.sqlite").hold(), pytest.raises(enroll.LedgerBusyError):
        runpy.run_path(dag)  # Airflow tries again
    (examples / "manifests/people.csv").write_text("user_id,image\n")
    with pytest.raises(AirflowFailException, match="no rows"):
        runpy.run_path(dag)
    assert len(box.faces("staff")) == 5


def test_the_example_of_a_notebook_runs_cell_by_cell(examples: Path, box: Sandbox) -> None:
    notebook = json.loads((ROOT / "docs/examples/enroll.ipynb").read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names: dict[str, Any] = {}
    shown = []
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == []
        if cell["cell_type"] == "code":
            *lines, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(lines, []), "cell", "exec"), names)
            assert isinstance(last, ast.Expr)
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
    people, plan, report, failed, calls, faces, found = shown
    assert (len(people), plan.result.due, report.exit_code) == (5, 4, 1)
    assert list(failed["user_id"]) == ["10003"]
    assert list(failed["error"]) == ["PHOTO_MISSING"]
    assert (calls, len(faces), found["user_id"][0]) == (1, 5, "10003")
    assert len(box.faces("staff")) == 5


def test_the_example_of_a_web_handler_answers_several_requests_at_once(
    examples: Path, box: Sandbox
) -> None:
    handler = runpy.run_path(str(ROOT / "docs/examples/web_handler.py"))
    add, recognise = handler["enroll_person"], handler["recognise"]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: add(f"u{n % 3}", "", portrait(n % 3)), range(6)))
    assert {code for code, _ in answers} == {200}
    assert sorted(face.user_id for face in box.faces("staff")) == ["u0", "u1", "u2"]
    code, said = add("u9", "", b"none")
    assert (code, said["error"]) == (422, "PHOTO_NOT_AN_IMAGE")
    assert recognise(portrait(1))[0][0] == "u1"
    assert recognise(portrait(7)) == []
    with ledger_at(examples / "staff.sqlite").hold():
        assert add("u4", "", portrait(4)) == (503, {"error": "BUSY"})


def test_the_example_of_a_web_handler_finds_out_what_lost_answers_meant(
    examples: Path, box: Sandbox, moved_clock: MovedClock
) -> None:
    add = runpy.run_path(str(ROOT / "docs/examples/web_handler.py"))["enroll_person"]
    assert add("u0", "", portrait(0))[0] == 200
    box.script(["reset-after"], call="add")
    assert add("u1", "", portrait(1))[0] == 200
    box.script(["reset"] * 5, call="add")  # all attempts of a row
    assert add("u2", "", portrait(2)) == (503, {"error": "FAILED"})
    assert add("u2", "", portrait(2))[0] == 200
    assert sorted(face.user_id for face in box.faces("staff")) == ["u0", "u1", "u2"]
