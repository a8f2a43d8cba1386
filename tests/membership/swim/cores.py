"""SWIM cores for tests, and what they said."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from attrs import define, evolve, field

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.swim.effects import Effect, Notification, SendPacket, StatusChange
from proglog_trio.membership.swim.node import Endpoint, NodeStatus
from proglog_trio.membership.swim.swim import VERSION, Swim
from proglog_trio.membership.wire.memberlist import Alive, Message, decode_message

HERE = Endpoint.of("10.0.0.1", 7946)


def endpoint_of(number: int) -> Endpoint:
    return Endpoint(bytes((10, 1, number >> 8, number & 255)), 7946)


def alive(
    name: str = "b",
    incarnation: int = 1,
    *,
    at: Endpoint | int = 1,
    meta: bytes = b"",
    version: bytes = VERSION,
) -> Alive:
    endpoint = endpoint_of(at) if isinstance(at, int) else at
    return Alive(incarnation=incarnation, node=name, addr=endpoint.address, port=endpoint.port, meta=meta, vsn=version)


@define
class TestedSwim:
    """A core with what it said."""

    __test__ = False
    swim: Swim
    said: list[Notification] = field(factory=list)

    @classmethod
    def make(cls, *, start: bool = True, meta: bytes = b"", **changes: Any) -> TestedSwim:
        said: list[Notification] = []
        swim = Swim("me", HERE, evolve(GossipProfile(), **changes), random.Random(1), said.append, now=100.0, meta=meta)
        if start:
            swim.start()
            said.clear()
        return cls(swim, said)

    def receive(self, *messages: Message, source: Endpoint | None = None) -> None:
        self.swim.receive(messages, source if source is not None else endpoint_of(1))

    def take(self) -> list[Effect]:
        taken, self.swim.effects[:] = list(self.swim.effects), []
        return taken

    def advance(self, seconds: float) -> list[Effect]:
        """Let time pass as a shell does, and return what was to be done meanwhile."""
        target = self.swim.rules.timers.now + seconds
        effects: list[Effect] = []
        while (deadline := self.swim.next_deadline) is not None and deadline <= target:
            self.swim.advance(deadline)
            effects += self.take()
        self.swim.advance(target)
        return effects + self.take()

    def until(self, wanted: type[Message], limit: float = 10.0) -> tuple[SendPacket, Any]:
        """Let time pass until a message of a kind is sent; return the packet and the message."""
        for _ in range(int(limit / 0.05)):
            for effect in self.advance(0.05):
                for message in messages([effect]):
                    if isinstance(message, wanted):
                        assert isinstance(effect, SendPacket)
                        return effect, message
        raise AssertionError(f"no {wanted.__name__} within {limit} s")

    def status(self, name: str = "b") -> NodeStatus | None:
        node = self.swim.rules.nodes.get(name)
        return None if node is None else node.status

    def incarnation(self, name: str = "b") -> int:
        return self.swim.rules.nodes[name].incarnation

    def broadcasts(self) -> list[Message]:
        """Return what waits to be gossiped, once each, and let it all go out."""
        sent: dict[bytes, None] = {}
        while data := self.swim.outbox.queues[0].for_packet(self.swim.rules.known, 0, 10**9):
            sent.update(dict.fromkeys(data))
        return [decode_message(data) for data in sent]

    def news(self) -> list[Notification]:
        """Return what was said but for the changes of statuses, which explain it."""
        return [notification for notification in self.said if not isinstance(notification, StatusChange)]


def messages(effects: Iterable[Effect]) -> list[Message]:
    """Return all messages in packets."""
    return [decode_message(data) for effect in effects if isinstance(effect, SendPacket) for data in effect.messages]
