"""Frozen settings: everything that decides what a run does, and where its ledger is."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypedDict
from urllib.parse import quote, urlsplit

import platformdirs

from enroll.addresses import LedgerAddress, is_url
from enroll.allowed import (
    LEAST_MEMORY,
    MIN_FACE_ALONE,
    SCHEDULER_ALONE,
    check_settings,
    wrong_choice,
)
from enroll.errors import UsageError
from enroll.expiry import DEFAULT_SETTLE_AFTER, DEFAULT_TIMEOUT
from enroll.model import RESULTS, SendAs
from enroll.timetable import Timetable
from enroll.visible import path_text

DEFAULT_MAX_SIDE = 4096
"""Pixels per side; the limit of the vendor's other services."""

DEFAULT_MAX_BYTES = 2_000_000
"""The service refuses requests above 2 MiB (413); this leaves 97 kB for the form around a photo."""

DEFAULT_MAX_PIXELS = 100_000_000
"""Not a limit of the service; photos of portable cameras have fewer."""

DEFAULT_READERS, DEFAULT_BUCKET_READERS = 16, 32
"""A bucket 20 ms away gives 700 or 1,300 photos a second, one 100 ms away 150 or 300, measured."""

DECODING_BYTES = 200_000_000
"""Memory for one picture: decoding it, and all that is done to it. Allowing more pixels than the
default allows proportionally more memory."""


