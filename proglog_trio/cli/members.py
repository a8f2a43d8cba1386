"""``proglog-trio members``, ``join``, ``leave`` and ``force-leave``."""

import json as json_format
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.cli.node_commands import (
    DEFAULT_NODE_ADDRESS,
    NodeAddress,
    Timeout,
    dialled,
    failed_at,
    report,
    run_interruptible,
)
from proglog_trio.cli.tls_options import Tls, client_tls
from proglog_trio.node.option_types import flag

if TYPE_CHECKING:
    from proglog_trio._proto.log.v1 import GetStatusResponse, Member
    from proglog_trio.security.tls import ClientTls

Answer = TypeVar("Answer")

members_app = App(name="members")
join_app = App(name="join")
leave_app = App(name="leave")
force_leave_app = App(name="force-leave")


@members_app.default
def members(
    *,
    addr: NodeAddress = DEFAULT_NODE_ADDRESS,
    timeout: Timeout = 10.0,
    json: Annotated[
        bool,
        flag(
            "Write a JSON array of objects with name, address, port, status, tags and round_trip_seconds; those from "
            "which the node pulls have connected, problem, peer_behind, node_behind and places too (see status)."
        ),
    ] = False,
    tls: Tls = None,
) -> int:
    """Show the members of a node's cluster, as that node sees them."""
    return run_interruptible(partial(_members, dialled(addr), timeout, client_tls(tls), json=json))


async def _members(address: str, timeout: float, tls: "ClientTls | None", *, json: bool) -> int:
    from proglog_trio.rpc.calls.cluster import get_members, get_status

    found = await asked(address, partial(get_members, address, timeout, tls=tls))
    described = [_described(member) for member in found]
    if json:
        peers = await _described_peers(partial(get_status, address, timeout, tls=tls), address)
        described = [{**each, **peers.get(each["name"], {})} for each in described]
        print(json_format.dumps(described, indent=2))
        return ExitCode.DONE
    rows = [
        (
            str(each["name"]),
            f"{each['address']}:{each['port']}",
            str(each["status"]),
            ",".join(f"{tag}={content}" for tag, content in sorted(each["tags"].items())),
        )
        for each in described
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip())
    return ExitCode.DONE


def _described(member: "Member") -> dict[str, Any]:
    return {
        "name": member.name,
        "address": member.address,
        "port": member.port,
        "status": str(member.status.name).lower(),
        "tags": dict(member.tags),
        "round_trip_seconds": member.round_trip_seconds or None,
    }


async def _described_peers(
    get_status: Callable[[], "Awaitable[GetStatusResponse]"], address: str
) -> dict[str, dict[str, Any]]:
    """Return the lag and the position of each peer, by its name; nothing from a node too old to know them."""
    from proglog_trio.cli.formats.status import described_peer
    from proglog_trio.errors import CallFailed

    async def status_if_known() -> "GetStatusResponse | None":
        try:
            return await get_status()
        except CallFailed as error:
            if error.status == "UNIMPLEMENTED":
                return None
            raise

    status = await asked(address, status_if_known)
    return {} if status is None else {peer.name: described_peer(peer) for peer in status.peers}


@join_app.default
def join(
    *members: Annotated[str, Parameter(help="Members to join through, as HOST:PORT of their gossip.")],
    addr: NodeAddress = DEFAULT_NODE_ADDRESS,
    timeout: Timeout = 30.0,
    tls: Tls = None,
) -> int:
    """Let a node join a cluster. A node that is in one joins both together."""
    return run_interruptible(partial(_join, dialled(addr), members, timeout, client_tls(tls)))


async def _join(address: str, members: tuple[str, ...], timeout: float, tls: "ClientTls | None") -> int:
    from proglog_trio.rpc.calls import cluster

    joined = await asked(address, partial(cluster.join, address, members, timeout, tls=tls))
    report(f"joined through {joined} of {len(members)}")
    return ExitCode.DONE


@leave_app.default
def leave(*, addr: NodeAddress = DEFAULT_NODE_ADDRESS, timeout: Timeout = 30.0, tls: Tls = None) -> int:
    """Let a node leave its cluster and stop."""
    return run_interruptible(partial(_leave, dialled(addr), timeout, client_tls(tls)))


async def _leave(address: str, timeout: float, tls: "ClientTls | None") -> int:
    from proglog_trio.rpc.calls import cluster

    await asked(address, partial(cluster.leave, address, timeout, tls=tls))
    report("left")
    return ExitCode.DONE


@force_leave_app.default
def force_leave(
    name: Annotated[str, Parameter(help="The failed member.")],
    *,
    addr: NodeAddress = DEFAULT_NODE_ADDRESS,
    prune: Annotated[bool, flag("Forget the member at once, instead of showing it as left for a day.")] = False,
    timeout: Timeout = 10.0,
    tls: Tls = None,
) -> int:
    """Let a failed member count as one that has left, everywhere in the cluster."""
    return run_interruptible(partial(_force_leave, dialled(addr), name, timeout, client_tls(tls), prune=prune))


async def _force_leave(address: str, name: str, timeout: float, tls: "ClientTls | None", *, prune: bool) -> int:
    from proglog_trio.rpc.calls import cluster

    await asked(address, partial(cluster.force_leave, address, name, timeout, prune=prune, tls=tls))
    return ExitCode.DONE


async def asked(address: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return a node's answer; raises CommandError in place of what can go wrong with asking."""
    from proglog_trio.errors import CallFailed, NodeConnectionError
    from proglog_trio.node.log_output import configure_log_output

    configure_log_output("console", "warning")
    try:
        return await call()
    except NodeConnectionError as error:
        raise failed_at(address, error, ExitCode.UNREACHABLE) from error
    except CallFailed as error:
        raise failed_at(address, error, ExitCode.FAILED) from error
