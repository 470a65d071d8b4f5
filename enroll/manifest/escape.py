"""The escape that keeps a spreadsheet from running a cell as a formula, and its undoing.

One apostrophe is put before a cell that begins with any number of apostrophes and then with a
character that starts a formula, and one is taken off again. Counting the apostrophes that are
already there makes it exact: `unescape(escape(cell)) == cell` for every text, however often.

A user_id and a photo's path are compared, so they stay as they are, unless they break the rules for
them (`user_id_fault`, `image_fault`), so that no person and no file can have them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from enroll.model import Fault

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""What spreadsheets run: the four of OWASP's page on CSV injection, the blanks that some strip
before they look, and the full-width forms that East Asian versions take for the plain ones."""

_ESCAPED = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")
_FIRST = frozenset("'=+-@\t\r\n＝＋－＠")


Rule = Callable[[str], Fault | None]
"""What a cell must keep to; with a rule only cells that break it are escaped. That can be undone,
too: a cell that breaks a rule breaks it with an apostrophe before it as well."""


def escape(cell: str, rule: Rule | None = None) -> str:
    """The cell as it may stand in a file that a spreadsheet opens."""
    return "'" + cell if _FORMULA.match(cell) and _breaks(rule, cell) else cell


def unescape(cell: str, rule: Rule | None = None) -> str:
    """The cell that `escape` was given."""
    return cell[1:] if _ESCAPED.match(cell) and _breaks(rule, cell) else cell


def escape_all(cells: list[str], rule: Rule | None = None) -> list[str]:
    """`escape` for a column; the same list when nothing in it can need it."""
    return [escape(cell, rule) for cell in cells] if _may_matter(cells) else cells


def unescape_all(cells: list[str], rule: Rule | None = None) -> list[str]:
    """`unescape` for a column; the same list when nothing in it can need it."""
    return [unescape(cell, rule) for cell in cells] if _may_matter(cells) else cells


def _breaks(rule: Rule | None, cell: str) -> bool:
    return rule is None or rule(cell) is not None


def _may_matter(cells: Iterable[str]) -> bool:
    # A look at the first characters is several times cheaper than a match for every cell.
    return not _FIRST.isdisjoint({cell[:1] for cell in cells})
