"""`enroll sandbox` and `enroll demo`: trying things out without an account."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enroll.allowed import Range
from enroll.cli import options
from enroll.errors import UsageError
from enroll.text.wording import say

if TYPE_CHECKING:
    from enroll.sandbox import Sandbox

DEFAULT_PORT = 8765
DAY_SECONDS = 86_400


def _needs_extra(error: ImportError) -> UsageError:
    return UsageError(
        f"The stand-in needs the package {error.name}, which the sandbox extra installs: "
        "pip install 'enroll[sandbox]'."
    )


@click.command(cls=options.SettingsCommand)
@options.config
@click.option(
    "--port",
    type=options.WholeNumber(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port on 127.0.0.1; 0 takes a free one.",
)
@options.named_option(
    "--store", type=options.FILE, help="Keep the libraries in this file.  [default: in memory]"
)
@click.option(
    "--library", "libraries", multiple=True, metavar="ID", help="Make this library; repeatable."
)
@click.option(
    "--parallel",
    type=options.WholeNumber(1),
    metavar="N",
    help="Refuse calls beyond N at a time.  [default: no limit]",
)
@click.option(
    "--latency",
    type=options.SECONDS,
    default=0.0,
    metavar="SECONDS",
    help="How long every call takes.  [default: no longer than it needs]",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND=PROBABILITY",
    help="Answer calls with this fault; repeatable. A wrong KIND lists them all.",
)
@click.option(
    "--seed",
    type=options.WholeNumber(0),
    default=0,
    show_default=True,
    help="Seed of the faults.",
)
@click.option(
    "--search-lag",
    type=options.SECONDS,
    default=0.0,
    metavar="SECONDS",
    help="How long `search` and `list` do not show a new face.  [default: not at all]",
)
@click.option(
    "--late-after",
    type=options.SECONDS,
    metavar="SECONDS",
    help="When a `late` call is carried out.  [default: when the caller has gone away]",
)
@click.option(
    "--clock-skew",
    type=options.Number(Range(least=-DAY_SECONDS, most=DAY_SECONDS)),
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
        raise _needs_extra(error) from error
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
        raise UsageError(f"{_sentence(error)} Name another with --store.") from error
    except OSError as error:
        raise UsageError(
            f"The stand-in cannot listen on port {port}: {error.strerror}. Choose another --port."
        ) from error
    say("The stand-in has stopped.")
    return 0


def _sentence(error: Exception) -> str:
    said = str(error)
    return f"{said[:1].upper()}{said[1:]}."


def _tell_ready(box: Sandbox) -> None:
    say(
        f"The stand-in listens on {box.endpoint} until Ctrl-C. In another shell:",
        "",
        f"  export ENROLL_ENDPOINT={box.endpoint}",
        f"  export ENROLL_API_KEY={box.api_key}",
        f"  export ENROLL_API_SECRET={box.api_secret}",
        "  enroll library list",
        "",
    )


@click.command(cls=options.SettingsCommand)
@click.argument("folder", type=options.FILE, default=Path("enroll-demo"), metavar="[DIR]")
def demo(folder: Path) -> int:
    """Draw an archive, start the stand-in, enroll into it.

    Everything stays in DIR (enroll-demo). Run it twice: the second run adds nothing.
    """
    try:
        from enroll.cli.demo import run_demo
        from enroll.sandbox import StoreError
    except ImportError as error:
        raise _needs_extra(error) from error
    try:
        return run_demo(folder)
    except StoreError as error:
        raise UsageError(f"{_sentence(error)} Name another folder for this demo.") from error
