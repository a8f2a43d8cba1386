"""A member of ours answers as an agent did that was recorded; tests/interop asks one that runs."""

import json
from pathlib import Path

import pytest

from tests.membership.agent_rpc.sessions import REQUESTS, as_json, comparable, converse
from tests.membership.agent_rpc.test_server import served

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())


@pytest.mark.timeout(60)
async def test_the_answers_are_those_of_an_agent() -> None:
    async with served(name="one") as ours:
        answers = [as_json(comparable(each)) for each in await converse(ours.address)]
    assert len(RECORDED) == len(REQUESTS)
    for request, answer, recorded in zip(REQUESTS, answers, RECORDED, strict=True):
        assert answer == recorded, request
