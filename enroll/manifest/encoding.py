"""Finds a manifest's encoding: proved over the whole file where possible, else guessed.

A byte-order mark decides. A file that is valid UTF-8 from end to end is UTF-8. Any other is GB18030
or Windows-1252, as spreadsheets write them. Much Windows-1252 text also decodes as GB18030
(`M\\xfcller` is two letters, one ideograph, three letters), so `_Evidence` decides by which high
bytes occur together. (charset-normalizer 3.5, restricted to the same three, was wrong in 20 of 94
small files of Chinese and western names; this module in none.)
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from enroll.errors import ManifestError
from enroll.manifest.source import Source

_BLOCK = 1 << 20
_MAX_TAIL_BYTES = 1 << 16
_RUNS_A_BLOCK = 2000  # enough to decide, and fast for a file full of ideographs

_BOMS = (
    (codecs.BOM_UTF8, "utf-8", "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32", "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32", "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "utf-16"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a manifest's bytes become text.

    `name` is what a user would give to `--encoding`, `codec` the name for Python, which drops the
    byte-order mark; `note` is a sentence for the user, empty unless the encoding is a guess.
    """

    name: str
    codec: str
    bom: bool = False
    guessed: bool = False
    note: str = ""


@dataclass(slots=True)
class _Evidence:
    """Counts of runs and pairs of high bytes, by the encoding that they look like.

    `utf8` runs may be UTF-8 by accident; `only_utf8` ones make no sense in another encoding.
    """

    chinese: int = 0
    western: int = 0
    utf8: int = 0
    not_utf8: int = 0
    only_utf8: int = 0

    @property
    def damaged_utf8(self) -> bool:
        """Whether this is UTF-8 with some bytes that are not, such as a line pasted in.

        Text in another encoding is UTF-8 by accident in places; but to read damaged UTF-8 in
        another encoding would corrupt every name that is intact.
        """
        return max(self.utf8, 16 * self.only_utf8) >= 4 * self.not_utf8

    def weigh(self, block: bytes) -> None:
        """Add the evidence in a block of whole lines.

        In Chinese text high bytes come in pairs, and the everyday characters are pairs of high
        bytes (GB2312). In western text they are single letters among ASCII ones; two side by side
        (Größe, Pääskynen) have ASCII letters around them, which ideographs do not.
        """
        for match in islice(_RUN.finditer(block), _RUNS_A_BLOCK):
            run, among_letters = match.group(), _among_letters(block, match)
            if _UTF8_RUN.fullmatch(run):
                self.utf8 += 1
                self.only_utf8 += _is_only_utf8(run, among_letters=among_letters)
            else:
                self.not_utf8 += 1
            pairs = sum(_GB2312_PAIR.match(run, at) is not None for at in range(0, len(run) - 1, 2))
            is_western = _WESTERN_BYTES.fullmatch(run) is not None
            if len(run) == 1:
                self.western += is_western
            elif (len(run) == 2 and among_letters) or (is_western and not pairs):
                self.western += 1
            else:
                self.chinese += pairs or 1  # a rare ideograph alone, such as the name 堃


class _UndecodableError(Exception):
    """The bytes are not in this encoding; the error has the line, and the byte where it is
    known."""

    def __init__(self, line: int, byte: int | None) -> None:
        super().__init__(line, byte)
        self.line = line
        self.what = "a character" if byte is None else f"the byte 0x{byte:02X}"


