"""``proglog-trio gaps``: what a node's log does not have at present, and giving it up."""

from functools import partial
from typing import Annotated

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.node_commands import report, run_interruptible
from proglog_trio.cli.node_options import NODE, AskedNode, NodeOptions
from proglog_trio.printable import printable

app = App(name="gaps", help="What a node's log does not have at present: show it, or give it up.")


@app.command(name="list")
def list_(*, node: AskedNode = NODE) -> int:
    """Show what is missing at present in a node's log, and which nodes may have it.

    They are away, or have it damaged; when one of them turns up, what is missing is put in its place by itself.
    """
    return run_interruptible(partial(_list, node))


async def _list(node: NodeOptions) -> int:
    from proglog_trio.cli.formats.status import missing_lines
    from proglog_trio.rpc.calls.cluster import get_status

    status = await node.ask(get_status)
    for line in missing_lines(status):
        print(printable(line))
    return ExitCode.DONE


@app.command(name="accept")
def accept(
    *,
    origin: Annotated[
        str, Parameter(metavar="HEX", help="Of this origin alone, as `gaps list` shows it; otherwise of all.")
    ] = "",
    node: AskedNode = NODE,
) -> int:
    """Give up what is missing at present in a node's log, since the nodes that may have it will never be back.

    The records are gone for ever then: consumers that wait for them get an error, and other nodes that lack them give
    them up too. What a node that is connected has is fetched all the same. Answered when that is on disk.
    """
    try:
        data = bytes.fromhex(origin)
    except ValueError:
        raise CommandError(f"--origin: {origin!r} is no origin: 32 hexadecimal digits", ExitCode.USAGE) from None
    return run_interruptible(partial(_accept, node, data))


async def _accept(node: NodeOptions, origin: bytes) -> int:
    from proglog_trio.rpc.calls.cluster import accept_gaps

    answer = await node.ask(accept_gaps, origin)
    report(f"{answer.records} records are given up" if answer.records else "nothing is missing")
    if answer.unwritten:
        report(f"{answer.unwritten} of them are not written down yet: ask again if the node ends before they are")
        return ExitCode.FAILED
    return ExitCode.DONE
