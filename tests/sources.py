"""The sources of the package, parsed once for all tests that read them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a module's tree, from the top down."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
