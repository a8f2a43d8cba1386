"""Standard input, output and error as a process of ours has them: always open, and with errors that can be told apart.

A process may be started with any of them closed, full, or with no process at the other end. What then holds:

- Descriptors 0 to 2 are taken. Otherwise the next file or socket would get one of them, and with it whatever is
  written there. In place of one that is closed there is /dev/null, opened for the other direction: using it fails.
- Writing to standard output either works or raises OutputError, which is about nothing else, and does so once: what is
  flushed afterwards, by the interpreter's end at the latest, is dropped.
- Writing to standard error never fails. What cannot be written is dropped and counted.
"""

import errno
import io
import os
import select
import sys
from typing import IO, TextIO, TypeAlias

from attrs import define

# what a file object takes for bytes (collections.abc.Buffer, from Python 3.12 on)
_Bytes: TypeAlias = "bytes | bytearray | memoryview"

_OPEN_ANEW = {0: os.O_WRONLY, 1: os.O_RDONLY, 2: os.O_RDONLY}


class OutputError(Exception):
    """Standard output cannot be written. The message is one line.

    Attributes:
        has_no_reader: the process that read it has had enough (`consume | head`), which is no failure of ours.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror}")
        self.has_no_reader = error.errno == errno.EPIPE


@define
class DroppedOutput:
    """What could not be written to standard error.

    Attributes:
        dropped_lines: how many lines, each of them whole or in part.
    """

    dropped_lines: int = 0


def write_all(descriptor: int, data: _Bytes) -> None:
    """Write all of it, waiting for its reader, also where the descriptor itself does not wait. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            writable = select.poll()
            writable.register(descriptor, select.POLLOUT)
            writable.poll()


class _OutputFile(io.FileIO):
    """Standard output: raises OutputError once, and drops everything after that."""

    _failed = False

    def write(self, data: _Bytes) -> int:  # type: ignore[override]
        if not self._failed:
            try:
                write_all(self.fileno(), data)
            except OSError as error:
                self._failed = True
                raise OutputError(error) from error
        return len(data)


class _ErrorFile(io.FileIO):
    """Standard error: counts what cannot be written.

    It does not wait for a reader where the descriptor does not: nothing of ours may depend on that one.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.dropped = DroppedOutput()

    def write(self, data: _Bytes) -> int:  # type: ignore[override]
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.fileno(), view) :]
        except OSError:
            self.dropped.dropped_lines += max(1, bytes(view).count(b"\n"))
        return len(data)


def prepare_standard_streams() -> None:
    """Make the process's streams such as is described above. To be called before anything else may open a file."""
    for descriptor, flags in _OPEN_ANEW.items():
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest one that is free, which is this one: those below it are taken.
            os.open(os.devnull, flags)
            os.set_inheritable(descriptor, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = _text(_OutputFile(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_ErrorFile(2), sys.stderr, errors="backslashreplace", line_buffering=True)


def _text(raw: io.FileIO, former: TextIO | None, *, errors: str = "strict", line_buffering: bool = False) -> TextIO:
    """Return a text stream like the one that the interpreter made, if it made one."""
    if not isinstance(former, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(raw), errors=errors, line_buffering=line_buffering)
    # `python -u`: nothing is kept back
    unbuffered = isinstance(former.buffer, io.RawIOBase)
    binary: IO[bytes] = raw if unbuffered else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        binary,
        encoding=former.encoding,
        errors=former.errors,
        line_buffering=former.line_buffering,
        write_through=former.write_through,
    )


def dropped_output(stream: TextIO) -> DroppedOutput:
    """Return what counts for standard error; nothing will, if the stream is another one."""
    binary = getattr(stream, "buffer", None)
    raw = getattr(binary, "raw", binary)
    return raw.dropped if isinstance(raw, _ErrorFile) else DroppedOutput()
