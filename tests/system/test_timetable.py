"""Estimates of the time that a command still takes."""

import pytest

from synthdetect.system import timetable as module
from synthdetect.system.timetable import Part, Timetable, current, duration, in_all, timetable


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module.time, "monotonic", made.monotonic)
    return made


def test_nothing_is_known_before_anything_is_measured(clock: Clock) -> None:
    plan = Timetable([Part("a", 10)])
    assert plan.seconds is None
    with plan.part("a"):
        clock.now += 5
        assert plan.seconds is None


def test_the_part_under_way_goes_by_its_own_speed_and_others_by_their_kind(clock: Clock) -> None:
    plan = Timetable([Part("a", 10, "slow"), Part("b", 10, "slow"), Part("c", 10, "fast")])
    with plan.part("a"):
        clock.now += 8
        plan.advance(4)
        assert plan.seconds == pytest.approx(2 * 6 + 2 * 10 + 2 * 10)
        clock.now += 12
    assert plan.seconds == pytest.approx(40)
    with plan.part("c"):
        clock.now += 1
        plan.advance(2)
        assert plan.seconds == pytest.approx(0.5 * 8 + 2 * 10)


def test_a_part_that_stops_early_shortens_the_estimate_of_its_kind(clock: Clock) -> None:
    plan = Timetable([Part("a", 10), Part("b", 10)])
    with plan.part("a"):
        clock.now += 5
        plan.advance(3)
    assert plan.seconds == pytest.approx(5)


def test_work_of_an_earlier_process_does_not_count_as_speed(clock: Clock) -> None:
    plan = Timetable([Part("a", 10)])
    with plan.part("a"):
        plan.skip(6)
        clock.now += 2
        plan.advance(1)
        assert plan.seconds == pytest.approx(2 * 3)


def test_a_failed_part_says_nothing_but_one_that_ends_early_on_purpose_does(clock: Clock) -> None:
    plan = Timetable([Part("a", 10), Part("b", 10), Part("c", 10)])

    def fail(name: str, seconds: float) -> None:
        with plan.part(name, ended_by=KeyError):
            clock.now += seconds
            raise KeyError if name == "b" else ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail("a", 50)
    assert plan.seconds is None
    with pytest.raises(KeyError):
        fail("b", 1)
    assert plan.seconds == pytest.approx(1)


def test_several_processes_share_what_is_left(clock: Clock) -> None:
    plan = Timetable([Part("a", 1)])
    with plan.part("a"):
        clock.now += 10
    plan.plan([Part("b", 1), Part("c", 1)], processes=2)
    assert plan.seconds == pytest.approx(10)
    plan.drop("b")
    assert (plan.seconds, plan.remaining) == (5, 1)


def test_words(clock: Clock) -> None:
    assert in_all() == ""
    with timetable([Part("a", 1), Part("b", 1)]):
        with current().part("a"):
            clock.now += 300
        assert in_all() == ", 5 min left in all (1 more to come)"
        with timetable([Part("inner", 1)]):
            assert current().remaining == 1
    assert in_all() == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "3 s"), (89, "89 s"), (150, "2 min"), (5400, "1 h 30 min"), (200_000, "2 days 7 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
