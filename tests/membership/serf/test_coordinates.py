"""Coordinates of members: kept as they say them, and forgotten with them."""

from __future__ import annotations

import math

import msgpack
import pytest
from attrs import evolve

from proglog_trio.membership.serf.vivaldi import ORIGIN
from proglog_trio.membership.swim.effects import RoundTrip
from proglog_trio.membership.wire.coordinates import Coordinate, encode_ack_payload
from tests.membership.serf.cores import TestedCore, alive, dead, endpoint_of

FIGURES = {"Vec": [0.0] * 8, "Error": 0.5, "Adjustment": 0.0, "Height": 0.001}
PLACE = Coordinate((0.01, *(0.0,) * 7), 0.5, 0.0, 0.001)


def node_that_knows_b() -> TestedCore:
    node = TestedCore.make()
    node.receive(alive("b"))
    return node


def answered(node: TestedCore, name: str, payload: bytes, seconds: float = 0.01) -> None:
    node.core._notified(RoundTrip(name, seconds, payload))


def coordinate(node: TestedCore, name: str) -> Coordinate | None:
    return node.core.members.by_name[name].snapshot().coordinate


def test_a_node_is_at_the_origin_and_knows_nothing_of_others_at_first() -> None:
    node = node_that_knows_b()
    assert coordinate(node, "me") == ORIGIN
    assert coordinate(node, "b") is None


def test_what_an_answer_says_is_kept_and_this_node_moves() -> None:
    node = node_that_knows_b()
    answered(node, "b", encode_ack_payload(PLACE))
    assert coordinate(node, "b") == PLACE
    assert coordinate(node, "me") == node.core.vivaldi.coordinate != ORIGIN
    answered(node, "b", encode_ack_payload(evolve(PLACE, height=0.002)))
    assert coordinate(node, "b") == evolve(PLACE, height=0.002)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x02",
        b"\x01nonsense",
        b"\x01" + msgpack.packb({**FIGURES, "Vec": [math.nan] * 8}),
        b"\x01" + msgpack.packb({**FIGURES, "Height": math.inf}),
        encode_ack_payload(evolve(PLACE, vec=(0.0,) * 7)),
        encode_ack_payload(evolve(PLACE, error=-1.0)),
        encode_ack_payload(evolve(PLACE, adjustment=1e9)),
    ],
)
def test_what_is_no_place_changes_nothing(payload: bytes) -> None:
    node = node_that_knows_b()
    answered(node, "b", payload)
    assert coordinate(node, "b") is None
    answered(node, "b", encode_ack_payload(PLACE))
    answered(node, "b", payload)
    assert coordinate(node, "b") == PLACE


def test_a_measurement_that_cannot_be_brings_no_place() -> None:
    node = node_that_knows_b()
    answered(node, "b", encode_ack_payload(PLACE), seconds=3600.0)
    assert coordinate(node, "b") is None
    # Nor does one of a member that is not known.
    answered(node, "nobody", encode_ack_payload(PLACE))
    assert "nobody" not in node.core.members.by_name


def test_a_failed_member_keeps_its_place_and_one_that_comes_back_elsewhere_does_not() -> None:
    node = node_that_knows_b()
    answered(node, "b", encode_ack_payload(PLACE))
    node.receive(dead("b", by="b"))
    assert coordinate(node, "b") == PLACE
    node.receive(alive("b", 2))
    assert coordinate(node, "b") == PLACE
    node.receive(dead("b", 2, by="b"))
    node.receive(alive("b", 3, endpoint_of(9)))
    assert coordinate(node, "b") is None


def test_versions_are_told() -> None:
    node = node_that_knows_b()
    versions = node.core.members.by_name["b"].snapshot().versions
    assert versions is not None
    assert (versions.protocol_min, versions.protocol_max, versions.protocol_current) == (1, 5, 2)
    assert (versions.delegate_min, versions.delegate_max, versions.delegate_current) == (2, 5, 4)
