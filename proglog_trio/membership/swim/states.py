"""States: what a push/pull says of all members, as it is made, judged and merged; in steps, since there may be many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import define

from proglog_trio.internal_errors import Boundaries, Where
from proglog_trio.membership.swim.foreigners import MAX_FOREIGNERS, Belonging, Sender
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.swim.rules import Rules
from proglog_trio.membership.wire.memberlist import Alive, Dead, NodeState, NodeStateType, Suspect
from proglog_trio.steps import Steps

STATES_AT_ONCE = 64
STATES_MERGED_AT_ONCE = 4
"""In one step of making a state, and of merging one; each may bring a member with tags, news to pass on and a timer."""


class OtherCluster(Exception):
    """A state is of another cluster: nothing of it was merged, and nothing may be told to the member that sent it.

    Attributes:
        state: a member of that cluster.
    """

    def __init__(self, state: NodeState) -> None:
        super().__init__(f"{state.name} is of another cluster")
        self.state = state


@define(eq=False)
class States:
    """What is told of the members in a push/pull, and what is learned from one.

    Attributes:
        rules: who is known.
        boundaries: what each member of a state is merged in.
    """

    rules: Rules
    boundaries: Boundaries

    def local_state_steps(self) -> Steps[tuple[NodeState, ...]]:
        """Return, in steps, what is known of every member, for a push/pull."""
        states: list[NodeState] = []
        for node in list(self.rules.nodes.values()):
            states.append(
                NodeState(
                    name=node.name,
                    addr=node.told_address,
                    port=node.endpoint.port,
                    meta=node.meta,
                    incarnation=node.incarnation,
                    state=NodeStateType(node.status),
                    vsn=node.version,
                )
            )
            if len(states) % STATES_AT_ONCE == 0:
                yield
        return tuple(states)

    def judge_steps(self, states: Sequence[NodeState], sender: Sender) -> Steps[bool]:
        """Tell, in steps, whether a state has nothing of other clusters in it.

        It may have some of it and be told by a member of this cluster: a plain member may be one of both, or a member
        of an older version may have merged the other. It is of another cluster when the one that sent it is, as far as
        that is known, or when it has members of that alone.

        Raises:
            OtherCluster: it is of another cluster.
        """
        rules = self.rules
        has_foreign = has_ours = False
        there: list[NodeState] = []
        at_sender: dict[Belonging, NodeState] = {}
        for number, state in enumerate(states, 1):
            if number % STATES_MERGED_AT_ONCE == 0:
                yield
            belonging = rules.foreigners.belonging(state.meta)
            has_foreign |= belonging is Belonging.ELSEWHERE
            if not state.addr or state.state not in (NodeStateType.ALIVE, NodeStateType.SUSPECT):
                continue
            endpoint = Endpoint(state.addr, state.port)
            if endpoint == rules.me.endpoint:
                continue
            has_ours |= belonging is Belonging.HERE
            if belonging is Belonging.ELSEWHERE:
                there.append(state)
            if endpoint == sender.endpoint or endpoint.address == sender.address:
                at_sender[belonging] = state
        of_sender = at_sender.get(Belonging.ELSEWHERE) if len(at_sender) == 1 else None
        refused = of_sender if of_sender is not None else there[0] if there and not has_ours else None
        if refused is None:
            return not has_foreign
        rules.counters.of_other_clusters += 1
        for number, state in enumerate(there[:MAX_FOREIGNERS], 1):
            endpoint = Endpoint(state.addr, state.port)
            if endpoint == sender.endpoint:
                rules.found_foreigner(state.name, endpoint, state.meta)
            else:
                rules.note_foreigner(state.name, endpoint, state.meta)
            if number % STATES_MERGED_AT_ONCE == 0:
                yield
        raise OtherCluster(refused)

    def merge_steps(self, states: Iterable[NodeState]) -> Steps[None]:
        """Merge what another member knows, in steps.

        Of the dead as of the suspect only a suspicion is merged, so that one that lives can refute.
        """
        boundary = self.boundaries(Where.GOSSIP_MESSAGE)
        for number, state in enumerate(states, 1):
            if number % STATES_MERGED_AT_ONCE == 0:
                yield
            if state.addr and state.name:  # otherwise it cannot be reached, so it cannot be a member
                with boundary:
                    self._merge_one(state)

    def _merge_one(self, state: NodeState) -> None:
        rules = self.rules
        if state.state is not NodeStateType.ALIVE and rules.is_foreign(state.name, state.meta):
            rules.counters.of_other_clusters += 1
            return
        suspicion = Suspect(incarnation=state.incarnation, node=state.name, from_node=rules.me.name)
        match state.state:
            case NodeStateType.ALIVE:
                rules.alive(
                    Alive(
                        incarnation=state.incarnation,
                        node=state.name,
                        addr=state.addr,
                        port=state.port,
                        meta=state.meta,
                        vsn=state.vsn,
                    )
                )
            case NodeStateType.LEFT:
                rules.dead(Dead(incarnation=state.incarnation, node=state.name, from_node=state.name))
            case NodeStateType.SUSPECT:
                # The member that found so gossips it; told by this node too, one finding would pass for two.
                rules.suspect_by_hearsay(suspicion, told=False)
            case _:
                rules.suspect_by_hearsay(suspicion, told=True)
