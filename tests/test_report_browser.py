"""The report's page in a browser, over file:// and without a network.

`.ci/run` installs Debian's Chromium; elsewhere these tests are skipped if there is none.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import firefox
import pytest
from archive import portrait
from real_command import Command
from reported import Person, find, token, write

from enroll.ledger import Finding, FindingKind
from enroll.model import Status

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Page, expect, sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Request

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">\u202e=1+1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 262 rows, of which 62 need a person, and of 22 pairs of faces."""
    folder = tmp_path_factory.mktemp("report") / "archive"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(portrait(number))
    people = [
        Person(
            f"E{number}",
            "Zoë Müller" if number == 7 else f"Name {number}",
            f"{number % 5}.jpg",
            ("Sales", "Ops")[number % 2],
            *((Status.REJECTED, "NO_FACE_FOUND") if number < 60 else (Status.ENROLLED, "")),
        )
        for number in range(258)
    ]
    people += [
        Person("x1", HOSTILE, "gone.jpg", HOSTILE, Status.FAILED, "PHOTO_MISSING", HOSTILE),
        Person("x2", "Twin", "1.jpg", status=Status.IN_DOUBT, code="TIMEOUT"),
        Person("t1", "Twin", "1.jpg", content="same"),
        Person("t2", "Twin", "2.jpg", content="same"),
    ]
    ledger = write(folder, people)
    # Rows of E100 to E139 resemble each other in pairs, and others other programs' faces.
    pairs = {n: [(token(n + 1), f"E{n}", 85 + n / 10)] for n in range(101, 141, 2)}
    strangers = {151: [("a", "E5-other", 99.5)], 153: [("b", HOSTILE, 99.0)]}
    find(
        ledger,
        {
            number: [
                Finding(
                    kind=FindingKind.LOOKALIKE, other_token=other, other_user_id=who, score=score
                )
                for other, who, score in found
            ]
            for number, found in (pairs | strangers).items()
        },
    )
    command = Command(home=folder / "home", folder=folder)
    arguments = ("--ledger", "ledger.sqlite", "--by", "Department")
    assert command("report", "out.html", *arguments).code == 0
    return folder / "out.html"


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The report, open. It may not ask for anything, nor complain."""
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
    opened = context.new_page()
    asked: list[str] = []
    said: list[str] = []

    def remember(request: Request) -> None:
        if not request.url.startswith("data:"):
            asked.append(request.url)

    def hear(message: ConsoleMessage) -> None:
        said.append(message.text)

    def refuse(dialog: Dialog) -> None:
        said.append(dialog.message)
        dialog.dismiss()

    opened.on("request", remember)
    opened.on("console", hear)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", refuse)
    opened.goto(report.as_uri())
    expect(opened.locator("html[data-ready]")).to_have_count(1)
    yield opened
    assert asked == [report.as_uri()] * len(asked)
    assert said == []
    context.close()


def ids(page: Page) -> list[str]:
    return page.locator("#entries tbody td.id").all_inner_texts()


def violations(page: Page) -> list[str]:
    """What axe-core finds, in short."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    found: dict[str, Any] = Axe().run(page).response
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


def test_one_can_search_filter_and_sort_and_the_address_knows_it(page: Page) -> None:
    expect(page.locator("#matches")).to_have_text("262 entries")
    page.get_by_label("Search").fill("zoe müller")
    assert ids(page) == ["E7"]
    expect(page.locator(".reason:visible")).to_have_count(1)
    page.get_by_label("Search").fill("")
    page.locator("#filters").get_by_label("Department").select_option("Ops")
    page.get_by_label("Status").select_option("rejected")
    expect(page.locator("#matches")).to_have_text("30 entries")
    page.get_by_role("button", name="Id").click()
    assert ids(page)[:5] == ["E1", "E3", "E5", "E7", "E9"]
    assert ids(page)[5] == "E11"
    page.get_by_role("button", name="Id").click()
    assert ids(page)[0] == "E59"
    head = page.locator("#entries th[aria-sort]")
    expect(head).to_have_attribute("aria-sort", "descending")
    # Whoever opens this address sees the same.
    address = page.evaluate("location.hash")
    assert "status=rejected" in address
    page.reload()
    expect(page.locator("html[data-ready]")).to_have_count(1)
    assert ids(page)[0] == "E59"
    expect(page.locator("#matches")).to_have_text("30 entries")
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator("#matches")).to_have_text("262 entries")
    assert page.evaluate("location.hash") == ""


def test_pages_of_the_table_and_a_department_of_its_table(page: Page) -> None:
    assert len(ids(page)) == 50
    table = page.locator("#entries")
    expect(table).to_have_attribute("aria-rowcount", "263")
    page.get_by_role("button", name="Last").click()
    assert len(ids(page)) == 12
    expect(table.locator("tbody tr").first).to_have_attribute("aria-rowindex", "252")
    page.locator("#by").get_by_role("button", name="Ops").click()
    expect(page.locator("#matches")).to_have_text("129 entries")


def test_a_group_opens_and_shows_its_rows_with_pictures(page: Page) -> None:
    group = page.locator(".reason").filter(has_text="No face is found in the photo")
    expect(group.locator(".number")).to_have_text("60")
    group.locator("summary").click()
    expect(group.locator(".card")).to_have_count(48)
    group.locator(".more").click()
    expect(group.locator(".card")).to_have_count(60)
    first = group.locator("img").first
    expect(first).to_be_visible()
    assert first.evaluate("image => image.decode().then(() => image.naturalWidth > 20)")
    assert "open=NO_FACE_FOUND" in page.evaluate("location.hash")
    missing = page.locator(".reason").filter(has_text="There is no photo where")
    missing.locator("summary").click()
    expect(missing.locator(".photo.none")).to_contain_text("There is no photo")
    expect(page.locator("#twins .twin")).to_have_count(1)


