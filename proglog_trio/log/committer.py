"""The committer: the one thread that writes to a log.

It takes all work that waits, writes it, syncs once, and says so to the host thread. So appends that come while a sync
is under way share the next one.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence

import structlog
import trio
from attrs import define

from proglog_trio.errors import DataDirectoryLost
from proglog_trio.log.log import Log
from proglog_trio.log.writer import CommitFailed, LogWriter, Work

HandedOver = Sequence[Work] | bool | None
"""What the committer is given: work; True: what comes from now on is to be done again; None: the end."""

_logger = structlog.get_logger(__name__)


@define
class Committer:
    """The thread that commits. Work goes in by a queue, results come back by run_sync_soon.

    Attributes:
        log: is told of what is committed.
        work: what the log hands over; it is bounded by the log's max_pending_bytes.
        token: of the host thread.
        failure: after this nothing more is committed, and all ends: what was not foreseen, so that it is not known what
            is durable, or that the directory is not there any more.
    """

    log: Log
    work: queue.SimpleQueue[HandedOver]
    token: trio.lowlevel.TrioToken
    failure: Exception | None = None

    async def run_until_told(self) -> None:
        """Commit until told to stop.

        Raises:
            Exception: what was not foreseen. The log cannot keep its promise, so all must end: it is caught nowhere.
            DataDirectoryLost: neither can it then.
        """
        # It has a limiter of its own, so that it takes no place of the threads that the rest of the program shares.
        own = trio.CapacityLimiter(1)
        await trio.to_thread.run_sync(self.run, self.log.writer, thread_name="log committer", limiter=own)
        if self.failure is not None:
            raise self.failure

    def run(self, writer: LogWriter) -> None:
        """Commit until told to stop; in the thread."""
        stopping = failed = False
        while not stopping:
            batch: list[Work] = []
            item = self.work.get()
            while True:
                if item is None:
                    stopping = True
                    break
                if item is True:
                    # What came before was planned on top of what failed, and has been answered: between a failure and
                    # this mark the host thread may have handed over more, not having heard of it yet.
                    batch.clear()
                    failed = False
                elif not isinstance(item, bool):
                    batch.extend(item)
                try:
                    item = self.work.get_nowait()
                except queue.Empty:
                    break
            if not batch or failed:
                continue
            durable = len(batch)
            error: Exception | None = None
            try:
                writer.commit(batch)
            except CommitFailed as caught:
                durable, error, failed = caught.durable, caught, True
                if isinstance(caught.reason, DataDirectoryLost):
                    self.failure, stopping = caught.reason, True
            except Exception as unforeseen:  # noqa: BLE001 - raised by run_until_told, once what waits was answered
                durable, error, failed = 0, unforeseen, True
                self.failure, stopping = unforeseen, True
            self.token.run_sync_soon(self._committed, durable, error)

    def _committed(self, count: int, error: Exception | None) -> None:
        try:
            self.log.committed(count, error)
            if error is not None:
                _logger.error("the log is read-only: a write failed", error=str(error), why=self.log.read_only_reason)
            if isinstance(error, CommitFailed) and error.may_go_on:
                self.work.put(True)
        except Exception as unforeseen:  # noqa: BLE001 - raised by run_until_told
            # What is durable and what was answered may differ now.
            self.failure = unforeseen
            self.log.committed(0, unforeseen)
            self.work.put(None)
