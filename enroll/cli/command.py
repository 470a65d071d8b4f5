"""A command whose options may also come from the environment or from enroll.toml."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.types import OptionHelpExtra

from enroll.allowed import wrong_text
from enroll.cli.parameters import Number
from enroll.cli.printing import Figures
from enroll.credentials import credentials_files
from enroll.errors import EnrollError
from enroll.errors import UsageError as EnrollUsageError
from enroll.presets import Source, check_variables, preset, unknown_variables
from enroll.text.logs import log, logs_json
from enroll.text.wording import as_shown, say_aside

F = TypeVar("F", bound=Callable[..., Any])

_ORIGINS = "enroll.origins"
_WARNINGS = "enroll.warnings"
_CONFIG = "enroll.config"

MANY_OPTIONS = 20
"""Number of options from which on help lists them under headings."""


class Option(click.Option):
    """An option; if a command has many, help lists it under its `heading`."""

    source = Source.ANY
    heading = ""

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        extra = super().get_help_extra(ctx)
        if "default" in extra:
            extra["default"] = extra["default"].removesuffix(".0")
        if isinstance(self.type, Number):
            extra["range"] = self.type.within.words
        return extra


class _CommandLineOption(Option):
    """Forces, confirms, retries or decides: no variable or file may do that unnoticed."""

    source = Source.COMMAND_LINE


class _NamedOption(Option):
    """Decides where photos and signatures go, what vouches for that, or which file is written."""

    source = Source.NAMED


option = partial(click.option, cls=Option)
"""As click.option."""

command_line_option = partial(click.option, cls=_CommandLineOption)
"""As click.option, for an option that can only be given on the command line."""

named_option = partial(click.option, cls=_NamedOption)
"""As click.option, for an option that is not read from an enroll.toml in the current folder."""


def together(*decorators: Callable[[F], F], heading: str = "") -> Callable[[F], F]:
    """Several option decorators as one, in the order of the help; those without a heading get this
    one."""

    def decorate(function: F) -> F:
        known = len(getattr(function, "__click_params__", ()))
        for decorator in reversed(decorators):
            function = decorator(function)
        for parameter in getattr(function, "__click_params__", ())[known:]:
            if isinstance(parameter, Option) and not parameter.heading:
                parameter.heading = heading
        return function

    return decorate


def source_of(option: click.Option) -> Source:
    """Where an option's value may come from."""
    found: Source = getattr(option, "source", Source.ANY)
    return found


@lru_cache
def _all_options() -> dict[str, Source]:
    """All commands' option names, which one enroll.toml may hold, and where their values may come
    from."""
    commands = importlib.import_module("enroll.cli").cli
    context = click.Context(commands)
    sources: dict[str, Source] = {}
    waiting: list[click.Command] = [commands]
    while waiting:
        command = waiting.pop()
        sources.update({name: source_of(option) for name, option in _by_name(command).items()})
        if isinstance(command, click.Group):
            below = (command.get_command(context, name) for name in command.list_commands(context))
            waiting.extend(filter(None, below))
    return sources


def _by_name(command: click.Command) -> dict[str, click.Option]:
    """A command's options by their names in enroll.toml and, as ENROLL_NAME, in the environment."""
    return {
        max(option.opts, key=len).lstrip("-").replace("-", "_"): option
        for option in command.params
        if isinstance(option, click.Option)
    }


class _Helpful(click.Command):
    """A command with help that is safe to show and cuts no word or sentence."""

    def get_help(self, ctx: click.Context) -> str:
        # Defaults are shown there, and may come from an enroll.toml. Click formats for 50 columns
        # at least.
        return as_shown(super().get_help(ctx).split("\n"), sys.stdout).removesuffix("\n")

    def get_short_help_str(self, limit: int = 0) -> str:
        """The first sentence, however long."""
        return super().get_short_help_str(sys.maxsize)


class CommandGroup(_Helpful, click.Group):
    """Commands below a word."""


