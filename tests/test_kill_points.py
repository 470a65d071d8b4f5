"""Every command killed at every boundary: the same command, given again, brings all to its end.

A boundary is whatever lasts beyond the process: a write to the disk, a commit of a server, a call
to the service. They
are numbered as they are passed, so that one that is new is covered without a change here. The
command is killed after each of them that changes anything, and before each that is not just as the
one before it has left all. What must be true in the end is read from the stand-in and from the
ledger's tables, by nothing of the command's own.
"""

from __future__ import annotations

import csv
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from archive import picture
from killing import ALONE, ANY, MOVED, PASSED, UNWATCHED, Kill, Runner, SharedClock
from postgres_server import asked, reaching
from sandbox_caller import Caller

from enroll.addresses import ledger_named
from enroll.sandbox import Sandbox

GROUP = SCHEMA = "staff"

LATER = 300.0
"""Seconds from one command to the next: long after the expiry of whatever the first has signed."""

CLOCK = "clock"

AT_ONCE = 4
"""Cases that go on together."""

QUICK = ("--timeout", "1", "--settle-after", "0.2", "--max-in-flight", "1")
FREE = ("--grace", "0", "--max-removals", "100%", "--max-changes", "100", "--max-missing", "100%")

Face = tuple[str, str, str]
"""Whose, the SHA-256 of which photo, with which text."""


@dataclass
class House:
    """A folder with an archive, the ledger and the store of a stand-in of its own.

    `photos` is elsewhere, as their paths are in the ledger: a copy of the folder has the same. With
    a `database` of the tests' server, the ledger is in that.
    """

    folder: Path
    photos: Path
    database: str = ""

    @property
    def ledger(self) -> Path:
        """Its address leaves to the environment which database and server it is."""
        if self.database:
            return ledger_named(f"postgresql:///?schema={SCHEMA}")
        return self.folder / "ledger.sqlite"

    @property
    def environ(self) -> dict[str, str]:
        """What leads a command to the database, and lets it remember in the folder."""
        state = {"XDG_STATE_HOME": str(self.folder / "state")}
        return {**state, **(reaching(self.database) if self.database else {})}

    def copied(self, folder: Path) -> House:
        """All of it at another place."""
        shutil.copytree(self.folder, folder)
        copy = House(folder, self.photos, self.database and f"{self.database}_{folder.name}")
        if self.database:
            asked(f'CREATE DATABASE "{copy.database}" TEMPLATE "{self.database}"')
        return copy

    def demolish(self) -> None:
        """Remove the database, which is a burden to the server."""
        if self.database:
            asked(f'DROP DATABASE "{self.database}" WITH (FORCE)')

    def lose_ledger(self) -> None:
        for path in self.folder.glob("ledger.sqlite*"):
            path.unlink()
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        if self.database:
            asked(f"DROP SCHEMA {SCHEMA} CASCADE", database=self.database)

    @cached_property
    def clock(self) -> SharedClock:
        """The time of the house, by which the stand-in lives, and every command."""
        path = self.folder / CLOCK
        return SharedClock(path) if path.exists() else SharedClock.made(path)

    @contextmanager
    def box(self) -> Iterator[Sandbox]:
        store = self.folder / "service.sqlite"
        with Sandbox(detect=False, store=store, clock=self.clock.time) as running:
            running.create_library(GROUP)
            yield running

    def photo(self, name: str, number: int) -> str:
        """Draw a photo; its SHA-256."""
        (self.photos / f"{name}.jpg").write_bytes(picture(number))
        return sha256(picture(number)).hexdigest()

    def manifest(self, *names: str, **texts: str) -> None:
        """A row a name, with the photo of that name and a text; `same_2` is one of `same`."""
        rows = [(name, "first") for name in names] + list(texts.items())
        with (self.folder / "staff.csv").open("w", encoding="utf-8", newline="") as file:
            lines = [(name.partition("_")[0], f"{name}.jpg", text) for name, text in rows]
            csv.writer(file).writerows([("user_id", "image", "user_data"), *lines])

    def enrolling(self, command: str, *options: str) -> list[str]:
        """The arguments of a command that reads the manifest."""
        common = ("--group-id", GROUP, "--ledger", str(self.ledger), "--images", str(self.photos))
        return [command, "staff.csv", *common, *options]

    def give(
        self,
        runner: Runner,
        box: Sandbox,
        arguments: Sequence[str],
        *,
        kill: Kill | None = None,
        watch: bool = False,
    ) -> int:
        """Run a command; how it ended."""
        environ = {
            "ENROLL_ENDPOINT": box.endpoint,
            "ENROLL_API_KEY": box.api_key,
            "ENROLL_API_SECRET": box.api_secret,
            **self.environ,
        }
        return runner.run(
            list(arguments),
            folder=self.folder,
            environ=environ,
            kill=kill,
            watch=watch,
            moved_by=self.folder / CLOCK,
        )

    def add(self, box: Sandbox, name: str, number: int) -> None:
        """Another program adds a face."""
        with Caller(box) as caller:
            sign = caller.sign(now=int(self.clock.time()))
            fields = {"group_id": GROUP, "user_data": "first", "sign": sign}
            caller.add(name, file=picture(number), **fields)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """What the ledger's tables hold."""
        if self.database:
            return asked(statement, database=self.database, schema=SCHEMA)
        name = f"{self.ledger.as_uri()}?mode=ro"
        with closing(sqlite3.connect(name, uri=True)) as connection:
            return connection.execute(statement).fetchall()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A command in the middle of an archive's life, and what must be true when it is through.

    `faults` are for the stand-in's `script`: the kind of call, whose, and what befalls it. `faces`
    is what the library holds then; `always` whoever can be found in it at any moment.
    `statuses` counts the ledger's faces by theirs. `unknown` faces are none of the ledger's.
    """

    arguments: Sequence[str]
    faces: Counter[Face]
    statuses: dict[str, int]
    always: Sequence[str]
    faults: Sequence[tuple[str, str | None, str]]
    code: int = 0
    unknown: int = 0
    rows: int | None = None
    """How many lines the results have, all enrolled."""
    may_only_look: bool = False
    """Whether the command leaves nothing on record where it finds nothing to change."""
    between: Sequence[str] = ()
    """Another command, given before the killed one is given again."""
    traces: Sequence[str] = ()
    """What must not be left in the ledger's bytes."""

    def moved(self, here: House, there: House) -> Scene:
        """The same scene in a copy of its house."""

        def moved(arguments: Sequence[str]) -> list[str]:
            return [str(there.ledger) if one == str(here.ledger) else one for one in arguments]

        return replace(self, arguments=moved(self.arguments), between=moved(self.between))


