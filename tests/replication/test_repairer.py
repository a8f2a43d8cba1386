from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest
import structlog.testing
import trio

from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.opening import open_log
from proglog_trio.log.repair.missing_ranges import Missing
from proglog_trio.log.scrub import Scrub
from proglog_trio.replication import repairer as repairer_module
from proglog_trio.replication.missing_review import MissingReview
from proglog_trio.replication.repairer import MAX_NAMED, Repairer
from proglog_trio.steps import Turn
from tests.log.driving import ForeignLog, batch_of, read_all


class NothingMissing:
    """Stands for a review that knows of nothing that is missing at present."""

    def given_up(self) -> dict[Origin, Sequence[object]]:
        return {}

    def settled(self, filled_offsets: int, gaps: Mapping[Origin, Sequence[object]]) -> None:
        pass


async def no_frames(_address: str, _missing: Missing) -> list[bytes]:
    raise AssertionError("there is nobody to ask")


async def test_what_is_left_is_named_up_to_a_bound_and_counted(tmp_path: Path) -> None:
    config = LogConfig(tmp_path / "data", segment_frames=MAX_NAMED + 7, scrub_bytes_per_second=None)
    async with open_log(config) as log, trio.open_nursery() as nursery:
        for number in range(MAX_NAMED + 8):
            await log.append(batch_of(b"%d" % number))
        files = log.catalog.segments[0]
        content = bytearray(files.store.read_bytes())
        for frame in read_all(log)[: MAX_NAMED + 7]:
            content[frame.end - 1] ^= 1
        files.store.write_bytes(content)
        log.catalog._loaded.clear()
        passing = Scrub(log.catalog)
        while not passing.finished:
            passing.step(1 << 20)
        assert len(log.damage) == MAX_NAMED + 7
        review = cast("MissingReview", NothingMissing())
        repairer = Repairer(log, review, lambda _missing: [], no_frames, random.Random(1))
        with structlog.testing.capture_logs() as logs:
            nursery.start_soon(repairer.run)
            await repairer.repair_now()
        nursery.cancel_scope.cancel()
        left = [each for each in logs if each["event"].endswith("damage is left")]
        assert [each["event"] for each in left] == ["damage is left"] * MAX_NAMED + ["more damage is left"]
        assert (left[-1]["segment"], left[-1]["places"]) == (str(files.store), 7)


async def test_others_run_while_frames_are_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment may have fifty thousand, of which each takes a hundredth of a millisecond."""
    monkeypatch.setattr(repairer_module, "Turn", lambda: Turn(seconds=0.0))
    foreign = ForeignLog.make(1)
    frames = [foreign.write(batch_of(b"%d" % number)).encode() for number in range(200)]
    origin = foreign.frames[0].header.origin
    turns = 0

    async def half(address: str, _missing: Missing) -> list[bytes]:
        return frames[:120] if address == "a" else frames[100:]

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with (
        open_log(LogConfig(tmp_path / "data", scrub_bytes_per_second=None)) as log,
        trio.open_nursery() as nursery,
    ):
        review = cast("MissingReview", NothingMissing())
        repairer = Repairer(log, review, lambda _missing: ["a", "b", "c"], half, random.Random(1))
        nursery.start_soon(count)
        assert await repairer._fetch(Missing(origin, 0, 200, 0, 200)) == frames
        nursery.cancel_scope.cancel()
    assert turns >= 200


async def test_frames_of_another_origin_are_no_answer(tmp_path: Path) -> None:
    right, wrong = ForeignLog.make(1), ForeignLog.make(2)
    for foreign in (right, wrong):
        foreign.write(batch_of(b"x"))

    async def fetch(address: str, _missing: Missing) -> list[bytes]:
        return [(wrong if address == "a" else right).frames[0].encode()]

    async with open_log(LogConfig(tmp_path / "data", scrub_bytes_per_second=None)) as log:
        review = cast("MissingReview", NothingMissing())
        repairer = Repairer(log, review, lambda _missing: ["a", "b"], fetch, random.Random(1))
        missing = Missing(right.frames[0].header.origin, 0, 1, 0, 1)
        assert await repairer._fetch(missing) == [right.frames[0].encode()]
