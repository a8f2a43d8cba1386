"""What a node tells its cluster of itself, and what it reads of the others: the tags of members."""

import contextlib
from collections.abc import Callable, Iterable

from attrs import frozen

from proglog_trio import __version__
from proglog_trio.address import Address
from proglog_trio.log.log import Log
from proglog_trio.membership import DIRECTORY_TAG, OPENING_TAG, RPC_ADDRESS_TAG, Membership, opening_of
from proglog_trio.rpc.server.log_service_state import ServerInfo
from proglog_trio.rpc.server.server_list.news import MAX_FAILED

CLUSTER_NAME_TAG = "cluster_name"
"""What tells the members of different clusters apart."""
VERSION_TAG = "version"
TRUSTED_ERROR = 0.3
"""Of a coordinate: it begins at 1.5 and falls below 0.1 in minutes, where round trips are steady."""
OWN_TAG_NAMES = frozenset({CLUSTER_NAME_TAG, DIRECTORY_TAG, OPENING_TAG, RPC_ADDRESS_TAG, VERSION_TAG})
"""The tags that a node gives itself, and that nobody changes."""


def own_tags(
    cluster_name: str, log: Log, opening: int, rpc_address: Address, others: Iterable[tuple[str, str]] = ()
) -> dict[str, str]:
    """Return the tags that this node is given when it starts.

    Args:
        cluster_name: the cluster that it belongs to.
        log: its log, for the directory that it is in.
        opening: the number of that directory's opening.
        rpc_address: what the others dial.
        others: further ones, none of OWN_TAG_NAMES among them.
    """
    return {
        **dict(others),
        CLUSTER_NAME_TAG: cluster_name,
        DIRECTORY_TAG: log.directory_id.hex(),
        # As long for a million openings: tags that fit must do so after the next restart too.
        OPENING_TAG: f"{opening:010x}",
        VERSION_TAG: __version__,
        RPC_ADDRESS_TAG: str(rpc_address),
    }


def servers(membership: Membership, cluster_name: str) -> list[ServerInfo]:
    """Return the nodes that clients can dial: the members that are alive and say where they take RPCs."""
    ours = {CLUSTER_NAME_TAG: cluster_name}
    return [ServerInfo(name, address) for name, address in membership.alive_with_tag(RPC_ADDRESS_TAG, like=ours)]


def failed_servers(membership: Membership, cluster_name: str) -> list[ServerInfo]:
    """Return the nodes that clients could dial before they failed, the last first; no more than clients are told."""
    ours = {CLUSTER_NAME_TAG: cluster_name}
    failed = membership.failed_with_tag(RPC_ADDRESS_TAG, like=ours, most=MAX_FAILED)
    return [ServerInfo(name, address) for name, address in failed]


@frozen
class Members:
    """The members of the cluster, as the replicator asks for them.

    Attributes:
        membership: gives the membership, which is made after the replicator and tells it of peers; called only while
            both run.
    """

    membership: Callable[[], Membership]

    def directory_of(self, name: str) -> bytes | None:
        """Return which data directory a member says that it has."""
        member = self.membership().member(name)
        if member is not None:
            with contextlib.suppress(ValueError):
                return bytes.fromhex(member.tags.get(DIRECTORY_TAG, "")) or None
        return None

    def opening_of(self, name: str) -> int | None:
        """Return which opening of its directory a member says that it was started with."""
        member = self.membership().member(name)
        return None if member is None else opening_of(member.tags)

    def rpc_address_of(self, name: str) -> str | None:
        """Return where a member says that it takes RPCs."""
        member = self.membership().member(name)
        return None if member is None else member.tags.get(RPC_ADDRESS_TAG)

    def round_trip_to(self, name: str) -> float | None:
        """Return the round-trip time to a member, in seconds; None: it is not known.

        What delays a probe makes it longer and nothing makes it shorter; so where coordinates are to be trusted, the
        shorter of what the last one took and of what they say is nearer the truth.
        """
        membership = self.membership()
        member = membership.member(name)
        if member is None:
            return None
        known = [] if member.round_trip_seconds is None else [member.round_trip_seconds]
        places = membership.coordinate(membership.name), member.coordinate
        if all(place is not None and place.error <= TRUSTED_ERROR for place in places):
            estimated = membership.round_trip(membership.name, name)
            known += [] if estimated is None else [estimated]
        return min(known, default=None)

    def statuses(self) -> dict[str, str]:
        """Return the status of each member that is or was there, by name, in Serf's words."""
        return {name: status.value for name, status in self.membership().statuses().items()}

    async def answers(self, name: str) -> bool:
        """Ping a member directly; tell whether it answers."""
        return await self.membership().answers(name)
