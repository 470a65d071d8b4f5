"""Key and secret: from the environment, or from a file that not everybody can read."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from enroll.errors import UsageError
from enroll.model import Credentials

SECRET_NAMES = ("api_key", "api_secret")


def default_credentials_path() -> Path:
    """Where credentials are looked for when nothing else is said."""
    return platformdirs.user_config_path("enroll") / "credentials"


def read_credentials(path: Path | None, environ: Mapping[str, str]) -> Credentials:
    """Key and secret, from ENROLL_API_KEY and ENROLL_API_SECRET or else a credentials file.

    The file has lines `api_key = "…"` and `api_secret = "…"` (also with ENROLL_ before the
    names, and without quotes). Raises UsageError where there are none, or where everybody can
    read the file.
    """
    key, secret = environ.get("ENROLL_API_KEY"), environ.get("ENROLL_API_SECRET")
    if path is None and key and secret:
        return Credentials(key.strip(), secret.strip())
    if path is None and (key or secret):
        missing = "ENROLL_API_SECRET" if key else "ENROLL_API_KEY"
        raise UsageError(f"{missing} is not set, though its fellow is. Set both.")
    file = path or default_credentials_path()
    if path is None and not file.exists():
        raise UsageError(
            "There are no credentials. Set ENROLL_API_KEY and ENROLL_API_SECRET, or write them "
            f"into a file for --credentials (by itself {file} is read)."
        )
    found = _read_credentials_file(file)
    try:
        return Credentials(found["api_key"], found["api_secret"])
    except KeyError as error:
        raise UsageError(
            f"The credentials file {file} has no {error.args[0]}. It needs two lines: "
            'api_key = "…" and api_secret = "…".'
        ) from None


_CREDENTIAL_LINE = re.compile(
    r"""^\s*(?:export\s+)?["']?(?:enroll_)?(api_key|api_secret)["']?\s*[=:]\s*["']?([^"'\s,]+)""",
    re.IGNORECASE,
)


def has_credentials(path: Path | None, environ: Mapping[str, str]) -> bool:
    """Whether there is anything that `read_credentials` could read."""
    named = environ.get("ENROLL_API_KEY") or environ.get("ENROLL_API_SECRET")
    return bool(path or named) or default_credentials_path().exists()


def _read_credentials_file(path: Path) -> dict[str, str]:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"The credentials file {path} cannot be read: {error.strerror}. Check --credentials."
        ) from error
    except UnicodeDecodeError:
        raise UsageError(f"The credentials file {path} is not text in UTF-8.") from None
    if mode & stat.S_IROTH:
        raise UsageError(
            f"Everybody on this machine can read the credentials file {path}. "
            f"Run `chmod 600 {path}`, then again."
        )
    lines = map(_CREDENTIAL_LINE.match, text.splitlines())
    return {line[1].lower(): line[2] for line in lines if line}
