"""How a member gossips: its name, its addresses, its keys and its timing."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen

from proglog_trio.address import Address
from proglog_trio.membership.addresses.allowed_networks import AllowedNetworks
from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.limits import (
    DEFAULT_QUERY_BYTES,
    DEFAULT_QUERY_RESPONSE_BYTES,
    DEFAULT_USER_EVENT_BYTES,
    limit_bytes,
)
from proglog_trio.membership.wire.keyring import Keyring


@frozen(kw_only=True)
class GossipConfig:
    """How a node gossips.

    Raises:
        ValueError: what is said does not go together.

    Attributes:
        name: of the node, unique in the cluster.
        bind_host, bind_port: where it listens, UDP and TCP; port 0: one that is free for both.
        advertise_host, advertise_port: what the others are told; None: what it listens on.
        learn_host: the others are told the host at which the first members that are asked see this node, in place of
            advertise_host; the port stays advertise_port, or what it listens on. See Membership.learn_host.
        name_servers: are asked for SRV records of start addresses, and for the hosts in them; each a numeric host and a
            port. None: those of the system.
        profile: the timing.
        keyring: encrypts everything, and refuses what is not encrypted; None: all is plain.
        verify_incoming: False: what is not encrypted is taken too. Only while a cluster changes from plain to encrypted
            gossip, or back: meanwhile the keyring keeps nobody out.
        verify_outgoing: False: nothing is encrypted, although there is a keyring. Likewise, and with verify_incoming
            False only: members that do so must take from each other what they send.
        keyring_file: where the keyring is written to when its keys change; None: nowhere.
        allowed_networks: where members may be, this node among them; packets and streams from other addresses are not
            read, members there are not taken in, and nothing is sent there. None: everywhere.
        label: of the cluster; packets and streams with another, or without it, are refused.
        cluster_tag: a tag of which members of other clusters have another value than this node; they are not merged.
            None: all members that are heard of are merged.
        user_event_bytes: the most that a user event of this node may have, encoded, and its name and payload together;
            9 KiB at the most, as the next two. What fits into no packet goes by streams. Of what others send, larger
            ones are taken too.
        query_bytes, query_response_bytes: likewise of a query, and of an answer to one.
    """

    name: str
    bind_host: str = "127.0.0.1"
    bind_port: int = 0
    advertise_host: str | None = None
    advertise_port: int | None = None
    learn_host: bool = False
    name_servers: tuple[Address, ...] = ()
    profile: GossipProfile = field(factory=GossipProfile)
    keyring: Keyring | None = None
    verify_incoming: bool = True
    verify_outgoing: bool = True
    keyring_file: Path | None = None
    allowed_networks: AllowedNetworks | None = None
    label: bytes = b""
    cluster_tag: str | None = None
    user_event_bytes: int = field(default=DEFAULT_USER_EVENT_BYTES, validator=limit_bytes)
    query_bytes: int = field(default=DEFAULT_QUERY_BYTES, validator=limit_bytes)
    query_response_bytes: int = field(default=DEFAULT_QUERY_RESPONSE_BYTES, validator=limit_bytes)

    def __attrs_post_init__(self) -> None:
        if self.learn_host and self.advertise_host is not None:
            raise ValueError("learn_host and advertise_host do not go together: the host is learnt, or given")
        if self.keyring is None and not (self.verify_incoming and self.verify_outgoing):
            raise ValueError("verify_incoming and verify_outgoing are about a keyring, and there is none")
        if self.verify_incoming and not self.verify_outgoing:
            raise ValueError("verify_outgoing is off: then verify_incoming has to be, or members refuse each other")

    @property
    def unverified(self) -> str | None:
        """That the keyring keeps nobody out at present, in words; None: it does, or there is none."""
        if self.verify_incoming:
            return None
        taken = "gossip that is not encrypted is taken"
        return taken if self.verify_outgoing else f"{taken}, and what this node sends is not encrypted"
