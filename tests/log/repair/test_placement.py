"""Which frame goes to which offset, by the index and by the neighbours."""

from __future__ import annotations

from proglog_trio.log.inspect.verify import Verifier
from proglog_trio.log.repair.placement import UNCERTAIN, UNKNOWN
from tests.log.driving import DIRECTORY, OpenLog, batch_of, read_everything
from tests.log.repairing import (
    CONFIG,
    Peers,
    Step,
    check_served,
    make_index_sparse,
    repair,
    repair_all,
    scrub,
    write_log,
)

OF_THREE: tuple[Step, ...] = (
    ("own", 0, 1),
    ("foreign", 0, 1),
    ("own", 0, 2),
    ("foreign", 1, 1),
    ("roll", 0, 0),
    ("own", 0, 1),
)


def test_what_neither_file_tells_stays_and_is_named() -> None:
    written = write_log(OF_THREE)
    (files,) = written.closed
    written.disk.delete(files.store)
    written.disk.delete(files.index)
    scrub(written.log)
    before = written.disk.files()
    outcome = repair(written.log, files, written.peers)
    assert (outcome.rewritten, outcome.repaired_offsets) == ((), 0)
    assert [why for _, _, why in outcome.remaining] == [UNCERTAIN]
    assert written.disk.files() == before
    assert read_everything(written.log).lost == set(range(5))
    assert written.log.damage.unrepairable == 1


def test_index_tells_the_order() -> None:
    written = write_log(OF_THREE, in_order=False)
    (files,) = written.closed
    written.disk.delete(files.store)
    scrub(written.log)
    repair(written.log, files, written.peers)
    check_served(written.log, written.frames)


def test_markers_come_back_to_their_places() -> None:
    written = write_log(
        [
            ("own", 0, 1),
            ("gap", 1, 2),
            ("foreign", 1, 1),
            ("missing", 0, 2),
            ("gap", 1, 1),
            ("own", 0, 1),
            ("roll", 0, 0),
            ("own", 0, 1),
        ]
    )
    (files,) = written.closed
    content = written.contents[files.store]
    held = [(frame.header.origin, frame.header.base_sequence) for frame in written.frames.values()]
    begin = written.log.catalog.load(files).header_length
    for first, following in ((begin, len(content)), (begin + 100, len(content) - 30), (begin, begin + 1)):
        written.disk.put(files.store, content[:first] + bytes(following - first) + content[following:])
        scrub(written.log)
        repair(written.log, files, Peers({key: written.peers.frames[key] for key in held}))
        check_served(written.log, written.frames)
        assert not written.log.damage.places()
        assert not list(Verifier(DIRECTORY, written.disk).run())


def test_frames_of_several_origins_come_back_one_by_one() -> None:
    written = write_log(OF_THREE, in_order=False)
    (files,) = written.closed
    written.disk.put(files.store, b"")
    scrub(written.log)
    repair(written.log, files, written.peers.only(lambda number: number % 2 == 0))
    left = check_served(written.log, written.frames, ())
    assert 0 < len(left) < len(written.frames)
    scrub(written.log)
    repair(written.log, files, written.peers)
    check_served(written.log, written.frames)
    assert written.disk.content(files.store) == written.contents[files.store]


def test_opening_keeps_what_the_index_has_of_damage() -> None:
    written = write_log([("own", 0, 1), ("foreign", 0, 1), ("foreign", 1, 1), ("foreign", 0, 1), ("foreign", 1, 1)])
    files = written.log.catalog.active.files
    written.opened.close()
    content = written.disk.content(files.store)
    for victim in list(written.frames.values())[1:3]:
        written.disk.flip(files.store, victim.position + 3, 0x10)
    opened = OpenLog.open(written.disk, 9, config=CONFIG)
    assert opened.log.roll()
    opened.commit()
    repair_all(opened.log, written.peers)
    check_served(opened.log, written.frames)
    assert written.disk.content(files.store) == content
    assert not opened.log.damage.places()


def test_an_index_of_the_old_version_tells_nothing() -> None:
    written = write_log(OF_THREE)
    (files,) = written.closed
    store_content = written.contents[files.store]
    victim = list(written.frames.values())[1]
    for flipped in (victim.position + 3, victim.position + 80):
        make_index_sparse(written.disk, files)
        written.disk.flip(files.store, flipped, 0x10)
        scrub(written.log)
        repair(written.log, files, written.peers)
        # By its own envelope, or because it alone can have stood between its neighbours.
        check_served(written.log, written.frames)
        assert written.disk.content(files.store)[victim.position + 60 :] == store_content[victim.position + 60 :]
    make_index_sparse(written.disk, files)
    written.disk.put(files.store, store_content[: victim.position])
    scrub(written.log)
    outcome = repair(written.log, files, written.peers)
    assert [why for _, _, why in outcome.remaining] == [UNCERTAIN]
    assert read_everything(written.log).lost == set(range(1, 5))


