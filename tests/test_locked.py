"""What `make` installs is pinned by the hashes of its files."""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
LISTS = ("alone", "run", "dev", "docs")


@lru_cache
def locked(name: str) -> dict[str, str]:
    """The pinned packages of a list with their versions; each has hashes."""
    text = (ROOT / f".ci/locked-{name}.txt").read_text(encoding="utf-8")
    found = {}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        pinned, *hashes = [line.removesuffix(" \\").strip() for line in entry.splitlines()]
        match = re.fullmatch(r"([a-z0-9._-]+)==([\w.]+)(?: ; .+)?", pinned)
        assert match, pinned
        assert hashes, pinned
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), pinned
        found[match[1]] = match[2]
    return found


@lru_cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[ ;]", one)[0].lower().replace("_", "-") for one in requirements}


@pytest.mark.parametrize("name", LISTS)
def test_every_package_is_pinned_with_hashes_and_no_index_is_named(name: str) -> None:
    assert len(locked(name)) > 10
    assert "://" not in (ROOT / f".ci/locked-{name}.txt").read_text(encoding="utf-8")


def test_everything_that_the_project_needs_is_pinned() -> None:
    asked = project()["project"]
    extras = asked["optional-dependencies"]
    needed = names(asked["dependencies"]) | names(project()["dependency-groups"]["build"])
    assert needed <= set(locked("alone"))
    assert needed | names(extras["sandbox"]) <= set(locked("run"))
    assert needed.union(*map(names, extras.values())) <= set(locked("dev"))
    assert needed | names(project()["dependency-groups"]["docs"]) <= set(locked("docs"))


def test_what_builds_the_project_is_among_it() -> None:
    build = project()["dependency-groups"]["build"]
    assert set(project()["build-system"]["requires"]) <= set(build)


def test_what_builds_packages_without_a_wheel_is_pinned_too() -> None:
    assert names(project()["dependency-groups"]["source"]) <= set(locked("source"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--no-build-isolation --require-hashes -r .ci/locked-dev.txt" in makefile


def test_the_lists_agree() -> None:
    for other in ("source", "docs"):
        shared = locked(other).keys() & locked("dev").keys()
        assert {(name, locked("dev")[name]) for name in shared} <= locked(other).items()
    assert locked("alone").items() <= locked("run").items() <= locked("dev").items()


def test_make_and_ci_install_nothing_that_is_not_pinned() -> None:
    for name in ("Makefile", ".ci/run"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if re.search(r"PIP_INSTALL\)|pip wheel|\[@\]\}", line):
                assert "--require-hashes" in line or "--no-deps" in line, line
