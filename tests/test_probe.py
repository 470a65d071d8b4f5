"""`enroll probe`: every fact about the service, and nothing left behind."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from moved_clock import MovedClock, StandingClock, standin
from real_command import SECONDS, Command, account_of

from enroll import clock
from enroll.cli.rehearsal import nobody, portrait
from enroll.commands.probe import ProbeReport, ProbeSettings, leftovers, probe_account
from enroll.commands.probe_calls import MOST_CALLS, padded
from enroll.commands.probe_notes import Outcome
from enroll.commands.probe_report import write_profile
from enroll.errors import ExitCode
from enroll.model import Credentials, Library
from enroll.sandbox import Profile, Sandbox, read_profile

pytestmark = pytest.mark.usefixtures("moved_clock")

PROBE = ("probe", "--yes")


@pytest.fixture
def standing_clock(moved_clock: MovedClock) -> Iterator[StandingClock]:
    standing = StandingClock()
    with clock.using(standing):
        yield standing


def libraries(box: Sandbox) -> list[str]:
    return [library.group_id for library in box.account.libraries()]


def total(box: Sandbox) -> int:
    """The calls of a probe; the stand-in does not count the one that is too large."""
    return len(box.calls) + 1


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
    assert len(told["facts"]) > 80
    assert libraries(box) == ["staff"]
    documented = (Path(__file__).parent.parent / "docs" / "probing.md").read_text()
    assert [one["name"] for one in told["facts"] if f"`{one['name']}`" not in documented] == []


def test_the_table_marks_what_differs_and_names_the_library(tmp_path: Path) -> None:
    answers = dict.fromkeys(("user_id_characters", "user_id_too_long"), (422, "WRONG_ID"))
    with probed(tmp_path, profile=Profile(answers=answers, score_field="score")) as (box, command):
        done = command(*PROBE)
        assert done.code == ExitCode.SOME_ROWS_FAILED, done
        marked = [line.split() for line in done.out.splitlines() if line.startswith("!")]
        assert [(line[1], line[-2:]) for line in marked] == [
            ("user_id_characters", ["422", "WRONG_ID"]),
            ("user_id_too_long", ["422", "WRONG_ID"]),
        ]
        assert "2 differ (!)" in done.out
        assert "Not as documented: user_id_characters, user_id_too_long." in done.out
        assert "was removed" in done.out
        assert libraries(box) == ["staff"]


REFUSED = (
    *("group_id_characters", "created_twice", "wrong_signature", "expired_signature"),
    *("unknown_call", "user_id_missing", "user_id_characters", "user_id_too_long"),
    *("user_data_too_long", "multi_oriented_detection", "photo_missing", "image_and_file"),
    *("unknown_library", "list_limit_1001", "list_limit_0", "list_start_0", "search_limit_101"),
    *("search_limit_0", "no_face_search", "no_face", "format", "side_47", "side_4097"),
    *("bytes_refused", "not_empty", "unknown_token"),
)
"""Rules whose calls the service refuses, and may refuse with another code."""

NOT_ENFORCED = (
    *("group_id_characters", "created_twice", "wrong_signature", "expired_signature"),
    *("user_id_missing", "user_id_characters", "user_id_too_long", "user_data_too_long"),
    *("multi_oriented_detection", "image_and_file", "list_limit_1001", "list_limit_0"),
    *("list_start_0", "search_limit_101", "search_limit_0", "format"),
)
"""Rules that the service may not enforce; they do not prevent each other."""

ACCEPTED = (
    *("library_texts", "signature_single", "free_empty", "created_again", "signature_longest"),
    *("signature_reused", "list_empty", "search_empty", "user_id_accepted", "user_data_accepted"),
    *("image_accepted", "user_data_characters", "user_id_longest", "bytes_accepted", "bmp", "png"),
    *("delete_most", "delete_again"),
)
"""What the service accepts, and may refuse."""

OTHERWISE = (
    *("library_texts_kept", "model_version", "library_visible", "library_add_time"),
    *("added_twice", "turned_photo", "search_threshold", "search_limit", "largest_face"),
    *("list_next", "list_order", "user_id_kept", "user_data_kept", "add_time"),
    *("deleted_in_list", "refused_not_added", "list_whole", "list_end", "deleted_in_search"),
    *("same_score", "search_order", "delete_unknown", "delete_again", "date"),
)
"""Facts that a service may get wrong."""


def deviations() -> Iterator[tuple[Profile, set[str]]]:
    """Accounts that differ from the documentation, and the facts in which each does: one by one,
    or several in which nothing can hide anything else."""
    other = {rule: (422, f"{rule.upper()}: it") for rule in REFUSED}
    sizes = {"side_47", "side_4097"}
    yield Profile(answers=other), {*REFUSED} - {"created_twice"}  # of which no code is documented
    yield Profile(answers=dict.fromkeys(NOT_ENFORCED, (200, ""))), {*NOT_ENFORCED}
    for rule in ACCEPTED:
        yield Profile(answers={rule: (400, "OTHER")}), {rule}
    for quirk in OTHERWISE:
        yield Profile(quirks=(quirk,)), {quirk}
    yield Profile(answers={"signature_spent": (200, "")}), {"signature_single"}
    missing = {
        "create": ("group_name",),
        "group_list": ("group_data",),
        "group_info": ("model_version",),
        "add": ("group_id",),
        "search": ("user_data",),
        "list": ("user_id",),
        "face_info": ("user_id",),
        "delete": ("face_count",),
        "free": ("group_id",),
    }
    yield Profile(missing=missing), {*(f"{kind}_fields" for kind in missing), "list_pages"}
    yield Profile(bare=("BAD_ARGUMENTS", "success")), {"request_id"}
    yield Profile(score_field="likeness"), {"score_field", "search_fields"}
    yield Profile(self_score=0.9), {"self_score"}
    yield Profile(self_score=300), {"self_score", "search_fields"}
    yield Profile(max_start=1000), set()
    yield Profile(max_request_bytes=1_999_999), {"bytes_accepted"}
    yield Profile(max_request_bytes=4_202_496), {"bytes_refused"}
    yield Profile(min_side=49, max_side=4095), {"side_48", "side_4096"}
    yield Profile(min_side=1, max_side=16384), sizes


def probe_of(profile: Profile, **options: Any) -> ProbeReport:
    """What a probe finds at a stand-in that plays a profile, and leaves nothing there."""
    with standin(profile=profile, **options) as box:
        settings = ProbeSettings(
            portraits=(portrait(0), portrait(1)), nobody=nobody(), endpoint=box.endpoint
        )
        report = probe_account(
            settings, lambda: Credentials(box.api_key, box.api_secret), Agreeing()
        )
        assert report is not None
        assert (libraries(box), len(box.calls) <= MOST_CALLS) == ([], True), profile
        return report


class Agreeing:
    """A person who agrees, and to whom nothing is shown."""

    def connecting(self, endpoint: str, credentials: str) -> None:
        pass

    def say(self, *lines: str) -> None:
        pass

    def confirm(self, question: str) -> bool:
        return True

    def soften(self, interrupt: Callable[[int], None]) -> None:
        pass


def played_again(report: ProbeReport, path: Path) -> Profile:
    write_profile(report, path)
    return replace(read_profile(path), latency=0.0)


@pytest.mark.usefixtures("standing_clock")
@pytest.mark.parametrize("each", [8, pytest.param(1, marks=pytest.mark.thorough)])
def test_each_fact_can_differ_alone_and_the_profile_of_it_is_the_account_again(
    tmp_path: Path, each: int
) -> None:
    """A stand-in with the same profile behaves the same, so comparing profiles is a round trip.

    Each account is tried, or each eighth."""
    wrong: list[object] = []
    seen: set[str] = set()
    for profile, differing in islice(deviations(), 0, None, each):
        report = probe_of(profile)
        found = {one.name for one in report.facts if one.outcome != Outcome.HOLDS}
        seen |= found
        again = played_again(report, tmp_path / "account.json")
        if (found, again) != (differing, profile):
            wrong.append((profile, found ^ differing, again))
    assert wrong == []
    if each > 1:
        return
    plain = {one.name for one in probe_of(Profile()).facts}
    lags = {"visible_in_search", "visible_in_list"}  # below
    undocumented = {"created_twice", "list_start_1001"}
    assert plain - seen == {*lags, *undocumented, "parallel"} - seen


@pytest.mark.usefixtures("standing_clock")
def test_a_service_that_shows_new_faces_late_is_played_again(tmp_path: Path) -> None:
    for profile, differing in (
        (Profile(search_lag=14.0), {"visible_in_search", "visible_in_list"}),
        (Profile(list_lag=14.0), {"visible_in_list"}),
        (Profile(search_lag=14.0, list_lag=0.0), {"visible_in_search"}),
        (Profile(search_lag=5.0), set()),
    ):
        report = probe_of(profile)
        found = {one.name for one in report.facts if one.outcome != Outcome.HOLDS}
        assert found == differing
        # A face that became visible while the probe waited is visible from then on in the profile.
        again = played_again(report, tmp_path / "account.json")
        assert again.search_lag >= profile.search_lag
        replayed = probe_of(again).facts
        assert {one.name for one in replayed if one.outcome != Outcome.HOLDS} == differing


def test_a_face_is_not_late_because_the_service_answers_slowly(
    standing_clock: StandingClock,
) -> None:
    def slow() -> float:
        """The stand-in reads its clock at least twice in each call."""
        standing_clock.ahead += 0.2
        return standing_clock.time()

    report = probe_of(Profile(search_lag=5.0), clock=slow)
    observed = {one.name: one for one in report.facts if one.name.startswith("visible_in")}
    assert {one.outcome for one in observed.values()} == {Outcome.HOLDS}
    assert re.fullmatch(r"after 9\.\d s", observed["visible_in_search"].observed)


def test_a_burst_beyond_the_accounts_limit_shows_how_calls_are_refused(tmp_path: Path) -> None:
    answers = {"parallel": (429, "TOO_MANY: calls")}
    for profile in (Profile(parallel=2, latency=0.04), Profile(parallel=2, answers=answers)):
        with probed(tmp_path, profile=replace(profile, latency=0.04)) as (box, command):
            done = command(*PROBE, "--json", "--profile", "account.json")
            facts = {one["name"]: one["observed"] for one in json.loads(done.out)["facts"]}
            assert done.code == ExitCode.DONE, done
            refused = "429 TOO_MANY" if profile.answers else "403 CONCURRENCY_LIMIT_EXCEEDED"
            assert facts["parallel"].endswith(f"refused: {refused}")
            assert facts["refused_not_added"] == "none added"
            again = read_profile(command.folder / "account.json")
            assert 2 <= (again.parallel or 0) <= 8
            assert again.answers == profile.answers
            assert libraries(box) == ["staff"]
            assert total(box) <= MOST_CALLS


def test_a_service_that_finds_no_face_in_drawings_leaves_facts_unchecked(tmp_path: Path) -> None:
    with probed(tmp_path) as (box, command):
        (command.folder / "landscape.jpg").write_bytes(nobody())
        (command.folder / "text.jpg").write_text("no photo")
        done = command(*PROBE, "--portrait", "landscape.jpg", "--json")
        assert done.code == ExitCode.IN_DOUBT, done
        unchecked = differing(json.loads(done.out))
        assert unchecked["faces"] == "no face could be added"
        assert (
            "NO_FACE_FOUND: give a photo of a person with --portrait"
            in unchecked["user_id_accepted"]
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
            with command.started(*PROBE, "--profile", "account.json") as process:
                assert box.wait_count("add", count)
                process.send_signal(number)
                out, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 128 + number, (out, err)
            assert "Stopping: the library of this probe is deleted." in err
            assert "the probe ended early" in out
            assert "account.json was not written" in out
            assert not (command.folder / "account.json").exists()
            assert libraries(box) == ["staff"]


KILLED_AT = (2, 3, 4, 5, 7, 8, 9, 14, 30, 47, 56)
"""Calls during which a probe is killed: mainly those that create or delete."""


def test_a_probe_that_is_killed_at_any_call_is_cleaned_up_after_by_the_next(
    tmp_path: Path,
) -> None:
    # The rule is not enforced that a probe breaks with a second library.
    loose = Profile(answers={"group_id_characters": (200, "")})
    with probed(tmp_path, profile=loose) as (box, command):
        others = ["staff", "enroll-probe-mine", "enroll-probe-20200101T000000Z-0123abcd"]
        for name in others:
            box.create_library(name)
        for number in KILLED_AT:
            before = len(box.calls)
            box.latency = 0.01
            with command.started(*PROBE) as process:
                assert box.wait_arrived(before + number)
                process.send_signal(signal.SIGKILL)
                process.communicate(timeout=SECONDS)
            assert box.wait_idle()  # what was under way has been carried out
            assert len(libraries(box)) <= len(others) + 1, number
        left = [name for name in libraries(box) if name not in others]
        box.latency = 0.0
        asked = command("probe")
        assert all(name in asked.err for name in left)
        assert [name for name in libraries(box) if name not in others] == left
        done = command(*PROBE, "--json")
        assert json.loads(done.out)["cleaned"] == left != []
        assert libraries(box) == others


def test_the_library_is_removed_when_the_service_fails_on_the_way(tmp_path: Path) -> None:
    with probed(tmp_path) as (box, command):
        box.script([None, *["refused"] * 40], call="list")
        box.script([None, *["refused"] * 4], call="free")
        done = command(*PROBE)
        assert done.code == ExitCode.UNREACHED, done
        assert total(box) <= MOST_CALLS
        assert "was removed." in done.err
        assert libraries(box) == ["staff"]


def test_a_library_that_cannot_be_removed_is_named(tmp_path: Path) -> None:
    with probed(tmp_path) as (box, command):
        box.script([None, None, *["500"] * 9], call="free")
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
        Library(group_id=f"{old}-0123456789abcdef0+", group_data=f"{made_by} ....é"),
        Library(group_id=f"{old}-0123456789abcdef0++", group_data=made_by),
        Library(group_id=f"{old}-00000006", group_data=f"not {made_by}"),
        Library(group_id=f"{old}-00000007", group_data=f"{made_by}, they say"),
        Library(group_id="enroll-probe-mine", group_data=made_by),
        Library(group_id="enroll-probe-20259999T143000Z-00000005", group_data=made_by),
        Library(group_id="staff", group_data=made_by),
    ]
    left = [f"{old}-00000001", f"{old}-0123456789abcdef0+"]
    assert leftovers(known, now=now) == (left, [f"{recent}-00000002"])


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
        '{"profile": 1, "answers": {"X": 4}}',
        '{"profile": 1, "answers": {"X": {"status": 422}}}',
        '{"profile": 1, "missing": {"add": "face_token"}}',
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
        "answers": {"no_face": {"status": 412, "error": "NOBODY: there"}},
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
        assert {"visible_in_search", "visible_in_list", "list_fields"} <= set(differing(told))
        facts = {one["name"] for one in told["facts"]}
        assert {"parallel", "free_fields"} <= facts, facts
