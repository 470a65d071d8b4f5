"""A 12-megapixel JPEG to 1,280 pixels, beside libvips' `vipsthumbnail`: time, and what is seen.

    python benchmarks/photo_side_by_side.py [PHOTO]

Both as processes of their own would be unfair to Python, so theirs is measured less the time that
it takes for the smallest picture; ours is CPU time within this process. It needs Debian's
libvips-tools. Without PHOTO a picture is made. Target: at most 1.2 times theirs, no difference
that an eye sees.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageChops, ImageFilter, ImageStat

from enroll.photos import Prepared, prepare
from enroll.settings import Preparation

SIDE = 1280
ROUNDS = 15


def make_photo() -> bytes:
    """Soft shapes with the grain of a sensor, 4,000 by 3,000 pixels."""
    bands = [
        Image.effect_noise((125, 94), 90).resize((4000, 3000), Image.Resampling.BICUBIC)
        for _ in range(3)
    ]
    grain = Image.effect_noise((4000, 3000), 12).filter(ImageFilter.BoxBlur(1))
    picture = Image.blend(Image.merge("RGB", bands), Image.merge("RGB", [grain] * 3), 0.15)
    out = BytesIO()
    picture.save(out, "JPEG", quality=92, subsampling=2)
    return out.getvalue()


def ours(content: bytes) -> bytes:
    found = prepare(content, Preparation(max_side=SIDE))
    if not isinstance(found, Prepared):
        sys.exit(found.message)
    return found.content


def vips_seconds(photo: Path, thumbnail: Path, quality: int) -> float:
    """CPU seconds of one `vipsthumbnail`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = f"{thumbnail}[Q={quality},strip,subsample_mode=on]"  # as the photo is
    subprocess.run(
        ["vipsthumbnail", str(photo), "--size", f"{SIDE}x{SIDE}>", "-o", out], check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def our_seconds(content: bytes) -> float:
    """CPU seconds of all our threads."""
    began = time.process_time()
    ours(content)
    return time.process_time() - began


def difference(one: Image.Image, other: Image.Image) -> float:
    found = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    return sum(ImageStat.Stat(found).mean) / 3


def main() -> None:
    if shutil.which("vipsthumbnail") is None:
        sys.exit("There is no vipsthumbnail here: apt-get install libvips-tools.")
    content = Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else make_photo()
    with tempfile.TemporaryDirectory() as name:
        photo, thumbnail, tiny = (Path(name) / one for one in ("a.jpg", "b.jpg", "tiny.jpg"))
        photo.write_bytes(content)
        Image.new("RGB", (64, 64)).save(tiny)
        quality = 92
        rounds = [
            (our_seconds(content), vips_seconds(photo, thumbnail, quality)) for _ in range(ROUNDS)
        ]
        idle = min(vips_seconds(tiny, Path(name) / "c.jpg", quality) for _ in range(ROUNDS))
        mine, theirs = Image.open(BytesIO(ours(content))), Image.open(thumbnail)
        quickest_mine = min(one for one, _ in rounds)
        quickest_theirs = min(other for _, other in rounds)
        print(f"{len(content):,} bytes, to {mine.size[0]} x {mine.size[1]} pixels")
        print(f"ours          {1000 * quickest_mine:6.1f} ms of CPU, {len(ours(content)):,} bytes")
        print(
            f"vipsthumbnail {1000 * quickest_theirs:6.1f} ms of CPU, {1000 * idle:.1f} of it to "
            f"start, {thumbnail.stat().st_size:,} bytes"
        )
        print(f"ratio         {quickest_mine / (quickest_theirs - idle):6.2f} (its start left out)")
        print(f"              {quickest_mine / quickest_theirs:6.2f} (its start counted)")
        whole = Image.open(BytesIO(content)).convert("RGB")
        exact = whole.resize(mine.size, Image.Resampling.LANCZOS)
        print("difference in levels of 255, on average:")
        print(f"  ours from theirs                       {difference(mine, theirs):5.2f}")
        print(f"  ours from the whole picture resized    {difference(mine, exact):5.2f}")
        print(f"  theirs from the whole picture resized  {difference(theirs, exact):5.2f}")


if __name__ == "__main__":
    main()
