"""What both ends of a pull stream do alike: they say who they are and what there is, and hear it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from attrs import define, evolve, field

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.advertiser import Advertiser
from proglog_trio.replication.events import PeerLied
from proglog_trio.replication.holdings import Holdings
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import Hello, Positions, PullRequest, PullResponse, Told, check_hello


@define(eq=False, repr=False)
class Session:
    """One end of a pull stream.

    Attributes:
        node: this one.
        holdings: which nodes have what on disk.
        advertiser: what the other end has not been told yet.
        on_ready: called when there may be something to send.
        peer: who is at the other end, for people: of a pull, its name in the membership.
        hello: what the other end said of itself. It is said in its first message, and later ones can raise its opening
            only: whose disk is spoken of never changes on a stream.
    """

    node: LocalNode
    holdings: Holdings
    advertiser: Advertiser
    on_ready: Callable[[], None]
    peer: str
    hello: Hello | None = field(default=None, init=False)
    _said_hello: bool = field(default=False, init=False)

    def log_changed(self, origins: Collection[Origin]) -> None:
        """Tell that this node's log durably has more of these origins."""
        self.advertiser.note(origins, urgent=False)

    def say_hello_again(self) -> None:
        """Say, with the next message, that this node's directory counts as opened again, and what it has."""
        self._said_hello = False
        self.advertiser.say_all_again()

    def _say(self) -> tuple[Hello | None, Told]:
        """Return who this node is, if that is to be said, and what there is to tell."""
        hello = None if self._said_hello else self.node.hello
        return hello, self.holdings.tell(self.advertiser)

    def _hear(self, message: PullRequest | PullResponse) -> None:
        """Keep what the other end says of itself and of others. Raises PullRefused, PeerLied."""
        hello = message.hello
        if self.hello is None:
            if hello is None:
                raise PeerLied(f"{self.peer} says nothing of itself")
            self._check(hello)
            self.hello = hello
            self._meet(hello)
        elif hello is not None:
            before = self.hello
            if evolve(hello, opened=before.opened) != before or hello.opened < before.opened:
                raise PeerLied(f"{before.node_name} says that it is another than before")
            self.hello = hello
        self.holdings.peers.directories.heard(message.directories)
        if message.positions is not None:
            self._heard_positions(self.hello, message.positions)
        self.holdings.learn_of_others(message.others)

    def _check(self, hello: Hello) -> None:
        """Raise PullRefused for a node that must not be spoken with."""
        check_hello(self.node.hello, hello)

    def _meet(self, hello: Hello) -> None:
        """Begin to speak with a node."""
        self.advertiser.met(hello.directory_id)
        self.holdings.met(self.advertiser, hello)

    def _heard_positions(self, hello: Hello, positions: Positions) -> None:
        self.holdings.learn(hello, positions)
