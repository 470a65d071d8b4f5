"""The options of the functions for Python: their types, and from where they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, TypeVar

from enroll.addresses import ledger_named
from enroll.cli.command import file_settings, option_values
from enroll.credentials import credentials_are_fixed, credentials_files, read_credentials
from enroll.errors import UsageError
from enroll.model import Credentials, Role
from enroll.settings import (
    DEFAULT_ENDPOINT,
    Bound,
    CallSettings,
    RunSettings,
    default_ledger_path,
    find_ledger,
)
from enroll.timetable import Timetable

PathLike: TypeAlias = "str | os.PathLike[str]"
"""A path, as text or as a `pathlib.Path`."""

CredentialsLike: TypeAlias = "Credentials | PathLike | Callable[[], Credentials] | None"
"""Key and secret as `Credentials`; the path of a file or folder with them; a function that returns
them, and is called again when the service refuses a signature; or None: from the environment or
the default file, as for the command."""

S = TypeVar("S", bound=RunSettings)


class SharedOptions(TypedDict, total=False):
    """Options of every command with a manifest, by their names with underscores; docs/reference.md
    describes them. Text is read as on the command line: `memory="2GB"`."""

    endpoint: str
    images: PathLike
    columns: Mapping[str, str]
    encoding: str
    sheet: str
    header_row: int
    delimiter: str
    photo: str
    id_from: Iterable[str]
    max_in_flight: int | str
    multi_oriented_detection: bool
    send_as: str
    memory: int | str


class PhotoOptions(SharedOptions, total=False):
    """Options of `plan`, `run` and `sync`."""

    rate: float | str | Timetable
    max_side: int
    max_bytes: int
    max_pixels: int
    convert: bool
    accept_truncated: bool
    precheck: str
    min_face: int
    lookalikes: str
    readers: int
    retry: Iterable[str]
    checksum: bool


class PlanOptions(PhotoOptions, total=False):
    """Options of `enroll plan`."""

    sample: int
    seed: int


class CallOptions(PhotoOptions, total=False):
    """Options of `enroll run` and `enroll sync`."""

    results: PathLike
    timeout: float
    ca_bundle: PathLike
    allow_http: bool
    attempts: int
    give_up_after: float
    credentials_grace: float
    drain: float
    settle_after: float
    max_calls: int
    max_duration: float | str
    on_code: Mapping[str, str]
    fail_on: str
    allow_nonempty: bool
    create_library: bool
    engine: str
    scheduler: str


class RunOptions(CallOptions, total=False):
    """Options of `enroll run`."""

    limit: int
    sample: int
    seed: int


class SyncOptions(CallOptions, total=False):
    """Options of `enroll sync`; a bound is a number, or text such as `"1%"`."""

    max_removals: int | str | Bound
    max_changes: int | str | Bound
    max_missing: int | str | Bound
    grace: float
    differences: PathLike


class AdoptOptions(SharedOptions, total=False):
    """Options of `enroll adopt`."""

    timeout: float
    ca_bundle: PathLike
    allow_http: bool


class LibraryOptions(TypedDict, total=False):
    """Options of the commands that work on an existing ledger or library. Without `ledger` it is
    the library's, and without `group_id` the only one; without `endpoint` it is that of the
    ledger's last run."""

    group_id: str
    ledger: PathLike
    endpoint: str
    timeout: float
    ca_bundle: PathLike
    allow_http: bool


class WhoOptions(LibraryOptions, total=False):
    """Options of `enroll who`."""

    limit: int
    max_side: int
    multi_oriented_detection: bool


class LedgerOptions(LibraryOptions, total=False):
    """Options of the commands that work on an existing ledger."""

    max_in_flight: int | str


class AuditOptions(LedgerOptions, total=False):
    """Options of `enroll audit`."""

    seed: int
    score: float
    unlike: float
    max_calls: int
    rate: float | str | Timetable


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of several commands, such as those of an `enroll.toml`; arguments override them.

    `values` have the names of the file, with underscores. Each function takes those that its
    command has.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @classmethod
    def from_toml(cls, path: PathLike) -> Settings:
        """The settings in a file, with the names and the rules of the command's `--config`. Paths
        are relative to the file. Raises `EnrollError` for a file that cannot be read, or a setting
        that no command has."""
        return cls(file_settings(Path(path)), Path(path))


def taken(
    command: str,
    settings: Settings | None,
    given: Mapping[str, Any],
    *,
    names: Iterable[str],
) -> dict[str, Any]:
    """A command's values of `names`, as its settings take them: those given that are not None, else
    those of the settings. Raises UsageError, and TypeError for other names given."""
    names = frozenset(names)
    for name in given:
        if name not in names:
            raise TypeError(f"{command}() got an unexpected keyword argument {name!r}")
    values: dict[str, Any] = {}
    if not isinstance(settings, Settings | None):
        raise UsageError("settings is not enroll.Settings. Read a file with Settings.from_toml().")
    if settings is not None:
        known = option_values(command, settings.values, origin=str(settings.file or "settings"))
        values = {name: value for name, value in known.items() if name in names}
    given = {name: value for name, value in given.items() if value is not None}
    texts = {name: _as_text(name, value) for name, value in given.items()}
    texts = {name: text for name, text in texts.items() if text is not None}
    return values | given | option_values(command, texts)


