"""Options that several commands share, and where their values come from when not given."""

from __future__ import annotations

import errno
import importlib
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from enroll.credentials import credentials_files
from enroll.errors import EnrollError, LocalError
from enroll.expiry import DEFAULT_TIMEOUT
from enroll.output.logs import log, logs_json
from enroll.output.printing import as_shown, say_aside
from enroll.settings import (
    CONFIG_NAME,
    DEFAULT_ENDPOINT,
    preset,
    unknown_variables,
)
from enroll.visible import storable

F = TypeVar("F", bound=Callable[..., Any])
E = TypeVar("E", bound=StrEnum)


class File(click.Path):
    """A file's name, which may not be longer than file names are."""

    def __init__(self, *, stdio: bool = False) -> None:
        """`stdio` says that `-` is standard input or output, and no file's name."""
        super().__init__(path_type=Path)
        self._stdio = stdio

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-" and not self._stdio:
            self.fail("- is no file here: name one (./- is a file of that name).", param, ctx)
        path = Path(str(super().convert(value, param, ctx)))
        try:
            path.lstat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                self.fail(f"{path} is longer than a file's name may be.", param, ctx)
        except ValueError:
            self.fail(f"{value!r} holds a character that no file's name may hold.", param, ctx)
        return path


FILE = File()

_ORIGINS = "enroll.origins"
_WARNINGS = "enroll.warnings"
_CONFIG = "enroll.config"


class Member(click.Choice[E]):
    """A choice among an enum's values; click by itself would have its members' names typed."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        return super().normalize_choice(str(choice), ctx)


class Number(click.FloatRange):
    """A finite number. `nan` is within every range, and a wait of `inf` seconds never ends."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            finite = math.isfinite(float(value))
        except (ValueError, OverflowError):
            finite = False
        if not finite:
            self.fail(f"{value!r} is not a number, such as 30 or 0.5.", param, ctx)
        return float(super().convert(value, param, ctx))


class WholeNumber(click.IntRange):
    """A whole number; click's own word for it is "a valid integer range"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        return int(super().convert(value, param, ctx))


LONGEST_CALL_SECONDS = 86_400
"""The most that --timeout takes: a day. A socket's clock ends after 24 days."""

LONGEST_WAIT_SECONDS = 31_536_000
"""The most that other waits take: a year. A clock that a program can wait on has an end."""

SECONDS = Number(min=0, max=LONGEST_WAIT_SECONDS)

_LENGTH = re.compile(
    r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?"
)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


class Duration(click.ParamType[float]):
    """A length of time in seconds: `21600`, `6h`, `90m`, `1h30m`; more than nothing."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        parts = _LENGTH.fullmatch("".join(str(value).lower().split()))
        if parts is None:
            self.fail(f"{value!r} is no length of time, such as 21600, 6h or 1h30m.", param, ctx)
        found = {unit: float(number) for unit, number in parts.groupdict().items() if number}
        seconds = sum(number * _UNITS[unit] for unit, number in found.items())
        if not 0 < seconds <= LONGEST_WAIT_SECONDS:
            self.fail(f"{value!r} is not more than 0 s and at most a year.", param, ctx)
        return seconds


@lru_cache
def _all_options() -> frozenset[str]:
    """The names of every command's options: what one enroll.toml may hold."""
    commands = importlib.import_module("enroll.cli").cli
    context = click.Context(commands)
    names: set[str] = set()
    waiting: list[click.Command] = [commands]
    while waiting:
        command = waiting.pop()
        names.update(_by_name(command))
        if isinstance(command, click.Group):
            found = [command.get_command(context, name) for name in command.list_commands(context)]
            waiting.extend(one for one in found if one is not None)
    return frozenset(names)


def _by_name(command: click.Command) -> dict[str, click.Option]:
    """A command's options by the names that they have in enroll.toml and, as ENROLL_NAME, in
    the environment."""
    return {
        max(option.opts, key=len).lstrip("-").replace("-", "_"): option
        for option in command.params
        if isinstance(option, click.Option)
    }


