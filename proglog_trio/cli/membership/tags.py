"""``proglog-trio tags``: what a node tells its cluster of itself."""

import json as json_format
from functools import partial
from typing import Annotated

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.cli.node_commands import run_interruptible
from proglog_trio.cli.node_options import NODE, AskedNode, NodeOptions
from proglog_trio.node.option_types import TAGS, flag, several
from proglog_trio.printable import printable

app = App(name="tags")


@app.default
def tags(
    *,
    set_: Annotated[
        tuple[tuple[str, str], ...],
        TAGS,
        Parameter(name="--set", help="Tags that are new, or have another value. Repeatable, or separated by commas."),
    ] = (),
    delete: Annotated[
        tuple[str, ...],
        several(str, "NAME"),
        Parameter(help="Tags that go. Repeatable, or separated by commas. One that is set as well stays."),
    ] = (),
    json: Annotated[bool, flag("Write a JSON object: the tags by their names.")] = False,
    node: AskedNode = NODE,
) -> int:
    """Show the tags of a node, after changing some if it is told to.

    The change is kept in the node's data directory, and counts over its --tag options when it starts again; all members
    hear of it. The tags that the node gives itself (rpc_addr, cluster_name and others) cannot be changed.
    """
    return run_interruptible(partial(_tags, node, dict(set_), delete, json=json))


async def _tags(node: NodeOptions, set_: dict[str, str], delete: tuple[str, ...], *, json: bool) -> int:
    from proglog_trio.rpc.calls import cluster

    if set_ or delete:
        found: dict[str, str] = await node.ask(cluster.change_tags, set_, delete)
    else:
        info = await node.ask(cluster.get_info)
        found = {name: str(content) for name, content in info.get("tags", {}).items()}
    if json:
        print(json_format.dumps(dict(sorted(found.items())), indent=2))
    else:
        for name, content in sorted(found.items()):
            print(printable(f"{name}={content}"))
    return ExitCode.DONE
