"""`enroll plan --full`: what other sizes of `--max-side` would cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import pytest
from archive import Archive, picture
from PIL import Image
from real_command import Command
from real_pictures import exif, saved, scene

from enroll import settings
from enroll.commands import plan_sizes
from enroll.commands.plan import make_plan
from enroll.commands.plan_report import Plan, plan_lines
from enroll.commands.plan_sizes import SizeCost
from enroll.model import Photo
from enroll.photos import open_store, read_photo
from enroll.sandbox import Sandbox
from enroll.settings import RunSettings

PLAN = ("plan", "staff.csv", "--group-id", "staff")

TABLE = "What other sizes would cost"

SIDES = (384, 192, 96)
"""Instead of 4096, 2048 and 1280, so that photos are small."""


@pytest.fixture(autouse=True)
def small_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_sizes, "SIDES", SIDES)


def planned(archive: Archive, *, full: bool = True, max_side: int = 384, **more: int) -> Plan:
    given = RunSettings(
        manifest=archive.folder / "staff.csv",
        group_id="",
        max_side=max_side,
        **more,  # type: ignore[arg-type]
    )
    return make_plan(given, rate=2, full=full)


def archive_of(archive: Archive, contents: Sequence[bytes], suffix: str = ".jpg") -> None:
    rows = []
    for number, content in enumerate(contents):
        archive.photo(f"{number}{suffix}", content)
        rows.append((f"u{number}", "", f"{number}{suffix}"))
    archive.manifest(rows)


def noisy(width: int, height: int, *, form: str = "JPEG", turned: bool = False) -> bytes:
    """A photo whose length in bytes depends on its pixels."""
    grain = Image.effect_noise((width, height), 40).convert("RGB")
    mixed = Image.blend(scene(width, height), grain, 0.3)
    return saved(mixed, form, **({"exif": exif(6)} if turned else {}))


def mixed(count: int) -> list[bytes]:
    """Photos of many sizes and kinds, half of them no longer than the smallest of the SIDES."""
    kinds = [
        lambda n: noisy(60 + n % 5, 50),
        lambda n: noisy(100 + n % 60, 90 + n % 50),
        lambda n: noisy(64, 50 + n % 9, form="PNG"),
        lambda n: noisy(300 + n % 90, 200, turned=True),
        lambda n: noisy(50, 60),
        lambda n: noisy(220 + n % 60, 300, form="WEBP"),
    ]
    return [kinds[number % len(kinds)](number) for number in range(count)]


def really(archive: Archive, side: int, rows: int) -> int:
    """The bytes of all photos when each is prepared at a size."""
    store = open_store(archive.folder)
    preparation = replace(RunSettings(manifest=archive.folder, group_id="").preparation)
    total = 0
    for path in sorted(archive.folder.glob("*.jpg"))[:rows]:
        photo = read_photo(str(path), store, replace(preparation, max_side=side))
        total += len(photo.content) if isinstance(photo, Photo) else 0
    return total


def by_side(plan: Plan) -> dict[int, SizeCost]:
    return {one.side: one for one in plan.sizes}


def test_few_photos_are_all_prepared_at_each_size_and_the_figures_are_exact(
    archive: Archive,
) -> None:
    archive_of(archive, mixed(16))
    plan = planned(archive)
    costs = by_side(plan)
    assert list(costs) == [384, 192, 96]
    for side, cost in costs.items():
        assert (cost.exact, cost.content) == (True, really(archive, side, 16)), side
        assert cost.calls == plan.calls == 16
    assert costs[384].in_force
    assert costs[384].content == plan.content
    assert costs[96].content < costs[192].content < costs[384].content


@pytest.mark.thorough
def test_of_many_photos_a_sample_says_what_a_size_costs(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_sizes, "MOST_PREPARED", 16)
    archive_of(archive, mixed(360))
    costs = by_side(planned(archive))
    assert costs[384].exact
    for side in (192, 96):
        assert not costs[side].exact
        assert (costs[side].prepared, costs[side].larger) == (16, 180)
        of_all = really(archive, side, 360)
        assert costs[side].content == pytest.approx(of_all, rel=0.1)
        assert costs[side].content != of_all
    assert by_side(planned(archive)) == costs


@pytest.mark.parametrize(
    ("count", "turned", "prepared"),
    [
        (100, False, 8),
        pytest.param(600, False, 10, marks=pytest.mark.thorough),
        (80, True, 11),
    ],
)
def test_so_few_are_prepared_that_a_plan_takes_hardly_longer(
    archive: Archive, count: int, turned: bool, prepared: int
) -> None:
    archive_of(archive, [noisy(100 + n % 100, 100, turned=turned) for n in range(count)])
    cost = by_side(planned(archive))[96]
    assert (cost.prepared, cost.larger) == (prepared, count)
    assert cost.content == pytest.approx(really(archive, 96, count), rel=0.1)


def test_larger_sizes_are_estimated_if_photos_are_larger_and_from_one_in_eight(
    archive: Archive,
) -> None:
    archive_of(archive, [noisy(300, 200) for _ in range(16)])
    costs = by_side(planned(archive, max_side=96))
    assert list(costs) == [384, 192, 96]
    assert (costs[96].in_force, costs[96].exact) == (True, True)
    assert (costs[384].prepared, costs[384].exact) == (2, False)
    assert costs[384].content == pytest.approx(really(archive, 384, 16), rel=0.1)
    assert "would send" not in "\n".join(plan_lines(planned(archive, max_side=96)))
    archive_of(archive, [noisy(100, 90) for _ in range(16)])
    assert list(by_side(planned(archive, max_side=200))) == [200, 192, 96]


def test_a_size_in_force_that_is_none_of_the_usual_ones_is_shown_among_them(
    archive: Archive,
) -> None:
    archive_of(archive, [noisy(300, 200)])
    costs = by_side(planned(archive, max_side=200))
    assert list(costs) == [384, 200, 192, 96]
    assert [side for side, cost in costs.items() if cost.in_force] == [200]


def test_a_photo_that_a_size_makes_too_narrow_is_no_call_at_that_size(archive: Archive) -> None:
    archive_of(archive, [noisy(380, 60), noisy(380, 200)])
    costs = by_side(planned(archive))
    assert {side: cost.calls for side, cost in costs.items()} == {384: 2, 192: 1, 96: 1}
    assert costs[96].content == really(archive, 96, 2)


def test_photos_that_would_not_be_sent_do_not_count(archive: Archive) -> None:
    archive_of(archive, [noisy(300, 200), b"no photo", noisy(300, 200)[:3000], noisy(300, 20)])
    costs = by_side(planned(archive))
    assert costs[96].calls == 1
    assert costs[96].content == len(at_96(archive, 0))


def at_96(archive: Archive, number: int) -> bytes:
    preparation = RunSettings(manifest=archive.folder, group_id="", max_side=96).preparation
    path = str(archive.folder / f"{number}.jpg")
    photo = read_photo(path, open_store(archive.folder), preparation)
    assert isinstance(photo, Photo)
    return photo.content


@pytest.mark.parametrize(
    "contents", [[], [b"no photo", noisy(300, 20)], [picture(1), picture(2)]], ids=repr
)
def test_nothing_is_said_where_no_photo_would_be_smaller(
    contents: list[bytes], archive: Archive
) -> None:
    archive_of(archive, contents)
    plan = planned(archive)
    assert plan.sizes == []
    assert TABLE not in "\n".join(plan_lines(plan))


def test_nothing_is_said_where_no_row_is_due(
    archive: Archive, command: Command, box: Sandbox
) -> None:
    archive_of(archive, [noisy(1400, 900)])
    assert TABLE in command(*PLAN, "--full").out
    assert command.run("run", "staff.csv", "--group-id", "staff").code == 1  # no face
    assert TABLE not in command(*PLAN, "--full").out


def test_a_heic_counts_only_where_it_can_be_read(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    heif = pytest.importorskip("pillow_heif")
    out = BytesIO()
    heif.from_pillow(scene(300, 200)).save(out, quality=90)
    archive_of(archive, [out.getvalue(), noisy(300, 200)])
    assert by_side(planned(archive))[96].calls == 2
    monkeypatch.setattr(settings, "find_spec", lambda _: None)
    settings.heif_installed.cache_clear()
    request.addfinalizer(settings.heif_installed.cache_clear)
    costs = by_side(planned(archive))
    assert (costs[96].calls, costs[96].content) == (1, len(at_96(archive, 1)))


def test_a_trial_sample_says_it_of_all_photos_and_a_glance_does_not(archive: Archive) -> None:
    archive_of(archive, [noisy(300, 200 + n) for n in range(40)])
    costs = by_side(planned(archive, full=False, sample=10))
    for side, cost in costs.items():
        assert not cost.exact
        assert cost.calls == pytest.approx(40)
        assert cost.content == pytest.approx(really(archive, side, 40), rel=0.1)
    assert planned(archive, full=False).sizes == ()


def test_the_table_says_bytes_time_and_upload_and_how_to_choose(archive: Archive) -> None:
    archive_of(archive, [noisy(300, 200) for _ in range(4)])
    plan = planned(archive)
    said = "\n".join(plan_lines(plan))
    table = said[said.index(TABLE) :]
    assert re.search(r"^  384 +\d+ kB +2\.0 s +\d\.\d Mbit/s  in force$", table, re.MULTILINE)
    assert re.search(r"^  96 +\S+ kB +2\.0 s +\d\.\d Mbit/s$", table, re.MULTILINE)
    assert re.search(r"^--max-side 96 would send \d+ kB less \(\d\d %\)\.$", table, re.MULTILINE)
    assert "about" not in table
