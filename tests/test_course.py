"""The course of a run: how it went over time, in few points."""

from __future__ import annotations

from moved_clock import StoppedClock

from enroll.runner.progress import POINTS, Course


def test_a_course_has_a_point_each_half_second_and_the_present_one(
    stopped_clock: StoppedClock,
) -> None:
    course = Course()
    for tick in range(1, 6):
        stopped_clock.at += 0.25
        course.note(tick, calls=tick * 10, refused=tick)
    # Two ticks make a point, with the calls in flight on average; the fifth is the present.
    assert course.points(calls=50, refused=5) == [
        (0.5, 1.5, 20, 2),
        (1.0, 3.5, 40, 4),
        (1.2, 5.0, 50, 5),
    ]


def test_a_long_course_has_no_more_points_but_all_of_its_calls(
    stopped_clock: StoppedClock,
) -> None:
    course = Course()
    for tick in range(1, 40_001):
        stopped_clock.at += 0.25
        course.note(7, calls=tick, refused=0)
    points = course.points(calls=40_000, refused=0)
    assert POINTS // 2 <= len(points) <= POINTS
    assert points[-1][0] == 10_000.0
    assert points[-1][2] == 40_000
    assert {in_flight for _, in_flight, _, _ in points} == {7.0}
    assert [at for at, *_ in points] == sorted(at for at, *_ in points)
