"""A report as a workbook: every cell is text, and pictures lie in their cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from enroll.errors import UsageError
from enroll.report.findings import Findings, Scope
from enroll.report.lines import Line
from enroll.report.pictures import Pictures, make_pictures, photos_of
from enroll.report.sections import PageSettings, Sections
from enroll.report.texts import Texts
from enroll.text.files import new_file
from enroll.text.tables import add_text_sheet
from enroll.text.wording import size

if TYPE_CHECKING:
    from xlsxwriter import Workbook
    from xlsxwriter.worksheet import Worksheet

_BYTES_A_LINE = 60
"""What a line takes in the packed file, by measurement."""

_BYTES_AROUND = 20_000

_TRIES = 8
"""How often the file is made with fewer lines if it is larger than it may be."""

_PICTURE_PIXELS, _PICTURE_POINTS = 80, 64
"""Height of a picture, and of its row."""

_BY = "by"
"""The column of --by among those that `_WIDTHS` and the texts name."""

_LONGEST_CELL = 32_000
"""Characters; a spreadsheet takes a few more."""

_WIDTHS = {
    "photo": 12,
    "id": 18,
    "name": 30,
    "status": 12,
    "reason": 38,
    "details": 38,
    "path": 44,
    "what_to_do": 60,
    "command": 60,
    "done": 30,
    "enrolled_at": 20,
    "started": 18,
    "ended": 30,
}
"""Characters of columns that are not as wide as usual, by their heading's text."""


