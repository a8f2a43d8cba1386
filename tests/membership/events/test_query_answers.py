from __future__ import annotations

import pytest
import trio

from proglog_trio.membership.events.query_answers import (
    ANSWER_OVERHEAD_BYTES,
    MAX_WAITING_BYTES,
    AnswersMissed,
    QueryAcknowledgement,
    QueryAnswer,
    QueryAnswers,
)

LARGE = bytes(1024 * 1024)


async def test_what_came_before_the_end_is_given() -> None:
    answers = QueryAnswers()
    answers.acknowledged("a")
    answers.answered("a", b"1")
    answers.ended()
    answers.ended()
    assert [each async for each in answers] == [QueryAcknowledgement("a"), QueryAnswer("a", b"1")]


async def test_answers_that_are_not_read_are_bounded() -> None:
    answers = QueryAnswers()
    for number in range(5):
        answers.answered(f"m{number}", LARGE)
    answers.acknowledged("a")
    answers.ended()
    for member in ("m0", "m1", "m2"):
        assert await anext(answers) == QueryAnswer(member, LARGE)
    with pytest.raises(AnswersMissed, match=str(MAX_WAITING_BYTES)):
        await anext(answers)


async def test_acknowledgements_are_bounded_too() -> None:
    answers = QueryAnswers()
    for number in range(MAX_WAITING_BYTES // ANSWER_OVERHEAD_BYTES + 1):
        answers.acknowledged(f"m{number}")
    answers.ended()
    with pytest.raises(AnswersMissed):
        async for _ in answers:
            pass


async def test_who_reads_gets_as_much_as_there_is() -> None:
    answers = QueryAnswers()
    for number in range(20):
        answers.answered(f"m{number}", LARGE)
        assert await anext(answers) == QueryAnswer(f"m{number}", LARGE)
    with trio.move_on_after(0.01) as scope:
        await anext(answers)
    assert scope.cancelled_caught
    answers.ended()
    assert [each async for each in answers] == []
