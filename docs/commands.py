"""The commands as their help shows them, for the manual pages and the site."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import click

from enroll.cli import HEADINGS, cli
from enroll.cli.command import MANY_OPTIONS, source_of
from enroll.presets import Source, variable_of

ROOT = "enroll"


@dataclass(frozen=True, slots=True)
class Option:
    """An option: its `names` with their value, as help writes them, what it means, its `limits`
    (default, range, whether it is required), and where a value may come from besides the command
    line: `variable` is its environment variable. `source` is None for --help and --version.
    """

    names: str
    meaning: str
    limits: tuple[str, ...]
    source: Source | None
    variable: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its words, such as `enroll library list`, its `usage` without them, a sentence,
    the paragraphs that follow it, and its options by their headings.

    `below` are the commands of a group.
    """

    words: str
    usage: str
    sentence: str
    paragraphs: tuple[str, ...]
    options: dict[str, tuple[Option, ...]]
    below: tuple[str, ...]

    @property
    def page(self) -> str:
        """The name of its pages: `enroll-library-list`."""
        return self.words.replace(" ", "-")

    @property
    def under_headings(self) -> dict[str, tuple[str, ...]]:
        """The words of the commands below it, by the headings of the help."""
        if self.words != ROOT:
            return {"Commands": self.below} if self.below else {}
        return {
            heading: tuple(f"{ROOT} {name}" for name in names)
            for heading, names in HEADINGS.items()
        }


def commands() -> dict[str, Command]:
    """Every command by its words, groups before what is below them, in the order of the help."""
    context = click.Context(cli, info_name=ROOT, **cli.context_settings)
    return {command.words: command for command in _walk(cli, context)}


def _walk(command: click.Command, context: click.Context) -> Iterator[Command]:
    sentence, paragraphs = _texts(command)
    below: list[Command] = []
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if (found := command.get_command(context, name)) is not None:
                below += _walk(found, click.Context(found, info_name=name, parent=context))
    words = context.command_path
    yield Command(
        words=words,
        usage=" ".join(command.collect_usage_pieces(context)),
        sentence=sentence,
        paragraphs=paragraphs,
        options=_options(command, context),
        below=tuple(one.words for one in below if one.words.rpartition(" ")[0] == words),
    )
    yield from below


def _texts(command: click.Command) -> tuple[str, tuple[str, ...]]:
    """The first sentence of the help, and its paragraphs without it."""
    paragraphs = [
        " ".join(part.split()) for part in inspect.cleandoc(command.help or "").split("\n\n")
    ]
    sentence = command.get_short_help_str()
    rest = paragraphs[0].removeprefix(sentence).strip()
    return sentence, tuple(filter(None, [rest, *paragraphs[1:]]))


def _options(command: click.Command, context: click.Context) -> dict[str, tuple[Option, ...]]:
    """By headings, where help has them: options without one come last."""
    found: dict[str, list[Option]] = {}
    options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    for option in options:
        heading = getattr(option, "heading", "") if len(options) >= MANY_OPTIONS else ""
        if (record := option.get_help_record(context)) is not None:
            found.setdefault(heading, []).append(_option(option, record[0], context))
    last = found.pop("", [])
    return {heading: tuple(of_heading) for heading, of_heading in found.items()} | {
        "Options": tuple(last)
    }


def _option(option: click.Option, names: str, context: click.Context) -> Option:
    extra = option.get_help_extra(context)
    meaning, bracket, in_words = (option.help or "").partition("[default: ")
    limits = [f"default: {in_words.removesuffix(']')}"] if bracket else []
    limits += [f"default: {extra['default']}"] if "default" in extra else []
    limits += [extra["range"]] if "range" in extra else []
    limits += [extra["required"]] if "required" in extra else []
    name = max(option.opts, key=len).lstrip("-").replace("-", "_")
    return Option(
        names=names,
        meaning=meaning.strip(),
        limits=tuple(limits),
        source=None if name in ("help", "version") else source_of(option),
        variable=variable_of(name),
    )
