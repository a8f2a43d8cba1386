"""What has changed since it was written down: names only, since what is written is what is true then."""

from __future__ import annotations

from attrs import define, field

from proglog_trio.membership.serf.member import MemberEvent
from proglog_trio.membership.serf.serf import CoreEvent, HasLeft
from proglog_trio.membership.wakeup import Wakeup

MAX_CHANGED = 16_384
"""Members whose changes wait to be written; with more, all is written anew."""


@define(eq=False)
class Changes:
    """Between the core's news and what writes them down.

    Attributes:
        me: this node's name, of which nothing is written.
        news: there is something to write.
        are_too_many: not all of them are known: all has to be written anew.
        has_left: the node has left in order.
    """

    me: str
    news: Wakeup = field(factory=Wakeup)
    are_too_many: bool = False
    has_left: bool = False
    # Oldest change first.
    _names: dict[str, None] = field(factory=dict)

    def note(self, event: CoreEvent) -> None:
        """Note what an event of the core changes."""
        match event:
            case MemberEvent():
                for member in event.members:
                    if member.name != self.me and not self.are_too_many:
                        self._names.setdefault(member.name)
                if len(self._names) > MAX_CHANGED:
                    self._names.clear()
                    self.are_too_many = True
            case HasLeft():
                self.has_left = True
        # Of whatever happened: it may have moved a clock.
        self.news.set()

    def take(self, count: int) -> list[str]:
        """Return the names of some members that have changed, and forget that they have."""
        taken = [name for name, _ in zip(self._names, range(count), strict=False)]
        for name in taken:
            del self._names[name]
        return taken

    def forget(self) -> None:
        """Forget all changes of members: all is about to be written."""
        self._names.clear()
        self.are_too_many = False
