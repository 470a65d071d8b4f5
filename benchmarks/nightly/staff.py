"""A made-up company: who works there, under which name and with which photos, day by day."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from io import StringIO
from pathlib import Path

from .photos import Photo, Spoiling, nobody, picture, with_comment

COLUMNS = ("user_id", "user_data", "image")

# What befalls how many a night, as a share of the staff; tiny companies count as _LEAST_STAFF.
LEAVING, NEW_PHOTO, NEW_NAME = 0.003, 0.005, 0.004
TOUCHED, REWRITTEN = 0.004, 0.002
SPOILED, SECOND_PHOTO, RENUMBERED, ALIKE = 0.0012, 0.0008, 0.0004, 0.0004
_LEAST_STAFF = 150
_MOST_A_NIGHT = 4
_TOO_LONG = 64
_MENDED = 0.3
"""Chance of a bad photo to be good again on the next day."""

_GIVEN = ("Adel", "Eden", "Jo", "Mika", "Noor", "Quinn", "Sam", "Yuki", "Zoë", "José", "Łucja")
_FAMILY = ("Abara", "Bergström", "Goh", "Kaya", "Müller", "Okafor", "Tran", "Wang", "D'Arcy", "Øst")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the export."""

    user_id: str
    user_data: str
    image: str


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody of the staff; one photo as a rule."""

    user_id: str
    name: str
    images: tuple[str, ...]


def manifest(rows: Sequence[Row], *, columns: Sequence[str] = COLUMNS) -> bytes:
    """The rows as the CSV that the staff department sends."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows((row.user_id, row.user_data, row.image) for row in rows)
    return text.getvalue().encode()


