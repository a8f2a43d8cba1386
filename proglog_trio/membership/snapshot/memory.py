"""What a snapshot says as a whole: its lines, taken in one after the other."""

from __future__ import annotations

from attrs import define, field

from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.snapshot.lines import (
    FORMAT,
    Clocks,
    Forgotten,
    HasLeft,
    Header,
    Line,
    LineDamaged,
    Lived,
    RememberedMember,
    decode_line,
)
from proglog_trio.steps import Steps

LINES_AT_ONCE = 16
"""In one step of reading."""
MAX_REMEMBERED = 16_384
"""Members; more than are ever known at a time. What stands in the file beyond them is left out, and counted."""


class NotOurs(Exception):
    """A snapshot of another member or cluster, of a newer format, or none at all. The message says which."""


@define(eq=False)
class Memory:
    """What a member remembers of before.

    Attributes:
        members: by name; of several lines about one the last counts.
        clocks: the last that were noted.
        lived: for how many seconds the node had run.
        has_left: the node left in order, and has not come back since.
        lines: how many there were.
        damaged: how many of them say nothing.
        left_out: how many members there was no room for.
    """

    members: dict[str, RememberedMember] = field(factory=dict)
    clocks: Clocks = field(factory=Clocks)
    lived: int = 0
    has_left: bool = False
    lines: int = 0
    damaged: int = 0
    left_out: int = 0

    def take(self, line: Line) -> None:
        """Take in one line."""
        match line:
            case RememberedMember(name=name):
                # At the end: the order of the lines is the order of what happened.
                self.members.pop(name, None)
                if len(self.members) < MAX_REMEMBERED:
                    self.members[name] = line
                else:
                    self.left_out += 1
            case Forgotten(name):
                self.members.pop(name, None)
            case Clocks():
                # Lines are in order, but what a checksum does not see must not turn a clock back.
                before = self.clocks
                self.clocks = Clocks(
                    max(before.member, line.member), max(before.event, line.event), max(before.query, line.query)
                )
            case Lived(seconds):
                self.lived = max(self.lived, seconds)
            case HasLeft():
                self.has_left = True
            case Header():
                pass

    def most_promising_first(self, place: float) -> list[RememberedMember]:
        """Return all members: those that were alive, then those that had failed, then those that had left.

        Args:
            place: from 0 to 1: where each of the three begins, so that not all who are started again ask the same ones.
        """
        found = []
        for status in (MemberStatus.ALIVE, MemberStatus.FAILED, MemberStatus.LEFT):
            members = [member for member in self.members.values() if member.status is status]
            begin = int(place * len(members))
            found += members[begin:] + members[:begin]
        return found


def read_steps(data: bytes, owner: Header) -> Steps[Memory]:
    """Return, in steps, what a file says.

    A line that is damaged or cut loses itself alone.

    Args:
        data: all of the file.
        owner: whose it has to be.

    Raises:
        NotOurs: it is another's, or no snapshot.
    """
    memory = Memory()
    begin = 0
    while begin < len(data):
        end = data.find(b"\n", begin)
        # The last line may have been cut just before its end.
        end = len(data) if end < 0 else end
        try:
            line = decode_line(data[begin:end])
        except LineDamaged:
            memory.damaged += 1
        else:
            if not memory.lines:
                _must_be(line, owner)
            memory.take(line)
        memory.lines += 1
        begin = end + 1
        if memory.lines % LINES_AT_ONCE == 0:
            yield
        if memory.lines == memory.damaged:
            # The first line says whose it is; without it, nothing does.
            raise NotOurs("its first line is damaged")
    return memory


def _must_be(line: Line, owner: Header) -> None:
    if not isinstance(line, Header):
        raise NotOurs("its first line does not say whose it is")
    if line.format != FORMAT:
        raise NotOurs(f"it has format {line.format}, and this version reads {FORMAT}")
    if line.cluster != owner.cluster:
        raise NotOurs(f"it is of the cluster {line.cluster!r:.128}, not of {owner.cluster!r:.128}")
    if line.owner != owner.owner:
        raise NotOurs(f"it is that of {line.owner!r:.128}, not of {owner.owner!r:.128}: a copy")
