"""What libraries below this package need mended, each with the test that says when it can go.

- `ask_asyncio_each_time`: the current asyncio task, as grpclib asks for it.
- `use_cheap_frame_repr`: a cheap repr for hyperframe's frames.
- `sweep_cancelled_timers`: cancelled timers that do not outlive their purpose.

What importing trio-asyncio does to asyncio is made good in bridge.py, where it is imported; Ctrl-C in its callbacks is
in interrupts.py, which needs that import. This module is the first of the package to be imported (see
`proglog_trio.rpc`), so it loads nothing but grpclib's utilities.

Checked with grpclib 0.4.9, hyperframe 6.1.0, h2 4.3.0 and 4.4.1, trio-asyncio 0.15.0 and 0.16.0 on Python 3.11, 3.12
and 3.13.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Any

import grpclib.utils
from attrs import define

if TYPE_CHECKING:
    from hyperframe.frame import Frame

MIN_CANCELLED_TO_SWEEP = 100


# -- grpclib: the current task -----------------------------------------------------------------------------------------


def _current_task(loop: asyncio.AbstractEventLoop | None = None) -> asyncio.Task[Any] | None:
    return asyncio.current_task(loop)


def ask_asyncio_each_time() -> None:
    """Have grpclib find `asyncio.current_task` when it needs it; doing it again changes nothing.

    grpclib keeps that function under a name of its own when it is imported. From Python 3.12 on it is written in C and
    knows nothing of a loop inside Trio, for which trio-asyncio puts another one in its place. Imported before
    trio-asyncio, which the user of a library decides, grpclib would have the wrong one: each call ends with
    "RuntimeError: no running event loop".
    """
    grpclib.utils._current_task = _current_task  # noqa: SLF001 - the name that grpclib keeps it under


# -- hyperframe: the repr of frames ------------------------------------------------------------------------------------


def _cheap_repr(frame: Frame) -> str:
    return f"<{type(frame).__name__} stream_id={frame.stream_id}>"


def use_cheap_frame_repr() -> None:
    """Give all frames of this process a repr that leaves the body out; doing it again changes nothing.

    h2 formats repr(frame) for every frame that it receives, for a trace line that is thrown away, and hyperframe's repr
    dumps the frame's body as text: that costs a third of all throughput with large DATA frames (117 to 174 MB/s in, 139
    to 203 MB/s out, measured with 1 MiB messages on one connection).
    """
    # late: this module is imported before everything else, and by programs that never speak HTTP/2
    from hyperframe.frame import Frame

    Frame.__repr__ = _cheap_repr  # type: ignore[method-assign]  # replacing it is the purpose


# -- trio-asyncio: cancelled timers ------------------------------------------------------------------------------------


@define
class CancelledTimerSweeper:
    """Counts a loop's cancelled timers and drops them once they are at least 100 and half of all.

    trio-asyncio keeps a cancelled timer in its heap until the time it was set for. A deadline of an hour on a call of a
    millisecond would hold memory for an hour, and so would every keepalive of a connection that closed. asyncio's own
    loop sweeps its heap when most of it is cancelled; this gives the same to a trio-asyncio loop, through the hook by
    which asyncio tells a loop of a cancelled timer.

    Attributes:
        loop: the trio-asyncio loop whose timers these are.
        cancelled: how many timers were cancelled since the last sweep.
    """

    loop: Any
    cancelled: int = 0

    def __call__(self, handle: asyncio.TimerHandle) -> None:
        """Count one cancelled timer; asyncio calls this before it marks the handle as cancelled."""
        self.cancelled += 1
        if self.cancelled >= MIN_CANCELLED_TO_SWEEP and self.cancelled * 2 >= len(self.loop._timers):  # noqa: SLF001 - the heap has no public name
            self.sweep()

    def sweep(self) -> None:
        """Drop all cancelled timers from the loop's heap."""
        timers = self.loop._timers  # noqa: SLF001 - the heap has no public name
        # The timer that is being cancelled just now is not marked as that yet; it stays until the next sweep.
        timers[:] = [handle for handle in timers if not handle.cancelled()]
        heapq.heapify(timers)
        self.cancelled = 0


def sweep_cancelled_timers(loop: asyncio.AbstractEventLoop) -> None:
    """Make a trio-asyncio loop drop its cancelled timers; doing it again changes nothing."""
    if not isinstance(getattr(loop, "_timer_handle_cancelled", None), CancelledTimerSweeper):
        loop._timer_handle_cancelled = CancelledTimerSweeper(loop)  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio's hook, see above
