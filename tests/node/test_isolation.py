"""A node that is alone, or with too few others, says so."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from proglog_trio.cli.formats.status import described_status, status_lines
from proglog_trio.internal_errors import InternalErrors
from proglog_trio.node.isolation import GRACE_SECONDS, Isolation
from proglog_trio.rpc.calls.cluster import get_status
from tests.members import node_inside, statuses, wait_for


@pytest.mark.parametrize(
    ("alive", "size", "has_start_addresses", "problem"),
    [
        (1, None, False, None),  # nobody said that there are others
        (1, 1, True, None),
        (1, None, True, "it is alone"),
        (2, None, True, None),
        (1, 3, False, "it is alone, in a cluster meant to have 3 nodes"),
        (1, 2, True, "it is alone, in a cluster meant to have 2 nodes"),
        (2, 3, True, None),
        (2, 5, True, "2 of 5 nodes are there, which is fewer than half"),
        (2, 4, True, None),
        (3, 5, True, None),
    ],
)
def test_when_it_is_a_problem(alive: int, size: int | None, has_start_addresses: bool, problem: str | None) -> None:
    assert Isolation(lambda: alive, size, has_start_addresses).problem == problem


async def test_it_is_logged_when_it_lasts(
    autojump_clock: MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    alive = 1
    nursery.start_soon(Isolation(lambda: alive, 5, True).watch, InternalErrors())
    caplog.set_level(logging.INFO)
    await trio.sleep(GRACE_SECONDS - 1)
    assert not caplog.records
    await trio.sleep(600)
    alive = 2
    await trio.sleep(600)
    alive = 5
    await trio.sleep(3)
    assert [(record.levelname, "alone" in record.getMessage()) for record in caplog.records] == [
        ("WARNING", True),
        ("WARNING", False),
        ("INFO", False),
    ]


async def test_status_says_so(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a", cluster_size=2) as a:
        told = await get_status(a.address, 10)
        assert described_status(told)["isolation"] == "it is alone, in a cluster meant to have 2 nodes"
        assert "cluster   ALONE OR WITH TOO FEW: it is alone, in a cluster meant to have 2 nodes" in status_lines(told)
        async with node_inside(tmp_path / "b", "b", cluster_size=2, join=a.gossip):
            await wait_for(a, statuses(a="alive", b="alive"))
            told = await get_status(a.address, 10)
            assert described_status(told)["isolation"] is None
