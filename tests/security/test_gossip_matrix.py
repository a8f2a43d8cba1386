"""Who gets into gossip: packets, streams and joins, each plain, with a wrong key, the right one and an old one."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from proglog_trio.client import open_consumer
from proglog_trio.membership.streams import ExchangeFailed, StreamCodec
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire import (
    Ack,
    Alive,
    Keyring,
    Message,
    NodeState,
    NodeStateType,
    Ping,
    PushPull,
    UserEvent,
    UserMessage,
    decode_packet,
    encode_packets,
    encode_serf,
)
from tests.cli.test_cluster import gossip, members
from tests.node_process import NodeProcess, node_process, run_command

RIGHT = "AAECAwQFBgcICQoLDA0ODw=="
WRONG = "DwECAwQFBgcICQoLDA0ODw=="
OLD = "EBESExQVFhcYGRobHB0eHw=="
LOOPBACK = bytes((127, 0, 0, 1))
VERSION = bytes((1, 5, 2, 2, 5, 4))
LOCAL = ("--gossip-profile", "local")
SECONDS = 30.0

# whether a client with this key gets in: before, during and after the rotation from OLD to RIGHT
KEYS: dict[str, tuple[str | None, bool, bool, bool]] = {
    "plain": (None, False, False, False),
    "wrong": (WRONG, False, False, False),
    "right": (RIGHT, False, True, True),
    "old": (OLD, True, True, False),
}


def keyring_of(key: str | None) -> Keyring | None:
    return None if key is None else Keyring.from_base64([key])


def endpoint(node: NodeProcess) -> Endpoint:
    host, _, port = gossip(node).rpartition(":")
    return Endpoint.of(host, int(port))


async def packets_pass(node: NodeProcess, key: str | None, witness: str, *, harmless: bool) -> bool:
    """Send a ping; tell whether it is answered.

    Args:
        node: to whom.
        key: encrypts it.
        witness: a key that is right: a ping with it shows that everything before has been looked at.
        harmless: send nothing else; otherwise a member and an event, which must change nothing, go with it.
    """
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as udp:
        await udp.bind(("127.0.0.1", 0))
        stranger = Alive(
            incarnation=1, node="stranger", addr=LOOPBACK, port=udp.getsockname()[1], meta=b"", vsn=VERSION
        )
        event = UserMessage(encode_serf(UserEvent(ltime=1, name="intrusion", payload=b"", cc=False)))
        target = endpoint(node)
        messages: list[Message] = [Ping(seq_no=7, node="")]
        if not harmless:
            messages += [stranger, event]
        for message in messages:
            for packet in encode_packets([message], keyring=keyring_of(key)):
                await udp.sendto(packet, (target.host, target.port))
        for packet in encode_packets([Ping(seq_no=8, node="")], keyring=keyring_of(witness)):
            await udp.sendto(packet, (target.host, target.port))
        answered = set()
        with trio.fail_after(SECONDS):
            while 8 not in answered:
                data, _ = await udp.recvfrom(65_535)
                contents = decode_packet(data, keyring=Keyring.from_base64([RIGHT, OLD]))
                answered |= {message.seq_no for message in contents.messages if isinstance(message, Ack)}
    return 7 in answered


async def streams_pass(node: NodeProcess, key: str | None) -> bool:
    """Look at the state by stream, and if that is refused, try to put a member in."""
    codec = StreamCodec(keyring=Keyring.from_base64([key, *({RIGHT, OLD} - {key})]) if key else None)
    try:
        answer = await codec.ask(endpoint(node), PushPull(), SECONDS)
    except ExchangeFailed:
        intruder = NodeState(
            name="intruder", addr=LOOPBACK, port=1, meta=b"", incarnation=1, state=NodeStateType.ALIVE,
            vsn=VERSION,
        )  # fmt: skip
        with pytest.raises(ExchangeFailed):
            await codec.ask(endpoint(node), PushPull((intruder,), b"", join=True), SECONDS)
        return False
    assert isinstance(answer, PushPull)
    return bool(answer.nodes)


async def joins(node: NodeProcess, directory: Path, key: str | None) -> bool:
    """Start a node with a key that joins, and end it again; tell whether it got in."""
    options = ("--node-name", "newcomer", "--start-join-addrs", gossip(node), *LOCAL)
    variables = {} if key is None else {"PROGLOG_ENCRYPT": key}
    async with node_process(directory, *options, **variables) as other:  # type: ignore[arg-type]  # variables only
        both = set(await members(other)) == {"a", "newcomer"}
        seen = await members(node)
        assert ("newcomer" in seen and seen["newcomer"]["status"] == "alive") == both
        assert await other.stop() == 0
    return both


async def change(node: NodeProcess, operation: str, key: str) -> None:
    code, _, errors = await run_command("keys", operation, "--addr", node.address, stdin=key.encode())
    assert code == 0, errors


@pytest.mark.parametrize("phase", ["before", "during", "after"])
async def test_only_the_right_cells_pass(tmp_path: Path, phase: str) -> None:
    async with node_process(tmp_path / "a", "--node-name", "a", "--encrypt", OLD, *LOCAL) as node:
        if phase != "before":
            await change(node, "install", RIGHT)
            await change(node, "use", RIGHT)
        if phase == "after":
            await change(node, "remove", OLD)
        files = sorted(str(path) for path in (tmp_path / "a").rglob("*"))
        place = {"before": 1, "during": 2, "after": 3}[phase]
        witness = OLD if phase == "before" else RIGHT
        for name, cell in KEYS.items():
            key, right = cell[0], bool(cell[place])
            assert await packets_pass(node, key, witness, harmless=right) is right, (name, "packets")
            assert await streams_pass(node, key) is right, (name, "streams")
            if not right:
                assert set(await members(node)) == {"a"}, name
        for name, cell in KEYS.items():
            # A join needs both directions: who has the old key alone is heard, and does not understand the answer.
            right = bool(cell[place]) and not (phase == "during" and name == "old")
            assert await joins(node, tmp_path / name, cell[0]) is right, (name, "join")
        seen = await members(node)
        assert set(seen) <= {"a", "newcomer"}
        async with open_consumer(node.address, follow=False) as consumer:
            assert consumer.end_offset == 0
        assert sorted(str(path) for path in (tmp_path / "a").rglob("*")) == files
        assert not any(key and key in node.logged() for key, *_ in KEYS.values())
