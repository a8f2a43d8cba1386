"""A member that is observed: what it says of itself, and what it can be told."""

from __future__ import annotations

import enum
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import trio
from attrs import define, field, frozen

from tests.interop.agents import end


class Kind(enum.Enum):
    """What a member says."""

    JOIN = "join"
    LEAVE = "leave"
    FAILED = "failed"
    EVENT = "event"
    QUERY = "query"
    ACKNOWLEDGEMENT = "acknowledgement"
    ANSWER = "answer"
    QUERY_OVER = "query over"
    SUSPECTS = "suspects"
    DECLARES_DEAD = "declares dead"
    PAUSED = "paused"


@frozen
class Happening:
    """Something that a member said.

    Attributes:
        at: when it was read here, in seconds of time.perf_counter.
        observer: the name of the member that said it.
        kind: what.
        subject: the member, user event or query that it is about. SUSPECTS and DECLARES_DEAD are of the observer's own
            finding, and not what it heard of others; PAUSED is about the observer.
        by: of an acknowledgement or an answer: the name of the member that gave it.
    """

    at: float
    observer: str
    kind: Kind
    subject: str
    by: str = ""


@define(eq=False)
class ObservedMember(ABC):
    """One process. Each query is answered at once, from here, with the member's name.

    Attributes:
        name: in the cluster.
        process: runs it.
        note: called with what it says.
        address: where it gossips, as host:port.
    """

    name: str
    process: trio.Process
    note: Callable[[Happening], None]
    address: str = ""
    # Commands are sent by several tasks.
    _sending: trio.Lock = field(factory=trio.Lock)

    def happened(self, kind: Kind, subject: str, by: str = "") -> None:
        """Note what it said just now."""
        self.note(Happening(time.perf_counter(), self.name, kind, subject, by))

    @abstractmethod
    async def join(self, address: str) -> None:
        """Have it join through a member."""

    @abstractmethod
    async def send_event(self, name: str, payload: bytes = b"") -> None:
        """Have it send a user event."""

    @abstractmethod
    async def ask(self, name: str, *, relay_factor: int = 0) -> None:
        """Have it ask all members, for as long as is usual; QUERY_OVER says that it waits no more."""

    async def read_lines(self, take: Callable[[str], object]) -> None:
        """Take each line of its standard output until that ends."""
        assert self.process.stdout is not None
        waiting = b""
        async for data in self.process.stdout:
            *whole, waiting = (waiting + data).split(b"\n")
            for line in whole:
                take(line.decode("utf-8", "replace"))

    async def kill(self) -> None:
        """End it with SIGKILL, and wait for that."""
        await end(self.process)

    async def close(self) -> None:
        """Kill it, and close what leads to it."""
        with trio.CancelScope(shield=True):
            await self.kill()
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    await stream.aclose()
