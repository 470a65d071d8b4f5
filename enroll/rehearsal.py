"""The demo: an archive, the stand-in, a run, and what to look at afterwards."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from enroll.demo import draw_archive
from enroll.ending import Report
from enroll.enrollment import enroll_manifest
from enroll.errors import ExitCode
from enroll.limiter.adaptive import MOST_IN_FLIGHT
from enroll.model import Credentials
from enroll.reports.console import Console
from enroll.reports.summary import summary_lines
from enroll.resources import share_out
from enroll.sandbox import Sandbox
from enroll.settings import RunSettings
from enroll.text.logs import LastingStream, set_up
from enroll.text.printing import say

GROUP_ID = "demo"


def run_demo(folder: Path) -> int:
    """Enroll a drawn archive into the stand-in; everything that it makes lies in `folder`.

    Returns the run's exit code, but 0 for rows that fail: some of the demo's are there for it.
    """
    say(f"Drawing an archive of portraits into {folder}; some rows are there to fail.", "")
    manifest = draw_archive(folder)
    with Sandbox(store=folder / "service.sqlite") as box:
        box.create_library(GROUP_ID)
        credentials = Credentials(box.api_key, box.api_secret)
        settings = RunSettings(
            manifest=manifest,
            group_id=GROUP_ID,
            endpoint=box.endpoint,
            ledger=folder / "ledger.sqlite",
            origins={"endpoint": "the stand-in", "group_id": "the demo", "ledger": "the demo"},
        )
        settings = replace(settings, max_in_flight=_most_in_flight(settings.readers))
        stream = LastingStream(sys.stderr)
        set_up(stream=stream, as_json=False, file=None, quiet=False)
        console = Console(settings, stream)
        report = enroll_manifest(settings, lambda: credentials, screen=console)
        faces = len(box.faces(GROUP_ID))
    say("", *summary_lines(report), *_afterwards(folder, report, faces))
    code = report.exit_code
    return ExitCode.DONE if code is ExitCode.SOME_ROWS_FAILED else code


def _most_in_flight(readers: int) -> int | None:
    """None for as many as the stand-in takes; fewer where this process, which has both ends of
    every connection, may not have so many files open."""
    calls = share_out(calls=2 * MOST_IN_FLIGHT, readers=readers).calls // 2
    return None if calls == MOST_IN_FLIGHT else max(calls, 1)


def _afterwards(folder: Path, report: Report, faces: int) -> list[str]:
    ledger, enroll = report.place.ledger, _our_name()
    return [
        "",
        f"The stand-in's library now holds {faces} faces. Run the demo again: it adds none.",
        "Look around:",
        "",
        f"  {enroll} status --ledger {ledger}",
        f"  {enroll} export - --ledger {ledger} --status enrolled",
        f"  less {report.results or folder}",
        "",
    ]


def _our_name() -> str:
    """How the reader can call us: by name where that finds us, else by the path that was used."""
    called = Path(sys.argv[0])
    found = shutil.which("enroll")
    if found is not None and called.exists() and Path(found).samefile(called):
        return "enroll"
    return str(called) if called.name == "enroll" else f"{sys.executable} -m enroll"
