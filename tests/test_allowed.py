"""What the command line refuses, Python refuses, in the same words."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from archive import Archive
from cases import cases
from real_command import Command

from enroll.allowed import RANGES
from enroll.cli import cli
from enroll.cli.parameters import Number
from enroll.commands.adopt import AdoptSettings
from enroll.commands.audit import AuditSettings
from enroll.commands.remove import RemoveSettings
from enroll.commands.resolve import ResolveSettings
from enroll.commands.run import enroll_manifest
from enroll.commands.sync import sync_manifest
from enroll.commands.verify import VerifySettings
from enroll.errors import UsageError
from enroll.model import Credentials, SendAs
from enroll.settings import Bound, CodeRule, FailOn, Precheck, RunSettings, SyncSettings

LONG = "x" * 300


def settings(kind: type[RunSettings] = SyncSettings, **changed: Any) -> RunSettings:
    return kind(**{"manifest": Path("staff.csv"), "group_id": "staff", **changed})


def beyond_their_ranges() -> Iterator[tuple[str, float]]:
    """Settings of runs with values that no range holds."""
    names = {field.name for field in fields(SyncSettings)}
    for name, within in RANGES.items():
        if name in names:
            yield name, float("nan")
            if within.whole:
                yield name, 1.5
            yield name, within.least - 1
            if within.most is not None:
                yield name, within.most + 1


@cases(("name", "value"), list(beyond_their_ranges()))
def test_a_number_out_of_its_range_is_refused_in_the_same_words(
    archive: Archive, command: Command, name: str, value: float
) -> None:
    archive.manifest([])
    option = f"--{name.replace('_', '-')}"
    # Of a sync, which has all of them but these.
    words = "run" if name in ("limit", "sample", "seed") else "sync"
    done = command(words, "staff.csv", "--group-id", "staff", f"{option}={value}")
    assert done.code == 2
    with pytest.raises(UsageError) as caught:
        settings(SyncSettings, **{name: value})
    said = done.err.splitlines()[0].removeprefix("Error: ").replace(f"'{value}'", f"{value}")
    assert re.sub("; (sizes like 2GB and )?auto (is|are) also allowed", "", said) == str(
        caught.value
    )


def test_every_number_of_a_setting_has_one_range_wherever_it_is_said() -> None:
    context = click.Context(cli)
    known = {field.name for kind in (SyncSettings, AuditSettings) for field in fields(kind)}
    found = set()
    for words in ("plan", "run", "sync", "verify", "audit", "adopt", "remove", "forget", "resolve"):
        command = cli.get_command(context, words)
        assert command is not None
        for option in command.params:
            name = option.name or ""
            if isinstance(option.type, Number) and name in known:
                found.add(name)
                assert option.type.within == RANGES[name]
    assert found == set(RANGES) - {"max_in_flight", "memory", "rate"}


@cases(
    ("name", "value", "given"),
    [
        ("max_duration", 0.0, "0.0"),
        ("max_duration", 1e9, "1000000000.0"),
        ("send_as", "letter", "letter"),
        ("precheck", "perhaps", "perhaps"),
        ("fail_on", "some", "some"),
        ("retry", frozenset({"no face"}), "no face"),
        ("on_code", {"no face": CodeRule.STOP}, "no face=stop"),
        ("on_code", {"X": "perhaps"}, "X=perhaps"),
        ("columns", {"name": "NAME"}, "name=NAME"),
        ("ledger", Path(LONG), LONG),
        ("images", Path(LONG), LONG),
        ("ca_bundle", Path(LONG), LONG),
        ("max_removals", "-1", "-1"),
        ("max_changes", "1.5", "1.5"),
        ("max_missing", "nan%", "nan%"),
    ],
)
def test_what_else_is_no_value_is_refused_in_the_same_words(
    archive: Archive, command: Command, name: str, value: Any, given: str
) -> None:
    archive.manifest([])
    option = f"--{name.replace('_', '-')}"
    done = command("sync", "staff.csv", "--group-id", "staff", f"{option}={given}")
    assert done.code == 2
    with pytest.raises(UsageError) as caught:
        if name.startswith("max_") and isinstance(value, str):
            value = Bound(float(value.rstrip("%")), percent=value.endswith("%"))
        settings(**{name: value})
    said = str(caught.value).rpartition("': ")[2]
    assert said.replace("-1.0", "-1") in done.err


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_in_flight", "4", "'4' is text, not a number."),
        ("timeout", "4", "'4' is text, not a number."),
        ("max_duration", "6h", "'6h' is text, not a number."),
        ("manifest", "staff.csv", "'staff.csv' is text; give a pathlib.Path."),
        ("ledger", "staff.sqlite", "'staff.sqlite' is text; give a pathlib.Path."),
        ("differences", "d.csv", "'d.csv' is text; give a pathlib.Path."),
        ("retry", "NO_FACE", "'NO_FACE' is text; give a set of codes, such as {'NO_FACE_FOUND'}."),
        ("max_removals", 25, "25 is not a Bound, such as enroll.settings.Bound(25)."),
    ],
)
def test_a_value_of_another_kind_is_refused_where_the_settings_are_made(
    name: str, value: Any, said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        settings(**{name: value})
    assert str(caught.value).endswith(f"': {said}")


def test_a_run_from_python_needs_what_the_command_needs(archive: Archive, command: Command) -> None:
    archive.manifest([])
    asked = False

    def credentials() -> Credentials:
        nonlocal asked
        asked = True
        return Credentials("key", "secret")

    run = ("run", "staff.csv", "--group-id", "staff")
    for changed, arguments in (
        ({"group_id": ""}, run[:2]),
        ({"on_code": {"HTTP_500": CodeRule.STOP}}, (*run, "--on-code", "HTTP_500=stop")),
        (
            {"on_code": {"API_NOT_FOUND": CodeRule.RETRY}},
            (*run, "--on-code", "API_NOT_FOUND=retry"),
        ),
    ):
        with pytest.raises(UsageError) as caught:
            enroll_manifest(settings(RunSettings, **changed), credentials)
        assert f"Error: {caught.value}\n" in command(*arguments).err
    with pytest.raises(UsageError, match="--group-id is needed"):
        sync_manifest(SyncSettings(manifest=Path("staff.csv"), group_id=""), credentials)
    with pytest.raises(UsageError) as caught:
        settings(min_face=50)
    assert f"Error: {caught.value}\n" in command(*run, "--min-face", "50").err
    assert settings(min_face=50, precheck=Precheck.WARN).min_face == 50
    assert not asked


def test_a_file_may_set_the_least_face_for_the_runs_that_look_for_one(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    command.environ["ENROLL_MIN_FACE"] = "50"
    assert command("plan", "staff.csv").code == 0


def test_the_settings_of_other_commands_are_looked_at_too() -> None:
    ledger = Path("ledger.sqlite")
    for make, option in (
        (lambda: VerifySettings(ledger=ledger, timeout=0), "--timeout"),
        (lambda: VerifySettings(ledger=ledger, max_in_flight=0), "--max-in-flight"),
        (lambda: RemoveSettings(ledger=ledger, of_run=0), "--run"),
        (lambda: ResolveSettings(ledger=Path(LONG), user_id="u", token=None), "--ledger"),
        (lambda: AdoptSettings(run=settings(RunSettings), score=101), "--score"),
    ):
        with pytest.raises(UsageError, match=f"^Invalid value for '{option}': "):
            make()
    with pytest.raises(UsageError, match="the library whose faces to adopt"):
        AdoptSettings(run=settings(RunSettings, group_id=""))


BYTES = os.fsdecode(b"st\xffff")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("run", "staff.csv"), "--group-id"),
        (("plan", "staff.csv"), "--sheet"),
        (("status",), "--group-id"),
        (("library", "create", "--group-id", "new"), "--name"),
        (("library", "delete"), "--group-id"),
        (("forget",), "--user-id"),
        (("history",), "--user-id"),
        (("resolve", "--not-added"), "--user-id"),
    ],
)
def test_text_that_is_not_utf_8_is_refused_before_anything_is_done(
    archive: Archive, command: Command, arguments: tuple[str, ...], option: str
) -> None:
    archive.manifest([])
    done = command(*arguments, f"{option}={BYTES}")
    assert done.code == 2, done
    assert f"Invalid value for '{option}': {BYTES!r} is not text in UTF-8." in done.err


def test_text_that_is_not_utf_8_is_refused_from_a_variable_and_from_python(
    archive: Archive, command: Command
) -> None:
    archive.manifest([])
    command.environ["ENROLL_GROUP_ID"] = BYTES
    done = command("plan", "staff.csv")
    assert (done.code, "is not text in UTF-8. (from ENROLL_GROUP_ID)" in done.err) == (2, True), (
        done
    )
    with pytest.raises(UsageError, match=r"^Invalid value for '--group-id': '.*' is not text in"):
        settings(group_id=BYTES)


def test_a_file_may_have_any_name(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    run = ("run", "staff.csv", "--group-id", "staff")
    assert command.run(*run, "--results", f"{BYTES}.csv").code == 0
    assert (archive.folder / f"{BYTES}.csv").exists()


def test_a_word_will_do_for_the_choice_that_it_stands_for() -> None:
    said = settings(send_as="image", precheck="hold", fail_on="none", on_code={"SOME_CODE": "stop"})
    assert said.fail_on is FailOn.NONE  # a text that is equal would not be
    assert said.precheck is Precheck.HOLD
    assert said.send_as is SendAs.IMAGE
    assert said.on_code["SOME_CODE"] is CodeRule.STOP
    assert said.record()["send_as"] == "image"
    assert said.record()["on_code"] == {"SOME_CODE": "stop"}
