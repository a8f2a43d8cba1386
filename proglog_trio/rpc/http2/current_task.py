"""The current asyncio task, as grpclib asks for it.

grpclib keeps `asyncio.current_task` under a name of its own when it is imported. From Python 3.12 on that function is
written in C and knows nothing of a loop inside Trio, for which trio-asyncio puts another one in its place. Imported
before trio-asyncio, which the user of a library decides, grpclib would have the wrong one: each call ends with
"RuntimeError: no running event loop".

Checked with grpclib 0.4.9 on Python 3.11, 3.12 and 3.13. A test says when grpclib asks asyncio each time, so that this
can go.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpclib.utils


def _current_task(loop: asyncio.AbstractEventLoop | None = None) -> asyncio.Task[Any] | None:
    return asyncio.current_task(loop)


def ask_asyncio_each_time() -> None:
    """Have grpclib find `asyncio.current_task` when it needs it; doing it again changes nothing."""
    grpclib.utils._current_task = _current_task  # noqa: SLF001 - the name that grpclib keeps it under
