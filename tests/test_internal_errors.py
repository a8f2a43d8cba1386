from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from proglog_trio.internal_errors import (
    LONGEST_PAUSE_SECONDS,
    LONGEST_TRACEBACK,
    MAX_TOLD,
    PERIOD_SECONDS,
    InternalErrors,
    Where,
    shortened_traceback,
)


class UnforeseenError(Exception):
    pass


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "internal error" in record.getMessage()]


@pytest.mark.usefixtures("internal_errors")
def test_an_error_is_caught_counted_and_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    errors = InternalErrors()
    with errors.boundary(Where.PEER, peer="b") as boundary:
        raise UnforeseenError("text")
    assert boundary.failed
    assert (errors.counts[Where.PEER], errors.total) == (1, 1)
    (event,) = events(caplog)
    assert "where='peer'" in event
    assert "peer='b'" in event
    assert "Traceback (most recent call last)" in event
    assert "UnforeseenError: text" in event
    with boundary:
        pass
    assert not boundary.failed


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_passes(error: type[BaseException]) -> None:
    errors = InternalErrors()
    with pytest.raises(error), errors.boundary(Where.PEER):
        raise error
    assert errors.total == 0


@pytest.mark.usefixtures("internal_errors")
def test_of_a_group_only_what_is_an_exception_is_caught() -> None:
    errors = InternalErrors()
    with errors.boundary(Where.PEER):
        raise ExceptionGroup("both", [UnforeseenError(), ExceptionGroup("inner", [OSError()])])
    assert errors.total == 1
    with pytest.raises(BaseExceptionGroup) as caught, errors.boundary(Where.PEER):
        raise BaseExceptionGroup("both", [UnforeseenError(), KeyboardInterrupt()])
    assert [type(each) for each in caught.value.exceptions] == [KeyboardInterrupt]
    assert errors.total == 2
    with pytest.raises(BaseExceptionGroup), errors.boundary(Where.PEER):
        raise BaseExceptionGroup("none", [KeyboardInterrupt()])
    assert errors.total == 2


@pytest.mark.usefixtures("internal_errors")
async def test_a_cancellation_passes_alone_and_beside_an_error() -> None:
    errors = InternalErrors()

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise UnforeseenError

    with trio.CancelScope() as scope:
        scope.cancel()
        with errors.boundary(Where.PEER):
            await trio.sleep_forever()
        raise AssertionError("the cancellation was caught")
    assert (scope.cancelled_caught, errors.total) == (True, 0)
    with trio.CancelScope() as scope:
        with errors.boundary(Where.PEER):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail_when_cancelled)
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
        raise AssertionError("the cancellation was caught")
    assert (scope.cancelled_caught, errors.total) == (True, 1)


@pytest.mark.usefixtures("internal_errors")
def test_each_kind_is_logged_once_a_period_and_few_kinds_at_all(caplog: pytest.LogCaptureFixture) -> None:
    now = 7.0
    errors = InternalErrors(clock=lambda: now)

    def fail(error: type[Exception], where: Where = Where.PEER) -> None:
        with errors.boundary(where):
            raise error

    for _ in range(1000):
        fail(UnforeseenError)
    assert len(events(caplog)) == 1
    for number in range(100):
        fail(type(f"Error{number}", (Exception,), {}))
    assert len(events(caplog)) == MAX_TOLD
    fail(UnforeseenError, Where.REPAIR)
    assert len(events(caplog)) == MAX_TOLD + 1
    now += PERIOD_SECONDS
    fail(UnforeseenError)
    assert f"not_logged_before={100 - (MAX_TOLD - 1)}" in events(caplog)[-1]
    assert (errors.counts[Where.PEER], errors.counts[Where.REPAIR]) == (1101, 1)


def test_a_traceback_has_an_end() -> None:
    def deeper(depth: int) -> None:
        if depth == 0:
            raise UnforeseenError("begin" + "x" * 1_000_000 + "end")
        deeper(depth - 1)

    with pytest.raises(UnforeseenError) as caught:
        deeper(300)
    text = shortened_traceback(caught.value)
    assert len(text) <= LONGEST_TRACEBACK
    assert text.startswith("Traceback")
    assert text.endswith("end")


@pytest.mark.usefixtures("internal_errors")
def test_an_output_that_fails_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def error(self, *_arguments: object, **_context: object) -> None:
            raise BrokenPipeError

    monkeypatch.setattr("proglog_trio.internal_errors._logger", Broken())
    errors = InternalErrors()
    with errors.boundary(Where.PEER):
        raise UnforeseenError
    assert (errors.total, errors.not_logged) == (1, 1)


@pytest.mark.usefixtures("internal_errors")
def test_a_loop_whose_turns_fail_goes_on_and_does_not_spin() -> None:
    errors = InternalErrors()
    began: list[float] = []

    async def main() -> None:
        turns = errors.turns(Where.REPAIR)
        for number in range(20):
            began.append(trio.current_time())
            async with turns:
                if number != 15:
                    raise UnforeseenError
        with trio.move_on_after(0.01) as scope:
            while True:
                async with turns:
                    raise UnforeseenError
        assert scope.cancelled_caught

    trio.run(main, clock=MockClock(autojump_threshold=0))
    pauses = [round(after - before, 6) for before, after in itertools.pairwise(began)]
    assert pauses[0] > 0
    assert pauses[:15] == sorted(pauses[:15])
    assert pauses[14] == LONGEST_PAUSE_SECONDS
    assert pauses[15] == 0
    assert pauses[16] == pauses[0]


@pytest.mark.usefixtures("internal_errors")
def test_the_names_of_places_are_fixed() -> None:
    errors = InternalErrors()
    assert set(errors.counts) == set(Where)
    documented = (Path(__file__).parent.parent / "docs/reference/what-ends-a-node.md").read_text()
    assert [where for where in Where if f"| `{where.value}` |" not in documented] == []
    assert all(where.value.replace("_", "").isalpha() and where.value.islower() for where in Where)
