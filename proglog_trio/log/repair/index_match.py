"""What the index has of that which cannot be read in its segment.

Store file and index have the same envelopes in the same order, and either may lack some. What stands in both says where
the two run side by side; the entries in between are what stood in the damage in between. By their order and their
offsets, not by their positions: a file that lacks bytes in its middle has all that follows elsewhere.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from attrs import evolve

from proglog_trio.log.format.envelope import Envelope, EnvelopeKind
from proglog_trio.log.repair.elements import Damaged, Element, restored
from proglog_trio.log.storage.index import IndexEntry


def match_index(elements: Sequence[Element], entries: Sequence[IndexEntry]) -> list[Element]:
    """Return a segment's elements with what the entries of its index say of those that cannot be read.

    Args:
        elements: all that stands in the store file, in its order.
        entries: the sound ones, in their order.
    """
    exactly: dict[object, list[int]] = {}
    alike: dict[object, list[int]] = {}
    for number, entry in enumerate(entries):
        exactly.setdefault(entry.envelope, []).append(number)
        alike.setdefault(_what(entry.envelope), []).append(number)
    matched: list[Element] = []
    since: list[Element] = []
    at = 0
    for element in elements:
        envelope = element.envelope
        found = None
        if envelope is not None:
            # A crash in the midst of a repair leaves the index of the new file beside the old one, in which the same
            # envelopes say something else of what was durable before them.
            found = _first(exactly.get(envelope), at)
            found = _first(alike.get(_what(envelope)), at) if found is None else found
        if found is None:
            since.append(element)
            continue
        matched += _told(since, entries[at:found], element.segment)
        since = []
        matched.append(_of_entry(element, entries[found]) if isinstance(element, Damaged) else element)
        at = found + 1
    if elements:
        matched += _told(since, entries[at:], elements[-1].segment)
    return matched


def _what(envelope: Envelope) -> object:
    return envelope.kind, envelope.length, envelope.base_offset, envelope.origin, envelope.base_sequence, envelope.count


def _first(numbers: list[int] | None, at: int) -> int | None:
    place = bisect_left(numbers, at) if numbers else 0
    return numbers[place] if numbers and place < len(numbers) else None


def _told(since: Sequence[Element], entries: Sequence[IndexEntry], segment: int) -> Iterator[Element]:
    """Yield what stands between two matches: the elements there, cut where the entries there say."""
    at = 0
    for element in since:
        if not isinstance(element, Damaged) or element.envelope is not None:
            yield element
            continue
        inside = []
        cursor = element.from_offset
        while at < len(entries) and entries[at].envelope.next_offset <= element.to_offset:
            # One that begins too low contradicts what is sound before it, which is believed.
            if entries[at].offset >= cursor:
                inside.append(entries[at])
                cursor = entries[at].envelope.next_offset
            at += 1
        yield from _cut(element, inside)
    for entry in entries[at:]:
        # The file ends before it or goes on behind it, and no offset shows that it is not there.
        if not entry.envelope.count and entry.envelope.kind is not EnvelopeKind.RECORDS:
            yield restored(segment, entry)


def _cut(damage: Damaged, inside: Sequence[IndexEntry]) -> Iterator[Element]:
    """Yield a damage in pieces: what its entries say, and what is left between them."""
    damage = evolve(damage, is_piece=True)
    cursor, byte = damage.from_offset, damage.position
    for entry in inside:
        has_bytes = byte <= entry.position and entry.end <= damage.end
        end = entry.position if has_bytes else byte
        if cursor < entry.offset or byte < end:
            yield evolve(damage, position=byte, end=end, from_offset=cursor, to_offset=entry.offset)
        byte = entry.end if has_bytes else byte
        piece = evolve(
            damage,
            position=end,
            end=byte,
            from_offset=entry.offset,
            to_offset=entry.envelope.next_offset,
            envelope=entry.envelope,
        )
        yield _of_entry(piece, entry)
        cursor = entry.envelope.next_offset
    if cursor < damage.to_offset or byte < damage.end or not inside:
        yield evolve(damage, position=byte, from_offset=cursor)


def _of_entry(element: Damaged, entry: IndexEntry) -> Element:
    """Return an element that cannot be read, with what its entry says."""
    if entry.envelope.kind is EnvelopeKind.RECORDS:
        return evolve(element, entry=entry)
    return restored(element.segment, entry)
