"""Where settings come from."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from archive import Archive
from real_command import Command

from enroll.errors import UsageError
from enroll.model import SendAs
from enroll.photos import marks
from enroll.presets import Source, preset
from enroll.sandbox import Sandbox
from enroll.settings import (
    Bound,
    CodeRule,
    Preparation,
    RunSettings,
    SyncSettings,
    default_ledger_path,
    find_ledger,
)

KNOWN = {
    **dict.fromkeys(("group_id", "ledger", "columns", "max_in_flight"), Source.ANY),
    **dict.fromkeys(("endpoint", "results"), Source.NAMED),
    **dict.fromkeys(("retry", "allow_nonempty"), Source.COMMAND_LINE),
}


def settings_of(text: str, folder: Path, **environ: str) -> dict[str, Any]:
    file = folder / "enroll.toml"
    file.write_text(text, encoding="utf-8")
    return dict(preset(KNOWN, config=file, environ=environ, known=KNOWN).values)


def test_the_environment_goes_before_the_file_and_each_origin_is_known(tmp_path: Path) -> None:
    file = tmp_path / "enroll.toml"
    file.write_text('group-id = "file"\nmax_in_flight = 3\n')
    environ = {"ENROLL_GROUP_ID": "environment", "ENROLL_RETRY": "X", "ENROLL_ENDPOINT": ""}
    found = preset(KNOWN, config=file, environ=environ, known=KNOWN)
    assert found.values == {"group_id": "environment", "max_in_flight": 3}
    assert found.origins == {"group_id": "ENROLL_GROUP_ID", "max_in_flight": str(file)}


def test_the_file_is_looked_for_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert preset(KNOWN, config=None, environ={}, known=KNOWN).values == {}
    (tmp_path / "enroll.toml").write_text('group_id = "here"')
    assert preset(KNOWN, config=None, environ={}, known=KNOWN).values == {"group_id": "here"}


def test_a_path_in_the_file_is_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert settings_of('ledger = "a/b.sqlite"', tmp_path)["ledger"] == str(tmp_path / "a/b.sqlite")
    assert settings_of('ledger = "/a/b.sqlite"', tmp_path)["ledger"] == "/a/b.sqlite"
    by_notepad = '\ufeffledger = "/a/b.sqlite"\r\n'
    assert settings_of(by_notepad, tmp_path)["ledger"] == "/a/b.sqlite"
    assert settings_of('ledger = "~/b.sqlite"', tmp_path)["ledger"] == "/home/ada/b.sqlite"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('api_key = "hidden"', "holds api_key: key and secret belong in a credentials file"),
        ('api-secret = "hidden"', "holds api_secret"),
        (
            "allow_nonempty = true",
            "sets allow_nonempty, which can only be given on the command line",
        ),
        ('retry = "NO_FACE_FOUND"', "sets retry, which can only be given on the command line"),
        ("max_in_fligth = 3", "not an option of enroll. Did you mean max_in_flight?"),
        ("zebra = 3", "sets zebra, which is not an option of enroll."),
        ('[endpoint]\nurl = "x"', "has a section [endpoint]"),
        ("[run]\nrate = 5", "has a section [run]"),
        ("max_side = 2000\nmax-side = 3000", "sets max-side twice"),
        ("group_id = ", "is not valid TOML"),
        ("group_id = 'caf\\ud800'", "is not valid TOML"),
    ],
)
def test_a_settings_file_that_cannot_be_meant_is_refused(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "enroll.toml").write_bytes(text.encode("utf-8").replace(b"\\ud800", b"\xff"))
    with pytest.raises(UsageError) as caught:
        preset(KNOWN, config=tmp_path / "enroll.toml", environ={}, known=KNOWN)
    assert sentence in str(caught.value)
    assert str(tmp_path / "enroll.toml") in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_settings_file_that_is_not_there_is_said() -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        preset(KNOWN, config=Path("nothere.toml"), environ={}, known=KNOWN)


@pytest.mark.parametrize(
    ("given", "environment", "file", "library", "origin"),
    [
        ("staff", "guests", "children", "staff", "--group-id"),
        (None, "staff", "guests", "staff", "ENROLL_GROUP_ID"),
        (None, None, "staff", "staff", "enroll.toml"),
    ],
)
def test_a_run_takes_the_nearest_setting_and_says_where_it_came_from(
    box: Sandbox,
    archive: Archive,
    command: Command,
    given: str | None,
    environment: str | None,
    file: str,
    library: str,
    origin: str,
) -> None:
    archive.manifest(archive.portraits(1))
    (archive.folder / "enroll.toml").write_text(f'group_id = "{file}"\nledger = "own.sqlite"\n')
    if environment is not None:
        command.environ["ENROLL_GROUP_ID"] = environment
    done = command("run", "staff.csv", *([] if given is None else ["--group-id", given]))
    assert done.code == 0, done
    said = {line.split()[0]: line for line in done.err.splitlines()}
    assert said["Library"].split()[1] == library
    assert said["Library"].endswith(f"({origin})")
    assert said["Endpoint"] == f"Endpoint  {box.endpoint} (ENROLL_ENDPOINT)"
    assert said["Ledger"].endswith("own.sqlite (new, enroll.toml)")
    assert said["Photos"].endswith("(default)")
    assert (archive.folder / "own.sqlite").exists()
    assert not command.state.exists()


def test_config_names_another_settings_file(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    (archive.folder / "enroll.toml").write_text('group_id = "guests"')
    (archive.folder / "night.toml").write_text('group_id = "staff"')
    done = command("run", "staff.csv", "--config", "night.toml")
    assert (done.code, "(night.toml)" in done.err) == (0, True), done


@pytest.mark.parametrize(
    "setting",
    [
        'columns = "user_id=NO,image=PHOTO"',
        'columns = ["user_id=NO", "image=PHOTO"]',
        '[columns]\nuser_id = "NO"\nimage = "PHOTO"',
    ],
)
def test_an_option_of_several_values_may_be_text_a_list_or_a_table(
    archive: Archive, command: Command, setting: str
) -> None:
    archive.portraits(1)
    archive.manifest([("a1", "Ada", "photos/1.jpg")], head="NO,user_data,PHOTO")
    assert command("plan", "staff.csv").code == 2
    (archive.folder / "enroll.toml").write_text(setting)
    assert command("plan", "staff.csv").code == 0
    (archive.folder / "enroll.toml").unlink()
    command.environ["ENROLL_COLUMNS"] = "user_id=NO,image=PHOTO"
    assert command("plan", "staff.csv").code == 0


def test_every_kind_of_option_can_stand_in_the_file(archive: Archive, command: Command) -> None:
    archive.manifest([*archive.portraits(1, 2), ("a 3", "", "x.jpg")])
    (archive.folder / "enroll.toml").write_text(
        'group-id = "staff"\nmax-in-flight = 2\nsend_as = "image"\nfail_on = "none"\n'
        "progress = false\nquiet = true\ntimeout = 20\nlimit = 1\nlog-file = 'run.log'\n"
        'json = true\nrate = 7.5\non_code = {X = "stop"}\n'
    )
    done = command("run", "staff.csv", "--config", "enroll.toml")
    assert (done.code, done.err) == (6, ""), done
    assert (archive.folder / "run.log").exists()
    assert command("status", "--config", "enroll.toml").out.startswith("{")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "max_in_flight = 'many'",
            "is not a whole number; auto is also allowed. (from enroll.toml)",
        ),
        ("group_id = ['a', 'b']", "give one value (from enroll.toml)"),
        ("fail_on = 'sometimes'", "'sometimes' is not one of 'any', 'new', 'none'. (from"),
        ("on_code = 'X'", "'X' is not of the form CODE=RULE (from enroll.toml)"),
    ],
)
def test_a_setting_that_cannot_be_used_says_where_it_stands(
    archive: Archive, command: Command, setting: str, sentence: str
) -> None:
    archive.manifest(archive.portraits(1))
    (archive.folder / "enroll.toml").write_text(setting)
    done = command("run", "staff.csv")
    assert (done.code, sentence in done.err) == (2, True), done


def test_a_variable_that_cannot_be_used_is_named(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    command.environ["ENROLL_TIMEOUT"] = "soon"
    done = command("run", "staff.csv")
    assert (done.code, "(from ENROLL_TIMEOUT)" in done.err) == (2, True), done


# Ledgers


def test_a_ledgers_default_place_is_named_by_host_and_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    place = default_ledger_path("https://API-sgp.yljz.com:8443/x", "../a b/ü")
    assert place.parent == tmp_path / "enroll" / "api-sgp.yljz.com"
    assert place.name == "..%2Fa%20b%2F%C3%BC.sqlite"


def test_without_a_home_a_ledger_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(UsageError, match="--ledger FILE"):
        default_ledger_path("https://a.example", "staff")


def test_a_ledger_is_found_by_name_by_library_or_because_it_is_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    named = Path("a.sqlite")
    assert find_ledger(ledger=named, endpoint=None, group_id="staff") == named
    with pytest.raises(UsageError, match="There is no ledger below"):
        find_ledger(ledger=None, endpoint=None, group_id=None)
    made = [
        default_ledger_path(f"https://{host}.example", group_id)
        for host, group_id in (("a", "staff"), ("a", "guests"), ("b", "guests"))
    ]
    for path in made:
        assert find_ledger(ledger=None, endpoint="https://a.example", group_id="x") != path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if path is made[0]:
            assert find_ledger(ledger=None, endpoint=None, group_id=None) == path
    assert find_ledger(ledger=None, endpoint=None, group_id="staff") == made[0]
    assert find_ledger(ledger=None, endpoint="https://b.example", group_id="guests") == made[2]
    assert find_ledger(ledger=None, endpoint="https://b.example", group_id=None) == made[2]
    with pytest.raises(UsageError, match=r"There are 2 ledgers: .*/a\.example/"):
        find_ledger(ledger=None, endpoint="https://a.example", group_id=None)
    with pytest.raises(UsageError, match=r"There is no ledger below .*/c\.example\."):
        find_ledger(ledger=None, endpoint="https://c.example", group_id=None)
    with pytest.raises(UsageError, match=r"There is no ledger of the library x below .*\."):
        find_ledger(ledger=None, endpoint=None, group_id="x")
    for group_id, count in ((None, 3), ("guests", 2)):
        with pytest.raises(UsageError, match=f"There are {count} ledgers: .* --ledger or --group"):
            find_ledger(ledger=None, endpoint=None, group_id=group_id)


def test_what_a_ledger_keeps_of_the_settings_are_plain_values() -> None:
    settings = RunSettings(
        manifest=Path("staff.csv"),
        group_id="staff",
        images=Path("photos"),
        on_code={"B": CodeRule.STOP, "A": CodeRule.RETRY},
        retry=frozenset({"Y", "X"}),
    )
    kept = settings.record()
    assert kept["on_code"] == {"A": "retry", "B": "stop"}
    assert kept["retry"] == ["X", "Y"]
    assert kept["images"] == "photos"


def test_every_setting_of_the_preparation_decides_which_rows_are_due(tmp_path: Path) -> None:
    usual = RunSettings(manifest=tmp_path / "a.csv", group_id="staff")
    for name, other in {
        "max_side": 1000,
        "max_bytes": 100_000,
        "max_pixels": 10_000,
        "convert": False,
        "accept_truncated": True,
        "send_as": SendAs.IMAGE,
    }.items():
        changed = replace(usual, **{name: other})  # type: ignore[arg-type]
        assert changed.due_rules() != usual.due_rules(), name
        assert changed.preparation != usual.preparation, name
    assert {one.name for one in fields(Preparation)} <= set(usual.due_rules()[-1])


def test_every_setting_of_the_preparation_matters_to_a_code() -> None:
    usual = Preparation(heif=True)
    for name, other in {
        "max_side": 1000,
        "max_bytes": 100_000,
        "max_pixels": 10_000,
        "convert": False,
        "accept_truncated": True,
        "heif": False,
    }.items():
        changed = replace(usual, **{name: other})  # type: ignore[arg-type]
        assert marks(changed) != marks(usual), name


def test_a_share_allows_a_least_number_but_nothing_is_nothing() -> None:
    assert Bound(1, percent=True).most(100, least=10) == 10
    assert Bound(0, percent=True).most(100, least=10) == 0
    assert Bound(0).most(100, least=10) == 0


@pytest.mark.parametrize("name", ["max_removals", "max_missing"])
def test_nobody_may_allow_more_removals_or_missing_photos_than_all(name: str) -> None:
    def settings(bound: Bound) -> SyncSettings:
        given: dict[str, Any] = {name: bound}
        return SyncSettings(manifest=Path("staff.csv"), group_id="staff", **given)

    settings(Bound(100, percent=True))
    settings(Bound(101))
    with pytest.raises(UsageError, match=rf"--{name.replace('_', '-')}': 101% is more than 100%"):
        settings(Bound(101, percent=True))
    grown = Bound(250, percent=True)
    assert SyncSettings(manifest=Path("x"), group_id="x", max_changes=grown).max_changes == grown
