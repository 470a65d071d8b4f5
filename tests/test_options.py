"""What options take and refuse, wherever their values come from."""

from __future__ import annotations

import json
import re

import click
import pytest
from archive import Archive
from cases import cases
from real_command import Command

from enroll.cli.parameters import Memory, pairs

RUN = ("run", "staff.csv", "--group-id", "staff")
ADOPT = ("adopt", "staff.csv", "--group-id", "staff")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["user_id=NO,image=PHOTO"], {"user_id": "NO", "image": "PHOTO"}),
        (["user_id=NO", " image = A photo "], {"user_id": "NO", "image": "A photo"}),
        (["user_id=NO,,image=PHOTO,"], {"user_id": "NO", "image": "PHOTO"}),
        (["user_data=Last, First"], {"user_data": "Last, First"}),
        (["user_data=Last, First,image=PHOTO"], {"user_data": "Last, First", "image": "PHOTO"}),
        (["user_data={Last}, {First}", "image=P"], {"user_data": "{Last}, {First}", "image": "P"}),
        (['user_data="Last, First",image=P'], {"user_data": "Last, First", "image": "P"}),
        (['"user_data=Last, First",image=P'], {"user_data": "Last, First", "image": "P"}),
        (['user_data="a=1, b=2" , image="P"'], {"user_data": "a=1, b=2", "image": "P"}),
        (['"user_data=The ""true"" name, x=1"'], {"user_data": 'The "true" name, x=1'}),
        (['user_data="The ""true"" name"'], {"user_data": 'The "true" name'}),
        (["user_data=a=b,image=P"], {"user_data": "a=b", "image": "P"}),
        ([], {}),
    ],
)
def test_names_of_columns_may_hold_commas(given: list[str], found: dict[str, str]) -> None:
    context, parameter = click.Context(click.Command("run")), click.Option(["--columns"])
    assert pairs(context, parameter, given) == found
    as_one = ",".join(given).split(",") if given else []  # as from the environment
    assert pairs(context, parameter, as_one) == found


@pytest.mark.parametrize(
    "given",
    ["user_id", "=NO", "user_id=", "user_id= ", 'a="x', 'a="x"y', '"a', '"a"', 'a=""', "a,b=c"],
)
def test_what_is_no_pair_is_refused(given: str) -> None:
    context, parameter = click.Context(click.Command("run")), click.Option(["--columns"])
    with pytest.raises(click.BadParameter, match="is not of the form NAME=VALUE"):
        pairs(context, parameter, [given])


@pytest.mark.parametrize(
    ("variable", "settings"),
    [
        ('user_data="Name, given",image=a photo', ""),
        ("", 'columns = "user_data=Name, given,image=a photo"'),
        ("", "columns = ['user_data=Name, given', 'image=a photo']"),
        ("", '[columns]\nuser_data = "Name, given"\nimage = "a photo"'),
    ],
)
def test_a_column_whose_name_has_a_comma_is_found_wherever_it_is_named(
    archive: Archive, command: Command, variable: str, settings: str
) -> None:
    ((user_id, name, image),) = archive.portraits(1)
    text = f'user_id,"Name, given",a photo\n{user_id},{name},{image}\n'
    (archive.folder / "staff.csv").write_text(text, encoding="utf-8")
    (archive.folder / "enroll.toml").write_text(settings, encoding="utf-8")
    if variable:
        command.environ["ENROLL_COLUMNS"] = variable
    done = command(*RUN)
    assert done.code == 0, done
    (row,) = archive.results()
    assert (row["Name, given"], row["status"]) == (name, "enrolled")


@cases("number", ["nan", "inf", "-inf", "NaN", "1e999"])
@cases(
    ("arguments", "option"),
    [
        (RUN, "--timeout"),
        (RUN, "--give-up-after"),
        (RUN, "--drain"),
        (RUN, "--settle-after"),
        (RUN, "--stats"),
        (RUN, "--rate"),
        (ADOPT, "--score"),
        (("sandbox", "--port", "0"), "--latency"),
        (("sandbox", "--port", "0"), "--clock-skew"),
    ],
)
def test_what_is_no_finite_number_is_refused(
    archive: Archive, command: Command, arguments: tuple[str, ...], option: str, number: str
) -> None:
    archive.manifest(archive.portraits(1))
    done = command(*arguments, f"{option}={number}")
    assert done.code == 2, done
    assert f"'{option}': {number!r} is not a number, such as 30 or 0.5." in done.err


