"""Members with a key that take what is not encrypted, on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import structlog.testing
import trio
from trio.testing import MockClock

from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.key_manager import KeysNotAsked
from proglog_trio.membership.membership import JoinFailed
from proglog_trio.membership.serf.keys import KeyOperation
from proglog_trio.membership.serf.member import MemberEvent, MemberEventKind
from proglog_trio.membership.wire.keyring import Keyring, encode_key
from proglog_trio.membership.wire.memberlist import UserMessage
from proglog_trio.membership.wire.packet import encode_packets
from proglog_trio.membership.wire.serf import KeyRequest, KeyResponse, QueryResponse, decode_serf, encode_serf
from tests.membership.gossiping import at, bind, udp_socket
from tests.membership.running import QUICK, Ours, start_ours_in
from tests.membership.serf.cores import query, user
from tests.membership.wire.at_once import decode_packet

Start = Callable[..., Awaitable[Ours]]
KEY = encode_key(bytes(range(32)))
PREPARED = {"key": KEY, "verify_incoming": False, "verify_outgoing": False}
ENCRYPTING = {"key": KEY, "verify_incoming": False}
ENCRYPTED = {"key": KEY}


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with start_ours_in() as start:
        yield start


@pytest.mark.system
async def test_a_cluster_is_encrypted_step_by_step_and_nobody_fails(start: Start) -> None:
    names = ("a", "b", "c")
    members: dict[str, Ours] = {}
    for name in names:
        members[name] = await start(name, profile=QUICK, join=[other.address for other in members.values()])
    for step in (PREPARED, ENCRYPTING, ENCRYPTED):
        for name in names:
            before = members.pop(name)
            others = list(members.values())
            async with others[0].membership.events() as events:
                port = before.address.port
                await before.leave()
                members[name] = await start(
                    name, profile=QUICK, port=port, join=[other.address for other in others], **step
                )
                for member in members.values():
                    await member.until_status("alive", *names)
                async for event in events:
                    assert isinstance(event, MemberEvent)
                    assert event.kind is not MemberEventKind.FAILED
                    if event.kind is MemberEventKind.JOIN and event.members[0].name == name:
                        break
    plain = await start("plain", profile=QUICK)
    with pytest.raises(JoinFailed):
        await plain.membership.join([members["a"].address])


async def test_who_has_no_key_yet_is_a_member_of_those_that_are_prepared(start: Start) -> None:
    with structlog.testing.capture_logs() as logged:
        prepared = await start("prepared", profile=QUICK, **PREPARED)
        plain = await start("plain", profile=QUICK, join=[prepared.address])
        await prepared.until_measured("plain")
        await plain.until_measured("prepared")
    assert prepared.membership.counters["gossip"].plain_taken > 2
    warnings = [each["event"] for each in logged if each["log_level"] == "warning"]
    assert warnings == [
        (
            "the gossip key keeps nobody out: gossip that is not encrypted is taken, and what this node sends is not "
            "encrypted"
        )
    ]
    said = [each for each in logged if each["event"].startswith("gossip that is not encrypted was taken")]
    assert [each["address"] for each in said] == ["127.0.0.1"], "once an hour"
    assert prepared.membership.unverified is not None
    assert plain.membership.unverified is None


async def test_it_is_said_every_hour(autojump_clock: MockClock) -> None:
    with structlog.testing.capture_logs() as logged:
        gossip = await bind()
        with trio.move_on_after(2.5 * 3600):
            await gossip._warn("the gossip key keeps nobody out")
        await gossip.close()
    assert len(logged) == 3


async def test_those_that_encrypt_are_heard_by_those_that_are_prepared_and_the_other_way_round(start: Start) -> None:
    encrypting = await start("encrypting", profile=QUICK, **ENCRYPTING)
    prepared = await start("prepared", profile=QUICK, join=[encrypting.address], **PREPARED)
    encrypted = await start("encrypted", profile=QUICK, join=[encrypting.address], **ENCRYPTED)
    await encrypting.until_measured("prepared", "encrypted")
    await prepared.until_measured("encrypting")
    await encrypted.until_measured("encrypting")
    counted = encrypting.membership.counters["gossip"]
    assert counted.plain_taken > 0
    assert counted.packets_refused == 0
    assert encrypting.membership.unverified == "gossip that is not encrypted is taken"


@pytest.mark.parametrize("step", [PREPARED, ENCRYPTING])
@pytest.mark.parametrize("operation", KeyOperation)
async def test_nobody_without_the_key_is_told_keys_or_changes_them(
    start: Start, step: dict[str, object], operation: KeyOperation
) -> None:
    """What is asked in plain is taken, and so would be a question for the keyring, or a key to use."""
    member = await start("member", **step)
    gossip = member.membership.gossip
    before = gossip.keyring
    async with udp_socket() as udp:
        key = b"" if operation is KeyOperation.LIST else encode_serf(KeyRequest(b"x" * 16))
        name, port = operation.query_name, udp.getsockname()[1]
        asked = user(query(name=name, payload=key, addr=bytes((127, 0, 0, 1)), port=port, flags=0))
        (packet,) = encode_packets([asked])
        await udp.sendto(packet, at(gossip))
        with trio.fail_after(30):
            answer, _ = await udp.recvfrom(65_535)
    (message, *_) = decode_packet(answer, keyring=Keyring.from_base64([KEY]), verify=False).messages
    assert isinstance(message, UserMessage)
    response = decode_serf(message.payload)
    assert isinstance(response, QueryResponse)
    told = decode_serf(response.payload)
    assert isinstance(told, KeyResponse)
    assert not told.result
    assert "neither told nor changed" in told.message
    assert not told.keys
    assert not told.primary_key
    assert KEY.encode() not in answer
    assert gossip.keyring is before
    assert member.membership.keys is not None
    with pytest.raises(KeysNotAsked, match="neither told nor changed"):
        await member.membership.keys.ask(operation, KEY if operation is not KeyOperation.LIST else "")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"verify_incoming": False}, "there is none"),
        ({"verify_outgoing": False}, "there is none"),
        ({"keyring": Keyring((bytes(16),)), "verify_outgoing": False}, "verify_incoming has to be"),
    ],
)
def test_what_does_not_go_together(options: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        GossipConfig(name="a", **options)  # type: ignore[arg-type]  # each has its type
