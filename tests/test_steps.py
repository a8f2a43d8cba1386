import pytest

from proglog_trio.steps import COPIED_AT_ONCE_BYTES, Steps, Turn, complete, joined


def count_to(number: int) -> Steps[int]:
    for _ in range(number):
        yield
    return number


def test_complete_returns_what_the_work_is_for() -> None:
    assert complete(count_to(7)) == 7


def test_a_turn_is_over_when_its_time_is() -> None:
    now = 5.0
    turn = Turn(lambda: now, seconds=1.0)
    turn.begin()
    assert not turn.is_over
    now = 6.0
    assert turn.is_over
    turn.begin()
    assert not turn.is_over


@pytest.mark.parametrize("sizes", [(), (0,), (3, 0, 5), (COPIED_AT_ONCE_BYTES * 3 + 1, 2)])
def test_joined_copies_a_bounded_piece_at_a_time(sizes: tuple[int, ...]) -> None:
    parts = [bytes((number,)) * size for number, size in enumerate(sizes)]
    pieces = 0

    def counted() -> Steps[bytearray]:
        nonlocal pieces
        steps = joined(parts)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return bytearray(end.value)
            pieces += 1
            yield

    assert complete(counted()) == b"".join(parts)
    assert pieces >= sum(sizes) // COPIED_AT_ONCE_BYTES
