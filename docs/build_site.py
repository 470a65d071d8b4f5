"""Makes the site in build/site from README.md, CHANGELOG.md, CONTRIBUTING.md and docs/, with a page
for each command and the API reference.

    python docs/build_site.py

Any broken link, and any other warning, is an error. Nothing is read from the network.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from commands import ROOT as COMMAND
from commands import Command, Option, commands
from sphinx.cmd.build import build_main

import enroll
from enroll.api import options as api_options
from enroll.presets import Source

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent
HOME = REPOSITORY / "README.md"
SOURCES_OF_PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.glob("*.md")])
BUILD = REPOSITORY / "build"
PAGES = BUILD / "pages"
SITE = BUILD / "site"
REFERENCE = (DOCS / "reference.md").read_text("utf-8")

COMMANDS_OF = {"accept": "audit", "readmit": "forget"}
"""Functions that are an option of a command."""

SOURCES = {
    Source.ANY: "Environment: `{}`",
    Source.NAMED: "Environment: `{}`; not from an `enroll.toml` in the current folder",
    Source.COMMAND_LINE: "Only on the command line",
}

API = DOCS / "site" / "api.md"
FUNCTIONS = [
    name
    for name in re.findall(r"^\.\. autofunction:: (\w+)", API.read_text("utf-8"), re.MULTILINE)
    if "options" in inspect.signature(getattr(enroll, name)).parameters
]
"""Those that take options, in the order of the API page."""


def main() -> int:
    """Lay out the pages and build the site; returns Sphinx's exit code."""
    for folder in (PAGES, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    elsewhere = _lay_out()
    options = ["-b", "html", "-c", str(DOCS / "site"), "-q", "-W", "--keep-going", "-E", "-d"]
    code: int = build_main([*options, str(BUILD / "doctrees"), str(PAGES), str(SITE)])
    if code == 0:
        print(f"Links to other sites, which were not followed: {', '.join(elsewhere)}")
        print(f"The site: {SITE / 'index.html'}")
    return code


def _lay_out() -> list[str]:
    """Write the pages where they lie in the repository, so that their links hold, but the README as
    the home page. Returns the links to other sites."""
    (PAGES / "docs" / "commands").mkdir(parents=True)
    navigation = (DOCS / "site" / "navigation.md").read_text("utf-8")
    elsewhere: set[str] = set()
    for path in SOURCES_OF_PAGES:
        text = path.read_text("utf-8")
        elsewhere |= set(re.findall(r"\]\((http[^)\s]+)\)", text))
        text = _linked(text, path.parent)
        if path == HOME:
            _write(Path("index.md"), f"{text}\n{navigation}")
        else:
            _write(path.relative_to(REPOSITORY), text)
    shutil.copy(API, PAGES / "docs")
    known = commands()
    for command in known.values():
        name = "index" if command.words == COMMAND else command.page
        _write(Path("docs", "commands", f"{name}.md"), "\n".join(_page(command, known)) + "\n")
    _write(Path("docs", "options_table.md"), "\n".join(_options_tables(known)) + "\n")
    return sorted(elsewhere)


def _write(name: Path, text: str) -> None:
    (PAGES / name).write_text(text, encoding="utf-8")


def _linked(text: str, folder: Path) -> str:
    """The text of a page in a folder, with copies of the pictures and other files that it links to.
    Of links to folders only the text is left."""

    def link(match: re.Match[str]) -> str:
        shown, target = match.groups()
        name, hash_, anchor = target.partition("#")
        there = (folder / name).resolve()
        if there == HOME:
            return f"[{shown}]({name.replace('README.md', 'index.md')}{hash_}{anchor})"
        if there.is_file() and there not in SOURCES_OF_PAGES:
            copied = PAGES / there.relative_to(REPOSITORY)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(there, copied)
        return shown if name and there.is_dir() else match[0]

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def _page(command: Command, known: dict[str, Command]) -> Iterator[str]:
    """The page of a command: what `--help` says, with the environment variables."""
    yield from (f"# {command.words}", "", _markdown(command.sentence), "")
    for paragraph in command.paragraphs:
        yield from (_markdown(paragraph), "")
    yield from ("```text", f"{command.words} {command.usage}", "```", "")
    for heading, words in command.under_headings.items():
        yield from (f"## {heading}", "")
        for one in words:
            below = known[one]
            yield f"- [`{one}`]({below.page}.md): {_markdown(below.sentence)}"
        yield ""
    if command.below:
        shown = chain.from_iterable(command.under_headings.values())
        yield from ("```{toctree}", ":hidden:", "", *(known[one].page for one in shown), "```", "")
    elif f"\n## {command.words}\n" in REFERENCE:
        anchor = command.words.replace(" ", "-")
        yield from (f"In depth: [Commands and options](../reference.md#{anchor}).", "")
    yield from (f"```{{program}} {command.words}", "```", "")
    for heading, options in command.options.items():
        yield from (f"## {heading}", "")
        for option in options:
            yield from _described(option)


def _described(option: Option) -> Iterator[str]:
    yield f"```{{option}} {option.names.replace(' / ', ', ')}"
    yield _markdown(option.meaning)
    facts = [_markdown(limit[0].upper() + limit[1:]) for limit in option.limits]
    if option.source is not None:
        facts.append(SOURCES[option.source].format(option.variable))
    if facts:
        yield from ("", f"{'. '.join(facts)}.")
    yield from ("```", "")


def _markdown(text: str) -> str:
    """Plain text with code in backticks as Markdown."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([\\*_<>{}\[\]|#])", r"\\\1", part)
        for part in parts
    )


def _options_tables(known: dict[str, Command]) -> Iterator[str]:
    """The options of the functions for Python, by the functions that take them."""
    takers: dict[str, list[str]] = {}
    types: dict[str, str] = {}
    for function in FUNCTIONS:
        parameters = inspect.signature(getattr(enroll, function)).parameters
        named = str(parameters["options"].annotation).removeprefix("Unpack[").removesuffix("]")
        for option, written in getattr(api_options, named).__annotations__.items():
            takers.setdefault(option, []).append(function)
            types[option] = written.__forward_arg__
    for functions in dict.fromkeys(map(tuple, takers.values())):
        yield from (
            "",
            f"For {_listed(functions)}:",
            "",
            "| option | type | meaning |",
            "|---|---|---|",
        )
        for option, those in takers.items():
            if tuple(those) == functions:
                meaning = _meaning(option, functions, known)
                type_ = types[option].replace("|", r"\|")
                yield f"| `{option}` | `{type_}` | {meaning} |"


def _meaning(option: str, functions: tuple[str, ...], known: dict[str, Command]) -> str:
    """What help says about it."""
    flag = f"--{option.replace('_', '-')}"
    for function in functions:
        command = known[f"{COMMAND} {COMMANDS_OF.get(function, function)}"]
        for found in chain.from_iterable(command.options.values()):
            if flag in found.names.split():
                limits = "".join(f" ({limit})" for limit in found.limits)
                return _markdown(found.meaning + limits)
    raise ValueError(option)


def _listed(functions: tuple[str, ...]) -> str:
    *most, last = [f"`{function}`" for function in functions]
    return f"{', '.join(most)} and {last}" if most else last


if __name__ == "__main__":
    sys.exit(main())
