"""What `import enroll` offers: names that stay, rows in memory, reports, callbacks, cancelling."""

from __future__ import annotations

import inspect
import json
import logging
import pkgutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
from archive import Archive, picture
from real_command import Command

import enroll
from enroll import Row
from enroll.api import options
from enroll.cli import cli
from enroll.sandbox import Sandbox
from enroll.settings import RunSettings, SyncSettings

PUBLIC = {
    "Credentials": "(api_key, api_secret, origin)",
    "EnrollError": "(sentence, *further)",
    "Entry": "(*, user_id, user_data, image, status, face_token, error, message, attempts, "
    "request_id, sha256, prepared, enrolled_at, run, time_used)",
    "ExitCode": "BUG DONE ENDED_EARLY GUARD HANGUP INTERRUPTED IN_DOUBT LEDGER_BUSY LOCAL SERVICE "
    "SOME_ROWS_FAILED TERMINATED UNREACHED USAGE",
    "GuardError": "(lines, *, counts, masked)",
    "LedgerBusyError": "(sentence, *further)",
    "NotDoneError": "(sentence, exit_code)",
    "Outcome": ".exit_code .figures .raise_for_status .result .stop .text .to_dict",
    "Progress": "(*, done, due, compared, enrolled, bad, seconds)",
    "Resemblance": "(*, user_id, user_data, score, added, face_token, status, image)",
    "Row": "(user_id, user_data, photo)",
    "RunReport": ".dry_run .exit_code .ledger .raise_for_status .results .rows .run .stop .text "
    ".to_dict",
    "ServiceError": "(sentence, *further)",
    "Settings": "(values, file)",
    "Status": "ENROLLED FAILED HELD INVALID IN_DOUBT PENDING REJECTED REMOVED SENDING SUPERSEDED "
    "WITHHELD",
    "Step": "(*, done, of, what, seconds)",
    "UsageError": "(sentence, *further)",
    "__version__": "",
    "accept": "(people, *, settings, **LedgerOptions)",
    "adopt": "(rows, *, group_id, ledger, score, report, dry_run, on_progress, cancel, "
    "credentials, settings, **AdoptOptions)",
    "audit": "(*, user_ids, run, again, sample, findings, show_user_ids, on_progress, cancel, "
    "credentials, settings, **AuditOptions)",
    "forget": "(user_ids, *, dry_run, show_user_ids, on_progress, cancel, credentials, settings, "
    "**LedgerOptions)",
    "open_ledger": "(ledger)",
    "plan": "(rows, *, group_id, ledger, settings, full, report, orphans, duplicates, "
    "**PlanOptions)",
    "readmit": "(user_ids, *, show_user_ids, settings, **LedgerOptions)",
    "remove": "(user_ids, *, run, superseded, list_file, dry_run, show_user_ids, on_progress, "
    "cancel, credentials, settings, **LedgerOptions)",
    "resolve": "(user_id, *, token, not_added, sha256, offline, dry_run, credentials, settings, "
    "**LedgerOptions)",
    "run": "(rows, *, group_id, ledger, credentials, settings, dry_run, on_progress, on_row, "
    "cancel, show_user_ids, **RunOptions)",
    "sync": "(rows, *, group_id, ledger, credentials, settings, dry_run, on_progress, on_row, "
    "cancel, show_user_ids, **SyncOptions)",
    "verify": "(*, deep, remove_surplus, requeue_missing, differences, dry_run, on_progress, "
    "cancel, credentials, settings, **LedgerOptions)",
    "who": "(photo, *, credentials, settings, **WhoOptions)",
}
"""Every public name, and what a caller may rely on. A name or an argument may be added; taking one
away, or renaming it, breaks programs."""

OPTIONS = {
    "LibraryOptions": "allow_http ca_bundle endpoint group_id ledger timeout",
    "LedgerOptions": "LibraryOptions max_in_flight",
    "WhoOptions": "LibraryOptions limit max_side multi_oriented_detection",
    "AuditOptions": "LedgerOptions max_calls rate score seed unlike",
    "PhotoOptions": "accept_truncated checksum columns convert delimiter encoding endpoint "
    "header_row id_from images lookalikes max_bytes max_in_flight max_pixels max_side memory "
    "min_face multi_oriented_detection photo precheck rate readers retry send_as sheet",
    "PlanOptions": "PhotoOptions sample seed",
    "CallOptions": "PhotoOptions allow_http allow_nonempty attempts ca_bundle create_library "
    "credentials_grace drain engine fail_on give_up_after max_calls max_duration on_code results "
    "scheduler settle_after timeout",
    "RunOptions": "CallOptions limit sample seed",
    "SyncOptions": "CallOptions differences grace max_changes max_missing max_removals",
    "AdoptOptions": "allow_http ca_bundle columns delimiter encoding endpoint header_row id_from "
    "images max_in_flight memory multi_oriented_detection photo send_as sheet timeout",
}


