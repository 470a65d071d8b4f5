#!/usr/bin/env python3
"""Build the source archive and the wheel into a folder, and check both:

    .venv/bin/python .ci/package.py dist

The source archive builds the same wheel, byte for byte. Nothing is read from the network.
"""

import ast
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata
from packaging.utils import parse_wheel_filename
from trove_classifiers import classifiers

ROOT = Path(__file__).resolve().parents[1]
ARCHIVED = ("enroll", "tests", "benchmarks", "docs", ".ci")
WANTED = ("enroll/py.typed", "enroll/report/templates/report.html", "enroll/cli/portraits/00.jpg")


def main() -> None:
    """Build and check; exit with a sentence if something is wrong."""
    into = Path(sys.argv[1]).absolute()
    into.mkdir(parents=True, exist_ok=True)
    archive, wheel = build(ROOT, into, "sdist"), build(ROOT, into, "wheel")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        (unpacked,) = Path(folder).iterdir()
        check_archive(unpacked)  # before a build leaves files that Python compiles
        again = build(unpacked, Path(folder), "wheel")
        check(again.read_bytes() == wheel.read_bytes(), "the source archive builds another wheel")
    check_wheel(wheel)
    print(f"{archive.name} and {wheel.name} are complete")  # noqa: T201


def build(source: Path, into: Path, target: str) -> Path:
    """Build with hatchling, which gives all files one time: SOURCE_DATE_EPOCH, or a fixed one."""
    before = set(into.iterdir())
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    subprocess.run(command, cwd=source, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    (built,) = set(into.iterdir()) - before
    return built


def check_archive(unpacked: Path) -> None:
    """It holds what `make test` needs: whatever git knows, if this is a repository."""
    check(unpacked.name == f"enroll-{version()}", f"{unpacked.name} is not {version()}")
    found = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*")}
    for name in ARCHIVED:
        check(name in found, f"the source archive lacks {name}")
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=-1).stdout  # noqa: S607
        known = {name for name in os.fsdecode(listed).split("\0") if (ROOT / name).is_file()}
        check(not (lost := known - found), f"the source archive lacks {sorted(lost)[:5]}")
        files = {name for name in found if (unpacked / name).is_file()}
        check(not (more := files - known - {"PKG-INFO"}), f"it has {sorted(more)[:5]} too much")


def check_wheel(wheel: Path) -> None:
    """It holds the package, its licence and the manual pages, and nothing else."""
    about = f"enroll-{version()}.dist-info"
    manual = f"enroll-{version()}.data/data/share/man/man1/"
    check(str(parse_wheel_filename(wheel.name)[1]) == version(), f"{wheel.name}: another version")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        metadata = Metadata.from_email(packed.read(f"{about}/METADATA"), validate=True)
    of_tree = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "enroll").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    ours = {name for name in names if name.startswith("enroll/")}
    check(ours == of_tree, f"wheel and tree differ: {sorted(ours ^ of_tree)[:5]}")
    for name in (*WANTED, f"{about}/licenses/LICENSE", f"{manual}enroll.1"):
        check(name in names, f"the wheel lacks {name}")
    others = [name for name in names if not name.startswith(("enroll/", f"{about}/", manual))]
    check(not others, f"the wheel has {others[:5]} too much")
    check(str(metadata.version) == version(), f"the metadata say {metadata.version}")
    unknown = set(metadata.classifiers or ()) - classifiers
    check(not unknown, f"unknown classifiers: {unknown}")
    description = metadata.description or ""
    check(metadata.description_content_type == "text/markdown", "no description in Markdown")
    check("](docs/" not in description and "](#" not in description, "a link that leads nowhere")
    check(len(description) > 5_000, "the description is short")


def version() -> str:
    """The one in `enroll/__init__.py`, which is read and not run."""
    text = (ROOT / "enroll/__init__.py").read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    sys.exit("enroll/__init__.py has no __version__")


def check(holds: bool, otherwise: str) -> None:
    """Exit with a sentence unless something holds."""
    if not holds:
        sys.exit(f"The packages are wrong: {otherwise}")


if __name__ == "__main__":
    main()
