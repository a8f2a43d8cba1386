"""Work of a log that is handed over to the committer and whose commit is not over."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from proglog_trio.errors import ProglogError
from proglog_trio.log.batch import Appended
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.producer_table import Remembered
from proglog_trio.log.writer import Work

Settle = Callable[[ProglogError | None], None]
"""Is called once in the host thread: with None when something is durable, else with why that is not known to be so."""


Done = Callable[[Appended | ProglogError], None]
"""Is called once in the host thread, with where a batch stands or with why it does not."""


def answering(appended: Appended, done: Done) -> Settle:
    """Return what tells done where a batch stands, or why it does not."""
    return lambda error: done(appended if error is None else error)


@frozen
class PendingWork:
    """One piece of work, and what changes when it is durable.

    Attributes:
        work: for the writer.
        next_offset: the log's when this is durable.
        settle: is told how it ended; None: nothing waits for it.
        size: what it takes in the store file, in bytes.
        records: how many were appended for a producer.
        changed: the origin that it changes, and what the log has of it then; None: it changes none.
        remembered: what the producer table took in of it, so that it can be taken back.
    """

    work: Work
    next_offset: int
    settle: Settle | None = None
    size: int = 0
    records: int = 0
    changed: tuple[Origin, OriginState] | None = None
    remembered: Remembered | None = None
