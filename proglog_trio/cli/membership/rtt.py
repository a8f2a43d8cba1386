"""``proglog-trio rtt``: how far two members are from each other."""

import json as json_format
from functools import partial
from typing import Annotated

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.cli.node_commands import run_interruptible
from proglog_trio.cli.node_options import NODE, AskedNode, NodeOptions
from proglog_trio.node.option_types import flag
from proglog_trio.printable import printable

app = App(name="rtt")


@app.default
def rtt(
    one: Annotated[str, Parameter(help="A member.")],
    other: Annotated[str, Parameter(help="Another member.", show_default=lambda _value: "the node that is asked")] = "",
    /,
    *,
    json: Annotated[bool, flag("Write a JSON object with one, other and seconds.")] = False,
    node: AskedNode = NODE,
) -> int:
    """Estimate the round-trip time between two members, by where each says that it is in the network.

    The two need never have measured it: a cluster of any size knows all distances by a place for each member (Vivaldi,
    as Serf has it). A node that has just started does not know yet where it is; give it some minutes.
    """
    return run_interruptible(partial(_rtt, node, one, other, json=json))


async def _rtt(node: NodeOptions, one: str, other: str, *, json: bool) -> int:
    from proglog_trio.rpc.calls.cluster import estimate_round_trip

    found = await node.ask(estimate_round_trip, one, other)
    if json:
        print(json_format.dumps({"one": found.one, "other": found.other, "seconds": found.seconds}, indent=2))
    else:
        print(printable(f"about {found.seconds * 1000:.3f} ms from {found.one} to {found.other} and back"))
    return ExitCode.DONE
