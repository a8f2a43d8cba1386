"""Whether a log takes records, and when it does again after it did not for want of room.

It is in one of four states:

- *open*: it takes records.
- *full*: it takes none for want of room; what is on the disk is known, and it goes on by itself when there is room.
- *read-only*: it takes none until it is opened again: a sync failed, say, so that it is not known what the disk has.
- *closing*: it takes none, whatever was so before, and never will.
"""

from __future__ import annotations

from attrs import define

from proglog_trio.errors import LogClosed, LogReadOnly
from proglog_trio.units import KIBIBYTE

MAX_LOOKS_LEFT_OUT = 120
_MARGIN = 16


@define
class Room:
    """The state that a log is in, and what is known of the room on its disk.

    It reads no clock: the disk watch looks at the disk regularly, and tells what is free.

    Attributes:
        reserve_bytes: so much is left free; 0: the disk may be filled.
        reason: why the log is full or read-only, for people; None: it is neither.
        is_passing: it is full, not read-only.
        closing: it is to take nothing any more; never becomes False again.
    """

    reserve_bytes: int = 0
    reason: str | None = None
    is_passing: bool = False
    closing: bool = False
    # While full: the bytes that there was no room for, and how many looks that find room are not believed yet. Failures
    # are those since something was written.
    _wanted: int = 0
    _failures: int = 0
    _left_out: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the log takes records."""
        return self.reason is None and not self.closing

    def check_open(self) -> None:
        """Raise LogClosed or LogReadOnly unless the log takes records."""
        if self.closing:
            raise LogClosed("the log is closing")
        if self.reason is not None:
            raise LogReadOnly(self.reason)

    def ends(self, reason: str) -> None:
        """Become read-only, whatever was so before."""
        self.reason, self.is_passing = reason, False

    def failed(self, reason: str, wanted: int) -> None:
        """Become full, since so many bytes could not be written and nothing of them is left on the disk."""
        if self.reason is not None and not self.is_passing:
            return
        self.reason, self.is_passing = f"{reason}; it goes on when there is room", True
        self._wanted = wanted
        # The disk may say that there is room and refuse all the same: a quota, no inode, a limit of the file's size.
        self._left_out = min(2**self._failures - 1, MAX_LOOKS_LEFT_OUT)
        self._failures = min(self._failures + 1, MAX_LOOKS_LEFT_OUT)

    def written(self) -> None:
        """Believe the disk again: something was written."""
        self._failures = 0

    def looked(self, free_bytes: int) -> bool:
        """Go by how many bytes are free on the disk; tell whether that changes reason."""
        if self.reason is None:
            if self.reserve_bytes and free_bytes < self.reserve_bytes:
                self._reserve_reached()
                return True
            return False
        if not self.is_passing:
            return False
        # With a margin, so that it does not end again at once.
        if free_bytes < max(self._wanted, 1) + self.reserve_bytes + self.reserve_bytes // _MARGIN:
            return False
        if self._left_out:
            self._left_out -= 1
            return False
        self.reason, self.is_passing = None, False
        return True

    def _reserve_reached(self) -> None:
        self.failed(reserve_reached(self.reserve_bytes), 0)
        self._failures = self._left_out = 0


def reserve_reached(reserve_bytes: int) -> str:
    """Say that what is kept free is reached."""
    return f"the log takes no more records since less than {_readable(reserve_bytes)} are free on its disk"


def _readable(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 10 * KIBIBYTE or unit == "GiB":
            break
        size //= KIBIBYTE
    return f"{size} {unit}"
