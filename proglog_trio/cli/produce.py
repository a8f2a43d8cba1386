"""``proglog-trio produce``."""

import contextlib
import json as json_format
import os
import stat
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from attrs import define, field, frozen
from cyclopts import App, Parameter

from proglog_trio.cli.contexts.addresses import DEFAULT_ADDRESSES, NodeAddresses, failed_at
from proglog_trio.cli.contexts.choice import ContextName
from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.formats.form_choice import chosen_form
from proglog_trio.cli.formats.given_fields import Given, GivenHeaders, GivenKey, GivenTimestamp, record_bytes
from proglog_trio.cli.formats.record_options import NEWLINE, Delimiter, Format
from proglog_trio.cli.node_commands import (
    LONGEST_TIMEOUT,
    ClusterName,
    Timeout,
    Wait,
    report,
    run_interruptible,
)
from proglog_trio.cli.tls_options import Tls, client_tls
from proglog_trio.node.option_types import TIME, flag

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

    from proglog_trio.cli.formats.record_forms import RecordForm
    from proglog_trio.cli.lines import Line
    from proglog_trio.cli.output import StandardOutput
    from proglog_trio.cli.terminal.progress import Progress
    from proglog_trio.client import BatchDelivery, ClientTls, DeliveredBatch, DeliveryError, Producer, Record

app = App(name="produce")

# deliveries that have not been waited for; with what the producer itself buffers this bounds the memory
_DELIVERIES = 64
_PROBLEMS_SHOWN = 10
# what packing adds to a line at most: the array of records, the record's own, the lengths of value and key
_PACKING_BYTES = 64


@app.default
def produce(
    file: Annotated[
        Path | None, Parameter(help="Where the records are read from; standard input without it, or with -.")
    ] = None,
    /,
    *,
    addr: NodeAddresses = DEFAULT_ADDRESSES,
    context: ContextName = None,
    cluster_name: ClusterName = None,
    format_: Annotated[
        Format,
        Parameter(
            name="--format",
            help="How a record is written: its value as it is (raw) or in base64, or a JSON object with value, key, "
            "headers (an object: names, and what each has) and timestamp, or value_base64, key_base64, headers_base64 "
            "for bytes that are no UTF-8. What consume writes is read again as the same records; where they were "
            "stored then is passed over.",
        ),
    ] = "raw",
    delimiter: Delimiter = NEWLINE,
    key_separator: Annotated[
        str | None,
        Parameter(
            metavar="TEXT",
            allow_leading_hyphen=True,
            help="What comes before the first TEXT in a line is the record's key, what comes after it the value: with "
            "raw and base64.",
        ),
    ] = None,
    key: GivenKey = None,
    header: GivenHeaders = (),
    timestamp: GivenTimestamp = None,
    acknowledgement: Annotated[
        str,
        Parameter(
            metavar="LEVEL",
            help="After how many nodes have a record on disk it is acknowledged: local (the node that it is sent to), "
            "a number (that node counts), or majority (of the cluster size that the nodes are configured with).",
        ),
    ] = "local",
    acknowledgement_timeout: Annotated[
        float | None,
        TIME,
        Parameter(
            help="How long to wait for the other nodes, less than --timeout; without it, as long as the node is "
            "configured to. What they do not have by then is stored all the same, and counted at the end.",
        ),
    ] = None,
    timeout: Timeout = 10.0,
    wait: Wait = None,
    json: Annotated[
        bool,
        flag(
            "Write one JSON object for each batch that is stored, with its offsets, the node whose offsets they are, "
            "and how many nodes have it."
        ),
    ] = False,
    tls: Tls = None,
) -> int:
    """Write records to a node, one a line.

    A record is acknowledged when it is on the node's disk, and on other nodes' if --acknowledgement says so. When the
    node fails, what it has not acknowledged is sent to another, in the same order, for as long as --wait or --timeout
    says and at most for 5 minutes: a node would not know it again later, and store it twice. An empty line or one that
    is too large is named, with its number, and left out; the exit code is 1 then. At the end, a line on standard error
    says how many records are stored, and where.
    """
    options = Options(
        addresses=addr,
        form=chosen_form(format_, delimiter, key_separator),
        delimiter=delimiter,
        given=Given(
            key=None if key is None else key.encode("utf-8", "surrogateescape"), headers=header, timestamp=timestamp
        ),
        acknowledgement=acknowledgement,
        acknowledgement_timeout=acknowledgement_timeout,
        timeout=timeout,
        wait=timeout if wait is None else wait,
        json=json,
        tls=client_tls(tls),
        cluster_name=cluster_name,
    )
    try:
        descriptor = sys.stdin.fileno() if file in (None, Path("-")) else os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(descriptor)
    except OSError as error:
        raise CommandError(f"{file or 'standard input'}: {error.strerror}", ExitCode.USAGE) from error
    if stat.S_ISDIR(status.st_mode):
        raise CommandError(f"{file or 'standard input'}: it is a directory", ExitCode.USAGE)
    size = status.st_size if stat.S_ISREG(status.st_mode) else None
    return run_interruptible(partial(_produce, descriptor, size, options))


