"""Enroll an archive through every kind of trouble and some SIGKILLs, then compare the ends.

    python benchmarks/soak.py --rows 2000 --faults 0.15 --kills 5 --seeds 1

The stand-in runs in this process, `enroll run` as a process of its own, which is killed at random
moments and started again until it has nothing left to do. Then the library (what the stand-in
holds), the ledger, the results and the photos' own bytes are compared: no face twice, none lost,
every token with the right person and photo. Exit code 1 when anything else is found.
"""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, fields
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import click
from nightly.ledgers import Database, FilePlace, LedgerPlace, libpq_environ
from nightly.ledgers import database as open_database
from PIL import Image
from suite import bucket

from enroll.ledger import read_ledger
from enroll.model import EventKind, Status
from enroll.sandbox import Limits, Sandbox

LIBRARY = "soak"
TIMEOUT = 2.0
SETTLE_AFTER = 2.0
FAULT_LAG = 1.0
"""Seconds, short for speed. Sound all the same: the stand-in applies whatever it applies before
TIMEOUT + 2 (the signature's expiry) + SETTLE_AFTER."""

STEADY_LAG, SHORT_SETTLE_AFTER = 9.5, 1.0
"""Seconds for which every new face stays unseen in every second seed (the even ones), and how long
these runs wait to look: a run that took no account of the lag would have looked twice by then."""

IN_FLIGHT = 16
LATENCY = 0.02
"""Seconds a call: what makes calls overlap, and kills meet them."""

MOST_RUNS = 12
"""Runs after the last kill. Two or three do; what is not done by then is reported as lost."""

ADD_FAULTS = (
    *("500-before", "500-after", "502-before", "502-after", "503-before", "503-after"),
    *("504-before", "504-after", "timeout-before", "timeout-after", "reset-before", "reset-after"),
    *("cut-before", "cut-after", "not-json-before", "not-json-after", "no-token-before"),
    *("no-token-after", "drip-before", "drip-after", "drip-body-after", "endless-after"),
    *("late", "late", "late", "stale", "refused", "429", "unknown-code", "html-403", "search-lag"),
)
"""What an `add` may meet, each as likely as the others; `late` three times, as it is the worst."""

FATAL_FAULTS = ("auth", "redirect")
FATAL_SHARE = 0.005
"""What ends a run with exit code 3, and how much of all trouble it is: once or twice a seed."""

SERVER_SHARE = 0.7
"""How many kills strike the ledger's server, too, where it is in one: before the command is killed,
which may have stopped by then, or gone on."""

LOOK_FAULTS = ("500", "503", "reset", "cut", "not-json", "no-token", "refused", "timeout", "stale")
"""What the looks of settling meet (`search` and `list`)."""