def test_pairs_of_faces_are_shown_side_by_side_with_their_commands(page: Page) -> None:
    pairs = page.locator(".faces .pair")
    expect(pairs).to_have_count(12)
    expect(pairs.first.locator(".score")).to_have_text("Score 99.5")
    expect(pairs.first.locator(".photo.none")).to_have_text("no photo on record")
    page.locator(".faces .more").click()
    expect(pairs).to_have_count(22)
    page.locator("#filters").get_by_label("Department").select_option("Ops")
    expect(page.locator(".faces .number")).to_have_text("20")  # one of each pair, and no stranger
    page.get_by_label("Search").fill("e139")
    expect(page.locator(".faces .number")).to_have_text("1")
    first, second = pairs.locator("figure").all()
    expect(first.locator(".who")).to_have_text("E138")
    for side in (first, second):
        picture = side.locator("img")
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth > 20)")
    assert first.bounding_box()["y"] == second.bounding_box()["y"]  # type: ignore[index]
    pairs.locator("summary").click()
    expect(pairs.locator("code").last).to_contain_text("enroll audit --accept E138,E139 ")
    pairs.locator(".copy").last.click()
    expect(pairs.locator(".copy").last).to_have_text("Copied")
    page.get_by_label("Search").fill("nobody")
    expect(page.locator(".faces")).to_be_hidden()


def test_hostile_texts_are_shown_and_do_nothing(page: Page) -> None:
    expect(page.locator(".pair .who", has_text="onerror")).to_have_count(1)
    page.get_by_label("Search").fill("x1")
    cells = page.locator("#entries tbody tr").first.locator("td")
    shown = HOSTILE.replace("\u202e", "\\u202e")
    expect(cells.nth(2)).to_have_text(shown)
    expect(page.locator("#entries img, .cards img")).to_have_count(0)
    assert "owned" not in page.title()


def test_the_keyboard_is_enough(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("E59")
    assert ids(page) == ["E59"]
    summary = page.locator(".reason:visible summary").first
    for _ in range(12):
        page.keyboard.press("Tab")
        if summary.evaluate("node => node === document.activeElement"):
            break
    expect(summary).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".card:visible")).to_have_count(1)


def test_everybody_can_use_it_in_light_and_dark(page: Page) -> None:
    for summary in page.locator("summary").all():
        summary.click()
    # Each element is measured against what is behind it: some rows take a second, all of them six.
    page.get_by_label("Search").fill("E5")
    assert violations(page) == []
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.set_viewport_size({"width": 380, "height": 800})
    page.get_by_label("Search").fill("x")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    page.reload()
    expect(page.get_by_role("button", name="Light")).to_be_visible()


def test_a_screen_reader_hears_what_there_is(page: Page) -> None:
    page.locator("summary").first.click()
    heard = page.locator("main").aria_snapshot()
    for part in (
        'heading "What needs your attention" [level=2]',
        'heading "No face is found in the photo" [level=3]',
        'searchbox "Search"',
        'combobox "Status"',
        'table "All entries"',
        'heading "Faces that resemble another person" [level=2]',
        'heading "Two ids with the same face" [level=3]',
        "paragraph: Score 99.5",
        'figure "E150 Name 150',
        'columnheader "Id"',
        'img "Run 1: calls in flight, answered and refused over time"',
        'navigation "Sections"',
    ):
        assert part in heard, part


def test_a_print_has_the_rows_of_every_group(page: Page) -> None:
    page.evaluate(
        "addEventListener('afterprint', () => {"
        " document.body.dataset.printed = document.querySelectorAll('.card').length; }, true)"
    )
    page.evaluate(
        "addEventListener('beforeprint', () => {"
        " document.body.dataset.cards = document.querySelectorAll('.card').length;"
        " document.body.dataset.pairs = document.querySelectorAll('.pair').length;"
        " document.body.dataset.rows = document.querySelectorAll('#entries tbody tr').length; })"
    )
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") >= 4
    assert page.evaluate("document.body.dataset.cards") == "62"
    assert page.evaluate("document.body.dataset.rows") == "262"
    assert page.evaluate("document.body.dataset.pairs") == "22"
    expect(page.locator("#entries tbody tr")).to_have_count(50)


@pytest.mark.thorough
@pytest.mark.skipif(firefox.FIREFOX is None, reason="there is no Firefox")
def test_the_page_works_in_firefox(report: Path, tmp_path: Path) -> None:
    with firefox.running(tmp_path / "profile") as browser:
        browser.open(report.as_uri())
        browser.wait("return document.documentElement.dataset.ready")
        browser.run(
            "const search = document.querySelector('#q'); search.value = 'E5';"
            "search.dispatchEvent(new Event('input', { bubbles: true }));"
            "document.querySelector('#entries th[data-name=id] button').click();"
            "document.querySelector('summary').click();"
        )
        browser.wait("return document.querySelectorAll('.card').length === 11")
        ids = "return [...document.querySelectorAll('#entries td.id')].map(one => one.textContent)"
        assert browser.run(ids)[:3] == ["E5", "E50", "E51"]
        assert browser.run("return location.hash").startswith("#q=E5&sort=id")
        decoded = "return document.querySelector('.card img').decode().then(() => true)"
        assert browser.run(decoded)
