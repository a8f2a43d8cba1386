from __future__ import annotations

from attrs import evolve

from proglog_trio.log.format.envelope import Envelope, EnvelopeKind
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.stored_frame import DamagedPlace
from proglog_trio.log.repair.elements import Damaged, joined_places

DETAIL = "an envelope does not match its CRC"


def piece(number: int) -> Damaged:
    """Return one of consecutive pieces of one damage: each has one offset, and a hundred bytes."""
    envelope = Envelope(EnvelopeKind.RECORDS, 40, number, Origin(bytes(range(16))), number, 1, 0)
    position = number * 100
    return Damaged(0, position, position + 100, number, number + 1, envelope, None, DETAIL, is_piece=True)


def test_pieces_of_one_damage_that_stay_for_one_reason_are_one_place() -> None:
    pieces = [(piece(number), "nobody has it") for number in range(1, 5)]
    assert joined_places(pieces) == [(DamagedPlace(100, 500, None, 1, 5, DETAIL), "nobody has it")]


def test_one_piece_alone_says_what_stood_there() -> None:
    assert joined_places([(piece(3), "nobody has it")]) == [(piece(3).place(), "nobody has it")]


def test_what_stays_for_another_reason_or_elsewhere_is_another_place() -> None:
    pieces = [(piece(1), "a"), (piece(2), "b"), (piece(3), "b"), (piece(5), "b")]
    assert [(place.expected_offset, place.next_offset, why) for place, why in joined_places(pieces)] == [
        (1, 2, "a"),
        (2, 4, "b"),
        (5, 6, "b"),
    ]
    # Offsets go on, and bytes stand in between; or the other way round.
    for second in (evolve(piece(2), position=201), evolve(piece(2), from_offset=3, to_offset=4)):
        assert len(joined_places([(piece(1), "a"), (second, "a")])) == 2
    assert len(joined_places([(piece(1), "a"), (evolve(piece(2), segment=1), "a")])) == 2


def test_frames_that_are_damaged_each_by_itself_stay_apart() -> None:
    """A scrub meets them as so many places."""
    frames = [(evolve(piece(number), is_piece=False), "nobody has it") for number in range(4)]
    assert len(joined_places(frames)) == 4