def fault_plan(share: float) -> dict[str, float]:
    """Faults by name with their probabilities, which add up to `share` of all calls of a kind."""
    plan: dict[str, float] = {}
    fatal = share * FATAL_SHARE
    for fault, times in Counter(ADD_FAULTS).items():
        plan[fault] = times * (share - fatal) / len(ADD_FAULTS)
    for fault in FATAL_FAULTS:
        plan[fault] = fatal / len(FATAL_FAULTS)
    for fault in LOOK_FAULTS:
        plan[f"search:{fault}"] = plan[f"list:{fault}"] = share / len(LOOK_FAULTS)
    return plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What one seed came to; the last four counts must be 0."""

    seed: int
    rows: int
    runs: int
    kills: int
    calls: int
    faults: int
    adopted: int
    absent: int
    seconds: float
    duplicates: int
    lost: int
    differing: int
    surplus: int
    details: list[str] = field(default_factory=list)

    @property
    def bad(self) -> bool:
        return bool(self.duplicates or self.lost or self.differing or self.surplus)


@dataclass
class Soak:
    """An archive in a folder: manifest lines, and those that can never be enrolled."""

    folder: Path
    chance: random.Random
    settle_after: float = SETTLE_AFTER
    bucket: Mapping[str, str] = field(default_factory=dict)
    """What the environment has to hold for the photos to be read from a bucket; empty where they
    are read from the folder."""
    dask: bool = False
    place: LedgerPlace = field(init=False)
    rows: list[tuple[str, str]] = field(default_factory=list)
    hopeless: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.place = FilePlace(self.folder)

    def draw(self, count: int) -> None:
        """Write so many manifest lines and the pictures that they name: every tenth person has
        two or three, some picture stands under two people, some line is said twice or bad."""
        (self.folder / "photos").mkdir(parents=True)
        person = 0
        while len(self.rows) < count:
            person += 1
            user_id = f"p{person:05}"
            for _ in range(self.chance.choice([1] * 18 + [2, 3])):
                self.rows.append((user_id, self._picture()))
            told = self.chance.random()
            if told < 0.02:
                self.rows.append((f"{user_id}-twin", self.rows[-1][1]))
            elif told < 0.03:
                self.rows.append(self.rows[-1])
            elif told < 0.04:
                self._bad_row(user_id)
        del self.rows[count:]
        self.hopeless = {line for line in self.hopeless if line < count}
        with (self.folder / "staff.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("user_id", "image"), *self.rows])

    def _picture(self) -> str:
        """A JPEG of some 2 KB, unlike every other."""
        name = f"photos/{len(self.rows):06}.jpg"
        noise = Image.frombytes("L", (8, 8), self.chance.randbytes(64))
        out = BytesIO()
        noise.resize((64, 64), Image.Resampling.NEAREST).save(out, "JPEG")
        (self.folder / name).write_bytes(out.getvalue())
        return name

    def _bad_row(self, user_id: str) -> None:
        self.hopeless.add(len(self.rows))
        kind = self.chance.choice(["missing", "no picture", "no user id"])
        if kind == "missing":
            self.rows.append((f"{user_id}-m", "photos/nowhere.jpg"))
        elif kind == "no picture":
            name = f"photos/{len(self.rows):06}.txt"
            (self.folder / name).write_text(f"no picture {len(self.rows)}", encoding="utf-8")
            self.rows.append((f"{user_id}-t", name))
        else:
            self.rows.append((f"{user_id} with spaces", self.rows[-1][1]))

    def face(self, line: int) -> tuple[str, str]:
        """Whom and what a manifest line stands for: `user_id` and SHA-256 of the photo."""
        user_id, image = self.rows[line]
        return user_id, sha256((self.folder / image).read_bytes()).hexdigest()

    def results(self) -> list[dict[str, str]]:
        path = self.folder / "staff.results.csv"
        if not path.exists():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def done(self) -> bool:
        """Whether every line that can be enrolled is."""
        lines = self.results()
        return bool(lines) and all(
            line["status"] == Status.ENROLLED
            for number, line in enumerate(lines)
            if number not in self.hopeless
        )


@contextmanager
def run(soak: Soak, box: Sandbox, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`enroll run` as a process of its own, killed if it is still there in the end."""
    command = [
        *(sys.executable, "-m", "enroll", "run", "staff.csv", "--group-id", LIBRARY),
        *("--ledger", soak.place.name, "--timeout", str(TIMEOUT)),
        *("--settle-after", str(soak.settle_after), "--max-in-flight", str(IN_FLIGHT)),
        *("--no-progress", "--config", "none.toml"),
        *(("--engine", "dask", "--scheduler", "local:2") if soak.dask else ()),
        # With a search before each face: that must change nothing of what the library holds.
        *("--lookalikes", soak.chance.choice(["off", "off", "warn"])),
        *(("--images", bucket.BUCKET) if soak.bucket else ()),
    ]
    environ = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(soak.folder),
        "ENROLL_ENDPOINT": box.endpoint,
        "ENROLL_API_KEY": box.api_key,
        "ENROLL_API_SECRET": box.api_secret,
        **soak.bucket,
        **libpq_environ(),
    }
    with (
        log.open("ab") as said,
        subprocess.Popen(
            command, cwd=soak.folder, env=environ, stdout=said, stderr=said
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def workers_of(process: int) -> list[int]:
    """The workers of Dask that a command has started; none where it has ended."""
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                if b"local_worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return found


def wait_a_moment(soak: Soak, process: subprocess.Popen[bytes]) -> None:
    """Wait at random, at most until a command has ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(soak.chance.choice([0.0, 1.0, 8.0]) * soak.chance.random())


def trouble_worker(soak: Soak, worker: int) -> None:
    """Kill a worker, or stop it until every call that it has must have expired."""
    with suppress(ProcessLookupError):
        if soak.chance.random() < 0.5:
            os.kill(worker, signal.SIGKILL)
        else:
            os.kill(worker, signal.SIGSTOP)
            time.sleep(TIMEOUT + 4.0)
            os.kill(worker, signal.SIGCONT)


def check(code: int, log: Path, *, others: Sequence[int] = ()) -> None:
    """Raise ClickException for an exit code that nothing here accounts for."""
    if code not in (0, 1, 3, 4, 6, 9, *others):
        raise click.ClickException(f"`enroll run` left with {code}; see {log}")


def enroll_through_kills(soak: Soak, box: Sandbox, *, kills: int, log: Path) -> tuple[int, int]:
    """Run, kill at random moments, run again until it is done; runs and kills that struck."""
    (soak.folder / "none.toml").touch()
    moments = sorted(soak.chance.uniform(0, 0.95 * len(soak.rows)) for _ in range(kills))
    runs = struck = 0
    while struck < kills and runs < 3 * kills and not soak.done():
        with run(soak, box, log) as process:
            runs += 1
            while box.count("add") < moments[struck] and process.poll() is None:
                box.wait_count("add", int(moments[struck]) + 1, 0.2)
            # Moments of all kinds: between calls and, two in three times, while settling.
            wait_a_moment(soak, process)
            for worker in workers_of(process.pid):  # with --engine dask
                trouble_worker(soak, worker)
                wait_a_moment(soak, process)
            struck += process.poll() is None
            if soak.place.points and soak.chance.random() < SERVER_SHARE:
                soak.place.strike(soak.chance.choice(soak.place.points))
                if soak.chance.random() < 0.5:
                    check(process.wait(), log, others=(7,))  # it has lost its session
    for _ in range(MOST_RUNS):
        with run(soak, box, log) as process:
            runs += 1
            check(process.wait(), log)
        if soak.done():
            break
    box.wait_idle(60)
    return runs, struck


def compare(soak: Soak, box: Sandbox) -> dict[str, list[str]]:
    """Library against manifest, ledger and results: what is wrong, by kind."""
    faces = box.faces(LIBRARY)
    there = Counter((face.user_id, face.sha256) for face in faces)
    of_token = {face.face_token: (face.user_id, face.sha256) for face in faces}
    wanted = {soak.face(line) for line in range(len(soak.rows)) if line not in soak.hopeless}
    duplicates = [f"{face} x {count}" for face, count in there.items() if count > 1]
    duplicates += [f"{face} was never asked for" for face in there if face not in wanted]
    lost = [f"{face} is not in the library" for face in wanted if face not in there]
    differing = []
    results = soak.results()
    for line in range(len(soak.rows)):
        told = results[line] if line < len(results) else {}
        if line in soak.hopeless:
            if told.get("status") not in (Status.INVALID, Status.FAILED):
                differing.append(f"line {line}, which is hopeless: {told}")
        elif told.get("status") != Status.ENROLLED:
            lost.append(f"line {line} is not enrolled in the results: {told}")
        elif of_token.get(told["face_token"]) != soak.face(line):
            differing.append(f"line {line}, results: {told['face_token']}")
    reader = read_ledger(soak.place.ledger(soak.folder))
    tokens = set()
    for entry in reader.entries([Status.ENROLLED]):
        tokens.add(entry.face_token)
        if of_token.get(entry.face_token) != (entry.user_id, entry.sha256):
            differing.append(f"{entry.user_id}, ledger: {entry.face_token}")
    reader.close()
    lost += [f"the token {token} is not in the ledger" for token in of_token.keys() - tokens]
    return {"duplicates": duplicates, "lost": lost, "differing": differing}


def events(soak: Soak) -> Counter[EventKind]:
    """How often each kind of event is in the ledger's history."""
    reader = read_ledger(soak.place.ledger(soak.folder))
    try:
        return Counter(event.kind for event, _ in reader.history())
    finally:
        reader.close()


def soak_once(
    folder: Path,
    *,
    seed: int,
    rows: int,
    faults: float,
    kills: int,
    in_bucket: bool,
    say: Callable[[str], None],
    dask: bool = False,
    database: Database | None = None,
) -> Findings:
    """One archive, one library, one seed."""
    chance = random.Random(seed)
    lagging = seed % 2 == 0
    settle_after = SHORT_SETTLE_AFTER if lagging else SETTLE_AFTER
    soak = Soak(folder, chance, settle_after=settle_after, dask=dask)
    if database is not None:
        soak.place = database.place(f"soak{seed}_{os.getpid()}", folder)
    soak.draw(rows)
    began = time.monotonic()
    # Applied at the latest just before --settle-after has passed since the signature's expiry.
    late_after = chance.choice([None, TIMEOUT + 1.0, TIMEOUT + 2.0 + 0.7 * soak.settle_after])
    with (
        ExitStack() as stack,
        Sandbox(
            faults=fault_plan(faults),
            seed=seed,
            latency=LATENCY,
            late_after=late_after,
            search_lag=STEADY_LAG if lagging else 0.0,
            fault_lag=FAULT_LAG,
            detect=False,
            limits=Limits(max_faces=10 * rows),
        ) as box,
    ):
        box.create_library(LIBRARY)
        if in_bucket:
            soak.bucket = stack.enter_context(bucket.running(folder))
        runs, struck = enroll_through_kills(soak, box, kills=kills, log=folder / "said.txt")
        wrong = compare(soak, box)
        calls = box.calls
        found = events(soak)
    details = [f"{kind}: {one}" for kind, ones in wrong.items() for one in ones]
    for detail in details[:20]:
        say(f"  {detail}")
    return Findings(
        seed=seed,
        rows=rows,
        runs=runs,
        kills=struck,
        calls=sum(call.kind == "add" for call in calls),
        faults=sum(bool(call.fault) for call in calls if call.kind == "add"),
        adopted=found[EventKind.ADOPTED],
        absent=found[EventKind.NOT_APPLIED],
        seconds=time.monotonic() - began,
        duplicates=len(wrong["duplicates"]),
        lost=len(wrong["lost"]),
        differing=len(wrong["differing"]),
        surplus=found[EventKind.SURPLUS],
        details=details,
    )


COLUMNS = [one.name for one in fields(Findings) if one.name != "details"]


def table_line(values: list[object]) -> str:
    """Right-aligned cells under their columns."""
    return "  ".join(
        f"{value:>{max(len(name), 6)}}" for name, value in zip(COLUMNS, values, strict=True)
    )


def cells(findings: Findings) -> list[object]:
    values = [getattr(findings, name) for name in COLUMNS]
    return [f"{value:.1f}" if isinstance(value, float) else value for value in values]


@click.command(help=__doc__)
@click.option("--rows", type=click.IntRange(1), default=2000, show_default=True)
@click.option(
    "--faults",
    type=click.FloatRange(0, 0.9),
    default=0.15,
    show_default=True,
    help="Share of calls that meet trouble.",
)
@click.option(
    "--kills",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="SIGKILLs before the run may come to its end.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many archives, one after the other.",
)
@click.option(
    "--seed", "first", type=int, default=1, show_default=True, help="The first one's seed."
)
@click.option("--bucket", "in_bucket", is_flag=True, help="Read the photos from a bucket.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Leave archives and ledgers in this folder."
)
@click.option(
    "--engine",
    type=click.Choice(["threads", "dask"]),
    default="threads",
    show_default=True,
    help="With dask two workers are killed and stopped, too.",
)
@click.option(
    "--database",
    default="",
    metavar="ADDRESS",
    help="Have the ledgers in new schemas of this database (postgresql://…), or, with `local`, of "
    "a server that is started for them. Sessions are ended; the processes of a local server are "
    "killed, too.",
)
def main(
    rows: int,
    faults: float,
    kills: int,
    seeds: int,
    first: int,
    in_bucket: bool,
    keep: Path | None,
    engine: str,
    database: str,
) -> None:
    """Print a line a seed; exit 1 when anything is wrong."""
    base = keep or Path(tempfile.mkdtemp(prefix="enroll-soak-"))
    everything: list[Findings] = []
    click.echo(table_line([*COLUMNS]))
    try:
        with open_database(database) if database else nullcontext() as found:
            for seed in range(first, first + seeds):
                folder = base / f"seed-{seed}"
                shutil.rmtree(folder, ignore_errors=True)
                findings = soak_once(
                    folder,
                    seed=seed,
                    rows=rows,
                    faults=faults,
                    kills=kills,
                    in_bucket=in_bucket,
                    say=click.echo,
                    dask=engine == "dask",
                    database=found,
                )
                everything.append(findings)
                click.echo(table_line(cells(findings)))
                if not findings.bad and keep is None:
                    shutil.rmtree(folder)
    finally:
        if keep is None and not any(findings.bad for findings in everything):
            shutil.rmtree(base)
        elif everything:
            click.echo(f"Archives, ledgers and what the runs said are in {base}.")
    bad = sum(findings.bad for findings in everything)
    total = {
        name: sum(getattr(findings, name) for findings in everything)
        for name in ("rows", "calls", "kills", "duplicates", "lost", "differing", "surplus")
    }
    click.echo(
        f"{len(everything)} seeds, {bad} of them bad: "
        + ", ".join(f"{count:,} {name}" for name, count in total.items())
    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
