"""Who gets into gossip: packets, streams and joins, each plain, with a wrong key, the right one and an old one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from proglog_trio.client import open_consumer
from proglog_trio.log.storage.running_time import RUNNING_TIME_FILE
from proglog_trio.membership.stream_io import ExchangeFailed, StreamCodec
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.memberlist import (
    Ack,
    Alive,
    Message,
    NodeState,
    NodeStateType,
    Ping,
    PushPull,
    UserMessage,
)
from proglog_trio.membership.wire.packet import encode_packets
from proglog_trio.membership.wire.serf import UserEvent, encode_serf
from proglog_trio.node.parts_config import SNAPSHOT_FILE
from proglog_trio.replication.peers.directories_file import DIRECTORIES_FILE
from proglog_trio.rpc.calls.cluster import change_key
from tests.members import members, node_inside
from tests.membership.wire.at_once import decode_packet
from tests.node_process import NodeProcess, node_process

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
    host, _, port = node.gossip.rpartition(":")
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
    """Run a node with a key that joins, and end it again; tell whether it got in. It is called as its directory."""
    name = directory.name
    async with node_inside(directory, name, join=node.gossip, encrypt=key) as other:
        both = set(await members(other)) > {name}
        assert ("a" in await members(other)) == both
        seen = await members(node)
        assert (name in seen and seen[name]["status"] == "alive") == both
    return both


async def change(node: NodeProcess, *operations: tuple[str, str]) -> None:
    for method, key in operations:
        answers = await change_key(node.address, method, key, SECONDS)
        assert ("a" in answers.done, answers.problems) == (True, {}), method


PHASES: dict[str, Sequence[tuple[str, str]]] = {
    "before": (),
    "during": (("InstallKey", RIGHT), ("UseKey", RIGHT)),
    "after": (("RemoveKey", OLD),),
}
"""What is done to the keys before each phase."""


def files_of(directory: Path) -> list[str]:
    """Every path below a directory, but for the lists of nodes and of members, and the running time.

    The lists name those that got in, and are written anew beside themselves; the time is kept from a node's tenth
    second on.
    """
    passed_over = {DIRECTORIES_FILE, RUNNING_TIME_FILE, SNAPSHOT_FILE, f"{SNAPSHOT_FILE}.new"}
    return sorted(str(path) for path in directory.rglob("*") if path.name not in passed_over)


@pytest.mark.system
async def test_only_the_right_cells_pass(tmp_path: Path) -> None:
    async with node_process(tmp_path / "a", "--node-name", "a", *LOCAL, PROGLOG_ENCRYPT=OLD) as node:
        files = files_of(tmp_path / "a")
        got_in = {"a"}
        for place, (phase, operations) in enumerate(PHASES.items(), start=1):
            await change(node, *operations)
            witness = OLD if phase == "before" else RIGHT
            for name, cell in KEYS.items():
                key, right = cell[0], bool(cell[place])
                assert await packets_pass(node, key, witness, harmless=right) is right, (phase, name, "packets")
                assert await streams_pass(node, key) is right, (phase, name, "streams")
                assert set(await members(node)) == got_in, (phase, name)
            for name, cell in KEYS.items():
                # A join needs both directions: who has the old key alone is heard, and does not understand the answer.
                right = bool(cell[place]) and not (phase == "during" and name == "old")
                newcomer = f"{name}-{phase}"
                assert await joins(node, tmp_path / newcomer, cell[0]) is right, (phase, name, "join")
                got_in |= {newcomer} & set(await members(node))
        async with open_consumer(node.address, follow=False) as consumer:
            assert consumer.end_offset == 0
        assert files_of(tmp_path / "a") == files
        assert not any(key and key in node.logged() for key, *_ in KEYS.values())
