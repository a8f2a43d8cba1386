"""Ctrl-C that does not tear a trio-asyncio loop apart.

Trio raises KeyboardInterrupt in whatever code of a program is running at that moment, unless it is protected: then in
the main task, at its next checkpoint. A trio-asyncio loop does not protect itself. KeyboardInterrupt in the middle of a
callback ends the task that runs all callbacks, and every task that waits for one of asyncio waits for ever: one of ten
programs that wrote or read without a pause hung on Ctrl-C. asyncio's own runner keeps the first Ctrl-C out of callbacks
too.

Checked with trio-asyncio 0.15.0 and 0.16.0. A test says when its loop protects itself, so that this can go.
"""

from __future__ import annotations

import trio

from proglog_trio.rpc.http2.bridge import TrioEventLoop


def keep_interrupts_out_of_callbacks() -> None:
    """Have Ctrl-C during any trio-asyncio callback of this process raised in the main task instead.

    Doing it again changes nothing.
    """
    trio.lowlevel.enable_ki_protection(TrioEventLoop._main_loop)  # noqa: SLF001 - runs callbacks; it has no public name
    trio.lowlevel.enable_ki_protection(TrioEventLoop._io_task)  # noqa: SLF001 - as before: those of sockets