class SettingsCommand(click.Command):
    """A command whose options may also come from the environment or from enroll.toml."""

    def get_help(self, ctx: click.Context) -> str:
        # Defaults are shown there, and may come from an enroll.toml.
        return as_shown(super().get_help(ctx).split("\n")).removesuffix("\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            rest = super().parse_args(ctx, args)
            self._refuse_bytes(ctx)
        except click.UsageError as error:
            self._settle_log_format(given)
            raise self._with_origin(ctx, error) from error
        return rest

    def _refuse_bytes(self, ctx: click.Context) -> None:
        """Only files' names may be bytes that are not UTF-8. Raises BadParameter."""
        for param in self.params:
            if param.type is click.STRING:
                for text in _texts(ctx.params.get(param.name or "")):
                    if storable(text) != text:
                        raise click.BadParameter("it is not text in UTF-8.", ctx=ctx, param=param)

    def _settle_log_format(self, args: list[str]) -> None:
        """Choose the form of log lines although the options are wrong: that is said in it, too."""
        deciding = [param for param in self.params if param.name in ("config", "log_format")]
        if len(deciding) == 2 and not logs_json():
            lenient = click.Command(
                self.name,
                params=deciding,
                add_help_option=False,
                context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
            )
            with suppress(click.ClickException, EnrollError):
                lenient.make_context(self.name, args)

    def _with_origin(self, ctx: click.Context, error: click.UsageError) -> click.UsageError:
        if isinstance(error, click.BadParameter) and error.param is not None:
            name = error.param.name or ""
            origin = _origins_of(ctx).get(name)
            if origin is not None and not typed(ctx, name):
                message = f"{error.message} (from {origin})"
                return click.BadParameter(message, ctx=ctx, param=error.param)
        return error

    def invoke(self, ctx: click.Context) -> Any:
        if "log_format" not in ctx.params or ctx.params.get("dry_run"):
            for warning in warnings(ctx):
                if logs_json():
                    log("warning", f"Warning: {warning}", {}, level=logging.WARNING)
                else:
                    say_aside(f"Warning: {warning}")
        return super().invoke(ctx)


def _texts(value: object) -> Iterator[str]:
    """The texts in an option's value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple | frozenset):
        for one in value:
            yield from _texts(one)


def warnings(ctx: click.Context) -> list[str]:
    """What to tell the user about the settings: a command without log lines prints it itself."""
    found: list[str] = ctx.meta.get(_WARNINGS, [])
    return found


def _origins_of(ctx: click.Context) -> dict[str, str]:
    found: dict[str, str] = ctx.meta.get(_ORIGINS, {})
    return found


def typed(ctx: click.Context, name: str) -> bool:
    """Whether an option was given on the command line."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _load_preset(ctx: click.Context, _: click.Parameter, value: Path | None) -> Path | None:
    options = _by_name(ctx.command)
    found = preset(options, config=value, environ=os.environ, known=_all_options())
    ctx.meta[_WARNINGS] = unknown_variables(os.environ, _all_options())
    ctx.meta[_CONFIG] = found.file
    ctx.default_map = {}
    for name, setting in found.values.items():
        option, origin = options[name], found.origins[name]
        key = option.name or name
        ctx.default_map[key] = _as_typed(option, setting, origin)
        ctx.meta.setdefault(_ORIGINS, {})[key] = origin
    return value


def _as_typed(option: click.Option, setting: Any, origin: str) -> Any:
    """A setting as the command line would have given it: text, or several for a repeatable."""
    if isinstance(setting, Mapping):
        setting = [f"{name}={value}" for name, value in setting.items()]
    if option.multiple:
        return setting if isinstance(setting, list) else str(setting).split(",")
    if isinstance(setting, list):
        raise click.BadParameter(f"one value is wanted (from {origin})", param=option)
    return setting if isinstance(setting, bool) else str(setting)


def origins(ctx: click.Context) -> dict[str, str]:
    """For each option of the command, where its value came from: for people to read."""
    told = {}
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if typed(ctx, name):
            told[name] = max(parameter.opts, key=len)
        elif name in _origins_of(ctx):
            told[name] = _origins_of(ctx)[name]
    return told


def in_use(credentials: Path | None = None, *, ca_bundle: Path | None = None) -> dict[str, Path]:
    """The files that the running command reads beside ledger and manifest, by what they are."""
    files = {
        **credentials_files(credentials, os.environ),
        "the settings file": click.get_current_context().meta.get(_CONFIG),
        "the certificates": ca_bundle,
    }
    return {what: path for what, path in files.items() if path is not None}


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several option decorators as one, in the order in which help shows them."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


@contextmanager
def printing() -> Iterator[None]:
    """Around what prints a command's answer. Raises LocalError where stdout takes no more of it;
    where its reader has had enough, as in `enroll export - | head`, the command is done."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise click.exceptions.Exit(0) from None
    except OSError as error:
        raise LocalError(
            f"Standard output takes no more: {error.strerror}. Make room, or send it elsewhere."
        ) from error


config = click.option(
    "--config",
    type=FILE,
    is_eager=True,
    expose_value=False,
    callback=_load_preset,
    help=f"Settings file.  [default: {CONFIG_NAME} in this folder, if there is one]",
)

endpoint = click.option(
    "--endpoint", metavar="URL", default=DEFAULT_ENDPOINT, show_default=True, help="Base URL."
)

credentials = click.option(
    "--credentials",
    type=FILE,
    help="File with api_key and api_secret, or folder of two such files, when ENROLL_API_KEY and "
    "ENROLL_API_SECRET are not set.  [default: enroll in systemd's $CREDENTIALS_DIRECTORY, else "
    "enroll/credentials in the user's configuration folder]",
)

ledger = click.option(
    "--ledger",
    type=FILE,
    help="The ledger's file.  [default: enroll/HOST/GROUP_ID.sqlite in the user's state folder]",
)

group_id = click.option("--group-id", metavar="ID", help="The library: its group_id.")

yes = click.option("--yes", is_flag=True, help="Do not ask.")

show_user_ids = click.option(
    "--show-user-ids",
    is_flag=True,
    help="Show user ids, photo paths and the service's messages in what is logged and printed.",
)

transport = together(
    click.option("--ca-bundle", type=FILE, help="Certificates to trust instead of the system's."),
    click.option("--allow-http", is_flag=True, help="Allow plain HTTP beyond this machine."),
    click.option(
        "--timeout",
        type=Number(min=0.1, max=LONGEST_CALL_SECONDS),
        default=DEFAULT_TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        help="The longest that a whole call may take.",
    ),
)
