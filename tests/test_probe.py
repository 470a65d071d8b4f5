"""`enroll probe`: every fact about the service, and nothing left behind."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from moved_clock import standin
from real_command import SECONDS, Command, account_of

from enroll.cli.rehearsal import nobody, portrait
from enroll.commands.probe import leftovers
from enroll.commands.probe_calls import MOST_CALLS, padded
from enroll.errors import ExitCode
from enroll.model import Library
from enroll.sandbox import Profile, Sandbox, read_profile

pytestmark = pytest.mark.usefixtures("moved_clock")

PROBE = ("probe", "--yes")


def libraries(box: Sandbox) -> list[str]:
    return [library.group_id for library in box.account.libraries()]


def total(box: Sandbox) -> int:
    """The calls of a probe; the stand-in does not count the one that is too large."""
    return sum(box.counts.values()) + 1


def differing(told: dict[str, Any]) -> dict[str, str]:
    return {fact["name"]: fact["observed"] for fact in told["facts"] if fact["outcome"] != "holds"}


@contextmanager
def probed(tmp_path: Path, **behaviour: Any) -> Iterator[tuple[Sandbox, Command]]:
    """A stand-in of its own, and the command of its user."""
    with standin(**behaviour) as box:
        box.create_library("staff")
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        yield box, Command(home=tmp_path / "home", folder=folder, environ=account_of(box))


def test_every_fact_holds_for_the_stand_in_and_nothing_is_left(
    box: Sandbox, command: Command
) -> None:
    done = command(*PROBE, "--json")
    assert done.code == ExitCode.DONE, done
    told = json.loads(done.out)
    assert differing(told) == {}
    assert told["calls"] == total(box) <= MOST_CALLS
    assert len(told["facts"]) > 50
    assert libraries(box) == ["staff"]
    documented = (Path(__file__).parent.parent / "docs" / "probing.md").read_text()
    assert [one["name"] for one in told["facts"] if f"`{one['name']}`" not in documented] == []


def test_the_table_marks_what_differs_and_names_the_library(tmp_path: Path) -> None:
    errors = {"BAD_ARGUMENTS: user_id": (422, "WRONG_ID")}
    with probed(tmp_path, profile=Profile(errors=errors, score_field="score")) as (box, command):
        done = command(*PROBE)
        assert done.code == ExitCode.SOME_ROWS_FAILED, done
        marked = [line.split() for line in done.out.splitlines() if line.startswith("!")]
        assert [(line[1], line[-2:]) for line in marked] == [
            ("user_id_characters", ["422", "WRONG_ID"]),
            ("user_id_too_long", ["422", "WRONG_ID"]),
        ]
        assert "2 differ (!)" in done.out
        assert "was removed" in done.out
        assert libraries(box) == ["staff"]


def test_an_account_that_behaves_otherwise_is_reported_and_replayed(tmp_path: Path) -> None:
    behaviour = Profile(
        errors={
            "AUTHORIZATION_ERROR": (401, "AUTHENTICATION_ERROR"),
            "NOT_EMPTY": (400, "GROUP_NOT_EMPTY"),
            "INVALID_OUTER_ID": (400, "INVALID_GROUP_ID"),
        },
        score_field="likeness",
        self_score=97.5,
        search_lag=1.5,
        max_start=1000,
        max_request_bytes=2_050_000,
        min_side=64,
        max_side=8000,
    )
    with probed(tmp_path, profile=behaviour) as (box, command):
        first = command(*PROBE, "--json", "--profile", "account.json")
        assert first.code == ExitCode.SOME_ROWS_FAILED, first
        told = json.loads(first.out)
        assert total(box) <= MOST_CALLS
        assert libraries(box) == ["staff"]
        written = command.folder / "account.json"
    found = differing(told)
    assert set(found) == {
        *("expired_signature", "wrong_signature", "not_empty", "score_field"),
        *("search_fields", "side_48", "side_4097"),
    }
    assert found["not_empty"] == "400 GROUP_NOT_EMPTY"
    profile = read_profile(written)
    assert (profile.score_field, profile.self_score) == ("likeness", 97.5)
    assert 1.0 <= profile.search_lag <= 5.0
    assert (profile.max_start, profile.min_side) == (1000, 49)
    assert profile.max_side > 4097
    assert profile.errors == {
        "AUTHORIZATION_ERROR": (401, "AUTHENTICATION_ERROR"),
        "INVALID_OUTER_ID": (400, "INVALID_GROUP_ID"),
        "NOT_EMPTY": (400, "GROUP_NOT_EMPTY"),
    }
    with probed(tmp_path, profile=profile) as (_, command):
        again = command(*PROBE, "--json")
    # A face that became visible while the probe waited is in the profile as visible from then on.
    assert differing(json.loads(again.out)) == found


def test_a_burst_beyond_the_accounts_limit_shows_how_calls_are_refused(tmp_path: Path) -> None:
    with probed(tmp_path, parallel=3) as (box, command):
        with command.started(*PROBE, "--json", "--profile", "account.json") as process:
            assert box.wait_count("free", 1)  # refused, as the library is not empty
            box.latency = 0.4
            out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == ExitCode.DONE, (out, err)
        facts = {one["name"]: one["observed"] for one in json.loads(out)["facts"]}
        assert facts["parallel"].endswith("refused: 403 CONCURRENCY_LIMIT_EXCEEDED")
        assert 3 <= (read_profile(command.folder / "account.json").parallel or 0) <= 15
        assert libraries(box) == ["staff"]
        assert total(box) <= MOST_CALLS


def test_a_service_that_finds_no_face_in_drawings_leaves_facts_unchecked(tmp_path: Path) -> None:
    with probed(tmp_path) as (box, command):
        (command.folder / "landscape.jpg").write_bytes(nobody())
        (command.folder / "text.jpg").write_text("no photo")
        done = command(*PROBE, "--portrait", "landscape.jpg", "--json")
        assert done.code == ExitCode.IN_DOUBT, done
        unchecked = differing(json.loads(done.out))
        assert unchecked["faces"] == "no two faces could be added"
        assert (
            "NO_FACE_FOUND: give one of a person with --portrait" in unchecked["user_id_accepted"]
        )
        assert libraries(box) == ["staff"]
        made = total(box)
        wrong = command(*PROBE, "--portrait", "text.jpg")
        assert (wrong.code, total(box)) == (ExitCode.USAGE, made), wrong
        (command.folder / "me.png").write_bytes(portrait(3))
        assert command(*PROBE, "--portrait", "me.png").code == ExitCode.DONE


def test_nothing_happens_without_consent_or_room(box: Sandbox, command: Command) -> None:
    refused = command("probe")
    assert (refused.code, "Agree with --yes" in refused.err) == (ExitCode.USAGE, True), refused
    assert box.counts == {"group_list": 1}
    wrong = command(*PROBE, "--profile", "missing/account.json")
    assert (wrong.code, box.counts) == (ExitCode.USAGE, {"group_list": 1}), wrong
    for number in range(9):
        box.create_library(f"other-{number}")
    full = command(*PROBE)
    assert (full.code, "10 libraries" in full.err) == (ExitCode.USAGE, True), full
    assert box.counts == {"group_list": 2}


def test_an_interrupted_probe_leaves_nothing(tmp_path: Path) -> None:
    with probed(tmp_path, latency=0.1) as (box, command):
        for number, count in ((signal.SIGINT, 1), (signal.SIGTERM, 4)):
            with command.started(*PROBE) as process:
                assert box.wait_count("add", count)
                process.send_signal(number)
                out, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 128 + number, (out, err)
            assert "the probe ended early" in out
            assert libraries(box) == ["staff"]


def test_a_killed_probe_is_cleaned_up_after_by_the_next_which_touches_nothing_else(
    tmp_path: Path,
) -> None:
    with probed(tmp_path, latency=0.1) as (box, command):
        others = ["enroll-probe-mine", "enroll-probe-20200101T000000Z-0123abcd"]
        for name in others:
            box.create_library(name)
        with command.started(*PROBE) as process:
            assert box.wait_count("add", 2)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=SECONDS)
        assert box.wait_idle()
        (left,) = {*libraries(box)} - {"staff", *others}
        assert len(box.faces(left)) > 0
        box.latency = 0.0
        asked = command("probe")
        assert left in asked.err
        assert left in libraries(box)
        done = command(*PROBE, "--json")
        assert json.loads(done.out)["cleaned"] == [left]
        assert libraries(box) == ["staff", *others]


def test_the_library_is_removed_when_the_service_fails_on_the_way(tmp_path: Path) -> None:
    with probed(tmp_path) as (box, command):
        box.script(["refused"] * 40, call="list")
        done = command(*PROBE)
        assert done.code == ExitCode.UNREACHED, done
        assert "was removed." in done.err
        assert libraries(box) == ["staff"]


def test_a_library_that_cannot_be_removed_is_named(tmp_path: Path) -> None:
    with probed(tmp_path) as (box, command):
        box.script([None, *["500"] * 9], call="free")
        done = command(*PROBE)
        assert done.code == ExitCode.SERVICE, done
        (left,) = {*libraries(box)} - {"staff"}
        assert f"`enroll library delete --force --group-id {left}`" in done.out
        assert total(box) <= MOST_CALLS


def test_only_libraries_of_probes_that_are_over_are_left_overs() -> None:
    now = 1_764_000_000.0  # 2025-11-24T16:00:00Z
    made_by = "made by enroll probe 0123456789ab 7"
    recent, old = "enroll-probe-20251124T153000Z", "enroll-probe-20251124T143000Z"
    known = [
        Library(group_id=f"{old}-00000001", group_data=made_by),
        Library(group_id=f"{recent}-00000002", group_data=made_by),
        Library(group_id=f"{old}-00000003", group_data="somebody's"),
        Library(group_id=f"{old}-00000004"),
        Library(group_id="enroll-probe-mine", group_data=made_by),
        Library(group_id="enroll-probe-20259999T143000Z-00000005", group_data=made_by),
        Library(group_id="staff", group_data=made_by),
    ]
    assert leftovers(known, now=now) == ([f"{old}-00000001"], [f"{recent}-00000002"])


def test_a_padded_photo_has_exactly_the_length() -> None:
    one = portrait(0)
    for more in (10, 11, 65_537, 65_538, 65_540, 65_541, 200_000):
        assert len(padded(one, len(one) + more)) == len(one) + more
        assert padded(one, len(one) + more).endswith(one[2:])


def test_a_sandbox_refuses_what_is_no_profile(command: Command) -> None:
    path = command.folder / "account.json"
    for text in (
        "no",
        "[]",
        '{"profile": 2}',
        '{"profile": 1, "parallel": 0}',
        '{"profile": 1, "errors": {"X": 4}}',
        '{"profile": 1, "self_score": "much"}',
    ):
        path.write_text(text)
        done = command("sandbox", "--port", "0", "--profile", "account.json")
        assert (done.code, "not a profile" in done.err) == (ExitCode.USAGE, True), (text, done)
    path.unlink()
    missing = command("sandbox", "--port", "0", "--profile", "account.json")
    assert (missing.code, "cannot be read" in missing.err) == (ExitCode.USAGE, True), missing


def test_the_command_plays_a_profile(tmp_path: Path, command: Command) -> None:
    profile = {
        "profile": 1,
        "score_field": "score",
        "errors": {"NO_FACE_FOUND": {"status": 412, "error": "NOBODY: there"}},
    }
    (command.folder / "account.json").write_text(json.dumps(profile))
    started = command.started("sandbox", "--port", "0", "--profile", "account.json")
    with started as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        exports = dict(line.split()[1].split("=", 1) for line in lines if "export" in line)
        done = replace(command, environ=exports)(*PROBE, "--json")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
    told = json.loads(done.out)
    facts = {one["name"]: one["observed"] for one in told["facts"]}
    assert facts["score_field"] == "score"
    assert facts["no_face"] == "412 NOBODY"
    assert done.code == ExitCode.SOME_ROWS_FAILED


def test_a_service_that_shows_no_new_face_is_waited_for_within_the_calls(tmp_path: Path) -> None:
    with probed(tmp_path, search_lag=1000.0, parallel=30) as (box, command):
        done = command(*PROBE, "--json")
        told = json.loads(done.out)
        assert (done.code, libraries(box)) == (ExitCode.SOME_ROWS_FAILED, ["staff"]), done
        assert told["calls"] == total(box) <= MOST_CALLS
        assert {"visible_in_search", "visible_in_list", "self_score"} <= set(differing(told))
        facts = {one["name"] for one in told["facts"]}
        assert {"parallel", "free_fields"} <= facts, facts
