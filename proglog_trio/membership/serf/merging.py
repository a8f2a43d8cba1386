"""The merge check: a function of the program above says which members may be merged (memberlist's MergeDelegate)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from proglog_trio.internal_errors import Boundaries, Where
from proglog_trio.membership.serf.clusters import StateRefused
from proglog_trio.membership.serf.member import Member, MemberStatus
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.memberlist import NodeState, NodeStateType
from proglog_trio.membership.wire.tags import tags_of
from proglog_trio.steps import Steps

MergeCheck = Callable[[Sequence[Member]], str | None]
"""Is given members, and returns why they may not be merged, in words that are told to them too; None: they may.

It is called with all members of a cluster that is joined or that joins, and with each member alone that is heard of and
would become one here. It must return at once, since it is called in the middle of gossip. When it raises, the members
are not merged.
"""
MAX_REASON = 200
"""Characters of a reason that are told."""
MEMBERS_AT_ONCE = 64
"""In one step of making members of a state."""
_STATUSES = {
    NodeStateType.ALIVE: MemberStatus.ALIVE,
    NodeStateType.SUSPECT: MemberStatus.ALIVE,
    NodeStateType.DEAD: MemberStatus.FAILED,
    NodeStateType.LEFT: MemberStatus.LEFT,
}


class MergeRefused(StateRefused):
    """The merge check says no to what a member knows; nothing of it was taken. The message says why."""


@frozen
class Merging:
    """Asks the merge check.

    Attributes:
        check: see MergeCheck.
        boundaries: what it is called in.
    """

    check: MergeCheck
    boundaries: Boundaries

    def judge(self, name: str, endpoint: Endpoint, meta: bytes) -> str | None:
        """Return why one member may not be merged; None: it may."""
        member = Member(name, endpoint.host, endpoint.port, tags_of(meta), MemberStatus.ALIVE)
        return self._refusal((member,))

    def judge_steps(self, states: Sequence[NodeState]) -> Steps[None]:
        """Ask about all members of a state, in steps but for the check itself.

        Raises:
            MergeRefused: they may not be merged.
        """
        members: list[Member] = []
        for number, state in enumerate(states, 1):
            if state.addr and state.name:
                endpoint = Endpoint(state.addr, state.port)
                status = _STATUSES[state.state]
                members.append(Member(state.name, endpoint.host, state.port, tags_of(state.meta), status))
            if number % MEMBERS_AT_ONCE == 0:
                yield
        refusal = self._refusal(members) if members else None
        if refusal is not None:
            raise MergeRefused(refusal)

    def _refusal(self, members: Sequence[Member]) -> str | None:
        refusal: str | None = "whether its members may be merged cannot be told now"
        with self.boundaries(Where.MERGE_CHECK):
            refusal = self.check(members)
        return refusal if refusal is None else refusal[:MAX_REASON]
