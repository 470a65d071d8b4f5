"""Whole runs over photos as they really are, and what a changed setting makes due again."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from io import BytesIO

import pytest
from archive import Archive, portrait, read_csv
from PIL import Image
from real_command import Command
from real_pictures import exif, saved, scene

from enroll.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("moved_clock")

RUN = ("run", "staff.csv", "--group-id", "staff")
PLAN = ("plan", "staff.csv", "--group-id", "staff")


def person(number: int) -> Image.Image:
    return Image.open(BytesIO(portrait(number)))


def outcomes(archive: Archive) -> dict[str, str]:
    return {line["user_id"]: line["error"] or line["status"] for line in archive.results()}


def prepared(command: Command) -> dict[str, str]:
    assert command("export", "all.csv", "--group-id", "staff").code == 0
    return {line["user_id"]: line["prepared"] for line in read_csv(command.folder / "all.csv")}


def put(archive: Archive, **photos: bytes) -> None:
    """A photo of each name, and a manifest of them."""
    for name, content in photos.items():
        archive.photo(f"{name}.jpg", content)
    archive.manifest([(name, "", f"{name}.jpg") for name in photos])


def test_photos_of_every_kind_are_enrolled_and_the_export_says_what_was_done(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    plain = portrait(1)
    on_its_side = person(3).transpose(Image.Transpose.ROTATE_90)
    put(
        archive,
        plain=plain,
        located=saved(person(2), exif=exif()),
        turned=saved(on_its_side, exif=exif(6)),
        large=saved(person(4).resize((3600, 4500))),
        webp=saved(person(5), "WEBP"),
    )
    planned = command(*PLAN).out
    done = command(*RUN)
    assert (done.code, set(outcomes(archive).values())) == (0, {"enrolled"}), done
    told = {
        "plain": "",
        "located": "stripped",
        "turned": "turned",
        "large": "shrunk",
        "webp": "converted",
    }
    assert prepared(command) == told
    for words in ("sent as they are", *filter(None, told.values())):
        assert f"  {words} " in planned
    sent = {face.user_id: face.sha256 for face in box.faces("staff")}
    assert sent["plain"] == sha256(plain).hexdigest()
    assert sent["located"] == sha256(saved(person(2))).hexdigest()


def test_a_full_plan_finds_what_a_head_does_not_tell(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    whole = saved(person(1).resize((480, 600)), quality=95)
    put(archive, whole=whole, cut=whole[: len(whole) * 9 // 10], webp=saved(person(2), "WEBP"))
    glanced = command(*PLAN).out
    assert "PHOTO_TRUNCATED" not in glanced
    assert "bytes before and (about) after" in glanced
    assert re.search(r"^To send  about .* of photos$", glanced, re.MULTILINE)
    full = command(*PLAN, "--full").out
    assert re.search(r"invalid +PHOTO_TRUNCATED +1 ", full)
    assert "bytes before and after" in full
    assert re.search(r"^To send  \d.* of photos$", full, re.MULTILINE)
    assert box.calls == []


def test_a_photo_of_which_only_the_metadata_changed_is_not_added_again(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    put(archive, one=saved(person(1), exif=exif(comment="first")))
    assert command(*RUN).code == 0
    put(archive, one=saved(person(1), exif=exif(comment="second")))
    assert command(*RUN).code == 0
    put(archive, one=saved(person(1)))  # without any, as another program has left it
    assert command(*RUN).code == 0
    assert (box.count("add"), len(box.faces("staff"))) == (1, 1)
    assert command(*RUN).code == 0
    put(archive, one=portrait(2))
    assert command(*RUN).code == 0
    assert box.count("add") == 2


def test_a_refused_photo_is_due_again_with_another_setting_that_matters_and_no_other(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    whole = portrait(2)
    put(
        archive,
        webp=saved(person(1), "WEBP"),
        cut=whole[: len(whole) * 9 // 10],
        text=b"no photo",
    )
    refused = {"webp": "PHOTO_FORMAT", "cut": "PHOTO_TRUNCATED", "text": "PHOTO_NOT_AN_IMAGE"}
    assert command(*RUN, "--no-convert").code == 1
    assert outcomes(archive) == refused
    for _ in range(2):
        again = command(*RUN, "--no-convert")
        assert (again.code, "nothing to do" in again.out) == (1, True)
    assert re.search(r"^  due +1$", command(*PLAN).out, re.MULTILINE)
    assert command(*RUN).code == 1
    assert outcomes(archive) == {**refused, "webp": "enrolled"}
    assert command(*RUN, "--accept-truncated").code == 1
    assert outcomes(archive) == {**refused, "webp": "enrolled", "cut": "enrolled"}
    assert prepared(command)["cut"] == "completed"
    assert box.count("add") == 2


def test_a_photo_that_the_service_found_too_large_is_due_again_when_less_is_allowed(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    put(archive, large=saved(scene(5000, 400)))
    assert command(*RUN, "--max-side", "8000").code == 1
    assert outcomes(archive) == {"large": "INVALID_IMAGE_SIZE"}
    assert command(*RUN, "--max-side", "8000").code == 1
    assert box.count("add") == 1
    assert command(*RUN).code == 1  # there is nobody in it, but it is small enough
    assert outcomes(archive) == {"large": "NO_FACE_FOUND"}
    assert box.count("add") == 2


@pytest.mark.parametrize("option", ["--max-side=47", "--max-bytes=9999", "--max-pixels=5"])
def test_bounds_with_which_nothing_could_be_sent_are_refused(
    archive: Archive, command: Command, option: str
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*PLAN, option).code == 2


def test_as_text_photos_have_three_quarters_of_the_bytes(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    large = saved(person(1).resize((480, 600)), quality=98)
    put(archive, one=large)
    bound = len(large) + 100
    assert command(*RUN, "--max-bytes", bound, "--send-as", "image").code == 0
    assert prepared(command) == {"one": "shrunk"}


def test_broken_tiffs_leave_nothing_but_our_own_lines(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    kinds = ("tiff_lzw", "tiff_adobe_deflate", "packbits")
    for number, kind in enumerate(kinds):
        content = bytearray(saved(person(number), "TIFF", compression=kind))
        for at in range(100, len(content) - 400, 7):
            content[at] ^= 0x5A
        archive.photo(f"{kind}.tif", bytes(content))
    archive.manifest([(kind, "", f"{kind}.tif") for kind in kinds])
    done = command.run(*RUN, "--log-format", "json")  # what C code prints, only a process shows
    events = [json.loads(line)["event"] for line in done.err.splitlines()]
    assert events.count("row") == len(kinds)
    assert "PHOTO_DAMAGED" in outcomes(archive).values()
    assert command.run(*PLAN, "--full").err == ""
