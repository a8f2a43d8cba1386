from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import structlog.testing
import trio

from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.opening import open_log
from proglog_trio.log.repair.missing_ranges import Missing
from proglog_trio.log.scrub import Scrub
from proglog_trio.replication.missing_review import MissingReview
from proglog_trio.replication.repairer import MAX_NAMED, Repairer
from tests.log.driving import batch_of, read_all


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