def decoding_limit(max_pixels: int) -> int:
    """Bytes for decoding one picture, if a photo may have so many pixels."""
    return max(DECODING_BYTES, DECODING_BYTES * max_pixels // DEFAULT_MAX_PIXELS)


def least_memory(max_pixels: int) -> int:
    """Bytes for a process that prepares photos of up to so many pixels, one at a time."""
    return LEAST_MEMORY - DECODING_BYTES + decoding_limit(max_pixels)


class Precheck(StrEnum):
    """What to do with a photo without a face, or with no certain single face."""

    OFF = "off"
    """Faces are not looked for."""
    WARN = "warn"
    """It is sent, with a warning."""
    HOLD = "hold"
    """It is not sent."""


class Lookalikes(StrEnum):
    """What to do with a new face that looks like another person in the library."""

    OFF = "off"
    """The library is not searched for it."""
    WARN = "warn"
    """It is added, with a warning."""
    HOLD = "hold"
    """It is not added; a person decides."""


LOCAL = "local"
"""A scheduler and workers on this machine, one for each core."""


class EngineName(StrEnum):
    """Who reads photos and makes calls."""

    THREADS = "threads"
    """This process."""
    DASK = "dask"
    """Workers of Dask."""


@lru_cache
def heif_installed() -> bool:
    """Whether HEIC can be read: the extra `heif` is installed."""
    return find_spec("pillow_heif") is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """Limits for a photo, and what may be done to it.

    `max_pixels` is the limit for the file, before anything is decoded; `max_side` (pixels) and
    `max_bytes` are for what is sent. Without `convert` only JPEG, PNG and BMP are sent, in colours
    that need no conversion. With `accept_truncated` a photo whose end is missing is sent as far as
    it goes. `heif` says whether HEIC can be read here.

    `precheck` looks for faces in what would be sent, with `multi_oriented_detection` also in
    rotated copies, as the service does; `min_face` is the smallest side of a face in pixels of that
    photo, 0 for the precheck's own limit.
    """

    max_side: int = DEFAULT_MAX_SIDE
    max_bytes: int = DEFAULT_MAX_BYTES
    max_pixels: int = DEFAULT_MAX_PIXELS
    convert: bool = True
    accept_truncated: bool = False
    precheck: Precheck = Precheck.OFF
    min_face: int = 0
    multi_oriented_detection: bool = False
    heif: bool = field(default_factory=heif_installed)


DEFAULT_PREPARATION = Preparation()
"""The defaults."""

SEARCH_PREPARATION = Preparation(accept_truncated=True)
"""For a photo to search with: it may have been enrolled under any settings."""


LOOKALIKE_SCORE = 85.0
"""The score from which a face of another person is taken for the same person: by the service's
documentation one false acceptance in 100,000 comparisons in a library of up to 100,000 faces, and
one in 10,000 in a larger one."""

UNLIKE_SCORE = 60.0
"""The score below which two photos of one person do not resemble each other. The lowest threshold
that the service recommends, 75, still lets one of 1,000 strangers pass."""

DEFAULT_ENDPOINT = "https://api-sgp.yljz.com"
"""The service's base URL in Singapore, where the vendor's documentation points."""


class FailOn(StrEnum):
    """Which rejected, invalid, failed or held rows make exit code 1."""

    ANY = "any"
    NEW = "new"
    """Only those that became so in this run."""
    NONE = "none"


def files_record(files: Mapping[str, Path | None]) -> dict[str, str]:
    """Files that a command wrote or was given, by description, as a ledger keeps them: absolute
    paths. They may name people."""
    return {what: path_text(path.absolute()) for what, path in files.items() if path is not None}


class Language(StrEnum):
    """Languages that a report for people can be written in."""

    EN = "en"
    DE = "de"
    ZH = "zh"


class CodeRule(StrEnum):
    """What `--on-code` does about an answer that says that nothing was added."""

    REJECT = "reject"
    RETRY = "retry"
    STOP = "stop"


_CHOICES: Mapping[str, type[StrEnum]] = {
    "send_as": SendAs,
    "precheck": Precheck,
    "lookalikes": Lookalikes,
    "fail_on": FailOn,
    "engine": EngineName,
}
"""Settings that are enums; text is accepted, too."""

INVALID_BOUND = "{!r} is neither a number nor a share, such as 25 or 1%."
"""What is said of a bound that is none."""


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper limit: a number, or a percentage of a whole."""

    number: float
    percent: bool = False

    def __post_init__(self) -> None:
        """Raise UsageError for a number that is negative, infinite, or not whole without
        percent."""
        right = math.isfinite(self.number) and self.number >= 0
        if not right or not (self.percent or float(self.number).is_integer()):
            raise UsageError(INVALID_BOUND.format(f"{self.number}{'%' if self.percent else ''}"))

    def most(self, whole: int, *, least: int = 0) -> int:
        """The limit as a number, out of `whole`. A percentage other than 0 % allows at least
        `least`."""
        if not (self.percent and self.number):
            return int(self.number)
        return max(least, int(whole * self.number / 100 + 1e-9))

    def __str__(self) -> str:
        whole = float(self.number).is_integer()
        return f"{int(self.number) if whole else self.number}{'%' if self.percent else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSettings:
    """How calls are made: the seconds that a whole one may take, certificates to trust instead of
    the system's, and whether an endpoint without TLS will do."""

    timeout: float = DEFAULT_TIMEOUT
    ca_bundle: Path | None = None
    allow_http: bool = False


class ManifestOptions(TypedDict, total=False):
    """The options that decide how a manifest is read, as `open_manifest` takes them."""

    columns: Mapping[str, str]
    encoding: str | None
    sheet: str | None
    header_row: int | None
    delimiter: str | None
    photo: str | None
    id_from: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings(CallSettings):
    """Everything that decides what a run does; docs/reference.md describes each option.

    `id_from` are templates for a manifest that is a folder of photos; none is the file's name.
    `ledger` None: the library's default path. `images` None: the folder last used with the ledger,
    else the manifest's. `results` None: beside the manifest. `max_in_flight`
    None: as many as the account takes; `rate` is the most calls a second, by the time of day if it
    is a timetable. `scheduler` is what `--engine dask` connects to: `local`, `local:N` or the
    address of a scheduler. `memory` is bytes, None: see `enroll.photos.limit_memory`. Times are
    seconds.
    `origins` says of a setting where it came from, for the user to read. `in_use` are further
    files that nothing may be written over, by what they are in words: "the credentials file";
    `written` are those that are written beside the results, in the same way.
    """

    command: ClassVar[str] = "run"
    """The command's name on record."""

    renews: ClassVar[bool] = False
    """Whether faces whose row has another text are added again."""

    manifest: Path
    group_id: str
    endpoint: str = DEFAULT_ENDPOINT
    ledger: Path | None = None
    images: Path | None = None
    results: Path | None = None
    write_results: bool = True
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    sheet: str | None = None
    header_row: int | None = None
    delimiter: str | None = None
    photo: str | None = None
    id_from: Sequence[str] = ()
    max_in_flight: int | None = None
    rate: float | Timetable | None = None
    attempts: int = 5
    give_up_after: float = 7200.0
    credentials_grace: float = 120.0
    drain: float = 25.0
    settle_after: float = DEFAULT_SETTLE_AFTER
    multi_oriented_detection: bool = False
    max_side: int = DEFAULT_MAX_SIDE
    max_bytes: int = DEFAULT_MAX_BYTES
    max_pixels: int = DEFAULT_MAX_PIXELS
    convert: bool = True
    accept_truncated: bool = False
    precheck: Precheck = Precheck.OFF
    min_face: int = 0
    lookalikes: Lookalikes = Lookalikes.OFF
    send_as: SendAs = SendAs.FILE
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    readers: int | None = None
    engine: EngineName = EngineName.THREADS
    scheduler: str = LOCAL
    memory: int | None = None
    max_calls: int | None = None
    max_duration: float | None = None
    retry: frozenset[str] = frozenset()
    on_code: Mapping[str, CodeRule] = field(default_factory=dict)
    fail_on: FailOn = FailOn.ANY
    checksum: bool = False
    allow_nonempty: bool = False
    create_library: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)
    in_use: Mapping[str, Path] = field(default_factory=dict)
    written: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise UsageError for what the command line refuses, with the same message. Enums may be
        given as text."""
        check_settings(self)
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if wrong := wrong_choice(value, kind):
                raise UsageError(f"Invalid value for '--{name.replace('_', '-')}': {wrong}")
            object.__setattr__(self, name, kind(value))  # text becomes a member
        for rule in self.on_code.values():
            if wrong := wrong_choice(rule, CodeRule):
                raise UsageError(f"Invalid value for '--on-code': {wrong}")
        rules = {code: CodeRule(rule) for code, rule in self.on_code.items()}
        object.__setattr__(self, "on_code", rules)
        if isinstance(self.id_from, str):
            object.__setattr__(self, "id_from", (self.id_from,))
        if self.scheduler != LOCAL and self.engine is EngineName.THREADS:
            raise UsageError(SCHEDULER_ALONE)
        if self.min_face and self.precheck == Precheck.OFF:
            raise UsageError(MIN_FACE_ALONE)
        if self.memory is not None and self.memory < (least := least_memory(self.max_pixels)):
            raise UsageError(
                f"A photo of {self.max_pixels:,} pixels, which --max-pixels allows, needs more "
                f"memory than --memory does. Raise --memory to {math.ceil(least / 1e6)}MB, or "
                "lower --max-pixels."
            )

    @property
    def reading(self) -> int:
        """How many photos are read at a time."""
        of_bucket = any(is_url(str(place)) for place in (self.images, self.manifest))
        return self.readers or (DEFAULT_BUCKET_READERS if of_bucket else DEFAULT_READERS)

    @property
    def manifest_options(self) -> ManifestOptions:
        """How the manifest is read."""
        return {
            "columns": self.columns,
            "encoding": self.encoding,
            "sheet": self.sheet,
            "header_row": self.header_row,
            "delimiter": self.delimiter,
            "photo": self.photo,
            "id_from": self.id_from,
        }

    def due_rules(self) -> list[Any]:
        """The settings that decide which rows are due: when they change, all rows are compared
        again."""
        return [
            self.sample is not None,
            self.multi_oriented_detection,
            sorted(self.retry),
            self.checksum,
            asdict(self.preparation),
        ]

    @property
    def preparation(self) -> Preparation:
        """How photos are prepared. As Base64 text a photo is a third larger."""
        in_text = self.send_as is SendAs.IMAGE
        return Preparation(
            max_side=self.max_side,
            max_bytes=self.max_bytes * 3 // 4 if in_text else self.max_bytes,
            max_pixels=self.max_pixels,
            convert=self.convert,
            accept_truncated=self.accept_truncated,
            precheck=self.precheck,
            min_face=self.min_face,
            multi_oriented_detection=self.multi_oriented_detection,
        )

    def record(self) -> dict[str, Any]:
        """The settings that a ledger keeps of a run: plain values, without secrets."""
        return {
            "group_id": self.group_id,
            "endpoint": self.endpoint,
            "images": path_text(self.images or ""),
            "max_in_flight": self.max_in_flight or "auto",
            "rate": str(self.rate) if isinstance(self.rate, Timetable) else self.rate,
            "timeout": self.timeout,
            "settle_after": self.settle_after,
            "attempts": self.attempts,
            "multi_oriented_detection": self.multi_oriented_detection,
            "send_as": self.send_as.value,
            "preparation": asdict(self.preparation),
            "lookalikes": self.lookalikes.value,
            "limit": self.limit,
            "max_duration": self.max_duration,
            "sample": self.sample,
            "retry": sorted(self.retry),
            "on_code": {code: rule.value for code, rule in sorted(self.on_code.items())},
            "checksum": self.checksum,
        }

    @property
    def files(self) -> dict[str, str]:
        """What a ledger keeps of the run's files; see `files_record`."""
        return files_record({RESULTS: self.results, **self.written})


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings(RunSettings):
    """The settings of a sync; `grace` is in days, `differences` is a CSV to write."""

    command: ClassVar[str] = "sync"
    renews: ClassVar[bool] = True

    give_up_after: float = 600.0
    fail_on: FailOn = FailOn.NEW
    max_removals: Bound = Bound(1, percent=True)
    max_changes: Bound = Bound(10, percent=True)
    max_missing: Bound = Bound(10, percent=True)
    grace: float = 2.0
    differences: Path | None = None

    def __post_init__(self) -> None:
        """As for a run; also raise UsageError for a limit that is not a Bound, or allows more than
        there are."""
        RunSettings.__post_init__(self)
        for name in ("max_removals", "max_changes", "max_missing"):
            value, option = getattr(self, name), f"--{name.replace('_', '-')}"
            if not isinstance(value, Bound):
                raise UsageError(
                    f"Invalid value for '{option}': {value!r} is not a Bound, such as "
                    "enroll.settings.Bound(25)."
                )
            # A library may more than double, so changes have no such limit.
            if name != "max_changes" and value.percent and value.number > 100:
                raise UsageError(f"Invalid value for '{option}': {value} is more than 100%.")

    def record(self) -> dict[str, Any]:
        """As for a run, and the settings that only a sync has."""
        return {
            **RunSettings.record(self),
            "max_removals": str(self.max_removals),
            "max_changes": str(self.max_changes),
            "max_missing": str(self.max_missing),
            "grace": self.grace,
        }