def test_a_number_from_a_variable_or_a_file_has_to_be_finite_too(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    command.environ["ENROLL_DRAIN"] = "inf"
    done = command(*RUN)
    assert (done.code, "'inf' is not a number" in done.err) == (2, True), done
    assert "(from ENROLL_DRAIN)" in done.err
    del command.environ["ENROLL_DRAIN"]
    (archive.folder / "enroll.toml").write_text("give_up_after = inf\n")
    done = command(*RUN)
    assert (done.code, "(from enroll.toml)" in done.err) == (2, True), done


@pytest.mark.parametrize(
    ("option", "most"), [("--timeout", "86400"), ("--drain", "31536000"), ("--stats", "31536000")]
)
def test_a_wait_that_no_clock_can_hold_is_refused(
    archive: Archive, command: Command, option: str, most: str
) -> None:
    archive.manifest(archive.portraits(1))
    done = command(*RUN, option, "1e12")
    assert (done.code, f" and {most}." in done.err) == (2, True), done
    assert command(*RUN, option, most).code == 0


@pytest.mark.parametrize(
    "arguments", [("history", "--run", "9" * 30), (*RUN, "--dry-run", "--rate", "1e-320")]
)
def test_a_number_that_cannot_be_reckoned_with_is_refused(
    archive: Archive, command: Command, arguments: tuple[str, ...]
) -> None:
    archive.manifest(archive.portraits(1, 2)[:1])
    assert command(*RUN).code == 0
    archive.manifest(archive.portraits(1, 2))
    done = command(*arguments)
    assert (
        done.code,
        bool(re.search("out of range: it must be (at least|between)", done.err)),
    ) == (2, True), done


@pytest.mark.parametrize("probability", ["nan", "inf"])
def test_the_probability_of_a_fault_has_to_be_a_number(command: Command, probability: str) -> None:
    done = command("sandbox", "--port", "0", "--fault", f"500={probability}")
    assert (done.code, "give a number from 0 to 1" in done.err) == (2, True), done


@pytest.mark.parametrize("text", ["many", "1.5", "", "1e3"])
def test_what_is_no_whole_number_is_said_in_plain_words(
    archive: Archive, command: Command, text: str
) -> None:
    archive.manifest(archive.portraits(1))
    done = command(*RUN, "--limit", text)
    assert (done.code, f"{text!r} is not a whole number." in done.err) == (2, True), done


@pytest.mark.parametrize("arguments", [(), ("library",)])
def test_a_command_without_a_word_about_what_to_do_prints_its_help(
    command: Command, arguments: tuple[str, ...]
) -> None:
    done = command(*arguments)
    assert (done.code, done.err.startswith("Usage: ")) == (2, True), done
    assert done.err == command(*arguments, "--help").out


def test_help_cuts_no_sentence_and_is_as_wide_as_the_terminal(command: Command) -> None:
    _, found, commands = command("--help").out.partition("Prepare a list:")
    assert (bool(found), "..." in commands) == (True, False)
    wide = {}
    for columns in ("60", "100", "300"):
        command.environ["COLUMNS"] = columns
        wide[columns] = max(map(len, command("run", "--help").out.splitlines()))
    assert wide["60"] <= 60 < wide["100"] <= 100 < wide["300"] <= 120


def test_help_shows_the_range_of_a_number_in_words(command: Command) -> None:
    said = " ".join(command("run", "--help").out.split())
    assert "[default: (16; 32 from a bucket); between 1 and 256]" in said
    assert "[default: 5; at least 1]" in said


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ENROLL_LIMT", " Did you mean ENROLL_LIMIT?"),
        ("ENROLL_APIKEY", " Did you mean ENROLL_API_KEY?"),
    ],
)
def test_a_variable_that_is_no_setting_is_warned_of(
    archive: Archive, command: Command, name: str, hint: str
) -> None:
    archive.manifest(archive.portraits(1))
    command.environ[name] = "1"
    warning = f"Warning: The variable {name} is not a setting of enroll, so it is ignored.{hint}"
    for arguments in (
        RUN,
        (*RUN, "--quiet"),
        (*RUN, "--dry-run"),
        ("status",),
        ("library", "list"),
    ):
        done = command(*arguments)
        assert (done.code, done.err.count(warning)) == (0, 1), done


