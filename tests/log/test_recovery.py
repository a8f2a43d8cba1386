"""Opening after damage, interrupted at any operation: what was known to be used or lost is not forgotten."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest
from attrs import evolve

from proglog_trio.errors import DataDirectoryError
from proglog_trio.log.batch import Appended
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.envelope import EnvelopeKind
from proglog_trio.log.format.pending_frame import PendingFrame
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.recovery import RecoveryReport
from proglog_trio.log.storage.segment import ActiveSegment
from tests.log.driving import DIRECTORY, NOON, OpenLog, batch_of, read_all, read_everything
from tests.log.simulated_disk import Loss, PowerCut, SimulatedDisk

FIRST = SegmentFiles(DIRECTORY / "log", 0)
CONFIG = LogConfig(DIRECTORY, segment_frames=3, index_interval_bytes=1)


def written(count: int, *, cleanly: bool = False, config: LogConfig = CONFIG) -> tuple[SimulatedDisk, list[Appended]]:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, 1, config=config)
    appended = [opened.append(batch_of(b"%d" % number * 30)) for number in range(count)]
    opened.close(cleanly=cleanly)
    return disk, appended


def test_new_directory() -> None:
    opened = OpenLog.open(SimulatedDisk(), config=CONFIG)
    assert evolve(opened.log.report, aside=None) == RecoveryReport(segments=1)
    assert (opened.log.lowest_offset, opened.log.next_offset) == (0, 0)
    assert read_all(opened.log) == []


def test_report_counts_what_was_read() -> None:
    disk, _ = written(5)
    report = OpenLog.open(disk, config=CONFIG).log.report
    assert (report.segments, report.frames, report.is_clean) == (2, 2, True)


def cut_last_byte(disk: SimulatedDisk) -> None:
    disk.put(FIRST.store, disk.content(FIRST.store)[:-1])


def cut_two_frames(disk: SimulatedDisk) -> None:
    disk.put(FIRST.store, disk.content(FIRST.store)[:-300])


def flip_last_envelope(disk: SimulatedDisk) -> None:
    content = disk.content(FIRST.store)
    disk.flip(FIRST.store, content.rindex(SegmentHeader.decode(header_of(content)).salt.marker) + 20, 0xFF)


def flip_both_headers(disk: SimulatedDisk) -> None:
    newest = max(path for path in disk.files() if path.suffix == ".store")
    disk.flip(newest, 20, 0xFF)
    disk.flip(newest.with_suffix(".index"), 70, 0xFF)


def flip_last_payload_without_index(disk: SimulatedDisk) -> None:
    disk.flip(FIRST.store, len(disk.content(FIRST.store)) - 1, 0xFF)
    disk.delete(FIRST.index)


def header_of(content: bytes) -> bytes:
    return content[: int.from_bytes(content[8:12], "big")]


DAMAGES: list[Callable[[SimulatedDisk], None]] = [
    cut_last_byte,
    cut_two_frames,
    flip_last_envelope,
    flip_both_headers,
    flip_last_payload_without_index,
]


@pytest.mark.parametrize(("damage", "segments"), [*((damage, 1) for damage in DAMAGES), (flip_both_headers, 2)])
@pytest.mark.parametrize("loss", Loss)
def test_power_cut_while_damage_is_dealt_with(
    damage: Callable[[SimulatedDisk], None], segments: int, loss: Loss
) -> None:
    """Wherever opening is interrupted, the next one avoids the offsets that were acknowledged."""
    config = evolve(CONFIG, segment_frames=2 if segments == 2 else 100)
    original, appended = written(4, config=config)
    damage(original)
    uninterrupted = original.copy()
    OpenLog.open(uninterrupted, config=config)
    for seed in range(1 if loss is not Loss.MIX else 8):
        for cut_at in range(1, uninterrupted.operations + 1):
            disk = original.copy()
            disk.cut_at = cut_at
            with pytest.raises(PowerCut):
                OpenLog.open(disk, config=config)
            disk.restart(loss, random.Random(seed))
            opened = OpenLog.open(disk, 5, config=config)
            if loss is not Loss.MIX or damage is not flip_last_payload_without_index:
                # That one leaves a single envelope that knows; a torn write of the note over it spoils both.
                assert opened.log.next_offset >= appended[-1].base_offset + 1
            new = opened.append_values(b"new")
            opened.close(cleanly=False)
            opened = OpenLog.open(disk, 6, config=config)
            assert read_all(opened.log, new.base_offset)[0].data.endswith(b"new")
            damaged = [path for path in disk.files() if path.parent.name == "damaged"]
            everything = read_everything(opened.log)
            named = bool(opened.log.report.damaged) or bool(everything.losses) or bool(damaged)
            assert named or damage in (cut_last_byte, cut_two_frames), "nothing tells of the damage any more"


def test_offsets_after_a_jump_are_known_without_a_header() -> None:
    """A segment whose offsets jump, and whose header is then lost in both copies, still tells which were used."""
    disk, _ = written(6, config=evolve(CONFIG, segment_frames=100))
    cut_two_frames(disk)
    opened = OpenLog.open(disk, 2, config=CONFIG)
    assert opened.log.next_offset == 6
    appended = opened.append_values(b"after the jump")
    opened.close(cleanly=False)
    flip_both_headers(disk)
    opened = OpenLog.open(disk, 3, config=CONFIG)
    assert opened.log.next_offset > appended.base_offset
    (moved,) = opened.log.report.moved_aside
    assert disk.content(moved.path).endswith(b"after the jump")


@pytest.mark.parametrize("loss", Loss)
def test_newest_header_and_the_store_before_it_are_lost(loss: Loss) -> None:
    """The log goes on in the newest segment that there is, and what there is of the others is moved aside."""
    original, appended = written(9)
    stores = [SegmentFiles(FIRST.directory, base) for base in (0, 3, 6)]
    original.delete(stores[1].store)
    flip_both_headers(original)
    uninterrupted = original.copy()
    opened = OpenLog.open(uninterrupted, 2, config=CONFIG)
    assert [moved.segment for moved in opened.log.report.moved_aside] == [stores[1].index, stores[2].store]
    assert all(moved.path in uninterrupted.files() for moved in opened.log.report.moved_aside)
    assert {path for path in uninterrupted.files() if path.parent == FIRST.directory} == {FIRST.store, FIRST.index}
    for cut_at in range(1, uninterrupted.operations + 1):
        disk = original.copy()
        disk.cut_at = cut_at
        with pytest.raises(PowerCut):
            OpenLog.open(disk, 2, config=CONFIG)
        disk.restart(loss, random.Random(cut_at))
        opened = OpenLog.open(disk, 3, config=CONFIG)
        assert opened.log.next_offset > appended[-1].base_offset
        assert [frame.base_offset for frame in read_everything(opened.log).frames] == [0, 1, 2]
        names = {path.name for path in disk.files() if path.parent.name == "damaged"}
        assert names >= {stores[1].index.name, stores[2].store.name}
        opened.append_values(b"new")
        opened.close()
        assert read_all(OpenLog.open(disk, 4, config=CONFIG).log, opened.log.next_offset - 1)[0].data.endswith(b"new")


def test_no_segment_that_is_left_has_both_its_store_and_a_header() -> None:
    disk, appended = written(9)
    for base in (0, 6):
        files = SegmentFiles(FIRST.directory, base)
        disk.flip(files.store, 20, 0xFF)
        disk.flip(files.index, 70, 0xFF)
    disk.delete(SegmentFiles(FIRST.directory, 3).store)
    opened = OpenLog.open(disk, 2, config=CONFIG)
    assert opened.log.next_offset > appended[-1].base_offset
    assert len(opened.log.report.moved_aside) == 3
    assert not OpenLog.open(disk.copy(), 3, config=CONFIG).log.report.moved_aside


def test_unreadable_records_that_had_been_synced_stay_where_they_are() -> None:
    disk, _ = written(3, config=evolve(CONFIG, segment_frames=100))
    flip_last_envelope(disk)
    before = disk.content(FIRST.store)
    opened = OpenLog.open(disk, config=CONFIG)
    ((path, place),) = opened.log.report.damaged
    assert path == FIRST.store
    assert (place.expected_offset, place.next_offset) == (2, None)
    assert disk.content(FIRST.store).startswith(before)
    assert opened.log.next_offset == 3


def test_tail_that_was_not_synced_is_kept_in_damaged() -> None:
    disk, _ = written(2)
    torn = b"a torn write"
    disk.put(FIRST.store, disk.content(FIRST.store) + torn)
    report = OpenLog.open(disk, config=CONFIG).log.report
    (moved,) = report.moved_aside
    assert disk.content(moved.path) == torn
    assert (moved.size, moved.from_offset, moved.segment) == (len(torn), 2, FIRST.store)
    assert not report.lost
    assert not report.damaged


def test_two_tails_at_one_place_are_both_kept() -> None:
    disk, _ = written(2)
    clean = disk.content(FIRST.store)
    for torn in (b"first", b"second"):
        disk.put(FIRST.store, clean + torn)
        opened = OpenLog.open(disk, config=CONFIG)
        opened.log.close(cleanly=False)
    kept = [disk.content(path) for path in disk.files() if path.parent.name == "damaged"]
    assert sorted(kept) == [b"first", b"second"]


def test_lost_bytes_are_named() -> None:
    disk, _ = written(4, config=evolve(CONFIG, segment_frames=100))
    cut_two_frames(disk)
    report = OpenLog.open(disk, config=CONFIG).log.report
    (lost,) = report.lost
    assert "offsets 1 to 3" in lost or "offsets 2 to 3" in lost


def test_records_behind_an_index_that_a_failed_roll_left_are_served() -> None:
    disk, appended = written(4, config=evolve(CONFIG, segment_frames=100))
    opened = OpenLog.open(disk, 2, config=CONFIG)
    header = opened.log.catalog.active.read.header
    opened.log.roll()
    opened.append_values(b"in the next segment")
    opened.close()
    directory = SimulatedDisk()
    directory.make_directory(FIRST.directory)
    ActiveSegment.create(directory, FIRST.directory, evolve(header, base_offset=appended[2].base_offset), 1).close()
    leftover = SegmentFiles(FIRST.directory, appended[2].base_offset).index
    disk.put(leftover, directory.content(leftover))
    opened = OpenLog.open(disk, 3, config=CONFIG)
    assert leftover not in disk.files()
    assert [frame.base_offset for frame in read_all(opened.log, 3)] == [3, 4]
    assert len(read_all(opened.log)) == 5


def test_header_is_repaired_from_its_copy() -> None:
    disk, _ = written(2)
    sound = disk.content(FIRST.store)
    disk.flip(FIRST.store, 30, 0x04)
    opened = OpenLog.open(disk, config=CONFIG)
    assert len(opened.log.report.repaired) == 1
    assert opened.log.report.is_clean
    assert disk.content(FIRST.store) == sound
    assert len(read_all(opened.log)) == 2


def test_another_cluster_is_refused() -> None:
    disk, _ = written(1)
    with pytest.raises(DataDirectoryError, match="belongs to cluster 'proglog', not to 'other'"):
        OpenLog.open(disk, config=evolve(CONFIG, cluster_name="other"))
    assert not disk.open_files


def test_newer_format_is_refused() -> None:
    disk, _ = written(1)
    content = disk.content(FIRST.store)
    header = header_of(content)
    newer = bytearray(header)
    newer[5] = 3
    newer[-4:] = crc32c(bytes(newer[:-4])).to_bytes(4, "big")
    disk.put(FIRST.store, bytes(newer) + content[len(header) :])
    with pytest.raises(DataDirectoryError, match="format version 3"):
        OpenLog.open(disk, config=CONFIG)
    assert not disk.open_files


@pytest.mark.parametrize(
    "kind", ["make_directory", "lock", "open", "create", "write", "sync", "rename", "sync_directory"]
)
def test_disk_that_fails_while_opening_is_named(kind: str) -> None:
    disk = SimulatedDisk() if kind == "make_directory" else written(2)[0]
    disk.fail(kind, errno.EACCES)
    with pytest.raises(DataDirectoryError, match="it is not writable"):
        OpenLog.open(disk, config=CONFIG)
    assert not disk.open_files
    if kind != "make_directory":
        assert len(read_all(OpenLog.open(disk, config=CONFIG).log)) == 2


def test_full_disk_does_not_collect_copies_of_a_tail() -> None:
    disk, _ = written(2)
    disk.put(FIRST.store, disk.content(FIRST.store) + b"torn" * 100)
    disk.capacity = sum(len(disk.content(path)) for path in disk.files()) + 10
    for _ in range(3):
        opened = OpenLog.open(disk, config=CONFIG)
        assert "No space left" in str(opened.log.read_only_reason)
        assert len(read_all(opened.log)) == 2
        opened.close()
    assert not [path for path in disk.files() if path.parent.name == "damaged"]
    disk.clear_faults()
    assert len(OpenLog.open(disk, config=CONFIG).log.report.moved_aside) == 1


def test_records_whose_sync_failed_are_made_durable_before_they_are_served() -> None:
    """The kernel forgets after a failed fsync that pages are not on the disk: they have to be written again."""
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=CONFIG)
    answers: list[object] = []
    opened.log.append_soon(batch_of(b"one", producer_id=1, producer_sequence=1), answers.append)
    disk.fail("sync", errno.EIO)
    opened.commit()
    opened.close()
    opened = OpenLog.open(disk, 2, config=CONFIG)
    assert len(read_all(opened.log)) == 1
    retried: list[object] = []
    opened.log.append_soon(batch_of(b"one", producer_id=1, producer_sequence=1), retried.append)
    assert isinstance(retried[0], Appended)
    disk.restart(Loss.DROP, random.Random(0))
    assert len(read_all(OpenLog.open(disk, 3, config=CONFIG).log)) == 1


def test_log_goes_on_after_a_frame_that_only_the_writer_can_have_spoilt() -> None:
    """A frame whose CRCs are right but that this program cannot decode keeps its offsets."""
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=CONFIG)
    opened.append_values(b"one")
    opened.append_values(b"two")
    work = opened.work
    opened.log.append_soon(batch_of(b"three"), lambda _: None)
    (item,) = work
    assert isinstance(item, PendingFrame)
    header = bytearray(item.buffers[0])
    header[5] = 2  # a version to come
    header[-4:] = crc32c(bytes(header[:-4])).to_bytes(4, "big")
    work[0] = evolve(item, buffers=(bytes(header), *item.buffers[1:]))
    opened.commit()
    opened.close(cleanly=False)
    opened = OpenLog.open(disk, 2, config=CONFIG)
    assert len(opened.log.report.damaged) == 1
    assert opened.append_values(b"four").base_offset == 3
    opened.close(cleanly=False)
    opened = OpenLog.open(disk, 3, config=CONFIG)
    assert opened.log.next_offset == 4
    assert [place.expected_offset for _, place in opened.log.report.damaged] == [2]


def test_own_log_times_grow_although_the_wall_clock_was_set_back() -> None:
    disk = SimulatedDisk()
    before = OpenLog.open(disk, 1, lambda: NOON).append_values(b"one")
    disk.restart(Loss.KEEP, random.Random(0))
    after = OpenLog.open(disk, 2, lambda: NOON - 1_000_000).append_values(b"two")
    assert after.log_time > before.log_time
    assert after.origin != before.origin
    assert (after.origin.epoch, before.origin.epoch) == (1, 0)


def test_closing_and_reopening_leaves_bare_envelopes_only() -> None:
    disk, _ = written(1, cleanly=True)
    size = len(disk.content(FIRST.store))
    for _ in range(3):
        opened = OpenLog.open(disk, config=CONFIG)
        opened.close()
    assert len(disk.content(FIRST.store)) == size + 3 * 60
    assert disk.content(FIRST.store)[-55] == EnvelopeKind.CLOSED


def test_acknowledged_records_that_are_gone_are_named_ever_after() -> None:
    disk, appended = written(2)
    last = appended[-1]
    # Cut exactly where the last frame began: the file itself shows nothing, the durable mark does.
    frames = read_everything(OpenLog.open(disk.copy(), 2, config=CONFIG).log).frames
    disk.put(FIRST.store, disk.content(FIRST.store)[: frames[-1].position])
    opened = OpenLog.open(disk, 3, config=CONFIG)
    assert opened.log.report.lost
    new = opened.append_values(b"new")
    lost = set(range(last.base_offset, last.base_offset + last.count))
    assert not lost & {new.base_offset}
    for seed in (4, 5):
        assert read_everything(opened.log).lost == lost
        opened.close(cleanly=seed == 4)
        opened = OpenLog.open(disk, seed, config=CONFIG)
    assert read_everything(opened.log).lost == lost
    opened.close()
