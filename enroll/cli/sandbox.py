"""`enroll sandbox`: run a stand-in for the service, to rehearse with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enroll.allowed import Range
from enroll.cli import options
from enroll.cli.command import SettingsCommand, named_option, option
from enroll.cli.parameters import FILE, SECONDS, Number, WholeNumber
from enroll.errors import UsageError
from enroll.text.wording import say

if TYPE_CHECKING:
    from enroll.sandbox import Sandbox


DEFAULT_PORT = 8765
DAY_SECONDS = 86_400


def needs_extra(error: ImportError) -> UsageError:
    return UsageError(
        f"The stand-in needs the package {error.name}, which the sandbox extra installs: "
        "pip install 'enroll[sandbox]'."
    )


@click.command(cls=SettingsCommand)
@options.config
@option(
    "--port",
    type=WholeNumber(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port on 127.0.0.1; 0 takes a free one.",
)
@named_option("--store", type=FILE, help="Keep the libraries in this file.  [default: in memory]")
@option(
    "--library", "libraries", multiple=True, metavar="ID", help="Make this library; repeatable."
)
@option(
    "--parallel",
    type=WholeNumber(1),
    metavar="N",
    help="Refuse calls beyond N at a time.  [default: no limit]",
)
@option(
    "--latency",
    type=SECONDS,
    default=0.0,
    metavar="SECONDS",
    help="How long every call takes.  [default: no longer than it needs]",
)
@option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND=PROBABILITY",
    help="Answer calls with this fault; repeatable. A wrong KIND lists all kinds.",
)
@option(
    "--seed",
    type=WholeNumber(0),
    default=0,
    show_default=True,
    help="Seed of the faults.",
)
@option(
    "--search-lag",
    type=SECONDS,
    default=0.0,
    metavar="SECONDS",
    help="How long `search` and `list` do not show a new face.  [default: not at all]",
)
@option(
    "--late-after",
    type=SECONDS,
    metavar="SECONDS",
    help="When a `late` call is carried out.  [default: when the caller has disconnected]",
)
@option(
    "--clock-skew",
    type=Number(Range(least=-DAY_SECONDS, most=DAY_SECONDS)),
    default=0.0,
    metavar="SECONDS",
    help="How far the stand-in's clock is ahead.  [default: not at all]",
)
def sandbox(
    port: int,
    store: Path | None,
    libraries: Sequence[str],
    parallel: int | None,
    latency: float,
    faults: Sequence[str],
    seed: int,
    search_lag: float,
    late_after: float | None,
    clock_skew: float,
) -> int:
    """Run a local stand-in of the service, for rehearsals.

    It never leaves this machine. It takes the key and secret from ENROLL_API_KEY and
    ENROLL_API_SECRET, or makes some up and prints them.
    """
    try:
        from enroll.sandbox import StoreError, parse_fault_option, serve
    except ImportError as error:
        raise needs_extra(error) from error
    try:
        serve(
            port=port,
            store=store,
            parallel=parallel,
            latency=latency,
            faults=dict(map(parse_fault_option, faults)),
            seed=seed,
            search_lag=search_lag,
            late_after=late_after,
            libraries=libraries,
            api_key=os.environ.get("ENROLL_API_KEY"),
            api_secret=os.environ.get("ENROLL_API_SECRET"),
            clock_skew=clock_skew,
            on_ready=_tell_ready,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    except StoreError as error:
        raise with_remedy(error, "Name another with --store.") from error
    except OSError as error:
        raise UsageError(
            f"The stand-in cannot listen on port {port}: {error.strerror}. Choose another --port."
        ) from error
    say("The stand-in has stopped.")
    return 0


def with_remedy(error: Exception, remedy: str) -> UsageError:
    said = str(error)
    return UsageError(f"{said[:1].upper()}{said[1:]}. {remedy}")


def _tell_ready(box: Sandbox) -> None:
    say(
        f"The stand-in listens on {box.endpoint} until Ctrl-C. In another shell:",
        "",
        f"  export ENROLL_ENDPOINT={box.endpoint}",
        f"  export ENROLL_API_KEY={box.api_key}",
        f"  export ENROLL_API_SECRET={box.api_secret}",
        "  enroll library list",
        "",
        wrap=False,
    )
