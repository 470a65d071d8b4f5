"""What a run waits for, from what is under way."""

from __future__ import annotations

from cases import cases

from enroll.limiter.limits import Cap, LimiterState
from enroll.limiter.waiting import SAMPLES, View, WaitReason, Waits, in_words, waits_for

FULL = LimiterState(limit=4, taken=4)
FREE = LimiterState(limit=4, taken=1)


def gauge(*, taken: int = 4, **more: object) -> LimiterState:
    return LimiterState(limit=4, taken=taken, **more)  # type: ignore[arg-type]


@cases(
    ("view", "wait"),
    [
        (View(gauge=gauge(ceiling=4), ready=9), WaitReason.ACCOUNT),
        (View(gauge=FULL, ready=9, refused=True), WaitReason.ACCOUNT),
        (View(gauge=gauge(taken=0, closed=3.0), ready=9), WaitReason.ACCOUNT),
        (View(gauge=gauge(taken=1, spacing=5.0), ready=9), WaitReason.ACCOUNT),
        (View(gauge=FULL, ready=9), WaitReason.NETWORK),
        (View(gauge=FREE, ready=9, away=True), WaitReason.NETWORK),
        (View(gauge=gauge(closed=3.0), away=True), WaitReason.NETWORK),
        (View(gauge=gauge(cap=Cap.MAX_IN_FLIGHT), ready=9), WaitReason.CAP),
        (View(gauge=gauge(cap=Cap.AUTO), ready=9, refused=True), WaitReason.CAP),
        (View(gauge=gauge(taken=1, cap=Cap.RATE), ready=9), WaitReason.CAP),
        (View(gauge=FREE, photos=3), WaitReason.PHOTOS),
        (View(gauge=gauge(taken=1, ceiling=4), photos=3, scanned=False), WaitReason.PHOTOS),
        (View(gauge=gauge(taken=1, cap=Cap.RATE), photos=3), WaitReason.PHOTOS),
        (View(gauge=FREE, scanned=False), WaitReason.MANIFEST),
        (View(gauge=FREE, doubts=2), WaitReason.DOUBTS),
        (View(gauge=FREE, ready=1), None),
        (View(gauge=FREE), None),
    ],
)
def test_what_is_under_way_says_what_a_run_waits_for(view: View, wait: WaitReason | None) -> None:
    assert waits_for(view) is wait


def test_our_own_bound_is_told_by_its_option() -> None:
    view = View(gauge=gauge(cap=Cap.MAX_IN_FLIGHT), ready=9)
    assert in_words(view) == "our own bound, --max-in-flight"
    assert in_words(View(gauge=FREE)) == ""


def test_a_moment_does_not_change_what_has_been_waited_for() -> None:
    waits = Waits()
    for _ in range(SAMPLES):
        waits.see("the account")
    assert waits.see("photos") == "the account"
    for _ in range(SAMPLES):
        lately = waits.see("photos")
    assert lately == "photos"
    assert waits.all == {"the account": SAMPLES, "photos": SAMPLES + 1}
