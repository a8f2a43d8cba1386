"""``proglog-trio consume``."""

import base64
import binascii
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from attrs import frozen
from cyclopts import App, Parameter, Token

from proglog_trio.cli.contexts.addresses import DEFAULT_ADDRESSES, NodeAddresses, failed_at
from proglog_trio.cli.contexts.choice import ContextName
from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.formats.form_choice import chosen_form
from proglog_trio.cli.formats.record_options import NEWLINE, Delimiter, Format
from proglog_trio.cli.node_commands import (
    ClusterName,
    Timeout,
    Wait,
    report,
    run_interruptible,
)
from proglog_trio.cli.tls_options import Tls, client_tls
from proglog_trio.node.config import LARGEST_MESSAGE_BYTES
from proglog_trio.node.option_types import flag
from proglog_trio.units import MEBIBYTE

if TYPE_CHECKING:
    from proglog_trio.cli.formats.record_forms import RecordForm
    from proglog_trio.client import ClientTls, ConnectionConfig, ConsumedBatch, MalformedRecord, SkippedRange

app = App(name="consume")

POSITION_LABEL = "position:"
"""What stands before a position that --show-position writes."""


def _decode_position(_type: type, tokens: Sequence[Token]) -> bytes:
    # as it stands in the line that says it, too
    text = tokens[0].value.strip().removeprefix(POSITION_LABEL).strip()
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{tokens[0].value!r} is no position that --show-position wrote") from None


def _in_range(lowest: int) -> Parameter:
    def check(_type: type, value: int | None) -> None:
        if value is not None and not lowest <= value < 2**64:
            raise ValueError(f"Must be from {lowest} to 2**64 - 1.")

    return Parameter(validator=check, metavar="N", allow_leading_hyphen=True)


@app.default
def consume(
    *,
    addr: NodeAddresses = DEFAULT_ADDRESSES,
    context: ContextName = None,
    cluster_name: ClusterName = None,
    from_offset: Annotated[
        int | None,
        _in_range(0),
        Parameter(
            help="Begin with the record at this offset in the log of the first node; without it and --position, with "
            "the lowest there is."
        ),
    ] = None,
    position: Annotated[
        bytes | None,
        Parameter(
            converter=_decode_position,
            n_tokens=1,
            metavar="TEXT",
            allow_leading_hyphen=True,
            help="Begin where another consume, on this node or any other, ended: what its --show-position wrote.",
        ),
    ] = None,
    count: Annotated[int | None, _in_range(1), Parameter(help="End after so many records.")] = None,
    follow: Annotated[bool, flag("At the log's end wait for new records; Ctrl-C ends it then, with code 0.")] = False,
    on_missing: Annotated[
        Literal["wait", "raise", "skip"],
        Parameter(
            help="What to do where no node has the next records: end with an error (raise); wait for those that are "
            "missing at present, or damaged (wait); go on without them, and without asking other nodes, and name them "
            "(skip).",
        ),
    ] = "raise",
    show_position: Annotated[
        bool,
        flag("At the end, write the position after the last record to standard error."),
    ] = False,
    format_: Annotated[
        Format | None,
        Parameter(
            name="--format",
            show_default=lambda _value: "raw",
            help="How a record is written: its value as it is (raw) or in base64, or a JSON object with its offset, "
            "the node whose offset that is, origin, sequence, log_time and, where it has them, timestamp, key and "
            "headers. Bytes that are no UTF-8 are in value_base64, key_base64, headers_base64.",
        ),
    ] = None,
    json: Annotated[bool, flag("The same as --format json.")] = False,
    delimiter: Delimiter = NEWLINE,
    key_separator: Annotated[
        str | None,
        Parameter(
            metavar="TEXT",
            allow_leading_hyphen=True,
            help="Write a record's key, where it has one, and TEXT in front of the value: with raw and base64.",
        ),
    ] = None,
    timeout: Timeout = 10.0,
    wait: Wait = None,
    tls: Tls = None,
) -> int:
    """Read records from a node and write their values, one a line.

    It ends at what is the log's end when it begins, unless told to --follow. After a lost connection it goes on where
    it was, without gap or repeat, at this node or another.
    """
    if from_offset is not None and position is not None:
        raise CommandError("--from-offset and --position are two places to begin: give one.", ExitCode.USAGE)
    if json and format_ not in (None, "json"):
        raise CommandError(f"--json and --format {format_} are two forms: give one.", ExitCode.USAGE)
    options = Options(
        addresses=addr,
        from_offset=from_offset,
        position=position,
        count=count,
        follow=follow,
        on_missing=on_missing,
        show_position=show_position,
        timeout=timeout,
        wait=timeout if wait is None else wait,
        form=chosen_form("json" if json else format_ or "raw", delimiter, key_separator),
        delimiter=delimiter,
        tls=client_tls(tls),
        cluster_name=cluster_name,
    )
    return run_interruptible(partial(_consume, options), after_signal=ExitCode.DONE if follow else ExitCode.INTERRUPTED)


