"""Gossip membership: who is in the cluster, found out by SWIM with Lifeguard and told to Serf agents alike."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proglog_trio.address import Address
    from proglog_trio.errors import AddressUnavailable, AddressUnsuitable, DirectoryCopied, NameTaken
    from proglog_trio.membership.config import GossipConfig
    from proglog_trio.membership.key_manager import KeyAnswers, KeyManager, KeysNotAsked
    from proglog_trio.membership.keyring_file import KeyringFileError, load_keyring_file, save_keyring_file
    from proglog_trio.membership.lives import DIRECTORY_TAG, OPENING_TAG, opening_of
    from proglog_trio.membership.membership import JoinFailed, Membership, NotAMember, bind_membership, open_membership
    from proglog_trio.membership.peer_notifier import RPC_ADDRESS_TAG, PeerHandler
    from proglog_trio.membership.profile import GossipProfile, ProfileName
    from proglog_trio.membership.serf.keys import KeyOperation
    from proglog_trio.membership.serf.member import Member, MemberEvent, MemberEventKind, MemberStatus
    from proglog_trio.membership.subscriptions import EventsMissed
    from proglog_trio.membership.wire.keyring import Keyring

__all__ = [
    "DIRECTORY_TAG", "OPENING_TAG", "RPC_ADDRESS_TAG", "Address", "AddressUnavailable", "AddressUnsuitable",
    "DirectoryCopied", "EventsMissed", "GossipConfig", "GossipProfile", "JoinFailed", "KeyAnswers", "KeyManager",
    "KeyOperation", "Keyring", "KeyringFileError", "KeysNotAsked", "Member", "MemberEvent", "MemberEventKind",
    "MemberStatus", "Membership", "NameTaken", "NotAMember", "PeerHandler", "ProfileName", "bind_membership",
    "load_keyring_file", "open_membership", "opening_of", "save_keyring_file",
]  # fmt: skip

_MODULES = {
    "proglog_trio.address": "Address",
    "proglog_trio.errors": "AddressUnavailable AddressUnsuitable DirectoryCopied NameTaken",
    "proglog_trio.membership.config": "GossipConfig",
    "proglog_trio.membership.key_manager": "KeyAnswers KeyManager KeysNotAsked",
    "proglog_trio.membership.keyring_file": "KeyringFileError load_keyring_file save_keyring_file",
    "proglog_trio.membership.lives": "DIRECTORY_TAG OPENING_TAG opening_of",
    "proglog_trio.membership.membership": "JoinFailed Membership NotAMember bind_membership open_membership",
    "proglog_trio.membership.peer_notifier": "RPC_ADDRESS_TAG PeerHandler",
    "proglog_trio.membership.profile": "GossipProfile ProfileName",
    "proglog_trio.membership.serf.keys": "KeyOperation",
    "proglog_trio.membership.serf.member": "Member MemberEvent MemberEventKind MemberStatus",
    "proglog_trio.membership.subscriptions": "EventsMissed",
    "proglog_trio.membership.wire.keyring": "Keyring",
}
"""Where each name is found. A program loads what it uses: a timing profile wants no sockets."""


def __getattr__(name: str) -> object:
    """Load a public name when it is first used (PEP 562)."""
    for module, names in _MODULES.items():
        if name in names.split():
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
