"""What clients are told of a member: as it was then, though it may be another life or forgotten now."""

from __future__ import annotations

from proglog_trio.membership.agent_rpc.member_records import member_record
from proglog_trio.membership.agent_rpc.messages import MemberRecord
from proglog_trio.membership.serf.member import KnownMember, MemberStatus
from proglog_trio.membership.swim.node import Endpoint

VERSION = bytes((1, 5, 2, 2, 5, 4))
MAPPED = bytes(10) + b"\xff\xff" + b"\x0a\0\0\1"


def known_at(address: bytes, port: int) -> KnownMember:
    member = KnownMember("b", Endpoint(address, port), {"role": "web"}, MemberStatus.FAILED, VERSION)
    member.told_address = address
    return member


def test_an_address_is_told_as_the_member_tells_it() -> None:
    known = known_at(MAPPED, 7946)
    assert member_record(known.snapshot(), known) == MemberRecord(
        "b", MAPPED, 7946, {"role": "web"}, "failed", *VERSION
    )


def test_what_is_told_late_is_of_the_life_that_it_was() -> None:
    before, now = known_at(b"\x0a\0\0\1", 7946), known_at(b"\x0a\0\0\2", 7947)
    record = member_record(before.snapshot(), now)
    assert (record.addr, record.port) == (b"\x0a\0\0\1", 7946)


def test_of_a_member_that_is_forgotten_the_versions_are_told_too() -> None:
    record = member_record(known_at(b"\x0a\0\0\1", 7946).snapshot(), None)
    assert record == MemberRecord("b", b"\x0a\0\0\1", 7946, {"role": "web"}, "failed", *VERSION)