def host_of(endpoint: str) -> str:
    """The host of an endpoint's URL, without the port; names the folder of its ledgers."""
    return (urlsplit(endpoint).hostname or "").lower()


def ledgers_folder() -> Path:
    """The folder of ledgers without --ledger. Raises UsageError without a home folder."""
    if not (os.environ.get("XDG_STATE_HOME") or _has_home()):
        raise UsageError("There is no home folder for the ledger. Name a place with --ledger FILE.")
    return platformdirs.user_state_path("enroll")


def _has_home() -> bool:
    try:
        home = Path.home()
    except RuntimeError:
        return False
    return home.is_dir() and home != Path("/")


_LONGEST_NAME = 255 - len("-journal")
"""Bytes of a ledger's name: what file systems allow, less the longest suffix that SQLite adds."""


def default_ledger_path(endpoint: str, group_id: str) -> Path:
    """The path of a library's ledger without --ledger. Raises UsageError when its name would be too
    long."""
    name = f"{quote(group_id, safe='')}.sqlite"
    if len(name) > _LONGEST_NAME:
        raise UsageError(
            "The group_id is longer than a file's name may be. Correct --group-id (`enroll library "
            "list` shows them), or name the ledger with --ledger FILE."
        )
    return ledgers_folder() / host_of(endpoint) / name


