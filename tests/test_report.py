"""`enroll report`: what a page and a workbook say, and what they never do."""

from __future__ import annotations

import html as html_module
import json
import re
import shlex
import unicodedata
import zipfile
from hashlib import sha256
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import pytest
from archive import portrait
from openpyxl import load_workbook
from PIL import Image
from real_command import Command
from reported import COURSE, Page, Person, read, write

from enroll.ledger import read_ledger
from enroll.model import Fault, Status
from enroll.photos import open_store, thumbnail
from enroll.report import files
from enroll.report.chart import courses
from enroll.report.files import safe_name
from enroll.report.lines import IN_DOUBT, UNKNOWN
from enroll.report.pairs import PairGroup
from enroll.report.texts import table_of, texts_of
from enroll.settings import Language
from enroll.text import remedies

HOSTILE = (
    *("<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", '"><b onload="x">'),
    *('=HYPERLINK("http://x")', "+1+1", "-2", "@SUM(A1)", "{{ 7*7 }}", "{% raw %}", "&lt;i&gt;"),
    *(
        "a\u202egpj.exe",
        "bell\x07\x1b[31m",
        "two\nlines",
        "_x0041_",
        "<r>1</r>",
        "<!--",
        "]]>",
        "\u2028",
        "'",
    ),
)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command without any account or key."""
    folder = tmp_path / "archive"
    folder.mkdir()
    return Command(home=tmp_path / "home", folder=folder)


def some(folder: Path) -> list[Person]:
    """One person for each kind of outcome, with portraits where there is a photo."""
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(portrait(number))
    return [
        Person("p1", "Ada", "0.jpg", prepared="turned, shrunk"),
        Person("p2", "Bo", "1.jpg", "Ops", Status.REJECTED, "NO_FACE_FOUND"),
        Person("p3", "Cy", "gone.jpg", "Ops", Status.FAILED, "PHOTO_MISSING", "Not there."),
        Person("p4", "Di", "2.jpg", "", Status.IN_DOUBT, "TIMEOUT"),
        Person("p5", "Ed", "0.jpg", "ops ", Status.INVALID, "USER_DATA_TOO_LONG", "Too long."),
        Person("p6", "Flo", "2.jpg", "Sales", None),
        Person("p7", "Gus", "1.jpg", "Sales", Status.FAILED, "WHO_KNOWS", "Ask <them>."),
        Person("p8", "Hal", "t1.jpg", "Sales", content="twins"),
        Person("p9", "Ida", "t2.jpg", "Ops", content="twins"),
    ]


def reported(command: Command, *arguments: object) -> Page:
    """The page that is written with these arguments."""
    done = command("report", "out.html", "--ledger", "ledger.sqlite", *arguments)
    assert (done.code, done.err) == (0, ""), done
    return read(command.folder / "out.html")


def test_a_page_says_what_needs_a_person_and_what_to_do(command: Command) -> None:
    write(command.folder, some(command.folder))
    page = reported(command)
    assert [(one["code"], one["count"]) for one in page.facts["reasons"]] == [
        *(("NO_FACE_FOUND", 1), ("PHOTO_MISSING", 1), (IN_DOUBT, 1)),
        *(("USER_DATA_TOO_LONG", 1), ("WHO_KNOWS", 1)),
    ]
    for reason in ("NO_FACE_FOUND", "PHOTO_MISSING", IN_DOUBT, UNKNOWN):
        words = texts_of(Language.EN).reason(reason)
        assert html_module.escape(words.title, quote=True).replace("&#x27;", "&#39;") in page.html
        assert words.advice.split("'")[0] in page.html
    again = f"enroll run {command.folder.resolve()}/staff.csv --group-id staff"
    assert again in page.html
    assert "--retry WHO_KNOWS" in page.html
    assert page.lines["id"] == ["p2", "p3", "p4", "p5", "p7", "p1", "p6", "p8", "p9"]
    assert page.lines["line"] == [3, 4, 5, 6, 8, 2, 7, 9, 10]
    assert page.lines["message"][1] == "Not there."
    # A picture where there is a photo, else the reason why there is none.
    assert [place >= 0 for place in page.lines["picture"][:5]] == [True, False, True, True, True]
    assert page.facts["faults"] == ["There is no photo where the list says"]
    assert [[person[0] for person in one["people"]] for one in page.same] == [["p8", "p9"]]
    assert "turned upright" in page.html
    assert "<polyline" in page.html


def test_the_commands_open_the_manifest_as_the_report_did(command: Command) -> None:
    write(command.folder, [Person("p1", "A, B", "0.jpg", status=Status.FAILED, code="TIMEOUT")])
    options = ("--columns", 'user_data="{Department}, {user_data}"', "--delimiter", ",")
    page = reported(command, *options)
    assert page.lines["id"] == ["p1"]
    shown = html_module.unescape(page.html)
    again = """--columns '"user_data={Department}, {user_data}"' --delimiter ,"""
    assert again in shown
    # What is shown can be typed.
    given = ("report", "again.html", "--ledger", "ledger.sqlite", *shlex.split(again))
    assert command(*given).code == 0
    assert again in html_module.unescape(read(command.folder / "again.html").html)


def test_a_page_asks_for_nothing_and_is_private(command: Command) -> None:
    write(command.folder, some(command.folder))
    page = reported(command)
    assert (command.folder / "out.html").stat().st_mode & 0o777 == 0o600
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page.html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1]
    # Nothing that would be loaded, and no style or handler that the policy would refuse.
    assert re.findall(r'(?:src|href)="(?!#|data:,)[^"]*"', page.html) == []
    assert re.findall(r'\s(?:style|on\w+)="', page.html) == []
    assert "http://" not in page.html.replace("http://www.w3.org", "")
    assert re.findall(r"https://(?!host)", page.html) == []


def test_hostile_texts_stay_text_everywhere(command: Command) -> None:
    people = [
        Person(f"u{n}", text, f"{text}.jpg".replace("/", "_"), text, Status.FAILED, "X", text)
        for n, text in enumerate(HOSTILE)
    ]
    write(command.folder, people)
    page = reported(command, "--by", "Department")
    assert len(page.lines["id"]) == len(HOSTILE)
    assert "<script>alert" not in page.html
    assert "<img" not in page.html
    assert "<b onload" not in page.html
    assert page.html.count("<script") == 3  # the facts, one block of lines, the page's own
    assert "49" not in page.facts["groups"]
    for text in (*page.lines["data"], *page.lines["path"], *page.facts["groups"]):
        assert all(unicodedata.category(one)[0] != "C" for one in text), ascii(text)
    assert command("report", "o.xlsx", "--ledger", "ledger.sqlite", "--by", "Department").code == 0
    with zipfile.ZipFile(command.folder / "o.xlsx") as book:
        sheets = [book.read(name).decode() for name in book.namelist() if "worksheets/" in name]
    assert all("<f>" not in sheet and "<hyperlink" not in sheet for sheet in sheets)
    cells = load_workbook(command.folder / "o.xlsx")["entries"]
    assert cells["C1"].value == "Department"
    # What looks like an escape of the format is escaped, which openpyxl leaves as it is.
    texts = [str(row[1].value).replace("_x005F", "") for row in cells.iter_rows(min_row=2)]
    assert texts == page.lines["data"]


def test_a_report_keeps_to_its_size(command: Command) -> None:
    folder = command.folder
    for number in range(40):
        (folder / f"{number}.jpg").write_bytes(portrait(number))
    people = [
        Person(
            f"x{number:05}", sha256(b"%d" % number).hexdigest(), f"{number % 40}.jpg", status=status
        )
        for number in range(2_500)
        for status in [Status.REJECTED if number < 40 else Status.ENROLLED]
    ]
    write(folder, people)
    whole = reported(command)
    assert len(whole.lines["id"]) == 2_500
    small = reported(command, "--max-size", "0.2")
    assert (folder / "out.html").stat().st_size <= 200_000
    assert whole.lines["id"][:40] == small.lines["id"][:40]
    assert len(small.lines["id"]) < 2_500
    assert f"holds {len(small.lines['id']):,} of 2,500 entries" in small.html
    assert "enroll export all.xlsx" in small.html
    assert all(place >= 0 for place in small.lines["picture"][:40])
    few = reported(command, "--thumbnails", "3")
    assert sum(place >= 0 for place in few.lines["picture"]) == 3
    assert "3 of 40 pictures" in few.html
    arguments = ("report", "o.xlsx", "--ledger", "ledger.sqlite", "--max-size", "0.2")
    assert command(*arguments).code == 0
    assert (folder / "o.xlsx").stat().st_size <= 200_000


def test_masking_leaves_no_user_id_anywhere(command: Command) -> None:
    ids = [f"7{number:03}77{number}" for number in range(6)]
    people = [
        Person(
            user_id,
            f"Name of {user_id}",
            f"{user_id}/{ids[number - 1]}.jpg",
            f"Team {user_id}",
            Status.FAILED if number < 4 else Status.ENROLLED,
            "PHOTO_MISSING" if number < 4 else "",
            f"Did you mean {ids[number - 2]}.jpg?" if number < 4 else "",
            content="same" if number >= 4 else "",
        )
        for number, user_id in enumerate(ids)
    ]
    write(command.folder, people)
    page = reported(command, "--mask", "--by", "Department")
    assert [user_id for user_id in ids if user_id in page.everything] == []
    assert page.lines["id"][0] == "70***0"
    assert len(page.same) == 1
    arguments = ("--ledger", "ledger.sqlite", "--mask", "--by", "Department")
    assert command("report", "o.xlsx", *arguments).code == 0
    with zipfile.ZipFile(command.folder / "o.xlsx") as book:
        content = b"".join(map(book.read, book.namelist()))
    assert [user_id for user_id in ids if user_id.encode() in content] == []
    done = command("report", "o.html", "--ledger", "ledger.sqlite", "--mask", "--by", "user_id")
    assert done.code == 2
    assert "has user ids" in done.err
    for column, *split in (("Department", "--split"), ("image",)):
        done = command(
            *("report", "parts" if split else "o.html", "--ledger", "ledger.sqlite"),
            *("--mask", "--by", column, *split),
        )
        assert (done.code, "user ids" in done.err) == (2, True), done
        assert not (command.folder / "parts").exists()


def test_a_masked_report_is_split_like_any_other(command: Command) -> None:
    people = [Person("S", "", "a.jpg", "Sales"), Person("O", "", "b.jpg", "Ops")]
    write(command.folder, people)
    arguments = ("--ledger", "ledger.sqlite", "--by", "Department", "--split", "--mask")
    assert command("report", "parts", *arguments).code == 0
    for name, line in (("Sales", 2), ("Ops", 3)):
        page = read(command.folder / f"parts/{name}.html")
        assert page.lines["line"] == [line]
        assert page.facts["groups"] == [name]


def test_a_photo_of_many_people_names_some_and_counts_all(command: Command) -> None:
    crowd = [Person(f"u{n}", f"Name {n}", f"{n}.jpg", content="one") for n in range(25)]
    again = [Person("u0", "Name 0", "again.jpg", content="two")]
    write(command.folder, [*crowd, *again])
    page = reported(command)
    assert [(one["count"], len(one["people"])) for one in page.same] == [(25, 20)]


def test_photos_that_are_missing_take_no_others_picture(command: Command) -> None:
    (command.folder / "1.jpg").write_bytes(portrait(1))
    missing = [
        Person(f"a{n}", "Cy", f"gone{n}.jpg", "Ops", Status.FAILED, "PHOTO_MISSING", "Not there.")
        for n in range(3)
    ]
    write(command.folder, [*missing, Person("b", "Bo", "1.jpg", "Ops", Status.REJECTED, "NO")])
    for name in ("o.html", "o.xlsx"):
        done = command("report", name, "--ledger", "ledger.sqlite", "--thumbnails", "1")
        assert (done.code, "1 picture;" in done.out) == (0, True), done


def test_a_split_report_has_a_file_for_each_value(command: Command) -> None:
    write(command.folder, some(command.folder))
    arguments = ("--ledger", "ledger.sqlite", "--by", "department", "--split")
    done = command("report", "parts.2026", *arguments)
    assert done.code == 0, done
    parts = sorted(path.name for path in (command.folder / "parts.2026").iterdir())
    assert parts == ["Ops.html", "Sales.html", "_.html", "ops (2).html"]
    assert (command.folder / "parts.2026").stat().st_mode & 0o777 == 0o700
    page = read(command.folder / "parts.2026/Ops.html")
    assert page.lines["id"] == ["p2", "p3", "p9"]
    assert [[person[0] for person in one["people"]] for one in page.same] == [["p8", "p9"]]
    assert command("report", "books.xlsx", *arguments).code == 0
    assert len(list((command.folder / "books.xlsx").glob("*.xlsx"))) == 4


def test_a_value_becomes_a_safe_file_name() -> None:
    names = {
        "": "_",
        "../../etc/passwd": "_.._etc_passwd",
        "Forschung & Lehre": "Forschung & Lehre",
        "人事部": "人事部",
        ".hidden": "hidden",
        "con": "_con",
        "LPT1.old": "_LPT1.old",
        "a\x00b\n": "a_b_",
        "dots...": "dots",
        "é" * 300: "é" * 60,
    }
    assert {value: safe_name(value) for value in names} == names


def test_a_workbook_has_its_pictures_in_their_rows_and_only_text(command: Command) -> None:
    write(command.folder, [*some(command.folder), Person("00042", "Zoe", "z.jpg")])
    assert command("report", "o.xlsx", "--ledger", "ledger.sqlite").code == 0
    assert (command.folder / "o.xlsx").stat().st_mode & 0o777 == 0o600
    book = load_workbook(command.folder / "o.xlsx")
    assert book.sheetnames == ["attention", "identical", "changes", "entries", "runs"]
    sheet = book["attention"]
    assert sheet.freeze_panes == "A2"
    assert sheet.auto_filter.ref is not None
    assert [cell.value for cell in sheet["B"]][:3] == ["Id", "p2", "p3"]
    rows = [image.anchor._from.row for image in sheet._images]  # type: ignore[attr-defined]
    assert rows == [1, 3, 4, 5]
    assert sheet["A3"].value == "There is no photo where the list says"
    cells = [cell for row in book["entries"].iter_rows() for cell in row if cell.value is not None]
    assert {cell.data_type for cell in cells} == {"s"}
    assert [cell.value for cell in book["runs"][1]][:3] == ["Run", "Command", "Started"]
    assert "00042" in [cell.value for cell in book["entries"]["A"]]
    same = [[cell.value for cell in row] for row in book["identical"].iter_rows(min_row=2)]
    assert [row[2:] for row in same] == [
        ["p8", "Hal", "t1.jpg", "9"],
        ["p9", "Ida", "t2.jpg", "10"],
    ]
    assert [row[0] for row in same] == ["1", "1"]
    done = {row[0].value: row[1].value for row in book["changes"].iter_rows(min_row=2)}
    assert done["turned upright"] == "1"


def test_without_a_manifest_the_ledgers_entries_are_reported(command: Command) -> None:
    write(command.folder, some(command.folder))
    (command.folder / "staff.csv").unlink()
    done = command("report", "out.html", "--ledger", "ledger.sqlite")
    assert done.code == 0
    assert "There is no manifest" in done.out
    page = read(command.folder / "out.html")
    assert page.facts["ledgerOnly"]
    assert "There is no manifest" in page.html
    assert sorted(page.lines["id"]) == ["p1", "p2", "p3", "p4", "p5", "p7", "p8", "p9"]
    assert command("report", "o.html", "--ledger", "ledger.sqlite", "--by", "Department").code == 2


def test_only_some_statuses_and_moved_photos(command: Command, tmp_path: Path) -> None:
    write(command.folder, some(command.folder))
    (command.folder / "elsewhere").mkdir()
    for photo in command.folder.glob("*.jpg"):
        photo.rename(command.folder / "elsewhere" / photo.name)
    page = reported(command, "--status", "rejected", "--status", "failed")
    assert page.lines["id"] == ["p2", "p3", "p7"]
    assert max(page.lines["picture"]) < 0
    page = reported(command, "--status", "rejected", "--images", "elsewhere")
    assert page.lines["picture"] == [0]
    done = command("report", "out.html", "--ledger", "ledger.sqlite", "--images", "nowhere")
    assert done.code == 2


def test_what_cannot_be_reported_is_said_before_anything_happens(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(command.folder, some(command.folder))
    before = sorted(command.folder.rglob("*"))
    wrong = {
        "out.pdf": "does not show which kind of report",
        "out": "does not show which kind of report",
        "out.html --split": "name it with --by",
        "out.html --by Nobody": "has no column 'Nobody'",
        "missing/out.html": "cannot be written",
        "out.html --max-size 0": "out of range",
        "out.html --language fr": "is not one of",
        "out.html --manifest none.csv": "no manifest",
        "staff.csv": "does not show which kind of report",
    }
    said = {
        words: command("report", *words.split(), "--ledger", "ledger.sqlite") for words in wrong
    }
    assert {words: done.code for words, done in said.items()} == dict.fromkeys(wrong, 2)
    assert [words for words, part in wrong.items() if part not in said[words].err] == []
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    done = command("report", "out.html", "--ledger", "ledger.sqlite")
    assert done.code == 2
    assert "pip install 'enroll[report]'" in done.err
    assert sorted(command.folder.rglob("*")) == before


def test_every_reason_has_advice_and_no_translation_invents_one() -> None:
    english = texts_of(Language.EN)
    codes = {*remedies._REMEDIES, *remedies._FAMILIES, IN_DOUBT, UNKNOWN}
    # A row with one of these is in doubt, which has words of its own.
    assert [c for c in sorted(codes - {"HTTP_2", "HTTP_5"}) if not english.knows(c)] == []
    assert all(words["title"] and words["advice"] for words in english.reasons.values())
    assert set(english.status) >= {status.value for status in Status}
    for language in (Language.DE, Language.ZH):
        own, whole = table_of(language), table_of(Language.EN)
        for table in ("text", "status", "reason", "pairs"):
            assert set(own[table]) - set(whole[table]) == set(), language
        assert set(own["reason"]) == set(whole["reason"]), language
        assert set(own["pairs"]) == set(whole["pairs"]) == set(PairGroup), language
        fields = re.compile(r"\{\w+\}")
        for key, text in own["text"].items():
            known = set(fields.findall(whole["text"][key]))
            assert set(fields.findall(text)) <= known, (language, key)
    assert set(re.findall(r"\bt\.(\w+)", _template("html") + _template("js"))) <= set(english.text)


def _template(kind: str) -> str:
    return (Path(files.__file__).parent / f"templates/report.{kind}").read_text(encoding="utf-8")


def test_a_report_speaks_the_language_of_its_readers(command: Command) -> None:
    write(command.folder, some(command.folder))
    for language, words in (("de", "Was zu tun ist"), ("zh", "需要处理的内容")):
        page = reported(command, "--language", language)
        assert f'<html lang="{language}">' in page.html
        assert words in page.html
        assert json.dumps(page.facts["text"]["none_match"]) != json.dumps("")


def test_the_course_of_a_run_is_drawn_as_it_was_recorded(command: Command) -> None:
    write(command.folder, some(command.folder))
    reader = read_ledger(command.folder / "ledger.sqlite")
    (run,) = reader.runs()
    reader.close()
    assert run.course == COURSE
    assert run.pace is not None
    (course,) = courses([run])
    assert len(course.bars) == len(COURSE)
    assert [tick.label for tick in course.flight_ticks] == ["0", "4", "8"]
    # Three calls were refused in all, two points before the tenth, and none after it.
    assert all(bar.refused == 0 for bar in course.bars[10:])
    assert course.limit == 0.0


def test_a_small_picture_is_upright_and_of_what_there_is(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    picture = Image.new("RGB", (400, 200), "white")
    picture.paste("black", (0, 0, 200, 200))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left becomes top
    out = BytesIO()
    picture.save(out, "JPEG", exif=exif.tobytes())
    (tmp_path / "turned.jpg").write_bytes(out.getvalue())
    (tmp_path / "cut.jpg").write_bytes(portrait(1)[:4000])
    (tmp_path / "text.jpg").write_bytes(b"no picture")
    turned = thumbnail(f"{tmp_path}/turned.jpg", store, side=100)
    assert isinstance(turned, Image.Image)
    assert turned.size == (50, 100)
    assert [turned.convert("L").getpixel((25, y)) for y in (10, 90)] == [0, 255]
    assert isinstance(thumbnail(f"{tmp_path}/cut.jpg", store, side=100), Image.Image)
    found = [thumbnail(f"{tmp_path}/{name}", store, side=9) for name in ("text.jpg", "none.jpg")]
    codes = [one.code for one in found if isinstance(one, Fault)]
    assert codes == ["PHOTO_NOT_AN_IMAGE", "PHOTO_MISSING"]


def test_the_extra_of_the_report_is_what_it_imports() -> None:
    assert all(find_spec(name) for names in files._NEEDED.values() for name in names)
