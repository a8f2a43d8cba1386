"""Writing results to standard output without holding up the event loop while its reader is slow."""

import sys
from functools import partial

import trio

from proglog_trio.cli.standard_streams import OutputError, write_all


class StandardOutput:
    """Standard output as bytes. When it cannot be written it raises OutputError, once; what comes then is dropped."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdout.fileno() if descriptor is None else descriptor
        self._failed = False

    async def write(self, data: bytes) -> None:
        """Write all of it. The thread that writes is abandoned on cancellation: a reader may be stopped for ever."""
        if data and not self._failed:
            try:
                await trio.to_thread.run_sync(partial(write_all, self._descriptor, data), abandon_on_cancel=True)
            except OSError as error:
                self._failed = True
                raise OutputError(error) from error
