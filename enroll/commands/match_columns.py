"""Which of a list's columns hold names and numbers, and what a row and a photo say by them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from enroll.commands.match_pairs import Person, Photo, by_script
from enroll.commands.match_scores import EXTRAS, Names
from enroll.commands.match_words import COUNTED, Text, Word, read_text, word, word_set
from enroll.errors import UsageError
from enroll.manifest.header import columns_named, list_names, short_name
from enroll.visible import as_seen

_GIVEN = word_set(
    "first firstname given givenname forename vorname vornamen rufname prenom nombre fornavn "
    "fornamn imie voornaam nome 名"
)
_MIDDLE = word_set("middle middlename middlenames mittelname zweitervorname secondname")
_FAMILY = word_set(
    "last lastname surname family familyname nachname familienname zuname nom nomdefamille "
    "apellido apellidos etternavn efternavn efternamn nazwisko achternaam cognome sn 姓"
)
_WHOLE = word_set(
    "name fullname wholename displayname anzeigename employee employeename mitarbeiter "
    "mitarbeitername mitarbeiterin person personname vollername vollstandigername nameundvorname "
    "namevorname vornamename chinesename englishname localname pinyin cn commonname 姓名 名字 "
    "中文名 英文名 拼音 员工姓名 学生姓名 氏名 이름"
)
_MAIL = word_set("mail email emailaddress mailadresse emailadresse 邮箱")
_NUMBER = word_set(
    "id uid pin no nr number nummer code badge card employeeid userid staffid studentid personid "
    "empno empnr empid badgeid cardid username login account samaccountname kurzel matrikel "
    "工号 编号 学号 卡号 员工编号 员工号 身份证号"
)
_NUMBER_OF = (
    *("personal", "personnel", "personen", "person", "employee", "emp", "staff", "student", "user"),
    *("mitarbeiter", "schuler", "matrikel", "matriculation", "ausweis", "badge", "card", "karten"),
    *("member", "mitglieds", "stamm", "payroll", "pers", "ma"),
)
_NUMBER_ENDS = ("nummer", "number", "nr", "no", "id", "code", "num")

_OTHER_PEOPLE = (
    *("manager", "supervisor", "vorgesetzt", "chef", "boss", "leiter", "leitung", "lehrer"),
    *("teacher", "contact", "kontakt", "approver", "mentor", "betreuer", "superior"),
)
"""In the names of columns that hold the names of other people."""

_FEW_VALUES = 5
"""A column has few values, such as departments, if each is there in this many rows or more."""

_MOST_WORDS = 4
"""Words of such a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The columns that are compared, by their names. `ids` are numbers, the first of them
    `user_id`; each of `names` is one form of the name, made of one column or several; `others` are
    columns whose words a photo's name may have besides."""

    ids: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    mails: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def shown(self) -> list[str]:
        """The names of the columns, each once."""
        return list(dict.fromkeys(chain(self.ids, *self.names, self.mails)))


USER_ID, USER_DATA = "user_id", "user_data"


def choose_columns(
    header: Sequence[str],
    roles: Mapping[str, str],
    asked: Sequence[str],
    *,
    has_user_data: bool,
) -> Compared:
    """The columns to be compared: those that are `asked` for, else those whose names say that they
    hold names or numbers.

    `header` has the list's columns, and `roles` those of user_id and user_data among them, if they
    are such; `user_data` may also be made of several. In the result these two are called by their
    roles.
    """
    own = [name for name in header if name.strip() and name not in roles.values()]
    if asked:
        wanted = [_asked(one, header, roles) for one in asked]
        names = (tuple(wanted), *((one,) for one in wanted if len(wanted) > 1))
        ids = tuple(one for one in wanted if one != USER_ID)
        return Compared(ids=(USER_ID, *ids), names=names, mails=(), others=())
    kinds = {name: _key(name) for name in own}
    given = [name for name, key in kinds.items() if key in _GIVEN]
    middle = [name for name, key in kinds.items() if key in _MIDDLE]
    family = [name for name, key in kinds.items() if key in _FAMILY]
    whole = [name for name, key in kinds.items() if key in _WHOLE]
    mails = [name for name, key in kinds.items() if key in _MAIL]
    numbers = [name for name, key in kinds.items() if _is_number(key)]
    last = family or (whole if given else [])
    forms: list[tuple[str, ...]] = [(USER_DATA,)] if has_user_data else []
    forms += [(name,) for name in whole]
    if given and last:
        forms.append((*given, *last))
        forms += [(*given, *middle, *last)] if middle else []
    elif given or family:
        forms.append((*given, *family))
    used = {*given, *middle, *family, *whole, *mails, *numbers}
    return Compared(
        ids=(USER_ID, *numbers, *mails),
        names=tuple(forms),
        mails=tuple(mails),
        others=tuple(
            name
            for name in own
            if name not in used and not any(one in kinds[name] for one in _OTHER_PEOPLE)
        ),
    )


