"""The nodes that a client may use, and which one is next. No I/O, no clock, and its randomness is passed in.

The rules it keeps:

- The addresses that were given are never forgotten. Those that nodes told of (GetServers) are bounded in number, and
  forgotten when no node has told of them for ten minutes.
- The node in use is kept as long as it works. Then the next is one of those that failed least often since they last
  worked, any of them, so that the clients of a node that dies do not all go to the same one; the node that just failed
  comes after those that failed as often.
- So an address that cannot be reached from here (a node may be known to others by an address of their network alone) is
  tried once or twice, and from then on after all that work.
- A node of another cluster is not used, wherever its address is from. An address that was given is looked at again
  after a minute: it may have been lent only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from attrs import Factory, define, field

from proglog_trio.address import Address
from proglog_trio.rpc.calls.sessions import ExpectedCluster

MAX_FOUND = 64
FOUND_SECONDS = 600.0
ELSEWHERE_SECONDS = 60.0
"""For how long a node of another cluster is not asked again."""


def parse_addresses(addresses: str | Sequence[str]) -> tuple[str, ...]:
    """Return the addresses ("host:port"), each once; raises ValueError if one is none or there are none."""
    given = [addresses] if isinstance(addresses, str) else addresses
    parsed = tuple(dict.fromkeys(str(Address.parse(address)) for address in given))
    if not parsed:
        raise ValueError("a client needs the address of at least one node")
    return parsed


def _dialled(address: str) -> str | None:
    """Return the address as parse_addresses writes it, or None if nothing can be reached there."""
    try:
        parsed = Address.parse(address)
    except ValueError:
        return None
    return None if parsed.port == 0 or parsed.is_wildcard else str(parsed)


@define
class NodeList:
    """The nodes of one client.

    Attributes:
        given: the addresses that the client was given; the first is where it begins.
        current: the node that is or was used last.
        cluster: which one all nodes must be of.
        search_failure: why the last question for other nodes was not answered; None if it was, or none was asked.
    """

    given: tuple[str, ...]
    rng: random.Random
    cluster: ExpectedCluster = Factory(ExpectedCluster)
    current: str = field(init=False)
    search_failure: str | None = None
    _found: dict[str, float] = Factory(dict)
    _failures: dict[str, int] = Factory(dict)
    _elsewhere: dict[str, tuple[float, str]] = Factory(dict)

    def __attrs_post_init__(self) -> None:
        if not self.given:
            raise ValueError("a client needs the address of at least one node")
        self.current = self.given[0]

    def known(self, now: float) -> tuple[str, ...]:
        """Return the addresses that may be tried now: the given ones, and behind them those that were found.

        Those of nodes of another cluster are not among them.

        Args:
            now: in seconds, of any clock that does not go back.
        """
        for address in [address for address, told in self._found.items() if now - told > FOUND_SECONDS]:
            del self._found[address]
            self._failures.pop(address, None)
        known = (*self.given, *self._found)
        return tuple(address for address in known if self.elsewhere(address, now) is None) if self._elsewhere else known

    def found_elsewhere(self, address: str, why: str, now: float) -> None:
        """Leave a node out for a while, since it is of another cluster; why: in words."""
        self._found.pop(address, None)
        self._elsewhere.pop(address, None)
        while len(self._elsewhere) >= MAX_FOUND + len(self.given):
            del self._elsewhere[next(iter(self._elsewhere))]
        self._elsewhere[address] = now + ELSEWHERE_SECONDS, why

    def elsewhere(self, address: str, now: float) -> str | None:
        """Return why an address must not be used now, in words: its node is of another cluster; None: it may be."""
        until, why = self._elsewhere.get(address, (now, ""))
        return why if now < until else None

    def found(self, addresses: Iterable[str], now: float) -> None:
        """Keep the addresses that a node told; what is no address that can be dialled is left out."""
        self.search_failure = None
        told = {dialled for address in addresses if (dialled := _dialled(address)) is not None}.difference(self.given)
        told = {address for address in told if self.elsewhere(address, now) is None}
        # In an order that the set's own does not decide, so that the same seed gives the same choice.
        chosen = sorted(told)
        if len(chosen) > MAX_FOUND:
            chosen = self.rng.sample(chosen, MAX_FOUND)
        for address in chosen:
            self._found.pop(address, None)
            self._found[address] = now
        while len(self._found) > MAX_FOUND:
            oldest = next(iter(self._found))
            del self._found[oldest]
            self._failures.pop(oldest, None)

    def search_failed(self, reason: str) -> None:
        """Keep why a node could not be asked for others, until one tells of them."""
        self.search_failure = reason

    def worked(self, address: str) -> None:
        """Count no failures of a node any more: it answered."""
        self._failures.pop(address, None)

    def failed(self, address: str) -> None:
        """Count one more failure of a node: it could not be used, or not any more."""
        self._failures[address] = self._failures.get(address, 0) + 1

    def choose(self, candidates: Collection[str], failures: Mapping[str, int]) -> str | None:
        """Return one that failed least often, of these the one with the fewest of other failures; None: there is none.

        Args:
            candidates: some of those that are known.
            failures: others than those that this keeps, by address.
        """
        counted = [(self._failures.get(address, 0), failures.get(address, 0)) for address in candidates]
        if not counted:
            return None
        fewest = min(counted)
        return self.rng.choice([each for each, count in zip(candidates, counted, strict=True) if count == fewest])

    def move(self, now: float, avoid: Collection[str] = ()) -> str:
        """Return the node to use now, which is then the current one.

        Args:
            now: see known.
            avoid: nodes that are of no use at present; they are only chosen when there is no other.

        When all are of another cluster it is one of those that were given, see elsewhere.
        """
        known = self.known(now) or self.given
        candidates = [address for address in known if address not in avoid] or list(known)
        if self.current not in candidates or self._failures.get(self.current):
            fewest = min(self._failures.get(address, 0) for address in candidates)
            best = [address for address in candidates if self._failures.get(address, 0) == fewest]
            self.current = self.rng.choice([address for address in best if address != self.current] or best)
        return self.current


def wake_no_link() -> None:
    """Do nothing: what wakes a link while there is no stream, or one that does not want to be woken."""


class NodeUser:
    """Uses one node after the other, each for one stream. What its link may know and tell of them is in NodeSession.

    Attributes:
        nodes: those that it may use.
        searches: see NodeSession.
    """

    def __init__(self, nodes: NodeList, clock: Callable[[], float], *, searches: bool) -> None:
        self.nodes = nodes
        self.searches = searches
        self._clock = clock

    @property
    def node(self) -> str:
        """See NodeSession. It changes between streams alone."""
        return self.nodes.current

    @property
    def others(self) -> bool:
        """See NodeSession."""
        return len(self.known()) > 1

    @property
    def cluster(self) -> ExpectedCluster:
        """See NodeSession."""
        return self.nodes.cluster

    @property
    def refusal(self) -> str | None:
        """See NodeSession."""
        return self.nodes.elsewhere(self.node, self._clock())

    def known(self) -> tuple[str, ...]:
        """Return the addresses that may be tried now."""
        return self.nodes.known(self._clock())

    def is_elsewhere(self, node: str, why: str) -> None:
        """See NodeSession."""
        self.nodes.found_elsewhere(node, why, self._clock())

    def found(self, addresses: Sequence[str]) -> None:
        """See NodeSession."""
        self.nodes.found(addresses, self._clock())

    def search_failed(self, reason: str) -> None:
        """See NodeSession."""
        self.nodes.search_failed(reason)
