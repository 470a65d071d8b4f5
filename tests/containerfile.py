"""The steps of the Containerfile, and these steps taken in folders instead of by an engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from string import Template

from pods import Image

ROOT = Path(__file__).parent.parent
CONTAINERFILE = ROOT / "docs/container/Containerfile"

CERTIFICATES = "tmp/certificates.crt"
"""Where a step of the build finds the certificates that this machine trusts."""


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


def build(base: Path, work: Path) -> Image:
    """Take all steps, with a root that has Python in place of the base; the last stage's image."""
    made: dict[str, Path] = {}
    for number, stage in enumerate(stages()):
        root = work / f"stage-{number}"
        subprocess.run(["cp", "-a", base, root], check=True)
        environ, folder = {"PATH": "/usr/bin:/bin"}, "/"
        for step in stage.steps:
            if step.name == "WORKDIR":
                folder = step.rest
                (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif step.name == "ENV":
                environ |= Stage("", "", [step]).values("ENV")
            elif step.name == "COPY":
                *sources, target = step.words
                copy_into(
                    made.get(step.source, ROOT),
                    sources,
                    root / str(PurePosixPath(folder, target)).lstrip("/"),
                )
            elif step.name == "RUN":
                _run(root, folder, environ, step.rest)
            else:
                assert step.name in {"ARG", "LABEL", "USER", "ENTRYPOINT", "CMD"}, step
        made[stage.name] = root
    return Image(root, stage.last("ENTRYPOINT").words, environ)


def copy_into(top: Path, sources: list[str], target: Path) -> None:
    """Copy files and the content of folders below `top`, as COPY does."""
    for source in sources:
        there = top / source.lstrip("/")
        if there.is_dir():
            skip = shutil.ignore_patterns("__pycache__") if top == ROOT else None
            shutil.copytree(there, target, symlinks=True, ignore=skip, dirs_exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(there, target)


def _run(root: Path, folder: str, environ: dict[str, str], script: str) -> None:
    """Run a step by the root's shell, as an engine does, with this machine's network."""
    trusted = ssl.get_default_verify_paths()
    shutil.copy(os.environ.get("SSL_CERT_FILE") or trusted.cafile or "", root / CERTIFICATES)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    environ = {**environ, "PIP_CERT": f"/{CERTIFICATES}"}
    if index := os.environ.get("PIP_INDEX_URL"):
        environ["PIP_INDEX_URL"] = index
    done = subprocess.run(
        ["unshare", f"--root={root}", f"--wd={folder}", "/bin/sh", "-c", script],
        env=environ,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    (root / CERTIFICATES).unlink()
