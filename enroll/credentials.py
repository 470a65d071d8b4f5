"""Reads key and secret from the environment, or from files that nobody else owns or can write."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from enroll.errors import UsageError
from enroll.model import Credentials
from enroll.ownership import check_trusted, pasteable

SECRET_NAMES = ("api_key", "api_secret")
"""The lines of a credentials file, and the files of a folder of credentials."""

SECRET_VARIABLES = ("ENROLL_API_KEY", "ENROLL_API_SECRET")
"""The same in the environment."""

_SNAPSHOT = "..data"
"""In a volume that Kubernetes mounts: the link to the folder with the files. It is replaced
atomically, so files that are read through one target of it belong together."""


def credentials_are_fixed(path: Path | None, environ: Mapping[str, str]) -> bool:
    """Whether key and secret come from the environment, so that nobody can replace them while the
    process lives."""
    return path is None and any(environ.get(name) for name in SECRET_VARIABLES)


def without_secrets(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for another program: all but key and secret."""
    return {name: value for name, value in environ.items() if name not in SECRET_VARIABLES}


def credentials_path(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file or folder to read: the one given, systemd's, or the default, if any.

    https://systemd.io/CREDENTIALS: `LoadCredential=enroll:FILE` lets a service find the file as
    `$CREDENTIALS_DIRECTORY/enroll`.
    """
    if path is not None:
        return path
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder and (handed := Path(folder) / "enroll").exists():
        return handed
    try:
        return platformdirs.user_config_path("enroll") / "credentials"
    except RuntimeError:  # no HOME, and a user id without a name, as in a container
        return None


def credentials_files(path: Path | None, environ: Mapping[str, str]) -> dict[str, Path]:
    """The files to read, by their description."""
    place = credentials_path(path, environ)
    if place is None:
        return {}
    if not place.is_dir():
        return {"the credentials file": place}
    return {f"the credentials' {name}": place / name for name in SECRET_NAMES}


def has_credentials(path: Path | None, environ: Mapping[str, str]) -> bool:
    """Whether there are any credentials for `read_credentials`."""
    named = environ.get("ENROLL_API_KEY") or environ.get("ENROLL_API_SECRET")
    place = credentials_path(None, environ)
    return bool(path or named) or (place is not None and place.exists())


def read_credentials(path: Path | None, environ: Mapping[str, str]) -> Credentials:
    """Key and secret, from ENROLL_API_KEY and ENROLL_API_SECRET or else from `credentials_path`.

    A file has lines `api_key = "…"` and `api_secret = "…"` (also with ENROLL_ before the
    names, and without quotes), a folder the two files `api_key` and `api_secret`. Raises UsageError
    when there are none, when everybody can read or others can write them, or when they belong to
    another user.
    """
    key, secret = environ.get("ENROLL_API_KEY"), environ.get("ENROLL_API_SECRET")
    if path is None and key and secret:
        return Credentials(key.strip(), secret.strip(), "ENROLL_API_KEY and ENROLL_API_SECRET")
    if path is None and (key or secret):
        names = list(SECRET_VARIABLES)
        given, missing = names if key else names[::-1]
        raise UsageError(f"{given} is set, but {missing} is not. Set both.")
    place = credentials_path(path, environ)
    if place is None or (path is None and not place.exists()):
        by_itself = f" (the default is {place})" if place is not None else ""
        raise UsageError(
            "There are no credentials. Set ENROLL_API_KEY and ENROLL_API_SECRET, or write them "
            f"into a file for --credentials{by_itself}."
        )
    return _of_folder(place) if place.is_dir() else _of_file(place)


_NAMED_LINE = re.compile(
    r"""\s*(?:export\s+)?["']?(?:enroll_)?(api_key|api_secret)["']?\s*[=:]\s*""", re.IGNORECASE
)

_VALUE = re.compile(r"""(?:"([^"]*)"|'([^']*)'|([^"'\s,]+))\s*,?\s*(?:#.*)?""")


def _of_file(path: Path) -> Credentials:
    found = {}
    for number, line in enumerate(_read(path).splitlines(), 1):
        if (name := _NAMED_LINE.match(line)) and (rest := line[name.end() :].rstrip()):
            value = _VALUE.fullmatch(rest)
            if value is None:
                raise UsageError(
                    f"The credentials file {path}, line {number}: it is not clear where {name[1]} "
                    "ends. Put it into double quotes, with nothing after them."
                )
            found.update({name[1].lower(): one for one in value.groups() if one})
    try:
        return Credentials(found["api_key"], found["api_secret"], str(path))
    except KeyError as error:
        raise UsageError(
            f"The credentials file {path} has no {error.args[0]}. It needs two lines: "
            'api_key = "…" and api_secret = "…".'
        ) from None


def _of_folder(folder: Path) -> Credentials:
    link = folder / _SNAPSHOT
    while True:
        snapshot = Path(os.path.realpath(link)) if link.is_dir() else folder
        try:
            key, secret = (_read(snapshot / name).strip() for name in SECRET_NAMES)
        except UsageError:
            if link.is_dir() and not snapshot.is_dir():
                continue  # the old target was removed after the link was resolved
            raise
        if key and secret:
            return Credentials(key, secret, str(folder))
        raise UsageError(f"A credentials file in {folder} is empty. Fill it.")


def _read(path: Path) -> str:
    try:
        # O_NONBLOCK: do not wait for a pipe, which is refused below.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)  # of the target, when path is a link
            if not stat.S_ISREG(found.st_mode):
                raise UsageError(
                    f"The credentials file {path} is not a regular file, so it could not be read "
                    "again when the service refuses the credentials. Write them into a file."
                )
            if found.st_mode & stat.S_IROTH:
                raise UsageError(
                    f"Everybody on this machine can read the credentials file {path}. "
                    f"{_remedy(path)}"
                )
            check_trusted(
                found,
                path,
                what="The credentials file",
                otherwise="name another with --credentials",
            )
            return file.read().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"The credentials file {path} cannot be read: {error.strerror}. Check --credentials."
        ) from error
    except UnicodeDecodeError:
        raise UsageError(f"The credentials file {path} is not text in UTF-8.") from None


def _remedy(path: Path) -> str:
    folder = Path(os.path.realpath(path)).parent
    if (path.parent / _SNAPSHOT).exists() or (folder.parent / _SNAPSHOT).exists():
        return (
            "Mount the secret with `defaultMode: 0440`, and let the pod's `fsGroup` be a group of "
            "the process; then start again."
        )
    return f"Run `{pasteable('chmod 600', path)}`, then the same command again."
