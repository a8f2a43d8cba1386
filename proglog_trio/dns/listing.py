"""A listing: what stands under which name below the zone, at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv6Address

from attrs import Factory, define, frozen

from proglog_trio.address import Address
from proglog_trio.dns.names import MAX_NAME_BYTES, NODE, SERVICE, Labels, labels_of, wire_bytes
from proglog_trio.host_names import ip_literal
from proglog_trio.membership import DIRECTORY_TAG, OPENING_TAG, RPC_ADDRESS_TAG, Member, MemberStatus
from proglog_trio.steps import Steps

IpAddress = IPv4Address | IPv6Address

MAX_TAGS = 32
"""Tags of one node that are names, the first by name: a member may have some hundred."""
MAX_TAG_NAMES = 4096
"""Names of all nodes' tags, those of the first nodes by name."""
MAX_LABELS = 10
"""Of a name below the zone, since each of its endings is a name too."""
UNNAMED_TAGS = frozenset({DIRECTORY_TAG, OPENING_TAG, RPC_ADDRESS_TAG})
"""They say which node it is, for which it has its name."""


@frozen
class Node:
    """A node as a listing has it.

    Attributes:
        name: what its cluster calls it.
        labels: its name below the zone; None: it has none that can be asked for.
        port: where it takes RPCs; 0: it does not say so in a way that can be told.
        addresses: likewise; none, if it tells a host name that was not found.
    """

    name: str
    labels: Labels | None
    port: int
    addresses: tuple[IpAddress, ...]


@frozen
class Entry:
    """The nodes that a name stands for, by what can be told of them. It is filled while its listing is made.

    Attributes:
        ipv4, ipv6: those that have an address of this kind.
        servers: those that have a name of their own, and an address of either.
    """

    ipv4: list[Node] = Factory(list)
    ipv6: list[Node] = Factory(list)
    servers: list[Node] = Factory(list)

    def add(self, node: Node) -> None:
        """Add a node."""
        if any(isinstance(address, IPv4Address) for address in node.addresses):
            self.ipv4.append(node)
        if any(isinstance(address, IPv6Address) for address in node.addresses):
            self.ipv6.append(node)
        if node.addresses and node.labels is not None:
            self.servers.append(node)


@frozen
class Listing:
    """What stands under which name.

    Attributes:
        names: what there is of each name that stands for nodes; the zone's own, without labels, stands for all.
        between: names that have names below them, which is why they exist whether they have nodes or not (RFC 8020).
        hosts: names of hosts that nodes tell instead of addresses.
        serial: rises with each listing.
        nodes, nodes_without_address, nodes_without_name: how many there are; see DnsCounters.
    """

    names: Mapping[Labels, Entry] = Factory(lambda: {(): Entry()})
    between: AbstractSet[Labels] = frozenset()
    hosts: AbstractSet[str] = frozenset()
    serial: int = 0
    nodes: int = 0
    nodes_without_address: int = 0
    nodes_without_name: int = 0


@define(eq=False)
class _Names:
    """The table of names while it grows."""

    longest: int
    entries: dict[Labels, Entry] = Factory(lambda: {(): Entry()})
    between: set[Labels] = Factory(set)
    tag_names: int = 0

    def fits(self, labels: Labels) -> bool:
        """Whether a name can be asked for below the zone, and as a service."""
        return len(labels) <= MAX_LABELS and wire_bytes((*SERVICE, *labels)) - 1 <= self.longest

    def add(self, labels: Labels, node: Node) -> None:
        entry = self.entries.get(labels)
        if entry is None:
            entry = self.entries[labels] = Entry()
        entry.add(node)
        for start in range(1, len(labels)):
            self.between.add(labels[start:])


def list_members(
    names: Iterable[str],
    member: Callable[[str], Member | None],
    *,
    like: Mapping[str, str],
    zone: Labels,
    found: Mapping[str, Sequence[IpAddress]],
    serial: int,
) -> Steps[Listing]:
    """Return, in steps, a listing of the members that are alive and say where they take RPCs.

    Args:
        names: of the members, in an order that is always the same.
        member: returns what is known of one.
        like: tags that a member must have, with these values.
        zone: the zone's name.
        found: the addresses of hosts that were looked up.
        serial: of the listing.
    """
    table = _Names(MAX_NAME_BYTES - wire_bytes(zone))
    hosts: set[str] = set()
    nodes = without_address = without_name = 0
    for name in names:
        yield
        known = member(name)
        if known is None or not _is_told_of(known, like):
            continue
        labels = _name_of(name, table)
        host, port = _rpc_address(known)
        addresses: tuple[IpAddress, ...] = ()
        if host is not None:
            literal = ip_literal(host)
            if literal is None:
                hosts.add(host)
            addresses = tuple(found.get(host, ())) if literal is None else (literal,)
        node = Node(name, labels, port, addresses)
        nodes += 1
        without_address += not addresses
        without_name += labels is None
        table.add((), node)
        if labels is not None:
            table.add(labels, node)
        for tag in _tag_names(known.tags, like):
            if (tag in table.entries or table.tag_names < MAX_TAG_NAMES) and table.fits(tag):
                table.tag_names += tag not in table.entries
                table.add(tag, node)
    return Listing(table.entries, table.between, hosts, serial, nodes, without_address, without_name)


def _is_told_of(member: Member, like: Mapping[str, str]) -> bool:
    return (
        member.status is MemberStatus.ALIVE
        and bool(member.tags.get(RPC_ADDRESS_TAG))
        and all(member.tags.get(tag) == value for tag, value in like.items())
    )


def _name_of(name: str, table: _Names) -> Labels | None:
    """Return a node's name below the zone; the first of those that differ in case alone has it."""
    own = labels_of(name)
    if own is None:
        return None
    labels = (*own, NODE)
    return labels if labels not in table.entries and table.fits(labels) else None


def _rpc_address(member: Member) -> tuple[str | None, int]:
    """Return the host and the port where a member takes RPCs; no host where it tells neither address nor name."""
    try:
        address = Address.parse(member.tags[RPC_ADDRESS_TAG])
    except ValueError:
        # It is told in gossip, and anybody may gossip anything.
        return None, 0
    return (address.host, address.port) if address.port else (None, 0)


def _tag_names(tags: Mapping[str, str], like: Mapping[str, str]) -> list[Labels]:
    """Return the names below the zone that a member's tags are: TAG-VALUE each."""
    told = sorted(tags.keys() - UNNAMED_TAGS - like.keys())[:MAX_TAGS]
    # each once, since tags may be the same but for their case
    names = dict.fromkeys(labels_of(f"{tag}-{tags[tag]}") for tag in told)
    # below NODE are the names of nodes alone, and below SERVICE's last label services
    return [labels for labels in names if labels is not None and labels[-1] not in (NODE, SERVICE[-1])]
