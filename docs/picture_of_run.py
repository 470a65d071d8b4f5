"""Makes docs/run.svg, which the README shows: `enroll run` in a terminal of 92 columns, with 508
rows and a stand-in that takes six calls at a time.

    python docs/picture_of_run.py

Needs what `make demo` installs. It takes half a minute.
"""

from __future__ import annotations

import csv
import fcntl
import os
import pty
import re
import shutil
import struct
import sys
import tempfile
import termios
from collections.abc import Mapping
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from enroll.cli.rehearsal import PEOPLE, portrait, write_archive
from enroll.sandbox import Sandbox

ROWS, COLUMNS = 508, 92
COMMAND = "enroll run staff.csv --group-id staff"
CELL, LINE, SIZE = 7.83, 19, 13
"""Pixels: the width of a character, the height of a line, and that of the font."""
MARGIN, BAR = 16, 34
STYLE = f"""
  text {{ fill: #d8dee9; white-space: pre;
         font: {SIZE}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
  .typed {{ fill: #a3d9a5; }}
  .bar {{ fill: #8fbcdb; }}
"""


def main() -> None:
    """Run the command, and draw what its terminal showed."""
    folder = Path(tempfile.gettempdir()) / "archive"  # the run shows its name
    folder.mkdir()
    try:
        _write_archive(folder)
        with Sandbox(parallel=6, latency=0.2, api_key="3f2a" + "0" * 28) as box:
            box.create_library("staff")
            shown = _in_a_terminal(
                COMMAND.split()[1:],
                folder,
                {
                    "ENROLL_ENDPOINT": box.endpoint,
                    "ENROLL_API_KEY": box.api_key,
                    "ENROLL_API_SECRET": box.api_secret,
                    "XDG_STATE_HOME": str(folder / "state"),
                },
            )
    finally:
        shutil.rmtree(folder)
    target = Path(__file__).with_name("run.svg")
    target.write_text(_drawn([f"$ {COMMAND}", *_lines(shown)]), encoding="utf-8")
    print(f"{target}: {target.stat().st_size:,} bytes")


def _write_archive(folder: Path) -> None:
    """The demo's archive, of whose rows eight fail, with more people: its portraits, cut again."""
    write_archive(folder)
    with (folder / "staff.csv").open("a", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        for number in range(PEOPLE, ROWS - 8):
            name = f"photos/F{number:06d}.jpg"
            picture = Image.open(BytesIO(portrait(number % PEOPLE)))
            picture.crop((0, 0, 240, 300 - number // PEOPLE)).save(folder / name, quality=90)
            rows.writerow((f"F{number:06d}", f"Person {number}", name))


def _in_a_terminal(arguments: list[str], folder: Path, environ: Mapping[str, str]) -> str:
    """What `enroll` with these arguments writes to a terminal."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        command = [sys.executable, "-m", "enroll", *arguments]
        os.execve(command[0], command, {**os.environ, **environ})  # noqa: S606
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the command has ended
            break
        parts.append(part)
    os.waitpid(child, 0)
    return b"".join(parts).decode()


def _lines(shown: str) -> list[str]:
    """The lines that stay, and before the last state of the progress bar two others."""
    lines: list[str] = []
    bars: list[str] = []
    for line in shown.replace("\r\n", "\n").rstrip("\n").split("\n"):
        *overwritten, last = line.split("\r")
        bars += [one for one in overwritten if re.match(r"\d+%\|", one)]
        if "%|" in last:
            lines += [_nearest(bars, share) for share in (25, 60)]
        lines.append(last)
    return lines


def _nearest(bars: list[str], share: int) -> str:
    return min(bars, key=lambda bar: abs(int(bar.partition("%")[0]) - share)).rstrip()


def _drawn(lines: list[str]) -> str:
    """An SVG of a terminal window with these lines."""
    width = round(COLUMNS * CELL + 2 * MARGIN)
    height = BAR + len(lines) * LINE + MARGIN
    dots = "".join(
        f'<circle cx="{MARGIN + 4 + 18 * place}" cy="17" r="5" fill="{colour}"/>'
        for place, colour in enumerate(("#e5695f", "#e6b450", "#7fb069"))
    )
    texts = "\n".join(
        _text(line, BAR + LINE * (place + 0.8)) for place, line in enumerate(lines) if line
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" role="img">
<title>{escape(COMMAND)}</title>
<style>{STYLE}</style>
<rect width="{width}" height="{height}" rx="8" fill="#20242c"/>
{dots}
{texts}
</svg>
"""


def _text(line: str, bottom: float) -> str:
    kind = "typed" if line.startswith("$") else "bar" if "%|" in line else ""
    chosen = f' class="{kind}"' if kind else ""
    indent = len(line) - len(line.lstrip())
    text = line.strip()
    # Whatever font there is: each line is as wide as its characters.
    return (
        f'<text{chosen} x="{MARGIN + indent * CELL:.2f}" y="{bottom:.1f}" '
        f'textLength="{len(text) * CELL:.2f}" xml:space="preserve">{escape(text)}</text>'
    )


if __name__ == "__main__":
    main()
