"""The errors that parts of this program share: what one of them raises and another understands.

Each says what is wrong and where, in one line that can be shown to a user as it is. An error that belongs to the use of
one part alone stands with that part, and derives from ProglogError as well: those of the client library in
`client.errors`, those of the membership in its modules, those of a pull stream in `replication.events`, those of files
for security in the modules that read them, those of a local cluster with what runs it.
"""

from __future__ import annotations


class ProglogError(Exception):
    """The base of all errors raised by this package."""


# -- what a caller asked for cannot be done ----------------------------------------------------------------------------


class BatchRefused(ProglogError):
    """A batch that breaks the contract: its count, CRC, msgpack, size or attributes. Nothing of it is stored."""


class ProducerSequenceTooOld(ProglogError):
    """A producer sequence so old that the log no longer knows whether it is stored; storing it could duplicate it."""


class ProducerTableFull(ProglogError):
    """A new producer, while the table of retried batches is full of producers that were active just now."""


class OutOfRange(ProglogError):
    """A place outside what the log holds. The base of the three below."""


class OffsetOutOfRange(OutOfRange):
    """An offset outside what the log holds.

    Attributes:
        offset: the offset asked for.
        lowest, next: the log holds the offsets [lowest, next).
    """

    def __init__(self, offset: int, lowest: int, next: int) -> None:  # noqa: A002 - the log's own word for its end
        held = f"holds offsets {lowest} to {next - 1}" if next > lowest else f"is empty, its next offset is {next}"
        super().__init__(f"offset {offset} is out of range: the log {held}")
        self.offset = offset
        self.lowest = lowest
        self.next = next


class SequenceOutOfRange(OutOfRange):
    """A position that lies below what the log still has of an origin.

    Attributes:
        sequence: where the position is in the origin.
        low: the first sequence that the log has.
    """

    def __init__(self, origin: str, sequence: int, low: int) -> None:
        super().__init__(
            f"the position is out of range: it is at sequence {sequence} of origin {origin}, the log begins at {low}"
        )
        self.sequence = sequence
        self.low = low


class RecordsGivenUp(OutOfRange):
    """Records that were missing here, and that no node has any more: they will never be in their offsets.

    Attributes:
        from_offset, to_offset: the offsets [from_offset, to_offset); a reader may go on at to_offset.
    """

    def __init__(self, from_offset: int, to_offset: int) -> None:
        super().__init__(f"offsets {from_offset} to {to_offset - 1} are out of range: no node has them any more")
        self.from_offset = from_offset
        self.to_offset = to_offset


class PositionError(ProglogError):
    """Bytes that are not a position, or one of a newer version."""


# -- what was stored is not what was written ---------------------------------------------------------------------------


class FormatError(ProglogError):
    """Bytes that do not follow the log's format. The base of the decoding errors below."""


class FrameError(FormatError):
    """A portable frame that is cut off, damaged or of a version or attribute that this program does not know."""


class EnvelopeError(FormatError):
    """A local envelope that is cut off or damaged."""


class PayloadError(FormatError):
    """A payload that is no msgpack array of records.

    Attributes:
        index: the number in its batch of the first record that is wrong, or None when it is the array itself.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class SegmentError(FormatError):
    """A segment whose header, or a file whose name, is not one that this program wrote."""


class DataLoss(ProglogError):
    """Records that were stored here and cannot be read any more.

    Attributes:
        from_offset, to_offset: the offsets [from_offset, to_offset) that are damaged; a reader may go on at to_offset.
    """

    _what = "damaged"

    def __init__(self, from_offset: int, to_offset: int, detail: str) -> None:
        super().__init__(f"offsets {from_offset} to {to_offset - 1} are {self._what}: {detail}")
        self.from_offset = from_offset
        self.to_offset = to_offset
        self.detail = detail


class RecordsMissing(DataLoss):
    """Records that are missing here at present: they may be put in their offsets later."""

    _what = "missing at present"


class RepairError(ProglogError):
    """A segment that changed while it was repaired, or whose repaired file is not right; the old file stays."""


# -- the log as a whole cannot go on -----------------------------------------------------------------------------------


class DirectoryCopied(ProglogError):
    """Another node of the cluster uses a copy of this node's data directory, and was started before."""

    def __init__(self, other: str) -> None:
        super().__init__(
            f"node {other} uses a copy of this data directory and was started before this one: use another directory, "
            "or make this one a directory of its own with `proglog-trio log new-id`"
        )
        self.other = other


class LogReadOnly(ProglogError):
    """The log takes no records at present: its disk has no room, or failed. Nothing of the batch is stored."""


class OutcomeUnknown(ProglogError):
    """The disk failed while a batch was written: whether it is stored is known when the directory is opened again."""


class LogClosed(ProglogError):
    """The log is closed or closing."""


class LogBusy(ProglogError):
    """Too many bytes wait to be committed; wait for room and try again."""


class DataDirectoryError(ProglogError):
    """A data directory that cannot be used: locked, not writable, of another cluster or of a newer format."""


class DataDirectoryUnavailable(DataDirectoryError):
    """A data directory that cannot be used at present: it may be tried again."""

    may_pass = True


class DataDirectoryHeld(DataDirectoryUnavailable):
    """A data directory that another node uses."""


class DataDirectoryFull(DataDirectoryUnavailable):
    """A data directory without anything to serve, and no room on its disk to begin."""


class DataDirectoryLost(ProglogError):
    """The data directory was removed or replaced by another while it was in use: nothing in it is this log any more."""


# -- who may do what ---------------------------------------------------------------------------------------------------


class SecurityFileError(ProglogError):
    """A certificate, key, policy or keyring that cannot be used. The message names the file, and holds no key."""


class TlsError(SecurityFileError):
    """A certificate, key or authority that cannot be used. The message names the file."""


class SecurityFileNoRoom(SecurityFileError):
    """A file for security cannot be written for want of room on its disk: it may be tried again."""

    may_pass = True


# -- the network -------------------------------------------------------------------------------------------------------


class AddressUnavailable(ProglogError):
    """A server cannot listen on its address: it is in use, not this machine's, or not permitted.

    Attributes:
        may_pass: it may be tried again: the process that has the address may end, the address may come, a name may be
            known later.
    """

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class AddressUnsuitable(AddressUnavailable):
    """A name that this machine takes for an address at which no other can reach it: only a person can change that."""


class AddressInUse(AddressUnavailable):
    """A server cannot listen on its address, because another process does."""


class NameTaken(ProglogError):
    """Another member of the cluster has this node's name and is alive, or may be."""


class NodeConnectionError(ProglogError):
    """The connection to a node; the base of the next two. What was asked may succeed on a new connection."""


class ConnectionNotOpened(NodeConnectionError):
    """A node could not be connected to: nothing was sent."""


class ConnectionLost(NodeConnectionError):
    """The connection to a node ended in the middle of a call: whether the node has done what was asked is not known."""


class CallFailed(ProglogError):
    """A node answered a call with a gRPC status other than OK.

    Attributes:
        code: the number of the gRPC status.
        status: its name, such as OUT_OF_RANGE.
        message: what the node says.
        details: the google.rpc messages that came with it.
    """

    def __init__(self, code: int, status: str, message: str, details: tuple[object, ...] = ()) -> None:
        super().__init__(f"{status}: {message}" if message else status)
        self.code = code
        self.status = status
        self.message = message
        self.details = details
