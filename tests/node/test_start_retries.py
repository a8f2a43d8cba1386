"""What may pass is tried again at a start."""

from __future__ import annotations

import pytest
import trio
from attrs import define
from trio.testing import MockClock

from proglog_trio.errors import AddressInUse, AddressUnavailable, DataDirectoryError, DataDirectoryHeld
from proglog_trio.node.start_retries import LONGEST_RETRY_SECONDS, StartRetries

IN_USE = AddressInUse("in use", may_pass=True)


@define
class Step:
    """A step of a start that fails so often."""

    error: Exception
    failures: int
    attempts: int = 0

    async def __call__(self) -> str:
        self.attempts += 1
        await trio.lowlevel.checkpoint()
        if self.attempts <= self.failures:
            raise self.error
        return "done"


@pytest.mark.parametrize("error", [IN_USE, DataDirectoryHeld("held")])
async def test_until_it_works(error: Exception, autojump_clock: MockClock) -> None:
    step = Step(error, 5)
    assert await StartRetries(60).until_it_works(step) == "done"
    assert step.attempts == 6


async def test_all_steps_of_a_start_have_one_time(autojump_clock: MockClock) -> None:
    retries = StartRetries(10)
    began = trio.current_time()
    await retries.until_it_works(Step(IN_USE, 4))
    assert trio.current_time() > began
    second = Step(IN_USE, 1_000)
    with pytest.raises(AddressInUse):
        await retries.until_it_works(second)
    assert trio.current_time() - began == pytest.approx(10)
    assert 10 / LONGEST_RETRY_SECONDS < second.attempts < 20
    assert retries.left == 0


@pytest.mark.parametrize("error", [AddressUnavailable("not ours"), DataDirectoryError("no directory"), OSError("?")])
async def test_what_does_not_pass_is_raised_at_once(error: Exception, autojump_clock: MockClock) -> None:
    step = Step(error, 1)
    with pytest.raises(type(error)):
        await StartRetries(60).until_it_works(step)
    assert step.attempts == 1


async def test_without_time_there_is_one_attempt() -> None:
    step = Step(IN_USE, 1)
    with pytest.raises(AddressInUse):
        await StartRetries(0).until_it_works(step)
    assert step.attempts == 1
