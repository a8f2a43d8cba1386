"""Serving the agent's RPC: a task with an error boundary for each client, and bounds on all of them together."""

from __future__ import annotations

import errno
import socket
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog
import trio
from attrs import define, field

from proglog_trio.accepting import accept_streams
from proglog_trio.address import Address
from proglog_trio.errors import AddressInUse, AddressUnavailable
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.agent_rpc.commands import Commands
from proglog_trio.membership.agent_rpc.connection import AgentRpcCounters, Connection, ConnectionRefused
from proglog_trio.membership.agent_rpc.log_lines import LogLines
from proglog_trio.membership.agent_rpc.session import Session
from proglog_trio.membership.event_handlers.event_handler import EventHandler, shown
from proglog_trio.membership.membership import Membership
from proglog_trio.repetition import Repetitions
from proglog_trio.unavailable import unavailable

MAX_CONNECTIONS = 128
"""For one more, the oldest of those that have not greeted yet is ended; where all have, it is not served."""
KEEPALIVE_SECONDS = 15
"""A client of which nothing was heard for so long is asked by TCP whether it is there, again and again, as agents do.
One whose machine is gone says nothing, and would keep its place for ever."""
_BACKLOG = 128

_logger = structlog.get_logger(__name__)


@define(eq=False)
class AgentRpcServer:
    """Serves the clients of an agent; see run.

    Attributes:
        membership: of this node.
        auth_key: what clients have to know; None: nothing.
        event_handlers: what is run for events, for `serf info` to show.
        on_leave: called when a client had this node leave the cluster, and was told that it has.
        errors: where unforeseen errors are counted.
        counters: see AgentRpcCounters.
    """

    membership: Membership
    auth_key: str | None = field(default=None, repr=False)
    event_handlers: Sequence[EventHandler] = ()
    on_leave: Callable[[], None] | None = None
    errors: InternalErrors = field(factory=InternalErrors)
    counters: AgentRpcCounters = field(factory=AgentRpcCounters)
    # In the order in which they came.
    _served: dict[Connection, None] = field(factory=dict)
    _told: Repetitions = field(factory=Repetitions)

    async def run(
        self, address: Address | Path, *, task_status: trio.TaskStatus[Address | Path] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled.

        Args:
            address: where to listen; a path: of a Unix socket, which only the user who runs this may open. Port 0: one
                that the operating system chooses.
            task_status: is given the bound address once clients are served.

        Raises:
            AddressUnavailable: the address cannot be listened at, or another process does.
        """
        log_lines = LogLines()
        async with _listening(address) as (listeners, bound):
            _logger.info("serving the agent's RPC", address=str(bound))
            with log_lines.attached():
                async with trio.open_nursery() as nursery:
                    for listener in listeners:
                        nursery.start_soon(
                            accept_streams,
                            listener,
                            lambda stream: self._serve(stream, log_lines),
                            self.errors,
                            Where.AGENT_RPC,
                        )
                    task_status.started(bound)

    async def _serve(self, stream: trio.SocketStream, log_lines: LogLines) -> None:
        self.counters.connections += 1
        if len(self._served) >= MAX_CONNECTIONS and not self._make_room():
            self.counters.connections_refused += 1
            repeated = self._told.news(MAX_CONNECTIONS)
            if repeated is not None:
                _logger.warning(
                    "a client of the agent's RPC is not served: there are too many",
                    clients=len(self._served),
                    repeated=repeated,
                )
            return
        _have_the_gone_found_out(stream)
        connection = Connection(
            stream,
            Session(self.auth_key),
            self.membership,
            Commands(self.membership, shown(self.event_handlers)),
            log_lines,
            self.counters,
            self.errors,
        )
        self._served[connection] = None
        try:
            await connection.run()
        except ConnectionRefused as error:
            self.counters.connections_refused += 1
            _logger.debug("a client of the agent's RPC was ended", reason=str(error))
        finally:
            self._served.pop(connection, None)
        if connection.has_left and self.on_leave is not None:
            self.on_leave()

    def _make_room(self) -> bool:
        """End the oldest client that has not greeted; tell whether there is one."""
        for connection in self._served:
            if not connection.session.is_trusted:
                # Here already, so that two that come in one turn end two others.
                del self._served[connection]
                connection.end("there are too many, and it has not greeted yet")
                return True
        return False


@asynccontextmanager
async def _listening(address: Address | Path) -> AsyncIterator[tuple[list[trio.SocketListener], Address | Path]]:
    if isinstance(address, Path):
        listener = _listen_on_path(address)
        identity = _identity(address)
        try:
            yield [listener], address
        finally:
            listener.socket.close()
            # Not one that another process has put in its place.
            if identity is not None and _identity(address) == identity:
                _remove(address)
        return
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except (OSError, UnicodeError) as error:
        raise unavailable(f"cannot serve the agent's RPC on {address}", error) from None
    try:
        yield listeners, Address(address.host, listeners[0].socket.getsockname()[1])
    finally:
        for listener in listeners:
            listener.socket.close()


def _have_the_gone_found_out(stream: trio.SocketStream) -> None:
    if stream.socket.family == socket.AF_UNIX:
        return
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
        stream.setsockopt(socket.IPPROTO_TCP, option, KEEPALIVE_SECONDS)


def _listen_on_path(path: Path) -> trio.SocketListener:
    what = f"cannot serve the agent's RPC on {path}"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        try:
            listening.bind(str(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_what_is_left(path, what)
            listening.bind(str(path))
        # Before it is listened at, so before anybody can connect.
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        listening.listen(_BACKLOG)
        return trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    except OSError as error:
        listening.close()
        raise AddressUnavailable(f"{what}: {error.strerror or error}") from None
    except BaseException:
        listening.close()
        raise


def _remove_what_is_left(path: Path, what: str) -> None:
    """Remove the socket of a process that has ended. Raises AddressInUse if it has not."""
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise AddressInUse(f"{what}: there is a file, which is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # somebody listens, and has much to do
    raise AddressInUse(f"{what}: another process does", may_pass=True)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