@frozen(kw_only=True)
class Options:
    """What the command was told."""

    addresses: tuple[str, ...]
    from_offset: int | None
    position: bytes | None
    count: int | None
    follow: bool
    on_missing: Literal["wait", "raise", "skip"]
    show_position: bool
    timeout: float
    wait: float
    form: "RecordForm"
    delimiter: bytes
    tls: "ClientTls | None"
    cluster_name: str | None = None


async def _consume(options: Options) -> int:
    from proglog_trio.cli.output import StandardOutput
    from proglog_trio.cli.terminal.progress import progress
    from proglog_trio.cli.terminal.waiting import waiting_is_told
    from proglog_trio.client import ClientError, ConsumerConfig, NodeUnreachable, check_position, open_consumer
    from proglog_trio.errors import PositionError
    from proglog_trio.node.log_output import configure_log_output

    configure_log_output("console", "warning")

    if options.position is not None:
        try:
            check_position(options.position)
        except PositionError as error:
            raise CommandError(f"--position: {error}", ExitCode.USAGE) from error
    output = StandardOutput()
    writer = RecordWriter(options.form, options.delimiter)
    config = ConsumerConfig(
        offset=options.from_offset,
        position=options.position,
        follow=options.follow,
        on_missing=options.on_missing,
        connect_timeout=options.wait,
        reconnect_timeout=options.wait,
        cluster_name=options.cluster_name,
    )
    left = options.count
    position = options.position
    last: ConsumedBatch | None = None
    all_said = True
    try:
        with progress("consuming", wanted=not sys.stdout.isatty()) as counted:
            connection = reading_connection(options.tls)
            async with (
                waiting_is_told(options.addresses) as waiting,
                open_consumer(options.addresses, config, connection=connection) as consumer,
            ):
                waiting.obstacle = lambda: consumer.obstacle
                position = consumer.position
                async for whole in consumer.batches():
                    batch = whole if left is None or len(whole) <= left else whole.part(0, left)
                    _name_skipped(batch.skipped)
                    data = writer.text(batch)
                    await output.write(data)
                    last = batch
                    counted(records=len(batch), size=len(data))
                    if left is not None:
                        left -= len(batch)
                        if left == 0:
                            break
    except NodeUnreachable as error:
        raise failed_at(options.addresses, error, ExitCode.UNREACHABLE) from error
    except ClientError as error:
        raise failed_at(options.addresses, error, ExitCode.FAILED) from error
    finally:
        if last is not None:
            # Once and not after each batch: of a log with many producers it takes long to encode.
            position = last.position
        if writer.unclear_from is not None:
            report(
                f"values have the delimiter in them, from offset {writer.unclear_from} on: where one ends cannot be "
                "told; --format json or base64 keeps them apart, and so may another --delimiter"
            )
        if options.show_position and position is not None:
            all_said = report(f"{POSITION_LABEL} {base64.urlsafe_b64encode(position).decode()}")
    return ExitCode.DONE if all_said and not writer.malformed else ExitCode.FAILED


def reading_connection(tls: "ClientTls | None") -> "ConnectionConfig":
    """Return a connection that takes whatever a node may be configured to send."""
    from proglog_trio.client import ConnectionConfig, TransportConfig

    return ConnectionConfig(transport=TransportConfig(message_bytes=LARGEST_MESSAGE_BYTES + MEBIBYTE), tls=tls)


def _name_skipped(skipped: "Sequence[SkippedRange]") -> None:
    for each in skipped:
        if each.count:
            report(f"offsets {each.from_offset} to {each.to_offset - 1} are missing: {each.reason}")
        else:
            report(f"before offset {each.from_offset}: {each.reason}")


class RecordWriter:
    """Makes text of batches.

    Attributes:
        malformed: counts what cannot be read, each of which is named on standard error.
        unclear_from: the offset of the first batch in whose values the delimiter occurs, so that whoever reads the text
            cannot tell the records apart; None: there was none.
    """

    def __init__(self, form: "RecordForm", delimiter: bytes) -> None:
        self.malformed = 0
        self.unclear_from: int | None = None
        self._form = form
        self._delimiter = delimiter

    def text(self, batch: "ConsumedBatch") -> bytes:
        """Return what is written of a batch."""
        from proglog_trio.client import MalformedRecord

        try:
            return self._join(batch)
        except MalformedRecord:
            return self._join_one_by_one(batch)

    def _join(self, batch: "ConsumedBatch") -> bytes:
        if not self._delimiter:
            return b"".join(self._form.texts(batch))
        text = self._delimiter.join([*self._form.texts(batch), b""])
        if self.unclear_from is None and text.count(self._delimiter) != len(batch):
            self.unclear_from = batch.base_offset
        return text

    def _join_one_by_one(self, batch: "ConsumedBatch") -> bytes:
        from proglog_trio.client import MalformedRecord

        texts = []
        try:
            batch.rows()
        except MalformedRecord as error:
            self._count(error)
            return b""
        for index in range(len(batch)):
            try:
                texts.append(self._join(batch.part(index, 1)))
            except MalformedRecord as error:
                self._count(error)
        return b"".join(texts)

    def _count(self, error: "MalformedRecord") -> None:
        report(str(error))
        self.malformed += error.count
