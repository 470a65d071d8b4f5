"""A report as one HTML file that asks for nothing else, and no larger than it may be."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from enroll.errors import UsageError
from enroll.model import Status
from enroll.report.findings import Findings, Scope
from enroll.report.lines import Line
from enroll.report.pairs import FacePair
from enroll.report.pictures import Pictures, make_pictures, wanted_photos
from enroll.report.sections import COLUMNS, PICTURES_IN_BLOCK, PageSettings, Sections
from enroll.report.texts import TEMPLATES, Texts
from enroll.text.files import new_file
from enroll.text.wording import size

BLOCK_LINES = 1_000
"""Lines in a block of the page; a block is there as a whole, or not at all."""

SMALLEST_PICTURE = 700
"""Bytes that a picture takes in the page at its smallest. Lines that need nobody leave this much
room for each."""

_TAG_BYTES = 60
"""Around a block of pictures."""

SPARE = 8_000
"""Bytes by which the page may grow when its last numbers are known."""

_SHOWN, _NO_PHOTO, _WITHHELD = range(3)
"""Of a face in a pair: whether there can be a picture of it."""

MARKER = "<!-- what was gathered goes here -->"


def write_page(
    path: Path, findings: Findings, scope: Scope, texts: Texts, settings: PageSettings
) -> Pictures:
    """Write the report of a scope; returns its pictures. Raises UsageError if not even the page
    without rows is as small as it may be, LocalError if the file cannot be written."""
    page = _Page(findings, scope, texts, settings)
    room = settings.max_bytes - SPARE - len("".join(page.around(Pictures(), 0)).encode())
    if room < 0:
        raise UsageError(f"No report fits into {size(settings.max_bytes)}. Raise --max-size.")
    attention = [line for _, lines in scope.by_reason() for line in lines]
    page.limit_pairs(room // 4)
    page.limit_twins(room // 4)
    photos = wanted_photos(
        attention, scope.all_pairs(), [*page.twin_photos()], most=settings.most_pictures
    )
    pictures = make_pictures(
        photos,
        findings.photos,
        most=settings.most_pictures,
        room=_room_for_pictures(page, attention, room, count=len(photos)),
    )
    made = [*_picture_blocks(pictures)]
    compared = page.pairs(pictures) + page.twins(pictures)
    room -= sum(map(len, made)) + len(compared)
    blocks = _fitting(page.blocks(attention, pictures), room)
    kept = min(len(blocks) * BLOCK_LINES, len(attention))
    if kept == len(attention):
        rest = _fitting(page.blocks(scope.others, pictures), room - sum(map(len, blocks)))
        kept += min(len(rest) * BLOCK_LINES, len(scope.others))
        blocks += rest
    head, script, tail = page.around(pictures, kept)
    with new_file(path) as new:
        for part in (head, *blocks, compared, script, *made, tail):
            new.file.write(part.encode())
    return pictures


def _room_for_pictures(page: _Page, attention: Sequence[Line], room: int, *, count: int) -> int:
    """Bytes that pictures may have before they are encoded as text, if `count` are wanted."""
    room -= len(page.pairs(Pictures())) + len(page.twins(Pictures()))
    room -= sum(map(len, page.blocks(attention, Pictures())))
    smallest = min(count, page.settings.most_pictures) * SMALLEST_PICTURE
    others = _fitting(page.blocks(page.scope.others, Pictures()), room - smallest)
    room -= sum(map(len, others)) + _TAG_BYTES * (count // PICTURES_IN_BLOCK + 1)
    return max(room * 3 // 4 - 4 * count, 0)


def _fitting(blocks: Sequence[str], room: int) -> list[str]:
    """The first of these blocks that fit into so many bytes."""
    fitting = []
    for block in blocks:
        room -= len(block)
        if room < 0:
            break
        fitting.append(block)
    return fitting


def _picture_blocks(pictures: Pictures) -> Iterator[str]:
    made = list(pictures.made.values())
    for first in range(0, len(made), PICTURES_IN_BLOCK):
        some = made[first : first + PICTURES_IN_BLOCK]
        number = first // PICTURES_IN_BLOCK
        text = ",".join(base64.b64encode(one).decode() for one in some)
        yield f'<script type="text/plain" id="pictures-{number}">{text}</script>\n'


def packed(value: Any, kind: str) -> str:
    """A value for the page's script, as a block of text without a character of HTML."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    content = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return f'<script type="text/plain" class="{kind}">{content}</script>\n'


