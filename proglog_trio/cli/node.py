"""``proglog-trio node``."""

import contextlib
import json as json_format
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from proglog_trio.cli.contexts.addresses import ADDRESS_VARIABLE
from proglog_trio.cli.contexts.choice import CONTEXT_VARIABLE
from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.node_commands import run_interruptible
from proglog_trio.cli.standard_streams import OutputError, dropped_output
from proglog_trio.cli.structlog_loading import load_structlog_without_rich
from proglog_trio.cli.tls_options import TLS_VARIABLES
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.config_sources import config_file_source, environment, unknown_variables, variables_of_services
from proglog_trio.node.garbage import keep_what_is_there, put_off
from proglog_trio.node.open_files import allow_many_open_files
from proglog_trio.node.option_types import agent_rpc_text, flag

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio

    from proglog_trio.node.run import RunningNode

app = App(name="node", config=[environment(), config_file_source])

_JSON_VARIABLE = "PROGLOG_JSON"
_END_WITH_STDIN_VARIABLE = "PROGLOG_END_WITH_STDIN"


@app.default
def node(
    *,
    config: Annotated[NodeConfig | None, Parameter(name="*")] = None,
    json: Annotated[bool, flag("Say that the node is ready with one JSON object on standard output.")] = False,
    end_with_stdin: Annotated[
        bool,
        flag(
            "Stop, as when told to, at the end of standard input. A program that starts the node and holds the other "
            "end of that pipe cannot leave it behind, however it ends."
        ),
    ] = False,
) -> int:
    """Run a node until it is told to stop, by Ctrl-C or SIGTERM.

    Without options it runs a single node on loopback and keeps its log in ./proglog-data. Once it is ready it says so
    in one line on standard output. A second Ctrl-C or SIGTERM ends it at once. SIGHUP has certificates, keys and
    policies read again.
    """
    config = config or NodeConfig()
    # imported late: `node --help` needs none of it
    load_structlog_without_rich()
    import structlog

    from proglog_trio.errors import (
        AddressUnavailable,
        DataDirectoryError,
        DataDirectoryLost,
        DirectoryCopied,
        NameTaken,
        SecurityFileError,
    )
    from proglog_trio.membership import TagsFileError, TagsTooLarge
    from proglog_trio.node.log_output import configure_log_output

    configure_log_output(config.log_format, config.log_level)
    logger = structlog.get_logger("proglog_trio.cli.node")
    also_known = [ADDRESS_VARIABLE, CONTEXT_VARIABLE, _JSON_VARIABLE, _END_WITH_STDIN_VARIABLE, *TLS_VARIABLES]
    for variable in unknown_variables(os.environ, also_known=also_known):
        logger.warning("a variable of the environment is no option and is ignored", variable=variable)
    for variable in variables_of_services(os.environ):
        logger.warning(
            "a variable of the environment is passed over: it is what Kubernetes says of a service of that name; name "
            "the service otherwise, or set enableServiceLinks: false",
            variable=variable,
        )
    allow_many_open_files()
    try:
        return run_interruptible(
            partial(_run, config, json=json, end_with_stdin=end_with_stdin),
            after_signal=ExitCode.DONE,
            on_signal=lambda number: logger.info("told to stop", signal=number.name),
        )
    except (
        DataDirectoryLost,
        DataDirectoryError,
        DirectoryCopied,
        AddressUnavailable,
        NameTaken,
        SecurityFileError,
        TagsFileError,
        TagsTooLarge,
    ) as error:
        raise CommandError(str(error), _code(error)) from error
    except Exception:
        logger.exception("the node stopped on an error")
        return ExitCode.FAILED


def _code(error: Exception) -> ExitCode:
    """Return what a node ends with: USAGE only where a person must change something, else it may be started again."""
    from proglog_trio.errors import (
        AddressUnavailable,
        DataDirectoryFull,
        DataDirectoryLost,
        DataDirectoryUnavailable,
        NameTaken,
        SecurityFileNoRoom,
    )

    match error:
        case DataDirectoryLost():
            return ExitCode.FAILED
        case DataDirectoryFull() | SecurityFileNoRoom():
            return ExitCode.NO_ROOM
        case DataDirectoryUnavailable():
            return ExitCode.DIRECTORY_UNAVAILABLE
        case NameTaken():
            return ExitCode.NAME_HELD
        case AddressUnavailable(may_pass=True):
            return ExitCode.ADDRESS_UNAVAILABLE
    return ExitCode.USAGE


async def _run(config: NodeConfig, *, json: bool, end_with_stdin: bool) -> int:
    import trio

    with put_off():
        from proglog_trio.node.run import run_node

        keep_what_is_there(with_garbage=True)
    run = partial(run_node, counted={"log_output": dropped_output(sys.stderr)})
    # Received from the beginning: by itself, a SIGHUP would end the process.
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        async with trio.open_nursery() as beside:
            if end_with_stdin:
                beside.start_soon(_end_with_stdin, beside.cancel_scope)
            async with trio.open_nursery() as nursery:
                running = await nursery.start(run, config)
                keep_what_is_there()
                beside.start_soon(_reload_on, hangups, running)
                await _say(_described(running) if json else _readable(running))
            beside.cancel_scope.cancel()
    # It was told to leave, and has.
    return ExitCode.DONE


async def _say(line: str) -> None:
    """Say on standard output that the node is ready, if it has a reader. The node is ready all the same if not."""
    import structlog

    from proglog_trio.cli.output import StandardOutput

    try:
        await StandardOutput().write(f"{line}\n".encode())
    except OutputError as error:
        structlog.get_logger("proglog_trio.cli.node").warning(
            "no reader could be told that the node is ready", error=error
        )


async def _end_with_stdin(node: "trio.CancelScope") -> None:
    import structlog
    import trio

    # In a thread, since standard input may be anything; nothing waits for one that reads for ever.
    await trio.to_thread.run_sync(_read_to_end, sys.stdin.fileno(), abandon_on_cancel=True)
    structlog.get_logger("proglog_trio.cli.node").info("told to stop", by="the end of standard input")
    node.cancel()


def _read_to_end(descriptor: int) -> None:
    # what cannot be read, such as the terminal of another session, has no writer at its other end either
    with contextlib.suppress(OSError):
        while os.read(descriptor, 65536):
            continue


async def _reload_on(hangups: "AsyncIterator[int]", running: "RunningNode") -> None:
    async for _ in hangups:
        running.reload()


def _described(running: "RunningNode") -> str:
    agent_rpc = running.agent_rpc_address
    others = {
        "metrics_addr": running.metrics_address,
        "dns_addr": running.dns_address,
        "serf_rpc_addr": None if agent_rpc is None else agent_rpc_text(agent_rpc),
    }
    return json_format.dumps(
        {
            "node_name": running.name,
            "rpc_addr": str(running.rpc_address),
            "gossip_addr": str(running.gossip_address),
            "data_dir": str(running.data_dir),
            "lowest_offset": running.lowest_offset,
            "next_offset": running.next_offset,
            "pid": os.getpid(),
            **{name: str(address) for name, address in others.items() if address is not None},
        }
    )


def _readable(running: "RunningNode") -> str:
    held = running.next_offset - running.lowest_offset
    return (
        f"node {running.name} is ready: it takes RPCs at {running.rpc_address}, gossips at {running.gossip_address} "
        f"and keeps its log in {running.data_dir} ({held} records)"
    )
