"""Where key and secret come from, and who may read them."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_command import Command
from small_archive import Archive

from enroll.credentials import read_credentials
from enroll.errors import UsageError
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


def test_a_named_credentials_file_goes_before_the_environment(tmp_path: Path) -> None:
    file = written(tmp_path / "credentials", "api_key=file\napi_secret=file\n")
    environ = {"ENROLL_API_KEY": "key", "ENROLL_API_SECRET": "secret"}
    assert read_credentials(file, environ) == Credentials("file", "file")


def test_a_credentials_file_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "credentials", "api_key=key\napi_secret=secret\n", mode=0o644)
    with pytest.raises(UsageError, match=f"Run `chmod 600 {file}`"):
        read_credentials(file, {})


def test_the_credentials_file_in_the_configuration_folder_is_found(
    archive: Archive, command: Command, box: Sandbox
) -> None:
    archive.manifest(archive.people(1))
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
        ({"ENROLL_API_KEY": "key"}, "ENROLL_API_SECRET is not set, though its fellow is"),
        ({"ENROLL_API_SECRET": "secret"}, "ENROLL_API_KEY is not set, though its fellow is"),
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
    assert repr(Credentials("key-xyz", "secret-xyz")) == "Credentials()"