def _key(name: str) -> str:
    """A column's name without case, blanks, signs and umlauts."""
    return "".join(word.plain for word in read_text(as_seen(name)).words)


def _is_number(key: str) -> bool:
    if key in _NUMBER:
        return True
    begins = next((one for one in _NUMBER_OF if key.startswith(one)), None)
    return begins is not None and key[len(begins) :].lstrip("s") in _NUMBER_ENDS


def _asked(name: str, header: Sequence[str], roles: Mapping[str, str]) -> str:
    found = columns_named(header, name)
    if len(found) != 1:
        few = "no column" if not found else "more than one column"
        raise UsageError(
            f"The list has {few} {short_name(name)!r}, which --compare names; it has: "
            f"{list_names(header)}. Correct --compare."
        )
    return next((role for role, column in roles.items() if column == found[0]), found[0])


def people_of(
    rows: Sequence[Mapping[str, str]], photos: Sequence[int | None], compared: Compared
) -> list[Person]:
    """People by the cells of their rows, in which `user_id` and `user_data` go by their roles.
    `photos` are those that the list itself names."""
    forms = [_forms(row, compared) for row in rows]
    vocabulary = {word.plain for some in forms for names in some for word in names}
    few = _few_values(rows, compared.others)
    people = []
    for row, names, photo in zip(rows, forms, photos, strict=True):
        extras = {
            word.plain
            for column, values in few.items()
            if row[column] in values
            for word in read_text(row[column]).words[:_MOST_WORDS]
        }
        people.append(
            Person(
                ids=tuple(row[column] for column in compared.ids),
                names=names,
                extras=frozenset(extras - vocabulary),
                photo=photo,
            )
        )
    return people


def _forms(row: Mapping[str, str], compared: Compared) -> tuple[Names, ...]:
    """The forms of a row's name, each once."""
    texts = [" ".join(row[column] for column in form) for form in compared.names]
    texts += [local for column in compared.mails if "." in (local := row[column].partition("@")[0])]
    found = (names for text in texts for names in by_script(read_text(text).words))
    return tuple(dict.fromkeys(found))


def _few_values(
    rows: Sequence[Mapping[str, str]], columns: Sequence[str]
) -> dict[str, frozenset[str]]:
    """The values that columns such as a department's have several times."""
    found = {}
    for column in columns:
        counts = Counter(row[column] for row in rows)
        found[column] = frozenset(value for value, count in counts.items() if count >= _FEW_VALUES)
    return found


def photo_of(path: str) -> Photo:
    """What the name of a photo says, or else that of the nearest folder that says something."""
    folders = path.split("/")
    stem = folders.pop().rpartition(".")[0]
    own = read_text(stem)
    said = own if _says_something(own) else next(_telling(folders), own)
    return Photo(words=tuple(map(_bare_name, said.words)), keys=said.keys)


def _bare_name(one: Word) -> Word:
    """A word without what is written behind a Chinese name without a blank."""
    text = _BEHIND.sub("", one.plain) if one.is_ideograph else one.plain
    return one if text in ("", one.plain) else word(text)


_BEHIND = re.compile(
    r"(?:的|员工|先生|女士|小姐|证件照|照片|相片|头像|[一二两][寸吋]照?|寸照|照)+$"
)


def _telling(folders: Sequence[str]) -> Iterator[Text]:
    return filter(_says_something, map(read_text, reversed(folders)))


def _says_something(text: Text) -> bool:
    """Whether there is more than the number of a picture."""
    if any(word.plain not in EXTRAS and word.plain not in COUNTED for word in text.words):
        return True
    return any(len(key.text) > 2 and key.text.isdecimal() and not key.counts for key in text.keys)
