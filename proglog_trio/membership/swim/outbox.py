"""What a SWIM core wants sent: messages, and beside each as many broadcasts as fit into its packet.

A packet that is sent anyway carries news for nothing: most news travels with pings and acks.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from proglog_trio.membership.swim.broadcasts import BroadcastQueue
from proglog_trio.membership.swim.effects import Effect, SendPacket
from proglog_trio.membership.swim.node import Endpoint, Node
from proglog_trio.membership.swim.rules import Rules

COMPOUND_OVERHEAD_BYTES = 2
"""What a compound packet takes, and again each message in it."""
CHECKSUM_SINCE_PROTOCOL = 5
CHECKSUM_BYTES = 5


@define(eq=False)
class Outbox:
    """What is to be done for a core, and how its messages become packets.

    Attributes:
        rules: who is known.
        queues: the broadcasts, in the order in which they go out: SWIM's, then those of the layer above.
        overhead_bytes: what encryption and label take of each packet.
        effects: what is to be done, in this order. The shell of the core does it and empties the list; the core only
            appends to it.
    """

    rules: Rules
    queues: Sequence[BroadcastQueue]
    overhead_bytes: int = 0
    effects: list[Effect] = field(factory=list)

    @property
    def largest_message(self) -> int:
        """How many bytes a message may have to fit into a packet when it goes alone."""
        return self._room + COMPOUND_OVERHEAD_BYTES

    @property
    def largest_broadcast(self) -> int:
        """How many bytes a broadcast may have to fit into a packet of its own."""
        return self._room - COMPOUND_OVERHEAD_BYTES

    @property
    def _room(self) -> int:
        """How many bytes of a packet are for messages, with what a compound packet takes for each."""
        return self.rules.profile.packet_bytes - self.overhead_bytes - COMPOUND_OVERHEAD_BYTES - CHECKSUM_BYTES

    def send(self, target: Endpoint, message: bytes) -> None:
        """Send a message, with the broadcasts that fit beside it; to another cluster goes the message alone."""
        beside: list[bytes] = []
        if not self.rules.is_elsewhere(target):
            beside = self._broadcasts(self._room - COMPOUND_OVERHEAD_BYTES - len(message))
        self._emit(target, [message, *beside], None)

    def gossip(self, node: Node) -> bool:
        """Send broadcasts to a member; tell whether there were any."""
        messages = self._broadcasts(self._room)
        if messages:
            self._emit(node.endpoint, messages, node)
        return bool(messages)

    def _broadcasts(self, limit: int) -> list[bytes]:
        """Return broadcasts for one packet with room for so many bytes."""
        messages: list[bytes] = []
        for queue in self.queues:
            taken = queue.for_packet(self.rules.known, COMPOUND_OVERHEAD_BYTES, limit)
            limit -= sum(COMPOUND_OVERHEAD_BYTES + len(message) for message in taken)
            messages += taken
        return messages

    def _emit(self, target: Endpoint, messages: Sequence[bytes], node: Node | None) -> None:
        counters = self.rules.counters
        counters.packets_sent += 1
        counters.bytes_sent += sum(map(len, messages))
        checksum = node is not None and node.highest_protocol >= CHECKSUM_SINCE_PROTOCOL
        self.effects.append(SendPacket(target, tuple(messages), checksum))
