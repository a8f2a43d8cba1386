"""A cluster membership for any Trio program: who is there, found out by SWIM with Lifeguard, with Serf's protocol.

Begin with open_membership; docs/how-to/embedded-membership.md has examples. What stands in `__all__` is public; all
else may change.

Theory of operation
===================

Layers, each of which knows those below it only:

```
agent        the RPC of Serf's tools (agent_rpc/), and what is run for events (event_handlers/)
membership   joins, leaves, asks, tells handlers and subscribers (membership.py, joining.py, news.py, events/ …)
snapshot     what is remembered over a restart (snapshot/)
gossip       sockets and timers under Trio (gossip.py, exchanges.py, stream_server.py, key_manager.py)
serf         tags, intents, events, queries, coordinates (serf/)
swim         who answers: probes, suspicions, gossip, state exchanges (swim/)
wire         messages and bytes (wire/)
```

serf and swim are cores. They do no I/O, read no clock and own no randomness: messages, the time and a random generator
go in; effects come out (send a packet, exchange states, ping by stream: swim/effects.py), and news, by a function that
was given when the core was made. gossip does the effects, and it alone calls the cores, always in one order: say what
time it is, act, do what is to be done. Whatever lasts longer than a turn is done in steps (proglog_trio/steps.py), and
between two steps anything else may happen to the core.

A member has two states, of which the second follows the first.

SWIM's (swim/node.py), changed by the rules alone (swim/rules.py):

- ALIVE to SUSPECT: a probe failed, here or at another member.
- SUSPECT to ALIVE: it refuted. Only the member itself raises its incarnation, and a higher one beats any accusation.
- SUSPECT to DEAD: the suspicion ran out. ALIVE or SUSPECT to DEAD: another member says so.
- ALIVE or SUSPECT to LEFT: the member says so itself.
- DEAD or LEFT to ALIVE: a higher incarnation; or another address, after LEFT or as a later life of its data directory.

Serf's (serf/member.py), changed by SWIM's news and by intents (serf/members.py):

- alive to leaving: an intent to leave, of a higher Lamport time than is known. Back: a later intent to join, or it has
  been leaving for longer than that takes, and still answers.
- leaving to left: SWIM says that it is gone. alive to failed, or to left if it said so itself: likewise.
- failed to left: an intent of a later time, by the member or by an operator's force-leave.
- failed and left to alive: SWIM says that it is there. After a day both are forgotten.
- A member of before a restart begins as failed, or as left if it had: nobody has seen it since.

What holds always:

- A member's incarnation never falls while it stays at one address. At equal incarnations suspect beats alive, and dead
  beats both; so news may come in any order, and more than once.
- Of two intents about one member the one with the higher Lamport time counts; a clock is above every time of its kind
  that was heard of a known member. The two orders never meet: an intent moves no incarnation.
- Each change of a status says by what it came (swim/effects.py: Cause): an incarnation, a Lamport time, an expired
  timer, a member's own decision, another address or cluster, or want of room. No wall clock decides anything, and time
  during which this process was stopped is no member's fault (proglog_trio/lived_time.py).
- Each table, queue and message has a bound in elements and in bytes (docs/explanation/membership.md).
- What members say of a member is passed on byte for byte.
- What is changed of this member's own tags is on disk before anybody hears of it (self_description/).
- A handler hears join and leave of each peer in turn, and of its own node nothing.
- A user event is delivered at most once in a node's life. A query ends: when all that were asked have answered or are
  gone, or its time is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proglog_trio.lazy_names import lazy_names

if TYPE_CHECKING:
    from proglog_trio.address import Address, ServiceName
    from proglog_trio.errors import AddressUnavailable, AddressUnsuitable, DirectoryCopied, NameTaken
    from proglog_trio.membership.addresses.allowed_networks import AllowedNetworks, parse_network
    from proglog_trio.membership.agent_rpc.server import AgentRpcServer
    from proglog_trio.membership.config import GossipConfig
    from proglog_trio.membership.event_handlers.event_filter import EventFilter, parse_filters
    from proglog_trio.membership.event_handlers.event_handler import EventHandler
    from proglog_trio.membership.event_handlers.event_handlers import EventHandlers
    from proglog_trio.membership.events.asked_query import AskedQuery
    from proglog_trio.membership.events.coalescing import Coalescing, coalesced
    from proglog_trio.membership.events.query_answers import (
        AnswersMissed,
        QueryAcknowledgement,
        QueryAnswer,
        QueryAnswers,
    )
    from proglog_trio.membership.events.query_handlers import QueryHandler
    from proglog_trio.membership.key_manager import KeyAnswers, KeyManager, KeysNotAsked
    from proglog_trio.membership.keyring_file import KeyringFileError, load_keyring_file, save_keyring_file
    from proglog_trio.membership.lives import DIRECTORY_TAG, OPENING_TAG, opening_of
    from proglog_trio.membership.membership import JoinFailed, Membership, NotAMember
    from proglog_trio.membership.opening import bind_membership, open_membership
    from proglog_trio.membership.peer_notifier import RPC_ADDRESS_TAG, PeerHandler
    from proglog_trio.membership.profile import GossipProfile, ProfileName
    from proglog_trio.membership.self_description.own_tags import TagFixed
    from proglog_trio.membership.self_description.stats import Stats
    from proglog_trio.membership.self_description.tags_file import TagsFileError
    from proglog_trio.membership.serf.asked_queries import QueryOver
    from proglog_trio.membership.serf.keys import KeyOperation
    from proglog_trio.membership.serf.limits import MessageTooLarge
    from proglog_trio.membership.serf.member import Member, MemberEvent, MemberEventKind, MemberStatus, ProtocolVersions
    from proglog_trio.membership.serf.merging import MergeCheck
    from proglog_trio.membership.serf.open_queries import TooManyQueries
    from proglog_trio.membership.serf.user_events import UserEvent
    from proglog_trio.membership.subscriptions import EventsMissed
    from proglog_trio.membership.wire.coordinates import Coordinate
    from proglog_trio.membership.wire.keyring import Keyring
    from proglog_trio.membership.wire.tags import TagsTooLarge

__all__ = [
    "DIRECTORY_TAG", "OPENING_TAG", "RPC_ADDRESS_TAG", "Address", "AddressUnavailable", "AddressUnsuitable",
    "AgentRpcServer", "AllowedNetworks", "AnswersMissed", "AskedQuery", "Coalescing", "Coordinate", "DirectoryCopied",
    "EventFilter", "EventHandler", "EventHandlers", "EventsMissed", "GossipConfig", "GossipProfile", "JoinFailed",
    "KeyAnswers", "KeyManager", "KeyOperation", "Keyring", "KeyringFileError", "KeysNotAsked", "Member", "MemberEvent",
    "MemberEventKind", "MemberStatus", "Membership", "MergeCheck", "MessageTooLarge", "NameTaken", "NotAMember",
    "PeerHandler", "ProfileName", "ProtocolVersions", "QueryAcknowledgement", "QueryAnswer", "QueryAnswers",
    "QueryHandler", "QueryOver", "ServiceName", "Stats", "TagFixed", "TagsFileError", "TagsTooLarge", "TooManyQueries",
    "UserEvent", "bind_membership", "coalesced", "load_keyring_file", "open_membership", "opening_of", "parse_filters",
    "parse_network", "save_keyring_file",
]  # fmt: skip

if not TYPE_CHECKING:  # or any other name would be typed as what this returns
    # A program loads what it uses: a timing profile wants no sockets.
    __getattr__ = lazy_names(
        __name__,
        {
            "proglog_trio.address": "Address ServiceName",
            "proglog_trio.errors": "AddressUnavailable AddressUnsuitable DirectoryCopied NameTaken",
            "proglog_trio.membership.addresses.allowed_networks": "AllowedNetworks parse_network",
            "proglog_trio.membership.agent_rpc.server": "AgentRpcServer",
            "proglog_trio.membership.config": "GossipConfig",
            "proglog_trio.membership.event_handlers.event_filter": "EventFilter parse_filters",
            "proglog_trio.membership.event_handlers.event_handler": "EventHandler",
            "proglog_trio.membership.event_handlers.event_handlers": "EventHandlers",
            "proglog_trio.membership.events.asked_query": "AskedQuery",
            "proglog_trio.membership.events.coalescing": "Coalescing coalesced",
            "proglog_trio.membership.events.query_answers": (
                "AnswersMissed QueryAcknowledgement QueryAnswer QueryAnswers"
            ),
            "proglog_trio.membership.events.query_handlers": "QueryHandler",
            "proglog_trio.membership.key_manager": "KeyAnswers KeyManager KeysNotAsked",
            "proglog_trio.membership.keyring_file": "KeyringFileError load_keyring_file save_keyring_file",
            "proglog_trio.membership.lives": "DIRECTORY_TAG OPENING_TAG opening_of",
            "proglog_trio.membership.membership": "JoinFailed Membership NotAMember",
            "proglog_trio.membership.opening": "bind_membership open_membership",
            "proglog_trio.membership.peer_notifier": "PeerHandler RPC_ADDRESS_TAG",
            "proglog_trio.membership.profile": "GossipProfile ProfileName",
            "proglog_trio.membership.self_description.own_tags": "TagFixed",
            "proglog_trio.membership.self_description.stats": "Stats",
            "proglog_trio.membership.self_description.tags_file": "TagsFileError",
            "proglog_trio.membership.serf.asked_queries": "QueryOver",
            "proglog_trio.membership.serf.keys": "KeyOperation",
            "proglog_trio.membership.serf.limits": "MessageTooLarge",
            "proglog_trio.membership.serf.member": "Member MemberEvent MemberEventKind MemberStatus ProtocolVersions",
            "proglog_trio.membership.serf.merging": "MergeCheck",
            "proglog_trio.membership.serf.open_queries": "TooManyQueries",
            "proglog_trio.membership.serf.user_events": "UserEvent",
            "proglog_trio.membership.subscriptions": "EventsMissed",
            "proglog_trio.membership.wire.coordinates": "Coordinate",
            "proglog_trio.membership.wire.keyring": "Keyring",
            "proglog_trio.membership.wire.tags": "TagsTooLarge",
        },
    )


def __dir__() -> list[str]:
    return [*globals(), *__all__]
