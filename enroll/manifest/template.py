"""Templates over a list's columns, such as `{Last}, {First}`; a column's name is the simplest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from enroll.errors import ManifestError

_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


@dataclass(frozen=True, slots=True)
class Template:
    """Texts and names of columns by turns: `texts` has one more than `names`, and each name is
    between two of them. Without names, `text` is all there is."""

    texts: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def text(self) -> str:
        """The first text."""
        return self.texts[0]

    def filled(self, columns: Sequence[Sequence[str]], *, wants_all: bool) -> list[str]:
        """The template's text in each row; `columns` are the cells of the named columns, in the
        order of `names`.

        Where all cells are empty or blank, the text is empty; with `wants_all`, where one is: an id
        that lacks a part would be somebody else's.
        """
        form = "%s".join(text.replace("%", "%%") for text in self.texts)
        enough = all if wants_all else any
        return [
            form % cells if enough(cell and not cell.isspace() for cell in cells) else ""
            for cells in zip(*columns, strict=True)
        ]


def parse_template(text: str, *, option: str) -> Template:
    """`{Name}` refers to a column; `{{` and `}}` are braces. Raises ManifestError; `option` begins
    its sentence."""
    texts, names = [""], []
    for part in _PARTS.finditer(text):
        found = part.group()
        if found in ("{{", "}}"):
            texts[-1] += found[0]
        elif found in ("{", "}"):
            raise ManifestError(
                f"{option} has a single {found!r} in {text!r}. Write {{Name}} for a "
                "column, and {{ or }} for a brace."
            )
        elif part[1] is None:
            texts[-1] += found
        elif not part[1].strip():
            raise ManifestError(
                f"{option} names no column between the braces of {text!r}. Write "
                "{Name} for a column, and {{ or }} for a brace."
            )
        else:
            names.append(part[1])
            texts.append("")
    return Template(tuple(texts), tuple(names))
