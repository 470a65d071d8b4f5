"""`enroll plan --sample` and `--report`: what some photos say of all, and a line for each."""

from __future__ import annotations

import math
import random
import re

import pytest
from archive import Archive, nobody, portrait, read_csv
from real_command import Command
from real_pictures import exif, saved, scene

from enroll.commands.plan import make_plan
from enroll.commands.plan_report import plan_lines
from enroll.runner.sample import Spread, likely_count
from enroll.sandbox import Sandbox
from enroll.settings import RunSettings

PLAN = ("plan", "staff.csv", "--group-id", "staff")


def a_mixed_archive(archive: Archive, *, each: int) -> None:
    """As many photos sent as they are as to be stripped, and as are no photos at all."""
    rows = []
    for number in range(each):
        for name, content in (
            ("plain", saved(scene(200 + number, 100))),
            ("located", saved(scene(200 + number, 100), exif=exif())),
            ("text", b"no photo"),
        ):
            archive.photo(f"{name}{number}.jpg", content)
            rows.append((f"{name}-{number}", "", f"{name}{number}.jpg"))
    archive.manifest([*rows, ("not allowed!", "", "plain0.jpg")])


def settings(archive: Archive, *, sample: int, seed: int = 0) -> RunSettings:
    return RunSettings(manifest=archive.folder / "staff.csv", group_id="", sample=sample, seed=seed)


def test_a_sample_is_reckoned_up_to_all_photos_that_are_due(
    archive: Archive, command: Command, box: Sandbox
) -> None:
    a_mixed_archive(archive, each=20)
    done = command(*PLAN, "--sample", "30").out
    assert "A sample of 30 photos, drawn from the 60 that are due" in done
    for words in ("sent as they are", "stripped", "invalid, PHOTO_NOT_AN_IMAGE"):
        likely, low, high = map(
            int,
            re.search(rf"  {words} +about (\d+) \((\d+) to (\d+)\)", done).groups(),  # type: ignore[union-attr]
        )
        assert low <= 20 <= high
        assert low <= likely <= high
    assert re.search(r"invalid +USER_ID_CHARACTER +1 ", done)
    assert re.search(r"^Calls .* about \d+ \(\d+ to \d+\) add$", done, re.MULTILINE)
    assert re.search(r"^To send  about .* to .* of photos$", done, re.MULTILINE)
    assert command(*PLAN, "--sample", "30").out == done
    assert box.calls == []


def test_another_seed_draws_other_photos(archive: Archive) -> None:
    a_mixed_archive(archive, each=20)
    drawn = {make_plan(settings(archive, sample=9, seed=n), rate=1).drawn.content for n in range(5)}  # type: ignore[union-attr]
    assert len(drawn) > 1


def test_a_sample_that_holds_every_photo_is_as_exact_as_a_full_plan(archive: Archive) -> None:
    a_mixed_archive(archive, each=2)
    sampled = plan_lines(make_plan(settings(archive, sample=50), rate=1))
    whole = RunSettings(manifest=archive.folder / "staff.csv", group_id="")
    assert sampled == plan_lines(make_plan(whole, rate=1, full=True))


def test_of_what_is_not_drawn_nothing_is_read(archive: Archive) -> None:
    a_mixed_archive(archive, each=4)
    plan = make_plan(settings(archive, sample=3), rate=1)
    assert plan.drawn is not None
    assert plan.drawn.bytes_each.rows == 3
    assert (plan.due, plan.drawn.of, plan.portions) == (12, 12, {})


def test_bounds_of_a_sum_hold_the_truth_nearly_always() -> None:
    chance = random.Random(1)
    sizes = [chance.randrange(20_000, 90_000) for _ in range(1000)]
    held = 0
    for _ in range(200):
        spread = Spread()
        for value in chance.sample(sizes, 60):
            spread.add(value)
        _, low, high = spread.likely_sum(len(sizes))
        held += low <= sum(sizes) <= high
    assert 180 <= held < 200


def test_a_sum_of_all_that_there_is_has_no_bounds() -> None:
    spread = Spread()
    for value in (3, 5, 10):
        spread.add(value)
    assert all(math.isclose(one, 18) for one in spread.likely_sum(3))


def test_what_was_seen_bounds_what_is_likely() -> None:
    assert likely_count(9, 10, 11) == "about 10 (9 to 10)"


def test_full_and_sample_exclude_each_other(archive: Archive, command: Command) -> None:
    a_mixed_archive(archive, each=1)
    assert command(*PLAN, "--sample", "3", "--full").code == 2


