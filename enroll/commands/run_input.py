"""What a run works with: its manifest and its files, checked before the ledger is held or a call
made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enroll import __version__, clock
from enroll.allowed import GROUP_ID_NEEDED
from enroll.engine.address import check_dask
from enroll.errors import EnrollError, UsageError
from enroll.facesearch.answers import why_fixed
from enroll.ledger import BlockList, CachedScan, LibraryIdentity, fingerprint, ledger_at
from enroll.manifest.manifest import READER_VERSION, Manifest, manifest_from_json, open_manifest
from enroll.manifest.results import check_results, default_results_path
from enroll.manifest.source import Source
from enroll.model import RESULTS
from enroll.photos import PhotoStore, check_installed, limit_memory, marks
from enroll.settings import EngineName, ManifestOptions, RunSettings, default_ledger_path, host_of
from enroll.text.files import InUse, Output, check_new_file


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInput:
    """What a run works with, checked as far as possible before the ledger is held or a call is
    made. `results` is None if none are to be written. `began` and `until` are on the monotonic
    clock."""

    settings: RunSettings
    manifest: Manifest
    ledger: Path
    results: Path | None
    began: float
    until: float


def prepare(settings: RunSettings) -> RunInput:
    """Read the manifest's head and check the settings. Raises UsageError for what a run cannot do,
    and for results that must not or cannot be written, before a run of hours."""
    began = clock.monotonic()
    if not settings.group_id:
        raise UsageError(GROUP_ID_NEEDED)
    for reason in filter(None, map(why_fixed, settings.on_code)):
        raise UsageError(f"Invalid value for '--on-code': {reason}")
    check_installed(settings.preparation)
    if settings.engine is EngineName.DASK:
        check_dask(settings.scheduler)
    limit_memory(settings.memory, max_pixels=settings.max_pixels)
    until = began + (math.inf if settings.max_duration is None else settings.max_duration)
    manifest = _recall_or_open(settings, until=until)
    ledger, results = ledger_path(settings), results_path(settings)
    if results is not None:
        output = Output(path=results, option="--results")
        in_use = InUse(ledger=ledger, manifests=[settings.manifest], files=settings.in_use)
        check_new_file(output, in_use)
        check_results(manifest, results)
    return RunInput(
        settings=settings,
        manifest=manifest,
        ledger=ledger,
        results=results,
        began=began,
        until=until,
    )


def results_path(settings: RunSettings) -> Path | None:
    """Where a run's results go; None for nowhere."""
    if not settings.write_results:
        return None
    return settings.results or default_results_path(settings.manifest)


def ledger_path(settings: RunSettings) -> Path:
    """The ledger's absolute path. Raises UsageError if there is no place for it."""
    named = settings.ledger or default_ledger_path(settings.endpoint, settings.group_id)
    return named.absolute()


def named_library(settings: RunSettings) -> LibraryIdentity:
    """The library that the settings name, before the service was asked when it was created."""
    return LibraryIdentity(host=host_of(settings.endpoint), group_id=settings.group_id, add_time="")


def check_beside_results(
    output: Output,
    settings: RunSettings,
    *,
    ledger: Path | None,
    others: Mapping[str, Path] | None = None,
) -> None:
    """Raise UsageError for a further output file of a run that must not or cannot be written;
    `others` are its other outputs, by what they are."""
    files = dict(others or {})
    files |= {what: path for what, path in settings.in_use.items() if path is not output.path}
    if (results := results_path(settings)) is not None:
        files[RESULTS] = results
    in_use = InUse(
        ledger=ledger,
        manifests=[settings.manifest],
        results=results_on_record(ledger),
        files=files,
    )
    check_new_file(output, in_use)


def results_on_record(ledger: Path | None) -> Sequence[Path]:
    """The results that runs were to write, as far as the ledger knows, if it is there."""
    with suppress(EnrollError):  # what is wrong with the ledger is said when it is opened
        if ledger is not None and (store := ledger_at(ledger)).exists():
            with closing(store.read()) as reader:
                return reader.results()
    return ()


def _recall_or_open(settings: RunSettings, *, until: float) -> Manifest:
    """The manifest, using what the ledger remembers of a file with the same content, if anything.
    Reading it ends at `until` (monotonic) with TimeOverError."""
    source = Source.of(settings.manifest, settings.sheet, id_from=settings.id_from, until=until)
    known = None
    with suppress(EnrollError):  # what is wrong with the ledger is said when it is opened
        store = ledger_at(ledger_path(settings))
        if store.exists():
            with closing(store.read()) as reader:
                known = reader.last_scan()
    if known is not None:
        key, remembered = json.loads(known.manifest)
        if key == manifest_key(settings, source.sha256):
            return manifest_from_json(source, remembered)
    return open_manifest(settings.manifest, source=source, **settings.manifest_options)


def manifest_key(settings: RunSettings, sha256: str) -> list[Any]:
    """What a manifest's rows depend on, besides the photos' folder; the same after JSON."""
    options = settings.manifest_options
    columns = dict(sorted(options["columns"].items()))
    plain = {**options, "columns": columns, "id_from": list(options["id_from"])}
    return [__version__, READER_VERSION, sha256, plain]


def options_of_key(key: Sequence[Any]) -> ManifestOptions:
    """The options in a `manifest_key`; none of one that another version made."""
    if list(key[:2]) != [__version__, READER_VERSION]:
        return {}
    options: ManifestOptions = key[3]
    return {**options, "id_from": tuple(options["id_from"])}


def scan_record(
    settings: RunSettings, manifest: Manifest, store: PhotoStore, forgotten: BlockList
) -> CachedScan:
    """What a scan is recorded as; its parts are not known yet.

    The fingerprint is of all that decides which rows are due, besides photos and ledger: of the
    settings and of how the manifest has found its photos in the store, then a dot, then of the
    manifest's content.
    """
    due_rules = [settings.due_rules(), marks(settings.preparation)]
    key = manifest_key(settings, "")
    mark = fingerprint(
        *key,
        store.root,
        manifest.found_by,
        due_rules,
        forgotten.mark,
    )
    return CachedScan(
        fingerprint=f"{mark}.{manifest.sha256}",
        manifest=json.dumps([manifest_key(settings, manifest.sha256), manifest.to_json()]),
        parts=0,
    )
