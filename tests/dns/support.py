"""What tests of DNS share: members that there are not, and a responder that tells of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from proglog_trio.dns.counters import DnsCounters
from proglog_trio.dns.listing import IpAddress, Listing, list_members
from proglog_trio.dns.names import zone_of
from proglog_trio.dns.responder import Responder
from proglog_trio.membership import Member, MemberStatus
from proglog_trio.steps import complete

LIKE = {"cluster_name": "blue"}
ZONE = (b"blue", b"proglog")
TTL = 2


def member(
    name: str, address: str | None = "10.0.0.1:8400", status: MemberStatus = MemberStatus.ALIVE, **tags: str
) -> Member:
    """A member; address: its rpc_addr."""
    told = {**LIKE, **({} if address is None else {"rpc_addr": address}), **tags}
    return Member(name, "10.0.0.1", 8401, told, status)


def listing_of(members: Iterable[Member], found: Mapping[str, Sequence[str]] | None = None) -> Listing:
    """A listing of members, with the addresses of hosts that were found."""
    by_name = {each.name: each for each in members}
    addresses: dict[str, list[IpAddress]] = {
        host: [ip_address(each) for each in texts] for host, texts in (found or {}).items()
    }
    return complete(list_members(sorted(by_name), by_name.get, like=LIKE, zone=ZONE, found=addresses, serial=7))


def responder_of(
    members: Iterable[Member],
    found: Mapping[str, Sequence[str]] | None = None,
    *,
    cluster: str = "blue",
    ttl: int = TTL,
) -> Responder:
    """A responder that tells of members."""
    zone = zone_of(cluster)
    assert zone is not None
    own = [ip_address("127.0.0.1")]
    return Responder(zone, ttl, own, random.Random(1), DnsCounters(), listing_of(members, found))


def asked(name: str, kind: str = "A", **options: object) -> bytes:
    """A question as dnspython writes it."""
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


def answer_to(
    responder: Responder, name: str, kind: str = "A", *, by_stream: bool = False, **options: object
) -> dns.message.Message:
    """What a responder answers, as dnspython reads it."""
    answer = responder.answer(asked(name, kind, **options), by_stream=by_stream)
    assert answer is not None
    return dns.message.from_wire(answer)


def texts(section: Iterable[dns.rrset.RRset]) -> set[str]:
    """The records of a section, each as its owner, its type and its content."""
    return {f"{each.name} {dns.rdatatype.to_text(each.rdtype)} {record}" for each in section for record in each}


def contents(message: dns.message.Message) -> set[str]:
    """The contents of an answer's records."""
    return {str(record) for each in message.answer for record in each}


def code(message: dns.message.Message) -> str:
    """What came of a question, in a word."""
    return dns.rcode.to_text(message.rcode())


def is_cut(message: dns.message.Message) -> bool:
    """Whether the client is told to ask again by stream."""
    return bool(message.flags & dns.flags.TC)
