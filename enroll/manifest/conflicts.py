"""Finds rows that are at odds with an earlier one, among any number: by hashes, 8 bytes each."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

Numbers = np.ndarray[tuple[Any, ...], np.dtype[Any]]


def differing(keys: array[int], values: array[int]) -> tuple[Numbers, Numbers]:
    """The numbers of rows whose value is not that of the first row with their key, and the numbers
    of these first rows."""
    known, said = np.asarray(keys), np.asarray(values)
    if not len(known):
        return known, known
    order = np.argsort(known, kind="stable")
    starts = np.flatnonzero(np.diff(known[order], prepend=~known[order[0]]))
    firsts = np.repeat(order[starts], np.diff(starts, append=len(order)))
    differ = np.flatnonzero(said[order] != said[firsts])
    rows, theirs = order[differ], firsts[differ]
    in_order = np.argsort(rows, kind="stable")
    return rows[in_order], theirs[in_order]
