"""What is to be written into a snapshot, and when all of it is to be written anew.

What happens is appended, as it is at the moment of writing: of a member that changed ten times meanwhile there is one
line. When the file has become twice as long as what there is to say, it is replaced by that.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from proglog_trio.membership.serf.lamport import LamportClock
from proglog_trio.membership.serf.member import KnownMember, MemberStatus
from proglog_trio.membership.snapshot.changes import Changes
from proglog_trio.membership.snapshot.lines import (
    Clocks,
    Forgotten,
    HasLeft,
    Header,
    Lived,
    RememberedMember,
    encode_line,
)
from proglog_trio.steps import Steps

MIN_REWRITE_BYTES = 128 * 1024
"""A smaller file is appended to, however little of it still counts."""
REWRITE_FACTOR = 2
MAX_APPENDED_BYTES = 256 * 1024
"""At one time; the rest follows."""
LIVED_SECONDS = 60
"""How often it is noted for how long the node has run, if nothing else happens."""
MEMBERS_AT_ONCE = 16
"""In one step."""


@define(eq=False)
class Facts:
    """What a snapshot is of: the tables and clocks of a core, as they are at each moment.

    Attributes:
        me: the name of this node, of which nothing is written.
        members: all that are known, by name.
        clock, event_clock, query_clock: the Lamport clocks.
        now: gives the time in seconds that members' times are in.
        begun: that time, when lived was said.
        lived: for how many seconds the node had run then, over all its lives.
    """

    me: str
    members: dict[str, KnownMember]
    clock: LamportClock
    event_clock: LamportClock
    query_clock: LamportClock
    now: Callable[[], float]
    begun: float
    lived: int = 0

    def clocks(self) -> Clocks:
        """Return how far the clocks have come."""
        return Clocks(self.clock.time, self.event_clock.time, self.query_clock.time)

    def lived_at(self, time: float) -> int:
        """Return for how many seconds the node had run at a time."""
        return max(0, self.lived + int(time - self.begun))

    def time_of(self, lived: int) -> float:
        """Return the time at which the node had run for so many seconds; it is never in the future."""
        return min(self.begun, self.begun - (self.lived - lived))

    def remembered(self, member: KnownMember) -> RememberedMember:
        """Return what is to be remembered of a member."""
        is_gone = member.status in (MemberStatus.FAILED, MemberStatus.LEFT)
        return RememberedMember(
            name=member.name,
            address=member.told_address,
            port=member.endpoint.port,
            tags=member.tags,
            status=member.status if is_gone else MemberStatus.ALIVE,
            version=member.version,
            status_time=member.status_time,
            gone_at=self.lived_at(member.gone_since or 0.0) if is_gone else 0,
            has_answered=member.has_answered,
        )

    def line_of(self, name: str) -> bytes:
        """Return what is to be written of the member of a name."""
        member = self.members.get(name)
        return encode_line(Forgotten(name) if member is None else self.remembered(member))


@define(eq=False)
class Journal:
    """Decides what is written.

    Attributes:
        header: whose snapshot it is.
        facts: what it is of.
        changes: what has changed since it was written.
        remembers: what is known is kept over a leave too; otherwise a leave empties the snapshot.
    """

    header: Header
    facts: Facts
    changes: Changes
    remembers: bool = True
    # What stands in the file is not known, or was not written by this node.
    _wants_rewrite: bool = True
    _is_leave_written: bool = False
    _clocks: Clocks | None = None
    _lived: int = 0
    # Of the file, and of it when it was last written anew.
    _size: int = 0
    _size_anew: int = 0

    def failed(self) -> None:
        """Note that writing failed: what stands in the file is not known."""
        self._wants_rewrite = True

    @property
    def _is_emptied(self) -> bool:
        """Whether nothing is to be remembered: nothing but that the node has left is written then."""
        return self.changes.has_left and not self.remembers

    @property
    def is_rewrite_due(self) -> bool:
        """Whether all is to be written anew now."""
        if self._wants_rewrite or self.changes.are_too_many or (self._is_emptied and not self._is_leave_written):
            return True
        return self._size > max(MIN_REWRITE_BYTES, REWRITE_FACTOR * self._size_anew)

    # -- what is written -----------------------------------------------------------------------------------------------

    def append_steps(self) -> Steps[bytes]:
        """Return, in steps, what is to be appended now, and take it for written; nothing: there is nothing."""
        appended = bytearray()
        while len(appended) < MAX_APPENDED_BYTES and (names := self.changes.take(MEMBERS_AT_ONCE)):
            for name in names if not self._is_emptied else ():
                appended += self.facts.line_of(name)
            yield
        appended += self._clock_lines()
        self._size += len(appended)
        return bytes(appended)

    def rewrite_steps(self) -> Steps[bytearray]:
        """Return, in steps, all that there is to say, and take it for written.

        What changes meanwhile may be in it, and is appended later in any case.
        """
        self._wants_rewrite = self._is_leave_written = False
        self._clocks, self._lived = None, -LIVED_SECONDS
        self.changes.forget()
        written = bytearray(encode_line(self.header))
        names = [] if self._is_emptied else [name for name in self.facts.members if name != self.facts.me]
        for number, name in enumerate(names, 1):
            if name in self.facts.members:
                written += self.facts.line_of(name)
            if number % MEMBERS_AT_ONCE == 0:
                yield
        written += self._clock_lines()
        self._size = self._size_anew = len(written)
        # As it is: of a large one a copy would take long.
        return written

    def _clock_lines(self) -> bytes:
        lines = []
        clocks, lived = self.facts.clocks(), self.facts.lived_at(self.facts.now())
        if not self._is_emptied:
            if clocks != self._clocks:
                self._clocks = clocks
                lines.append(encode_line(clocks))
            if lived - self._lived >= LIVED_SECONDS:
                self._lived = lived
                lines.append(encode_line(Lived(lived)))
        if self.changes.has_left and not self._is_leave_written:
            self._is_leave_written = True
            lines.append(encode_line(HasLeft()))
        return b"".join(lines)
