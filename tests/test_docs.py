"""The documentation: complete, true, and its examples run."""

from __future__ import annotations

import csv
import json
import os
import pkgutil
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import forked
import manual
import pytest
from object_servers import free_port
from real_command import Command

from enroll import __all__ as public_names
from enroll.cli import cli
from enroll.cli.command import source_of
from enroll.errors import ExitCode, UsageError
from enroll.facesearch.answers import SERVICE_CODES, STATUS_VERDICTS, OwnCode, http_code
from enroll.ledger import INTERRUPTED, WITHHELD, schema
from enroll.manifest.header import EXPORT_COLUMNS
from enroll.manifest.rules import RowCode
from enroll.model import EventKind, Status, Verdict
from enroll.photos import PhotoCode
from enroll.presets import preset
from enroll.report.export import HISTORY_COLUMNS
from enroll.runner import planner as deciding
from enroll.runner import sender as calls
from enroll.runner import transitions
from enroll.sandbox import FaultKind, Sandbox
from enroll.sandbox.faults import EITHER_SIDE
from enroll.session.resemblance import LOOKALIKE, NOT_COMPARED, UNLIKE_BEFORE
from enroll.settings import DEFAULT_ENDPOINT
from enroll.text import remedies
from enroll.text.files import RESULT_COLUMNS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
HOSTS = {
    "api-sgp.yljz.com",  # the service
    "127.0.0.1",
    "hc-ping.com",  # healthchecks.io
    "keepachangelog.com",
    "pushgateway",  # a service in the cluster of the example
    "semver.org",
}
FOLDERS = {"mnt", "srv", "etc", "opt", "var"}
"""Where examples may lie."""

SECONDS = 300.0
"""Nothing here takes so long."""


COMMON = "Common options"


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(name: str, title: str) -> str:
    """What stands under a heading of a page, up to the next heading of its level or a higher."""
    level, body = 0, []
    for line, in_code in lines_of(text_of(name)):
        hashes = 0 if in_code else len(line) - len(line.lstrip("#"))
        if level and 0 < hashes <= level:
            break
        if level:
            body.append(line)
        elif hashes and line.lstrip("# ") == title:
            level = hashes
    assert body, f"{name} has no section {title!r}"
    return "\n".join(body)


