"""The steps of the Containerfile, and what its build may see."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

ROOT = Path(__file__).parent.parent
CONTAINERFILE = ROOT / "docs/container/Containerfile"


@dataclass(frozen=True)
class Step:
    """An instruction, such as `COPY` and `enroll enroll`."""

    name: str
    rest: str

    @property
    def words(self) -> list[str]:
        """What follows, without options; a list in JSON is one of words, too."""
        if self.rest.startswith("["):
            return [str(word) for word in json.loads(self.rest)]
        return [word for word in shlex.split(self.rest) if not word.startswith("--")]

    @property
    def source(self) -> str:
        """The stage that a COPY copies from; "" for the sources."""
        found = re.match(r"--from=(\S+)", self.rest)
        return found[1] if found else ""


@dataclass
class Stage:
    """A FROM and the steps that follow it."""

    name: str
    base: str
    steps: list[Step] = field(default_factory=list)

    def values(self, name: str) -> dict[str, str]:
        """What the ENV or LABEL steps set."""
        pairs = [pair for one in self.steps if one.name == name for pair in one.words]
        return dict(pair.split("=", 1) for pair in pairs)

    def last(self, name: str) -> Step:
        """The step of a name that counts."""
        return [one for one in self.steps if one.name == name][-1]


def stages() -> list[Stage]:
    """The stages of the Containerfile."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if not line.startswith("#")]
    found: list[Stage] = []
    arguments: dict[str, str] = {}
    for line in filter(None, "\n".join(lines).replace("\\\n", " ").splitlines()):
        step = Step(*line.split(maxsplit=1))
        if step.name == "FROM":
            base, _, name = step.rest.partition(" AS ")
            found.append(Stage(name, Template(base).substitute(arguments)))
        elif found:
            found[-1].steps.append(step)
        else:
            name, _, arguments[name] = step.rest.partition("=")
    return found


def seen_by_the_build() -> Iterator[str]:
    """The patterns of what the build may copy."""
    for line in CONTAINERFILE.with_name("Containerfile.dockerignore").read_text().splitlines():
        if line.startswith("!"):
            yield line[1:]


def copy_into(target: Path, sources: list[str]) -> None:
    """Copy files and the content of folders of the sources into a folder or file, as COPY does."""
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(
                ROOT / source,
                target,
                ignore=shutil.ignore_patterns("__pycache__"),
                dirs_exist_ok=True,
            )
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / source, target)
