"""Faces looked for in what would be sent, before a call is paid for."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from zlib import crc32

import pytest
from archive import Archive, nobody, portrait
from PIL import Image, ImageChops, ImageFilter
from real_command import Command
from real_pictures import exif, saved

from enroll.errors import UsageError
from enroll.model import FaceMeasures, Fault, Photo
from enroll.photos import PhotoCode, Prepared, marks, open_store, prepare, read_photo
from enroll.photos.precheck import check, check_installed
from enroll.sandbox import Sandbox
from enroll.settings import SEARCH_PREPARATION, Precheck, Preparation

pytestmark = pytest.mark.usefixtures("moved_clock")

RUN = ("run", "staff.csv", "--group-id", "staff")
PLAN = ("plan", "staff.csv", "--group-id", "staff")
WARN = Preparation(precheck=Precheck.WARN)


def person(number: int) -> Image.Image:
    return Image.open(BytesIO(portrait(number)))


def together(*people: Image.Image) -> bytes:
    """People beside each other."""
    size = (sum(one.width for one in people), max(one.height for one in people))
    picture = Image.new("RGB", size, (90, 110, 120))
    left = 0
    for one in people:
        picture.paste(one, (left, 0))
        left += one.width
    return saved(picture)


def astronaut() -> Image.Image:
    """A real portrait, whose face is 88 pixels wide."""
    from skimage import data  # takes long to load, and collecting the tests needs none of it

    return Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call]


def moved(picture: Image.Image, pixels: int) -> Image.Image:
    """A picture that was taken while the camera moved sideways."""
    sum_of = picture
    for step in range(1, pixels):
        sum_of = Image.blend(sum_of, ImageChops.offset(picture, step, 0), 1 / (step + 1))
    return sum_of


def shrunk(picture: Image.Image, width: int) -> Image.Image:
    """One of the demo's people with a face of this width, in front of a wall."""
    share = width / 117
    small = picture.resize((round(picture.width * share), round(picture.height * share)))
    wall = Image.new("RGB", (120, 120), (200, 205, 215))
    wall.paste(small, (30, 30))
    return wall


def measured(picture: Image.Image) -> FaceMeasures:
    face = check(saved(picture, quality=92), "image/jpeg", WARN).face
    assert face is not None
    return face


def doubt(content: bytes, preparation: Preparation = WARN) -> str | None:
    prepared = prepare(content, preparation)
    assert not isinstance(prepared, Fault)
    found = check(prepared.content, prepared.media_type, preparation).fault
    return None if found is None else found.code


def outcomes(archive: Archive) -> dict[str, str]:
    return {line["user_id"]: line["error"] or line["status"] for line in archive.results()}


def put(archive: Archive, **photos: bytes) -> None:
    for name, content in photos.items():
        archive.photo(f"{name}.jpg", content)
    archive.manifest([(name, "", f"{name}.jpg") for name in photos])


def test_one_face_is_no_reason_for_doubt_in_any_format_that_is_sent() -> None:
    for form in ("JPEG", "PNG", "BMP", "WEBP"):
        assert doubt(saved(person(1), form)) is None, form
    assert doubt(saved(person(2).convert("L"))) is None
    assert doubt(saved(person(2).quantize(), "PNG")) is None
    on_its_side = person(3).transpose(Image.Transpose.ROTATE_90)
    assert doubt(saved(on_its_side, exif=exif(6))) is None


def test_a_photo_without_a_face_is_doubted() -> None:
    assert doubt(nobody()) == PhotoCode.NO_FACE


def test_faces_of_similar_size_are_doubted_and_a_smaller_one_is_not() -> None:
    assert doubt(together(person(1), person(2))) == PhotoCode.SEVERAL_FACES
    child = person(2).resize((190, 240))
    assert doubt(together(person(1).resize((480, 600)), child)) is None


def test_a_face_that_takes_up_little_of_a_large_photo_is_found() -> None:
    crowd = Image.new("RGB", (2800, 2000), (90, 110, 120))
    crowd.paste(person(1), (1000, 700))
    assert doubt(saved(crowd)) is None