def first_run(house: House, runner: Runner, box: Sandbox, *names: str) -> dict[str, str]:
    """Enroll people with a photo each; the SHA-256 of these."""
    drawn = {name: house.photo(name, number) for number, name in enumerate(names)}
    house.manifest(*names)
    assert house.give(runner, box, house.enrolling("run", *QUICK)) == 0
    return drawn


def changed_archive(house: House, runner: Runner, box: Sandbox) -> tuple[Face, Face, list[Face]]:
    """Three people are enrolled; then one has left, one has another photo, and two are new: that
    one's old and new face, and those of the others, the leaver's first."""
    drawn = first_run(house, runner, box, "same", "changed", "leaver")
    old, new = drawn["changed"], house.photo("changed", 10)
    lost, refused = house.photo("lost", 11), house.photo("refused", 12)
    house.manifest("lost", "same", "changed", "refused")
    others = [("leaver", drawn["leaver"]), ("same", drawn["same"]), ("lost", lost)]
    others.append(("refused", refused))
    return ("changed", old, "first"), ("changed", new, "first"), [(*one, "first") for one in others]


def a_run(house: House, runner: Runner, box: Sandbox) -> Scene:
    old, new, others = changed_archive(house, runner, box)
    return Scene(
        arguments=house.enrolling("run", *QUICK),
        faults=(
            ("add", "lost", "500-after"),
            ("add", "refused", "refused"),
        ),
        faces=Counter([old, new, *others]),
        statuses={"enrolled": 5, "superseded": 1},
        always=("same", "changed", "leaver"),
        rows=4,
    )


def a_sync(house: House, runner: Runner, box: Sandbox) -> Scene:
    names = ("same", "same_2", "changed", "texted", "leaver")
    drawn = first_run(house, runner, box, *names)
    new, refused = house.photo("changed", 10), house.photo("refused", 12)
    house.manifest("same", "changed", "refused", texted="second")
    return Scene(
        arguments=house.enrolling("sync", *QUICK, *FREE),
        faults=(
            ("add", "changed", "500-after"),
            ("add", "refused", "refused"),
            ("delete", None, "500-after"),
        ),
        faces=Counter(
            [
                ("same", drawn["same"], "first"),
                ("changed", new, "first"),
                ("texted", drawn["texted"], "second"),
                ("refused", refused, "first"),
            ]
        ),
        statuses={"enrolled": 4, "removed": 3},
        always=("same", "changed", "texted"),
        rows=4,
    )