def shape(name: str) -> str:
    value = getattr(enroll, name)
    if isinstance(value, str):
        return ""
    if name in ("Status", "ExitCode"):
        return " ".join(sorted(value.__members__))
    if name in ("Outcome", "RunReport"):
        return " ".join(f".{one}" for one in sorted(dir(value)) if not one.startswith("_"))
    words, star = [], False
    for one in inspect.signature(value).parameters.values():
        if one.kind is one.KEYWORD_ONLY and not star:
            words.append("*")
            star = True
        kind = str(one.annotation).removeprefix("Unpack[").removesuffix("]")
        stars: dict[object, str] = {
            one.VAR_KEYWORD: f"**{kind}",
            one.VAR_POSITIONAL: f"*{one.name}",
        }
        words.append(stars.get(one.kind) or one.name)
    return f"({', '.join(words)})"


def test_the_public_names_and_what_they_take_stay() -> None:
    assert {name: shape(name) for name in enroll.__all__} == PUBLIC
    assert all(inspect.getdoc(getattr(enroll, name)) for name in PUBLIC)
    for name, words in OPTIONS.items():
        first, *own = words.split()
        known = getattr(options, name).__annotations__
        base = getattr(options, first).__annotations__ if first in OPTIONS else {first: None}
        assert set(known) == {*base, *own}, name


def test_every_option_is_one_of_its_command() -> None:
    kinds = {"RunOptions": "run", "SyncOptions": "sync", "PlanOptions": "plan"}
    kinds |= {"AdoptOptions": "adopt", "AuditOptions": "audit", "LedgerOptions": "verify"}
    kinds |= {"WhoOptions": "who"}
    for name, command in kinds.items():
        found = cli.get_command(click.Context(cli), command)
        assert found is not None
        known = {one.name for one in found.params}
        assert set(getattr(options, name).__annotations__) <= known, name
    # And every setting of a run can be given, in the signature or as an option.
    named = set(inspect.signature(enroll.run).parameters) | options.OURS
    assert options.names_of(RunSettings) - named == set(options.RunOptions.__annotations__)
    of_sync = options.names_of(SyncSettings) - named - {"limit", "sample", "seed"}
    assert of_sync == set(options.SyncOptions.__annotations__)


def test_no_module_has_the_name_of_a_public_one() -> None:
    """Importing it would put the module in the place of, say, the function `enroll.run`."""
    modules = {one.name for one in pkgutil.iter_modules(enroll.__path__)}
    assert "runner" in modules
    assert not modules & set(enroll.__all__)


@pytest.fixture
def archive(tmp_path: Path, faceless_box: Sandbox) -> Archive:
    return Archive.new(tmp_path / "photos", faceless_box)


def given(archive: Archive, **more: Any) -> dict[str, Any]:
    """How the functions reach the archive's library, with text for paths."""
    return {
        "group_id": archive.group_id,
        "ledger": str(archive.ledger),
        "endpoint": archive.box.endpoint,
        "credentials": archive.credentials,
        **more,
    }


def enrolled(archive: Archive) -> list[str]:
    return sorted(face.user_id for face in archive.box.faces(archive.group_id))


def adds(archive: Archive) -> int:
    return archive.box.count("add")


