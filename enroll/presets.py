"""Settings from the environment and from enroll.toml: which source may set what, and which files
are trusted."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from enroll.addresses import is_url
from enroll.credentials import SECRET_NAMES
from enroll.errors import UsageError
from enroll.ownership import pasteable, why_untrusted

CONFIG_NAME = "enroll.toml"
"""The settings file that is read from the current folder without --config."""

PREFIX = "ENROLL_"
"""The prefix of environment variables."""


class Source(Enum):
    """Where an option's value may come from, besides the command line."""

    ANY = "any"
    """The environment, and any settings file."""
    NAMED = "named"
    """The environment, and a settings file that --config names. These options decide where
    photos and signatures are sent, which certificates are trusted, and which files are written; the
    folder in which a command happens to start must not."""
    COMMAND_LINE = "command line"
    """Nowhere: the option forces, confirms, retries or decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Settings from the environment and enroll.toml, and where each of them came from.

    `file` is the enroll.toml that was read, if there is one.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    file: Path | None = None


def preset(
    names: Iterable[str],
    *,
    config: Path | None,
    environ: Mapping[str, str],
    known: Mapping[str, Source],
) -> Preset:
    """The values of a command's options `names` from the environment, else from enroll.toml.

    Names have underscores; `known` has the options of all commands, as they share one file. Raises
    UsageError for a file that cannot be read or that others may have written, for a setting that
    does not exist or may not come from there, and for a secret.
    """
    names = [name for name in names if known[name] is not Source.COMMAND_LINE]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    path, text = (config, _named(config)) if config is not None else _found()
    if path is not None:
        for name, value in _settings(path, text, known, named=config is not None).items():
            if name in names:
                values[name], origins[name] = value, str(path)
    ours = _our_variables(environ)
    for name in names:
        variable = variable_of(name)
        if ours.get(variable):
            values[name], origins[name] = ours[variable], variable
    return Preset(values=values, origins=origins, file=path)


def variable_of(name: str) -> str:
    """The environment's name for an option."""
    return f"{PREFIX}{name.upper()}"


def check_variables(environ: Mapping[str, str], known: Mapping[str, Source]) -> None:
    """Raise UsageError when the environment sets what only the command line may: ignoring it would
    do something other than the user expects. `known` is as for `preset`."""
    ours = _our_variables(environ)
    wrong = {
        variable_of(name): _option(name)
        for name, source in sorted(known.items())
        if source is Source.COMMAND_LINE and variable_of(name) in ours
    }
    if not wrong:
        return
    variables, given = " and ".join(wrong), " and ".join(wrong.values())
    are, them = ("is", "it") if len(wrong) == 1 else ("are", "them")
    raise UsageError(
        f"{variables} {are} set, but {given} can only be given on the command line. "
        f"Unset {them}, and give the option where it is meant."
    )


def unknown_variables(environ: Mapping[str, str], known: Mapping[str, Source]) -> list[str]:
    """A sentence for each unknown variable with our prefix; `known` is as for `preset`.

    This is not an error: the variable may belong to another program.
    """
    ours = {variable_of(name): name for name in (*known, *SECRET_NAMES)}
    sentences = []
    for variable in sorted(_our_variables(environ)):
        if variable in ours:
            continue
        hint = ""
        if near := _near(variable.removeprefix(PREFIX).lower(), (*known, *SECRET_NAMES)):
            hint = f" Did you mean {variable_of(near)}?"
            if known.get(near) is Source.COMMAND_LINE:
                hint = f" Did you mean {_option(near)}? It can only be given on the command line."
        sentences.append(
            f"The variable {variable} is not a setting of enroll, so it is ignored.{hint}"
        )
    return sentences


_LIKENESS = 0.8
"""The similarity (0 to 1, of names without the prefix) from which on one name may be a misspelling
of another: LIMT and LIMIT have 0.89, PORT_80_TCP and PORT 0.53."""