class SettingsCommand(_Helpful):
    """A command whose options may also come from the environment or from enroll.toml."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                records.setdefault(getattr(parameter, "heading", ""), []).append(record)
        if sum(map(len, records.values())) < MANY_OPTIONS:
            super().format_options(ctx, formatter)
            return
        records["Options"] = records.pop("", [])  # those of no heading come last
        for heading, of_heading in records.items():
            with formatter.section(heading):
                formatter.write_dl(of_heading)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        self._begin_figures(ctx, given)
        try:
            rest = super().parse_args(ctx, args)
            for parameter in self.params:
                value = ctx.params.get(parameter.name or "")
                # `--results` is a file's name, or `none`.
                if parameter.name != "results" and (wrong := wrong_text(value)):
                    raise click.BadParameter(wrong, ctx=ctx, param=parameter)
        except click.UsageError as error:
            self._settle_log_format(given)
            if isinstance(error, click.BadParameter) and error.param is not None:
                name = error.param.name or ""
                origin = _origins_of(ctx).get(name)
                if origin is not None and not typed(ctx, name):
                    message = f"{error.message} (from {origin})"
                    raise click.BadParameter(message, ctx=ctx, param=error.param) from error
            raise
        if Figures.current is not None:
            Figures.current.parsed(ctx.params)
        return rest

    def _begin_figures(self, ctx: click.Context, args: Sequence[str]) -> None:
        """Let wrong options be reported as JSON, too, to whoever asks for it with `args`."""
        if any(parameter.name == "as_json" for parameter in self.params):
            above = ctx.parent.info_name if ctx.parent is not None and ctx.parent.parent else ""
            words = f"{above} {self.name}".strip()
            Figures.current = Figures(words, printed="--json" in args)

    def _settle_log_format(self, args: list[str]) -> None:
        """Choose the format of log lines even if the options are wrong, because the error is logged
        in it."""
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
    """Warnings about the settings. A command without log lines prints them itself."""
    found: list[str] = ctx.meta.get(_WARNINGS, [])
    return found


def _origins_of(ctx: click.Context) -> dict[str, str]:
    found: dict[str, str] = ctx.meta.get(_ORIGINS, {})
    return found


def typed(ctx: click.Context, name: str) -> bool:
    """Whether an option was given on the command line."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def load_preset(ctx: click.Context, _: click.Parameter, value: Path | None) -> Path | None:
    """Callback of --config: take the command's options from the environment and the file."""
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
    """A table's value, quoted so that it can be part of a list of pairs."""
    return '"' + value.replace('"', '""') + '"' if {",", '"'} & set(value) else value


def _as_typed(option: click.Option, setting: Any, origin: str) -> Any:
    """A setting as it would be on the command line: text, or a list for a repeatable option."""
    if isinstance(setting, Mapping):
        setting = [f"{name}={_quoted(str(value))}" for name, value in setting.items()]
    if option.multiple:
        return setting if isinstance(setting, list) else str(setting).split(",")
    if isinstance(setting, list):
        raise click.BadParameter(f"give one value (from {origin})", param=option)
    return setting if isinstance(setting, bool) else str(setting)


def file_settings(path: Path) -> Mapping[str, Any]:
    """The settings in a file that was named, as they are written there. Raises UsageError."""
    known = _all_options()
    return preset(known, config=path, environ={}, known=known).values


def option_values(command: str, given: Mapping[str, Any], *, origin: str = "") -> dict[str, Any]:
    """Values as this command's options would be on the command line, by the names of its settings.

    What the command does not have is left out; `origin` is the file that they are from. Raises
    UsageError.
    """
    commands = importlib.import_module("enroll.cli").cli
    found = commands.get_command(click.Context(commands), command)
    ctx, values = click.Context(found), {}
    options = _by_name(found) | {param.name: param for param in found.params}
    for name, value in given.items():
        if (option := options.get(name)) is None or not option.name:
            continue
        try:
            values[option.name] = option.process_value(ctx, _as_typed(option, value, origin))
        except click.BadParameter as error:
            where = f" (from {origin})" if origin else ""
            shown = f"--{name.replace('_', '-')}"
            raise EnrollUsageError(
                f"Invalid value for '{shown}': {error.message}{where}"
            ) from error
    return values


def origins(ctx: click.Context) -> dict[str, str]:
    """Where the value of each option came from, for people to read."""
    told = {}
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if typed(ctx, name):
            told[name] = max(parameter.opts, key=len)
        elif name in _origins_of(ctx):
            told[name] = _origins_of(ctx)[name]
    return told


def in_use(
    credentials: Path | None = None,
    *,
    ca_bundle: Path | None = None,
    user_ids: Path | None = None,
) -> dict[str, Path]:
    """The files that the command reads besides ledger and manifest, by what they are."""
    files = {
        **credentials_files(credentials, os.environ),
        "the settings file": click.get_current_context().meta.get(_CONFIG),
        "the certificates": ca_bundle,
        "the user ids": user_ids,
    }
    return {what: path for what, path in files.items() if path is not None}
