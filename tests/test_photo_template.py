"""`--photo`: a row's photo is found by a template over its columns, or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive import Archive, portrait, read_csv
from hypothesis import example, given
from hypothesis import strategies as st
from real_command import Command

from enroll.errors import ManifestError
from enroll.manifest.manifest import Manifest, manifest_from_json, open_manifest
from enroll.manifest.photos import FoundPhotos, parse_photo_template, photo_patterns
from enroll.manifest.source import Source
from enroll.photos import index as index_module
from enroll.photos import open_store
from enroll.photos.index import (
    PhotoIndex,
    _is_edge,
    _matches,
    _part_matches,
    escaped,
    fold,
    parse_pattern,
)
from enroll.photos.store import UnusableError

SALES = "{Department}/{user_id}*"


def made(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def located(folder: Path, text: str, photo: str, *names: str) -> Manifest:
    made(folder / "photos", *names)
    (folder / "staff.csv").write_text(text, encoding="utf-8")
    manifest = open_manifest(folder / "staff.csv", photo=photo)
    return manifest.located(open_store(folder / "photos"))


def images(manifest: Manifest) -> list[str]:
    return [row.image for rows in manifest.rows(2) for row in rows]


def why(folder: Path, manifest: Manifest, image: str) -> tuple[str, str, str]:
    assert manifest.found is not None
    store = manifest.found.explained(open_store(folder / "photos"))
    with pytest.raises(UnusableError) as caught, store.open(store.locate(image)):
        pass
    unusable = caught.value.unusable
    assert list(store.stat([store.locate(image)])) == [-1, -1, -1]
    return unusable.status.value, str(unusable.fault.code), unusable.fault.message


def test_a_photo_is_found_whatever_its_case_unicode_form_and_suffix(tmp_path: Path) -> None:
    manifest = located(
        tmp_path,
        "user_id,Department,Last\n7,sales,x\n8,SALES,x\n9,B\u00fcro,x\n10,R&D [x],x\n",
        SALES,
        *("Sales/7.JPG", "Sales/8_2026.tiff", "Bu\u0308ro/9.jpeg", "R&D [x]/10.webp"),
        *("Sales/7.txt", "Sales/._7.jpg", "Sales/deeper/8.jpg", "7.jpg"),
    )
    assert images(manifest) == [
        "Sales/7.JPG",
        "Sales/8_2026.tiff",
        "Bu\u0308ro/9.jpeg",
        "R&D [x]/10.webp",
    ]
    again = manifest_from_json(Source.of(manifest.path), manifest.to_json())
    assert images(again.located(open_store(tmp_path / "photos"))) == images(manifest)


def test_a_number_or_word_is_never_taken_for_a_longer_one(tmp_path: Path) -> None:
    text = "user_id,Last\n1,Ann\n10,Anna\n2,Bo\n3,Bob\n"
    manifest = located(tmp_path, text, "{user_id}*", "10.jpg", "10_b.txt", "2x.jpg", "33.jpg")
    assert images(manifest) == ["1*", "10.jpg", "2x.jpg", "3*"]
    status, code, message = why(tmp_path, manifest, "1*")
    assert (status, code) == ("failed", "PHOTO_MISSING")
    assert "the nearest is 10.jpg" in message
    other = tmp_path / "other"
    other.mkdir()
    names = ("x_1.jpg", "x_10.jpg", "Anna_2.jpg", "y-x 3 b.jpg")
    assert images(located(other, text, "*{user_id}*", *names)) == [
        *("x_1.jpg", "x_10.jpg", "Anna_2.jpg", "y-x 3 b.jpg")
    ]
    assert images(located(other, text, "{Last}*")) == ["Ann*", "Anna_2.jpg", "Bo*", "Bob*"]


def test_several_photos_or_several_people_of_a_photo_are_named(tmp_path: Path) -> None:
    text = "user_id,Last\n1,Li\n2,Wu\n3,WU\n3,Wu\n4,Ma\n5,Xu\n,Xu\n5,xu\n"
    names = ("Wu.jpg", "Li.jpg", "li.png", "Xu.jpg", *(f"Ma {n}.jpg" for n in range(9)))
    manifest = located(tmp_path, text, "{Last}*", *names)
    assert images(manifest) == ["Li*", "Wu*", "WU*", "Wu*", "Ma*", *["Xu.jpg"] * 3]
    found = [why(tmp_path, manifest, image) for image in ("Li*", "WU*", "Ma*")]
    assert {one[:2] for one in found} == {("invalid", "PHOTO_AMBIGUOUS")}
    assert "Several photos match Li*: Li.jpg, li.png. " in found[0][2]
    assert "Wu.jpg is also what the rows of other people match" in found[1][2]
    assert "Ma 4.jpg and more" in found[2][2]
    assert "Ma 5" not in found[2][2]


def test_cells_are_no_patterns_and_lead_nowhere(tmp_path: Path) -> None:
    made(tmp_path, "private/1.jpg")
    cells = ["*", "?", "[ab]", "..", "a/b", "../private", ".", "a\\b", "{user_id}", "%s", "[*]"]
    text = "user_id,Department\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells))
    manifest = located(tmp_path, text, "{Department}/{user_id}", *(f"a/b/{n}.jpg" for n in "14"))
    found = images(manifest)
    assert len(set(found)) == len(cells)
    for image in found:
        assert why(tmp_path, manifest, image)[1] == "PHOTO_MISSING"
    names = ("[ab]/2.jpg", "{user_id}/8.jpg", "%s/9.jpg", "a\\b/7.jpg")
    manifest = located(tmp_path, text, "{Department}/{user_id}", *names)
    assert set(names) <= set(images(manifest))


def test_a_row_that_lacks_a_part_of_the_path_names_no_photo(tmp_path: Path) -> None:
    text = "user_id,Department\n1,\n2, \n,Sales\n"
    assert images(located(tmp_path, text, SALES, "Sales/1.jpg")) == ["", "", ""]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("", "names no column"),
        ("photos/x.jpg", "names no column"),
        ("/srv/{user_id}", "not a relative path"),
        ("C:\\{user_id}", "not a relative path"),
        ("../{user_id}", "or one of dots"),
        ("a//{user_id}", "empty part"),
        ("{user_id}/", "empty part"),
        ("{Departmant}/{user_id}", "'Department' is the nearest"),
        ("{user_data}", "no column 'user_data'"),
        ("{user_id", "single '{'"),
    ],
)
def test_a_template_that_can_find_nothing_says_why(
    tmp_path: Path, template: str, words: str
) -> None:
    (tmp_path / "staff.csv").write_text("user_id,Department\n1,x\n")
    with pytest.raises(ManifestError) as caught:
        open_manifest(tmp_path / "staff.csv", photo=template)
    assert words in str(caught.value)


def test_a_suffix_in_a_template_or_cell_is_not_compared() -> None:
    cells = [["0007", "J. Smith", "8.PNG"]]
    for template in ("{File}", "{File}.jpg", "{File}.*", ".\\{File}"):
        patterns = photo_patterns(parse_photo_template(template), cells)
        assert [parse_pattern(one) for one in patterns] == [
            [["0007"]],
            [["j. smith"]],
            [["8.png"]] if template == "{File}.jpg" else [["8"]],
        ]


NAME = st.text("aA1\u00e9_. *[/", min_size=1, max_size=6)


@given(
    st.lists(
        st.tuples(st.text("aAb1_-\u00c9", min_size=1, max_size=6), st.sampled_from("xyZ")),
        max_size=30,
    ),
    st.lists(st.text("aB1_-\u00e9*", min_size=1, max_size=5), min_size=1, max_size=5),
    st.sampled_from(["x/", "*/", "X*/"]),
    st.booleans(),
)
def test_the_index_finds_what_looking_at_every_photo_finds(
    names: list[tuple[str, str]], wanted: list[str], folder: str, words: bool
) -> None:
    paths = sorted({f"{folder_}/{name}.jpg" for name, folder_ in names})
    index = PhotoIndex(paths, depth=2, words_of=1 if words else None)
    assert len(index) == len(paths)
    for text in wanted:
        pattern = parse_pattern(folder + re.sub(r"\*+", "*", text))
        every = [one for one in paths if _matches(pattern, fold(one[:-4]).split("/"))]
        assert sorted(index.find(pattern, most=100)) == every
        assert index.nearest(pattern) in {"", *paths}


def tried(pieces: list[str], text: str, at: int) -> bool:
    """Whether pieces match, trying every length of every star."""
    first, *rest = pieces
    if not text.startswith(first, at):
        return False
    at += len(first)
    if not rest:
        return at == len(text)
    return _is_edge(text, at) and any(
        _is_edge(text, place) and tried(rest, text, place) for place in range(at, len(text) + 1)
    )


@given(st.lists(st.text("ab1_", max_size=2), min_size=1, max_size=4), st.text("ab1_", max_size=8))
def test_a_star_matches_what_trying_every_length_matches(pieces: list[str], text: str) -> None:
    assert _part_matches(pieces, text) == tried(pieces, text, 0)


@given(NAME)
@example("..")
@example("[*]")
def test_a_cell_matches_its_own_text_only(cell: str) -> None:
    ((piece,),) = parse_pattern(f"{escaped(cell)}.*")
    assert piece == fold(cell)


def test_an_index_larger_than_its_pieces_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_AT_ONCE", 7)

    def files() -> Iterator[str]:
        for number in range(500):
            yield f"{number % 10}/p{number}.jpg"

    for words_of in (None, 1):
        index = PhotoIndex(files(), depth=2, words_of=words_of)
        found = [
            index.find(parse_pattern(f"*/P{n}" if words_of else f"{n % 10}/P{n}"), most=2)
            for n in range(500)
        ]
        assert found == [[f"{n % 10}/p{n}.jpg"] for n in range(500)]


def test_photos_of_a_template_enroll_once_and_the_results_name_them(
    archive: Archive, command: Command
) -> None:
    folder = archive.folder
    photos = folder / "photos"
    for number, name in enumerate(("Sales/1_a.jpg", "Sales/2.jpg", "Sales/3.jpg"), 1):
        archive.photo(f"photos/{name}", portrait(number))
    archive.photo("photos/Sales/3.png", portrait(4))
    archive.manifest(
        [("1", "sales"), ("2", "Sales"), ("3", "Sales"), ("4", "Sales")], head="user_id,Department"
    )
    run = ("run", "staff.csv", "--group-id", "staff", "--images", "photos")
    first = command(*run, "--photo", SALES)
    assert first.code == 1, first.err
    results = read_csv(folder / "staff.results.csv")
    assert [(one["image"], one["error"]) for one in results] == [
        ("Sales/1_a.jpg", ""),
        ("Sales/2.jpg", ""),
        ("Sales/3*", "PHOTO_AMBIGUOUS"),
        ("Sales/4*", "PHOTO_MISSING"),
    ]
    assert list(results[0])[:3] == ["user_id", "Department", "image"]
    assert archive.there() == [("1", ""), ("2", "")]
    # Again, and from the results, with the template and without: nobody is added.
    again = ("--results", "again.csv", *run[2:])
    assert command(*run, "--photo", SALES).code == 1
    assert command("run", "staff.results.csv", *again, "--photo", SALES).code == 1
    assert list(read_csv(folder / "again.csv")[0])[:3] == ["user_id", "Department", "image"]
    assert command("run", "staff.results.csv", *again).code == 1
    assert archive.box.count("add") == 2
    # Photos that come, go, and are renamed are seen although the list is the same.
    (photos / "Sales/3.png").unlink()
    (photos / "Sales/2.jpg").rename(photos / "Sales/2 new.JPEG")
    archive.photo("photos/Sales/4.jpg", portrait(5))
    third = command(*run, "--photo", SALES)
    assert (third.code, archive.box.count("add")) == (0, 4), third.err
    assert [one["image"] for one in read_csv(folder / "staff.results.csv")] == [
        *("Sales/1_a.jpg", "Sales/2 new.JPEG", "Sales/3.jpg", "Sales/4.jpg")
    ]
    # Another ledger adopts the same rows, and has nothing to add.
    other = ("--ledger", "other.sqlite", "--photo", SALES)
    adopted = command("adopt", *run[1:], *other)
    assert adopted.code == 0, adopted.err
    last = command(*run, *other)
    assert (last.code, archive.box.count("add")) == (0, 4), last.err


def test_photos_in_two_folders_that_match_are_a_question(
    archive: Archive, command: Command
) -> None:
    for name in ("old/1.jpg", "new/1.jpg"):
        archive.photo(name, portrait(1))
    first = archive.manifest([("1",)], head="user_id", name="old/a.csv")
    run = ("--group-id", "staff", "--photo", "{user_id}")
    assert command.run("run", first, *run, "--images", "old").code == 0
    second = archive.manifest([("1",)], head="user_id", name="new/b.csv")
    done = command.run("run", second, *run)
    assert (done.code, "Choose one" in done.err) == (2, True), done.err


def test_a_sync_replaces_a_changed_photo_and_keeps_a_face_whose_photo_is_uncertain(
    archive: Archive,
) -> None:
    for number in (1, 2, 3):
        archive.photo(f"{number}.jpg", portrait(number))
    people = archive.manifest([("1",), ("2",), ("3",)], name="people.csv", head="user_id")

    def sync() -> list[str]:
        archive.sync(manifest=people, photo="{user_id}*")
        return sorted(face.sha256 for face in archive.box.faces("staff"))

    before = sync()
    assert len(before) == 3
    assert sync() == before
    archive.photo("1.jpg", portrait(5))  # changed
    archive.photo("2_b.jpg", portrait(4))  # now it is uncertain
    (archive.folder / "3.jpg").unlink()  # and missing
    after = sync()
    assert len(after) == 3
    assert len(set(after) & set(before)) == 2


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("photos\\1.jpg", "photos/1.jpg"),
        (".\\photos\\1.jpg", "./photos/1.jpg"),
        ("C:\\Export\\photos\\1.jpg", "photos/1.jpg"),
        ("c:/export\\photos\\1.jpg", "photos/1.jpg"),
        ("D:\\Export\\photos\\1.jpg", "D:\\Export\\photos\\1.jpg"),
        ("literal\\1.jpg", "literal\\1.jpg"),
        ("..\\1.jpg", "../1.jpg"),
        ("photos/1.jpg", "photos/1.jpg"),
    ],
)
def test_paths_as_windows_writes_them_are_read_below_the_root(
    tmp_path: Path, image: str, found: str
) -> None:
    root = made(tmp_path / "root", "photos/1.jpg", "photos/2.jpg", "literal\\1.jpg")
    (tmp_path / "staff.csv").write_text(
        f"user_id,image\n0,C:\\Export\\photos\\2.jpg\n1,{image}\n", encoding="utf-8"
    )
    manifest = open_manifest(tmp_path / "staff.csv").located(open_store(root))
    assert images(manifest) == ["photos/2.jpg", found]
    assert manifest.found_by.removesuffix("\\") == "C:/Export/"


def test_a_store_of_found_photos_is_a_store(tmp_path: Path) -> None:
    manifest = located(tmp_path, "user_id\n1\n", "{user_id}", "1.jpg")
    assert manifest.found is not None
    store = manifest.found.explained(open_store(tmp_path / "photos"))
    assert isinstance(store, FoundPhotos)
    with store.open(store.locate("1.jpg")) as photo:
        assert photo.content() == b"1.jpg"
    assert list(store.files()) == ["1.jpg"]
    assert not store.is_gone()
