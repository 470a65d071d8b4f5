"""Makes docs/report.png, which the README shows: `enroll report` about the demo's drawn people, of
whose photos some are spoiled.

    python docs/picture_of_report.py

Needs Chromium, and what `make test` installs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from enroll.cli.rehearsal import write_archive

WIDTH, HEIGHT = 1080, 1400
COLOURS = 224
"""Of the palette, so that the picture stays below 200 kB."""


def main() -> None:
    """Run the demo, report on it, and take the picture."""
    folder = Path(tempfile.gettempdir()) / "archive"  # the page shows its name
    folder.mkdir()
    try:
        _spoil(folder / "demo")
        for words in ("demo demo", "report report.html --ledger demo/ledger.sqlite"):
            command = (sys.executable, "-m", "enroll", *words.split())
            subprocess.run(command, cwd=folder, check=True, capture_output=True)  # noqa: S603
        shown = _picture(folder / "report.html")
    finally:
        shutil.rmtree(folder)
    target = Path(__file__).with_name("report.png")
    shown.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size:,} bytes")


def _spoil(demo: Path) -> None:
    """Turn some photos on their side, where no face is found, and cut some off. The demo leaves
    photos that are there as they are."""
    write_archive(demo)
    photos = sorted((demo / "photos").glob("E*.jpg"))
    for photo in photos[3:12]:
        Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(photo, quality=90)
    for photo in photos[20:23]:
        photo.write_bytes(photo.read_bytes()[: photo.stat().st_size * 6 // 10])


def _picture(report: Path) -> Image.Image:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready]")
        page.wait_for_timeout(500)  # pictures are decoded beside the script
        taken = page.screenshot()
        browser.close()
    return Image.open(BytesIO(taken)).convert("RGB")


if __name__ == "__main__":
    main()