def test_a_face_is_measured_in_pixels_of_what_is_sent() -> None:
    large = saved(person(1).resize((960, 1200)))
    asked = Preparation(precheck=Precheck.HOLD, min_face=200)
    assert doubt(large, asked) is None
    small = Preparation(precheck=Precheck.HOLD, min_face=200, max_side=300)
    assert doubt(large, small) == PhotoCode.SMALL_FACE


def with_room(picture: Image.Image, degrees: float = 0) -> Image.Image:
    """A person with more of the background around them, turned anticlockwise."""
    wide = Image.new("RGB", (600, 600), (200, 205, 215))
    wide.paste(picture, (180, 150))
    return wide.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(200, 205, 215))


def test_each_fault_of_a_face_has_a_code_of_its_own() -> None:
    whole = person(1)
    real = astronaut()
    faults = {
        "as it is": (whole, None),
        "a real one": (real, None),
        "somewhat blurred": (real.filter(ImageFilter.GaussianBlur(1.5)), None),
        "blurred": (real.filter(ImageFilter.GaussianBlur(3)), PhotoCode.BLURRED_FACE),
        "moved": (moved(real, 14), PhotoCode.BLURRED_FACE),
        "somewhat dark": (whole.point(lambda level: level * 0.4), None),
        "dark": (whole.point(lambda level: level * 0.1), PhotoCode.DARK_FACE),
        "bright": (person(3).point(lambda level: level * 3), PhotoCode.BRIGHT_FACE),
        "tilted a little": (with_room(whole, 18), None),
        "tilted": (with_room(whole, -40), PhotoCode.TILTED_FACE),
        "close to the edge": (real.crop((0, 80, 512, 512)), None),
        "cut off": (real.crop((0, 0, 512, 150)), PhotoCode.CUT_FACE),
        "small": (real.resize((256, 256)), None),
        "too small": (shrunk(whole, 26), PhotoCode.SMALL_FACE),
    }
    found = {what: doubt(saved(picture, quality=92)) for what, (picture, _) in faults.items()}
    assert found == {what: code for what, (_, code) in faults.items()}


