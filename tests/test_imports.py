"""Imports point one way, as CONTRIBUTING.md's "Layout" has it."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from sources import nodes_of

import enroll
from enroll.commands.run import enroll_manifest
from enroll.commands.sync import sync_manifest

PACKAGE = Path(enroll.__file__).parent
LOWEST: tuple[str, ...] = (
    "model",
    "errors",
    "ownership",
    "visible",
    "expiry",
    "settings",
    "credentials",
)
LOWEST += ("addresses", "presets", "timetable", "allowed", "clock")
BASE = {f"enroll.{name}" for name in LOWEST}
HEAVY: tuple[str, ...] = ("pandas", "sqlalchemy", "requests", "numpy", "PIL", "dlib", "werkzeug")
HEAVY += ("tenacity", "openpyxl", "prometheus_client")


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def imports(name: str) -> frozenset[str]:
    """The modules of enroll that a module imports, wherever in it the import stands."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in nodes_of(MODULES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("enroll")}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, [above, node.module or ""]))
            if source.startswith("enroll"):
                for alias in node.names:
                    module = f"{source}.{alias.name}"
                    found.add(module if module in MODULES else source)
    return frozenset(found)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def those_of(package: str) -> list[str]:
    return [name for name in MODULES if within(name, package)]


def imported_by(*names: str) -> set[str]:
    return {found for name in names for found in imports(name)}


def test_the_imports_of_a_module_are_found() -> None:
    # Else the tests below could not fail.
    assert {"enroll.model", "enroll.settings"} <= imported_by("enroll.runner.transitions")
    assert {"enroll.sandbox.messages", "enroll.sandbox.server"} <= imported_by(
        "enroll.sandbox.sandbox"
    )
    assert "enroll.commands.plan" in imported_by("enroll.cli.enrolling")


def test_the_lowest_modules_import_none_of_the_rest() -> None:
    assert imported_by(*BASE) <= BASE


PLACES = {name for name in MODULES if name.startswith("enroll.limiter")}
"""What decides about places in flight."""


def layers() -> list[str]:
    """Modules and packages from the bottom up, as CONTRIBUTING.md lists them."""
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| module | owns |\n")
    lines, _, _ = table.partition("\n\n")
    names = [
        name
        for line in lines.splitlines()
        for name in re.findall(r"`([\w/.]+)`", line.split("|")[1])
    ]
    return [name.rstrip("/").removesuffix(".py") for name in names]


def layer_of(name: str) -> str:
    """The module or package right below `enroll`."""
    return name.split(".")[1] if "." in name else ""


def test_imports_point_upwards_in_the_layout_only() -> None:
    order = layers()
    assert {layer_of(name) for name in MODULES} - {""} == set(order)
    height = {name: place for place, name in enumerate(order)}
    for name in set(MODULES) - {"enroll"}:
        for found in imports(name):
            if layer_of(found):
                assert height[layer_of(found)] <= height[layer_of(name)], (name, found)


def test_journey_imports_only_these() -> None:
    assert imported_by("enroll.runner.transitions") <= BASE


@pytest.mark.parametrize("name", sorted(PLACES))
def test_what_decides_about_places_imports_only_these_and_each_other(name: str) -> None:
    assert imported_by(name) <= BASE | PLACES


def test_journey_and_throttle_do_nothing_but_decide() -> None:
    for name in ("enroll.runner.transitions", *PLACES):
        outside = {
            node.module or "" if isinstance(node, ast.ImportFrom) else alias.name
            for node in nodes_of(MODULES[name])
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        rest = {module for module in outside if not module.startswith("enroll")}
        assert rest <= {
            "__future__",
            "collections",
            "collections.abc",
            "dataclasses",
            "enum",
            "abc",
            "heapq",
            "math",
            "typing",
        }


def test_the_stand_in_imports_nothing_from_the_rest() -> None:
    imported = imported_by(*those_of("enroll.sandbox"))
    assert {name for name in imported if not within(name, "enroll.sandbox")} == set()


def test_nobody_imports_the_command_line() -> None:
    entrances = {"enroll.__main__", "enroll.api.options"}  # text is read as on the command line
    for name in set(MODULES) - set(those_of("enroll.cli")) - entrances:
        assert not [found for found in imports(name) if within(found, "enroll.cli")], name


def test_the_service_knows_nothing_of_ledgers_rows_or_runs() -> None:
    allowed = {*those_of("enroll.facesearch"), *BASE, "enroll.resources"}
    assert imported_by(*those_of("enroll.facesearch")) <= allowed


def test_the_driver_alone_brings_the_ledger_and_the_service_together() -> None:
    ledger = imported_by(*those_of("enroll.ledger"))
    assert not {name for name in ledger if within(name, "enroll.facesearch")}
    assert not {name for name in ledger if within(name, "enroll.runner.loop")}


def test_only_settings_and_the_command_line_read_the_environment() -> None:
    for name, path in MODULES.items():
        if name in BASE or within(name, "enroll.cli") or name == "enroll.api.options":
            continue
        if name == "enroll.photos.object_account":  # the variables of the clouds' own tools
            continue
        read = [
            node
            for node in nodes_of(path)
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        ]
        assert not read, name


def test_no_module_but_clock_reads_the_time() -> None:
    readers = {"time", "monotonic", "time_ns", "monotonic_ns", "sleep", "perf_counter"}
    readers |= {"now", "utcnow", "today"}  # of datetime
    found = []
    for name in MODULES:
        if name == "enroll.clock" or within(name, "enroll.sandbox"):
            continue
        for node in nodes_of(MODULES[name]):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id in ("time", "datetime", "date") and node.attr in readers:
                    found.append((name, ast.unparse(node)))
            elif isinstance(node, ast.ImportFrom) and node.module == "time":
                found += [(name, alias.name) for alias in node.names if alias.name in readers]
    assert found == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["status", "--help"], ["--version"]]
)
def test_help_loads_none_of_the_heavy_packages(arguments: list[str]) -> None:
    script = (
        "import sys, enroll.cli\n"
        "code = enroll.cli.exit_code_of(sys.argv[1:])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1] == "[] 0"


def test_importing_the_package_loads_none_of_the_heavy_packages() -> None:
    script = f"import sys, enroll; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "[]\n"


def test_the_public_names_can_be_imported() -> None:
    for name in enroll.__all__:
        assert getattr(enroll, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = enroll.nothing


def test_nobody_outside_says_where_tasks_are_carried_out() -> None:
    # On other machines a task whose worker died was carried out once more: people added twice.
    for act in (enroll.run, enroll.sync, enroll_manifest, sync_manifest):
        assert not {"executors", "pool"} & set(inspect.signature(act).parameters), act
    assert "enroll_in_pools" not in enroll.__all__
