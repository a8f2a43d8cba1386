"""What all calls of the Log service share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from attrs import Factory, define, field, frozen, validators

from proglog_trio.log.format.origin import Origin
from proglog_trio.log.log import Log
from proglog_trio.replication.peers.acknowledgements import AcknowledgementResult
from proglog_trio.rpc.http2.wakeups import Wakeups
from proglog_trio.rpc.server.requested_acknowledgement import THIS_NODE, AcknowledgementConfig
from proglog_trio.units import KIBIBYTE, MEBIBYTE


@frozen
class ServerInfo:
    """A node that clients can dial.

    Attributes:
        id: its name.
        rpc_addr: "host:port".
        is_leader: whether it accepts writes.
    """

    id: str
    rpc_addr: str
    is_leader: bool = True


@frozen(kw_only=True)
class LogServiceConfig:
    """The Log service's limits.

    Attributes:
        acknowledgement: see AcknowledgementConfig.
        answer_bytes: how many bytes of frames an answer of ConsumeBatches holds unless the client says otherwise.
        max_answer_bytes: and at most, whatever it says.
        min_answer_bytes: what each stream may read at once, however many there are.
        consume_bytes: what all consume streams together may read at once; each gets its share.
        max_consumers: how many consume streams there may be at once.
        max_watchers: how many WatchServers streams there may be at once.
        in_flight_bytes: how much of one produce stream may wait for its acknowledgement to be sent.
        reading_threads: how many threads read the disk for consumers.
    """

    acknowledgement: AcknowledgementConfig = field(factory=AcknowledgementConfig)
    answer_bytes: int = 512 * KIBIBYTE
    max_answer_bytes: int = 3 * MEBIBYTE + 512 * KIBIBYTE  # with the frames' offsets still less than 4 MiB
    min_answer_bytes: int = 64 * KIBIBYTE
    consume_bytes: int = 64 * MEBIBYTE
    max_consumers: int = field(default=1000, validator=validators.ge(1))
    max_watchers: int = field(default=1000, validator=validators.ge(1))
    in_flight_bytes: int = 16 * MEBIBYTE
    reading_threads: int = field(default=4, validator=validators.ge(1))


@define
class LogServiceCounters:
    """What the Log service has done since it began.

    Attributes:
        batches_produced: batches stored for clients, retries that had been stored already included.
        records_produced: and their records.
        batches_refused: batches and records that were refused.
        records_consumed: records sent.
        bytes_consumed: bytes sent to consumers.
        consumers: consume streams that are open.
        consumers_refused: consume streams above the limit.
        watchers: streams that are open of those who watch the servers.
        watchers_refused: such streams above the limit.
    """

    batches_produced: int = 0
    records_produced: int = 0
    batches_refused: int = 0
    records_consumed: int = 0
    bytes_consumed: int = 0
    consumers: int = 0
    consumers_refused: int = 0
    watchers: int = 0
    watchers_refused: int = 0


WaitAcknowledged = Callable[[Origin, int, int, int, float, Callable[[AcknowledgementResult], None]], None]
"""Calls back once so many nodes have some sequences of an origin, or after some seconds; see Replica."""


def _alone(
    _origin: Origin,
    _first: int,
    _following: int,
    nodes: int,
    _timeout: float,
    done: Callable[[AcknowledgementResult], None],
) -> None:
    done(AcknowledgementResult(THIS_NODE, nodes <= THIS_NODE))


@frozen
class AcknowledgementWaits:
    """Waits for other nodes to have what is appended; as it is, those of a node that has no others.

    Attributes:
        begin: see WaitAcknowledged.
        end_all: ends all waits at once, with what is achieved by then.
    """

    begin: WaitAcknowledged = _alone
    end_all: Callable[[], None] = lambda: None


@define
class LogServiceState:
    """What all calls of the Log service share.

    Attributes:
        log: the log that is served.
        config, counters: see there.
        executor: threads for reading.
        servers: gives the nodes that clients can dial.
        acknowledgements: see AcknowledgementWaits.
        changed: wakes consumers: the log's end has moved, or something ended.
        draining: the server stops: no call begins any more, none reads more. It stays so.
        producing: the tasks of the produce calls that are not answered to the end.
        reading: the tasks beside those that read more requests; drain cancels them, and what they read is answered.
    """

    log: Log
    config: LogServiceConfig
    counters: LogServiceCounters
    executor: Executor
    servers: Callable[[], Sequence[ServerInfo]]
    acknowledgements: AcknowledgementWaits = Factory(AcknowledgementWaits)
    changed: Wakeups = Factory(Wakeups)
    draining: bool = False
    producing: set[asyncio.Task[object]] = Factory(set)
    reading: set[asyncio.Task[object]] = Factory(set)

    def share_of_answer(self, asked: int) -> int:
        """Return how many bytes one consume stream may read at once, if it asked for so many (0: the default)."""
        config = self.config
        share = config.consume_bytes // max(1, self.counters.consumers)
        wanted = min(asked or config.answer_bytes, config.max_answer_bytes)
        return min(wanted, max(share, config.min_answer_bytes))
