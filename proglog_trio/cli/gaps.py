"""``proglog-trio gaps``: what a node's log does not have at present, and giving it up."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.members import asked
from proglog_trio.cli.node_commands import (
    DEFAULT_NODE_ADDRESS,
    NodeAddress,
    Timeout,
    dialled,
    report,
    run_interruptible,
)
from proglog_trio.cli.tls_options import Tls, client_tls

if TYPE_CHECKING:
    from proglog_trio.security.tls import ClientTls

app = App(name="gaps", help="What a node's log does not have at present: show it, or give it up.")


@app.command(name="list")
def list_(*, addr: NodeAddress = DEFAULT_NODE_ADDRESS, timeout: Timeout = 10.0, tls: Tls = None) -> int:
    """Show what is missing at present in a node's log, and which nodes may have it.

    They are away, or have it damaged; when one of them turns up, what is missing is put in its place by itself.
    """
    return run_interruptible(partial(_list, dialled(addr), timeout, client_tls(tls)))


async def _list(address: str, timeout: float, tls: "ClientTls | None") -> int:
    from proglog_trio.cli.formats.status import missing_lines
    from proglog_trio.rpc.calls.cluster import get_status

    status = await asked(address, partial(get_status, address, timeout, tls=tls))
    for line in missing_lines(status):
        print(line)
    return ExitCode.DONE


@app.command(name="accept")
def accept(
    *,
    origin: Annotated[
        str, Parameter(metavar="HEX", help="Of this origin alone, as `gaps list` shows it; otherwise of all.")
    ] = "",
    addr: NodeAddress = DEFAULT_NODE_ADDRESS,
    timeout: Timeout = 10.0,
    tls: Tls = None,
) -> int:
    """Give up what is missing at present in a node's log, since the nodes that may have it will never be back.

    The records are gone for ever then: consumers that wait for them get an error, and other nodes that lack them give
    them up too. What a node that is connected has is fetched all the same. Answered when that is on disk.
    """
    try:
        data = bytes.fromhex(origin)
    except ValueError:
        raise CommandError(f"--origin: {origin!r} is no origin: 32 hexadecimal digits", ExitCode.USAGE) from None
    return run_interruptible(partial(_accept, dialled(addr), data, timeout, client_tls(tls)))


async def _accept(address: str, origin: bytes, timeout: float, tls: "ClientTls | None") -> int:
    from proglog_trio.rpc.calls.cluster import accept_gaps

    answer = await asked(address, partial(accept_gaps, address, origin, timeout, tls=tls))
    report(f"{answer.records} records are given up" if answer.records else "nothing is missing")
    if answer.unwritten:
        report(f"{answer.unwritten} of them are not written down yet: ask again if the node ends before they are")
        return ExitCode.FAILED
    return ExitCode.DONE
