"""``proglog-trio members``, ``join``, ``leave`` and ``force-leave``."""

import json as json_format
import sys
from functools import partial
from typing import Annotated, Any

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.node_commands import report, run_interruptible
from proglog_trio.cli.node_options import NODE, AskedNode, LongNodeOptions, NodeOptions
from proglog_trio.colours import Colour, painted
from proglog_trio.node.option_types import flag
from proglog_trio.printable import printable

_PatientlyAskedNode = Annotated[LongNodeOptions, Parameter(name="*")]
_PATIENT = LongNodeOptions()
_COLOURS = {"failed": Colour.FAILED, "leaving": Colour.WARNING, "left": Colour.PAST}

members_app = App(name="members")
join_app = App(name="join")
leave_app = App(name="leave")
force_leave_app = App(name="force-leave")


@members_app.default
def members(
    *,
    json: Annotated[
        bool,
        flag(
            "Write a JSON array of objects with name, address, port, status, tags, round_trip_seconds, coordinate and "
            "versions; those from which the node pulls have connected, problem, peer_behind, node_behind and places "
            "too (see status)."
        ),
    ] = False,
    detailed: Annotated[
        bool, flag("Show which versions of Serf's and of memberlist's protocol each member speaks and understands.")
    ] = False,
    node: AskedNode = NODE,
) -> int:
    """Show the members of a node's cluster, as that node sees them."""
    return run_interruptible(partial(_members, node, json=json, detailed=detailed))


async def _members(node: NodeOptions, *, json: bool, detailed: bool) -> int:
    from proglog_trio.cli.formats.members import described_member, member_lines
    from proglog_trio.rpc.calls.cluster import get_members

    found = await node.ask(get_members)
    described = [described_member(member) for member in found]
    if json:
        peers = await _described_peers(node)
        described = [{**each, **peers.get(each["name"], {})} for each in described]
        print(json_format.dumps(described, indent=2))
        return ExitCode.DONE
    for line, member in zip(member_lines(described, detailed=detailed), described, strict=True):
        print(painted(printable(line), _COLOURS.get(member["status"]), sys.stdout))
    return ExitCode.DONE


async def _described_peers(node: NodeOptions) -> dict[str, dict[str, Any]]:
    """Return the lag and the position of each peer, by its name; nothing from a node too old to know them."""
    from proglog_trio.cli.formats.status import described_peer
    from proglog_trio.errors import CallFailed
    from proglog_trio.rpc.calls.cluster import get_status

    try:
        status = await node.ask(get_status)
    except CommandError as error:
        if isinstance(error.__cause__, CallFailed) and error.__cause__.status == "UNIMPLEMENTED":
            return {}
        raise
    return {peer.name: described_peer(peer) for peer in status.peers}


@join_app.default
def join(
    *members: Annotated[str, Parameter(help="Members to join through, as HOST:PORT of their gossip, or srv+NAME.")],
    replay: Annotated[bool, flag("Have user events that were sent before delivered to the node too.")] = False,
    node: _PatientlyAskedNode = _PATIENT,
) -> int:
    """Let a node join a cluster. A node that is in one joins both together."""
    return run_interruptible(partial(_join, node, members, replay=replay))


async def _join(node: NodeOptions, members: tuple[str, ...], *, replay: bool) -> int:
    from proglog_trio.rpc.calls import cluster

    joined = await node.ask(cluster.join, members, replay_events=replay)
    report(f"joined through {joined} of {len(members)}")
    return ExitCode.DONE


@leave_app.default
def leave(*, node: _PatientlyAskedNode = _PATIENT) -> int:
    """Let a node leave its cluster and stop."""
    return run_interruptible(partial(_leave, node))


async def _leave(node: NodeOptions) -> int:
    from proglog_trio.rpc.calls import cluster

    await node.ask(cluster.leave)
    report("left")
    return ExitCode.DONE


@force_leave_app.default
def force_leave(
    name: Annotated[str, Parameter(help="The failed member.")],
    *,
    prune: Annotated[bool, flag("Forget the member at once, instead of showing it as left for a day.")] = False,
    node: AskedNode = NODE,
) -> int:
    """Let a failed member count as one that has left, everywhere in the cluster."""
    return run_interruptible(partial(_force_leave, node, name, prune=prune))


async def _force_leave(node: NodeOptions, name: str, *, prune: bool) -> int:
    from proglog_trio.rpc.calls import cluster

    await node.ask(cluster.force_leave, name, prune=prune)
    return ExitCode.DONE