@frozen(kw_only=True)
class Options:
    """What the command was told."""

    addresses: tuple[str, ...]
    form: "RecordForm"
    delimiter: bytes
    given: Given
    acknowledgement: str
    acknowledgement_timeout: float | None
    timeout: float
    wait: float
    json: bool
    tls: "ClientTls | None"
    cluster_name: str | None = None


@define
class Place:
    """Where records are stored in the log of one node."""

    lowest: int
    highest: int = 0
    count: int = 0

    def add(self, delivered: "DeliveredBatch") -> None:
        """Count a batch that is stored there."""
        self.lowest = min(self.lowest, delivered.base_offset)
        self.highest = max(self.highest, delivered.base_offset + delivered.count - 1)
        self.count += delivered.count

    def offsets(self) -> str:
        """Say where they are."""
        if self.count == 1:
            return f"at offset {self.lowest}"
        where = "at offsets" if self.highest - self.lowest + 1 == self.count else "between offsets"
        return f"{where} {self.lowest} to {self.highest}"


@define
class Tally:
    """What became of the records. Their offsets are one range a node, unless others write meanwhile."""

    sent: int = 0
    stored: int = 0
    left_out: int = 0
    on_fewer_nodes: int = 0
    places: "dict[str, Place]" = field(factory=dict)

    def add(self, delivered: "DeliveredBatch") -> None:
        """Count a batch that is stored."""
        self.stored += delivered.count
        if not delivered.reached:
            self.on_fewer_nodes += delivered.count
        self.places.setdefault(delivered.node, Place(delivered.base_offset)).add(delivered)

    def leave_out(self, line: "Line", problem: str) -> None:
        """Count a line that is not sent, and say why for the first few."""
        self.left_out += 1
        if self.left_out <= _PROBLEMS_SHOWN:
            report(f"line {line.number}: {problem}")

    def summary(self) -> str:
        """Say in one line what became of all."""
        if not self.places:
            stored = "no record stored"
        elif len(self.places) == 1:
            (place,) = self.places.values()
            stored = f"{place.count} record{'' if place.count == 1 else 's'} stored {place.offsets()}"
        else:
            each = (f"{place.count} on {node} {place.offsets()}" for node, place in self.places.items())
            stored = f"{self.stored} records stored: {', '.join(each)}"
        if self.on_fewer_nodes:
            stored += f", {self.on_fewer_nodes} of them on fewer nodes than asked for"
        left_out = f", {self.left_out} lines left out" if self.left_out else ""
        open_ = self.sent - self.stored
        return f"{stored}{left_out}" + (f", {open_} records sent and not acknowledged" if open_ else "")


@define
class Settler:
    """Waits for deliveries in the order of their sending, and counts them.

    ``failure`` is the first delivery's that failed, with the lines it was about; ``reading`` is cancelled then.
    """

    tally: Tally
    output: "StandardOutput | None"
    reading: "trio.CancelScope"
    failure: "tuple[range, DeliveryError] | None" = None

    async def run(self, deliveries: "trio.MemoryReceiveChannel[Sent]") -> None:
        """Count deliveries until no more come."""
        from proglog_trio.client import DeliveryError

        async for sent in deliveries:
            for outcome in await sent.delivery.outcomes():
                if isinstance(outcome, DeliveryError):
                    if self.failure is None:
                        self.failure = (sent.lines, outcome)
                        self.reading.cancel()
                else:
                    self.tally.add(outcome)
                    if self.output is not None:
                        await self.output.write(_described(outcome))


def _described(batch: "DeliveredBatch") -> bytes:
    described = {
        "base_offset": batch.base_offset,
        "node": batch.node,
        "count": batch.count,
        "origin": str(batch.origin),
        "base_sequence": batch.base_sequence,
        "log_time": batch.log_time,
        "duplicate": batch.duplicate,
        "achieved": batch.achieved,
        "reached": batch.reached,
    }
    return json_format.dumps(described).encode() + b"\n"


@frozen
class Sent:
    """Records that were handed to the producer, and the lines between which they stood."""

    lines: range
    delivery: "BatchDelivery"


