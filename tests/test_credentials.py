"""Where key and secret come from, and who may read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive import GROUP, Archive
from real_command import Command

from enroll import credentials
from enroll.commands.run import enroll_manifest
from enroll.credentials import credentials_files, has_credentials, read_credentials
from enroll.errors import ExitCode, UsageError
from enroll.model import Credentials
from enroll.sandbox import Sandbox


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_credentials_come_from_the_environment() -> None:
    environ = {"ENROLL_API_KEY": "key", "ENROLL_API_SECRET": "secret\n"}
    assert read_credentials(None, environ) == Credentials("key", "secret")


@pytest.mark.parametrize(
    "text",
    [
        'api_key = "key"\napi_secret = "secret"\n',
        "api_key=key\napi_secret=secret",
        "# mine\nexport ENROLL_API_KEY='key'\nexport ENROLL_API_SECRET='secret'\n",
        '\ufeff{\n  "api_key": "key",\n  "api_secret": "secret"\n}',
    ],
)
def test_a_credentials_file_may_be_written_in_several_ways(tmp_path: Path, text: str) -> None:
    file = written(tmp_path / "credentials", text)
    assert read_credentials(file, {}) == Credentials("key", "secret")


def test_a_value_in_quotes_may_hold_blanks_and_one_that_may_be_cut_is_refused(
    tmp_path: Path,
) -> None:
    text = "api_key = key # ours\napi_secret = \"a secret, with # and 'quotes'\"\n"
    file = written(tmp_path / "credentials", text)
    assert read_credentials(file, {}) == Credentials("key", "a secret, with # and 'quotes'")
    for line in ("a secret", '"a secret', '"a" secret', "a'b"):
        written(file, f"api_key = key\napi_secret = {line}\n")
        with pytest.raises(UsageError, match="line 2: it is not clear where api_secret ends"):
            read_credentials(file, {})


def test_a_named_credentials_file_goes_before_the_environment(tmp_path: Path) -> None:
    file = written(tmp_path / "credentials", "api_key=file\napi_secret=file\n")
    environ = {"ENROLL_API_KEY": "key", "ENROLL_API_SECRET": "secret"}
    assert read_credentials(file, environ) == Credentials("file", "file")


def test_a_credentials_file_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "credentials", "api_key=key\napi_secret=secret\n", mode=0o644)
    with pytest.raises(UsageError, match=f"Run `chmod 600 {file}`"):
        read_credentials(file, {})


def test_credentials_that_others_may_write_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "credentials", "api_key=key\napi_secret=secret\n", mode=0o660)
    with pytest.raises(UsageError, match=f"can be written by others.*`chmod go-w {file}`"):
        read_credentials(file, {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
@pytest.mark.parametrize("named", [True, False])
def test_another_users_credentials_are_refused(tmp_path: Path, named: bool) -> None:
    file = written(tmp_path / "enroll", "api_key=key\napi_secret=secret\n")
    os.chown(file, 54_321, -1)
    with pytest.raises(UsageError, match=r"credentials file .* belongs to user 54321"):
        read_credentials(
            file if named else None, {"CREDENTIALS_DIRECTORY": "" if named else str(tmp_path)}
        )


def test_the_credentials_file_in_the_configuration_folder_is_found(
    archive: Archive, command: Command, box: Sandbox
) -> None:
    archive.manifest(archive.portraits(1))
    key, secret = command.environ.pop("ENROLL_API_KEY"), command.environ.pop("ENROLL_API_SECRET")
    done = command("run", "staff.csv", "--group-id", "staff")
    place = command.home / "config" / "enroll" / "credentials"
    assert (done.code, str(place) in done.err) == (2, True), done
    place.parent.mkdir(parents=True)
    written(place, f"api_key={key}\napi_secret={secret}\n")
    assert command("run", "staff.csv", "--group-id", "staff").code == 0


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"ENROLL_API_KEY": "key"}, "ENROLL_API_KEY is set, but ENROLL_API_SECRET is not."),
        ({"ENROLL_API_SECRET": "secret"}, "ENROLL_API_SECRET is set, but ENROLL_API_KEY is not."),
    ],
)
def test_half_of_the_credentials_is_none(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read_credentials(None, environ)


def test_a_credentials_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_credentials(tmp_path / "nothere", {})
    (tmp_path / "key").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(UsageError, match="is not text in UTF-8"):
        read_credentials(tmp_path / "key", {})


def test_credentials_show_nothing_of_themselves() -> None:
    assert repr(Credentials("key-xyz", "secret-xyz", "keys")) == "Credentials()"
    assert Credentials("key-xyz", "secret-xyz", "keys").described == "key … (keys)"
    assert Credentials("0123456789abcdef", "secret-xyz").described == "key 0123…"


@pytest.mark.parametrize("name", ["ENROLL_API_KEY", "ENROLL_API_SECRET"])
def test_a_key_or_secret_that_is_not_utf_8_is_refused_and_not_shown(
    archive: Archive, command: Command, name: str
) -> None:
    archive.manifest(archive.portraits(1))
    command.environ[name] = os.fsdecode(b"hush-\xff-hush")
    for arguments in (("run", "staff.csv", "--group-id", "staff"), ("library", "list")):
        done = command.run(*arguments)
        assert (done.code, "hush" in done.err) == (2, False), done
        where = "(ENROLL_API_KEY and ENROLL_API_SECRET) is not text in UTF-8."
        assert f"The {name.removeprefix('ENROLL_').lower()} {where}" in done.err
    with pytest.raises(UsageError, match=r"^The api_secret is not text in UTF-8\."):
        Credentials("key", "\udcff")


# Handed over by systemd


def test_what_systemd_hands_over_is_found_by_its_name(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    with pytest.raises(UsageError, match="There are no credentials"):
        read_credentials(None, {**environ, "HOME": str(tmp_path)})
    file = written(tmp_path / "enroll", "api_key=key\napi_secret=secret\n", mode=0o400)
    assert has_credentials(None, environ)
    assert read_credentials(None, environ) == Credentials("key", "secret")
    assert credentials_files(None, environ) == {"the credentials file": file}
    both = {**environ, "ENROLL_API_KEY": "other", "ENROLL_API_SECRET": "other"}
    assert read_credentials(None, both) == Credentials("other", "other")


def test_a_run_takes_what_systemd_hands_over(
    box: Sandbox, archive: Archive, command: Command, tmp_path: Path
) -> None:
    archive.manifest(archive.portraits(1))
    key, secret = command.environ.pop("ENROLL_API_KEY"), command.environ.pop("ENROLL_API_SECRET")
    written(tmp_path / "enroll", f"api_key={key}\napi_secret={secret}\n", mode=0o400)
    command.environ["CREDENTIALS_DIRECTORY"] = str(tmp_path)
    run = ("run", "staff.csv", "--group-id", "staff")
    assert command(*run, "--limit", "1").code == 0
    done = command(*run, "--results", tmp_path / "enroll")
    assert (done.code, "would overwrite the credentials file" in done.err) == (2, True), done


# Mounted by Kubernetes


def mount(folder: Path, generation: int, key: str, secret: str, *, mode: int = 0o440) -> None:
    """Write a secret as the kubelet does: a new folder, then one link that is exchanged."""
    folder.mkdir(exist_ok=True)
    there = folder / f"..2026_11_25_{generation}"
    there.mkdir()
    written(there / "api_key", key, mode=mode)
    written(there / "api_secret", secret, mode=mode)
    (folder / "..new").symlink_to(there.name)
    (folder / "..new").rename(folder / "..data")
    for name in ("api_key", "api_secret"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def test_a_mounted_secret_is_read_and_read_anew_when_its_link_is_exchanged(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    mount(secrets, 1, "key-1\n", "secret-1\n")
    assert read_credentials(secrets, {}) == Credentials("key-1", "secret-1")
    mount(secrets, 2, "key-2", "secret-2")
    assert read_credentials(secrets, {}) == Credentials("key-2", "secret-2")
    assert set(credentials_files(secrets, {}).values()) == {
        secrets / "api_key",
        secrets / "api_secret",
    }


def test_key_and_secret_of_a_mounted_secret_are_of_one_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    mount(secrets, 1, "key-1", "secret-1")
    plain = credentials._read

    def exchanged_after_the_first(path: Path) -> str:
        text = plain(path)
        if not (secrets / "..2026_11_25_2").exists():
            mount(secrets, 2, "key-2", "secret-2")
            for old in (secrets / "..2026_11_25_1").iterdir():
                old.unlink()
            (secrets / "..2026_11_25_1").rmdir()
        return text

    monkeypatch.setattr(credentials, "_read", exchanged_after_the_first)
    assert read_credentials(secrets, {}) == Credentials("key-2", "secret-2")


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_credentials_that_a_group_can_read_are_taken(tmp_path: Path, mode: int) -> None:
    mount(tmp_path / "secrets", 1, "key", "secret", mode=mode)
    assert read_credentials(tmp_path / "secrets", {}) == Credentials("key", "secret")
    file = written(tmp_path / "file", "api_key=key\napi_secret=secret\n", mode=mode)
    assert read_credentials(file, {}) == Credentials("key", "secret")


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o404])
def test_a_mounted_secret_that_everybody_can_read_is_refused_with_the_fields_to_set(
    tmp_path: Path, mode: int
) -> None:
    secrets = tmp_path / "secrets"
    mount(secrets, 1, "key", "secret", mode=mode)
    with pytest.raises(UsageError, match="`defaultMode: 0440`, and let the pod's `fsGroup`"):
        read_credentials(secrets, {})
    whole = secrets / "..2026_11_25_1" / "credentials"  # a secret with the whole file in one key
    written(whole, "api_key=key\napi_secret=secret\n", mode=mode)
    (secrets / "credentials").symlink_to("..data/credentials")
    with pytest.raises(UsageError, match="defaultMode: 0440"):
        read_credentials(secrets / "credentials", {})
    whole.chmod(0o440)
    assert read_credentials(secrets / "credentials", {}) == Credentials("key", "secret")


def test_a_folder_without_a_secret_is_one_sentence(tmp_path: Path) -> None:
    written(tmp_path / "api_key", "key")
    with pytest.raises(UsageError, match="api_secret cannot be read: No such file"):
        read_credentials(tmp_path, {})
    written(tmp_path / "api_secret", "\n")
    with pytest.raises(UsageError, match="is empty"):
        read_credentials(tmp_path, {})


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Archive]:
    with Sandbox(detect=False) as box:
        box.create_library(GROUP)
        yield Archive(tmp_path, box)


def test_a_run_goes_on_with_a_mounted_secret_that_is_exchanged_meanwhile(place: Archive) -> None:
    place.people(*range(4))
    secrets = place.folder / "secrets"
    key, secret = place.box.api_key, place.box.api_secret
    mount(secrets, 1, "key-of-yesterday", "secret-of-yesterday")
    asked = 0

    def read() -> Credentials:
        nonlocal asked
        found, asked = read_credentials(secrets, {}), asked + 1
        if asked == 1:
            mount(secrets, 2, key, secret)
        return found

    assert enroll_manifest(place.settings(), read).exit_code is ExitCode.DONE
    assert asked == 2


def test_a_pipe_is_no_credentials_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageError, match="is not a regular file, so it could not be read again"):
        read_credentials(tmp_path / "pipe", {})
