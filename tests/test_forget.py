"""enroll forget: a person's faces and data go, nothing of them stays, and nobody adds them again."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checked_library import GROUP, Place, Told

from enroll import asking
from enroll.errors import ExitCode
from enroll.forget import Forgotten, ForgetSettings, forget, readmit
from enroll.ledger.files import read_ledger
from enroll.model import Status
from enroll.sandbox import Sandbox

ADA = "ada-8400123"
"""A user_id that is nowhere part of anything else."""


@pytest.fixture(autouse=True)
def _short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "BACK_OFF_SECONDS", 0.01)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(detect=False, fault_lag=600.0) as running:
        running.create_library(GROUP)
        yield running


@pytest.fixture
def place(box: Sandbox, tmp_path: Path) -> Place:
    """Two people and Ada, enrolled by run 1."""
    there = Place(tmp_path, box)
    there.people(1, 2)
    there.photo("ada-portrait.jpg", 99)
    there.rows.append((ADA, "Ada Lovelace", "ada-portrait.jpg"))
    there.run()
    return there


def forgotten(place: Place, *people: str, told: Told | None = None, **changed: Any) -> Forgotten:
    settings = ForgetSettings(ledger=place.ledger, people=people or (ADA,))
    return forget(replace(settings, **changed), lambda: place.credentials, told or Told())


def there(place: Place) -> list[str]:
    """Whose faces the library holds."""
    return sorted(face.user_id for face in place.box.faces(GROUP))
