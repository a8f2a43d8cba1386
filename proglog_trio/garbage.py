"""Garbage collection in a process that must answer within milliseconds."""

from __future__ import annotations

import gc


def keep_what_is_there() -> None:
    """Let no later collection look at what exists now: modules and classes, which stay until the process ends.

    For programs, once they have started; no library code calls it. A node's modules are 200,000 objects, and looking at
    each of them once more holds everything up for 40 ms.
    """
    gc.collect()
    gc.freeze()
