"""How Serf's messages get to others: by packets, and by streams where a message is too large for a packet.

A message for all members is gossiped. One that fits into no packet cannot be; each member that hears of it first sends
it on to some others by streams, as many as a broadcast is sent to, and push/pulls carry events to whoever is left out.
"""

from __future__ import annotations

from attrs import define

from proglog_trio.membership.swim.broadcasts import BroadcastQueue, retransmit_limit
from proglog_trio.membership.swim.effects import SendByStream
from proglog_trio.membership.swim.node import Endpoint, NodeStatus
from proglog_trio.membership.swim.swim import Swim
from proglog_trio.membership.wire.memberlist import UserMessage, encode_message

MAX_STREAMED_BYTES = 16 * 1024
"""A larger message is sent to nobody: no member sends one itself, since limits end at 9 KiB."""


@define
class Refused:
    """What arrived and was dropped, by reason.

    Attributes:
        too_large: messages that were for others too, and were not sent on.
    """

    malformed: int = 0
    too_large: int = 0


@define(eq=False)
class Spreading:
    """Sends Serf's messages, of this node and of others.

    Attributes:
        swim: gossips, and knows who is there.
        refused: counts what is too large.
    """

    swim: Swim
    refused: Refused

    def spread(self, queue: BroadcastQueue, payload: bytes, *, by_streams: bool = True) -> None:
        """Send a message to all members.

        Args:
            queue: where its like waits to be gossiped.
            payload: its bytes.
            by_streams: its like may be too large for a packet.
        """
        message = encode_message(UserMessage(payload))
        if len(message) <= self.swim.outbox.largest_broadcast:
            queue.add(message)
        elif by_streams and len(payload) <= MAX_STREAMED_BYTES:
            self._spread_by_streams(payload)
        else:
            self.refused.too_large += 1

    def _spread_by_streams(self, payload: bytes) -> None:
        rules = self.swim.rules
        count = retransmit_limit(rules.profile.retransmit_multiplier, rules.known)
        for node in rules.table.choose(
            count,
            lambda node: (
                node is not rules.me and node.status is NodeStatus.ALIVE and not rules.is_elsewhere(node.endpoint)
            ),
        ):
            self.swim.effects.append(SendByStream(node.endpoint, payload))

    def send(self, payload: bytes, *targets: Endpoint) -> None:
        """Send a message to some members, each directly."""
        message = encode_message(UserMessage(payload))
        if len(message) <= self.swim.outbox.largest_message:
            for target in targets:
                self.swim.outbox.send(target, message)
        elif len(payload) <= MAX_STREAMED_BYTES:
            self.swim.effects.extend(SendByStream(target, payload) for target in targets)
        else:
            self.refused.too_large += len(targets)
