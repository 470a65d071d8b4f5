"""Options that several commands share, and where their values come from when not given."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from enroll import allowed
from enroll.allowed import RANGES, Range, wrong_duration, wrong_path, wrong_text
from enroll.credentials import credentials_files
from enroll.errors import EnrollError, LocalError
from enroll.expiry import DEFAULT_TIMEOUT
from enroll.presets import CONFIG_NAME, Source, check_variables, preset, unknown_variables
from enroll.settings import DEFAULT_ENDPOINT
from enroll.text.logs import log, logs_json
from enroll.text.wording import as_shown, say_aside

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
        if wrong := wrong_path(path):
            self.fail(wrong, param, ctx)
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
    """A finite number within a range."""

    def __init__(self, within: Range) -> None:
        super().__init__(min=within.least, max=within.most)
        self._within = within

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if wrong := self._within.wrong(value):
            self.fail(wrong, param, ctx)
        return float(value)


class WholeNumber(click.IntRange):
    """A whole number within a range."""

    def __init__(self, least: int | None = None, most: int | None = None) -> None:
        super().__init__(min=least, max=most)
        self._within = Range(least=least, most=most, whole=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if wrong := self._within.wrong(value):
            self.fail(wrong, param, ctx)
        return int(value)


def number_of(setting: str) -> Number | WholeNumber:
    """The type of an option by the name of its setting, whose range it has."""
    within = RANGES[setting]
    if not within.whole:
        return Number(within)
    least, most = within.least, within.most
    return WholeNumber(None if least is None else int(least), None if most is None else int(most))


SECONDS = Number(allowed.SECONDS)

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
        if wrong := wrong_duration(value, seconds):
            self.fail(wrong, param, ctx)
        return seconds


class _CommandLineOption(click.Option):
    """Forces, confirms, retries or decides: no variable and no file may do that unseen."""

    source = Source.COMMAND_LINE


class _NamedOption(click.Option):
    """Says where photos and signatures go, what vouches for that, or which file is written."""

    source = Source.NAMED


command_line_option = partial(click.option, cls=_CommandLineOption)
"""As click.option, of an option that only the command line gives."""

named_option = partial(click.option, cls=_NamedOption)
"""As click.option, of an option that is not taken from a settings file that was only found."""


def source_of(option: click.Option) -> Source:
    """Where an option's value may come from."""
    found: Source = getattr(option, "source", Source.ANY)
    return found


@lru_cache
def _all_options() -> dict[str, Source]:
    """The names of every command's options, which one enroll.toml may hold, and where their values
    may come from."""
    commands = importlib.import_module("enroll.cli").cli
    context = click.Context(commands)
    sources: dict[str, Source] = {}
    waiting: list[click.Command] = [commands]
    while waiting:
        command = waiting.pop()
        sources.update({name: source_of(option) for name, option in _by_name(command).items()})
        if isinstance(command, click.Group):
            found = [command.get_command(context, name) for name in command.list_commands(context)]
            waiting.extend(one for one in found if one is not None)
    return sources


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
            return self._parsed(ctx, args)
        except click.UsageError as error:
            self._settle_log_format(given)
            with_origin = self._with_origin(ctx, error)
            if with_origin is None:
                raise
            raise with_origin from error

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

    def _with_origin(
        self, ctx: click.Context, error: click.UsageError
    ) -> click.BadParameter | None:
        """The error with where the value came from, unless that is the command line."""
        if isinstance(error, click.BadParameter) and error.param is not None:
            name = error.param.name or ""
            origin = _origins_of(ctx).get(name)
            if origin is not None and not typed(ctx, name):
                message = f"{error.message} (from {origin})"
                return click.BadParameter(message, ctx=ctx, param=error.param)
        return None

    def _parsed(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "")
            # `--results` is a file's name, or `none`.
            if parameter.name != "results" and (wrong := wrong_text(value)):
                raise click.BadParameter(wrong, ctx=ctx, param=parameter)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        check_variables(os.environ, _all_options())
        if "log_format" not in ctx.params or ctx.params.get("dry_run"):
            for warning in warnings(ctx):
                if logs_json():
                    log("warning", f"Warning: {warning}", {}, level=logging.WARNING)
                else:
                    say_aside(f"Warning: {warning}")
        return super().invoke(ctx)


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


def _quoted(value: str) -> str:
    """A value of a table as a list of pairs may hold it."""
    return '"' + value.replace('"', '""') + '"' if {",", '"'} & set(value) else value


def _as_typed(option: click.Option, setting: Any, origin: str) -> Any:
    """A setting as the command line would have given it: text, or several for a repeatable."""
    if isinstance(setting, Mapping):
        setting = [f"{name}={_quoted(str(value))}" for name, value in setting.items()]
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


config = command_line_option(
    "--config",
    type=FILE,
    is_eager=True,
    expose_value=False,
    callback=_load_preset,
    help=f"Settings file.  [default: {CONFIG_NAME} in this folder, if there is one]",
)

endpoint = named_option(
    "--endpoint", metavar="URL", default=DEFAULT_ENDPOINT, show_default=True, help="Base URL."
)

credentials = named_option(
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

yes = command_line_option("--yes", is_flag=True, help="Do not ask.")

show_user_ids = click.option(
    "--show-user-ids",
    is_flag=True,
    help="Show user ids, photo paths and the service's messages in what is logged and printed.",
)

transport = together(
    named_option("--ca-bundle", type=FILE, help="Certificates to trust instead of the system's."),
    named_option("--allow-http", is_flag=True, help="Allow plain HTTP beyond this machine."),
    click.option(
        "--timeout",
        type=number_of("timeout"),
        default=DEFAULT_TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        help="The longest that a whole call may take.",
    ),
)
