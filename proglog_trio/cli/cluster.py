"""``proglog-trio cluster``."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.node_commands import run_interruptible
from proglog_trio.node.option_types import DEFAULT_RPC_PORT, TIME, flag, within

if TYPE_CHECKING:
    from proglog_trio.local_cluster.node_process import NodeNotStarted
    from proglog_trio.local_cluster.output import Output
    from proglog_trio.local_cluster.plan import ClusterPlan

app = App(name="cluster")

_SHORTEST_REFRESH, _LONGEST_REFRESH = 0.1, 60.0


@app.default
def cluster(
    *,
    nodes: Annotated[int, Parameter(metavar="N", help="How many nodes, 1 to 16.")] = 3,
    data_dir: Annotated[
        Path,
        Parameter(
            show_default=lambda value: f"./{value}",
            help="Where everything is kept: each node's data, its log file and its configuration file. What is there "
            "is gone on with.",
        ),
    ] = Path("proglog-cluster"),
    base_port: Annotated[
        int,
        within(0, 65535),
        Parameter(
            metavar="PORT",
            help="The first of two ports for each node, RPC and gossip; 0 takes any free ones.",
        ),
    ] = DEFAULT_RPC_PORT,
    cluster_name: Annotated[str, Parameter(help="The name of the cluster, kept in the data directories.")] = "proglog",
    refresh: Annotated[
        float,
        TIME,
        within(_SHORTEST_REFRESH, _LONGEST_REFRESH, " seconds"),
        Parameter(help="How often the nodes are asked how they are."),
    ] = 1.0,
    json: Annotated[
        bool,
        flag(
            "Write a JSON object a line for everything that happens (its event is ready, status, node_ended, stopping, "
            "node_killed or stopped), instead of a view."
        ),
    ] = False,
) -> int:
    """Run a whole cluster on this machine, show how it is, and stop it with Ctrl-C or SIGTERM.

    The nodes are processes of their own, called node-1, node-2 and so on, on loopback. They stop with this command,
    however it ends. Further options of theirs can be given in the environment (PROGLOG_...), but for those of
    certificates, policies, keys and other addresses: these nodes are plain, and no other machine can reach them.
    """
    from proglog_trio.local_cluster.plan import ClusterPlan
    from proglog_trio.node.log_output import configure_log_output

    configure_log_output("console", "error")
    try:
        plan = ClusterPlan(directory=data_dir.absolute(), size=nodes, base_port=base_port, cluster_name=cluster_name)
    except ValueError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    return run_interruptible(partial(_cluster, plan, refresh, json=json), after_signal=ExitCode.DONE)


async def _cluster(plan: "ClusterPlan", refresh: float, *, json: bool) -> int:
    from proglog_trio.errors import AddressUnavailable
    from proglog_trio.local_cluster.node_process import NodeNotStarted
    from proglog_trio.local_cluster.run import LocalClusterFailed, run_local_cluster

    try:
        await run_local_cluster(plan, _output(json=json), refresh_seconds=refresh)
    except BaseExceptionGroup as group:
        failures = [error for error in _leaves(group) if isinstance(error, (NodeNotStarted, LocalClusterFailed))]
        if not failures:
            raise
        first = min(failures, key=str)
        code = _code(first) if isinstance(first, NodeNotStarted) else ExitCode.FAILED
        raise CommandError(str(first), code) from first
    except AddressUnavailable as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}", ExitCode.USAGE) from error
    return ExitCode.DONE


def _code(error: "NodeNotStarted") -> ExitCode:
    """A node that was asked for wrongly says so by its exit code, and so does the command that asked."""
    return ExitCode.USAGE if error.exit_code == ExitCode.USAGE else ExitCode.FAILED


def _output(*, json: bool) -> "Output":
    from proglog_trio.cli.output import StandardOutput
    from proglog_trio.local_cluster.output import JsonOutput, PlainOutput, TerminalOutput

    if json:
        return JsonOutput(StandardOutput())
    return TerminalOutput() if sys.stdout.isatty() else PlainOutput(StandardOutput())


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
