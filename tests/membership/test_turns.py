import pytest
import trio
import trio.testing

from proglog_trio.membership.turns import Turns
from proglog_trio.steps import Steps, Turn


class Clock:
    """Shows a second more whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def turns_of(steps: int) -> Turns:
    """Turns in each of which there is time for so many steps."""
    return Turns(Turn(Clock(), seconds=float(steps)))


async def test_long_work_is_done_a_turn_at_a_time() -> None:
    done: list[str] = []

    def work(name: str, steps: int) -> Steps[str]:
        for _ in range(steps):
            done.append(name)
            yield
        return name

    turns = turns_of(4)

    async def run(name: str, steps: int) -> None:
        assert await turns.run(work(name, steps)) == name
        done.append(name.upper())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "a", 40)
        nursery.start_soon(run, "b", 40)
        await trio.testing.wait_all_tasks_blocked()
        assert done.count("a") == done.count("b") == 40
    longest = max(len(run) for run in "".join(done).lower().replace("ab", "a b").replace("ba", "b a").split())
    assert longest == 4


async def test_short_work_does_not_wait_for_long_work() -> None:
    turns = turns_of(2)
    ended: list[str] = []

    def work(steps: int) -> Steps[None]:
        for _ in range(steps):
            yield

    async def run(name: str, steps: int) -> None:
        await turns.run(work(steps))
        ended.append(name)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(run, f"long {number}", 1000)
        nursery.start_soon(run, "short", 1)
    assert ended[0] == "short"


async def test_what_is_cancelled_is_left_where_it_is_and_others_go_on() -> None:
    turns = turns_of(1)
    closed = False

    def endless() -> Steps[None]:
        nonlocal closed
        try:
            while True:
                yield
        finally:
            closed = True

    def short() -> Steps[int]:
        yield
        return 5

    with trio.CancelScope() as scope:
        scope.cancel()
        await turns.run(endless())
    assert await turns.run(short()) == 5
    with trio.move_on_after(0.01) as scope:
        await turns.run(endless())
    assert scope.cancelled_caught
    assert closed
    assert await turns.run(short()) == 5


async def test_what_the_work_raises_is_raised() -> None:
    def failing() -> Steps[None]:
        yield
        raise ValueError("it is no state")

    turns = turns_of(5)
    with pytest.raises(ValueError, match="it is no state"):
        await turns.run(failing())
    assert turns.taken == 1
