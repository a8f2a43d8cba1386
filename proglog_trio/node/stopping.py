"""Telling a node to stop: by a signal, over gRPC, or since another node has a copy of its data directory."""

from __future__ import annotations

import trio
from attrs import define, field


@define(eq=False)
class Stopping:
    """Whether a node is to stop, and why.

    Attributes:
        begun: set once it is.
        starting: the scope of its start, which is cancelled then.
        copied_by: the member that uses a copy of the data directory and was started before, if that is why.
    """

    begun: trio.Event = field(factory=trio.Event)
    starting: trio.CancelScope = field(factory=trio.CancelScope)
    copied_by: str | None = None

    def begin(self) -> None:
        """Have the node stop."""
        self.begun.set()
        self.starting.cancel()

    def begin_as_copy(self, name: str) -> None:
        """Have the node stop, as the later of two whose directories are copies; name: of the member with the other."""
        self.copied_by = name
        self.begin()
