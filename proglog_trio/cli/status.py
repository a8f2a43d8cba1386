"""``proglog-trio status``."""

import json as json_format
import sys
from functools import partial
from typing import Annotated

from cyclopts import App

from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.cli.node_commands import run_interruptible
from proglog_trio.cli.node_options import NODE, AskedNode, NodeOptions
from proglog_trio.colours import Colour, painted
from proglog_trio.node.option_types import flag
from proglog_trio.printable import printable

app = App(name="status")


@app.default
def status(
    *,
    json: Annotated[
        bool, flag("Write one JSON object with all that the node says, each peer's places and the counters included.")
    ] = False,
    node: AskedNode = NODE,
) -> int:
    """Show what a node's log has, from whom it gets the rest, and how far the others are.

    Per origin (a run of one data directory as a writer): the sequences that the log has, from low up to next, how many
    more some peer has (behind), how many this log will never have (missing), which node writes it and from which peer
    it is pulled. Per peer: how many records it lacks and how many it has that are lacked here, as far as it has said,
    and whether it is pulled from or why not.
    """
    return run_interruptible(partial(_status, node, json=json))


async def _status(node: NodeOptions, *, json: bool) -> int:
    from proglog_trio.cli.formats.status import described_status, is_warning, status_lines
    from proglog_trio.rpc.calls.cluster import get_status

    answer = await node.ask(get_status)
    if json:
        print(json_format.dumps(described_status(answer), indent=2))
    else:
        for line in status_lines(answer):
            print(painted(printable(line), Colour.WARNING if is_warning(line) else None, sys.stdout))
    return ExitCode.DONE
