"""Cores for tests, and what to do to them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, evolve, field

from proglog_trio.internal_errors import Boundaries, no_boundary
from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.clusters import ClusterTag
from proglog_trio.membership.serf.keys import KeyQuestion
from proglog_trio.membership.serf.member import MemberEvent, MemberEventKind, MemberStatus
from proglog_trio.membership.serf.merging import MergeCheck
from proglog_trio.membership.serf.serf import CoreEvent, Serf
from proglog_trio.membership.swim.admission import any_address
from proglog_trio.membership.swim.effects import Effect, SendPacket
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.swim.swim import VERSION
from proglog_trio.membership.wire.memberlist import Alive, Dead, Message, PushPull, Suspect, UserMessage, decode_message
from proglog_trio.membership.wire.serf import (
    QUERY_FLAG_ACK,
    Query,
    SerfMessage,
    decode_serf,
    encode_serf,
)
from proglog_trio.membership.wire.state import SerfPushPull
from proglog_trio.membership.wire.tags import encode_tags
from proglog_trio.steps import complete

HERE = Endpoint.of("10.0.0.1", 7946)
THERE = Endpoint.of("10.0.0.2", 7946)


def endpoint_of(number: int) -> Endpoint:
    return Endpoint(bytes((10, 1, number >> 8, number & 255)), 7946)


def alive(name: str, incarnation: int = 1, endpoint: Endpoint = THERE, tags: Mapping[str, str] | None = None) -> Alive:
    meta = encode_tags(tags) if tags is not None else b""
    return Alive(incarnation=incarnation, node=name, addr=endpoint.address, port=endpoint.port, meta=meta, vsn=VERSION)


def dead(name: str, incarnation: int = 1, by: str = "somebody") -> Dead:
    return Dead(incarnation=incarnation, node=name, from_node=by)


@define
class TestedCore:
    """A core with what it said.

    Attributes:
        core: what is tested.
        said: everything that it emitted.
    """

    __test__ = False
    core: Serf
    said: list[CoreEvent] = field(factory=list)

    @classmethod
    def make(
        cls,
        name: str = "me",
        endpoint: Endpoint = HERE,
        tags: Mapping[str, str] | None = None,
        profile: GossipProfile | None = None,
        cluster: str | None = None,
        on_key_query: Callable[[KeyQuestion], None] | None = None,
        allows_address: Callable[[bytes], bool] = any_address,
        merge_check: MergeCheck | None = None,
        boundaries: Boundaries = no_boundary,
        **changes: Any,
    ) -> TestedCore:
        profile = evolve(profile if profile is not None else GossipProfile(), **changes)
        said: list[CoreEvent] = []
        tag = None if cluster is None else ClusterTag("cluster_name", cluster)
        core = Serf(
            name, endpoint, tags or {}, profile, random.Random(0), said.append,
            now=0.0, cluster=tag, on_key_query=on_key_query, allows_address=allows_address, merge_check=merge_check,
            boundaries=boundaries,
        )  # fmt: skip
        core.start()
        return cls(core, said)

    def receive(self, *messages: Message, source: Endpoint = THERE) -> None:
        self.core.swim.receive(messages, source)

    def advance(self, seconds: float) -> list[Effect]:
        """Let time pass as a shell does, and return what was to be done meanwhile."""
        target = self.core.swim.now + seconds
        effects: list[Effect] = []
        while (deadline := self.core.swim.next_deadline) is not None and deadline <= target:
            self.core.swim.advance(deadline)
            effects += self.take()
        self.core.swim.advance(target)
        return effects + self.take()

    def take(self) -> list[Effect]:
        effects = self.core.swim.effects
        taken, effects[:] = list(effects), []
        return taken

    def status(self, name: str) -> MemberStatus | None:
        member = self.core.members.by_name.get(name)
        return None if member is None else member.status

    def events(self, *kinds: MemberEventKind) -> list[tuple[str, str]]:
        """Return kind and name of each event."""
        return [
            (event.kind.value, member.name)
            for event in self.said
            if isinstance(event, MemberEvent) and (not kinds or event.kind in kinds)
            for member in event.members
        ]

    def exchange(self, other: TestedCore, *, join: bool = False) -> None:
        """Exchange states with another, as a stream would."""
        mine: PushPull = complete(self.core.push_pull.local_state_steps(join=join))
        theirs = complete(other.core.push_pull.local_state_steps(join=False))
        complete(other.core.push_pull.merge_steps(mine))
        complete(self.core.push_pull.merge_steps(theirs, ignore_events=join))


SUSPICION = Suspect(incarnation=1, node="b", from_node="somebody")


def user(message: SerfMessage) -> UserMessage:
    return UserMessage(encode_serf(message))


def sent(effects: list[object]) -> list[Message | SerfMessage]:
    """Return all messages in packets, Serf's decoded."""
    found: list[Message | SerfMessage] = []
    for effect in effects:
        if isinstance(effect, SendPacket):
            for data in effect.messages:
                message = decode_message(data)
                found.append(decode_serf(message.payload) if isinstance(message, UserMessage) else message)
    return found


def state(**changes: object) -> SerfPushPull:
    fields: dict[str, object] = {
        "ltime": 1, "status_ltimes": {}, "left_members": (), "event_ltime": 1, "events": (), "query_ltime": 1,
    }  # fmt: skip
    return SerfPushPull(**(fields | changes))  # type: ignore[arg-type]  # one value for each field


def query(**changes: object) -> Query:
    fields: dict[str, object] = {
        "ltime": 5, "id": 7, "addr": THERE.address, "port": THERE.port, "source_node": "other", "filters": (),
        "flags": QUERY_FLAG_ACK, "relay_factor": 0, "timeout": 10**9, "name": "q", "payload": b"",
    }  # fmt: skip
    return Query(**(fields | changes))  # type: ignore[arg-type]  # one value for each field
