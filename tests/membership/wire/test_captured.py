"""Packets that a real agent has sent: they decode to what is known of them, and we would send the same bytes."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from attrs import AttrsInstance

from proglog_trio.membership.wire.coordinates import decode_ack_payload
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.memberlist import (
    Ack,
    Alive,
    Dead,
    Nack,
    NodeState,
    Ping,
    PushPull,
    Suspect,
    UserMessage,
)
from proglog_trio.membership.wire.msgpack_structs import to_map
from proglog_trio.membership.wire.packet import encode_packets
from proglog_trio.membership.wire.serf import Leave, Query, UserEvent, decode_serf, encode_serf
from proglog_trio.membership.wire.state import SerfPushPull
from proglog_trio.membership.wire.stream_decoder import StreamDecoder
from proglog_trio.membership.wire.tags import decode_tags
from tests.membership.wire.at_once import decode_packet, encode_stream

CAPTURED = json.loads((Path(__file__).parent / "data" / "packets.json").read_bytes())
KINDS: dict[str, type[AttrsInstance]] = {
    "ping": Ping,
    "ackResp": Ack,
    "nackResp": Nack,
    "suspect": Suspect,
    "alive": Alive,
    "dead": Dead,
    "node": NodeState,
    "user/serf0": Leave,
    "user/serf3": UserEvent,
    "user/serf4": Query,
    "userstate serf2": SerfPushPull,
}
LAYERS = {"compress", "hasCrc", "compound", "pushPull"}


def in_bytes(value: Any) -> Any:
    """Return a body of the data file with all text as bytes."""
    if isinstance(value, dict):
        if value.keys() == {"hex"}:
            return bytes.fromhex(value["hex"])
        return {key.encode(): in_bytes(element) for key, element in value.items()}
    if isinstance(value, list):
        return [in_bytes(element) for element in value]
    return value.encode() if isinstance(value, str) else value


def check(decoded: Iterable[AttrsInstance], case: dict[str, Any]) -> None:
    expected = [layer for layer in case["layers"] if layer["kind"] not in LAYERS]
    for message, layer in zip(decoded, expected, strict=True):
        assert type(message) is KINDS[layer["kind"]]
        body = in_bytes(layer["body"])
        sent = to_map(message)
        assert {key: sent[key] for key in body} == body


def keyring_of(case: dict[str, Any]) -> Keyring | None:
    return Keyring((bytes.fromhex(case["key_hex"]),)) if case["encrypted"] else None


def cases(transport: str) -> pytest.MarkDecorator:
    chosen = [(number, case) for number, case in enumerate(CAPTURED) if case["transport"] == transport]
    return pytest.mark.parametrize("case", [case for _, case in chosen], ids=[f"{number}" for number, _ in chosen])


@cases("udp")
def test_packets(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["hex"])
    keyring = keyring_of(case)
    contents = decode_packet(data, keyring=keyring)
    assert not contents.errors
    decoded = [decode_serf(m.payload) if isinstance(m, UserMessage) else m for m in contents.messages]
    check(decoded, case)
    for message, serf in zip(contents.messages, decoded, strict=True):
        if isinstance(message, UserMessage):
            assert encode_serf(serf) == message.payload  # type: ignore[arg-type]  # it comes from decode_serf

    kinds = {layer["kind"] for layer in case["layers"]}
    again = encode_packets(
        contents.messages,
        keyring=keyring,
        checksum="hasCrc" in kinds,
        compress="compress" in kinds,
        random_bytes=lambda _count: data[1:13],
    )
    assert again == [data]
    assert decode_packet(again[0], keyring=keyring) == contents


@cases("tcp")
def test_streams(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["hex"])
    keyring = keyring_of(case)
    decoder = StreamDecoder(keyring=keyring)
    for byte in data[:-1]:
        assert decoder.feed(bytes((byte,))) is None
    message = decoder.feed(data[-1:])
    assert isinstance(message, PushPull)
    header = next(layer["body"] for layer in case["layers"] if layer["kind"] == "pushPull")
    assert header == {"Join": message.join, "Nodes": len(message.nodes), "UserStateLen": len(message.user_state)}
    state = decode_serf(message.user_state)
    check([*message.nodes, state], case)
    assert encode_serf(state) == message.user_state
    assert encode_stream(message, keyring=keyring, random_bytes=lambda _count: data[6:18]) == data


def test_every_kind_was_captured() -> None:
    assert {layer["kind"] for case in CAPTURED for layer in case["layers"]} == KINDS.keys() | LAYERS


def test_tags_and_coordinates() -> None:
    metas = set()
    for case in CAPTURED:
        if case["transport"] == "udp":
            for message in decode_packet(bytes.fromhex(case["hex"]), keyring=keyring_of(case)).messages:
                if isinstance(message, Alive):
                    metas.add(tuple(decode_tags(message.meta).items()))
                if isinstance(message, Ack):
                    coordinate = decode_ack_payload(message.payload)
                    assert coordinate is not None
                    assert coordinate.vec == (0.0,) * 8
                    assert (coordinate.error, coordinate.adjustment, coordinate.height) == (1.5, 0.0, 1e-05)
    assert metas == {(("role", "py"), ("rpc_addr", "127.0.0.1:9000")), (("role", "web"),), (("role", "py"),), ()}
