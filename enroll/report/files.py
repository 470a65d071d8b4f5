"""`enroll report`: which files are written, and what is said about them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from enroll import clock
from enroll.errors import LocalError, UsageError
from enroll.ledger import read_ledger
from enroll.ownership import make_folder
from enroll.photos import limit_memory
from enroll.report.findings import Asked, Findings, Scope, gather
from enroll.report.page import write_page
from enroll.report.pictures import Pictures
from enroll.report.sections import PageSettings
from enroll.report.texts import texts_of
from enroll.report.workbook import write_workbook
from enroll.settings import Language
from enroll.text.files import InUse, Output, check_new_file, check_output
from enroll.text.wording import amount

HTML, XLSX = ".html", ".xlsx"

_NEEDED: Mapping[str, Sequence[str]] = {HTML: ("jinja2",), XLSX: ("xlsxwriter",)}
"""Packages of the extra `report` that a suffix needs."""

_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))}
)
"""Names that Windows keeps for devices, whatever their suffix."""

_LONGEST_NAME = 120
"""Bytes of a file's name before its suffix: new files begin with a longer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """What is written where; docs/reference.md describes each option. `max_bytes` is of one file,
    `memory` as for a run. `in_use` are files that must not be overwritten, by what they are."""

    output: Path
    asked: Asked
    language: Language = Language.EN
    most_pictures: int = 2_000
    max_bytes: int = 25_000_000
    memory: int | None = None
    in_use: Mapping[str, Path] = field(default_factory=dict)


def write_reports(settings: ReportSettings) -> Iterator[str]:
    """Write the report, or one for each value of --by; yields what to say about it.

    Raises UsageError before anything is read or written for what cannot be done.
    """
    suffix = _suffix(settings)
    _need(suffix)
    asked = settings.asked
    if asked.split and asked.by is None:
        raise UsageError("--split writes a file for each value of a column: name it with --by.")
    limit_memory(settings.memory)
    with closing(read_ledger(asked.ledger)) as reader:
        manifests = [*reader.manifests(), *([asked.manifest] if asked.manifest else [])]
        results = reader.results()
    in_use = InUse(ledger=asked.ledger, manifests=manifests, results=results, files=settings.in_use)
    if not asked.split:
        check_new_file(_output(settings.output), in_use)
    elif settings.output.exists() and not settings.output.is_dir():
        raise UsageError(
            f"OUTPUT {settings.output} is a file, and --split writes into a folder. Give another "
            "name."
        )
    findings = gather(asked)
    if findings.missing:
        yield f"Note: {findings.missing} The report shows every entry of the ledger."
    if not asked.split:
        (scope,) = findings.scopes
        pictures = _write(settings.output, findings, scope, settings)
        yield _told(scope, settings.output, pictures)
        return
    paths = _paths(settings.output, findings.scopes, suffix)
    for path in paths:
        check_output(_output(path), in_use)
    try:
        make_folder(settings.output)
    except OSError as error:
        raise LocalError(
            f"The folder {settings.output} cannot be made: {error.strerror}. Name another."
        ) from error
    for path, scope in zip(paths, findings.scopes, strict=True):
        yield _told(scope, path, _write(path, findings, scope, settings))
    yield from _left(findings, settings.output, len(paths))


def _left(findings: Findings, folder: Path, written: int) -> Iterator[str]:
    """What is in none of the files, and what else is in their folder."""
    if findings.stray:
        verb = "is" if findings.stray == 1 else "are"
        yield (
            f"{amount(findings.stray, 'pair')} of faces {verb} in no file, as neither person is in "
            "the list: a report without --split shows them."
        )
    others = sum(1 for _ in folder.iterdir()) - written
    if others:
        left = "was left as it was" if others == 1 else "were left as they were"
        yield f"{amount(others, 'other file')} in {folder} {left}."


def _suffix(settings: ReportSettings) -> str:
    suffix = settings.output.suffix.lower()
    if suffix in _NEEDED:
        return suffix
    if settings.asked.split:  # into a folder of any name
        return HTML
    raise UsageError(
        f"{settings.output} does not show which kind of report you want; end its name in .html or "
        ".xlsx."
    )


def _need(suffix: str) -> None:
    for package in _NEEDED[suffix]:
        if find_spec(package) is None:
            raise UsageError(
                f"A report needs the package {package}: run `pip install 'enroll[report]'`."
            )


def _output(path: Path) -> Output:
    return Output(path=path, option="OUTPUT", content="a report, .html or .xlsx")


def _write(path: Path, findings: Findings, scope: Scope, settings: ReportSettings) -> Pictures:
    write = write_workbook if path.suffix.lower() == XLSX else write_page
    return write(
        path,
        findings,
        scope,
        texts_of(settings.language),
        PageSettings(
            max_bytes=settings.max_bytes,
            most_pictures=settings.most_pictures,
            made=datetime.fromtimestamp(clock.time(), UTC),
            ledger=settings.asked.ledger,
            statuses=settings.asked.statuses,
            masked=settings.asked.mask,
        ),
    )


def _told(scope: Scope, path: Path, pictures: Pictures) -> str:
    left = f"; {amount(pictures.left_out, 'picture')} left out" if pictures.left_out else ""
    need = "needs" if scope.in_need == 1 else "need"
    compared = scope.pair_counts.total()
    pairs = f"{amount(compared, 'pair')} of faces to compare, " if compared else ""
    return (
        f"{path}: {amount(scope.total, 'row')}, {scope.in_need:,} {need} a person, "
        f"{pairs}{amount(len(pictures.made), 'picture')}{left}."
    )


def _paths(folder: Path, scopes: Sequence[Scope], suffix: str) -> list[Path]:
    """A file for each scope; names that differ only in what a file's name cannot hold, or in
    letter case, get a number."""
    paths: list[Path] = []
    taken: set[str] = set()
    for scope in scopes:
        name = base = safe_name(scope.value or "")
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{base} ({number})"
        taken.add(name.casefold())
        paths.append(folder / f"{name}{suffix}")
    return paths


def safe_name(value: str) -> str:
    """A value as a file's name on any system, without a suffix; `_` for an empty one."""
    text = unicodedata.normalize("NFC", value)
    kept = "".join(one if one.isalnum() or one in " -_.,&+()'" else "_" for one in text)
    kept = kept.strip(" .")
    while len(kept.encode()) > _LONGEST_NAME:
        kept = kept[:-1]
    kept = kept.strip(" .") or "_"
    return f"_{kept}" if kept.split(".")[0].casefold() in _RESERVED else kept
