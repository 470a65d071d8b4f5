"""`enroll match`: which photo is proposed to whom, and that no sure proposal is wrong."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from archive import portrait
from people_and_photos import Case, Named, make_case, word_list
from real_command import Command

from enroll.commands.match import MatchSettings, match_photos
from enroll.commands.match_columns import choose_columns, people_of, photo_of
from enroll.commands.match_judge import Outcome, propose
from enroll.commands.match_scores import is_slip
from enroll.errors import ExitCode, ManifestError, UsageError
from enroll.manifest.header import MATCH_COLUMNS
from enroll.manifest.manifest import open_manifest
from enroll.model import Role
from enroll.sandbox import Sandbox

HEADER = ("user_id", "Name", "Department")


def matched(rows: Sequence[Mapping[str, str]], paths: Sequence[str]) -> Outcome:
    """The outcome for rows with the columns of HEADER."""
    compared = choose_columns(HEADER, {"user_id": "user_id"}, (), has_user_data=False)
    people = people_of(rows, [None] * len(rows), compared)
    return propose(people, [photo_of(path) for path in paths], columns=compared.ids)


def sure(people: str, photos: str) -> str:
    """The sure photos, such as `1>b`, of people and photos on a line each, named by digits and
    letters in their order: `7001 Anna Müller @ Sales`."""
    rows = []
    for line in people.strip().split("\n"):
        number, _, name = line.strip().partition(" ")
        name, _, department = name.partition(" @ ")
        rows.append({"user_id": number, "Name": name, "Department": department})
    paths = [f"{line.strip()}.jpg" for line in photos.strip().split("\n")]
    proposals = matched(rows, paths).proposals
    pairs = [
        (place, one.pair.photo)
        for place, one in enumerate(proposals, 1)
        if one.is_sure and one.pair
    ]
    return " ".join(f"{person}>{chr(ord('a') + photo)}" for person, photo in pairs)


def test_among_a_thousand_people_no_wrong_photo_is_sure_and_most_of_the_right_ones_are() -> None:
    case = make_case(seed=1)
    rows = [{"user_id": one.number, "Name": one.name, "Department": ""} for one in case.people]
    paths = list(case.photos)
    found = found_by_style(case, matched(rows, paths), paths)
    assert found["wrong"] == []
    shares = {style: len(found[f"sure {style}"]) / len(found[style]) for style in STYLES_SURE}
    assert {style: share for style, share in shares.items() if share < STYLES_SURE[style]} == {}
    everybody = [photo for photo, person in case.photos.items() if person is not None]
    assert len(found["sure"]) / len(everybody) > 0.69
    assert len(found["proposed"]) / len(everybody) > 0.89


STYLES_SURE = {
    "number": 0.99,
    "number and name": 0.99,
    "number, typed wrong": 0.95,
    "chinese": 0.75,
    "chinese, number": 0.99,
    "as it is": 0.75,
    "swapped": 0.75,
    "plain": 0.75,
    "wide": 0.7,
    "joined": 0.7,
    "camera": 0.7,
}
"""What share of the photos is sure at least, by how they are named. A fifth of these people have
the name of somebody else, or nearly so."""


def found_by_style(case: Case, outcome: Outcome, paths: Sequence[str]) -> Mapping[str, list[str]]:
    """The photos by what came of them."""
    found: dict[str, list[str]] = {
        name: []
        for style in STYLES_SURE
        for name in ("wrong", "sure", "proposed", style, f"sure {style}")
    }
    for path, person in case.photos.items():
        if person is not None:
            found.setdefault(case.styles[path], []).append(path)
    for place, proposal in enumerate(outcome.proposals):
        if proposal.pair is None:
            continue
        path = paths[proposal.pair.photo]
        right = case.photos[path] == place
        if right:
            found["proposed"].append(path)
        if proposal.is_sure:
            found["sure" if right else "wrong"].append(path)
            found.setdefault(f"sure {case.styles[path]}", []).append(path)
    return found


def test_where_nobody_is_like_anybody_else_every_whole_name_is_sure() -> None:
    last = word_list("Abel Bjørk Çelik Dörr Ebert Fuchs Göbel Hübsch Iglesias Jørgensen Kraß Lüth")
    first = word_list("Åsa Boris Chloé Dagmar Émile Frauke Götz Hülya Ines Jörn Katrin Lovis")
    people = [
        Named(f"{70000 + at}", *names) for at, names in enumerate(zip(first, last, strict=True))
    ]
    rows = [{"user_id": one.number, "Name": one.name, "Department": ""} for one in people]
    paths = [f"{one.last}_{one.first}.png".lower() for one in people]
    assert all(one.is_sure for one in matched(rows, paths).proposals)


def test_which_proposals_are_sure() -> None:
    wrong = [
        f"{people!r} and {photos!r}: {found!r}, not {expected!r}"
        for people, photos, expected in SURE
        if (found := sure(people, photos)) != expected
    ]
    assert not wrong, "\n".join(wrong)


SURE = [
    # umlauts, order, case, what separates words
    ("71 Anna Müller", "Mueller_Anna", "1>a"),
    ("71 Anna Müller", "muller, anna", "1>a"),
    ("71 Anna Mueller", "ANNA MULLER", "1>a"),
    ("71 Anna Mueller", "Anna Müller", "1>a"),
    ("71 Søren Ærø", "soeren aeroe", "1>a"),
    ("71 Łukasz Groß", "LukaszGross", "1>a"),
    ("71 Zoe\u0308 Bru\u0308ck", "Zo\u00eb Br\u00fcck", "1>a"),  # NFD and NFC
    ("71 Anna O'Brien", "OBrien Anna", "1>a"),
    # a list that writes umlauts means what it writes
    ("71 Anna Schaefer\n72 Jörg Brück", "Anna Schäfer\nJörg Brück", "2>b"),
    # double names
    ("71 Anna-Maria Müller-Groß", "mueller gross annamaria", "1>a"),
    ("71 Anna Müller-Schmidt", "Anna Müller", ""),
    ("71 Anna Müller\n72 Anna Müller-Schmidt", "Anna Müller\nAnna Müller-Schmidt", "1>a 2>b"),
    ("71 Anna Müller\n72 Anna Müller-Schmidt", "Anna Müller", ""),
    # Chinese
    ("71 李伟\n72 李玮\n73 欧阳娜娜", "李伟先生\n李玮证件照\n欧阳 娜娜", "1>a 2>b 3>c"),
    ("71 李伟\n72 李伟", "李伟", ""),
    ("7001 李伟", "7001 Li Wei", "1>a"),
    ("7001 李伟\n7002 Peter Schmidt", "7001 Peter Schmidt", ""),
    ("71 Li Wei\n72 Wei Li", "Li Wei\nWei Li", ""),
    ("71 Li An\n72 Zhang Xiaoming", "Lian\nzhangxiaoming", "2>b"),
    # the same name, and nearly the same
    ("71 Anna Müller\n72 Anna Müller", "Anna Müller\nAnna Müller 2", ""),
    ("71 Anna Müller", "Anna Müller\nAnna Müller 2", ""),
    ("71 Anna Müller\n72 Anna Mueller", "Anna Müller\nAnna Mueller", ""),
    ("71 Jan Hansen\n72 Jana Hansen", "Jan Hansen\nJana Hansen", "1>a 2>b"),
    ("71 Jan Hansen\n72 Jana Hansen", "Jan Hansen", ""),
    ("71 Peter Hansen", "Peter Hanssen", ""),
    ("71 Peter Walter", "Peter Walker", ""),
    ("71 Michael Nowak", "Michal Nowak", ""),
    ("71 Christian Hoffmann\n72 Christina Hoffmann", "Christain Hoffmann", ""),
    # slips of the keyboard, initials, titles, other words
    ("71 Christian Hoffmann", "Chrsitian Hoffmann", "1>a"),
    ("71 Anna Müller", "A. Müller", ""),
    ("71 Anna Maria Müller", "Anna M. Müller", "1>a"),
    ("71 Hans Peter Müller", "Hans Peter M.", ""),
    ("71 Anna Müller", "Müller", ""),
    ("71 Dr. Anna Müller", "Frau Anna Müller Passbild", "1>a"),
    ("71 Dr. Müller", "Dr. Müller", ""),
    ("71 Michael Peter\n72 Eva Herr", "Herr Michael Peter", ""),
    ("71 John Smith", "John Smith Jr", ""),
    ("71 Anna Müller @ Sales", "Sales Anna Müller", ""),
    # numbers
    ("7001 Anna Müller", "7001", "1>a"),
    ("7001 Anna Müller", "IMG_7001", ""),
    ("7001 Anna Müller", "7001_Peter Schmidt", ""),
    ("7001 Anna Müller", "7001_Mueller A", "1>a"),
    ("7001 Anna Müller", "7002_Anna Müller", ""),
    ("7001 Anna Müller", "7001\n7001_2", "1>a"),
    ("7001 Anna Müller", "7001_1\n7001_2", ""),
    ("7001 Anna Müller", "7001_5512", ""),
    ("7001 李伟", "7001_5512 Li Wei", ""),
    ("101 李伟", "101 Li Wei", ""),
    ("101 李伟", "101 照片", "1>a"),
    ("7001 Anna Müller\n7002 Anna Müller", "Anna Müller 7002\nAnna Müller", "2>a"),
    ("7001 Anna Müller\n7002 Eva Braun", "7001_7002", ""),
    ("P-00123 Anna Müller", "p00123", "1>a"),
    ("E7001 Anna Müller\nE9002 Eva Braun", "7001\n9002", "1>a 2>b"),
    ("E7001 Anna Müller\nS7001 Eva Braun", "7001", ""),
    ("4711 Anna Müller\n9002 Eva Braun", "004711", "1>a"),
    ("2 Bob Smith\n7 Anna Müller", "Anna Müller 2\n7", "2>a"),
    ("71 Anna Müller", "IMG_20240315_101112 Anna Müller", "1>a"),
    ("20240315 Anna Müller", "20240315", "1>a"),
    # folders
    ("71 Anna Müller\n72 Eva Braun", "Anna Müller/IMG_2031\nEva Braun/1\nEva Braun/2", "1>a"),
    ("71 Anna Müller", "Sales/Anna Müller", "1>a"),
]


def test_a_number_that_every_photo_has_beside_the_name_is_nobodys_id() -> None:
    people = [
        Named(f"{7000 + at}", f"Vor{chr(97 + at)}ik", f"Nach{chr(97 + at)}el") for at in range(26)
    ]
    rows = [{"user_id": one.number, "Name": one.name, "Department": ""} for one in people]
    paths = [f"{7001 + at:04} {one.name}.jpg" for at, one in enumerate(people)]
    assert all(one.is_sure for one in matched(rows, paths).proposals)
    assert not any(one.is_sure for one in matched(rows[:5], paths[:5]).proposals[:4])


def test_a_number_in_a_list_whose_ids_number_the_rows_may_count_photos() -> None:
    rows = [
        {"user_id": f"{at}", "Name": f"李{chr(0x4E00 + 7 * at)}", "Department": ""}
        for at in range(1, 401)
    ]
    proposals = matched(rows, ["Anna Müller_300.jpg", "301_2.jpg", "302.jpg", "0303.jpg"]).proposals
    assert [place + 1 for place, one in enumerate(proposals) if one.is_sure] == [302]


def test_words_of_a_column_with_few_values_may_be_in_a_photos_name() -> None:
    rows = [
        {"user_id": f"{7000 + at}", "Name": f"Vor{one}ik Nach{one}el", "Department": "Export"}
        for at, one in enumerate("abcdef")
    ]
    for column in ("Name", "user_id"):
        paths = [f"{row[column]} {row['Department']}.jpg" for row in rows]
        assert all(one.is_sure for one in matched(rows, paths).proposals)


def test_slips_of_the_keyboard_are_told_from_other_names() -> None:
    slips = ["Schneider Shcneider", "Alexander Alexadner", "Zimmermann Zimmfrmann"]
    names = ["Jan Jana", "Hansen Hanssen", "Meyer Mayer", "Marko Marco", "Christian Christina"]
    names += ["Nielsen Nilsen", "Ester Esther", "Hoffmann Hofmann", "Martin Martina", "Bauer Baur"]
    assert [text for text in slips if not _is_slip(text)] == []
    assert [text for text in names if _is_slip(text)] == []


def _is_slip(text: str) -> bool:
    one, other = text.lower().split()
    return is_slip(one, other, swapped_only=False)


def test_many_people_of_one_name_are_proposed_many_photos_and_none_is_sure() -> None:
    rows = [
        {"user_id": f"{at}", "Name": "Anna Müller", "Department": ""}
        for at in range(10_000, 10_300)
    ]
    proposals = matched(rows, [f"Anna Müller ({at}).jpg" for at in range(300)]).proposals
    assert not any(one.is_sure for one in proposals)
    assert sum(one.pair is not None for one in proposals) > 290


def test_names_of_any_length_and_of_signs_only_are_compared() -> None:
    rows = [
        {"user_id": "7001", "Name": "x" * 100_000, "Department": ""},
        {"user_id": "7002", "Name": "a " * 50_000, "Department": ""},
        {"user_id": "", "Name": "", "Department": ""},
        {"user_id": "፩፪፫ ⑦ ²", "Name": "፩፪፫ ² ⅷ", "Department": "٣"},
        {"user_id": "…", "Name": "\u202e\u0300 ‼", "Department": "\0"},
    ]
    paths = [
        f"{'Anna ' * 50}.jpg",
        "….jpg",
        "፩፪፫ ² ⅷ ٣٣٣.jpg",
        "\u0300\u0301.jpg",
        "7001.jpg",
        " .jpg",
        "a/b/c/7002.jpg",
    ]
    outcome = matched(rows, paths)
    assert [one.is_sure for one in outcome.proposals] == [True, True, False, False, False]


# The command


def photos_in(folder: Path, *names: str | bytes) -> None:
    for name in names:
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def lines_of(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a list and photos."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "staff.csv").write_text(
        "EMP_NO;Vorname;Name\n7001;Anna;Müller\n7002;Jan;Hansen\n7003;Eva;=Blau()\n7004;Ute;Alt\n"
    )
    photos_in(
        tmp_path / "photos", "müller_anna.jpg", "Hanssen Jan.jpg", "Eva =Blau().jpg", "-x.jpg"
    )
    return tmp_path


def settings(place: Path, output: str = "out.csv", **more: object) -> MatchSettings:
    given = {"columns": {"user_id": "EMP_NO"}, **more}
    return MatchSettings(
        list_file=place / "staff.csv",
        folder=place / "photos",
        output=place / output,
        **given,  # type: ignore[arg-type]
    )


@pytest.mark.usefixtures("moved_clock")
def test_the_proposals_are_a_manifest_of_the_sure_photos(box: Sandbox, command: Command) -> None:
    folder = command.folder
    (folder / "staff.csv").write_text("user_id;Name\n7001;Anna Müller\n7002;Jan Hansen\n")
    photos_in(folder / "photos", "müller_anna.jpg", "Hanssen Jan.jpg", "Ute.jpg")
    done = command("match", "staff.csv", "photos", "--output", "out.csv")
    assert done.code == 0, done
    assert "enroll plan out.csv --images photos" in done.out
    planned = command("plan", "out.csv", "--images", "photos", "--report", "report.csv")
    assert planned.code == 0
    assert "1 line of photos without a row" in planned.out
    report = {line["user_id"]: line for line in lines_of(folder / "report.csv")}
    assert report["7001"]["image"] == "müller_anna.jpg"
    assert report["7002"]["error"] == "IMAGE_EMPTY"
    assert len(report) == 2
    for person, photo in enumerate(sorted((folder / "photos").iterdir())):
        photo.write_bytes(portrait(person))
    run = ("run", "out.csv", "--images", "photos", "--group-id", "staff")
    assert command(*run).code == ExitCode.SOME_ROWS_FAILED
    assert [face.user_id for face in box.faces("staff")] == ["7001"]
    proposals = (folder / "out.csv").read_text()
    (folder / "out.csv").write_text(
        proposals.replace(";;no;Hanssen", ";Hanssen Jan.jpg;no;Hanssen")
    )
    assert command(*run).code == 0
    assert sorted(face.user_id for face in box.faces("staff")) == ["7001", "7002"]


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_reading_the_proposals_gives_back_the_list_and_the_names_of_the_files(
    place: Path, suffix: str
) -> None:
    found = match_photos(settings(place, f"out{suffix}"))
    assert (found.sure, found.unsure, found.none, found.left) == (2, 1, 1, 1)
    manifest = open_manifest(place / f"out{suffix}", columns={"user_id": "EMP_NO"})
    (chunk,) = manifest.chunks()
    assert chunk["Name"].tolist() == ["Müller", "Hansen", "=Blau()", "Alt"]
    assert chunk["image"].tolist() == ["müller_anna.jpg", "", "Eva =Blau().jpg", ""]
    assert chunk["match_image"].tolist() == [
        "müller_anna.jpg",
        "Hanssen Jan.jpg",
        "Eva =Blau().jpg",
        "",
    ]
    assert chunk["match_sure"].tolist() == ["yes", "no", "yes", ""]


def test_photos_without_a_row_are_at_the_end_and_formulas_are_escaped(place: Path) -> None:
    match_photos(settings(place))
    lines = lines_of(place / "out.csv", ";")
    assert list(lines[0]) == ["EMP_NO", "Vorname", "Name", "image", *MATCH_COLUMNS]
    assert [line["EMP_NO"] for line in lines] == ["7001", "7002", "7003", "7004", ""]
    assert lines[-1]["match_image"] == "'-x.jpg"
    assert lines[2]["Name"] == "'=Blau()"


def test_a_reviewed_list_keeps_its_photos_and_makes_nobody_sure_of_the_same_name(
    place: Path,
) -> None:
    (place / "staff.csv").write_text(
        "user_id,user_data,image\n"
        "7001,Anna Müller,\n7002,Anna Müller,a.jpg\n7003,Jan Hansen,gone.jpg\n"
    )
    photos_in(place / "photos", "a.jpg", "Jan Hansen.jpg")
    found = match_photos(settings(place, columns={}))
    assert (found.sure, found.unsure, found.given) == (0, 1, 2)
    lines = lines_of(place / "out.csv")
    assert [line["image"] for line in lines[:3]] == ["", "a.jpg", "gone.jpg"]
    assert lines[2]["match_reason"] == "The list itself names this photo, which is not there."
    again = match_photos(
        MatchSettings(
            list_file=place / "out.csv", folder=place / "photos", output=place / "again.csv"
        )
    )
    assert (again.rows, again.given) == (3, 2)
    assert list(lines_of(place / "again.csv")[0]) == list(lines[0])


def test_files_whose_names_no_list_can_hold_are_listed_with_the_reason(place: Path) -> None:
    photos_in(place / "photos", b"caf\xe9.jpg", "two\nlines.jpg", "\u202egpj.jpg", "Thumbs.db")
    found = match_photos(settings(place))
    assert found.others == 1
    lines = {line["match_image"]: line["match_reason"] for line in lines_of(place / "out.csv", ";")}
    assert "rename the file" in lines["caf\\xe9.jpg"]
    assert any("LINE FEED" in reason for reason in lines.values())


def test_nothing_is_overwritten(place: Path) -> None:
    (place / "out.csv").write_text("reviewed")
    before = {path: path.read_bytes() for path in place.iterdir() if path.is_file()}
    for output in ("out.csv", "staff.csv", "photos/-x.jpg"):
        with pytest.raises(UsageError):
            match_photos(settings(place, output))
    assert {path: path.read_bytes() for path in place.iterdir() if path.is_file()} == before


def test_what_cannot_be_matched_is_refused_before_anything_is_written(place: Path) -> None:
    (place / "empty").mkdir()
    refused: dict[str, dict[str, object]] = {
        "no folder and no ZIP": {"folder": place / "nowhere"},
        "no photo in": {"folder": place / "empty"},
        "no column 'user_id'": {"columns": {}},
        "'Nam', which --compare": {"compare": ("Nam",)},
        "has a template": {"columns": {"user_id": "EMP_NO", "image": "{EMP_NO}.jpg"}},
        "is a folder or an archive; give the list": {"list_file": place / "photos"},
        "must end in .csv": {"output": place / "out.txt"},
    }
    for text, given in refused.items():
        usual = settings(place)
        with pytest.raises(UsageError, match=text):
            match_photos(replace(usual, **given))  # type: ignore[arg-type]
    assert not (place / "out.csv").exists()


def test_without_the_extra_match_says_how_to_install_it(place: Path) -> None:
    script = (
        "import sys; sys.modules['rapidfuzz'] = None; from enroll.cli import exit_code_of\n"
        "sys.exit(exit_code_of(sys.argv[1:]))"
    )
    command = (sys.executable, "-c", script, "match", "list.csv", "photos", "--output", "out.csv")
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, "pip install 'enroll[match]'" in done.stderr) == (2, True), done
    assert not (place / "out.csv").exists()


def test_columns_are_chosen_by_their_names_or_by_hand() -> None:
    header = ("EMP_NO", "Vorname", "Name", "Badge No.", "E-Mail", "Manager", "Phone number", "名")
    roles = {"user_id": "EMP_NO"}
    chosen = choose_columns(header, roles, (), has_user_data=False)
    assert chosen.ids == ("user_id", "Badge No.", "E-Mail")
    assert chosen.names == (("Name",), ("Vorname", "名", "Name"))
    assert chosen.others == ("Phone number",)
    asked = choose_columns(header, roles, ("vorname", "NAME"), has_user_data=False)
    assert asked.names == (("Vorname", "Name"), ("Vorname",), ("Name",))
    assert asked.shown == ["user_id", "Vorname", "Name"]


def test_the_lines_of_photos_without_a_row_count_only_among_proposals(tmp_path: Path) -> None:
    names = ("user_id", "image", *MATCH_COLUMNS)
    rows = [["7001", "", "no", "a.jpg", "", "", "", ""], ["", "", "", "b.jpg", "", "", "", ""]]
    rows.append(["", "c.jpg", "", "c.jpg", "", "", "", ""])
    counts = Counter[int]()
    for header in (names, ("user_id", "image", "x", *MATCH_COLUMNS[1:])):
        path = tmp_path / f"{len(counts)}.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        counts[len(counts)] = sum(map(len, open_manifest(path).chunks()))
    assert list(counts.values()) == [2, 3]
    with pytest.raises(ManifestError, match="no column 'image'"):
        open_manifest(_without_photos(tmp_path))
    assert Role.IMAGE not in open_manifest(_without_photos(tmp_path), needs_image=False).columns


def _without_photos(folder: Path) -> Path:
    path = folder / "list.csv"
    path.write_text("user_id,user_data\n7001,Anna\n")
    return path


def test_the_command_says_what_is_wrong_with_its_exit_code(command: Command) -> None:
    done = command("match", "nowhere.csv", ".", "--output", "out.csv")
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert "Error" in done.err
