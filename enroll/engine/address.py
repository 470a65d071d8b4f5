"""The address of a Dask scheduler, as `--scheduler` takes it. Needs no Dask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

from enroll import threads
from enroll.addresses import is_loopback
from enroll.errors import UsageError
from enroll.settings import LOCAL

MOST_LOCAL = 256
"""Worker processes that `local:N` starts at most."""

MISSING_EXTRA = (
    "--engine dask needs the extra dask, which is not installed: pip install 'enroll[dask]'."
)


@dataclass(frozen=True, slots=True)
class Local:
    """Worker processes on this machine, as many as `workers`."""

    workers: int


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A scheduler that runs already."""

    text: str
    tls: bool


def check_dask(scheduler: str) -> None:
    """Raise UsageError where `--engine dask` cannot work: without the extra, or with an address
    that must not be used."""
    if find_spec("distributed") is None or find_spec("cryptography") is None:
        raise UsageError(MISSING_EXTRA)
    parse_scheduler(scheduler)


def parse_scheduler(text: str) -> Local | Scheduler:
    """What `--scheduler` means. Raises UsageError for what it must not be."""
    if text == LOCAL:
        return Local(threads.count())
    if text.startswith(f"{LOCAL}:"):
        number = text.removeprefix(f"{LOCAL}:")
        if re.fullmatch(r"[0-9]{1,4}", number) and 1 <= int(number) <= MOST_LOCAL:
            return Local(int(number))
        raise UsageError(
            f"--scheduler {text!r} does not say how many worker processes to start: give "
            f"local:N, with N from 1 to {MOST_LOCAL}."
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    plain = f"{parts.scheme}://{parts.netloc}" == text if host and port else False
    if not plain or parts.scheme not in ("tls", "tcp") or "@" in text:
        raise UsageError(
            f"--scheduler {text!r} is not the address of a Dask scheduler: give tls://HOST:PORT, "
            "or local:N for worker processes on this machine."
        )
    if not is_safe(text):
        raise UsageError(
            f"--scheduler {text} is not encrypted, and whoever can reach it can run anything on "
            "its workers. Use tls:// (tcp:// is only for 127.0.0.1 and localhost)."
        )
    return Scheduler(text, tls=parts.scheme == "tls")


def is_safe(address: str) -> bool:
    """Whether an address is encrypted, or cannot be reached from elsewhere."""
    parts = urlsplit(address)
    return parts.scheme in ("tls", "inproc") or is_loopback(parts.hostname or "")
