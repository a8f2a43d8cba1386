"""A node's claim to its name: which member else has it, and whether that was this very node in an earlier life.

No node may have the name of a member that lives, or may live, at another address. But a node that crashed and comes
back at a new address is the same node: same name, same data directory, opened later. It is let in at once if nothing
answers at the old address. Members that still hold the earlier life for alive are told that it has left, which frees
its name everywhere, with agents too. Of nodes that hold it for failed, see `Rules.is_later_life`; for agents its name
is free once they have forgotten it.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio
from attrs import evolve, frozen

from proglog_trio.errors import DirectoryCopied
from proglog_trio.internal_errors import Where
from proglog_trio.membership.gossip import Gossip
from proglog_trio.membership.lives import Kinship, kinship
from proglog_trio.membership.stream_io import ExchangeFailed
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.memberlist import NodeState, NodeStateType, PushPull
from proglog_trio.membership.wire.tags import tags_of

PING_SECONDS = 1.0
"""What does not answer at an address of an earlier life for so long is not there."""
TELL_SECONDS = 2.0
"""For telling a member that an earlier life has ended."""
MAX_TOLD = 256
"""Members that are told that; the others hear it from them."""
MAX_HOLDERS = 16
"""Members with this node's name that are looked into: more than one or two only a hostile member makes up."""
MAX_AT_ONCE = 32

_logger = structlog.get_logger(__name__)


class NameHeld(Exception):
    """Another member has the name, or had it until lately. The message says who."""


@frozen
class Names:
    """Claims this node's name among the members that it is about to join."""

    gossip: Gossip

    async def claim(self, answers: Sequence[PushPull]) -> None:
        """Look whether the name is free, or make it so where an earlier life of this node has it.

        Args:
            answers: what members know; they do not know of this node yet.

        Raises:
            NameHeld: another has it.
            DirectoryCopied: one that is there has it, and uses the same data directory: it is a copy.
        """
        holders = self._holders(answers)
        if not holders:
            return
        mine = tags_of(self.gossip.core.swim.rules.me.meta)
        kin = {endpoint: kinship(tags_of(holder.meta), mine) for endpoint, holder in holders.items()}
        there = await self._who_answers([each for each in holders if kin[each] is not Kinship.STRANGERS])
        for endpoint in there:
            raise DirectoryCopied(f"{self.gossip.config.name} at {endpoint}")
        for endpoint, holder in holders.items():
            if kin[endpoint] is not Kinship.EARLIER:
                raise NameHeld(
                    f"a failed member named {holder.name!r} is not forgotten yet, at {endpoint}"
                    if holder.state is NodeStateType.DEAD
                    else f"the cluster has a member named {holder.name!r} already, at {endpoint}"
                )
        _logger.info("this node was at another address before, where nobody answers", before=[*map(str, holders)])
        incarnation = max(holder.incarnation for holder in holders.values())
        ended = [evolve(each, state=NodeStateType.LEFT, incarnation=incarnation) for each in holders.values()]
        await self._tell(self._living(answers), PushPull(nodes=tuple(ended)))
        # What is still under way about the earlier life must not be taken for news of this one.
        self.gossip.act(lambda: self.gossip.core.swim.rules.outlive(incarnation))

    def _holders(self, answers: Sequence[PushPull]) -> dict[Endpoint, NodeState]:
        """Return who has the name elsewhere and has not left, by where; of several states of one, the most alive."""
        name, rules = self.gossip.config.name, self.gossip.core.swim.rules
        holders: dict[Endpoint, NodeState] = {}
        for answer in answers:
            for state in answer.nodes:
                if state.name != name or not state.addr or state.state is NodeStateType.LEFT:
                    continue
                endpoint = Endpoint(state.addr, state.port)
                if endpoint == self.gossip.endpoint or rules.is_foreign(name, state.meta):
                    continue
                known = holders.get(endpoint)
                if known is None and len(holders) >= MAX_HOLDERS:
                    raise NameHeld(f"the cluster has more than {MAX_HOLDERS} members named {name!r}")
                if known is None or (-state.state, state.incarnation) > (-known.state, known.incarnation):
                    holders[endpoint] = state
        return holders

    async def _who_answers(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """Ping each directly, under this node's own name; return those that answer."""
        answered: list[Endpoint] = []

        async def ask(endpoint: Endpoint) -> None:
            try:
                if await self.gossip.exchanges.answers(endpoint, self.gossip.config.name, PING_SECONDS):
                    answered.append(endpoint)
            except ExchangeFailed as error:
                _logger.debug("an address of an earlier life does not answer", reason=str(error))

        async with trio.open_nursery() as nursery:
            for endpoint in endpoints:
                nursery.start_soon(ask, endpoint)
        return answered

    def _living(self, answers: Sequence[PushPull]) -> list[Endpoint]:
        rules = self.gossip.core.swim.rules
        living: dict[Endpoint, None] = {}
        for answer in answers:
            for state in answer.nodes:
                is_other = state.addr and rules.admission.allows(state.addr) and state.name != self.gossip.config.name
                if is_other and state.state is NodeStateType.ALIVE and not rules.is_foreign(state.name, state.meta):
                    living[Endpoint(state.addr, state.port)] = None
        return list(living)[:MAX_TOLD]

    async def _tell(self, members: Sequence[Endpoint], news: PushPull) -> None:
        limiter = trio.CapacityLimiter(MAX_AT_ONCE)

        async def tell(member: Endpoint) -> None:
            async with limiter:
                with self.gossip.errors.boundary(Where.MEMBERSHIP_JOIN, through=str(member)):
                    try:
                        await self.gossip.codec.ask(member, news, TELL_SECONDS)
                    except ExchangeFailed as error:
                        _logger.debug("a member could not be told of this node's earlier life", reason=str(error))

        with trio.move_on_after(2 * TELL_SECONDS):
            async with trio.open_nursery() as nursery:
                for member in members:
                    nursery.start_soon(tell, member)
