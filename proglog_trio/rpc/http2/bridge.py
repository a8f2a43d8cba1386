"""trio-asyncio, the bridge between Trio and asyncio; everything of ours that needs it takes it from here.

Importing it changes asyncio for the whole process. Two of its changes are made good here, whatever imported it first:

- From Python 3.12 on it derives from a class whose use is a DeprecationWarning, once, as it is imported. No program can
  do anything about that, and one that is run with ``-W error`` would end there.
- The loops that asyncio makes outside Trio (`asyncio.run`, `asyncio.new_event_loop`) become trio-asyncio's
  SyncTrioEventLoop, which takes five times as long for each tick. A program that uses asyncio beside this package keeps
  the loops of its own event loop policy; inside Trio nothing changes.

Checked with trio-asyncio 0.15.0 and 0.16.0 on Python 3.11, 3.12 and 3.13. Tests say when either is not needed any more.
"""

from __future__ import annotations

import asyncio
import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "'AbstractChildWatcher' is deprecated", DeprecationWarning)
    import trio_asyncio

from trio_asyncio import TrioEventLoop, aio_as_trio, current_loop, open_loop, trio_as_aio
from trio_asyncio._handles import AsyncHandle

__all__ = ["AsyncHandle", "TrioEventLoop", "aio_as_trio", "current_loop", "open_loop", "trio_as_aio"]


def _leave_other_loops_alone() -> None:
    """Have asyncio make the loops of the policy in force; doing it again changes nothing."""
    # what all ways to a new loop lead through: asyncio's functions, and get_event_loop where there is none yet
    policy_type = trio_asyncio._loop._TrioPolicy  # noqa: SLF001 - it has no public name
    make_trio_loop = policy_type.new_event_loop
    if make_trio_loop.__module__ == __name__:
        return

    def new_event_loop(trio_policy: asyncio.AbstractEventLoopPolicy) -> asyncio.AbstractEventLoop:
        policy = asyncio.get_event_loop_policy()
        # Inside Trio, the policy in force is trio-asyncio's own.
        loop: asyncio.AbstractEventLoop = (
            make_trio_loop(trio_policy) if policy is trio_policy else policy.new_event_loop()
        )
        return loop

    policy_type.new_event_loop = new_event_loop


_leave_other_loops_alone()
