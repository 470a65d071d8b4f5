"""Makes the manual pages in docs/man, which the wheel carries, from the commands themselves.

    python docs/manual.py

They name neither a date nor a version, so they change only when a command does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from commands import ROOT, Command, Option, commands

from enroll.presets import Source

MANUAL = Path(__file__).with_name("man")
EXIT_CODES = Path(__file__).with_name("exit-codes.md")


def main() -> None:
    """Write the pages, and remove those of commands that are gone."""
    written = pages()
    for path in MANUAL.glob("*.1"):
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        (MANUAL / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The text of each manual page by its file's name."""
    known = commands()
    return {
        f"{command.page}.1": "\n".join(_lines(command, known)) + "\n" for command in known.values()
    }


def _lines(command: Command, known: dict[str, Command]) -> Iterator[str]:
    # Hyphens and quotes stay what they are and no name is hyphenated: they are copied and searched.
    yield r".\" Made by docs/manual.py from the commands. Do not edit."
    yield f'.TH {_plain(command.page.upper())} 1 "" "enroll" "enroll manual"'
    yield from (".nh", ".ad l")
    yield ".SH NAME"
    yield rf"{_plain(command.page)} \- {_text(command.sentence.rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {_plain(command.words)}"
    yield _text(command.usage)
    yield ".SH DESCRIPTION"
    for paragraph in (command.sentence, *command.paragraphs):
        yield from (".PP", _text(paragraph))
    if command.below:
        yield ".SH COMMANDS"
    for heading, words in command.under_headings.items():
        if command.words == ROOT:
            yield f".SS {_text(heading)}"
        for one in words:
            yield from (".TP", rf".BR {_quoted(known[one].page)} (1)", _text(known[one].sentence))
    yield ".SH OPTIONS"
    for heading, options in command.options.items():
        if len(command.options) > 1:
            yield f".SS {_text(heading)}"
        for option in options:
            yield from _option(option)
    yield from _environment(command)
    if command.words == ROOT:
        yield from _exit_status()
    yield from _see_also(command)


def _option(option: Option) -> Iterator[str]:
    yield ".TP"
    yield f".B {_quoted(option.names)}"
    yield _text(" ".join([option.meaning, *(f"[{limit}]" for limit in option.limits)]).strip())


def _environment(command: Command) -> Iterator[str]:
    """Which variables set its options."""
    options = chain.from_iterable(command.options.values())
    if command.words == ROOT:
        yield ".SH ENVIRONMENT"
        yield ".TP"
        yield ".BR ENROLL_API_KEY , \\ ENROLL_API_SECRET"
        yield "Key and secret of the account."
        yield ".TP"
        yield ".BI ENROLL_ OPTION"
        yield "The value of an option that is not given, by its name in capitals with underscores."
        yield "The page of each command lists the variables that it takes."
        return
    variables = sorted(one.variable for one in options if one.source in (Source.ANY, Source.NAMED))
    if variables:
        yield ".SH ENVIRONMENT"
        yield "These variables are the values of options that are not given:"
        yield _text(f"{', '.join(variables)}.")


def _exit_status() -> Iterator[str]:
    """What docs/exit-codes.md says that each code means, without its links."""
    yield ".SH EXIT STATUS"
    rows = re.findall(
        r"^\| (\d+) \| `\w+` \| (.*) \| .* \|$", EXIT_CODES.read_text("utf-8"), re.MULTILINE
    )
    for code, meaning in rows:
        yield from (".TP", f".B {code}", _text(re.sub(r" ?\(?\[[^]]*\]\([^)]*\)\)?", "", meaning)))


def _see_also(command: Command) -> Iterator[str]:
    parent = command.words.rpartition(" ")[0]
    if parent:
        yield ".SH SEE ALSO"
        yield rf".BR {_quoted(parent.replace(' ', '-'))} (1)"


def _plain(text: str) -> str:
    r"""Text as roff prints it: `\` and `-` as themselves, no line begins as a request
    does, and one may end after `|`."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("^", r"\(ha")
    text = text.replace("~", r"\(ti").replace("…", "...").replace("|", r"|\:")
    return rf"\&{text}" if text.startswith(".") else text


def _text(text: str) -> str:
    """The same, with code in backticks in bold."""
    return re.sub(r"`([^`]+)`", r"\\fB\1\\fR", _plain(text))


def _quoted(text: str) -> str:
    return '"' + _plain(text).replace('"', r"\(dq") + '"'


if __name__ == "__main__":
    main()
