"""Accepting streams under Trio: a task with an error boundary for each, and an end to what a lack of resources logs."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import structlog
import trio

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.repetition import Repetitions

OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What accept fails with while the system has nothing left; the connection waits in the backlog meanwhile."""
CLIENT_GONE = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
        errno.ETIMEDOUT,
    }
)
"""What accept fails with for a connection that had an end before it was accepted (accept(2)); the next may be fine."""
RETRY_SECONDS = 0.1
"""There is no event for a descriptor that becomes free."""
TELL_SECONDS = 60.0

_logger = structlog.get_logger(__name__)


async def accept_streams(
    listener: trio.SocketListener,
    serve: Callable[[trio.SocketStream], Awaitable[None]],
    errors: InternalErrors,
    where: Where,
) -> None:
    """Accept streams until cancelled or until the listener is closed; each is closed when serve has returned.

    Args:
        listener: accepts them.
        serve: serves one; what it raises ends that stream.
        errors: where that is counted.
        where: as what it is counted.
    """

    async def run(stream: trio.SocketStream) -> None:
        try:
            with errors.boundary(where):
                await serve(stream)
        finally:
            await trio.aclose_forcefully(stream)

    shortages = Repetitions(period=TELL_SECONDS)
    turns = errors.turns(where)
    async with trio.open_nursery() as nursery:
        while True:
            async with turns:
                try:
                    stream = await listener.accept()
                except trio.ClosedResourceError:
                    return
                except OSError as error:
                    if error.errno not in OUT_OF_RESOURCES:
                        raise
                    if shortages.news(error.errno) is not None:
                        _logger.error("cannot accept a stream", serving=where.value, reason=error.strerror)
                    await trio.sleep(RETRY_SECONDS)
                else:
                    nursery.start_soon(run, stream)
