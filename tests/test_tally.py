"""How long calls took, counted in little memory."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enroll.session.tally import Latencies


@given(
    calls=st.lists(st.floats(0.0001, 3600.0), min_size=1, max_size=200),
    share=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
)
def test_a_quantile_is_right_to_one_percent(calls: list[float], share: float) -> None:
    took = Latencies()
    for seconds in calls:
        took.add(seconds)
    exact = sorted(calls)[max(math.ceil(share * len(calls)), 1) - 1]
    assert took.quantile(share) == pytest.approx(exact, rel=0.0101)


def test_without_a_call_there_is_no_quantile() -> None:
    assert Latencies().quantile(0.5) is None


def test_any_number_of_calls_takes_little_memory() -> None:
    took = Latencies()
    for number in range(100_000):
        took.add(number / 1000)  # up to a minute and a half, and nothing at all
    assert len(pickle.dumps(took)) < 16_384
