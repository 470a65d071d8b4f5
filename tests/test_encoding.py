"""enroll.manifest.encoding."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from cases import cases

from enroll.errors import ManifestError
from enroll.manifest.manifest import Manifest, open_manifest

WESTERN = [
    *["Müller", "Größe", "Jörg Weiß", "Pääskynen", "HÄÄL", "François", "Zoë", "Éléonore Brontë"],
    *["José Ñúñez", "Peña", "Muñoz García", "Þórður Ólafsson", "ÞÓRÐUR", "Ærø Sørensen"],
    *[
        "O’Brien",
        "Nº 5",
        "¿Qué?",
        "André",
        "Wójcik",
        "Strößner",
        "Bjørn Åås",
        "Maß",
        "«Süd»",
        "Kuuöö",
    ],
]
CHINESE = [
    *[
        "张三",
        "李四",
        "王小明",
        "欧阳娜娜",
        "李珺",
        "王玥",
        "朱镕基",
        "堃",
        "陈喆",
        "刘璟",
        "张三A",
    ],
    *["诸葛亮（技术部）", "鲁迅", "鲞", "赵琰", "丁一"],
]


def opened(tmp_path: Path, content: bytes, encoding: str | None = None) -> Manifest:
    path = tmp_path / "staff.csv"
    path.write_bytes(content)
    return open_manifest(path, encoding=encoding)


def table(names: list[str]) -> str:
    rows = (f"{n},{name},photos/{n}.jpg\r\n" for n, name in enumerate(names))
    return "user_id,user_data,image\r\n" + "".join(rows)


def names_in(manifest: Manifest) -> list[str]:
    return [row.user_data for rows in manifest.rows() for row in rows]


def encoded() -> list[tuple[str, list[str]]]:
    found = []
    for encoding, names in (("windows-1252", WESTERN), ("gb18030", CHINESE)):
        # 鲁迅 alone is valid UTF-8 by accident (³Ѹ), and nothing could tell.
        found += [(encoding, [name]) for name in names if name != "鲁迅"]
        found += [(encoding, ["Anna"] * 2000 + [name] + ["Bob"] * 2000) for name in names[::5]]
        found += [(encoding, names), (encoding, names * 200)]
    return found


@cases(("encoding", "names"), encoded())
def test_western_and_chinese_names_are_told_apart_and_the_guess_is_said(
    tmp_path: Path, encoding: str, names: list[str]
) -> None:
    manifest = opened(tmp_path, table(names).encode(encoding))
    assert (manifest.encoding, manifest.encoding_was_guessed) == (encoding, True)
    assert names_in(manifest) == names
    assert encoding in manifest.notes[0].lower()
    assert "guess" in manifest.notes[0]
    assert "--encoding" in manifest.notes[0]


def test_one_accented_name_at_the_end_of_many_rows_decides(tmp_path: Path) -> None:
    names = ["Anna" * 20] * 13_000 + ["Müller"]  # beyond the first megabyte
    assert names_in(opened(tmp_path, table(names).encode("cp1252")))[-1] == "Müller"


def test_a_file_of_both_kinds_is_said_to_be_doubtful(tmp_path: Path) -> None:
    content = table(["张三"]).encode("gb18030") + "8,Müller Jörg,x\r\n".encode("cp1252")
    (note,) = opened(tmp_path, content).notes
    assert "nearly as likely" in note


@pytest.mark.parametrize(
    ("codec", "name", "bom", "guessed"),
    [
        ("utf-8", "utf-8", False, False),
        ("utf-8-sig", "utf-8", True, False),
        ("utf-16", "utf-16", True, False),
        ("utf-16-le", "utf-16-le", False, True),
        ("utf-16-be", "utf-16-be", False, True),
    ],
)
def test_unicode_is_known_with_a_mark_and_without(
    tmp_path: Path, codec: str, name: str, bom: bool, guessed: bool
) -> None:
    manifest = opened(tmp_path, table([*CHINESE, *WESTERN]).encode(codec))
    assert (manifest.encoding, manifest.bom, manifest.encoding_was_guessed) == (name, bom, guessed)
    assert bool(manifest.notes) is guessed
    assert names_in(manifest) == [*CHINESE, *WESTERN]


@pytest.mark.parametrize("asked", ["utf-16", "utf-16-le", "UTF-16LE"])
def test_a_mark_is_taken_off_whatever_the_encoding_is_called(tmp_path: Path, asked: str) -> None:
    content = codecs.BOM_UTF16_LE + table(["张三"]).encode("utf-16-le")
    manifest = opened(tmp_path, content, asked)
    assert manifest.header[0] == "user_id"
    assert names_in(manifest) == ["张三"]


def test_the_option_overrules_the_guess(tmp_path: Path) -> None:
    content = table(["Łukasz Wójcik"]).encode("cp1250")
    assert names_in(opened(tmp_path, content)) == ["£ukasz Wójcik"]
    manifest = opened(tmp_path, content, "cp1250")
    assert names_in(manifest) == ["Łukasz Wójcik"]
    assert not manifest.encoding_was_guessed
    assert manifest.notes == ()


@pytest.mark.parametrize("asked", ["klingon", "hex", "rot13", "undefined"])
def test_an_unknown_encoding_is_refused(tmp_path: Path, asked: str) -> None:
    with pytest.raises(ManifestError, match=rf"--encoding: '{asked}'.*gb18030"):
        opened(tmp_path, table(["Anna"]).encode(), asked)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("encoding", "bad", "word"),
    [("utf-8", b"\xff", "0xFF"), ("gb18030", b"\xff", "0xFF"), ("shift_jis", b"\xa0", "0xA0")],
)
def test_bytes_that_the_asked_encoding_lacks_are_refused_with_their_line(
    tmp_path: Path, encoding: str, bad: bytes, word: str, line_end: str
) -> None:
    # Enough before the bad byte that it lies several blocks into the file.
    lines = [b"user_id,image", *[b"1,abcdefghijklmnopqrst"] * 100_000, b"2," + bad, b"3,c"]
    content = line_end.encode().join(lines)
    with pytest.raises(ManifestError, match=rf"line 100002: the byte {word} is not {encoding}"):
        opened(tmp_path, content, encoding)


def test_a_line_end_that_lies_across_two_blocks_is_one(tmp_path: Path) -> None:
    start = b"user_id,image\r\n1,"
    content = start + b"x" * ((1 << 20) - len(start) - 1) + b"\r\n2,\xff\r\n"
    assert content[(1 << 20) - 1 :].startswith(b"\r\n")
    with pytest.raises(ManifestError, match="line 3: the byte 0xFF"):
        opened(tmp_path, content, "utf-8")


def test_a_bad_byte_in_utf8_does_not_turn_the_file_into_something_else(tmp_path: Path) -> None:
    content = table(CHINESE).encode() + b"9999,\xe5\xbc,x.jpg\r\n"
    line = len(CHINESE) + 2
    with pytest.raises(ManifestError, match=rf"line {line}: .*is not UTF-8.*--encoding"):
        opened(tmp_path, content)


@pytest.mark.parametrize(
    ("names", "pasted"),
    [
        (["Müller"], "Größe"),
        (["Anna", "José", "Bob", "Jürgen"], "Peña"),
        (["José"] * 3 + ["Ângelo", "Ana Conceição"], "Muñoz"),
        (["张三", "李四"], "Müller"),
        (["Müller", *["Anna"] * 100_000, "Weiß"], "Größe"),
    ],
)
def test_a_western_line_pasted_into_utf8_is_refused_with_its_number(
    tmp_path: Path, names: list[str], pasted: str
) -> None:
    line = len(names) + 2
    content = table(names).encode() + f"p,{pasted},p.jpg\r\n".encode("cp1252") + b"9,Ada,9.jpg\r\n"
    with pytest.raises(ManifestError, match=rf"line {line}: the byte .*is not UTF-8.*--encoding"):
        opened(tmp_path, content)


def test_a_pair_of_western_letters_that_is_utf8_by_accident_decides_nothing(tmp_path: Path) -> None:
    names = ["CAFÉ’S", "Müller"]  # É’ is a letter in UTF-8
    assert names_in(opened(tmp_path, table(names).encode("cp1252"))) == names


@pytest.mark.parametrize(
    ("content", "example"),
    [
        (table(["Anna", "Müller"]).encode("cp1252"), "user_data 'Müller' in line 3."),
        (table(["Anna", "Иванов"]).encode("cp1251"), "user_data '肉囗钼' in line 3."),
        (table(["Anna"] * 30_000 + ["Zoë"]).encode("cp1252"), "user_data 'Zoë' in line 30002."),
        ("unit;user_id;image\nBüro;1;é.jpg\n".encode("cp1252"), "image 'é.jpg' in line 2."),
        ("unit;user_id;image\n\nBüro;1;a.jpg\n".encode("cp1252"), "unit 'Büro' in line 3."),
        ("Größe;user_id;image\n9;1;a.jpg\n".encode("cp1252"), "column 'Größe' in line 1."),
        (
            ('user_id,user_data,image\n1,"a\nb",x\n2,"é\n' + "y" * 99 + '",x\n').encode("cp1252"),
            f"user_data 'é {'y' * 37}…' in line 4.",
        ),
        (table(["张三"]).encode("utf-16-le"), "user_data '张三' in line 2."),
    ],
)
def test_the_note_of_a_guess_shows_what_is_read(
    tmp_path: Path, content: bytes, example: str
) -> None:
    (note,) = opened(tmp_path, content).notes
    assert note.endswith(f" For example {example}"), note


def test_a_guess_without_a_letter_to_show_is_said_all_the_same(tmp_path: Path) -> None:
    (note,) = opened(tmp_path, table(["Anna"]).encode("utf-16-le")).notes
    assert note.endswith("if they are wrong.")


def test_a_bad_byte_in_gb18030_does_not_turn_the_file_into_something_else(tmp_path: Path) -> None:
    content = table(CHINESE * 10).encode("gb18030") + b"9999,\xd5\n"
    line = len(CHINESE) * 10 + 2
    with pytest.raises(ManifestError, match=rf"line {line}: .*neither UTF-8 nor GB18030"):
        opened(tmp_path, content)


def test_a_utf16_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    content = table(["Anna"]).encode("utf-16")[:-5]
    with pytest.raises(ManifestError, match=r"line 2: .*is not utf-16"):
        opened(tmp_path, content)


def test_a_letter_of_neither_encoding_is_refused(tmp_path: Path) -> None:
    content = table(["Müller", "Raťka"]).encode("cp1250")
    with pytest.raises(ManifestError, match=r"line 3: the byte 0x9D.*Windows-1252"):
        opened(tmp_path, content)