def test_rows_with_paths_then_the_same_as_bytes_add_nobody_twice(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.crowd(3)
    monkeypatch.chdir(archive.folder)
    rows = [
        Row("u0", "Ann", "0.jpg"),
        Row("u1", "Bo, “B”\nB.", archive.folder / "1.jpg"),
        Row("u2", photo=None),
    ]
    report = enroll.run(iter(rows), **given(archive))
    assert report.exit_code is enroll.ExitCode.SOME_ROWS_FAILED
    first = list(report.rows())
    assert [(row.user_id, row.user_data, row.status.value) for row in first] == [
        ("u0", "Ann", "enrolled"),
        ("u1", "Bo, “B”\nB.", "enrolled"),
        ("u2", "", "invalid"),
    ]
    assert [row.image for row in first[:2]] == [str(archive.folder / f"{n}.jpg") for n in (0, 1)]
    with pytest.raises(enroll.NotDoneError, match=r"1 rows? (is|are) not enrolled") as caught:
        report.raise_for_status()
    assert caught.value.exit_code == 1

    again = enroll.run(rows, **given(archive))
    assert "no photo was read" in str(again)
    frame = pd.DataFrame(
        {
            "user_id": ["u0", "u1"],
            "user_data": ["Ann", "Bo, “B”\nB."],
            "image": [(archive.folder / f"{n}.jpg").read_bytes() for n in (0, 1)],
        }
    )
    assert enroll.run(frame, **given(archive)).exit_code == 0
    third = enroll.run(frame, **given(archive))
    third.raise_for_status()
    assert "no photo was read" in third.text
    assert [row.face_token for row in third.rows()] == [row.face_token for row in first[:2]]
    assert enrolled(archive) == ["u0", "u1"]
    assert third.to_dict()["calls"]["add"] == 0
    # Nothing of the rows stays, and the ledger does not take / for where relative paths start.
    assert not list(archive.folder.glob("*.rows.csv"))
    with enroll.open_ledger(str(archive.ledger)) as ledger:
        assert ledger.named_photo_root in (None, "")


def test_the_report_of_a_manifest_has_its_rows_and_the_figures_of_the_summary(
    archive: Archive, command: Command
) -> None:
    archive.crowd(2)
    seen: list[enroll.Entry] = []
    steps: list[enroll.Progress] = []
    report = enroll.run(
        str(archive.folder / "staff.csv"),
        on_row=seen.append,
        on_progress=steps.append,
        **given(archive),
    )
    report.raise_for_status()
    assert sorted(row.image for row in seen) == ["0.jpg", "1.jpg"]
    assert {row.status for row in seen} == {enroll.Status.ENROLLED}
    assert (steps[-1].done, steps[-1].due, steps[-1].enrolled) == (2, 2, 2)
    assert report.results == archive.folder / "staff.results.csv"
    assert [row.face_token for row in report.rows()] == [
        line.split(",")[4] for line in report.results.read_text().splitlines()[1:]
    ]
    done = command("run", "staff.csv", *archive.arguments[2:6], "--summary", "s.json")
    assert done.code == 0, done.err
    summary = json.loads((archive.folder / "s.json").read_text())
    assert report.to_dict().keys() == summary.keys()
    (archive.folder / "staff.csv").write_text("user_id,image\nother,0.jpg\n")
    with pytest.raises(enroll.EnrollError, match="was changed after the run"):
        list(report.rows())


@pytest.fixture
def command(archive: Archive) -> Command:
    return archive.command


def test_a_sync_from_memory_adds_replaces_and_removes_and_can_be_tried(archive: Archive) -> None:
    rows = [Row(f"u{n}", photo=picture(n)) for n in range(4)]
    enroll.run(rows, **given(archive)).raise_for_status()
    rows = [Row("u0", photo=picture(9)), *rows[1:3]]
    tried = enroll.sync(rows, dry_run=True, grace=0, **given(archive))
    assert (tried.dry_run, tried.to_dict()["sync"]["leaving"]) == (True, 1)
    assert "1  leavers to be removed now" in str(tried)
    assert [row.status.value for row in tried.rows()][1:] == ["enrolled", "enrolled"]
    assert enrolled(archive) == ["u0", "u1", "u2", "u3"]
    with pytest.raises(enroll.GuardError):
        enroll.sync(rows, grace=0, max_removals=0, **given(archive))
    done = enroll.sync(rows, grace=0, max_removals="50%", **given(archive))
    done.raise_for_status()
    assert enrolled(archive) == ["u0", "u1", "u2"]
    assert done.to_dict()["sync"]["replaced_faces"] == 1


def test_plan_and_a_dry_run_send_nothing(archive: Archive) -> None:
    rows = [Row("u0", photo=picture(0)), Row("u1", photo=b"no photo")]
    planned = enroll.plan(rows, group_id=archive.group_id, ledger=str(archive.ledger))
    assert (planned.result.due, planned.to_dict()["not_sent"]) == (1, 1)
    tried = enroll.run(rows, dry_run=True, **given(archive))
    assert str(tried) == str(planned)
    assert str(planned).startswith("Planned from rows in memory, 2 rows. No calls were made.")
    assert [row.status.value for row in tried.rows()] == ["pending", "pending"]
    # A cell of an ordinary manifest holds no photo of more than 6 MB.
    rows = [Row("u1", photo=bytes(6_300_000))]
    assert enroll.plan(rows).to_dict()["errors"] == {"PHOTO_NOT_AN_IMAGE": 1}
    assert (enrolled(archive), archive.ledger.exists()) == ([], False)


def test_rows_that_are_none_are_refused_before_anything_is_sent(archive: Archive) -> None:
    frame = pd.DataFrame({"user_id": [7.0], "image": ["0.jpg"]})
    for rows, said in (
        ([("u0", "", "0.jpg")], "of the class enroll.Row, and one is of the class tuple"),
        ([Row("u0", photo="0.jpg"), Row("u1", photo=b"x")], "photo of row 2 is bytes, and"),
        ([Row("u0", photo=3)], "photo of row 1 is a int"),  # type: ignore[arg-type]
        ([Row("u0\0", photo="0.jpg")], "row 1 is not UTF-8, or has a NUL"),
        ([Row("u0", photo="\udcff.jpg")], "row 1 is not UTF-8, or has a NUL"),
        ([Row("u0", photo=bytes((64 << 20) + 1))], "row 1 has 67,108,865 bytes"),
        (7, "A int is neither the path"),
        (frame, "Row 1 has 7.0, a float, where text belongs"),
        (frame.rename(columns={"image": "path"}), "no column image; it has user_id, path"),
    ):
        with pytest.raises(enroll.EnrollError, match=said):
            enroll.run(rows, **given(archive))  # type: ignore[arg-type]
    with pytest.raises(enroll.EnrollError, match=r"Settings.from_toml\(\)"):
        enroll.run([], settings="enroll.toml", **given(archive))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'limits'"):
        enroll.run([], limits=1, **given(archive))  # type: ignore[call-arg]
    with pytest.raises(enroll.EnrollError, match="group_id is needed"):
        enroll.run([Row("u0", photo="0.jpg")])
    assert list(archive.folder.iterdir()) == []


def test_two_programs_do_not_enroll_rows_into_one_library_at_once(archive: Archive) -> None:
    def rows() -> Iterator[Row]:
        with pytest.raises(enroll.EnrollError, match="Another run enrolls rows") as caught:
            enroll.run([Row("u1", photo=picture(1))], **given(archive))
        assert caught.value.exit_code is enroll.ExitCode.LEDGER_BUSY
        yield Row("u0", photo=picture(0))

    enroll.run(rows(), **given(archive)).raise_for_status()
    assert enrolled(archive) == ["u0"]


def test_a_run_is_cancelled_by_an_event_and_by_what_a_callback_raises(archive: Archive) -> None:
    archive.crowd(30)
    manifest = archive.folder / "staff.csv"
    cancel = threading.Event()
    stopped = enroll.run(
        manifest, on_row=lambda row: cancel.set(), cancel=cancel, max_in_flight=1, **given(archive)
    )
    assert stopped.exit_code is enroll.ExitCode.INTERRUPTED
    with pytest.raises(enroll.NotDoneError, match="Interrupted"):
        stopped.raise_for_status()
    first = len(enrolled(archive))
    assert 0 < first < 30
    with pytest.raises(enroll.NotDoneError, match="before anything was sent"):
        enroll.run(manifest, cancel=cancel, **given(archive))

    def broken(row: enroll.Entry) -> None:
        raise ZeroDivisionError(row.user_id)

    with pytest.raises(ZeroDivisionError):
        enroll.run(manifest, on_row=broken, max_in_flight=1, **given(archive))
    assert first < len(enrolled(archive)) < 30
    enroll.run(manifest, **given(archive)).raise_for_status()
    assert len(set(enrolled(archive))) == len(enrolled(archive)) == 30


def test_progress_is_logged_under_enroll(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="enroll"):
        enroll.run([Row("some-person", photo=b"none")], **given(archive))
    said = [(record.name, record.getMessage()) for record in caplog.records]
    assert ("enroll", "Line 2, so***n: invalid, PHOTO_NOT_AN_IMAGE") in said
    assert any("Run 1: 0 rows enrolled" in message for _, message in said)


def test_settings_come_from_a_file_and_arguments_override_them(archive: Archive) -> None:
    archive.crowd(2)
    secrets = archive.folder / "credentials"
    secrets.write_text(f"api_key = {archive.box.api_key}\napi_secret = {archive.box.api_secret}\n")
    secrets.chmod(0o600)
    file = archive.folder / "my.toml"
    file.write_text(
        f'group-id = "{archive.group_id}"\nendpoint = "{archive.box.endpoint}"\n'
        'ledger = "l.sqlite"\ncredentials = "credentials"\nmemory = "500MB"\nfail_on = "new"\n'
        'rate = "08:00-18:00=50,else=60"\nmax_removals = "7"\nresults = "none"\n'
        "[columns]\nuser_id = 'user_id'\n"
    )
    settings = enroll.Settings.from_toml(str(file))
    report = enroll.run(str(archive.folder / "staff.csv"), settings=settings)
    assert (report.exit_code, report.results) == (0, None)
    assert report.ledger == archive.folder / "l.sqlite"
    with enroll.open_ledger(archive.folder / "l.sqlite") as ledger:
        assert ledger.runs()[0].start.options["rate"] == "08:00-18:00=50,else=60"
    verified = enroll.verify(settings=settings)
    verified.raise_for_status()
    assert "No difference." in str(verified)
    with pytest.raises(enroll.EnrollError, match="Invalid value for '--memory': 1MB is too little"):
        enroll.run(archive.folder / "staff.csv", settings=settings, memory="1MB")
    file.write_text("colour = 1\n")
    with pytest.raises(enroll.EnrollError, match="sets colour, which is not an option"):
        enroll.Settings.from_toml(file)


def test_people_are_removed_forgotten_and_readmitted_and_first_only_tried(
    archive: Archive,
) -> None:
    rows = [Row(f"u{n}", photo=picture(n)) for n in range(3)]
    enroll.run(rows, **given(archive)).raise_for_status()
    tried = enroll.remove(["u0"], dry_run=True, **given(archive))
    assert (tried.exit_code, tried.to_dict()["chosen"]) == (0, 1)
    assert enroll.forget(["u1"], dry_run=True, **given(archive)).exit_code == 0
    assert enrolled(archive) == ["u0", "u1", "u2"]
    assert enroll.remove(["u0"], **given(archive)).to_dict()["gone"] == 1
    assert enroll.forget(["u1"], **given(archive)).result.gone == 1
    assert enrolled(archive) == ["u2"]
    report = enroll.run(rows, **given(archive))
    assert [row.status.value for row in report.rows()] == ["enrolled", "withheld", "enrolled"]
    assert enroll.readmit(["u1"], **without_credentials(given(archive))).result.people == ["u1"]
    enroll.run(rows, **given(archive)).raise_for_status()
    assert enrolled(archive) == ["u0", "u1", "u2"]


def test_a_library_is_audited_and_adopted_into_another_ledger(tmp_path: Path, box: Sandbox) -> None:
    archive = Archive.new(tmp_path / "photos", box)
    rows = [Row(*row) for row in archive.portraits(1, 2)]
    reach = given(archive)
    enroll.run(rows, images=str(archive.folder), **reach).raise_for_status()
    audited = enroll.audit(user_ids=["person-0001"], **reach)
    assert (audited.exit_code, audited.to_dict()["searched"]) == (0, 1)
    assert (
        enroll.accept(["person-0001", "person-0002"], **without_credentials(reach)).exit_code == 0
    )
    other = {**reach, "ledger": str(tmp_path / "other.sqlite")}
    tried = enroll.adopt(rows, images=archive.folder, dry_run=True, **other)
    assert tried.result.to_search == 2
    adopted = enroll.adopt(rows, images=archive.folder, **other)
    adopted.raise_for_status()
    outcomes = adopted.to_dict()["outcomes"]
    assert {name: count for name, count in outcomes.items() if count} == {"adopted": 2}


def without_credentials(reach: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in reach.items() if name != "credentials"}