def a_remove(house: House, runner: Runner, box: Sandbox) -> Scene:
    _, _, others = changed_archive(house, runner, box)
    assert house.give(runner, box, house.enrolling("run", *QUICK)) == 0
    (house.folder / "ids.txt").write_text("changed\nleaver\n", encoding="utf-8")
    chosen = ("--user-ids", "ids.txt", "--list", "list.csv")
    return Scene(
        arguments=["remove", "--ledger", str(house.ledger), *chosen, "--yes"],
        faults=(
            ("delete", None, "refused"),
            ("delete", None, "500-after"),
            ("face_info", None, "refused"),
        ),
        faces=Counter(others[1:]),
        statuses={"enrolled": 3, "removed": 3},
        always=("same", "lost", "refused"),
    )


def left_in_doubt(house: House, runner: Runner, box: Sandbox) -> tuple[Face, Face, list[Face]]:
    """The changed archive after a run, and after one that was killed when it had added `lost`."""
    found = changed_archive(house, runner, box)
    arguments = house.enrolling("run", *QUICK)
    house.manifest("same", "changed", "refused")
    assert house.give(runner, box, arguments) == 0
    house.manifest("lost", "same", "changed", "refused")
    killed = house.give(runner, box, arguments, kill=Kill("call", "after", 3))
    assert killed == -signal.SIGKILL
    assert house.ask("SELECT status FROM face WHERE user_id = 'lost'") == [("sending",)]
    assert "lost" in {face.user_id for face in box.faces(GROUP)}
    return found


def a_forget(house: House, runner: Runner, box: Sandbox) -> Scene:
    _, _, others = left_in_doubt(house, runner, box)
    people = ("--user-id", "changed", "--user-id", "lost")
    return Scene(
        arguments=["forget", "--ledger", str(house.ledger), *people, "--yes"],
        faults=(("list", None, "refused"), ("delete", None, "500-after")),
        faces=Counter([*others[:2], others[3]]),
        statuses={"enrolled": 3},
        always=("same", "leaver", "refused"),
        between=house.enrolling("run", *QUICK),
        traces=("changed", "lost.jpg"),
    )


def an_adopt(house: House, runner: Runner, box: Sandbox) -> Scene:
    old, _, others = changed_archive(house, runner, box)
    house.photo("changed", 1)  # as it was
    assert house.give(runner, box, house.enrolling("run", *QUICK)) == 0
    house.photo("changed", 10)
    house.lose_ledger()
    return Scene(
        arguments=house.enrolling("adopt", "--timeout", "1", "--report", "report.csv"),
        faults=(("search", None, "refused"), ("search", None, "500-after")),
        faces=Counter([old, *others]),
        statuses={"enrolled": 3},
        always=("same", "changed", "leaver", "lost", "refused"),
        code=1,
        unknown=2,
    )


def a_verify(house: House, runner: Runner, box: Sandbox) -> Scene:
    old, new, others = left_in_doubt(house, runner, box)
    house.add(box, "lost", 11)  # a copy that the run finds, and puts on record
    house.clock.move(30)
    assert house.give(runner, box, house.enrolling("run", *QUICK)) == 0
    assert house.ask("SELECT count(*) FROM surplus") == [(1,)]
    house.add(box, "lost", 11)  # and one that it has not seen
    return Scene(
        arguments=["verify", "--ledger", str(house.ledger), "--remove-surplus", "--yes"],
        faults=(("search", None, "refused"), ("delete", None, "500-after")),
        faces=Counter([old, new, *others]),
        statuses={"enrolled": 5, "superseded": 1},
        always=("same", "changed", "leaver", "lost", "refused"),
        may_only_look=True,
    )


def a_run_that_holds(house: House, runner: Runner, box: Sandbox) -> Scene:
    drawn = first_run(house, runner, box, "same")
    house.photo("double", 0)  # as `same` has it
    new = house.photo("new", 10)
    house.manifest("double", "same", "new")
    return Scene(
        arguments=house.enrolling("run", *QUICK, "--lookalikes", "hold"),
        faults=(("search", None, "500"), ("add", "new", "500-after")),
        faces=Counter([("same", drawn["same"], "first"), ("new", new, "first")]),
        statuses={"enrolled": 2, "held": 1},
        always=("same",),
        code=1,
    )


SCENES = {
    "hold": a_run_that_holds,
    "run": a_run,
    "sync": a_sync,
    "remove": a_remove,
    "forget": a_forget,
    "adopt": an_adopt,
    "verify": a_verify,
}


@dataclass(frozen=True)
class Killed:
    """How a case went: whether the kill struck, and what was wrong."""

    struck: bool
    problems: list[str]


