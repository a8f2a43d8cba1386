"""Which other node tells a client of what happens to the one in use, and when the next is asked. No I/O, no clock.

It is asked beside a stream, and what it knows comes on top of what the stream itself shows: to have nobody to ask is no
failure. The rules it keeps:

- Never the node in use, which says nothing when it has stopped.
- One that failed as a node least often, and among those one that failed least often here; any of them, so that the
  clients of a node spread over the others.
- One that does not know the call, does not allow it, or turned out to be the node in use at another address, is not
  asked again for ten minutes.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import Factory, define, field

from proglog_trio.backoff import Backoff, BackoffConfig
from proglog_trio.client.nodes import NodeList

LEFT_OUT_SECONDS = 600.0
LASTING_SECONDS = 10.0
"""A node that told for so long was one to ask; the waits begin anew."""
_WAITS = BackoffConfig(first=1.0, longest=60.0)
"""Also the first: a client that is done sooner asks nobody. What happened before it asks it is told in the answer."""


@define(eq=False)
class WatchedNodes:
    """The nodes that are asked by one client; see WatchedNodes in rpc.calls.sessions for what its link does with it."""

    nodes: NodeList
    _clock: Callable[[], float]
    _backoff: Backoff = field(init=False)
    # Until when. Of known nodes alone, as the next.
    _left_out: dict[str, float] = Factory(dict)
    # During the present stream.
    _failures: dict[str, int] = Factory(dict)
    # When the node that is asked now first answered; None: it has not.
    _answered_at: float | None = None

    def __attrs_post_init__(self) -> None:
        self._backoff = Backoff(_WAITS, self.nodes.rng)

    def begin(self) -> None:
        """Begin anew: another node may be in use."""
        self._backoff.succeeded()
        self._failures.clear()
        self._answered_at = None

    def next_pause(self) -> float:
        """Return for how many seconds to wait before a node is asked."""
        return self._backoff.next_delay()

    def next_node(self) -> str | None:
        """Return the node to ask now, or None if there is none."""
        now = self._clock()
        self._answered_at = None
        known = self.nodes.known(now)
        self._left_out = {node: self._left_out[node] for node in known if now < self._left_out.get(node, now)}
        self._failures = {node: self._failures[node] for node in known if node in self._failures}
        others = [node for node in known if node != self.nodes.current and node not in self._left_out]
        return self.nodes.choose(others, self._failures)

    def answered(self) -> None:
        """Count that the node has answered."""
        if self._answered_at is None:
            self._answered_at = self._clock()

    def ended(self, node: str, *, is_useless: bool) -> None:
        """Count that the node tells no more; is_useless: there is no reason to ask it again soon."""
        now = self._clock()
        if self._answered_at is not None and now - self._answered_at >= LASTING_SECONDS:
            self._backoff.succeeded()
            self._failures.clear()
        if is_useless:
            self._left_out[node] = now + LEFT_OUT_SECONDS
        else:
            self._failures[node] = self._failures.get(node, 0) + 1
