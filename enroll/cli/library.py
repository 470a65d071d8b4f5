"""`enroll who`, `probe`, `ledger copy`, and `library list`, `show`, `create` and `delete`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enroll.allowed import RANGES
from enroll.cli import options
from enroll.cli.command import (
    CommandGroup,
    SettingsCommand,
    command_line_option,
    in_use,
    named_option,
    option,
    together,
)
from enroll.cli.parameters import FILE, FILE_OR_OBJECT, LEDGER, Number
from enroll.cli.printing import Figures, printing
from enroll.cli.signals import SignalDesk
from enroll.cli.terminal import Terminal, credentials_reader, tame_pillow
from enroll.errors import UsageError
from enroll.settings import CallSettings, default_ledger_path, known_ledger
from enroll.text.wording import amount, say

if TYPE_CHECKING:
    from enroll.session.account import Connection

_account_options = together(options.config, options.endpoint, options.connection)
_group_id = option("--group-id", required=True, metavar="ID", help="The library's group_id.")


@click.command(cls=SettingsCommand)
@click.argument("photo", type=FILE_OR_OBJECT)
@options.known_ledger
@option(
    "--limit",
    type=Number(RANGES["limit"]),
    default=5,
    show_default=True,
    metavar="N",
    help="Show at most N faces; the service returns up to 100.",
)
@options.max_side
@options.multi_oriented_detection
@options.as_json
def who(photo: Path, as_json: bool, **given: Any) -> int:
    """Show the people that the library returns for PHOTO.

    Makes one call of search, and changes nothing. Without --ledger and without a ledger of the
    library, --group-id is needed.
    """
    from enroll.commands.who import WhoSettings, who_lines
    from enroll.commands.who import who as search
    from enroll.ledger import ledger_at
    from enroll.report.outcome import About

    credentials = given.pop("credentials")
    library = {name: given[name] for name in ("ledger", "endpoint", "group_id")}
    ledger = known_ledger(**library)
    if given["ledger"] is None and ledger is not None and not ledger_at(ledger).exists():
        ledger = None
    tame_pillow()
    terminal = Terminal() if ledger is not None else Terminal(unnamed="default")
    settings = WhoSettings(photo=photo, **{**given, "ledger": ledger})
    figures = Figures.of(About(command="who", **{**library, "ledger": ledger}))
    found = search(settings, credentials_reader(credentials), terminal.connecting)
    if not as_json:
        with printing():
            say(*who_lines(found))
    return figures.end(found)


@click.command(cls=SettingsCommand)
@command_line_option(
    "--portrait",
    type=FILE,
    help="A photo to test with. The drawn ones that are used otherwise may have no face for the "
    "service.",
)
@named_option(
    "--profile",
    type=FILE,
    help="Write what was observed to this file, which `enroll sandbox --profile` replays.",
)
@options.yes
@_account_options
@options.as_json
def probe(profile: Path | None, yes: bool, as_json: bool, **given: Any) -> int:
    """Test whether an account behaves as enroll expects.

    Asks first. Creates a library of its own, makes at most 60 calls, and removes the library.
    Prints what is documented next to what was observed. Exit code 1 if something differs.
    """
    from enroll.cli.rehearsal import nobody, portrait
    from enroll.commands.probe import ProbeSettings, probe_account
    from enroll.commands.probe_report import probe_lines, write_profile
    from enroll.report.outcome import About
    from enroll.text.files import InUse, Output, check_new_file

    credentials = given.pop("credentials")
    desk = SignalDesk(
        first="the library of this probe is deleted.",
        later="The next `enroll probe` deletes the library of this one.",
    )
    tame_pillow()
    settings = ProbeSettings(portraits=(portrait(0), portrait(1)), nobody=nobody(), **given)
    if profile is not None:
        files = in_use(credentials, ca_bundle=settings.ca_bundle)
        if settings.portrait is not None:
            files["the portrait"] = settings.portrait
        output = Output(path=profile, option="--profile", content="a profile")
        check_new_file(output, InUse(ledger=None, files=files))
    figures = Figures.of(About(command="probe", endpoint=settings.endpoint))
    terminal = _ProbeTerminal(desk, yes=yes, silent=as_json)
    report = probe_account(settings, credentials_reader(credentials), terminal)
    if report is None:
        raise click.Abort
    try:
        if profile is not None and report.signal is None:
            write_profile(report, profile)
    finally:  # neither is lost because the other cannot be written: the calls have been made
        if not as_json:
            with printing():
                say(*probe_lines(report), wrap=False)  # a table that is wider than 80 columns
                if profile is not None and report.signal is not None:
                    say(f"{profile} was not written, as the probe was interrupted.")
    return figures.end(report)


class _ProbeTerminal(Terminal):
    def __init__(self, desk: SignalDesk, *, yes: bool, silent: bool) -> None:
        super().__init__(yes=yes, silent=silent)
        self._desk = desk

    def soften(self, interrupt: Callable[[int], None]) -> None:
        """From now on pass the first signal to `interrupt`."""
        self._desk.soften(interrupt)


@click.group(cls=CommandGroup)
def library() -> None:
    """List, show, create or delete the account's libraries."""