def test_a_face_is_measured_as_it_is_in_the_photo() -> None:
    plain = measured(with_room(person(1)))
    assert plain.width == pytest.approx(117, rel=0.2)
    assert abs(plain.tilt) < 5
    assert plain.margin == pytest.approx(2.4, abs=0.4)
    for degrees in (-25, 25):
        tilt = measured(with_room(person(1), degrees)).tilt
        assert tilt == pytest.approx(-degrees, abs=8), "clockwise is positive"
    dim = measured(with_room(person(1)).point(lambda level: level // 2))
    assert dim.shadows == pytest.approx(plain.shadows / 2, abs=2)
    assert dim.highlights == pytest.approx(plain.highlights / 2, abs=2)
    assert dim.sharpness == pytest.approx(plain.sharpness, rel=0.2)
    large = measured(with_room(person(1)).resize((3600, 3600), Image.Resampling.LANCZOS))
    assert large.width == pytest.approx(6 * plain.width, rel=0.25), "its decoder shrank it"


def test_what_is_wrong_comes_with_a_remedy_and_the_way_around_it() -> None:
    small = shrunk(person(1), 26)
    for preparation, words in (
        (WARN, r"about \d+ pixels wide in what is sent; too few .* with --min-face \d+\."),
        (Preparation(precheck=Precheck.HOLD, min_face=90), r"--min-face asks for 90\. .* \d+\."),
    ):
        found = check(saved(small), "image/jpeg", preparation).fault
        assert found is not None
        assert re.search(words, found.message), found.message
    assert doubt(saved(small), Preparation(precheck=Precheck.WARN, min_face=10)) is None
    tilted = saved(with_room(person(1), 40))
    held = check(tilted, "image/jpeg", Preparation(precheck=Precheck.HOLD)).fault
    assert held is not None
    assert re.search(r"about (3|4)\d degrees to the left .*--precheck warn\.$", held.message)


def test_of_the_demo_and_of_a_real_portrait_nothing_is_held_back() -> None:
    assert {number: doubt(portrait(number)) for number in range(0, 60, 5)} == dict.fromkeys(
        range(0, 60, 5)
    )


def test_a_face_on_its_side_is_found_where_the_service_turns_photos_too() -> None:
    content = saved(person(1).transpose(Image.Transpose.ROTATE_90))
    assert doubt(content) == PhotoCode.NO_FACE
    turning = Preparation(precheck=Precheck.WARN, multi_oriented_detection=True)
    assert doubt(content, turning) is None


def test_a_photo_that_is_sent_as_it_is_and_cannot_be_decoded_is_doubted() -> None:
    whole = saved(person(1), "PNG")
    at = whole.index(b"IDAT")
    length = int.from_bytes(whole[at - 4 : at], "big")
    noise = b"IDAT" + bytes(range(1, 201)) * (length // 200 + 1)
    chunk = noise[: length + 4]
    broken = whole[:at] + chunk + crc32(chunk).to_bytes(4, "big") + whole[at + length + 8 :]
    assert isinstance(prepare(broken), Prepared)
    assert doubt(broken) == PhotoCode.DAMAGED


@pytest.mark.parametrize("precheck", [Precheck.WARN, Precheck.HOLD])
def test_to_send_it_all_the_same_is_said_only_where_it_is_held_back(precheck: Precheck) -> None:
    preparation = Preparation(precheck=precheck)
    cut = saved(person(1))
    cut = cut[: len(cut) // 2] + b"\xff\xd9"
    for content, option in (
        (nobody(), "--precheck warn"),
        (together(person(1), person(2)), "--precheck warn"),
        (cut, "--accept-truncated"),
    ):
        found = check(content, "image/jpeg", preparation).fault
        assert found is not None
        assert (option in found.message) is (precheck is Precheck.HOLD)
    accepting = Preparation(precheck=precheck, accept_truncated=True)
    found = check(cut, "image/jpeg", accepting).fault
    assert found is None or found.code == PhotoCode.NO_FACE


def test_a_look_for_a_doubt_looks_for_no_face(tmp_path: Path) -> None:
    path = tmp_path / "nobody.jpg"
    path.write_bytes(nobody())
    read = read_photo(str(path), open_store(tmp_path), SEARCH_PREPARATION)
    assert isinstance(read, Photo)
    assert read.precheck_fault is None
    warned = read_photo(str(path), open_store(tmp_path), WARN)
    assert isinstance(warned, Photo)
    assert warned.precheck_fault is not None


def test_many_threads_find_what_one_finds() -> None:
    photos = [portrait(1), nobody(), together(person(1), person(2))] * 4
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(doubt, photos)) == [doubt(photo) for photo in photos]


def test_every_refusal_depends_on_the_settings_that_decide_it() -> None:
    before = marks(Preparation(precheck=Precheck.HOLD))
    of_the_face = {code.name for code in PhotoCode if "FACE" in code.name}
    assert len(of_the_face) == 8
    for changed, codes in (
        (Preparation(precheck=Precheck.WARN), of_the_face),
        (Preparation(precheck=Precheck.HOLD, min_face=9), {"SMALL_FACE"}),
        (Preparation(precheck=Precheck.HOLD, max_side=640), {"SMALL_FACE", "BLURRED_FACE"}),
        (Preparation(precheck=Precheck.HOLD, multi_oriented_detection=True), of_the_face),
    ):
        now = marks(changed)
        different = {code.name for code in PhotoCode if now.get(code) != before.get(code)}
        assert {name for name in different if "FACE" in name} == codes


def test_without_the_extra_a_run_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed(WARN)
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(UsageError, match=r"pip install 'enroll\[precheck\]'"):
        check_installed(WARN)
    check_installed(Preparation())


def test_doubtful_photos_are_held_back_without_a_call(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    put(
        archive,
        one=portrait(1),
        none=nobody(),
        two=together(person(2), person(3)),
    )
    done = command(*RUN, "--precheck", "hold")
    assert done.code == 1
    assert outcomes(archive) == {
        "one": "enrolled",
        "none": "PHOTO_NO_FACE",
        "two": "PHOTO_SEVERAL_FACES",
    }
    assert {line["status"] for line in archive.results()} == {"enrolled", "invalid"}
    assert box.count("add") == 1
    again = command(*RUN, "--precheck", "hold")
    assert (again.code, "nothing to do" in again.out) == (1, True)


def test_a_photo_held_back_is_due_again_with_another_precheck(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    on_its_side = saved(person(1).transpose(Image.Transpose.ROTATE_90))
    dark = saved(person(5).resize((480, 600)).point(lambda level: level * 0.1))
    two = together(person(3), person(4))
    put(archive, small=portrait(2), side=on_its_side, two=two, dark=dark)
    assert command(*RUN, "--precheck", "hold", "--min-face", "150").code == 1
    refused = {
        "small": "PHOTO_SMALL_FACE",
        "side": "PHOTO_NO_FACE",
        "two": "PHOTO_SEVERAL_FACES",
        "dark": "PHOTO_DARK_FACE",
    }
    assert outcomes(archive) == refused
    assert command(*RUN, "--precheck", "hold").code == 1
    assert outcomes(archive) == {**refused, "small": "enrolled"}
    assert box.count("add") == 1
    assert command(*RUN, "--precheck", "hold", "--multi-oriented-detection").code == 1
    assert outcomes(archive) == {**refused, "small": "enrolled", "side": "enrolled"}
    assert command(*RUN, "--multi-oriented-detection").code == 0
    assert set(outcomes(archive).values()) == {"enrolled"}
    assert box.count("add") == 4


def test_a_doubtful_photo_is_sent_and_said_where_warnings_were_asked_for(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    put(archive, one=portrait(1), two=together(person(2), person(3)))
    done = command(*RUN, "--precheck", "warn")
    assert (done.code, outcomes(archive)) == (0, {"one": "enrolled", "two": "enrolled"})
    assert "1 photo looks doubtful: PHOTO_SEVERAL_FACES 1; sent anyway." in done.out
    assert re.search(r"^Line 3, .*: doubtful, PHOTO_SEVERAL_FACES$", done.err, re.MULTILINE)
    again = command(*RUN, "--precheck", "warn")
    assert "doubtful:" not in again.out + again.err
    assert box.count("add") == 2


def test_a_warning_is_an_event_of_its_own_among_json_lines(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    put(archive, two=together(person(2), person(3)))
    done = command(*RUN, "--precheck", "warn", "--log-format", "json")
    lines = [json.loads(line) for line in done.err.splitlines()]
    (told,) = [line for line in lines if line["event"] == "doubtful"]
    assert (told["code"], told["line"]) == ("PHOTO_SEVERAL_FACES", 2)
    assert lines[-1]["doubtful"] == {"PHOTO_SEVERAL_FACES": 1}
    assert not [line for line in lines if line["event"] == "row"]


def test_an_enrolled_face_is_not_held_back_when_its_file_was_touched(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    two = Image.open(BytesIO(together(person(2), person(3))))
    put(archive, two=saved(two, exif=exif(comment="first")))
    assert command(*RUN).code == 0
    put(archive, two=saved(two, exif=exif(comment="second")))
    done = command(*RUN, "--precheck", "hold")
    assert (done.code, outcomes(archive)) == (0, {"two": "enrolled"})
    assert box.count("add") == 1


def test_a_plan_looks_for_faces_and_calls_nothing(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    put(archive, one=portrait(1), none=nobody(), two=together(person(2), person(3)))
    warned = command(*PLAN, "--precheck", "warn").out
    assert "2 photos look doubtful: PHOTO_NO_FACE 1, PHOTO_SEVERAL_FACES 1; sent" in warned
    assert re.search(r"^  due +3$", warned, re.MULTILINE)
    held = command(*PLAN, "--precheck", "hold").out
    assert re.search(r"^  due +1$", held, re.MULTILINE)
    assert re.search(r"invalid +PHOTO_NO_FACE +1 ", held)
    assert re.search(r"invalid +PHOTO_SEVERAL_FACES +1 ", held)
    assert box.calls == []


def test_a_least_face_without_a_look_is_refused(archive: Archive, command: Command) -> None:
    put(archive, one=portrait(1))
    done = command(*RUN, "--min-face", "100")
    assert (done.code, "--precheck" in done.err) == (2, True)
