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
from enroll.report.pairs import FacePair, Side
from enroll.report.pictures import Pictures, make_pictures, wanted_photos
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

_OTHER = "other "
"""Before the name of a column about the other face of a pair."""

_LONGEST_CELL = 32_000
"""Characters; a spreadsheet takes a few more."""

_WIDTHS = {
    "photo": 17,
    "pair": 34,
    "score_heading": 10,
    "pair_commands": 70,
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
    same = [one.lines[0].photo for one in scope.same]
    lines = len(attention) + len(others) + 4 * scope.pair_counts.total() + 2 * len(same)
    pictures = make_pictures(
        wanted_photos(attention, scope.all_pairs(), same, most=settings.most_pictures),
        findings.photos,
        most=settings.most_pictures,
        room=max(room - _BYTES_A_LINE * lines, 0),
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
            scope.halve_pairs()
            scope.halve_same()
        same = [one.lines[0].photo for one in scope.same]
        kept = {*wanted_photos(attention, scope.all_pairs(), same, most=settings.most_pictures)}
        before = len(pictures.made)
        pictures.made = {photo: one for photo, one in pictures.made.items() if photo in kept}
        pictures.left_out += before - len(pictures.made)
    raise UsageError(
        f"A report of {size(settings.max_bytes)} has no room for it. Raise --max-size."
    )


class _Book:
    """One workbook, with a sheet for each section that says something."""

    def __init__(
        self, findings: Findings, scope: Scope, texts: Texts, settings: PageSettings
    ) -> None:
        self._by, self._scope, self._texts = findings.by, scope, texts
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
            self._faces(book, pictures)
            self._same(book, pictures)
            self._changes(book, words)
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
            cells = [
                self._why_none(pictures, line.photo),
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
                _insert(sheet, place, 0, picture)
        _finish(sheet, len(lines), len(names) + 4)

    def _faces(self, book: Workbook, pictures: Pictures) -> None:
        """A row for each pair of faces, with both pictures."""
        pairs = self._scope.all_pairs()
        if not pairs:
            return
        side = ["photo", "id", "name", *self._by_name, "path", "line", "status"]
        names = ["pair", "score_heading", *side, *(_OTHER + name for name in side)]
        names += ["what_to_do", "pair_commands"]
        sheet = self._sheet(book, "sheet_pairs", names)
        wrapped = book.add_format({"num_format": "@", "valign": "top", "text_wrap": True})
        for place, pair in enumerate(pairs, start=1):
            words = self._texts.pair_group(pair.group)
            sides = [self._side(one, pictures) for one in pair.sides]
            cells = [
                words.title,
                " / ".join(f"{score:.4g}" for score in pair.scores),
                *sides[0],
                *sides[1],
                words.advice,
                "\n".join(self._commands(pair)),
            ]
            shown = [pictures.made.get(one.photo) for one in pair.sides]
            if any(shown):
                sheet.set_row(place, 1.5 * _PICTURE_POINTS)
            _write_row(sheet, place, cells, wrapped)
            for column, picture in zip((2, 2 + len(side)), shown, strict=True):
                if picture is not None:
                    _insert(sheet, place, column, picture, pixels=3 * _PICTURE_PIXELS // 2)
        _finish(sheet, len(pairs), len(names))

    def _side(self, side: Side, pictures: Pictures) -> Iterator[str]:
        text = self._texts.text
        if side.withheld:
            yield text["pair_withheld"]
        elif not side.user_id:
            yield text["pair_nobody"]
        elif not side.photo:
            yield text["pair_no_photo"]
        else:
            yield self._why_none(pictures, side.photo)
        yield side.user_id
        yield side.user_data
        if self._by:
            yield side.group or ""
        yield side.image
        yield str(side.number or "")
        status = self._texts.status[side.status.value] if side.status else ""
        yield f"{status}, {text['pair_misplaced']}" if side.misplaced else status

    def _commands(self, pair: FacePair) -> Iterator[str]:
        """The commands for this pair; without ids, those for all like it."""
        text, commands = self._texts.text, self._sections.commands
        if pair.ids is None:
            for label, command in commands.comparing(pair.group, [pair]):
                yield f"{text[label]}: {command}"
            return
        for user_id, command in commands.removing(pair):
            yield f"{text['pair_remove'].format(id=user_id)}: {command}"
        if accepting := commands.accepting(pair):
            yield f"{text['pair_accept']}: {accepting}"

    def _same(self, book: Workbook, pictures: Pictures) -> None:
        """The rows of each photo that is enrolled under several ids, one below the other."""
        if not self._scope.same:
            return
        names = ["same_number", "photo", "id", "name", *self._by_name, "path", "line"]
        sheet = self._sheet(book, "sheet_same", names)
        wrapped = book.add_format({"num_format": "@", "valign": "top", "text_wrap": True})
        place = 0
        for number, one in enumerate(self._scope.same, start=1):
            picture = pictures.made.get(one.lines[0].photo)
            for line in one.lines:
                place += 1
                first = line is one.lines[0]
                if first and picture is not None:
                    sheet.set_row(place, _PICTURE_POINTS)
                why_none = self._why_none(pictures, line.photo) if first else ""
                where = [line.image, str(line.number or "")]
                _write_row(sheet, place, [str(number), why_none, *self._who(line), *where], wrapped)
                if first and picture is not None:
                    _insert(sheet, place, 1, picture)
            if rest := one.count - len(one.lines):
                place += 1
                words = self._texts.text["same_rest"].format(count=f"{rest:,}")
                _write_row(sheet, place, [str(number), "", words], wrapped)
        _finish(sheet, place, len(names))

    def _changes(self, book: Workbook, words: dict[str, Any]) -> None:
        """How often each thing was done to a photo."""
        if not words["edits"]:
            return
        sheet = self._sheet(book, "sheet_changes", ["done", "rows"])
        plain = book.add_format({"num_format": "@"})
        for place, edit in enumerate(words["edits"], start=1):
            _write_row(sheet, place, [edit["words"], str(edit["count"])], plain)
        _finish(sheet, len(words["edits"]), 2)

    def _why_none(self, pictures: Pictures, photo: str) -> str:
        """Why there is no picture of a photo; empty if there is one, or if it was left out."""
        code = pictures.faults.get(photo, "")
        return self._texts.reason(code).title if code else ""

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
        headings = {**self._texts.text, _BY: self._by}
        other = headings["pair_other"]
        shown = []
        for place, name in enumerate(names):
            bare = name.removeprefix(_OTHER)
            sheet.set_column(place, place, _WIDTHS.get(bare, 14))
            shown.append(headings[bare] if name == bare else other.format(name=headings[bare]))
        _write_row(sheet, 0, shown, bold)
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


def _insert(
    sheet: Worksheet, place: int, column: int, picture: bytes, *, pixels: int = _PICTURE_PIXELS
) -> None:
    with Image.open(BytesIO(picture)) as opened:
        scale = pixels / max(opened.size)
    options = {
        "image_data": BytesIO(picture),
        "x_scale": scale,
        "y_scale": scale,
        "x_offset": 3,
        "y_offset": 2,
        "object_position": 1,  # it goes where its row goes when it is sorted or filtered
        "decorative": True,
    }
    sheet.insert_image(place, column, "photo.jpg", options)


def _finish(sheet: Worksheet, rows: int, columns: int) -> None:
    sheet.freeze_panes(1, 0)
    sheet.autofilter(0, 0, max(rows, 1), columns - 1)
