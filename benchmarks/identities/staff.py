"""A made-up staff: who is shown in which photo, under which id, and what is wrong with it."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle
from pathlib import Path

from enroll.sandbox import made_up_photo

SECOND_PHOTOS = 0.1
"""Share of the people without a fault who have a second photo, which is theirs."""

MANIFEST = "staff.csv"
_FIRST_ID, _LAST_ID = 1_000_000, 10_000_000
_IN_A_FOLDER = 1_000


class Fault(StrEnum):
    """What is planted."""

    DOUBLE = "one person under two ids"
    MISFILED = "a photo under another's id"
    SWAPPED = "two photos swapped"


@dataclass(frozen=True, slots=True)
class Photo:
    """Whom it shows, and which of the person's photos it is."""

    person: int
    shot: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the manifest. The path says nothing of who is shown."""

    user_id: str
    photo: Photo
    path: str


@dataclass(frozen=True, slots=True)
class Planted:
    """A fault, and the two ids that it concerns. For a new photo, `user_id` is whose row it is."""

    fault: Fault
    ids: frozenset[str]


@dataclass
class Staff:
    """Rows and faults. Which there are follows from the seed."""

    chance: random.Random
    rows: list[Row] = field(default_factory=list)
    planted: list[Planted] = field(default_factory=list)
    _people: int = 0
    _ids: set[str] = field(default_factory=set)

    def hire(self, count: int) -> list[Row]:
        """So many new people, each with an id and a photo of their own."""
        hired = []
        for _ in range(count):
            hired.append(self.file(self.new_id(), Photo(self._people)))
            self._people += 1
        return hired

    def file(self, user_id: str, photo: Photo) -> Row:
        """Put a photo under an id."""
        number = len(self.rows)
        row = Row(user_id, photo, f"photos/{number // _IN_A_FOLDER:04}/{number:07}.jpg")
        self.rows.append(row)
        return row

    def double(self, known: Row) -> Row:
        """Give somebody a second id, with another photo."""
        row = self.file(self.new_id(), another(known.photo))
        self._plant(Fault.DOUBLE, known, row)
        return row

    def misfile(self, known: Row, wrong: Row) -> Row:
        """Put a second photo of one person under the id of another."""
        self._plant(Fault.MISFILED, known, wrong)
        return self.file(wrong.user_id, another(known.photo))

    def swap(self, one: Row, other: Row) -> tuple[Row, Row]:
        """Put a second photo of each of two people under the id of the other."""
        self._plant(Fault.SWAPPED, one, other)
        return self.file(one.user_id, another(other.photo)), self.file(
            other.user_id, another(one.photo)
        )

    def new_id(self) -> str:
        """One that nobody has had."""
        while True:
            user_id = f"E{self.chance.randrange(_FIRST_ID, _LAST_ID)}"
            if user_id not in self._ids:
                self._ids.add(user_id)
                return user_id

    def _plant(self, fault: Fault, one: Row, other: Row) -> None:
        self.planted.append(Planted(fault, frozenset((one.user_id, other.user_id))))


def another(photo: Photo) -> Photo:
    """The next photo of the same person."""
    return Photo(photo.person, photo.shot + 1)


def founded(*, people: int, faults: int, seed: int) -> Staff:
    """A staff of so many people, with so many faults of all kinds, each of other people."""
    staff = Staff(random.Random(seed))
    free = staff.hire(people)
    staff.chance.shuffle(free)
    for _, fault in zip(range(faults), cycle(Fault), strict=False):
        one, other = free.pop(), free.pop()
        match fault:
            case Fault.DOUBLE:
                staff.double(one)
                free.insert(0, other)
            case Fault.MISFILED:
                staff.misfile(one, other)
            case Fault.SWAPPED:
                staff.swap(one, other)
    for row in staff.chance.sample(free, round(SECOND_PHOTOS * len(free))):
        staff.file(row.user_id, another(row.photo))
    staff.chance.shuffle(staff.rows)
    return staff


def write_manifest(rows: Sequence[Row], folder: Path) -> None:
    """Write the manifest of a night."""
    with (folder / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("user_id", "image"))
        lines.writerows((row.user_id, row.path) for row in rows)


def write_photo(row: Row, folder: Path) -> None:
    """Write the photo of a row, in place of what is there."""
    path = folder / row.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made_up_photo(row.photo.person, row.photo.shot))
