"""Whether a log takes records, and when it does again after it did not for want of room."""

from __future__ import annotations

from attrs import define

from proglog_trio.units import KIBIBYTE

MAX_LOOKS_LEFT_OUT = 120
_MARGIN = 16


@define
class Room:
    """What is known of the room on a log's disk. It reads no clock: somebody looks at the disk regularly, and tells.

    Attributes:
        reserve_bytes: so much is left free; 0: the disk may be filled.
        reason: why the log takes no records, for people; None: it takes some.
        is_passing: it will take some again by itself.
    """

    reserve_bytes: int = 0
    reason: str | None = None
    is_passing: bool = False
    _wanted: int = 0
    _failures: int = 0
    _left_out: int = 0

    def ends(self, reason: str) -> None:
        """Take note that the log takes nothing more until it is opened again, whatever was so before."""
        self.reason, self.is_passing = reason, False

    def failed(self, reason: str, wanted: int) -> None:
        """Take note that writing so many bytes failed and that nothing of them is left on the disk."""
        if self.reason is not None and not self.is_passing:
            return
        self.reason, self.is_passing = f"{reason}; it goes on when there is room", True
        self._wanted = wanted
        # The disk may say that there is room and refuse all the same: a quota, no inode, a limit of the file's size.
        self._left_out = min(2**self._failures - 1, MAX_LOOKS_LEFT_OUT)
        self._failures = min(self._failures + 1, MAX_LOOKS_LEFT_OUT)

    def written(self) -> None:
        """Take note that writing works."""
        self._failures = 0

    def looked(self, free_bytes: int) -> bool:
        """Take note of how much is free; tell whether that changes reason."""
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
