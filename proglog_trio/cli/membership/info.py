"""``proglog-trio info``: a node's own figures as a member of its cluster."""

import json as json_format
from functools import partial
from typing import Annotated

from cyclopts import App

from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.cli.node_commands import run_interruptible
from proglog_trio.cli.node_options import NODE, AskedNode, NodeOptions
from proglog_trio.node.option_types import flag
from proglog_trio.printable import printable

app = App(name="info")


@app.default
def info(
    *,
    json: Annotated[bool, flag("Write a JSON object: by group, the figures by their names.")] = False,
    node: AskedNode = NODE,
) -> int:
    """Show a node's own figures as a member: its health, members by status, Lamport clocks, what waits to be gossiped.

    The groups and names are those of `serf info`. A health_score over 0 is a node that doubts itself: its probes fail,
    or others wrongly took it for dead.
    """
    return run_interruptible(partial(_info, node, json=json))


async def _info(node: NodeOptions, *, json: bool) -> int:
    from proglog_trio.rpc.calls.cluster import get_info

    groups = await node.ask(get_info)
    sorted_groups = {group: dict(sorted(figures.items())) for group, figures in groups.items()}
    if json:
        print(json_format.dumps(sorted_groups, indent=2))
        return ExitCode.DONE
    for group, figures in sorted_groups.items():
        print(printable(group))
        width = max(map(len, figures), default=0)
        for name, figure in figures.items():
            print(printable(f"  {name.ljust(width)}  {figure}".rstrip()))
    return ExitCode.DONE
