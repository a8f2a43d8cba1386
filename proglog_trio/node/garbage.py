"""Garbage collection in a process that must answer within milliseconds."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Collect nothing for the length of a ``with`` block that imports modules.

    For programs, as they start; no library code calls it. What is imported stays, and a collector that looks at it
    again and again takes an eighth of the time in vain.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def keep_what_is_there(*, with_garbage: bool = False) -> None:
    """Let no later collection look at what exists now: modules and classes, which stay until the process ends.

    For programs, once they have started; no library code calls it. A node's modules are 200,000 objects, and looking at
    each of them once more holds everything up for 40 ms.

    Args:
        with_garbage: keep unreachable objects as well, instead of looking at everything to find it. After a node's
            imports that is 1 MB: the classes that attrs has made others of.
    """
    if not with_garbage:
        gc.collect()
    gc.freeze()
