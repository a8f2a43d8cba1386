"""Questions read (RFC 1035, section 4; RFC 6891 for what EDNS adds)."""

from __future__ import annotations

from attrs import frozen
from dnslib import DNSError, DNSHeader, DNSLabel, DNSQuestion
from dnslib.buffer import BufferError as EndOfBuffer
from dnslib.label import DNSBuffer

from proglog_trio.dns.names import MAX_NAME_BYTES, Labels, wire_bytes

MAX_QUESTION_BYTES = 1232
"""Of a message with a question: one of the longest name has under 300, and clients may pad it."""
MAX_LABEL_BYTES = 63
MAX_ADDITIONAL = 2
"""Records that come with a question: those of EDNS and of a signature, which is not looked at."""
LEAST_PACKET_BYTES = 512
"""What every client takes by packet."""
QUERY = 0
OPT = 41
_HEADER_BYTES = 12


class NoQuestion(Exception):
    """This is not even a question: there is nobody who waits for an answer."""


@frozen
class QuestionRefused(Exception):
    """A question that cannot be read, or is none that is answered here.

    Attributes:
        header: its own, for the answer's.
        is_query: it is a query, which cannot be read; otherwise it is something else.
    """

    header: DNSHeader
    is_query: bool


@frozen
class Question:
    """One question.

    Attributes:
        header: of its message.
        asked: as it stands there, since clients look for it in the answer.
        labels: its name, in lower case.
        kind: the type of the records that are asked for.
        kind_class: their class.
        edns_version: None: the client knows no EDNS.
        packet_bytes: how large a packet the client takes.
    """

    header: DNSHeader
    asked: DNSQuestion
    labels: Labels
    kind: int
    kind_class: int
    edns_version: int | None = None
    packet_bytes: int = LEAST_PACKET_BYTES


def read_question(message: bytes) -> Question:
    """Read one.

    Raises:
        NoQuestion: it is none, and must not be answered.
        QuestionRefused: it cannot be read, or is no query.
    """
    if len(message) < _HEADER_BYTES:
        raise NoQuestion
    buffer = DNSBuffer(message)
    header = DNSHeader.parse(buffer)
    if header.qr:
        raise NoQuestion
    if header.opcode != QUERY:
        raise QuestionRefused(header, is_query=False)
    # One question each (RFC 9619), and nothing that only answers have.
    has_its_form = header.q == 1 and not header.a and not header.auth and header.ar <= MAX_ADDITIONAL
    if not has_its_form or len(message) > MAX_QUESTION_BYTES:
        raise QuestionRefused(header, is_query=True)
    try:
        return _read(header, buffer)
    except (DNSError, EndOfBuffer):
        raise QuestionRefused(header, is_query=True) from None


def _read(header: DNSHeader, buffer: DNSBuffer) -> Question:
    asked = DNSQuestion.parse(buffer)
    labels = _labels(asked.qname)
    edns = [found for _ in range(header.ar) if (found := _edns(buffer)) is not None]
    if len(edns) > 1:
        raise DNSError("more than one OPT record")
    if not edns:
        return Question(header, asked, labels, asked.qtype, asked.qclass)
    (version, packet_bytes) = edns[0]
    return Question(header, asked, labels, asked.qtype, asked.qclass, version, max(packet_bytes, LEAST_PACKET_BYTES))


def _labels(name: DNSLabel) -> Labels:
    labels: Labels = tuple(bytes(label).lower() for label in name.label)
    # The library takes lengths that stand for nothing yet, and names of any length.
    if any(len(label) > MAX_LABEL_BYTES for label in labels) or wire_bytes(labels) > MAX_NAME_BYTES:
        raise DNSError("the name is too long")
    return labels


def _edns(buffer: DNSBuffer) -> tuple[int, int] | None:
    """Read one record; return EDNS's version and the client's packet size, if it is that of EDNS."""
    owner = buffer.decode_name()
    # Not by the library's records, which would read the content of each type that it knows.
    kind, packet_bytes, flags, length = buffer.unpack("!HHIH")
    buffer.get(length)
    if kind != OPT:
        return None
    if owner.label:
        raise DNSError("an OPT record is the root's")
    return flags >> 16 & 0xFF, packet_bytes