def find_encoding(source: Source, given: str | None = None) -> Encoding:
    """The encoding of the file, all of which has been decoded and found to be text.

    `given` is `--encoding`. ManifestError names the line that does not decode or holds a NUL.
    """
    with source.open() as file:
        head = file.read(4096)
    mark = next((boms for boms in _BOMS if head.startswith(boms[0])), None)
    if given is not None:
        encoding = _given_encoding(given, head)
    elif mark is not None:
        encoding = Encoding(name=mark[1], codec=mark[2], bom=True)
    elif wide := _utf16_without_mark(head):
        encoding = Encoding(
            name=wide, codec=wide, guessed=True, note=_note(source, wide.upper(), "its zero bytes")
        )
    else:
        return _utf8_or_older(source)
    try:
        _check(source, encoding.codec)
    except _UndecodableError as exc:
        raise ManifestError(
            f"{source.path}, line {exc.line}: {exc.what} is not {encoding.name}; fix the line, or "
            "give the right encoding with --encoding."
        ) from exc
    return encoding


_RUN = re.compile(rb"[\x80-\xff]+")
_UTF8_RUN = re.compile(
    rb"(?:[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3})+"
)
_GB2312_PAIR = re.compile(rb"[\xa1-\xa3\xb0-\xf7][\xa1-\xfe]")
"""Punctuation, full-width forms and the 6,763 everyday ideographs; the rest of GB18030 is rare."""
_WESTERN_BYTES = re.compile(
    rb"[\xc0-\xd6\xd8-\xf6\xf8-\xff\x8a\x8c\x8e\x9a\x9c\x9e\x9f"
    rb"\x80\x85\x91-\x97\xa0\xa1\xaa\xab\xb0\xb4\xba\xbb\xbf]+"
)
"""Windows-1252's letters, and the characters found in names and notes: ’ “ – € ° º ª « » ¡ ¿."""
_TWO_LETTERS = re.compile(rb"[\xc2\xc3][\x80-\xbf]")
"""UTF-8 of a western letter. In Windows-1252 a sign after Â or Ã, where text has a letter: Ã¼."""
_LOWER = re.compile(rb"[a-z]")
_LETTER = re.compile(rb"[A-Za-z]")


def _among_letters(block: bytes, match: re.Match[bytes]) -> bool:
    start, end = match.span()
    before, after = block[max(start - 1, 0) : start], block[end : end + 1]
    if _LOWER.match(before) or _LOWER.match(after):
        return True
    return bool(_LETTER.match(before) and _LETTER.match(after))


def _is_only_utf8(run: bytes, *, among_letters: bool) -> bool:
    """Whether a run of bytes that is valid UTF-8 makes no sense as anything else (3 in 10,000
    Chinese names of GB18030 look so, and no western ones)."""
    in_pairs = len(run) % 2 == 0 and not among_letters
    if in_pairs and all(_GB2312_PAIR.match(run, at) for at in range(0, len(run), 2)):
        return False
    return bool(_TWO_LETTERS.search(run)) or not _WESTERN_BYTES.fullmatch(run)


def _utf8_or_older(source: Source) -> Encoding:
    try:
        _check(source, "utf-8")
    except _UndecodableError as exc:
        evidence = _gather(source)
        if evidence.damaged_utf8:
            raise ManifestError(
                f"{source.path}, line {exc.line}: {exc.what} is not UTF-8, unlike other lines of "
                "the file; fix the line, or give the right encoding with --encoding."
            ) from exc
        return _older(source, evidence)
    return Encoding(name="utf-8", codec="utf-8")


def _gather(source: Source) -> _Evidence:
    evidence, lines = _Evidence(), _LineCount()
    for block in _line_blocks(source):
        # Looked for here too, so that a photo is said to be no text, not to be in no encoding.
        text = block.decode("latin-1")
        _refuse_nul(source, text, lines)
        lines.add(text)
        evidence.weigh(block)
    return evidence


def _older(source: Source, evidence: _Evidence) -> Encoding:
    chinese = evidence.chinese > evidence.western
    name, shown = ("gb18030", "GB18030") if chinese else ("windows-1252", "Windows-1252")
    try:
        _check(source, name)
    except _UndecodableError as exc:
        raise ManifestError(
            f"{source.path}, line {exc.line}: {exc.what} is neither UTF-8 nor {shown}, which the "
            "file seems to be; fix the line, or give the right encoding with --encoding."
        ) from exc
    less, more = sorted((evidence.chinese, evidence.western))
    note = _note(source, shown, "its letters")
    if 4 * less > more:
        note += f" {'Windows-1252' if chinese else 'GB18030'} is nearly as likely."
    return Encoding(name=name, codec=name, guessed=True, note=note)