def test_the_report_says_of_each_row_what_is_done_to_its_photo(
    archive: Archive, command: Command, box: Sandbox
) -> None:
    archive.photo("plain.jpg", saved(scene()))
    archive.photo("gps.jpg", saved(scene(), exif=exif(6)))
    archive.photo("=1+1.webp", saved(scene(), "WEBP"))
    archive.photo("text.jpg", b"no photo")
    archive.manifest(
        [
            ("plain", "", "plain.jpg"),
            ("bad id", "", "plain.jpg"),
            ("turned", "", "gps.jpg"),
            ("webp", "", "=1+1.webp"),
            ("text", "", "text.jpg"),
            ("gone", "", "gone.jpg"),
            ("plain", "", "plain.jpg"),
        ]
    )
    assert command(*PLAN, "--report", "report.csv", "--full").code == 0
    path = archive.folder / "report.csv"
    assert path.stat().st_mode & 0o777 == 0o600
    lines = read_csv(path)
    assert [
        (line["line"], line["user_id"], line["plan"], line["status"], line["error"])
        for line in lines
    ] == [
        ("2", "plain", "sent as it is", "", ""),
        ("3", "bad id", "not sent", "invalid", "USER_ID_CHARACTER"),
        ("4", "turned", "turned", "", ""),
        ("5", "webp", "converted", "", ""),
        ("6", "text", "not sent", "invalid", "PHOTO_NOT_AN_IMAGE"),
        ("7", "gone", "not sent", "failed", "PHOTO_MISSING"),
    ]
    plain, webp = lines[0], lines[3]
    size = str((archive.folder / "plain.jpg").stat().st_size)
    assert (plain["lines"], plain["bytes"], plain["bytes_to_send"]) == ("2", size, size)
    assert (plain["width"], plain["height"], webp["width"]) == ("240", "160", "240")
    assert webp["image"] == "=1+1.webp"
    assert box.calls == []


def test_the_report_of_heads_lists_as_many_rows(archive: Archive, command: Command) -> None:
    a_mixed_archive(archive, each=3)
    assert command(*PLAN, "--report", "report.csv").code == 0
    assert len(read_csv(archive.folder / "report.csv")) == 10


def test_the_report_of_a_sample_lists_what_was_drawn_and_what_is_refused_unread(
    archive: Archive, command: Command
) -> None:
    a_mixed_archive(archive, each=3)
    assert command(*PLAN, "--report", "report.csv", "--sample", "4").code == 0
    lines = read_csv(archive.folder / "report.csv")
    assert len(lines) == 5
    assert sum(line["error"] == "USER_ID_CHARACTER" for line in lines) == 1


def test_the_report_lists_doubts_about_faces(archive: Archive, command: Command) -> None:
    archive.photo("one.jpg", portrait(1))
    archive.photo("none.jpg", nobody())
    archive.manifest([("one", "", "one.jpg"), ("none", "", "none.jpg")])
    assert command(*PLAN, "--report", "report.csv", "--precheck", "warn").code == 0
    lines = read_csv(archive.folder / "report.csv")
    told = [(line["plan"], line["status"], line["error"]) for line in lines]
    assert told == [("sent as it is", "", ""), ("sent as it is", "", "PHOTO_NO_FACE")]
    one, none = [
        {name: text for name, text in line.items() if name.startswith("face_")} for line in lines
    ]
    assert set(none.values()) == {""}
    assert {name: int(text) for name, text in one.items()} == {
        "face_width": 117,
        "face_sharpness": pytest.approx(300, abs=200),
        "face_shadows": pytest.approx(80, abs=40),
        "face_highlights": pytest.approx(120, abs=60),
        "face_margin": pytest.approx(52, abs=10),
        "face_tilt": pytest.approx(0, abs=5),
    }


def test_the_report_takes_no_place_of_what_is_in_use(archive: Archive, command: Command) -> None:
    archive.photo("one.jpg", portrait(1))
    archive.manifest([("one", "", "one.jpg")])
    assert command("run", *PLAN[1:]).code == 0
    for name in ("staff.csv", "one.jpg", "staff.results.csv", str(command.ledger), "no/folder.csv"):
        before = (archive.folder / name).read_bytes() if "no/" not in name else b""
        done = command(*PLAN, "--report", name)
        assert (done.code, "--report" in done.err) == (2, True), name
        assert "no/" in name or (archive.folder / name).read_bytes() == before
