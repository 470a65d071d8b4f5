"""How much is measured: `tiny` proves that the suite works, `full` is what the targets ask for."""

from __future__ import annotations

from dataclasses import dataclass

STEP = (16, 6, 24)
"""The hidden limits that follow each other in one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Numbers of rows, rounds and seconds.

    `startups` are in each round, as they are quick and the first is slower.
    `row_cost` and `slow_row_cost` are the two sizes between which the slope is taken, the second
    for GNU parallel, which starts a process a row; `tls_row_cost` is that of rows over HTTPS, and
    `prepared` that of photos, which have these `megapixels` and are brought to these `sides`. No
    rows take no time. `many` is the archive of the cases about large
    manifests. A hidden limit is held for `limit_seconds` (the step: for each of its three), of
    which the first `warm_up` seconds do not count; `beside_limits` are the limits which the rival
    meets, too. `large_photos` are of 12 megapixels, `in_flight` of them at a time;
    `mixed_photos` of many kinds. `engine_rows` is `row_cost` for workers of Dask, and `places` are
    so many calls at a time, of so many seconds. `bucket_reads` are reads of one photo in a bucket.
    The sides of all these photos, and of what is made of them, are divided by `shrink`.
    """

    rounds: int
    startups: int
    row_cost: tuple[int, int]
    tls_row_cost: tuple[int, int]
    slow_row_cost: tuple[int, int]
    many: int
    growth: tuple[int, ...]
    limits: tuple[int, ...]
    beside_limits: tuple[int, ...]
    limit_seconds: float
    warm_up: float
    latency: float
    large_photos: int
    mixed_photos: int
    in_flight: int
    prepared: tuple[int, int]
    engine_rows: tuple[int, int]
    bucket_reads: int
    places: tuple[int, float] = (200, 1.9)
    megapixels: tuple[int, ...] = (24, 12)
    sides: tuple[int, ...] = (4096, 1280)
    shrink: int = 1


SIZES = {
    "tiny": Size(
        rounds=1,
        startups=1,
        row_cost=(0, 20),
        tls_row_cost=(0, 4),
        slow_row_cost=(0, 4),
        many=60,
        growth=(20,),
        limits=(4,),
        beside_limits=(4,),
        limit_seconds=0.6,
        warm_up=0.0,
        latency=0.1,
        large_photos=2,
        mixed_photos=2,
        in_flight=2,
        prepared=(0, 2),
        engine_rows=(2, 8),
        bucket_reads=5,
        places=(4, 0.1),
        megapixels=(12,),
        sides=(1280,),
        shrink=20,
    ),
    "quick": Size(
        rounds=3,
        startups=5,
        row_cost=(1_000, 7_000),
        tls_row_cost=(500, 3_000),
        slow_row_cost=(50, 200),
        many=100_000,
        growth=(1_000, 10_000),
        limits=(4, 16),
        beside_limits=(16,),
        limit_seconds=22,
        warm_up=8,
        latency=0.5,
        large_photos=96,
        mixed_photos=36,
        in_flight=64,
        prepared=(4, 16),
        engine_rows=(500, 3_000),
        bucket_reads=500,
    ),
    "full": Size(
        rounds=5,
        startups=5,
        row_cost=(1_000, 21_000),
        tls_row_cost=(1_000, 11_000),
        slow_row_cost=(100, 600),
        many=1_000_000,
        growth=(1_000, 10_000, 100_000, 1_000_000),
        limits=(4, 16, 64),
        beside_limits=(4, 16, 64),
        limit_seconds=180,
        warm_up=30,
        latency=0.5,
        large_photos=512,
        mixed_photos=180,
        in_flight=64,
        prepared=(4, 52),
        engine_rows=(1_000, 11_000),
        bucket_reads=1_000,
    ),
}