def _near(name: str, names: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(name, sorted(names), n=1, cutoff=_LIKENESS)
    return found[0] if found else None


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


_OF_A_SERVICE = re.compile(
    r"\w+_(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
"""Variables of a Kubernetes service whose name begins with `enroll`; all pods near it have them:
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables"""


def _our_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables with our prefix. An empty one counts as not set."""
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(PREFIX)
        and value
        and not _OF_A_SERVICE.fullmatch(name)
        and not (name.endswith("_PORT") and "://" in value)  # a Kubernetes service's, too
    }


def _named(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"The settings file {path} cannot be read: {error.strerror}. Check --config.")


def _found() -> tuple[Path | None, bytes]:
    """The settings file of the current folder and its content; None when there is none.

    Folder and file are checked while they are open, so that nobody can replace them in between.
    """
    path = Path(CONFIG_NAME)
    try:
        folder = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None, b""  # any problem is reported when something is read or written there
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISLNK(os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode):
                raise _untrusted(path, "is a link")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, dir_fd=folder)
        except FileNotFoundError:
            return None, b""
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return None, b""
            if why := why_untrusted(found):
                raise _untrusted(path, why)
            if why := why_untrusted(os.fstat(folder)):
                raise _untrusted(path, f"is in a folder that {why}")
            return path, file.read()
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(folder)


def _untrusted(path: Path, why: str) -> UsageError:
    place = path.absolute()
    return UsageError(
        f"The settings file {place} {why}: somebody else may have written it, so nothing was "
        f"done. Check it; if it is what you want, name it with --config {CONFIG_NAME}, else "
        "delete it or start in another folder."
    )


def _settings(
    path: Path, text: bytes, known: Mapping[str, Source], *, named: bool
) -> dict[str, Any]:
    try:
        read = tomllib.loads(text.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"The settings file {path} is not valid TOML: {error}.") from error
    values = {name.replace("-", "_"): value for name, value in read.items()}
    if len(values) < len(read):
        twice = sorted(name for name in read if "-" in name and name.replace("-", "_") in read)
        raise UsageError(f"{path} sets {twice[0]} twice, with - and with _. Remove one of them.")
    for name, value in values.items():
        if isinstance(value, dict) and name not in TABLE_OPTIONS:
            raise UsageError(
                f"{path} has a section [{name}]; settings are written without sections, one on a "
                "line."
            )
        _refuse_setting(path, name, known, named=named)
    return {
        name: _below(path.parent, value) if name in PATH_OPTIONS else value
        for name, value in values.items()
    }


PATH_OPTIONS = frozenset(
    {"ledger", "images", "results", "credentials", "ca_bundle", "log_file", "store"}
    | {"differences", "report", "list", "summary", "metrics_file"}
)
"""Options that are paths; in enroll.toml they are relative to the file's folder."""

TABLE_OPTIONS = frozenset({"columns", "on_code"})
"""Options that map names to values; in enroll.toml they may be tables."""


def _refuse_setting(path: Path, name: str, known: Mapping[str, Source], *, named: bool) -> None:
    if name in SECRET_NAMES:
        raise UsageError(
            f"{path} holds {name}: key and secret belong in a credentials file (--credentials) or "
            "in ENROLL_API_KEY and ENROLL_API_SECRET. Remove it, and replace the key if others "
            "can read the file."
        )
    if name not in known:
        near = _near(name, known)
        hint = f" Did you mean {near}?" if near else ""
        raise UsageError(f"{path} sets {name}, which is not an option of enroll.{hint}")
    if known[name] is Source.COMMAND_LINE:
        raise UsageError(
            f"{path} sets {name}, which can only be given on the command line: it forces, "
            "confirms, retries or decides. Remove it from the file."
        )
    if known[name] is Source.NAMED and not named:
        raise UsageError(
            f"{path.absolute()} sets {name}, which is not taken from a file that was only found "
            "in the current folder: it decides where something is sent or written, or what is run. "
            f"If that is what you want, name the file with {pasteable('--config', path)}; else "
            f"remove {name} from it, and use {_option(name)} or {variable_of(name)}."
        )


def _below(folder: Path, value: Any) -> Any:
    if not isinstance(value, str) or value in ("none", "-") or is_url(value):
        return value
    return str(folder / Path(value).expanduser())
