"""Which host the others are told, where this node cannot know: what the first members that are asked see it at.

A node behind address translation, or one that listens on all addresses of its machine, sees none that others could
dial. A member that is pinged by stream, without a name, sees where the stream comes from and says so in its
acknowledgement. One member may lie, or be on this side of the translation: what most say counts. Agents do not say it:
with agents alone the address is taken that this machine uses to reach them, which is right unless there is translation.

Members that learn are not members yet, and cannot be joined; but they say at which address they see others, so that
all nodes of a new cluster can learn from each other.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Iterable, Sequence

import structlog
import trio
from attrs import define, field

from proglog_trio.address import StartAddress
from proglog_trio.errors import AddressUnavailable
from proglog_trio.internal_errors import Where
from proglog_trio.membership.addresses.lookup import Lookups, endpoints_of, problems_of
from proglog_trio.membership.gossip import Gossip
from proglog_trio.membership.stream_io import ExchangeFailed
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.memberlist import NodeStateType

MAX_ASKED = 5
"""Members of whose words most count."""
ENOUGH = 3
"""If fewer of the start addresses say something, members that they know are asked as well."""
ASK_SECONDS = 2.0
FIRST_LOOKUP_SECONDS = 2.0
"""So long names are waited for if one is found by then. One silent name server of several delays all for longer."""
LATECOMER_SECONDS = 0.5
"""Once one has answered, the others get so long."""

_logger = structlog.get_logger(__name__)


def most_told(told: Iterable[bytes]) -> bytes | None:
    """Return what is told most often, and of several that are, what was told first; None: nothing is told."""
    counts = Counter(told)
    return max(counts, key=counts.__getitem__, default=None)


def may_be_told(seen: bytes, bound: bytes, by: Endpoint) -> bool:
    """Tell whether an address, at which a member says to see this node, is one that others can dial.

    Args:
        seen: 4 or 16 bytes.
        bound: what this node listens on, whose family it must be of.
        by: where the member is. What it sees of its own machine's loopback nobody else does.
    """
    if len(seen) != len(bound):
        return False
    address = ipaddress.ip_address(seen)
    if address.is_unspecified or address.is_multicast or (address.version == 6 and address.is_link_local):
        return False
    if address == ipaddress.ip_address(b"\xff\xff\xff\xff"):
        return False
    return not address.is_loopback or ipaddress.ip_address(by.address).is_loopback


@define(eq=False)
class HostLearning:
    """Learns the host of one member, before it is one."""

    gossip: Gossip
    lookups: Lookups
    # What each that was asked says, in the order of the start addresses; None: it answers, and does not say.
    _told: dict[Endpoint, bytes | None] = field(factory=dict)
    _problems: list[str] = field(factory=list)

    async def learn(self, start_addresses: Sequence[StartAddress]) -> None:
        """Ask members at these addresses, and have the others told what most of them say.

        If none says it, they are told what this node listens on, unless that is all addresses of its machine.

        Raises:
            AddressUnavailable: then nothing is known; it may be tried again.
            AddressUnsuitable: no member may be at that address.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.gossip.answer_learners)
            looked_up = await self.lookups.look_up(start_addresses, FIRST_LOOKUP_SECONDS)
            if not endpoints_of(looked_up):
                # What is decided now is told for as long as this node runs.
                looked_up = await self.lookups.look_up(start_addresses)
            self._problems += problems_of(looked_up)
            await self._ask(endpoints_of(looked_up))
            if self._told and len(self._votes) < ENOUGH:
                await self._ask(await self._others())
            # Those that learn from this node have asked by now, or will ask again.
            nursery.cancel_scope.cancel()
        self.gossip.use_host(self._decided())

    def _decided(self) -> bytes:
        bound = self.gossip.endpoint.address
        told = most_told(self._votes)
        if told is not None:
            agreed = self._votes.count(told)
            log = _logger.info if agreed == len(self._votes) else _logger.warning
            log("learnt this node's address", address=_text(told), told_by=agreed, of=len(self._votes))
            return told
        here = most_told(address for each in self._told if (address := local_address(each, bound)) is not None)
        if here is not None:
            _logger.warning(
                "no member says at which address it sees this node; taking the one by which this machine reaches them",
                address=_text(here),
            )
            return here
        if any(bound):
            _logger.warning(
                "no member says at which address it sees this node; taking the one that it listens on",
                address=_text(bound),
                reasons=self._problems[:MAX_ASKED],
            )
            return bound
        raise AddressUnavailable(
            "the address to advertise is to be learnt from a member, and none answers: "
            + ("; ".join(self._problems[:MAX_ASKED]) or "there is no start address of another"),
            may_pass=True,
        )

    @property
    def _votes(self) -> list[bytes]:
        return [told for told in self._told.values() if told is not None]

    async def _ask(self, endpoints: Sequence[Endpoint]) -> None:
        """Ask some at once, until all have answered, or a while after the first did."""
        asked = [each for each in endpoints if each not in self._told][: MAX_ASKED - len(self._told)]
        answers: dict[Endpoint, bytes | None] = {}

        async def ask(endpoint: Endpoint) -> None:
            with self.gossip.errors.boundary(Where.MEMBERSHIP_JOIN, through=str(endpoint)):
                try:
                    seen = await self.gossip.exchanges.seen_at(endpoint, ASK_SECONDS)
                except ExchangeFailed as error:
                    self._problems.append(str(error))
                    return
                answers[endpoint] = seen if may_be_told(seen, self.gossip.endpoint.address, endpoint) else None
                scope.deadline = min(scope.deadline, trio.current_time() + LATECOMER_SECONDS)

        with trio.move_on_after(ASK_SECONDS) as scope:
            async with trio.open_nursery() as nursery:
                for endpoint in asked:
                    nursery.start_soon(ask, endpoint)
        # In the order of the start addresses, whoever was faster.
        self._told |= {endpoint: answers[endpoint] for endpoint in asked if endpoint in answers}

    async def _others(self) -> list[Endpoint]:
        """Return members that one of those that answered knows."""
        found: dict[Endpoint, None] = {}
        with trio.move_on_after(ASK_SECONDS):
            for endpoint in self._told:
                try:
                    answer = await self.gossip.exchanges.look(endpoint)
                except ExchangeFailed as error:
                    self._problems.append(str(error))
                    continue
                for state in answer.nodes:
                    if state.addr and state.state is NodeStateType.ALIVE and state.name != self.gossip.config.name:
                        found[Endpoint(state.addr, state.port)] = None
                break
        return list(found)


def local_address(towards: Endpoint, bound: bytes) -> bytes | None:
    """Return by which address, of the family of what is listened on, this machine reaches another; None: by none."""
    if len(towards.address) != len(bound):
        return None
    family = socket.AF_INET if len(bound) == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Of a packet socket that only chooses a way: nothing is sent.
            probe.connect((towards.host, towards.port))
            host = str(probe.getsockname()[0]).partition("%")[0]
    except OSError:
        return None
    address = Endpoint.of(host, 0).address
    return address if may_be_told(address, bound, towards) else None


def _text(address: bytes) -> str:
    return Endpoint(address, 0).host
