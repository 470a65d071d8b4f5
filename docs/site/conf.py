"""How Sphinx makes the site; docs/build_site.py lays out its pages."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pygments.lexers import BashLexer
from sphinx.application import Sphinx

from enroll import __version__

project = "enroll"
author = "The enroll maintainers"
project_copyright = "the enroll maintainers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["docs/options_table.md"]
root_doc = "index"

# Markdown as forges read it: headings are link targets, and `--` stays two hyphens.
myst_heading_anchors = 4
smartquotes = False
highlight_language = "text"

# What a docstring has in backticks is code, and a link where it is a public name.
default_role = "py:obj"
add_module_names = False
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 60
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"enroll {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

HOMES = {
    "Rows": "enroll.api.rows",
    "PathLike": "enroll.api.options",
    "CredentialsLike": "enroll.api.options",
    "UserIds": "enroll.api.maintaining",
    "OnProgress": "enroll.api.watching",
    "OnRow": "enroll.api.watching",
    "LedgerReader": "enroll.ledger",
    "Accepted": "enroll.commands.audit",
    "Adoption": "enroll.commands.adopt_report",
    "Audited": "enroll.commands.audit_report",
    "Forgotten": "enroll.commands.forget",
    "Plan": "enroll.commands.plan_report",
    "Readmitted": "enroll.commands.forget",
    "Removed": "enroll.commands.remove",
    "Resolved": "enroll.commands.resolve",
    "Verified": "enroll.commands.verify",
}
"""Types that signatures name and that `enroll` does not export, with their modules."""


def as_written(*event: Any) -> tuple[str, str] | None:
    """The signature of a function as it is in the source: a type alias keeps its name, and links to
    what it means."""
    _, what, _, documented, _, _, _ = event
    if what not in ("function", "method"):
        return None
    signature = inspect.signature(documented)
    parameters = [
        one.replace(annotation=_Written(one.annotation))
        for one in signature.parameters.values()
        if one.name not in ("self", "cls")
    ]
    arguments = signature.replace(parameters=parameters, return_annotation=signature.empty)
    return str(arguments), repr(_Written(signature.return_annotation))


class _Written(str):
    """An annotation, shown without quotes and with the full names of types."""

    def __repr__(self) -> str:
        return re.sub(
            r"(?<![.\w])\w+",
            lambda word: ".".join(filter(None, [HOMES.get(word[0]), word[0]])),
            self,
        )


def for_everybody(*event: Any) -> None:
    """What screen readers and keyboards need and the theme lacks: the level of the headings in the
    navigation, no list of parameters without terms, and a way to scroll wide code and tables
    without a mouse. And an option is marked, so that it does not break after its hyphens."""
    _, _, _, page, _ = event
    if "furo_navigation_tree" in page:
        headings = page["furo_navigation_tree"]
        page["furo_navigation_tree"] = headings.replace(
            'role="heading"', 'role="heading" aria-level="2"'
        )
    if "body" in page:
        body = page["body"].replace("<pre>", '<pre tabindex="0">')
        body = re.sub(r'<span class="pre">(?=-+\w[\w-]*)', '<span class="pre flag">', body)
        body = body.replace('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper')
        page["body"] = re.sub(r"<dl>\n((?:<dd>.*</dd>\n?)+)</dl>", _parameters, body)


def _parameters(match: re.Match[str]) -> str:
    lines = match[1].replace("<dd>", "<div>").replace("</dd>", "</div>")
    return f'<div class="parameters">{lines}</div>'


def setup(app: Sphinx) -> None:
    """Take the above as steps of the build, and highlight examples that Pygments does not know."""
    app.add_lexer("cron", BashLexer)
    app.connect("html-page-context", for_everybody, priority=900)
    app.connect("autodoc-process-signature", as_written)
