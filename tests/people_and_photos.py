"""A thousand drawn-up people and how somebody may have named their photos, by a seed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass


def word_list(text: str) -> list[str]:
    return text.split()


FIRST = word_list(
    "Anna Anne Hanna Jan Jana Jens Jörg Jürgen Björn Søren Åse Håkon Günther Käthe Zoë André "
    "Andrea Christian Christina Christiane Daniel Daniela Michael Michaela Michal Martin Martina "
    "Peter Petra Stefan Stephan Marco Marko Łukasz José Renée René Ayşe İbrahim Thomas Sabine "
    "Ursula Wolfgang Alexander Alexandra Matthias Mathias Katharina Friederike Sebastian "
    "Maximilian Hans-Peter Anna-Maria Karl-Heinz Eva Maria Hans Karl Lars Nils Niels Ingrid"
)
LAST = word_list(
    "Müller Möller Moller Miller Meyer Maier Mayer Hansen Hanssen Jensen Jansen Jansson Schmidt "
    "Schmitt Schmid Schulz Schulze Schultz Groß Weiß Strauß Bauer Baur Nielsen Nilsen Sørensen "
    "Ærø Ångström Håkansson Kowalski Kowalska Krzyżanowski Zażółć O'Brien D'Angelo McDonald "
    "García Peña Çelik Şahin Yılmaz Öztürk Fischer Fisher Hoffmann Hofmann Herrmann Hermann "
    "Zimmermann Baumgartner Wagner Weber Becker Decker Schäfer Schaefer Köhler Kohler Krüger "
    "Böhm Bohm Jäger Brandt Brand Lüdenscheidt Schwarzenberger Westerwelle Steinmeier Klein Neu "
    "Herr Lang Land Richter Vogel Friedrich Schneider Lehmann Martin Peter Thomas Li Wei"
)
SURNAMES = "王李张刘陈杨赵黄周吴徐孙欧阳"
GIVEN = "伟玮维娜敏静丽强磊军洋勇艳杰娟涛明超秀兰霞平刚桂英华玉红建文"
TITLES = ("Dr.", "Prof. Dr.", "Herr", "Frau", "Dipl.-Ing.", "Mrs")


@dataclass(frozen=True)
class Named:
    """Somebody: the number, first and last name. Chinese names have no blank."""

    number: str
    first: str
    last: str

    @property
    def is_chinese(self) -> bool:
        return not self.first[0].isascii() and self.first[0] in GIVEN

    @property
    def name(self) -> str:
        return self.last + self.first if self.is_chinese else f"{self.first} {self.last}"


@dataclass(frozen=True)
class Case:
    """A list, photos, and whose they are: the place of the person by photo, None for nobody's."""

    people: tuple[Named, ...]
    photos: dict[str, int | None]
    styles: dict[str, str]
    """How each photo was named."""


def _plain(text: str) -> str:
    table = str.maketrans("äöüÄÖÜøØåÅéèëñçşŞłŁżćóńźąęğıİ", "aouAOUoOaAeeencsSlLzconzaegiI")
    return text.translate(table).replace("ß", "ss").replace("æ", "ae").replace("Æ", "Ae")


def _wide(text: str) -> str:
    pairs = zip("äöüÄÖÜøØåÅ", word_list("ae oe ue Ae Oe Ue oe Oe aa Aa"), strict=True)
    for one, two in pairs:
        text = text.replace(one, two)
    return _plain(text)


def _typed_wrong(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text))
    letter = draw.choice("abcdefghijklmnopqrstuvwxyz")
    kind = draw.randrange(4)
    if kind == 0:
        return text[:at] + letter + text[at + 1 :]
    if kind == 1:
        return text[:at] + letter + text[at:]
    if kind == 2:
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]


def _shortened(first: str) -> str:
    one, *more = first.replace("-", " ").split()
    return " ".join([one, *(f"{name[0]}." for name in more)])