def wrong_in_library(house: House, box: Sandbox, scene: Scene) -> list[str]:
    there = Counter((one.user_id, one.sha256, one.user_data) for one in box.faces(GROUP))
    found = [f"too many: {face}" for face in there - scene.faces]
    return found + [f"lost: {face}" for face in scene.faces - there]


def wrong_in_ledger(house: House, box: Sandbox, scene: Scene) -> list[str]:
    """Whether each face of the library is in the ledger once, with one outcome, and no more."""
    there = {one.face_token: (one.user_id, one.sha256) for one in box.faces(GROUP)}
    lines = [
        (user_id, digest.hex(), status, token)
        for user_id, digest, status, token in house.ask(
            "SELECT user_id, sha256, status, face_token FROM face"
        )
    ]
    statuses = Counter(str(line[2]) for line in lines)
    found = [] if statuses == scene.statuses else [f"statuses: {dict(statuses)}"]
    held = {str(line[3]): (line[0], line[1]) for line in lines if line[3]}
    found += [f"another's token: {token}" for token in held if there.get(token) != held[token]]
    if (unknown := len(set(there) - set(held))) != scene.unknown:
        found.append(f"{unknown} faces that the ledger does not know")
    for table in ("deletion", "face_to_delete", "surplus"):
        if house.ask(f"SELECT 1 FROM {table}"):
            found.append(f"left in the table {table}")
    (holds,) = house.ask("SELECT count(*) FROM event WHERE kind = 'held'")
    if holds != (scene.statuses.get("held", 0),):
        found.append(f"{holds} events of held faces")
    begun = Counter(
        str(token)
        for kind, token in house.ask("SELECT kind, face_token FROM event")
        if kind in ("enrolled", "adopted")
    )
    found += [f"{begun[token]} outcomes of {token}" for token in held if begun[token] != 1]
    gone = Counter(
        str(token)
        for kind, token in house.ask("SELECT kind, face_token FROM event")
        if kind == "removed"
    )
    found += [f"{gone[token]} removals of {token}" for token in gone if gone[token] != 1]
    (last,) = house.ask("SELECT exit_code FROM run ORDER BY run DESC LIMIT 1")
    if last != (scene.code,) and not (scene.may_only_look and last == (None,)):
        found.append(f"the last command is on record with {last}")
    return found