async def _produce(descriptor: int, size: int | None, options: Options) -> int:
    import trio

    from proglog_trio.cli.output import StandardOutput
    from proglog_trio.cli.terminal.progress import progress
    from proglog_trio.cli.terminal.waiting import waiting_is_told
    from proglog_trio.client import (
        Acknowledgement,
        ConnectionConfig,
        DeliveryTimeout,
        NodeUnreachable,
        ProducerConfig,
        RecordsNotDelivered,
        open_producer,
    )
    from proglog_trio.node.log_output import configure_log_output

    configure_log_output("console", "warning")

    tally = Tally()
    try:
        asked = Acknowledgement.parse(options.acknowledgement, options.acknowledgement_timeout)
        config = ProducerConfig(
            acknowledgement=asked,
            connect_timeout=options.wait,
            # nodes do not know a retry that comes later for one, and would store it twice
            delivery_timeout=min(max(options.timeout, options.wait), LONGEST_TIMEOUT),
            cluster_name=options.cluster_name,
        )
    except ValueError as error:
        raise CommandError(f"--acknowledgement: {error}", ExitCode.USAGE) from error
    settler = Settler(tally, StandardOutput() if options.json else None, trio.CancelScope())
    sending, settling = trio.open_memory_channel[Sent](_DELIVERIES)
    try:
        with progress("producing", total_bytes=size, wanted=not os.isatty(descriptor)) as count:
            connection = ConnectionConfig(tls=options.tls)
            async with (
                waiting_is_told(options.addresses) as waiting,
                open_producer(options.addresses, config, connection=connection) as producer,
                trio.open_nursery() as nursery,
            ):
                waiting.obstacle = lambda: producer.obstacle if producer.buffered_bytes else None
                nursery.start_soon(settler.run, settling)
                async with sending:
                    with settler.reading:
                        await _send_lines(descriptor, options, producer, sending, tally, count)
    except NodeUnreachable as error:
        raise failed_at(options.addresses, error, ExitCode.UNREACHABLE) from error
    except RecordsNotDelivered:
        # the first failure ends the reading, also while a batch is handed over: no task waits for that one's outcome
        if settler.failure is None:
            raise
    finally:
        if tally.sent or tally.left_out:
            report(tally.summary())
    if settler.failure is not None:
        lines, failure = settler.failure
        code = ExitCode.UNREACHABLE if isinstance(failure, DeliveryTimeout) else ExitCode.FAILED
        raise CommandError(f"lines {lines.start} to {lines.stop - 1}: {failure}", code) from failure
    return ExitCode.FAILED if tally.left_out else ExitCode.DONE


async def _send_lines(
    descriptor: int,
    options: Options,
    producer: "Producer",
    sending: "trio.MemorySendChannel[Sent]",
    tally: Tally,
    count: "Progress",
) -> None:
    from proglog_trio.cli.formats.record_forms import is_value_alone
    from proglog_trio.cli.lines import read_lines

    longest = producer.config.max_batch_bytes - _PACKING_BYTES
    longest_line = options.form.longest(longest)
    values_alone = is_value_alone(options.form) and options.given == Given()
    try:
        async with contextlib.aclosing(read_lines(descriptor, longest_line, options.delimiter)) as blocks:
            async for lines, size in blocks:
                if values_alone:
                    kept = [line for line in lines if _is_sound(line, longest_line, tally)]
                    if not kept:
                        count(size=size)
                        continue
                    delivery = await producer.send_batch([line.text for line in kept])
                else:
                    delivery = await producer.send_many(_records(lines, options, longest, longest_line, tally))
                count(records=delivery.count, size=size)
                tally.sent += delivery.count
                if delivery.count:
                    await sending.send(Sent(range(lines[0].number, lines[-1].number + 1), delivery))
    except OSError as error:
        raise CommandError(f"reading failed: {error.strerror}", ExitCode.FAILED) from error


def _is_sound(line: "Line", longest: int, tally: Tally) -> bool:
    if line.length is not None:
        tally.leave_out(line, f"its {line.length} bytes are more than the {longest} that a record can have")
        return False
    if not line.text:
        tally.leave_out(line, "it is empty")
        return False
    return True


def _records(
    lines: "list[Line]", options: Options, longest: int, longest_line: int, tally: Tally
) -> "Iterator[Record]":
    """Yield what lines stand for; a line that is no record is left out."""
    for line in lines:
        if not _is_sound(line, longest_line, tally):
            continue
        try:
            record = options.given.add_to(options.form.read(line.text))
        except ValueError as error:
            tally.leave_out(line, str(error))
            continue
        size = record_bytes(record)
        if size > longest:
            tally.leave_out(line, f"its record's {size} bytes are more than the {longest} that one can have")
            continue
        yield record
