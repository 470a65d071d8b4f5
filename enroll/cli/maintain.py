"""`enroll verify`, `audit`, `adopt`, `resolve`, `remove` and `forget`: compare library and ledger,
and bring them together, or take faces out of both."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enroll.allowed import RANGES
from enroll.cli import options
from enroll.cli.command import (
    SettingsCommand,
    command_line_option,
    in_use,
    named_option,
    option,
    together,
)
from enroll.cli.parameters import FILE, Number
from enroll.cli.printing import Figures
from enroll.cli.signals import SignalDesk
from enroll.cli.terminal import Terminal, credentials_reader, tame_pillow
from enroll.credentials import has_credentials
from enroll.settings import LOOKALIKE_SCORE, UNLIKE_SCORE, RunSettings

if TYPE_CHECKING:
    from enroll.report.outcome import Ended
    from enroll.session.session import Prompt, SessionSettings

_user_ids = command_line_option(
    "--user-ids",
    type=FILE,
    help="The people in this file: one id a line, or a CSV with a column user_id.",
)


def _perform(
    kind: type[Any],
    act: Callable[..., Ended],
    given: dict[str, Any],
    *,
    desk: SignalDesk,
    as_json: bool = False,
    summary: Path | None = None,
) -> int:
    """Carry out a command on an existing ledger, and publish its figures; returns its exit code.

    `desk` was created before anything large was loaded: it holds a signal back until the figures
    of an interrupted command can be written.
    """
    from enroll.report.outcome import of_session_settings

    credentials = given.pop("credentials")
    terminal = Terminal(yes=given.pop("yes", False), silent=as_json)
    tame_pillow()
    settings = kind(**options.session_settings(given, credentials), summary=summary)
    figures = Figures.of(of_session_settings(settings), summary=summary)
    desk.ready()
    return figures.end(act(settings, credentials_reader(credentials), terminal))


def _without_calls(
    act: Callable[..., Ended], settings: SessionSettings, _: object, prompt: Prompt
) -> Ended:
    """Carry out what needs no credentials."""
    return act(settings, prompt)


@click.command(cls=SettingsCommand)
@options.known_ledger
@options.max_in_flight
@option(
    "--deep",
    is_flag=True,
    help="Look up each face of the ledger that `list` does not show, one call each.",
)
@command_line_option(
    "--remove-surplus",
    is_flag=True,
    help="Delete copies that are recorded as surplus, or that search has proved to be copies.",
)
@command_line_option(
    "--requeue-missing",
    is_flag=True,
    help="Make faces due again that are missing from the library.",
)
@named_option(
    "--differences",
    type=FILE,
    help="Write the differences to this file (.csv, .xlsx, .jsonl or .parquet).",
)
@options.as_json
@options.summary
@options.yes
def verify(as_json: bool, summary: Path | None, **given: Any) -> int:
    """Compare the ledger with the library.

    Changes nothing unless --remove-surplus or --requeue-missing is given, and asks first.
    """
    desk = SignalDesk(holding=True)
    from enroll.commands.verify import VerifySettings
    from enroll.commands.verify import verify as verify_ledger

    return _perform(
        VerifySettings, verify_ledger, given, desk=desk, as_json=as_json, summary=summary
    )


def _groups(
    ctx: click.Context, parameter: click.Parameter, value: Sequence[str]
) -> list[list[str]]:
    return [[one.strip() for one in text.split(",")] for text in value]


_audited_faces = together(
    command_line_option(
        "--again", is_flag=True, help="Search again with faces that were audited before."
    ),
    command_line_option(
        "--run",
        "of_run",
        type=Number(RANGES["of_run"]),
        metavar="R",
        help="Only faces that this run added; `enroll status` lists the runs.",
    ),
    command_line_option(
        "--user-ids",
        type=FILE,
        help="Only the people in this file: one id a line, or a CSV with a column user_id.",
    ),
    options.setting("--sample", "At most N of the faces, drawn at random.", metavar="N"),
    options.setting(
        "--seed", "Random seed of --sample: the same seed draws the same faces.", metavar="S"
    ),
    heading="Which faces",
)

_judgement = together(
    option(
        "--score",
        type=Number(RANGES["score"]),
        default=LOOKALIKE_SCORE,
        show_default=True,
        metavar="SCORE",
        help="The score from which faces of two people are a finding.",
    ),
    option(
        "--unlike",
        type=Number(RANGES["unlike"]),
        default=UNLIKE_SCORE,
        show_default=True,
        metavar="SCORE",
        help="The score below which two photos of one person are a finding.",
    ),
    command_line_option(
        "--accept",
        multiple=True,
        callback=_groups,
        metavar="ID,ID",
        help="Record that these people may look alike, without a call; repeatable.",
    ),
    heading="What is a finding",
)


@click.command(cls=SettingsCommand)
@together(options.known_ledger, heading=options.LIBRARY)
@together(options.max_in_flight, options.rate(), options.max_calls, heading=options.CALLS)
@_audited_faces
@_judgement
@together(
    named_option(
        "--findings",
        type=FILE,
        help="Write the findings to this file (.csv, .xlsx, .jsonl or .parquet).",
    ),
    options.as_json,
    options.summary,
    options.show_user_ids,
    heading=options.OUTPUT,
)
def audit(as_json: bool, summary: Path | None, **given: Any) -> int:
    """Search the library with each enrolled face: who is there twice, or under a wrong id?

    Searches with each face once, and later only with new ones. Shows what looks wrong, also what
    earlier audits have found, and changes nothing in the library.
    """
    desk = SignalDesk(holding=True)
    from enroll.commands.audit import AuditSettings, accept_pairs
    from enroll.commands.audit import audit as audit_ledger

    chosen = [given[name] for name in ("again", "of_run", "user_ids", "sample")]
    if given["accept"] and any(chosen):
        raise click.UsageError(
            "--accept makes no search. Give it without --again, --run, --user-ids and --sample."
        )
    act: Callable[..., Ended] = audit_ledger
    if given["accept"]:
        act = partial(_without_calls, accept_pairs)
    return _perform(AuditSettings, act, given, desk=desk, as_json=as_json, summary=summary)


@click.command(cls=SettingsCommand)
@options.manifest
@options.library
@options.manifest_options
@options.connection
@options.max_in_flight
@options.multi_oriented_detection
@options.send_as
@options.memory
@option(
    "--score",
    type=Number(RANGES["score"]),
    metavar="SCORE",
    help="The minimum score at which a face counts as the photo's own.  [default: learned]",
)
@named_option(
    "--report",
    type=FILE,
    help="Write the rows that need review to this file (.csv, .xlsx, .jsonl or .parquet).",
)
@options.as_json
@options.summary
@command_line_option("--dry-run", is_flag=True, help="Only show what it takes; do not search.")
def adopt(
    manifest: Path,
    credentials: Path | None,
    score: float | None,
    report: Path | None,
    dry_run: bool,
    as_json: bool,
    summary: Path | None,
    **given: Any,
) -> int:
    """Record in a ledger the faces that the library already holds.

    They are matched to MANIFEST by user_id, and confirmed by a search with each row's photo.
    """
    desk = SignalDesk(holding=True)
    from enroll.commands.adopt import NO_GROUP_ID, AdoptSettings
    from enroll.commands.adopt import adopt as adopt_faces
    from enroll.report.outcome import check_summary, of_run_settings

    if given["group_id"] is None:
        raise click.UsageError(NO_GROUP_ID)
    tame_pillow()
    files = in_use(credentials, ca_bundle=given["ca_bundle"])
    if summary is not None:
        files["the summary"] = summary
    settings = AdoptSettings(
        run=RunSettings(manifest=manifest, in_use=files, **given),
        score=score,
        dry_run=dry_run,
        report=report,
    )
    about = of_run_settings(settings.run, command="adopt")
    check_summary(summary, settings.run, about, others={"the report": report})
    figures = Figures.of(about, summary=summary)
    desk.ready()
    terminal = Terminal(silent=as_json)
    return figures.end(adopt_faces(settings, credentials_reader(credentials), terminal))


@click.command(cls=SettingsCommand)
@options.known_ledger
@command_line_option("--user-id", required=True, metavar="ID", help="Whose face it is.")
@command_line_option(
    "--token", metavar="TOKEN", help="The library holds the face: this is its token."
)
@command_line_option("--not-added", is_flag=True, help="The library does not hold the face.")
@command_line_option(
    "--sha256",
    default="",
    metavar="PREFIX",
    help="Of several faces in doubt, the one whose photo's SHA-256 begins with this.",
)
@option("--offline", is_flag=True, help="Do not check with the service.")
def resolve(credentials: Path | None, not_added: bool, offline: bool, **given: Any) -> int:
    """Settle a face in doubt by hand.

    Give its --token if the library holds it, else --not-added. Both are checked with the service,
    if there are credentials for it.
    """
    from enroll.commands.resolve import ResolveSettings
    from enroll.commands.resolve import resolve as resolve_doubt

    if (given["token"] is None) is not not_added:
        raise click.UsageError("Give one of --token TOKEN and --not-added.")
    SignalDesk()
    terminal = Terminal()
    ask = not offline and has_credentials(credentials, os.environ)
    resolved = resolve_doubt(
        ResolveSettings(**options.session_settings(given, credentials)),
        credentials_reader(credentials) if ask else None,
        announce=terminal.connecting,
    )
    terminal.say(resolved.sentence)
    return 0


@click.command(cls=SettingsCommand)
@options.known_ledger
@options.max_in_flight
@command_line_option(
    "--run",
    "of_run",
    type=Number(RANGES["of_run"]),
    metavar="R",
    help="The faces that this run added; `enroll status` lists the runs.",
)
@command_line_option(
    "--superseded", is_flag=True, help="The faces that no row points to any longer."
)
@_user_ids
@named_option(
    "--list",
    type=FILE,
    help="Write the faces to this file (.csv, .xlsx, .jsonl or .parquet) before asking.",
)
@options.show_user_ids
@options.yes
def remove(**given: Any) -> int:
    """Delete faces from the library.

    Those that a run added, superseded ones, or all faces of some people. Shows how many and which,
    and asks first. Faces that the ledger does not know stay.
    """
    desk = SignalDesk(holding=True)
    from enroll.commands.remove import RemoveSettings
    from enroll.commands.remove import remove as remove_faces

    if sum(bool(given[name]) for name in ("of_run", "superseded", "user_ids")) != 1:
        raise click.UsageError("Give one of --run R, --superseded and --user-ids FILE.")
    return _perform(RemoveSettings, remove_faces, given, desk=desk)


@click.command(cls=SettingsCommand)
@options.known_ledger
@options.max_in_flight
@command_line_option(
    "--user-id", "people", multiple=True, metavar="ID", help="The person to forget; repeatable."
)
@_user_ids
@command_line_option(
    "--readmit",
    "readmitted",
    multiple=True,
    metavar="ID",
    help="Allow a forgotten person to be enrolled again, without a call; repeatable.",
)
@option("--show-user-ids", is_flag=True, help="Show user ids in what is printed.")
@options.yes
def forget(**given: Any) -> int:
    """Delete everything about people from library and ledger, for good.

    Asks first. Rows that still name these people are withheld: they are not enrolled again.
    """
    desk = SignalDesk(holding=True)
    from enroll.commands.forget import ForgetSettings, readmit
    from enroll.commands.forget import forget as forget_people

    if bool(given["people"] or given["user_ids"]) is bool(given["readmitted"]):
        raise click.UsageError("Give --user-id ID or --user-ids FILE; or --readmit ID by itself.")
    if not all(user_id.strip() for user_id in (*given["people"], *given["readmitted"])):
        raise click.UsageError("A user_id is empty. Correct it.")
    if not given["readmitted"]:
        return _perform(ForgetSettings, forget_people, given, desk=desk)
    return _perform(ForgetSettings, partial(_without_calls, readmit), given, desk=desk)