def write_workbook(
    path: Path, findings: Findings, scope: Scope, texts: Texts, settings: PageSettings
) -> Pictures:
    """Write the report of a scope; returns its pictures. Raises UsageError if nothing of it fits,
    LocalError if the file cannot be written."""
    attention = [line for _, lines in scope.by_reason() for line in lines]
    room = settings.max_bytes - _BYTES_AROUND
    # Lines that need nobody leave half of the room.
    others = scope.others[: max(room // 2 // _BYTES_A_LINE - len(attention), 0)]
    pictures = make_pictures(
        photos_of(attention),
        findings.photos,
        most=settings.most_pictures,
        room=max(room - _BYTES_A_LINE * (len(attention) + len(others)), 0),
        form="JPEG",
    )
    for _ in range(_TRIES):
        book = _Book(findings, scope, texts, settings)
        content = book.made(attention, others, pictures)
        if len(content) <= settings.max_bytes:
            with new_file(path) as new:
                new.file.write(content)
            return pictures
        share = 0.9 * settings.max_bytes / len(content)
        if others:
            others = others[: int(len(others) * share * share)]
        else:
            attention = attention[: int(len(attention) * share)]
        kept = {line.photo for line in attention}
        before = len(pictures.made)
        pictures.made = {photo: one for photo, one in pictures.made.items() if photo in kept}
        pictures.left_out += before - len(pictures.made)
    raise UsageError(
        f"A report of {size(settings.max_bytes)} has no room for it. Raise --max-size."
    )


class _Book:
    """One workbook with three sheets."""

    def __init__(
        self, findings: Findings, scope: Scope, texts: Texts, settings: PageSettings
    ) -> None:
        self._by, self._texts = findings.by, texts
        self._sections = Sections(findings, scope, texts, settings)

    def made(self, attention: Sequence[Line], others: Sequence[Line], pictures: Pictures) -> bytes:
        """The file's content."""
        from xlsxwriter import Workbook  # noqa: PLC0415  # of the extra

        out = BytesIO()
        text = self._texts.text
        words = self._sections.words(pictures, len(attention) + len(others))
        # Rows go to a file in turn: a hundred thousand of them would take 200 MB.
        with Workbook(out, {"constant_memory": True}) as book:
            book.set_properties({"title": text["title"], "comments": text["private"]})
            self._attention(book, attention, pictures, words)
            self._entries(book, [*attention, *others], words)
            self._runs(book, words)
        return out.getvalue()

    def _attention(
        self, book: Workbook, lines: Sequence[Line], pictures: Pictures, words: dict[str, Any]
    ) -> None:
        names = ["photo", "id", "name", *self._by_name, "status", "reason", "what_to_do"]
        sheet = self._sheet(book, "sheet_attention", [*names, "command", "details", "path", "line"])
        wrapped = book.add_format({"num_format": "@", "valign": "top", "text_wrap": True})
        of_reason = {reason["code"]: reason for reason in words["reasons"]}
        for place, line in enumerate(lines, start=1):
            picture = pictures.made.get(line.photo)
            reason = of_reason[line.reason]
            if picture is not None:
                sheet.set_row(place, _PICTURE_POINTS)
            why_none = pictures.faults.get(line.photo, "")
            cells = [
                self._texts.reason(why_none).title if why_none else "",
                *self._who(line),
                self._texts.status[line.status.value],
                reason["title"],
                reason["advice"],
                reason["commands"][0],
                line.message,
                line.image,
                str(line.number or ""),
            ]
            _write_row(sheet, place, cells, wrapped)
            if picture is not None:
                _insert(sheet, place, picture)
        _finish(sheet, len(lines), len(names) + 4)

    def _entries(self, book: Workbook, lines: Sequence[Line], words: dict[str, Any]) -> None:
        names = ["id", "name", *self._by_name, "status", "reason", "details", "path", "done"]
        names += ["run", "enrolled_at", "line"]
        sheet = self._sheet(book, "sheet_entries", names)
        plain = book.add_format({"num_format": "@"})
        for place, line in enumerate(lines, start=1):
            cells = [
                *self._who(line),
                self._texts.status[line.status.value],
                self._texts.reason(line.reason).title if line.reason else "",
                line.message,
                line.image,
                self._sections.edit_words(line.prepared) if line.prepared else "",
                str(line.run or ""),
                line.enrolled_at,
                str(line.number or ""),
            ]
            _write_row(sheet, place, cells, plain)
        last = len(lines) + 1
        if words["table_note"]:
            _write_row(sheet, last, [words["table_note"]], plain)
            _write_row(sheet, last + 1, [words["export_command"]], plain)
        _finish(sheet, len(lines), len(names))

    def _runs(self, book: Workbook, words: dict[str, Any]) -> None:
        names = ["run", "started_with", "started", "took", "answered", "refused", "ended"]
        sheet = self._sheet(book, "sheet_runs", names)
        plain = book.add_format({"num_format": "@"})
        keys = ("number", "command", "started", "took", "answered", "refused", "ended")
        for place, run in enumerate(words["runs"], start=1):
            _write_row(sheet, place, [str(run[key]) for key in keys], plain)
        _finish(sheet, len(words["runs"]), len(names))

    def _sheet(self, book: Workbook, title: str, names: Sequence[str]) -> Worksheet:
        sheet: Worksheet = add_text_sheet(book, self._texts.text[title])
        bold = book.add_format({"bold": True, "bottom": 1, "num_format": "@"})
        for place, name in enumerate(names):
            sheet.set_column(place, place, _WIDTHS.get(name, 14))
        headings = {**self._texts.text, _BY: self._by}
        _write_row(sheet, 0, (headings[name] for name in names), bold)
        return sheet

    @property
    def _by_name(self) -> list[str]:
        return [_BY] if self._by else []

    def _who(self, line: Line) -> Iterator[str]:
        yield line.user_id
        yield line.user_data
        if self._by:
            yield line.group


def _write_row(sheet: Worksheet, place: int, cells: Iterable[str], style: Any) -> None:
    for column, cell in enumerate(cells):
        if cell:
            sheet.write_string(place, column, cell[:_LONGEST_CELL], style)


def _insert(sheet: Worksheet, place: int, picture: bytes) -> None:
    with Image.open(BytesIO(picture)) as opened:
        scale = _PICTURE_PIXELS / max(opened.size)
    options = {
        "image_data": BytesIO(picture),
        "x_scale": scale,
        "y_scale": scale,
        "x_offset": 3,
        "y_offset": 2,
        "object_position": 1,  # it goes where its row goes when it is sorted or filtered
        "decorative": True,
    }
    sheet.insert_image(place, 0, "photo.jpg", options)


def _finish(sheet: Worksheet, rows: int, columns: int) -> None:
    sheet.freeze_panes(1, 0)
    sheet.autofilter(0, 0, max(rows, 1), columns - 1)