def wrong_in_results(house: House, box: Sandbox, scene: Scene) -> list[str]:
    if scene.rows is None:
        return []
    there = {one.face_token: one.user_id for one in box.faces(GROUP)}
    with (house.folder / "staff.results.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    good = [line for line in lines if line["status"] == "enrolled"]
    if len(lines) != scene.rows or len(good) != scene.rows:
        return [f"results: {lines}"]
    return [f"results: {line}" for line in good if there.get(line["face_token"]) != line["user_id"]]


def wrong_in_bytes(house: House, scene: Scene) -> list[str]:
    return [
        f"{word} in {path.name}"
        for path in house.folder.glob("ledger.sqlite*")
        for word in scene.traces
        if word.encode() in path.read_bytes()
    ]


def not_found(box: Sandbox, scene: Scene) -> list[str]:
    there = {face.user_id for face in box.faces(GROUP)}
    return [f"cannot be found: {name}" for name in scene.always if name not in there]


def through(house: House, runner: Runner, scene: Scene, kill: Kill | None) -> Killed:
    """Give the command, killed if it is to be, and again when it was; what is wrong then."""
    house.clock.move(LATER)
    with house.box() as box:
        for call, user_id, fault in scene.faults:
            box.script([fault], call=call, user_id=user_id)
        code = house.give(runner, box, scene.arguments, kill=kill, watch=True)
        struck = code == -signal.SIGKILL
        assert box.wait_idle()
        found = not_found(box, scene)
        if struck:
            house.clock.move(LATER)
            if scene.between and (other := house.give(runner, box, scene.between)):
                found.append(f"the command between ended with {other}")
            code = house.give(runner, box, scene.arguments)
            found += not_found(box, scene)
        if code != scene.code:
            found.append(f"ended with {code}")
        found += wrong_in_library(house, box, scene)
        found += wrong_in_ledger(house, box, scene)
        found += wrong_in_results(house, box, scene)
        found += wrong_in_bytes(house, scene)
    return Killed(struck, found)


@dataclass
class Stage:
    """A scene that is set, of which cases are copies."""

    house: House
    scene: Scene
    runner: Runner
    cases: Path

    def play(self, kill: Kill | None) -> Killed:
        folder = self.folder(kill)
        house = self.house.copied(folder)
        ended = through(house, self.runner, self.scene.moved(self.house, house), kill)
        if not ended.problems:
            house.demolish()
        where = f"{folder} (last at {self.passed(kill)[-1]})"
        return Killed(ended.struck, [f"{where}: {one}" for one in ended.problems])

    def passed(self, kill: Kill | None) -> list[str]:
        """The boundaries that a case has passed, before it was killed if it was."""
        return [line for line in self._noted(kill) if not line.startswith(ALONE)]

    def without_change(self) -> set[int]:
        """The numbers of those at which nothing was changed, when nobody killed it."""
        noted = self._noted(None)
        return {int(line.removeprefix(ALONE)) for line in noted if line.startswith(ALONE)}

    def within_commits(self) -> list[Kill]:
        """Kills of a process that has sent a commit to its server, and not heard of it."""
        commits = sum(line.startswith("commit") for line in self.passed(None))
        numbers = range(1, commits + 1) if self.house.database else ()
        return [Kill("commit", "within", number) for number in numbers]

    def _noted(self, kill: Kill | None) -> list[str]:
        return (self.folder(kill) / PASSED).read_text(encoding="utf-8").splitlines()

    def folder(self, kill: Kill | None) -> Path:
        name = "whole" if kill is None else f"{kill.point}-{kill.when}-{kill.number:03}"
        return self.cases / name


@pytest.fixture
def stage(request: pytest.FixtureRequest, runner: Runner, tmp_path: Path) -> Iterator[Stage]:
    name, _, server = request.param.partition(" in ")
    house = House(tmp_path / "house", tmp_path / "photos", server and name)
    house.folder.mkdir()
    house.photos.mkdir()
    if server:
        asked(f'CREATE DATABASE "{house.database}"')
    with house.box() as box:
        scene = SCENES[name](house, runner, box)
    yield Stage(house, scene, runner, tmp_path)
    house.demolish()


IN_POSTGRES = " in PostgreSQL"


FEWEST = {"run": 30, "sync": 40, "remove": 20, "forget": 25, "adopt": 30, "verify": 20, "hold": 20}
"""How many boundaries each command passes at least."""


@pytest.mark.parametrize(
    ("stage", "fewest", "each"),
    [
        ("run", FEWEST["run"], 3),
        ("sync", FEWEST["sync"], 3),
        *(pytest.param(*one, 1, marks=pytest.mark.thorough) for one in FEWEST.items()),
        *(
            pytest.param(f"{name}{IN_POSTGRES}", FEWEST[name], each, marks=pytest.mark.thorough)
            for name, each in (("run", 1), ("sync", 1), ("remove", 3), ("adopt", 3))
        ),
    ],
    indirect=["stage"],
)
def test_the_same_command_brings_all_to_its_end_wherever_it_was_killed(
    stage: Stage, fewest: int, each: int
) -> None:
    """At each boundary, or at each third."""
    assert stage.play(None).problems == []
    passed, without_change = stage.passed(None), stage.without_change()
    assert len(passed) >= fewest
    assert [line for line in passed if line.startswith(UNWATCHED)] == []
    kills = [
        Kill(ANY, when, number)
        for number, line in enumerate(passed, 1)
        for when in ("before", "after")
        if (line.endswith(MOVED) if when == "before" else number not in without_change)
    ]
    kills += stage.within_commits()
    assert kills[0] == Kill(ANY, "before", 1)
    # Two calls that only ask may overlap, and count as changes then, or not: 14 of 24 or 11.
    assert len(kills) > len(passed) * 0.4
    kills = kills[::each]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        ended = dict(zip(kills, threads.map(stage.play, kills), strict=True))
    # A run that waits longer may pass more of them.
    last = Kill(ANY, "after", len(passed))
    while last.number == len(passed) or ended[last].struck:
        last = replace(last, number=last.number + 1)
        ended[last] = stage.play(last)
    assert [problem for one in ended.values() for problem in one.problems] == []
    # And one that waits for less may pass fewer.
    sure = len(passed) - 2
    assert [
        kill
        for kill in kills
        if kill.point == ANY and kill.number <= sure and not ended[kill].struck
    ] == []


@pytest.mark.parametrize("stage", [f"run{IN_POSTGRES}"], indirect=True)
def test_a_run_in_postgres_goes_on_after_a_kill_at_some_commits_and_calls(stage: Stage) -> None:
    assert stage.play(None).problems == []
    within = stage.within_commits()
    kills = [within[0], *within[3::4], Kill("call", "after", 3), Kill("call", "before", 4)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        ended = list(threads.map(stage.play, kills))
    assert [problem for one in ended for problem in one.problems] == []
    assert [kill for kill, one in zip(kills, ended, strict=True) if not one.struck] == []
