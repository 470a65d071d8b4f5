"""One test of many cases: all are tried, and it fails with every one that does."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import pytest


def cases(
    names: str | tuple[str, ...], values: Iterable[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a test each of the values for parameters of these names.

    Instead of `pytest.mark.parametrize`, where a test for each value would cost more than what it
    does: the cases share their fixtures. Where it is given twice, each is combined with each.
    """
    several = names if isinstance(names, tuple) else (names,)
    given = [dict(zip(several, _row(names, value), strict=True)) for value in values]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @wraps(test)
        def every_case(**fixtures: Any) -> None:
            failed = []
            for case in given:
                try:
                    test(**fixtures, **case)
                except (Exception, pytest.fail.Exception):  # noqa: BLE001 - each is shown
                    failed.append(f"{case}:\n{traceback.format_exc()}")
            if failed or not given:
                pytest.fail("\n".join([f"{len(failed)} of {len(given)} cases:", *failed]))

        signature = inspect.signature(test)
        others = [one for name, one in signature.parameters.items() if name not in several]
        every_case.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return every_case

    return decorate


def _row(names: str | tuple[str, ...], value: Any) -> tuple[Any, ...]:
    assert not hasattr(value, "marks"), "a pytest.param is of no use here"
    return tuple(value) if isinstance(names, tuple) else (value,)