def source_hash(text: str) -> str:
    """What a content security policy knows an inline script or style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


class _Page:
    """One page: its lines and pictures as blocks, and what is around them."""

    def __init__(
        self, findings: Findings, scope: Scope, texts: Texts, settings: PageSettings
    ) -> None:
        self.scope, self.settings = scope, settings
        self._sections = Sections(findings, scope, texts, settings)
        self._plain = {
            reason
            for reason in self._sections.reasons
            if texts.knows(reason) and _all_say_the_same(scope.attention[reason])
        }

    def blocks(self, lines: Sequence[Line], pictures: Pictures) -> list[str]:
        """Lines as blocks of columns, with the places of their pictures."""
        places = _places(pictures)
        return [
            packed(self._columns(lines[first : first + BLOCK_LINES], places), "rows")
            for first in range(0, len(lines), BLOCK_LINES)
        ]

    def _columns(self, lines: Sequence[Line], places: Mapping[str, int]) -> dict[str, list[Any]]:
        statuses = {status: place for place, status in enumerate(self._sections.statuses)}
        reasons = {reason: place for place, reason in enumerate(self._sections.reasons)}
        groups = {group: place for place, group in enumerate(self._sections.groups)}
        edits = {words: place for place, words in enumerate(self._sections.edits)}
        found = [
            (
                line.number,
                line.user_id,
                line.user_data,
                line.image,
                statuses[line.status],
                reasons.get(line.reason, -1),
                "" if line.reason in self._plain else line.message,
                groups[line.group],
                edits.get(line.prepared, 0),
                _seconds(line.enrolled_at),
                places.get(line.photo, -1) if line.reason else -1,
            )
            for line in lines
        ]
        return dict(zip(COLUMNS, map(list, zip(*found, strict=True)), strict=True))

    def limit_pairs(self, room: int) -> None:
        """Keep no more pairs of faces than take so many bytes."""
        while self.scope.all_pairs() and len(self.pairs(Pictures())) > room:
            self.scope.halve_pairs()

    def pairs(self, pictures: Pictures) -> str:
        """The pairs of faces as a block, group by group; "" if there are none."""
        if not self.scope.pair_counts:
            return ""
        places = _places(pictures)
        groups = [
            [self._pair(pair, places) for pair in pairs] for pairs in self.scope.pairs.values()
        ]
        return packed(groups, "pairs")

    def _pair(self, pair: FacePair, places: Mapping[str, int]) -> dict[str, Any]:
        return {
            "scores": pair.scores,
            "sides": [
                (
                    *(side.user_id, side.user_data, side.image, side.number, side.group),
                    places.get(side.photo, -1),
                    _WITHHELD if side.withheld else _SHOWN if side.photo else _NO_PHOTO,
                    "" if side.status in (None, Status.ENROLLED) else side.status.value,
                    side.misplaced,
                )
                for side in pair.sides
            ],
            "accept": self._sections.commands.accepting(pair),
            "remove": self._sections.commands.removing(pair),
        }

    def limit_twins(self, room: int) -> None:
        """Keep no more groups of identical photos than take so many bytes."""
        while len(self.twins(Pictures())) > room:
            self.scope.halve_same()

    def twins(self, pictures: Pictures) -> str:
        """The groups of identical photos as a block; "" if there are none."""
        if not self.scope.same:
            return ""
        places = _places(pictures)
        groups = {group: place for place, group in enumerate(self._sections.groups)}
        same = []
        for one in self.scope.same:
            people = [
                (
                    *(line.user_id, line.user_data, line.image, line.number),
                    groups.get(line.group, -1),
                )
                for line in one.lines
            ]
            picture = places.get(one.lines[0].photo, -1)
            same.append({"picture": picture, "count": one.count, "people": people})
        return packed(same, "same")

    def twin_photos(self) -> Iterator[str]:
        """The photos that are shown of identical ones."""
        return (one.lines[0].photo for one in self.scope.same)

    def around(self, pictures: Pictures, kept: int) -> tuple[str, str, str]:
        """The page before the lines, between them and the pictures, and after these; `kept` lines
        are in it."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415
        from markupsafe import Markup  # noqa: PLC0415

        css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
        script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
        environment = Environment(
            loader=FileSystemLoader(str(TEMPLATES)),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        # Files of ours, and JSON that no HTML parser takes for the end of a script.
        text = environment.get_template("report.html").render(
            **self._sections.words(pictures, kept),
            css=Markup(css),  # noqa: S704
            style_hash=source_hash(css),
            script=Markup(script),  # noqa: S704
            script_hash=source_hash(script),
            facts=Markup(_harmless(self._sections.facts(pictures))),  # noqa: S704
            marker=Markup(MARKER),  # noqa: S704
        )
        head, between, tail = text.lstrip().split(MARKER)
        return head, between, tail


def _places(pictures: Pictures) -> dict[str, int]:
    """Where a photo's picture is, or, below -1, why there is none."""
    places = {path: place for place, path in enumerate(pictures.made)}
    codes = list(dict.fromkeys(pictures.faults.values()))
    return places | {path: -2 - codes.index(code) for path, code in pictures.faults.items()}


def _all_say_the_same(lines: Sequence[Line]) -> bool:
    """Whether the messages say no more than the heading above them."""
    return len(lines) > 1 and len({line.message for line in lines}) == 1


def _seconds(at: str) -> int:
    return 0 if not at else int(datetime.fromisoformat(at).timestamp())


def _harmless(value: Any) -> str:
    """JSON that no HTML parser takes for the end of a script."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
