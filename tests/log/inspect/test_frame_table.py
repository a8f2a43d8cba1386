from __future__ import annotations

from proglog_trio.log.format.origin import Origin
from proglog_trio.log.inspect.frame_table import FrameTable, digest_of, find_frame
from tests.log.driving import DIRECTORY
from tests.log.repairing import write_log
from tests.log.simulated_disk import SimulatedDisk


def read(disk: SimulatedDisk) -> FrameTable:
    table = FrameTable(DIRECTORY, disk)
    told: list[tuple[int, int]] = []
    table.read(lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert all(done <= total for done, total in told)
    return table


def test_every_frame_is_there_with_its_digest() -> None:
    written = write_log()
    written.opened.close()
    table = read(written.disk)
    assert (table.frames, table.damaged_places, table.cluster_name) == (len(written.frames), 0, "proglog")
    found = {
        (origin, base): (count, digest)
        for origin, each in table.origins.items()
        for base, count, digest in zip(each.bases, each.counts, each.digests, strict=True)
    }
    assert found == {
        (frame.header.origin, frame.header.base_sequence): (frame.header.count, digest_of(frame.data))
        for frame in written.frames.values()
    }
    for origin, state in written.log.origins.items():
        assert (table.origins[origin].low, table.origins[origin].next) == (0, state.next)
        assert table.origins[origin].gaps == list(state.gaps)


def test_a_running_node_s_log_is_read_as_far_as_it_is_durable() -> None:
    written = write_log()
    assert read(written.disk).frames == len(written.frames)


def test_damage_is_counted_and_left_out() -> None:
    written = write_log()
    written.opened.close()
    victim = next(iter(written.frames.values()))
    store = written.closed[0].store
    written.disk.flip(store, victim.end - 1, 0x01)
    table = read(written.disk)
    assert (table.frames, table.damaged_places) == (len(written.frames) - 1, 1)
    written.disk.flip(store, 20, 0x01)
    written.disk.flip(written.closed[0].index, 70, 0x01)
    lost = sum(frame.base_offset < written.closed[1].base_offset for frame in written.frames.values())
    table = read(written.disk)
    assert (table.frames, table.damaged_places) == (len(written.frames) - lost, 1)


def test_where_a_frame_stands() -> None:
    written = write_log()
    for frame in written.frames.values():
        header = frame.header
        place = find_frame(written.disk, DIRECTORY, header.origin, header.base_sequence)
        assert place is not None
        assert (place.file, place.position, place.offset) == (
            written.log.catalog.containing(frame.base_offset).store,
            frame.position,
            frame.base_offset,
        )
    assert find_frame(written.disk, DIRECTORY, Origin(bytes(16)), 0) is None
