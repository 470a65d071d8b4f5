"""What must be true after a run: the library's story and its end against what was asked."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

from .oracle import Asked, Face
from .photos import Photo
from .staff import Row
from .watch import Came, Event, Went


def story(
    before: Mapping[str, Face], events: Sequence[Event], asked: Asked, *, strangers: Iterable[str]
) -> list[str]:
    """What was wrong on the way: `events` in their order, from the library as it was `before`."""
    wrong: list[str] = []
    known = {token: face for token, face in before.items() if token not in set(strangers)}
    there: dict[str, Counter[Face]] = defaultdict(Counter)
    for face in known.values():
        there[face.user_id][face] += 1
    for event in events:
        match event:
            case Came(token, face):
                if there[face.user_id][face]:
                    wrong.append(f"added twice: {face}")
                if face not in asked.wanted.get(face.user_id, ()):
                    wrong.append(f"added, and never asked for: {face}")
                known[token] = face
                there[face.user_id][face] += 1
            case Went(token):
                if token not in known:
                    wrong.append(f"a face was deleted that the ledger cannot know: {token}")
                    continue
                face = known.pop(token)
                wrong += _wrongly_gone(face, there[face.user_id], asked)
                there[face.user_id][face] -= 1
    return wrong


def _wrongly_gone(face: Face, there: Counter[Face], asked: Asked) -> list[str]:
    """Why this face may not be deleted at this moment, when its person has those `there`."""
    if face.user_id not in asked.wanted:
        return [] if face in asked.leaving else [f"deleted before its grace was over: {face}"]
    wanted = asked.wanted[face.user_id]
    if face in wanted and there[face] < 2:
        return [f"deleted, although the manifest asks for it: {face}"]
    if any(there[other] for other in there if other.sha256 == face.sha256 and other != face):
        return []  # the same photo with another user_data has taken its place
    if face.user_id in asked.kept:
        return [f"deleted, although a row of this person is bad: {face}"]
    late = [other for other in wanted if not there[other]]
    return [f"deleted before {late[0]} was there: {face}"] if late else []


def ending(
    library: Mapping[str, Face], faces: frozenset[Face], *, strangers: Mapping[str, Face]
) -> list[str]:
    """What is wrong in the end: each face once, and every stranger as it was."""
    wrong = [
        f"a stranger is gone: {face}" for token, face in strangers.items() if token not in library
    ]
    there = Counter(face for token, face in library.items() if token not in strangers)
    wrong += [f"{count} times there: {face}" for face, count in there.items() if count > 1]
    wrong += [f"there, and should not be: {face}" for face in sorted(there.keys() - faces)]
    wrong += [f"not there: {face}" for face in sorted(faces - there.keys())]
    return wrong


def results(
    path: Path, rows: Sequence[Row], asked: Asked, library: Mapping[str, Face]
) -> list[str]:
    """Every line of the manifest has its line, and an enrolled one the token of its face."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    if len(lines) != len(rows):
        return [f"{len(lines)} lines of results for {len(rows)} rows"]
    wrong = []
    for row, line in zip(rows, lines, strict=True):
        wanted = asked.of_row.get((row.user_id, row.image))
        content, too_long = asked.spoiled.get((row.user_id, row.image), (b"", False))
        face = library.get(line["face_token"])
        if line["status"] != "enrolled":
            if wanted is not None:
                wrong.append(f"results: {line['status']} {line['error']} for {row}")
        elif face is None:
            wrong.append(f"results: enrolled with a token that is not there: {row}")
        elif (too_long or content is None) and face.user_id == row.user_id:
            continue  # without its photo, or with such a text, the row keeps its face
        elif face != wanted:
            wrong.append(f"results: the token of another face: {row}, {face}, not {wanted}")
    return wrong


def differences(path: Path, strangers: Iterable[str]) -> list[str]:
    """What `enroll verify` found beside the strangers that are there."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    found = {line["face_token"] for line in lines if line["difference"] == "stranger"}
    wrong = [f"verify: {dict(line)}" for line in lines if line["difference"] != "stranger"]
    wrong += [f"verify: a face is strange to the ledger: {one}" for one in found - set(strangers)]
    wrong += [f"verify: a stranger was not seen: {one}" for one in set(strangers) - found]
    return wrong


def rehearsed(
    path: Path,
    asked: Asked,
    before: frozenset[Face],
    photos: Mapping[str, Photo],
    *,
    gone: Iterable[str],
    overdue: Set[tuple[str, str]],
) -> list[str]:
    """Whether `--dry-run` tells every row that would be added, and who is `gone`.

    Rows may be told that cannot be known to be bad before they are sent, and photos of which other
    bytes are the same picture.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    told = {
        (line["user_id"], Path(line["image"]).name)
        for line in lines
        if line["change"] in ("joiner", "photo", "user_data")
    }
    due = {row for row, face in asked.of_row.items() if face not in before}
    # Of two rows with one face it tells one; and none that is overdue since an earlier night.
    faces = {asked.of_row[row] for row in (told & asked.of_row.keys()) | (due & overdue)}
    maybe = {row for row in asked.of_row if _rewritten(photos.get(row[1]))} | asked.bad
    wrong = [
        f"--dry-run: does not tell of {row}"
        for row in sorted(due)
        if asked.of_row[row] not in faces
    ]
    wrong += [f"--dry-run: tells of {row}, in vain" for row in sorted(told - due - maybe)]
    leavers = {line["user_id"] for line in lines if line["change"] == "leaver"}
    if leavers != set(gone):
        wrong.append(f"--dry-run: the leavers are {sorted(leavers)}, and not {sorted(gone)}")
    return wrong


def _rewritten(photo: Photo | None) -> bool:
    return photo is not None and photo.content is not None and photo.content[2:4] == b"\xff\xfe"