@dataclass
class Company:
    """The staff, and the photos in `folder`. Everything follows from `chance`."""

    folder: Path
    chance: random.Random
    size: int
    people: dict[str, Person] = field(default_factory=dict)
    photos: dict[str, Photo] = field(default_factory=dict)
    _away: list[tuple[int, Person]] = field(default_factory=list)
    _spoiled: dict[str, Photo] = field(default_factory=dict)
    _worn: dict[str, list[int]] = field(default_factory=dict)
    """The pictures of everybody's first photo so far, and below the names."""
    _borne: dict[str, list[str]] = field(default_factory=dict)
    _numbers: int = 0
    _pictures: int = 0

    def found(self) -> None:
        """The first day: everybody, and some photos that were never any good."""
        self.folder.mkdir(parents=True)
        for _ in range(self.size):
            self.hire()
        for person in self._some(0.04, least=1):
            self._second_photo(person)
        kinds = list(Spoiling)
        for place, person in enumerate(self._some(0.015, least=2)):
            self._spoil(person.images[0], kinds[place % len(kinds)])
        bad = self.hire()
        del self.people[bad.user_id]
        self.people["no id"] = replace(bad, user_id="no id")  # a blank is not allowed

    def rows(self) -> list[Row]:
        """Today's export, in the order of user ids."""
        return [
            Row(person.user_id, person.name, image)
            for _, person in sorted(self.people.items())
            for image in person.images
        ]

    def live(self, night: int, *, leavers: bool = True) -> None:
        """What happens on a day. Without `leavers` nobody leaves."""
        self._come_back(night)
        for image in [*self._spoiled]:
            if self.chance.random() < _MENDED:
                self._put(image, self._spoiled.pop(image))
        for person in self._some(LEAVING) if leavers else ():
            self.leave(person, night)
        for _ in range(min(self.size - len(self.people), _MOST_A_NIGHT)):
            self.hire()
        for share, befalls in (
            (NEW_PHOTO, self._new_photo),
            (NEW_NAME, self._rename),
            (TOUCHED, self._touch),
            (REWRITTEN, self._rewrite),
            (SECOND_PHOTO, self._second_photo),
            (SPOILED, self._spoil_somehow),
            (RENUMBERED, self._renumber),
            (ALIKE, self._look_alike),
        ):
            for person in self._some(share):
                befalls(person)

    def hire(self) -> Person:
        """Somebody new, with a photo."""
        self._numbers += 1
        user_id = f"{self._numbers:06}"
        person = Person(user_id, self._name(), (f"{user_id}.jpg",))
        self._put(person.images[0], self._drawn())
        self.people[user_id] = person
        return person

    def leave(self, person: Person, night: int) -> None:
        """Somebody goes; some come back, in time or long after."""
        self.people.pop(person.user_id, None)
        back = self.chance.choice([0, 0, 0, 1, 1, 2, 3, 5, 12])
        if back:
            self._away.append((night + back, person))

    def photograph_all(self) -> None:
        """The photographer was there: everybody has a new photo."""
        for person in [*self.people.values()]:
            self._new_photo(person)

    def _come_back(self, night: int) -> None:
        for due, person in [*self._away]:
            if due <= night:
                self._away.remove((due, person))
                self.people[person.user_id] = person
                told = self.chance.random()
                if told < 0.2:
                    self._new_photo(person)
                elif told < 0.4:
                    self._rename(person)

    def _new_photo(self, person: Person) -> None:
        """At the same path, at another one, or an earlier photo again; a good one each time."""
        image = person.images[0]
        worn = self._worn.setdefault(person.user_id, [])
        now = self.photos[image].number
        earlier = [number for number in worn if number != now]
        again = earlier and self.chance.random() < 0.3
        photo = self._drawn(self.chance.choice(earlier) if again else 0)
        worn += [now, photo.number]
        self._spoiled.pop(image, None)
        if self.chance.random() < 0.5:
            self._put(image, photo)
        else:
            self._pictures += 1
            other = f"{person.user_id}-{self._pictures}.jpg"
            self._put(other, photo)
            self.people[person.user_id] = replace(person, images=(other, *person.images[1:]))
        if self.chance.random() < 0.2:
            self._rename(self.people[person.user_id])

    def _rename(self, person: Person) -> None:
        """Another name, or an earlier one again."""
        person = self.people[person.user_id]
        borne = self._borne.setdefault(person.user_id, [])
        earlier = [name for name in borne if name != person.name]
        told = self.chance.random()
        name = self.chance.choice(earlier) if earlier and told < 0.3 else self._name()
        if told > 0.97:
            name += ", " * _TOO_LONG
        borne.append(person.name)
        self.people[person.user_id] = replace(person, name=name)

    def _second_photo(self, person: Person) -> None:
        """One photo more, or one less for whoever has two."""
        if len(person.images) > 1:
            images = person.images[:1]
        else:
            self._pictures += 1
            images = (*person.images, f"{person.user_id}-{self._pictures}.jpg")
            copied = self.chance.random() < 0.3  # a second line for one and the same face
            self._put(images[-1], self.photos[images[0]] if copied else self._drawn())
        self.people[person.user_id] = replace(person, images=images)

    def _renumber(self, person: Person) -> None:
        """The same person under another id."""
        self.people.pop(person.user_id, None)
        self._numbers += 1
        again = replace(person, user_id=f"{self._numbers:06}")
        self.people[again.user_id] = again

    def _look_alike(self, person: Person) -> None:
        """Two people with one photo, by somebody's mistake."""
        other = self.people[self.chance.choice(sorted(self.people))]
        photo = self.photos[other.images[0]]
        if photo.face and person != other and len(person.images) == 1:
            self._spoiled.pop(person.images[0], None)
            self._put(person.images[0], photo)

    def _spoil(self, image: str, kind: Spoiling) -> None:
        if image in self._spoiled or self.photos[image].face is None:
            return
        self._spoiled[image] = good = self.photos[image]
        self._pictures += 1
        content = {
            Spoiling.MISSING: None,
            Spoiling.TEXT: f"photo {self._pictures} on request\n".encode(),
            Spoiling.CUT: (good.content or b"")[:300],
            Spoiling.NOBODY: nobody(self._pictures),
        }[kind]
        self._put(image, Photo(content, None))

    def _spoil_somehow(self, person: Person) -> None:
        self._spoil(person.images[0], self.chance.choice(list(Spoiling)))

    def _touch(self, person: Person) -> None:
        """The photo is written again as it was, or lies somewhere else now."""
        photo = self.photos[person.images[0]]
        if self.chance.random() < 0.5 or photo.face is None:
            self._put(person.images[0], photo)
            return
        self._pictures += 1
        other = f"{person.user_id}-{self._pictures}.jpg"
        self._put(person.images[0], Photo(None, None))
        self._put(other, photo)
        self.people[person.user_id] = replace(person, images=(other, *person.images[1:]))

    def _rewrite(self, person: Person) -> None:
        """Written by another program: other bytes, the same picture, so the same face."""
        image = person.images[0]
        photo = self.photos[image]
        if photo.content is not None and photo.face is not None:
            content = with_comment(photo.content, f"edited {self.chance.randrange(10**6)}")
            self._put(image, replace(photo, content=content))

    def _drawn(self, number: int = 0) -> Photo:
        if not number:
            self._pictures += 1
            number = self._pictures
        content = picture(number)
        return Photo(content, sha256(content).hexdigest(), number)

    def _put(self, image: str, photo: Photo) -> None:
        self.photos[image] = photo
        path = self.folder / image
        path.unlink(missing_ok=True)
        if photo.content is not None:
            path.write_bytes(photo.content)

    def _name(self) -> str:
        return f"{self.chance.choice(_GIVEN)} {self.chance.choice(_FAMILY)}"

    def _some(self, share: float, *, least: int = 0) -> list[Person]:
        """People drawn by chance: each with this chance, at most so many a night."""
        expected = share * max(len(self.people), _LEAST_STAFF)
        count = int(expected) + (self.chance.random() < expected % 1)
        if not least and count:  # not the same number every night
            count = min(self.chance.randint(0, 2 * count), _MOST_A_NIGHT)
        names = sorted(self.people)
        return [self.people[name] for name in self.chance.sample(names, max(count, least))]