def _note(source: Source, shown: str, reason: str) -> str:
    return (
        f"{source.path} is read as {shown}, a guess from {reason}; check a name or two, and give "
        "--encoding if they are wrong."
    )


def _given_encoding(given: str, head: bytes) -> Encoding:
    try:
        name = codecs.lookup(given).name
        " ".encode(given)  # bytes-to-bytes codecs (hex, zip) have a name too, but no text
    except (LookupError, UnicodeError, ValueError) as exc:
        raise ManifestError(
            f"--encoding: {given!r} is not an encoding that Python knows; examples are utf-8, "
            "utf-16, gb18030, windows-1252, big5 or shift_jis."
        ) from exc
    for mark, family, codec in _BOMS:
        # utf-16-le and the like would leave the mark in the first column's name.
        if head.startswith(mark) and name.replace("_", "-").startswith(family):
            return Encoding(name=family, codec=codec, bom=True)
    return Encoding(name=name, codec=name)


def _utf16_without_mark(head: bytes) -> str | None:
    """UTF-16 by its zero bytes: text that is half ASCII (delimiters, paths) has them in turn."""
    pairs = len(head) // 2
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd * 5 >= pairs > 0 and even * 20 < odd:
        name = "utf-16-le"
    elif even * 5 >= pairs > 0 and odd * 20 < even:
        name = "utf-16-be"
    else:
        return None
    text = head.decode(name, "ignore")  # the last character may be cut
    return name if all(c.isprintable() or c in "\t\r\n" for c in text) else None


def _check(source: Source, codec: str) -> None:
    """Decode the whole file; raises _UndecodableError, or ManifestError where it is not text."""
    decoder = codecs.getincrementaldecoder(codec)("strict")
    lines = _LineCount()
    with source.open() as file:
        while True:
            block = file.read(_BLOCK)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as exc:
                lines.add(exc.object[: exc.start].decode(exc.encoding, "ignore"))
                raise _UndecodableError(lines.line, exc.object[exc.start]) from exc
            except UnicodeError as exc:
                raise _UndecodableError(lines.line, None) from exc
            _refuse_nul(source, text, lines)
            lines.add(text)
            if lines.length > source.longest_line:
                raise ManifestError(
                    f"{source.path}, line {lines.line} is longer than "
                    f"{source.longest_line:,} characters: this is not a CSV file."
                )
            if not block:
                return


def _refuse_nul(source: Source, text: str, lines: _LineCount) -> None:
    if "\0" in text:
        lines.add(text[: text.index("\0")])
        raise ManifestError(
            f"{source.path}, line {lines.line}: a NUL character: this is not a text file; "
            "give a CSV file."
        )


class _LineCount:
    r"""Counts the lines of a text that comes in pieces; `line` is the current one, `length` its
    characters so far. `\n`, `\r\n` and `\r` end a line."""

    __slots__ = ("_after_return", "length", "line")

    def __init__(self) -> None:
        self.line = 1
        self.length = 0
        self._after_return = False

    def add(self, text: str) -> None:
        if not text:
            return
        self.line += text.count("\n") + text.count("\r") - text.count("\r\n")
        self.line -= self._after_return and text[0] == "\n"
        end = max(text.rfind("\n"), text.rfind("\r"))
        self.length = self.length + len(text) if end < 0 else len(text) - end - 1
        self._after_return = text[-1] == "\r"


def _line_blocks(source: Source) -> Iterator[bytes]:
    """The content in blocks that end with a line, so that no run of bytes is cut."""
    with source.open() as file:
        while block := file.read(_BLOCK) + file.readline(_MAX_TAIL_BYTES):
            yield block
