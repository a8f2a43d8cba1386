"""``proglog-trio produce``."""

import contextlib
import os
import stat
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from attrs import frozen
from cyclopts import App, Parameter

from proglog_trio.cli.contexts.addresses import DEFAULT_ADDRESSES, NodeAddresses, failed_at
from proglog_trio.cli.contexts.choice import ContextName
from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.formats.form_choice import chosen_form
from proglog_trio.cli.formats.given_fields import Given, GivenHeaders, GivenKey, GivenTimestamp
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
    from proglog_trio.cli.formats.record_forms import RecordForm
    from proglog_trio.cli.records.feeder import Feeder
    from proglog_trio.cli.terminal.progress import Progress
    from proglog_trio.client import ClientTls

app = App(name="produce")

# deliveries that have not been waited for; with what the producer itself buffers this bounds the memory
_DELIVERIES = 64


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
    says; what may be stored already is given up after 5 minutes at most, since it could be stored twice then. An empty
    line or one that is too large is named, with its number, and left out; the exit code is 1 then. At the end, a line
    on standard error says how many records are stored, and where.
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


async def _produce(descriptor: int, size: int | None, options: Options) -> int:
    import trio

    from proglog_trio.cli.output import StandardOutput
    from proglog_trio.cli.records.feeder import Feeder
    from proglog_trio.cli.records.settler import Sent, Settler
    from proglog_trio.cli.records.tally import Tally
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
                feeder = Feeder(
                    producer=producer,
                    settler=settler,
                    sending=sending,
                    form=options.form,
                    given=options.given,
                    patience=options.wait if options.wait > LONGEST_TIMEOUT else 0.0,
                )
                async with sending:
                    with settler.reading:
                        await _feed(descriptor, options.delimiter, feeder, count)
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


async def _feed(descriptor: int, delimiter: bytes, feeder: "Feeder", count: "Progress") -> None:
    from proglog_trio.cli.records.lines import read_lines

    try:
        async with contextlib.aclosing(read_lines(descriptor, feeder.longest_line, delimiter)) as blocks:
            async for lines, size in blocks:
                count(records=await feeder.feed(lines) if lines else 0, size=size)
    except OSError as error:
        raise CommandError(f"reading failed: {error.strerror}", ExitCode.FAILED) from error
