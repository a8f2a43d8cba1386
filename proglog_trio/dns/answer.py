"""Answers written: sections of records, as many as there is room for."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from attrs import define, field
from dnslib import EDNS0, RR, DNSHeader
from dnslib.label import DNSBuffer

from proglog_trio.dns.question import Question

MAX_PACKET_BYTES = 1232
"""Of an answer by packet, where the client takes so much: it passes every network whole (DNS flag day 2020)."""
MAX_STREAM_BYTES = 65_535
_EDNS_BYTES = 11


class Code(enum.IntEnum):
    """What came of a question (RFC 1035, section 4.1.1; RFC 6891, section 9)."""

    ANSWERED = 0
    MALFORMED = 1
    NO_SUCH_NAME = 3
    NOT_IMPLEMENTED = 4
    REFUSED = 5
    BAD_VERSION = 16


class Section(enum.IntEnum):
    """Where a record stands; they are written in this order."""

    ANSWER = 1
    AUTHORITY = 2
    ADDITIONAL = 3


@define(eq=False)
class AnswerWriter:
    """Writes the answer to one question.

    Attributes:
        question: what was asked.
        max_bytes: the most that the answer may have.
        is_cut: something of the answer had no room; the client is told to ask by stream.
    """

    question: Question
    max_bytes: int
    is_cut: bool = False
    _buffer: DNSBuffer = field(factory=DNSBuffer)
    _counts: list[int] = field(factory=lambda: [1, 0, 0, 0])

    def __attrs_post_init__(self) -> None:
        # The counts are written at the end, when they are known.
        DNSHeader(0, 0).pack(self._buffer)
        self.question.asked.pack(self._buffer)
        if self.question.edns_version is not None:
            self.max_bytes -= _EDNS_BYTES

    def add(self, section: Section, records: Iterable[RR]) -> bool:
        """Add records that belong together, all or none; tell whether they had room."""
        mark = len(self._buffer.data)
        count = 0
        for record in records:
            record.pack(self._buffer)
            count += 1
        if len(self._buffer.data) > self.max_bytes:
            del self._buffer.data[mark:]
            self._buffer.offset = mark
            # names that were written there are to be had no more
            self._buffer.names = {name: place for name, place in self._buffer.names.items() if place < mark}
            return False
        self._counts[section] += count
        return True

    def finish(self, code: Code, *, is_ours: bool) -> bytes:
        """Return the answer; is_ours: it is about this server's own zone, of which it knows all."""
        if self.question.edns_version is not None:
            EDNS0(udp_len=MAX_PACKET_BYTES, ext_rcode=code >> 4).pack(self._buffer)
            self._counts[Section.ADDITIONAL] += 1
        header = head(self.question.header, code, is_cut=self.is_cut, is_ours=is_ours)
        header.q, header.a, header.auth, header.ar = self._counts
        return _packed(header) + bytes(self._buffer.data[_HEADER_BYTES:])


_HEADER_BYTES = 12


def head(asked: DNSHeader, code: Code, *, is_cut: bool = False, is_ours: bool = False) -> DNSHeader:
    """Return the header of an answer without records."""
    return DNSHeader(
        asked.id, 0, qr=1, opcode=asked.opcode, aa=int(is_ours), tc=int(is_cut), rd=asked.rd, rcode=code & 0xF
    )


def without_records(asked: DNSHeader, code: Code) -> bytes:
    """Return an answer that does not repeat the question, where that could not be read."""
    return _packed(head(asked, code))


def _packed(header: DNSHeader) -> bytes:
    buffer = DNSBuffer()
    header.pack(buffer)
    return bytes(buffer.data)