def lines_of(text: str) -> Iterator[tuple[str, bool]]:
    """The lines of a page, and whether they stand in a block of code."""
    in_code = False
    for line in text.splitlines():
        fence = line.startswith("```")
        yield line, in_code or fence
        in_code ^= fence


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def table(text: str) -> list[list[str]]:
    """The cells of every table row in a text, heads and rules included."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        for row in rows
    ]


def code_cells(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@lru_cache
def commands() -> dict[str, click.Command]:
    """Every command that does something, by its words."""
    found: dict[str, click.Command] = {}

    def walk(command: click.Command, words: str) -> None:
        if not isinstance(command, click.Group):
            found[words] = command
            return
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            walk(below, f"{words} {name}")

    walk(cli, "enroll")
    return found


OPTIONS = [
    (words, option)
    for words, command in commands().items()
    for option in command.params
    if isinstance(option, click.Option)
]


def common_groups() -> dict[str, str]:
    """The titles of the groups of common options, by their anchors."""
    titles = re.findall(r"^### (.*)$", section("docs/reference.md", COMMON), flags=re.MULTILINE)
    return {title.lower().replace(" ", "-"): title for title in titles}


def groups_of(words: str) -> list[str]:
    """The groups of common options that the section of a command says it takes."""
    text = section("docs/reference.md", words)
    sentence = re.search(rf"^{COMMON}: (.*?)\n\n", text, flags=re.MULTILINE | re.DOTALL)
    linked = re.findall(r"\(#([^)]+)\)", sentence[1]) if sentence else []
    return [common_groups()[anchor] for anchor in linked]


def option_row(words: str, option: click.Option) -> list[str] | None:
    """The row of an option: in the table of its command, else in one of the common tables that
    the command says it takes. Its cells: option, meaning, default, two sources."""
    for title in (words, *groups_of(words), "Every command"):
        for cells in table(section("docs/reference.md", title)):
            named = {name.split()[0] for name in code_cells(cells[0])}
            if len(cells) == 5 and named == {*option.opts, *option.secondary_opts}:
                return cells
    return None


def written_default(option: click.Option) -> str | None:
    """The default as the reference writes it; None where it is not one value."""
    default = option.default
    if option.is_flag:
        return "off" if default is False else None
    if isinstance(default, int):
        return f"`{default}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`" if isinstance(default, str) and default else None


def test_every_command_has_a_section_in_the_reference() -> None:
    for words in commands():
        assert words in section("docs/reference.md", words)


def test_the_reference_has_no_command_that_does_not_exist() -> None:
    written = re.findall(r"^## (enroll .*)$", text_of("docs/reference.md"), flags=re.MULTILINE)
    assert sorted(written) == sorted(commands())


def wrong_in_the_reference(words: str, option: click.Option, folder: Path) -> Iterator[str]:
    """What the row of an option lacks or misstates; `folder` is an empty one."""
    row = option_row(words, option)
    if row is None:
        yield "has no row"
        return
    names, meaning, default, *sources = row
    if len(meaning) <= 3 or not default:
        yield "lacks its meaning or its default"
    if written_default(option) not in (None, default):
        yield f"has the default {default}, which is {written_default(option)}"
    if isinstance(option.type, click.Choice) and list(option.type.choices) != list(Status):
        choices = "|".join(option.type.choices)
        if [name.endswith(f" {choices}") for name in code_cells(names)] != [True]:
            yield f"lacks the choices {choices}"
    if sources != sources_of(option, folder):
        yield f"has the other sources {sources}, which are {sources_of(option, folder)}"


def sources_of(option: click.Option, folder: Path) -> list[str]:
    """The cells that say whether an option may come from the environment, and from which file."""
    name = max(option.opts, key=len).lstrip("-").replace("-", "_")
    variable = f"ENROLL_{name.upper()}"
    known = {name: source_of(option)}
    file = folder / "enroll.toml"
    file.write_text(f'{name} = "1"\n')

    def taken(config: Path | None, environ: dict[str, str]) -> bool:
        try:
            return name in preset([name], config=config, environ=environ, known=known).values
        except UsageError:
            return False

    with chdir(folder.parent):
        by_name = taken(file, {})
        from_environment = taken(None, {variable: "1"})
    with chdir(folder):
        found = taken(None, {})
    return [
        f"`{variable}`" if from_environment else "no",
        {(True, True): "yes", (True, False): "named", (False, False): "no"}[by_name, found],
    ]


def test_every_option_is_in_the_reference_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "settings"
    folder.mkdir()
    wrong = [
        f"`{words} {option.opts[0]}` {what}"
        for words, option in OPTIONS
        for what in wrong_in_the_reference(words, option, folder)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_statuses_are_in_a_table_that_options_link_to() -> None:
    written = table(section("docs/ledger.md", "Statuses"))
    assert [cells[0] for cells in written[2:]] == [f"`{status}`" for status in Status]


def test_the_reference_has_no_option_that_does_not_exist() -> None:
    real = {(words, name) for words, one in OPTIONS for name in (*one.opts, *one.secondary_opts)}
    written = {
        (words, name.split()[0])
        for words in commands()
        for title in (words, *groups_of(words))
        for cells in table(section("docs/reference.md", title))
        for name in code_cells(cells[0])
        if name.startswith("--")
    }
    assert written - real == set()


def test_a_group_of_common_options_names_the_commands_that_take_it() -> None:
    for title in set(common_groups().values()) - {"Every command"}:
        (sentence,) = re.findall(r"^For [^|]*?\.$", section("docs/reference.md", title), flags=re.M)
        takers = [words for words in commands() if title in groups_of(words)]
        assert sorted(f"enroll {name}" for name in code_cells(sentence)) == sorted(takers), title


def test_the_table_of_a_command_repeats_no_row_of_the_common_options() -> None:
    for words in commands():
        own = table(section("docs/reference.md", words))[2:]
        common = [
            row for title in groups_of(words) for row in table(section("docs/reference.md", title))
        ]
        assert [row for row in own if row[0].startswith("`--") and row in common] == [], words


def test_a_repeatable_option_can_come_from_the_environment_and_from_a_file(
    command: Command,
) -> None:
    shutil.copytree(ROOT / "manifests", command.folder, dirs_exist_ok=True)
    plan = ("plan", "personnel.csv")
    command.environ["ENROLL_COLUMNS"] = "user_id=EMP_NO,image=PHOTO"
    assert command(*plan).code == 0
    command.environ["ENROLL_COLUMNS"] = ""
    assert command(*plan).code == ExitCode.USAGE
    for columns in ('["user_id=EMP_NO", "image=PHOTO"]', '{user_id = "EMP_NO", image = "PHOTO"}'):
        (command.folder / "enroll.toml").write_text(f"columns = {columns}\n")
        assert command(*plan).code == 0


@pytest.mark.parametrize("name", ["README.md", "docs/reference.md"])
def test_the_settings_files_of_the_documentation_are_taken(name: str, command: Command) -> None:
    shutil.copytree(ROOT / "manifests", command.folder, dirs_exist_ok=True)
    (settings,) = code_blocks(text_of(name), "toml")
    settings = settings.replace("/mnt/photos", str(command.folder))
    (command.folder / "enroll.toml").write_text(settings, encoding="utf-8")
    told = command("plan", "personnel.csv")
    assert (told.code, told.err) == (0, "")
    assert "Photos   " + str(command.folder) in told.out


def test_every_exit_code_is_documented() -> None:
    rows = {cells[0]: cells[1] for cells in table(text_of("docs/exit-codes.md"))[2:]}
    assert rows == {str(int(code)): f"`{code.name}`" for code in ExitCode}


def test_the_exit_codes_of_the_readme_are_those_of_their_page() -> None:
    known = {str(int(code)) for code in ExitCode}
    short = [cells[0] for cells in table(section("README.md", "What a run shows"))[2:]]
    assert short
    assert set(short) <= known


def error_rows() -> dict[str, list[str]]:
    return {
        code: cells for cells in table(text_of("docs/errors.md")) for code in code_cells(cells[0])
    }


OUR_CODES = [
    *OwnCode,
    calls.REPEATED,
    INTERRUPTED,
    deciding.WAITS_FOR_DOUBT,
    transitions.STRANGER,
]
BEFORE_A_CALL = [*map(str, PhotoCode), *map(str, RowCode), LOOKALIKE, UNLIKE_BEFORE, NOT_COMPARED]


def test_every_code_is_documented_with_its_remedy() -> None:
    rows = error_rows()
    codes = [*SERVICE_CODES, *map(http_code, STATUS_VERDICTS), *map(str, OUR_CODES), *BEFORE_A_CALL]
    assert [code for code in codes if code not in rows or not all(rows[code])] == []
    assert [code for code in codes if remedies.remedy(code) not in rows[code][3]] == []


def test_every_code_with_a_remedy_is_documented() -> None:
    assert set(remedies._REMEDIES) <= set(error_rows())


def test_every_documented_code_has_its_remedy_in_the_summary() -> None:
    for code, cells in error_rows().items():
        assert remedies.remedy(code), code
        assert remedies.remedy(code) in cells[3], code
    assert any(code.endswith("xx") for code in error_rows())


def test_what_to_do_about_a_code_that_nobody_knows_is_documented() -> None:
    assert not remedies.remedy("FACE_LEFT_THE_BUILDING")
    (other,) = [row for row in table(text_of("docs/errors.md")) if row[0] == "any other"]
    assert other[3].startswith(remedies.UNKNOWN_CODE)
    assert remedies.what_to_do("NEW", "failed", "NEW") == remedies.UNKNOWN_CODE


def test_every_code_of_a_photo_or_row_has_a_remedy() -> None:
    assert [code for code in BEFORE_A_CALL if not remedies.remedy(code)] == []


def test_no_code_is_documented_that_does_not_exist() -> None:
    known = {*SERVICE_CODES, *map(str, OUR_CODES), *BEFORE_A_CALL, WITHHELD.code}
    assert {code for code in error_rows() if not code.startswith("HTTP_")} - known == set()


def test_the_status_that_a_code_of_the_service_leads_to_is_documented() -> None:
    written = {
        Verdict.REJECTED: "`rejected`",
        Verdict.FATAL: "stops the run",
        Verdict.REFUSED: "none: sent again, no attempt spent",
    }
    rows = error_rows()
    assert {code: rows[code][2] for code in SERVICE_CODES} == {
        code: written[verdict] for code, verdict in SERVICE_CODES.items()
    }


def test_every_table_of_the_ledger_is_documented() -> None:
    written = {cells[0] for cells in table(section("docs/ledger.md", "Tables"))}
    assert {f"`{name}`" for name in schema.metadata.tables} - written == set()


def test_every_kind_of_fault_is_documented_with_its_sides() -> None:
    rows = table(section("docs/rehearsing.md", "Trouble on purpose"))
    sides = {name: cells[2:3] for cells in rows for name in code_cells(cells[0])}
    found = {kind: sides.get(str(kind)) for kind in FaultKind}
    assert found == {kind: ["both" if kind in EITHER_SIDE else ""] for kind in FaultKind}


def test_the_columns_of_every_file_are_documented() -> None:
    results = table(section("docs/manifest.md", "Results"))
    assert [cells[0] for cells in results[2:]] == [f"`{name}`" for name in RESULT_COLUMNS]
    export = section("docs/manifest.md", "Export")
    assert [name for name in code_cells(export) if name in EXPORT_COLUMNS] == list(EXPORT_COLUMNS)
    history = section("docs/reference.md", "enroll history")
    assert ",".join(HISTORY_COLUMNS) in history
    assert all(f"`{kind}`" in history for kind in EventKind)


def test_every_public_name_is_documented() -> None:
    written = section("docs/python.md", "From Python")
    for name in set(public_names) - {"__version__"}:
        assert re.search(rf"`{name}\b", written), name


def test_the_manual_pages_are_those_that_the_commands_make() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in manual.MANUAL.iterdir()}
    assert {f"{words.replace(' ', '-')}.1" for words in commands()} <= set(written)
    assert written == manual.pages(), "run: python docs/manual.py"


def test_every_page_and_public_name_is_on_the_site() -> None:
    navigation = text_of("docs/site/navigation.md")
    pages = {path.relative_to(ROOT).with_suffix("").as_posix() for path in PAGES} - {"README"}
    assert [page for page in sorted(pages) if f"\n{page}\n" not in navigation] == []
    documented = re.findall(
        r"^\.\. auto\w+:: (\w+)", text_of("docs/site/api.md"), flags=re.MULTILINE
    )
    assert set(public_names) - {"__version__"} <= set(documented)


def test_every_dotted_name_of_the_documentation_exists() -> None:
    names = {
        name
        for page in PAGES
        for name in re.findall(r"`(enroll(?:\.\w+)+)", page.read_text(encoding="utf-8"))
    }
    assert len(names) > 3
    for name in names - {"enroll.toml"}:
        assert pkgutil.resolve_name(name), name


def test_every_package_and_top_module_is_in_the_layout_and_every_module_says_what_it_owns() -> None:
    written = set(code_cells(section("CONTRIBUTING.md", "Layout")))
    package = ROOT / "enroll"
    packages = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    modules = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    top = {name for name in modules if "/" not in name} - {"__init__.py"}
    assert packages | top <= written
    named = {name for name in written if name.endswith((".py", "/"))}
    assert named <= packages | set(modules)
    mute = [name for name, path in modules.items() if not path.read_text("utf-8").startswith(DOC)]
    assert mute == []


DOC = ('"""', 'r"""')
"""How a module begins that says what it owns."""


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    return {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line, in_code in lines_of(page.read_text(encoding="utf-8"))
        if line.startswith("#") and not in_code
    }


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        ours = there.is_relative_to(ROOT) and there.exists()
        if not ours or (anchor and anchor not in anchors(there)):
            yield f"{page.name}: {target}"


def test_every_relative_link_leads_somewhere() -> None:
    assert [link for page in PAGES for link in broken_links(page)] == []


def not_everybodys(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"https?://([\w.-]+)", text)) - HOSTS
    # An absolute path: a slash that nothing stands before, and a name.
    named |= set(re.findall(r"(?<![\w.>)\]:/~*}-])/(\w[\w.-]*)", text)) - FOLDERS
    for above in re.findall(r"(?<![\w/])(?:\.\./)+[\w./-]*", text):
        there = page.parent / above
        if not (there.resolve().is_relative_to(ROOT) and there.exists()):
            named.add(above)
    yield from (f"{page.name}: {one}" for one in named)


def test_no_page_names_a_host_or_a_folder_that_is_not_everybodys() -> None:
    assert [one for page in PAGES for one in not_everybodys(page)] == []


def test_the_photos_of_the_examples_are_small_drawings() -> None:
    photos = list((ROOT / "manifests" / "photos").glob("*.jpg"))
    assert 4 <= len(photos) <= 6
    assert all(photo.stat().st_size < 15_000 for photo in photos)


@pytest.mark.parametrize(
    ("page", "title"), [("README.md", "From Python"), ("docs/python.md", "From Python")]
)
def test_the_python_examples_run(
    page: str,
    title: str,
    box: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("ENROLL_ENDPOINT", box.endpoint)
    monkeypatch.setenv("ENROLL_API_KEY", box.api_key)
    monkeypatch.setenv("ENROLL_API_SECRET", box.api_secret)
    written = section(page, title)
    for settings in code_blocks(written, "toml"):
        (tmp_path / "enroll.toml").write_text(settings.replace(DEFAULT_ENDPOINT, box.endpoint))
    names: dict[str, Any] = {}
    examples = code_blocks(written, "python")
    assert examples
    assert not re.search(r"^from enroll\.(?!sandbox)|^import enroll\.", "\n".join(examples), re.M)
    for number, example in enumerate(examples):
        script = tmp_path / f"example{number}.py"
        script.write_text(example, encoding="utf-8")
        names |= runpy.run_path(str(script))
    printed = capsys.readouterr().out
    assert "exit code 0" in printed or "Run 1: 5 rows enrolled, 0 rows enrolled before." in printed
    if (task := names.get("enroll_staff")) is not None:
        figures = json.loads(json.dumps(task("manifests/people.csv")))
        assert (figures["exit_code"], figures["calls"]["add"]) == (0, 0)
        assert list(names["outcome"]["status"]) == ["enrolled"] * 5
    assert {face.user_id for face in box.faces("staff")} == people("people.csv", "user_id", ",")


def people(manifest: str, column: str, delimiter: str) -> set[str]:
    """The user ids of an example manifest."""
    with (ROOT / "manifests" / manifest).open(encoding="windows-1252", newline="") as file:
        return {row[column] for row in csv.DictReader(file, delimiter=delimiter)}


def test_the_rehearsal_of_the_readme_runs_and_ends_with_tokens(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    start, *then = code_blocks(section("README.md", "A first rehearsal"), "sh")
    then[-1] = re.sub("^pip install .*", "", then[-1]).replace(":9000", f":{free_port()}")
    then[-1] += "enroll export - --group-id from-a-bucket\nenroll export - --group-id on-workers\n"
    bare = Command(home=tmp_path / "home", folder=tmp_path)
    enroll, *options = shlex.split(start)
    assert enroll == "enroll"
    with bare.started(*options, "--port", "0") as sandbox:
        assert sandbox.stdout is not None
        exports = []
        for line in sandbox.stdout:
            if line.strip().startswith("export "):
                exports.append(line.strip())
            if "enroll library list" in line:
                break
        assert len(exports) == 3
        done = in_a_shell("\n".join([*exports, *then]), tmp_path, bare.surroundings())
        assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert tokens(tmp_path / "manifests" / "people.results.csv", ",") == 5
    assert tokens(tmp_path / "manifests" / "personnel.results.csv", ";") == 3
    assert len(re.findall(r",enrolled,[0-9a-f]{32},", done.stdout)) == 6 + 5 + 5


def in_a_shell(
    script: str, folder: Path, environ: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a script as it stands, with our `enroll` first on the path; it stops at any failure."""
    ours = folder / "bin"
    if forked.available:
        ours.mkdir()
        forked.put_shim(ours)
    path = os.pathsep.join([str(ours), str(Path(sys.executable).parent), environ["PATH"]])
    return subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=folder,
        env={**environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def tokens(results: Path, delimiter: str) -> int:
    """How many lines of a results file have a face token."""
    with results.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=delimiter))
    return sum(len(row["face_token"]) == 32 for row in rows)


def test_the_spreadsheet_example_is_one_as_spreadsheets_write_them() -> None:
    content = (ROOT / "manifests" / "personnel.csv").read_bytes()
    assert b";" in content
    assert b"\r\n" in content
    with pytest.raises(UnicodeDecodeError):
        content.decode("utf-8")
    assert "Müller-Groß" in content.decode("windows-1252")
