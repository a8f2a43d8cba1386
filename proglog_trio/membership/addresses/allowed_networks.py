"""The networks that members may be in: of all other addresses nothing is taken, and nothing is sent there."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Mapping

from attrs import Factory, field, frozen, validators

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_NETWORKS = 256
"""In one list: whatever arrives is compared with each length of prefix in it."""
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
"""IPv4 addresses, as some systems write them where IPv6 is spoken."""


def parse_network(text: str) -> Network:
    """Read ``10.0.0.0/8``, ``fd00::/8`` or a single address; IPv4 that is written as IPv6 is IPv4.

    Raises:
        ValueError: it is no network, or has bits behind its prefix.
    """
    text = text.strip()
    try:
        network = ipaddress.ip_network(text, strict=False)
        exact = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(f"{text!r} is no network, write it like 10.0.0.0/8 or fd00::/8") from None
    if exact.ip != network.network_address:
        raise ValueError(f"{text!r} is an address in a network and not the network, which is {network}")
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return ipaddress.IPv4Network((int(mapped or 0), network.prefixlen - _MAPPED.prefixlen))
    return network


def _prefixes(networks: tuple[Network, ...]) -> Mapping[tuple[int, int], frozenset[int]]:
    """Return what addresses in the networks begin with, by their bytes and the bits that are behind it."""
    found: dict[tuple[int, int], set[int]] = defaultdict(set)
    for network in networks:
        behind = network.max_prefixlen - network.prefixlen
        found[network.max_prefixlen // 8, behind].add(int(network.network_address) >> behind)
    return {key: frozenset(prefixes) for key, prefixes in found.items()}


@frozen
class AllowedNetworks:
    """The networks that members may be in (memberlist's CIDRsAllowed).

    Attributes:
        networks: 1 to 256 of them; an IPv4 address is in none of IPv6's, and the other way round.
    """

    networks: tuple[Network, ...] = field(validator=[validators.min_len(1), validators.max_len(MAX_NETWORKS)])
    _begins: Mapping[tuple[int, int], frozenset[int]] = field(
        init=False, eq=False, repr=False, default=Factory(lambda self: _prefixes(self.networks), takes_self=True)
    )

    @classmethod
    def of(cls, *texts: str) -> AllowedNetworks:
        """Return the networks that are written like ``10.0.0.0/8``; raises ValueError for what is none."""
        return cls(tuple(dict.fromkeys(map(parse_network, texts))))

    def allow(self, address: bytes) -> bool:
        """Tell whether an address, of 4 or 16 bytes, is in one of the networks; any other is not."""
        if len(address) == 16 and address.startswith(_MAPPED.network_address.packed[:12]):
            address = address[12:]
        number, size = int.from_bytes(address, "big"), len(address)
        return any(length == size and number >> behind in begins for (length, behind), begins in self._begins.items())

    def __str__(self) -> str:
        return ", ".join(map(str, self.networks))
