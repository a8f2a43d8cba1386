from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.swim.timers import MAX_CANCELLED, Timer, Timers


def test_timers_run_in_the_order_of_their_deadlines() -> None:
    timers, ran = Timers(10.0), list[str]()
    timers.after(3.0, lambda: ran.append("c"))
    timers.after(1.0, lambda: ran.append("a"))
    timers.after(1.0, lambda: ran.append("b"))
    assert timers.next_deadline == 11.0
    timers.advance(12.0)
    assert ran == ["a", "b"]
    timers.advance(13.0)
    assert ran == ["a", "b", "c"]
    assert timers.next_deadline is None


def test_time_never_goes_back() -> None:
    timers = Timers(10.0)
    timers.advance(5.0)
    assert timers.now == 10.0


def test_what_a_timer_sets_is_run_if_it_is_due() -> None:
    timers, ran = Timers(), list[float]()

    def again() -> None:
        ran.append(timers.now)
        if len(ran) < 3:
            timers.after(0.0, again)

    timers.set(1.0, again)
    timers.advance(4.0)
    assert ran == [4.0, 4.0, 4.0]


def test_cancelled_timers_do_not_run_and_give_their_place_back() -> None:
    timers, ran = Timers(), list[int]()
    for number in range(100_000):
        timer = timers.after(1000.0 + number, lambda number=number: ran.append(number))  # type: ignore[misc]  # int
        if number % 1000:
            timer.cancel()
            timer.cancel()
    assert len(timers) == 100
    assert len(timers._heap) <= 2 * 100 + MAX_CANCELLED + 2
    timers.advance(1e9)
    assert ran == list(range(0, 100_000, 1000))
    assert len(timers) == 0


@given(st.lists(st.one_of(st.floats(0, 10), st.integers(0, 30)), max_size=60), st.lists(st.floats(0, 5)))
def test_against_a_naive_model(steps: list[float | int], advances: list[float]) -> None:
    timers, ran = Timers(), list[int]()
    made: list[tuple[float, int, Timer]] = []
    for step in steps:
        if isinstance(step, int):
            if step < len(made):
                made[step][2].cancel()
        else:
            number = len(made)
            made.append((step, number, timers.set(step, lambda number=number: ran.append(number))))  # type: ignore[misc]
    waiting = sorted(entry[:2] for entry in made if entry[2].action is not None)
    assert len(timers) == len(waiting)
    now = 0.0
    expected = []
    for advance in advances:
        now += advance
        expected += [number for deadline, number in waiting if deadline <= now]
        waiting = [entry for entry in waiting if entry[0] > now]
        timers.advance(now)
        assert ran == expected
        assert timers.next_deadline == (waiting[0][0] if waiting else None)
        assert len(timers) == len(waiting)
