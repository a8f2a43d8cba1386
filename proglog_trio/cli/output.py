"""Writing results to standard output without holding up the event loop while its reader is slow."""

import os
import sys
from functools import partial

import trio


class StandardOutput:
    """Standard output as bytes. Raises BrokenPipeError when its reader is gone."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdout.fileno() if descriptor is None else descriptor

    async def write(self, data: bytes) -> None:
        """Write all of it. The thread that writes is abandoned on cancellation: a reader may be stopped for ever."""
        if data:
            await trio.to_thread.run_sync(partial(_write_all, self._descriptor, data), abandon_on_cancel=True)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
