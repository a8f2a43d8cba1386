"""Which threads clients leave behind."""

from __future__ import annotations

import threading
from collections.abc import Collection


def threads_since(before: Collection[threading.Thread]) -> list[threading.Thread]:
    """Return the threads that were not there before. Idle ones of earlier tests may have ended meanwhile."""
    return [thread for thread in threading.enumerate() if thread not in before]
