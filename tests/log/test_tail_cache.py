from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.envelope import EnvelopeKind
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.pending_frame import PendingFrame, bare_envelope
from proglog_trio.log.tail_cache import MAX_FRAMES, TailCache
from tests.log.driving import DIRECTORY, OpenLog, batch_of
from tests.log.simulated_disk import SimulatedDisk

ORIGIN = Origin(bytes(16))


def frame(offset: int, count: int, size: int) -> PendingFrame:
    return PendingFrame(EnvelopeKind.RECORDS, offset, ORIGIN, offset, count, (bytes(size),), 0)


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 50)), max_size=60), st.integers(0, 400), st.integers(0, 300)
)
def test_the_newest_frames_are_there_from_some_offset_on(
    sizes: list[tuple[int, int]], max_bytes: int, asked: int
) -> None:
    recent = TailCache(max_bytes, 0)
    frames = []
    offset = 0
    for count, size in sizes:
        frames.append(frame(offset, count, size))
        recent.add(frames[-1])
        offset += count
    held = list(recent.since(recent.start_offset))
    assert sum(each.length for each in held) <= max_bytes
    assert held == frames[len(frames) - len(held) :]
    asked = max(asked, recent.start_offset)
    assert list(recent.since(asked)) == [each for each in frames if each.base_offset + each.count > asked]


def test_their_number_is_bounded() -> None:
    recent = TailCache(1 << 30, 0)
    for offset in range(MAX_FRAMES + 100):
        recent.add(frame(offset, 1, 1))
    assert recent.start_offset == 100
    assert len(list(recent.since(100))) == MAX_FRAMES


def test_what_holds_no_records_is_not_kept() -> None:
    recent = TailCache(1 << 30, 0)
    recent.add(bare_envelope(EnvelopeKind.CLOSED, 0))
    assert list(recent.since(0)) == []


def test_a_log_keeps_what_is_durable() -> None:
    opened = OpenLog.open(SimulatedDisk(), config=LogConfig(DIRECTORY))
    log = opened.log
    log.append_soon(batch_of(b"1", b"2"), lambda _answer: None)
    assert list(log.durable.tail_cache.since(0)) == []
    opened.commit()
    assert [each.count for each in log.durable.tail_cache.since(0)] == [2]
    opened.close()
    again = OpenLog.open(opened.log.writer.disk, seed=1, config=LogConfig(DIRECTORY)).log
    assert again.durable.tail_cache.start_offset == again.next_offset == 2
