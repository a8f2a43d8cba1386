"""The responder: a question's bytes in, an answer's bytes out. No I/O, no clock, and no randomness of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from itertools import islice
from typing import Final

from attrs import define, field, frozen
from dnslib import NS, RD, RR, SOA, SRV, DNSLabel

from proglog_trio.dns.answer import (
    MAX_PACKET_BYTES,
    MAX_STREAM_BYTES,
    AnswerWriter,
    Code,
    Section,
    without_records,
)
from proglog_trio.dns.counters import DnsCounters
from proglog_trio.dns.listing import Entry, IpAddress, Listing, Node
from proglog_trio.dns.names import NAME_SERVER, SERVICE, Labels
from proglog_trio.dns.question import NoQuestion, Question, QuestionRefused, read_question

MAX_RECORDS = 100
"""Of one section, of nodes chosen at random: by stream, that is, since they do not fit into a packet."""
A, NAME_SERVER_RECORD, START_OF_AUTHORITY, AAAA, SERVER, ANY = 1, 2, 6, 28, 33, 255
TRANSFERS = frozenset({251, 252})
"""IXFR and AXFR: of the whole zone."""
INTERNET, ANY_CLASS = 1, 255
# What a secondary server would be told, if there were transfers.
_REFRESH_SECONDS, _RETRY_SECONDS, _EXPIRE_SECONDS = 3600, 600, 86_400
_SERIALS = 1 << 32


@frozen
class _Found:
    """What there is under a name.

    Attributes:
        kinds: the types of records that it may have.
        entry: the nodes that it stands for.
        addresses: those that it has itself; of the name server.
    """

    kinds: Sequence[int] = ()
    entry: Entry = field(factory=Entry)
    addresses: Sequence[IpAddress] = ()


_NOTHING: Final = _Found()
_OF_NODES: Final = (A, AAAA, SERVER)


@define(eq=False)
class Responder:
    """Answers questions about one zone.

    Attributes:
        zone: its name.
        ttl: for how long an answer may be kept, in seconds; that there is nothing, too.
        own_addresses: where this server is to be found, if that can be said.
        rng: chooses among nodes, and their order.
        counters: what came of questions.
        listing: what is told; replaced by newer ones.
    """

    zone: Labels
    ttl: int
    own_addresses: Sequence[IpAddress]
    rng: random.Random
    counters: DnsCounters
    listing: Listing = field(factory=Listing)

    def answer(self, message: bytes, *, by_stream: bool) -> bytes | None:
        """Return the answer to a message; None: it is not to be answered.

        Args:
            message: what was received, of a packet its first MAX_QUESTION_BYTES + 1 bytes at least.
            by_stream: an answer has room for all; otherwise for what the client says that it takes.
        """
        try:
            question = read_question(message)
        except NoQuestion:
            self.counters.ignored += 1
            return None
        except QuestionRefused as refused:
            if refused.is_query:
                self.counters.malformed += 1
                return without_records(refused.header, Code.MALFORMED)
            self.counters.not_implemented += 1
            return without_records(refused.header, Code.NOT_IMPLEMENTED)
        room = MAX_STREAM_BYTES if by_stream else min(question.packet_bytes, MAX_PACKET_BYTES)
        answer = AnswerWriter(question, room)
        if question.edns_version:
            self.counters.not_implemented += 1
            return answer.finish(Code.BAD_VERSION, is_ours=False)
        if not self._is_ours(question):
            self.counters.refused += 1
            return answer.finish(Code.REFUSED, is_ours=False)
        return self._answer(question, answer)

    def _is_ours(self, question: Question) -> bool:
        return (
            question.labels[-len(self.zone) :] == self.zone
            and question.kind_class in (INTERNET, ANY_CLASS)
            and question.kind not in TRANSFERS
        )

    def _answer(self, question: Question, answer: AnswerWriter) -> bytes:
        found = self._find(question.labels[: -len(self.zone)])
        if found is None:
            self.counters.no_such_name += 1
            answer.add(Section.AUTHORITY, [self._start_of_authority(question)])
            return answer.finish(Code.NO_SUCH_NAME, is_ours=True)
        for kind in found.kinds if question.kind == ANY else (question.kind,):
            if kind in found.kinds and self._write(kind, found, question, answer):
                # One kind of records is enough for who asks for any (RFC 8482, section 4.1).
                break
        else:
            self.counters.no_data += 1
            answer.add(Section.AUTHORITY, [self._start_of_authority(question)])
            return answer.finish(Code.ANSWERED, is_ours=True)
        self.counters.answered += 1
        self.counters.truncated += answer.is_cut
        return answer.finish(Code.ANSWERED, is_ours=True)

    # -- what there is -------------------------------------------------------------------------------------------------

    def _find(self, name: Labels) -> _Found | None:
        """Return what there is under a name below the zone; None: there is no such name."""
        listing = self.listing
        if not name:
            return _Found((*_OF_NODES, START_OF_AUTHORITY, NAME_SERVER_RECORD), listing.names[()])
        if name == (NAME_SERVER,):
            return _Found((A, AAAA), addresses=self.own_addresses)
        if name[:2] == SERVICE and name[2:] in listing.names:
            return _Found((SERVER,), listing.names[name[2:]])
        if name[0] == SERVICE[1] and name[1:] in listing.names:
            return _NOTHING
        if name in listing.names:
            return _Found(_OF_NODES, listing.names[name])
        return _NOTHING if name in listing.between else None

    def _chosen(self, nodes: Sequence[Node]) -> list[Node]:
        """Return nodes in random order, as many as are told of."""
        return self.rng.sample(nodes, min(len(nodes), MAX_RECORDS))

    # -- records -------------------------------------------------------------------------------------------------------

    def _write(self, kind: int, found: _Found, question: Question, answer: AnswerWriter) -> bool:
        """Write the records of one type; tell whether there are any."""
        if kind in (A, AAAA):
            return self._write_addresses(kind, found, question, answer)
        if kind == SERVER:
            return self._write_servers(found, question, answer)
        if kind == NAME_SERVER_RECORD:
            name = self._below_zone(question, NAME_SERVER)
            answer.add(Section.ANSWER, [self._record(question.asked.qname, kind, NS(name))])
            answer.add(Section.ADDITIONAL, self._address_records(name, self.own_addresses))
            return True
        answer.add(Section.ANSWER, [self._start_of_authority(question)])
        return True

    def _write_addresses(self, kind: int, found: _Found, question: Question, answer: AnswerWriter) -> bool:
        of_kind = [each for each in found.addresses if _kind_of(each) == kind]
        for node in self._chosen(found.entry.ipv4 if kind == A else found.entry.ipv6):
            of_kind += [each for each in node.addresses if _kind_of(each) == kind]
        name = question.asked.qname
        # Several nodes may be at one address, on ports of their own.
        for address in islice(dict.fromkeys(of_kind), MAX_RECORDS):
            if not answer.add(Section.ANSWER, self._address_records(name, [address])):
                answer.is_cut = True
                break
        return bool(of_kind)

    def _write_servers(self, found: _Found, question: Question, answer: AnswerWriter) -> bool:
        chosen = self._chosen(found.entry.servers)
        targets = [(node, self._below_zone(question, *(node.labels or ()))) for node in chosen]
        for node, target in targets:
            record = self._record(question.asked.qname, SERVER, SRV(0, 0, node.port, target))
            if not answer.add(Section.ANSWER, [record]):
                answer.is_cut = True
                return True
        room = MAX_RECORDS
        for node, target in targets:
            room -= len(node.addresses)
            # All of a node's or none: what is missing is asked for by itself (RFC 2181, section 9).
            if room < 0 or not answer.add(Section.ADDITIONAL, self._address_records(target, node.addresses)):
                break
        return bool(targets)

    def _address_records(self, name: DNSLabel, addresses: Sequence[IpAddress]) -> Iterator[RR]:
        return (self._record(name, _kind_of(address), RD(address.packed)) for address in addresses)

    def _start_of_authority(self, question: Question) -> RR:
        zone = self._below_zone(question)
        times = (self.listing.serial % _SERIALS, _REFRESH_SECONDS, _RETRY_SECONDS, _EXPIRE_SECONDS, self.ttl)
        content = SOA(self._below_zone(question, NAME_SERVER), self._below_zone(question, b"hostmaster"), times)
        return self._record(zone, START_OF_AUTHORITY, content)

    def _record(self, name: DNSLabel, kind: int, content: RD) -> RR:
        return RR(name, kind, ttl=self.ttl, rdata=content)

    def _below_zone(self, question: Question, *labels: bytes) -> DNSLabel:
        """Return a name in the zone, whose own name is as the question has it: so it is written once."""
        return DNSLabel([*labels, *question.asked.qname.label[-len(self.zone) :]])


def _kind_of(address: IpAddress) -> int:
    return A if isinstance(address, IPv4Address) else AAAA
