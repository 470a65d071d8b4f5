"""The ways to enroll a manifest that are measured beside each other: ours and the rivals'.

Each way makes a command for a manifest in an empty folder, and afterwards counts the face tokens
that the folder holds, so that nobody is quick by leaving something out.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from .figures import OURS
from .nginx import ADD, GROUP_ID
from .process import Usage, measured
from .programs import find

IN_FLIGHT = 16

KEY, SECRET = "bench-key", "bench-secret"
"""Of an account that exists on this machine only, while the suite runs."""

REQUESTS = "requests + threads"
AIOHTTP = "aiohttp"
CURL = "curl --parallel"
PARALLEL = "GNU parallel + curl"

_RIVALS = Path(__file__).parents[1] / "rivals"

Command = Sequence[str | Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """`prepare` is made before the clock starts, and may be empty; `tokens` counts what came."""

    command: Callable[[Path, str, Path], Command]
    """From manifest, endpoint and folder."""
    tokens: Callable[[Path], int]
    prepare: Callable[[Path, str, Path], Command] = lambda manifest, endpoint, folder: ()
    environ: Mapping[str, str] = field(default_factory=dict)
    """Variables beside the usual ones."""


def trusting(way: Way, authority: Path) -> Way:
    """The same way, where the server's certificate is of this authority. One of the variables is
    ours, the other that of requests."""
    trusted = {"ENROLL_CA_BUNDLE": str(authority), "REQUESTS_CA_BUNDLE": str(authority)}
    return replace(way, environ=trusted)


def surroundings(folder: Path, endpoint: str) -> dict[str, str]:
    """The whole environment of a command, whose home is `folder`."""
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "ENROLL_ENDPOINT": endpoint,
        "ENROLL_API_KEY": KEY,
        "ENROLL_API_SECRET": SECRET,
    }


def ours(
    word: str, manifest: Path, folder: Path, *options: str | Path, ledger: Path | None = None
) -> Command:
    """`enroll run` or `enroll plan`, with ledger and results in `folder`."""
    results = () if word == "plan" else ("--results", folder / "results.csv", "--no-progress")
    return (
        *(sys.executable, "-m", "enroll", word, manifest, "--group-id", GROUP_ID),
        *("--ledger", ledger or folder / "ledger.sqlite", *results, *options),
    )


def script(
    name: str, manifest: Path, endpoint: str, folder: Path, *, workers: int = IN_FLIGHT
) -> Command:
    """One of the Python scripts among the rivals."""
    return (
        *(sys.executable, _RIVALS / name, manifest, folder / "results.csv"),
        *("--endpoint", endpoint, "--group-id", GROUP_ID, "--workers", str(workers)),
    )


def run(way: Way, manifest: Path, endpoint: str, folder: Path, *, rows: int) -> Usage:
    """Enroll a manifest of so many rows in `folder`, which is made.

    Raises ClickException when there is not a token for each.
    """
    folder.mkdir(parents=True)
    environ = {**surroundings(folder, endpoint), **way.environ}
    prepare = way.prepare(manifest, endpoint, folder)
    if prepare:
        subprocess.run(prepare, cwd=folder, env=environ, check=True)
    used = measured(way.command(manifest, endpoint, folder), cwd=folder, environ=environ)
    found = way.tokens(folder)
    if found != rows:
        raise click.ClickException(f"{found} of {rows} rows have a token in {folder}.")
    return used


def _signed(option: str, name: str) -> Callable[[Path, str, Path], Command]:
    def prepare(manifest: Path, endpoint: str, folder: Path) -> Command:
        return (
            *(sys.executable, _RIVALS / "signed_rows.py", manifest, "--endpoint", endpoint),
            *("--group-id", GROUP_ID, option, folder / name),
        )

    return prepare


def tokens_in_results(folder: Path) -> int:
    """Rows of the results that have a token."""
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return sum(bool(line["face_token"]) for line in csv.DictReader(file))


def _in_answers(folder: Path) -> int:
    answers = (folder / "answers").glob("*.json")
    return sum(b'"face_token"' in answer.read_bytes() for answer in answers)


def _way_of(name: str) -> Way:
    """The way with one of the Python scripts among the rivals."""
    return Way(
        command=lambda manifest, endpoint, folder: script(name, manifest, endpoint, folder),
        tokens=tokens_in_results,
    )


def ways() -> dict[str, Way]:
    """Every way that this machine has the programs for, ours first."""
    found = {
        OURS: Way(
            command=lambda manifest, _, folder: ours(
                "run", manifest, folder, "--max-in-flight", str(IN_FLIGHT)
            ),
            tokens=tokens_in_results,
        ),
        REQUESTS: _way_of("with_requests.py"),
        AIOHTTP: _way_of("with_aiohttp.py"),
    }
    if find("curl"):
        found[CURL] = Way(
            prepare=_signed("--curl", "calls.curl"),
            command=lambda _manifest, _endpoint, folder: (
                *("sh", _RIVALS / "with_curl.sh", folder / "calls.curl", str(IN_FLIGHT)),
            ),
            tokens=_in_answers,
        )
    if find("curl") and find("parallel"):
        found[PARALLEL] = Way(
            prepare=_signed("--table", "rows.tsv"),
            command=lambda _, endpoint, folder: (
                *("sh", _RIVALS / "with_parallel.sh", folder / "rows.tsv", str(IN_FLIGHT)),
                *(f"{endpoint}{ADD}", GROUP_ID),
            ),
            tokens=_in_answers,
        )
    return found