def taken_with_credentials(
    command: str,
    settings: Settings | None,
    given: Mapping[str, Any],
    credentials: CredentialsLike,
    *,
    names: Iterable[str],
) -> tuple[dict[str, Any], CredentialsLike]:
    """The same, with the credentials apart: those given, else those of the settings."""
    values = taken(command, settings, given, names=names)
    of_settings = values.pop("credentials", None)
    return values, of_settings if credentials is None else credentials


_BOUNDS = frozenset({"max_removals", "max_changes", "max_missing"})


def _as_text(name: str, value: Any) -> Any:
    """A value as it would be on the command line; None for one that needs no conversion."""
    if isinstance(value, str):
        return None if name == "id_from" else value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if name in _BOUNDS and isinstance(value, int | float):
        return str(value)
    if name == "retry":
        return list(value)
    return None


OURS = frozenset({"manifest", "write_results", "origins", "in_use", "written", "summary", "accept"})
"""Fields of settings that are no options here."""


def names_of(kind: type[CallSettings], *more: str) -> frozenset[str]:
    """The options that settings of this kind have, and `more`."""
    return frozenset({*(one.name for one in fields(kind)), "credentials", *more}) - OURS


def place_of_ledger(values: Mapping[str, Any]) -> Path:
    """Where a library's ledger is or will be. Raises UsageError."""
    if (named := values.get("ledger")) is not None:
        return ledger_named(named).absolute()
    if not values.get("group_id"):
        raise UsageError("group_id is needed: the library to enroll into.")
    return default_ledger_path(values.get("endpoint", DEFAULT_ENDPOINT), values["group_id"])


NOWHERE = Path("none")
"""`results="none"` writes none."""


def run_settings(
    kind: type[S],
    values: Mapping[str, Any],
    manifest: Path,
    *,
    credentials: CredentialsLike,
    settings: Settings | None,
    in_memory: bool,
) -> S:
    """The settings of a run, a sync or a plan. What says how a list is read does not concern rows
    in memory. Raises UsageError."""
    values = {name: value for name, value in values.items() if name in names_of(kind)}
    results = values.pop("results", None)
    written = {"the differences": values["differences"]} if values.get("differences") else {}
    files = _files(credentials, settings, values.get("ca_bundle"))
    if values.get("min_face") and values.get("precheck", "off") == "off" and settings is not None:
        values.pop("min_face")  # a file that serves several commands
    if isinstance(credentials, Credentials) or (
        not callable(credentials) and credentials_are_fixed(_path(credentials), os.environ)
    ):
        values["credentials_grace"] = 0.0
    if in_memory:
        for name in ("columns", "sheet", "header_row", "photo", "id_from"):
            values.pop(name, None)
        values |= {"encoding": "utf-8", "delimiter": ","}
        if values["images"] is None:  # photos as bytes; named, so that cells may be as long as any
            values["columns"] = {Role.PHOTO_BASE64: Role.PHOTO_BASE64.value}
    return kind(
        manifest=manifest,
        results=None if results == NOWHERE else results,
        write_results=results != NOWHERE and not (in_memory and results is None),
        in_use=files | written,
        written=written,
        **{"group_id": "", **values},
    )


def session_values(
    command: str,
    kind: type[CallSettings],
    given: Mapping[str, Any],
    credentials: CredentialsLike,
    settings: Settings | None,
) -> tuple[dict[str, Any], CredentialsLike]:
    """The same for a command on an existing ledger, which is found; and the credentials. Raises
    UsageError."""
    values, credentials = taken_with_credentials(
        command, settings, given, credentials, names=names_of(kind)
    )
    ledger = find_ledger(**library_of(values))
    files = _files(credentials, settings, values.get("ca_bundle"))
    return {**values, "ledger": ledger, "in_use": files}, credentials


def library_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that say which library is meant."""
    return {name: values.get(name) for name in ("ledger", "endpoint", "group_id")}


def _path(credentials: CredentialsLike) -> Path | None:
    return Path(credentials) if isinstance(credentials, str | os.PathLike) else None


def _files(
    credentials: CredentialsLike, settings: Settings | None, ca_bundle: Path | None
) -> dict[str, Path]:
    """The files that are read besides ledger and manifest, by what they are."""
    ours = not (callable(credentials) or isinstance(credentials, Credentials))
    files: dict[str, Path | None] = {
        **(credentials_files(_path(credentials), os.environ) if ours else {}),
        "the settings file": None if settings is None else settings.file,
        "the certificates": ca_bundle,
    }
    return {what: path for what, path in files.items() if path is not None}


def reader(credentials: CredentialsLike) -> Callable[[], Credentials]:
    """Reads key and secret, each time that they are needed. Raises UsageError."""
    if isinstance(credentials, Credentials):
        return lambda: credentials
    if callable(credentials):
        return credentials
    if credentials is not None and not isinstance(credentials, str | os.PathLike):
        raise UsageError("The credentials are neither enroll.Credentials, a path nor a function.")
    path = _path(credentials)
    return lambda: read_credentials(path, os.environ)
