"""Opening a membership: its sockets and its parts, put together."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType

import trio

from proglog_trio.address import StartAddress
from proglog_trio.internal_errors import InternalErrors
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.events.query_handlers import QueryHandler, QueryHandlers
from proglog_trio.membership.gossip import Gossip
from proglog_trio.membership.membership import Membership
from proglog_trio.membership.news import News
from proglog_trio.membership.peer_notifier import PeerHandler, PeerNotifier
from proglog_trio.membership.self_description.tag_keeper import TagKeeper, tags_at_start
from proglog_trio.membership.serf.merging import MergeCheck
from proglog_trio.membership.snapshot.changes import Changes
from proglog_trio.membership.snapshot.file import SnapshotFile
from proglog_trio.membership.snapshot.keeper import Keeper
from proglog_trio.membership.subscriptions import Subscriptions


async def bind_membership(
    config: GossipConfig,
    tags: Mapping[str, str],
    *,
    handler: PeerHandler | None = None,
    query_handlers: Mapping[str, QueryHandler] = MappingProxyType({}),
    rng: random.Random | None = None,
    errors: InternalErrors | None = None,
    merge_check: MergeCheck | None = None,
) -> Membership:
    """Open a member's sockets and return it; it does nothing before `run`, and is to be closed without.

    Args:
        config: how it gossips.
        tags: what is told of this node, 512 bytes encoded at the most; `rpc_addr` makes it a peer to others. What the
            configuration's tags_file says was changed of them counts.
        handler: told of peers.
        query_handlers: by the name of a query, what is called with each and returns its answer.
        rng: decides whom to probe and gossip to; None: one that the system seeds.
        errors: where unforeseen errors are counted.
        merge_check: says which members may be merged; None: all may.

    Raises:
        AddressUnavailable: this machine cannot listen there, another process does, or a name cannot be looked up.
        AddressUnsuitable: no other could reach the address that would be advertised.
        TagsTooLarge: the tags take more than 512 bytes.
        TagsFileError: what was changed of the tags cannot be read.
        KeyError: the tag that tells clusters apart is not among the tags.
    """
    own_tags = await tags_at_start(config, tags)
    # Seeded by the system. Its own randomness would cost a call of it for each number, and a round has many.
    rng = rng if rng is not None else random.Random()
    errors = errors if errors is not None else InternalErrors()
    path, changes = config.snapshot_file, Changes(config.name)
    peers, handlers = PeerNotifier(config.name, handler, errors), QueryHandlers(query_handlers, errors)
    news = News(config.name, errors, peers, Subscriptions(errors), handlers, None if path is None else changes)
    gossip = await Gossip.bind(config, own_tags.all(), news.emit, rng, errors, merge_check)
    keeper = Keeper(gossip, None if path is None else SnapshotFile(path), changes, config.rejoin_after_leave)
    return Membership(gossip, news, rng, TagKeeper(gossip, own_tags), keeper)


@asynccontextmanager
async def open_membership(
    config: GossipConfig,
    tags: Mapping[str, str] | None = None,
    *,
    start_addresses: Sequence[StartAddress] = (),
    handler: PeerHandler | None = None,
    query_handlers: Mapping[str, QueryHandler] = MappingProxyType({}),
    name_patience: float = 0.0,
    merge_check: MergeCheck | None = None,
) -> AsyncIterator[Membership]:
    """Be a member of a cluster for the length of an ``async with`` block, and leave in order at its end.

    When the block is left by an exception or cancelled, the sockets are closed at once: the others see this node fail.

    Args:
        config: how it gossips.
        tags: what is told of this node, 512 bytes encoded at the most.
        start_addresses: members to join through; tried for as long as one of them is no live member. The block begins
            once those that answer at once have been joined through.
        handler: told of peers.
        query_handlers: by the name of a query, what is called with each that is for this node: what it returns is the
            answer, None that there is none. Each call is cancelled when the query's time is over; 64 run at once.
        name_patience: how long, in seconds, this node waits for its name while another member has it.
        merge_check: says which members may be merged; None: all may.

    Raises:
        AddressUnavailable, AddressUnsuitable, TagsTooLarge, TagsFileError, KeyError: see bind_membership.
        NameTaken, DirectoryCopied: see Membership.run; from within the block, they cancel it and come in a group.
    """
    membership = await bind_membership(
        config, tags or {}, handler=handler, query_handlers=query_handlers, merge_check=merge_check
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(membership.run, start_addresses, name_patience=name_patience))
        yield membership
        await membership.leave()
        nursery.cancel_scope.cancel()
