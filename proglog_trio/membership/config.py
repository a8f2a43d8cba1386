"""How a member gossips: its name, its addresses, its keys and its timing."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen

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

    Attributes:
        name: of the node, unique in the cluster.
        bind_host, bind_port: where it listens, UDP and TCP; port 0: one that is free for both.
        advertise_host, advertise_port: what the others are told; None: what it listens on.
        profile: the timing.
        keyring: encrypts everything, and refuses what is not encrypted; None: all is plain.
        keyring_file: where the keyring is written to when its keys change; None: nowhere.
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
    profile: GossipProfile = field(factory=GossipProfile)
    keyring: Keyring | None = None
    keyring_file: Path | None = None
    label: bytes = b""
    cluster_tag: str | None = None
    user_event_bytes: int = field(default=DEFAULT_USER_EVENT_BYTES, validator=limit_bytes)
    query_bytes: int = field(default=DEFAULT_QUERY_BYTES, validator=limit_bytes)
    query_response_bytes: int = field(default=DEFAULT_QUERY_RESPONSE_BYTES, validator=limit_bytes)
