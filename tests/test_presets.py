"""Who may set what: variables that are refused, and settings files that somebody else may write."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import click
import pytest
from archive import Archive
from cases import cases
from real_command import Command

from enroll.cli import cli
from enroll.cli.command import source_of
from enroll.cli.parameters import File
from enroll.errors import UsageError
from enroll.presets import Source, preset
from enroll.sandbox import Sandbox

SYNC = ("sync", "staff.csv", "--group-id", "staff")


def options_of(command: click.Command) -> dict[str, click.Option]:
    """The options of a command and those below it, by their names; of several the last."""
    found = {
        max(option.opts, key=len): option
        for option in command.params
        if isinstance(option, click.Option)
    }
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found |= options_of(below)
    return found


OPTIONS = options_of(cli)
TYPED = sorted(name for name, one in OPTIONS.items() if source_of(one) is Source.COMMAND_LINE)
NAMED = sorted(name for name, one in OPTIONS.items() if source_of(one) is Source.NAMED)


def variable(option: str) -> str:
    return f"ENROLL_{option.lstrip('-').replace('-', '_').upper()}"


# Variables


@cases("option", TYPED)
@cases(
    "arguments", [SYNC, (*SYNC, "--dry-run"), ("status",), ("library", "list"), ("demo", "demo")]
)
def test_a_variable_for_what_only_the_command_line_gives_is_refused_by_every_command(
    box: Sandbox, archive: Archive, command: Command, arguments: tuple[str, ...], option: str
) -> None:
    archive.manifest([])
    with patch.dict(command.environ, {variable(option): "1"}):
        done = command(*arguments)
    assert (done.code, done.out) == (2, ""), done
    assert f"Error: {variable(option)} is set, but {option} can only be given on the" in done.err
    assert box.calls == []
    assert not (archive.folder / "demo").exists()


def test_several_such_variables_are_named_at_once_and_help_is_still_shown(command: Command) -> None:
    command.environ.update({"ENROLL_YES": "0", "ENROLL_CONFIG": "x.toml", "ENROLL_RETRY": ""})
    done = command("status")
    assert "ENROLL_CONFIG and ENROLL_YES are set, but --config and --yes can only" in done.err
    assert command("status", "--help").code == 0


def test_what_forces_confirms_or_retries_is_given_on_the_command_line_alone() -> None:
    assert {"--dry-run", "--yes", "--retry", "--allow-nonempty", "--not-added", "--config"} <= {
        *TYPED
    }
    forceful = {"--force", "--raw", "--create-library", "--remove-surplus", "--requeue-missing"}
    assert forceful | {"--token", "--user-id", "--user-ids", "--readmit", "--superseded"} <= {
        *TYPED
    }


def test_options_of_one_name_may_come_from_the_same_places() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        below = cli.get_command(context, name)
        assert below is not None
        for option, one in options_of(below).items():
            assert source_of(one) is source_of(OPTIONS[option]), (name, option)


@pytest.mark.parametrize("folder_of_service", ["ENROLL", "ENROLL_API"])
def test_the_variables_of_a_service_of_our_name_are_no_settings(
    archive: Archive, command: Command, folder_of_service: str
) -> None:
    address = "tcp://10.0.0.7:80"
    of_service = {
        "SERVICE_HOST": "10.0.0.7",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
        "PORT": address,
        "PORT_80_TCP": address,
        "PORT_80_TCP_PROTO": "tcp",
        "PORT_80_TCP_PORT": "80",
        "PORT_80_TCP_ADDR": "10.0.0.7",
    }
    for name, value in of_service.items():
        command.environ[f"{folder_of_service}_{name}"] = value
    archive.manifest(archive.portraits(1))
    done = command("plan", "staff.csv")
    assert (done.code, done.err) == (0, ""), done


def test_a_stand_in_takes_no_port_from_the_address_of_a_service() -> None:
    known = {"port": Source.ANY}
    for value, taken in (("tcp://10.0.0.7:80", {}), ("8123", {"port": "8123"})):
        assert preset(known, config=None, environ={"ENROLL_PORT": value}, known=known).values == (
            taken
        )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ENROLL_DRYRUN", " Did you mean --dry-run? It can only be given on the command line."),
        ("ENROLL_GROUPID", " Did you mean ENROLL_GROUP_ID?"),
        ("ENROLL_APISECRET", " Did you mean ENROLL_API_SECRET?"),
        ("ENROLL_IMAGE_TAG", ""),
        ("ENROLL_WEB_SERVER", ""),
    ],
)
def test_only_what_may_be_misspelt_draws_a_suggestion(
    archive: Archive, command: Command, name: str, hint: str
) -> None:
    archive.manifest(archive.portraits(1))
    command.environ[name] = "1"
    done = command("plan", "staff.csv")
    assert done.err == (
        f"Warning: The variable {name} is not a setting of enroll, so it is ignored.{hint}\n"
    )


# Settings files that were only found


def planted(archive: Archive, text: str = 'group_id = "staff"\n') -> Path:
    file = archive.folder / "enroll.toml"
    file.write_text(text)
    return file


def refused(command: Command, box: Sandbox, *words: str) -> None:
    """Whether commands do nothing for that file, and say which it is and what to do."""
    for arguments in (("run", "staff.csv"), ("verify",), ("library", "list"), ("status",)):
        done = command(*arguments)
        assert (done.code, done.out) == (2, ""), done
        for word in (*words, str(command.folder / "enroll.toml"), "--config enroll.toml"):
            assert word in done.err, done
    assert box.calls == []


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_found_settings_file_that_others_may_write_is_refused(
    box: Sandbox, archive: Archive, command: Command, mode: int
) -> None:
    archive.manifest(archive.portraits(1))
    planted(archive).chmod(mode)
    refused(command, box, f"can be written by others (mode {mode:04o})")
    assert command("run", "staff.csv", "--config", "enroll.toml").code == 0


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_a_settings_file_found_in_a_folder_that_others_may_write_is_refused(
    box: Sandbox, archive: Archive, command: Command, mode: int
) -> None:
    archive.manifest(archive.portraits(1))
    planted(archive)
    archive.folder.chmod(mode)
    refused(command, box, f"is in a folder that can be written by others (mode {mode:04o})")
    assert command("run", "staff.csv", "--config", "enroll.toml").code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("which", ["enroll.toml", "."])
def test_a_settings_file_of_somebody_else_is_refused(
    box: Sandbox, archive: Archive, command: Command, which: str
) -> None:
    archive.manifest(archive.portraits(1))
    planted(archive)
    os.chown(archive.folder / which, 54_321, 54_321)
    refused(command, box, "belongs to user 54321, not to root:")


def test_a_link_to_a_settings_file_is_refused(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    planted(archive).rename(archive.folder / "other.toml")
    (archive.folder / "enroll.toml").symlink_to("other.toml")
    refused(command, box, "is a link")


def test_what_is_no_file_is_no_settings_file(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    os.mkfifo(archive.folder / "enroll.toml")
    assert command("plan", "staff.csv").code == 0


@pytest.mark.parametrize("option", NAMED)
def test_a_found_settings_file_does_not_say_where_anything_goes(
    box: Sandbox, archive: Archive, command: Command, option: str
) -> None:
    archive.manifest(archive.portraits(1))
    name = option.lstrip("-").replace("-", "_")
    planted(archive, f'{name} = "{archive.folder}/else"\n')
    refused(command, box, f"sets {name}, which is not taken from a file", variable(option), option)
    assert [file.name for file in archive.folder.iterdir() if file.name == "else"] == []


def test_every_file_that_is_written_is_named_by_who_answers_for_it() -> None:
    read = {"--config", "--ledger", "--images", "--user-ids", "--manifest", "--portrait"}
    files = {name for name, one in OPTIONS.items() if isinstance(one.type, File)}
    assert files - read == {*NAMED} - {"--endpoint", "--allow-http", "--ping", "--after"}


def test_a_named_settings_file_says_where_everything_goes(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    endpoint = command.environ.pop("ENROLL_ENDPOINT")
    text = f'group_id = "staff"\nendpoint = "{endpoint}"\nresults = "there.csv"\n'
    planted(archive, text)
    assert command("run", "staff.csv", "--config", "enroll.toml").code == 0
    assert (archive.folder / "there.csv").exists()


def test_the_found_file_that_was_looked_at_is_the_one_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "enroll.toml").write_text('group_id = "ours"\n')
    (tmp_path / "theirs").write_text('group_id = "theirs"\n')
    (tmp_path / "theirs").chmod(0o666)
    plain = os.fstat

    def exchanged_after_the_look(descriptor: int) -> os.stat_result:
        found = plain(descriptor)
        if (tmp_path / "theirs").exists():
            (tmp_path / "theirs").replace(tmp_path / "enroll.toml")
        return found

    monkeypatch.setattr(os, "fstat", exchanged_after_the_look)
    known = {"group_id": Source.ANY}
    assert preset(known, config=None, environ={}, known=known).values == {"group_id": "ours"}
    with pytest.raises(UsageError, match="can be written by others"):
        preset(known, config=None, environ={}, known=known)