def test_a_warning_is_a_line_of_the_log_where_a_program_reads_it(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    command.environ["ENROLL_OF_ANOTHER_PROGRAM"] = "secret"
    done = command(*RUN, "--log-format", "json")
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert "ENROLL_OF_ANOTHER_PROGRAM" in lines[0]["message"]
    assert (lines[0]["level"], lines[0]["event"]) == ("warning", "warning")
    assert "secret" not in done.err + done.out


@pytest.mark.parametrize("chosen_in", ["option", "equals", "variable", "file", "named file"])
@pytest.mark.parametrize("wrong", [("--nonsense", "x"), ("--limit",), ("--limit", "many")])
def test_wrong_options_are_told_in_the_log_format_that_was_chosen(
    archive: Archive, command: Command, chosen_in: str, wrong: tuple[str, ...]
) -> None:
    archive.manifest(archive.portraits(1))
    more: tuple[str, ...] = ()
    if chosen_in == "option":
        more = ("--log-format", "json")
    elif chosen_in == "equals":
        more = ("--log-format=json",)
    elif chosen_in == "variable":
        command.environ["ENROLL_LOG_FORMAT"] = "json"
    else:
        name = "enroll.toml" if chosen_in == "file" else "other.toml"
        (archive.folder / name).write_text('log_format = "json"\n')
        more = () if chosen_in == "file" else ("--config", name)
    done = command(*RUN, *more, *wrong)
    (event,) = [json.loads(line) for line in done.err.splitlines()]
    assert (done.code, event["event"], event["exit_code"], done.out) == (2, "error", 2, "")
    assert wrong[0] in event["message"]


def test_a_dry_run_warns_in_the_log_format_that_was_chosen(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    command.environ["ENROLL_OF_ANOTHER_PROGRAM"] = "x"
    done = command(*RUN, "--dry-run", "--log-format", "json")
    (event,) = [json.loads(line) for line in done.err.splitlines()]
    assert (done.code, event["event"]) == (0, "warning")


def test_every_option_and_the_key_may_stand_in_the_environment(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    command.environ.update({"ENROLL_SEED": "1", "ENROLL_SCORE": "60", "ENROLL_FOO": ""})
    done = command(*RUN)
    assert (done.code, "Warning" in done.err) == (0, False), done


def test_as_many_calls_at_a_time_as_the_account_takes_can_be_said_in_every_way(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    plan = ("plan", "staff.csv")
    assert "assuming 4 calls" in command(*plan).out
    assert "assuming 7 calls" in command(*plan, "--max-in-flight", "7").out
    command.environ["ENROLL_MAX_IN_FLIGHT"] = "7"
    assert "assuming 7 calls" in command(*plan).out
    command.environ["ENROLL_MAX_IN_FLIGHT"] = "auto"
    assert "assuming 4 calls" in command(*plan).out
    del command.environ["ENROLL_MAX_IN_FLIGHT"]
    settings = archive.folder / "enroll.toml"
    settings.write_text('max_in_flight = "auto"\n')
    assert "assuming 4 calls" in command(*plan).out
    settings.write_text("max_in_flight = 7\n")
    assert "assuming 7 calls" in command(*plan).out
    assert "assuming 4 calls" in command(*plan, "--max-in-flight", "auto").out
    assert command(*plan, "--max-in-flight", "0").code == 2
    assert command(*plan, "--max-in-flight", "1001").code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (*RUN, "--ledger", "LONG"),
        (*RUN, "--credentials", "LONG"),
        ("run", "staff.csv", "--group-id", "LONG"),
        ("plan", "staff.csv", "--group-id", "LONG"),
        ("status", "--group-id", "LONG", "--endpoint", "http://127.0.0.1:1"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused(
    archive: Archive, command: Command, arguments: tuple[str, ...]
) -> None:
    archive.manifest(archive.portraits(1))
    done = command(*("x" * 300 if one == "LONG" else one for one in arguments))
    assert (done.code, "longer than a file's name may be" in done.err) == (2, True), done


def test_a_file_to_write_is_not_standard_output(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN, "--results", "-").code == 2
    done = command(*RUN, "--summary", "-")
    assert (done.code, "name one (./- is a file" in done.err) == (2, True), done
    assert not (archive.folder / "-").exists()


@pytest.mark.parametrize(
    ("given", "memory"),
    [
        ("auto", None),
        ("400MB", 400_000_000),
        ("400000000", 400_000_000),
        ("1.5 gb", 1_500_000_000),
        ("2GiB", 2 * 1024**3),
        ("1t", 1_000_000_000_000),
    ],
)
def test_memory_is_given_as_a_size(given: str, memory: int | None) -> None:
    assert Memory().convert(given, None, None) == memory


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("much", "'much' is not a whole number; sizes like 2GB and auto are also allowed."),
        ("-1GB", "'-1GB' is not a whole number; sizes like 2GB and auto are also allowed."),
        ("399MB", "399MB is too little. Give at least 400MB, or auto."),
        ("012", "012 is out of range: it must be at least 400000000; sizes like 2GB and auto are"),
    ],
)
def test_what_is_no_size_or_too_little_is_refused(
    archive: Archive, command: Command, given: str, message: str
) -> None:
    archive.manifest([])
    done = command(*RUN, f"--memory={given}")
    assert done.code == 2
    assert message in " ".join(done.err.split())


def test_more_pixels_than_the_memory_has_room_for_are_refused_with_what_helps(
    archive: Archive, command: Command
) -> None:
    archive.manifest([])
    done = command(*RUN, "--memory=400MB", "--max-pixels=200000000")
    assert done.code == 2
    assert "Raise --memory to 600MB, or lower --max-pixels." in " ".join(done.err.split())
    done = command(*ADOPT, "--memory=1MB")
    assert done.code == 2
    assert "1MB is too little. Give at least 400MB, or auto." in " ".join(done.err.split())