@library.command("list", cls=SettingsCommand)
@_account_options
@options.as_json
def list_(as_json: bool, **given: Any) -> int:
    """Show the account's libraries: group_id, name, model, creation time."""
    from enroll.session.account import list_libraries
    from enroll.text.wording import columns

    with _connect(given) as connection:
        found = list_libraries(connection)
    head = ("group_id", "group_name", "model_version", "add_time")
    if as_json:
        Figures.show({"libraries": [asdict(one) for one in found]})
        return 0
    with printing():
        if found:
            say(*columns([head, *(attrgetter(*head)(one) for one in found)]))
        else:
            say("The account has no library; `enroll library create` creates one.")
    return 0


@library.command(cls=SettingsCommand)
@_group_id
@_account_options
@options.as_json
def show(group_id: str, as_json: bool, **given: Any) -> int:
    """Show one library: group_id, name, data, model, creation time."""
    from enroll.commands.library import describe_library
    from enroll.text.wording import facts

    with _connect(given) as connection:
        found = asdict(describe_library(connection, group_id))
    if as_json:
        Figures.show(found)
        return 0
    with printing():
        say(*(line.rstrip() for line in facts(found.items())))
    return 0


@library.command(cls=SettingsCommand)
@option("--group-id", required=True, metavar="ID", help="The new library's group_id.")
@option("--name", metavar="TEXT", help="Its name, 1 to 60 characters.  [default: the ID]")
@option("--data", default="", metavar="TEXT", help="Its group_data, at most 128 characters.")
@option("--model-version", default="", metavar="VERSION", help="[default: left to the service]")
@_account_options
def create(group_id: str, name: str | None, data: str, model_version: str, **given: Any) -> int:
    """Create an empty library."""
    from enroll.commands.library import create_library

    with _connect(given) as connection:
        create_library(
            connection,
            group_id=group_id,
            group_name=name or group_id,
            group_data=data,
            model_version=model_version,
        )
    say(f"The library {group_id} was created at {given['endpoint']}.")
    return 0


@library.command(cls=SettingsCommand)
@_group_id
@command_line_option("--force", is_flag=True, help="Delete it with the faces that it holds.")
@options.yes
@options.ledger
@_account_options
def delete(group_id: str, force: bool, yes: bool, ledger: Path | None, **given: Any) -> int:
    """Delete a library. Asks first; one that holds faces only with --force.

    Its ledger stays where it is, as a record of what the library held.
    """
    from enroll.commands.library import delete_library
    from enroll.ledger import ledger_at

    kept = _ledger_of(group_id, given["endpoint"], ledger)
    with ExitStack() as stack:
        if kept is not None:
            stack.enter_context(ledger_at(kept).hold())  # no run is to enroll into it meanwhile
        connection = stack.enter_context(_connect(given))
        prompt = Terminal(yes=yes)
        if not delete_library(connection, group_id=group_id, force=force, prompt=prompt):
            raise click.Abort
    say(f"The library {group_id} was deleted at {given['endpoint']}.")
    if kept is not None:
        say(
            f"Its ledger {kept} stays, as a record of what the library held. A run refuses it for "
            "a new library of the same name: move it elsewhere, or delete it."
        )
    return 0


def _ledger_of(group_id: str, endpoint: str, named: Path | None) -> Path | None:
    """The library's ledger, if there is one. Raises LedgerMismatchError where a file that is none
    was named."""
    from enroll.ledger import ledger_at

    try:
        path = named or default_ledger_path(endpoint, group_id)
    except UsageError:  # no home folder, so no ledger in it
        return None
    store = ledger_at(path)
    if not store.exists():
        return None
    store.check()
    return path.absolute()


def _connect(given: dict[str, Any]) -> Connection:
    from enroll.session.account import connect

    return connect(
        CallSettings(**{name: given[name] for name in ("timeout", "ca_bundle", "allow_http")}),
        credentials_reader(given["credentials"]),
        endpoint=given["endpoint"],
        announce=Terminal().connecting,
    )


@click.group(cls=CommandGroup)
def ledger() -> None:
    """Take a ledger to another place."""


@ledger.command(cls=SettingsCommand)
@click.argument("source", metavar="FROM", type=LEDGER)
@click.argument("target", metavar="TO", type=LEDGER)
def copy(source: Path, target: Path) -> int:
    """Copy a ledger to another place, where it goes on: a file, or a database.

    FROM and TO are files or postgresql://HOST/DATABASE?schema=NAME. Nothing may be at TO yet.
    Copies every row and compares all of them; a copy that is cut off leaves nothing at TO. From
    then on FROM can only be read, as two ledgers of one library would add people twice.
    """
    from enroll.commands.ledger_copy import CopySettings, copy_ledger

    SignalDesk()
    rows = copy_ledger(CopySettings(ledger=source, to=target), Terminal())
    with printing():
        say(
            f"Every row of {source} was copied and compared: {amount(rows, 'row')}.",
            f"The ledger is now {target}. Name it with --ledger; the old one can only be read.",
        )
    return 0
