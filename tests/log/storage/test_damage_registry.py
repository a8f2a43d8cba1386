from __future__ import annotations

from pathlib import Path

from proglog_trio.log.format.damage import Damage
from proglog_trio.log.format.envelope import Envelope, EnvelopeKind
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.stored_frame import DamagedPlace
from proglog_trio.log.storage.damage_registry import DamageRegistry

FIRST, SECOND = (SegmentFiles(Path("/data/log"), base) for base in (0, 100))
ORIGIN = Origin(bytes(range(16)))


def place(offset: int, position: int = 500, envelope: Envelope | None = None) -> DamagedPlace:
    return DamagedPlace(position, position + 10, envelope, offset, offset + 2, "broken")


def test_each_place_is_found_once() -> None:
    registry = DamageRegistry()
    seen: list[Damage] = []
    stop = registry.watch(seen.append)
    assert registry.report(SECOND, place(110), "scrub")
    assert not registry.report(SECOND, place(110), "read")
    assert registry.report(FIRST, place(3), "read")
    stop()
    stop()
    assert registry.report(FIRST, place(7), "opening")
    assert [(damage.files, damage.found_by) for damage in seen] == [(SECOND, "scrub"), (FIRST, "read")]
    assert [damage.place.expected_offset for damage in registry.places()] == [3, 7, 110]
    assert registry.segments() == [FIRST, SECOND]
    assert (registry.found, len(registry), registry.unrepairable) == (3, 3, 0)


def test_an_index_file_is_no_damage() -> None:
    registry = DamageRegistry()
    index = DamagedPlace(0, 0, None, 100, 100, "the index file is missing", is_missing_index=True)
    assert registry.report(SECOND, index, "scrub")
    assert registry.report(SECOND, place(110), "scrub")
    assert (registry.segments(), registry.found, registry.left) == ([SECOND], 1, 1)
    registry.settle([SECOND], [(SECOND, index, "not now")])
    assert (registry.repaired, registry.left, len(registry)) == (1, 0, 1)
    registry.settle([SECOND], [])
    assert (registry.repaired, registry.left, len(registry)) == (1, 0, 0)


def test_sequences_are_told_by_a_readable_envelope() -> None:
    envelope = Envelope(EnvelopeKind.RECORDS, 200, 3, ORIGIN, 40, 2, 0)
    assert Damage(FIRST, place(3, envelope=envelope), "read").sequences == (ORIGIN, 40, 42)
    assert Damage(FIRST, place(3), "read").sequences is None
    gap = Envelope(EnvelopeKind.GAP, 200, 3, ORIGIN, 40, 0, 0)
    assert Damage(FIRST, place(3, envelope=gap), "read").sequences is None
    assert str(Damage(FIRST, place(3), "read")) == "00000000000000000000.store: broken (bytes 500 to 510)"


def test_number_of_places_is_bounded() -> None:
    registry = DamageRegistry(max_places=3)
    assert [registry.report(FIRST, place(offset), "scrub") for offset in range(5)] == [True, True, True, False, False]
    assert (registry.found, registry.not_kept, len(registry)) == (5, 2, 3)
    registry.settle([FIRST], [(FIRST, place(offset), "nobody has it") for offset in range(10)])
    assert len(registry) == 3


def test_retention_takes_places_out() -> None:
    registry = DamageRegistry()
    registry.report(FIRST, place(3), "scrub")
    registry.report(SECOND, place(110), "scrub")
    registry.forget_below(100)
    assert registry.segments() == [SECOND]
    assert registry.repaired == 0


def test_what_a_repair_leaves_is_marked_and_the_rest_counted() -> None:
    registry = DamageRegistry()
    for offset in (3, 7, 9):
        registry.report(FIRST, place(offset), "scrub")
    registry.report(SECOND, place(110), "scrub")
    # The place at 7 stays, and has moved in its file; the one at 12 shows for the first time.
    registry.settle([FIRST], [(FIRST, place(7, 300), "nobody has it"), (FIRST, place(12), "nobody has it")])
    assert registry.repaired == 2
    assert registry.unrepairable == 2
    found = {damage.place.expected_offset: damage for damage in registry.places()}
    assert sorted(found) == [7, 12, 110]
    assert (found[7].place.position, found[7].found_by, found[7].unrepairable) == (300, "scrub", "nobody has it")
    assert (found[12].found_by, found[110].unrepairable) == ("repair", None)
    registry.settle([FIRST], [])
    assert registry.segments() == [SECOND]
    assert (registry.repaired, registry.unrepairable) == (4, 0)


def test_whatever_segment_has_damage_is_listed_however_much_another_has() -> None:
    registry = DamageRegistry(max_places=3)
    for offset in range(0, 20, 2):
        registry.report(FIRST, place(offset), "scrub")
    seen: list[Damage] = []
    registry.watch(seen.append)
    assert registry.report(SECOND, place(110), "scrub")
    assert [damage.files for damage in seen] == [SECOND]
    assert not registry.report(SECOND, place(112), "scrub")
    assert (registry.segments(), len(registry), registry.not_kept) == ([FIRST, SECOND], 4, 8)
    registry.settle([SECOND], [(SECOND, place(offset), "nobody has it") for offset in (110, 112)])
    registry.settle([FIRST], [(FIRST, place(offset), "nobody has it") for offset in range(0, 20, 2)])
    assert (registry.segments(), registry.repaired) == ([FIRST, SECOND], 0)
    registry.settle([SECOND], [(SECOND, place(112), "nobody has it")])
    assert (registry.segments(), registry.repaired) == ([FIRST, SECOND], 1)


def test_a_part_of_a_known_place_is_no_other_place() -> None:
    """A reader may begin in the middle of a large one."""
    registry = DamageRegistry()
    large = DamagedPlace(1000, 9000, None, 10, 90, "broken")
    assert registry.report(FIRST, large, "scrub")
    assert not registry.report(FIRST, DamagedPlace(5000, 9000, None, 50, 90, "broken"), "read")
    assert not registry.report(FIRST, DamagedPlace(5000, 5100, None, 50, 51, "broken"), "read")
    assert registry.report(FIRST, DamagedPlace(9000, 9100, None, 90, 91, "broken"), "read")
    assert registry.report(FIRST, DamagedPlace(5000, 9100, None, 50, 91, "broken"), "read")
    assert registry.report(FIRST, DamagedPlace(900, 9000, None, 9, 90, "broken"), "read")
    assert registry.report(SECOND, DamagedPlace(5000, 9000, None, 150, 190, "broken"), "read")
    assert [damage.place.expected_offset for damage in registry.places()] == [9, 10, 50, 90, 150]


def test_what_has_become_a_part_of_a_place_that_is_left_is_not_repaired() -> None:
    registry = DamageRegistry()
    for offset in (50, 10, 70):
        registry.report(FIRST, place(offset), "read")
    fault = DamagedPlace(0, 0, None, 50, 50, "no record is lost by it")
    registry.report(FIRST, fault, "scrub")
    registry.settle([FIRST], [(FIRST, DamagedPlace(1000, 9000, None, 10, 70, "broken"), "nobody has it")])
    assert (registry.repaired, len(registry)) == (2, 1)
    registry.settle([FIRST], [])
    assert registry.repaired == 3