def test_one_origin_is_repaired_frame_by_frame() -> None:
    written = write_log([*[("own", 0, 2)] * 5, ("own", 0, 1)])
    (files,) = written.closed
    written.disk.delete(files.store)
    written.disk.delete(files.index)
    scrub(written.log)
    # Nobody vouches for the middle one; those on either side come first.
    repair(written.log, files, written.peers.only(lambda number: number == 2))
    assert read_everything(written.log).lost == set(range(10))
    repair(written.log, files, written.peers.only(lambda number: number in (0, 4)))
    assert read_everything(written.log).lost == set(range(2, 8))
    scrub(written.log)
    assert len(written.log.damage) == 1
    repair(written.log, files, written.peers.only(lambda number: number == 3))
    assert read_everything(written.log).lost == set(range(2, 6))
    repair(written.log, files, written.peers)
    check_served(written.log, written.frames)
    assert not written.log.damage.places()


def test_records_that_came_again_at_other_offsets_leave_their_old_ones() -> None:
    """Opening did not count what it could not read at the end, so it was pulled again."""
    written = write_log([("own", 0, 1), ("foreign", 0, 2), ("own", 0, 2), ("own", 0, 1)])
    victim = next(
        frame for frame in written.frames.values() if frame.header.origin.directory_id != written.log.directory_id
    )
    files = written.log.catalog.active.files
    written.opened.close()
    written.disk.flip(files.store, victim.end - 1, 0x10)
    opened = OpenLog.open(written.disk, 9, config=CONFIG)
    log = opened.log
    assert [damage.sequences for damage in log.damage.places()] == [(victim.header.origin, 0, 2)]
    assert log.roll()
    opened.commit()
    outcome = repair(log, files, written.peers)
    assert outcome.remaining[0][1].expected_offset == victim.base_offset, "the log does not have them yet"
    log.append_foreign(victim.frame, victim.data, lambda _: None)
    opened.commit()
    repair_all(log, Peers())
    assert not log.damage.places()
    found = read_everything(log)
    assert not found.losses
    frames = {frame.base_offset: frame.data for frame in found.frames}
    assert victim.base_offset not in frames
    assert list(frames.values()).count(victim.data) == 1
    opened.append(batch_of(b"goes on"))
    opened.close()
    opened = OpenLog.open(written.disk, 10, config=CONFIG)
    assert not read_everything(opened.log).losses
    scrub(opened.log)
    assert not opened.log.damage.places()


def test_why_something_stays_is_said() -> None:
    """Two frames without envelopes at the end, which opening has never counted: no sequence is missing."""
    written = write_log([("own", 0, 1), ("foreign", 0, 1), ("own", 0, 1), ("own", 0, 1), ("foreign", 0, 1)])
    frames = list(written.frames.values())
    files = written.log.catalog.active.files
    written.opened.close()
    # The last foreign frame with its envelope, and the own one before it.
    for victim in frames[3:]:
        written.disk.flip(files.store, victim.position + 3, 0x10)
    written.disk.delete(files.index)
    opened = OpenLog.open(written.disk, 9, config=CONFIG)
    assert opened.log.roll()
    opened.commit()
    (outcome,) = repair_all(opened.log, written.peers)
    assert [why for _, _, why in outcome.remaining] == [UNKNOWN]
    assert read_everything(opened.log).lost == {3, 4}


def test_a_gap_marker_before_the_first_frame_that_the_index_names_comes_back() -> None:
    written = write_log([("gap", 1, 1), ("foreign", 1, 1), ("roll", 0, 0), ("own", 0, 1)])
    (files,) = written.closed
    header = written.disk.content(files.store)[: written.log.catalog.load(files).header_length]
    written.disk.put(files.store, header)
    scrub(written.log)
    (outcome,) = repair_all(written.log, Peers())
    assert (outcome.rewritten, outcome.repaired_offsets) == ((files,), 0), "the index has the marker"
    (outcome,) = repair_all(written.log, Peers())
    assert outcome.rewritten == (), "nothing is written anew for nothing"
    repair_all(written.log, written.peers)
    check_served(written.log, written.frames)
    assert not written.log.damage.places()
    assert not list(Verifier(DIRECTORY, written.disk).run())