def _styles(who: Named, draw: random.Random) -> dict[str, Callable[[], str]]:
    """The ways in which the photo of somebody may be called."""
    first, last, number = who.first, who.last, who.number
    if who.is_chinese:
        return {
            "chinese": lambda: who.name,
            "chinese, blank": lambda: f"{last} {first}",
            "chinese, number": lambda: f"{number}{who.name}",
            "chinese, noise": lambda: f"{who.name}_{draw.choice(['照片', '01', '2019-03-04'])}",
        }
    half = draw.choice((first.split("-")[0], first.split("-")[-1]))
    return {
        "as it is": lambda: f"{first} {last}",
        "swapped": lambda: f"{last}, {first}",
        "underscores": f"{last}_{first}".lower,
        "plain": lambda: _plain(f"{first}_{last}"),
        "wide": lambda: _wide(f"{last} {first}").upper(),
        "joined": lambda: _plain(f"{first}{last}"),
        "joined, small": lambda: _wide(f"{last}{first}").lower(),
        "title": lambda: f"{draw.choice(TITLES)} {first} {last}",
        "extras": lambda: f"Foto {first} {last} {draw.choice(['final', 'copy', 'web'])}",
        "camera": lambda: f"IMG_{draw.randrange(1000, 9999)}_{last}_{first}",
        "count": lambda: f"{last}_{first}_{draw.randrange(1, 30):02}",
        "date": lambda: f"2019-0{draw.randrange(1, 9)}-1{draw.randrange(9)} {first} {last}",
        "number": lambda: number,
        "number and name": lambda: f"{number}_{last}_{first}",
        "name and number": lambda: f"{_plain(first)} {_plain(last)} ({number})",
        "number, typed wrong": lambda: f"{number}-{_typed_wrong(f'{first} {last}', draw)}",
        "typed wrong": lambda: _typed_wrong(f"{first} {last}", draw),
        "typed wrong, swapped": lambda: _typed_wrong(f"{last}_{first}", draw),
        "initial": lambda: f"{first[0]}. {last}",
        "middle initial": lambda: f"{_shortened(first)} {last}",
        "half": lambda: f"{half} {last}",
        "last name": lambda: last,
    }


WEIGHTS = {"typed wrong": 2, "typed wrong, swapped": 2, "as it is": 3, "swapped": 3, "plain": 2}


def _people(draw: random.Random, count: int) -> Iterator[Named]:
    numbers = iter(draw.sample(range(10_000, 99_999), 2 * count))
    for place in range(count):
        number = f"{next(numbers)}"
        if place % 8 == 0:
            given = "".join(draw.choices(GIVEN, k=draw.choice((1, 2, 2))))
            yield Named(number, given, draw.choice(SURNAMES))
        elif place % 8 == 1:
            last = "-".join(draw.sample(LAST, 2))
            yield Named(number, draw.choice(FIRST), last)
        elif place % 8 == 2:
            yield Named(number, " ".join(draw.sample(FIRST, 2)), draw.choice(LAST))
        else:
            yield Named(number, draw.choice(FIRST), draw.choice(LAST))


def _same(who: Named) -> tuple[str, ...]:
    """What nobody can tell two people apart by: who has the same is the same to any reader."""
    name = re.sub("(?<=[aou])e(?=[^aeiou])", "", _plain(who.name.replace("'", "")).casefold())
    return tuple(sorted(name.replace("-", " ").split()))


def make_case(seed: int, *, listed: int = 1000, others: int = 150) -> Case:
    """A list in which a tenth have no photo, and photos of others with names of the same kind,
    who are not listed."""
    draw = random.Random(seed)
    everybody = list(_people(draw, listed + others))
    draw.shuffle(everybody)
    people = everybody[:listed]
    known = {_same(one) for one in people}
    strangers = [one for one in everybody[listed:] if _same(one) not in known]
    photos: dict[str, int | None] = {}
    styles: dict[str, str] = {}
    with_photo = [(place, one) for place, one in enumerate(people) if draw.random() < 0.9]
    for place, who in [*with_photo, *((None, one) for one in strangers)]:
        ways = _styles(who, draw)
        if place is None:
            ways.pop("half", None)  # which may be the whole name of somebody else
            if " " not in who.first.replace("-", " "):
                ways.pop("middle initial", None)
        weights = [WEIGHTS.get(way, 1) for way in ways]
        (style,) = draw.choices(list(ways), weights)
        name = ways[style]()
        while f"{name}.jpg" in photos:
            name += " 2"
        photos[f"{name}.jpg"] = place
        styles[f"{name}.jpg"] = style
    paths = list(photos)
    draw.shuffle(paths)
    return Case(tuple(people), {path: photos[path] for path in paths}, styles)