def beside(ledger: Path, ending: str) -> Path:
    """A file that belongs to a ledger, by the end of its name. It is beside the ledger; of one in a
    database it is below the user's state folder. Raises UsageError without a home folder."""
    if not isinstance(ledger, LedgerAddress):
        return ledger.with_name(f"{ledger.name}{ending}")
    name = blake2b(str(ledger).encode(), digest_size=16).hexdigest()
    return ledgers_folder() / "postgresql" / f"{name}{ending}"


def find_ledger(*, ledger: Path | None, endpoint: str | None, group_id: str | None) -> Path:
    """The ledger for a command without a manifest: the one named, a library's, or the only one.

    Raises UsageError when there is none, or several.
    """
    found = known_ledger(ledger=ledger, endpoint=endpoint, group_id=group_id)
    if found is None:
        whose = "" if group_id is None else f" of the library {group_id}"
        folder = _ledgers_of(endpoint)
        raise UsageError(
            f"There is no ledger{whose} below {folder}. Name one with --ledger FILE; the first "
            "`enroll run` of a library creates its ledger."
        )
    return found


def known_ledger(*, ledger: Path | None, endpoint: str | None, group_id: str | None) -> Path | None:
    """The same, None when there is none; the one named, and that of a named library at a named
    endpoint, may not exist. Raises UsageError when there are several."""
    if ledger is not None:
        return ledger
    if group_id is not None and endpoint is not None:
        return default_ledger_path(endpoint, group_id)
    name = "*" if group_id is None else quote(group_id, safe="")
    pattern = f"{'*/' if endpoint is None else ''}{name}.sqlite"
    found = sorted(_ledgers_of(endpoint).glob(pattern))
    if len(found) <= 1:
        return found[0] if found else None
    listed = ", ".join(str(path) for path in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise UsageError(
        f"There are {len(found)} ledgers: {listed}{more}. Choose one with --ledger or --group-id."
    )


def _ledgers_of(endpoint: str | None) -> Path:
    return ledgers_folder() if endpoint is None else ledgers_folder() / host_of(endpoint)
