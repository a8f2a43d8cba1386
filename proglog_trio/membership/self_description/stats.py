"""A member's figures, in the groups and with the names that `serf info` has, and some more."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

import trio

from proglog_trio import __version__
from proglog_trio.membership.core_access import CoreAccess

Stats = Mapping[str, Mapping[str, str | int]]
"""By group ("agent", "runtime", "serf", "tags"), the figures by their names."""


def stats_of(gossip: CoreAccess, tags: Mapping[str, str]) -> Stats:
    """Return the figures of a member, within its Trio loop.

    Those of the group "serf" have the names that agents give them, where agents have them: `members` counts all that
    are known, `failed` and `left` those of them; `member_time`, `event_time` and `query_time` are the Lamport clocks;
    the queues count the broadcasts that wait to be gossiped; `health_score` is 0 for a healthy node (Lifeguard).
    """
    return {
        "agent": {"name": gossip.config.name, "address": str(gossip.endpoint)},
        "runtime": {
            "version": __version__,
            "python": platform.python_version(),
            "trio": trio.__version__,
            "os": sys.platform,
            "arch": platform.machine(),
            "cpu_count": os.cpu_count() or 1,
            "tasks": trio.lowlevel.current_statistics().tasks_living,
        },
        "serf": {**figures_of(gossip), "encrypted": "false" if gossip.keyring is None else "true"},
        "tags": dict(tags),
    }


def figures_of(gossip: CoreAccess) -> dict[str, int]:
    """Return the numbers of the group "serf"."""
    core = gossip.core
    memberlist, intents, queries, events = core.swim.outbox.queues
    return {
        "members": len(core.members.by_name),
        **{status.value: count for status, count in core.members.counts.items()},
        "health_score": core.swim.rules.awareness.score,
        "member_time": core.clock.time,
        "event_time": core.events.clock.time,
        "query_time": core.query_clock.time,
        "memberlist_queue": len(memberlist),
        "intent_queue": len(intents),
        "event_queue": len(events),
        "query_queue": len(queries),
        "coordinate_resets": core.vivaldi.resets,
    }
