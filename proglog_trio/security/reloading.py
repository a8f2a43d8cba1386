"""What is read from files, and read again when they change: certificates, access policies.

A new version takes the place of the old one whole or not at all: while the new files are wrong, or only some of them
have been replaced, what was read before stays in force, and the reason is logged once for each state of the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog
import trio
from attrs import define, field

from proglog_trio.errors import ProglogError
from proglog_trio.internal_errors import InternalErrors, Where

CHECK_SECONDS = 2.0
"""How often files are looked at; notification by the system does not reach over network file systems."""

Value = TypeVar("Value")
_Signature = tuple[tuple[int, int, int, int] | None, ...]
_logger = structlog.get_logger(__name__)


@define(eq=False)
class FromFiles(Generic[Value]):
    """A value that files stand for; make one with read.

    Attributes:
        name: what it is, for the log.
        paths: the files that it is read from.
        value: what was read last without an error.
        reloads, failures: how often it was read again, with and without success.
    """

    name: str
    paths: Sequence[Path]
    value: Value
    _load: Callable[[], Value]
    _signature: _Signature
    reloads: int = 0
    failures: int = 0
    _listeners: list[Callable[[], None]] = field(factory=list)

    @classmethod
    def read(cls, name: str, paths: Sequence[Path], load: Callable[[], Value]) -> FromFiles[Value]:
        """Read the value for the first time.

        Args:
            name: what it is, for the log.
            paths: the files that load reads.
            load: reads them; raises ProglogError, which is raised here as well.
        """
        # Before the files are read: what is written meanwhile shows as a change at the next look.
        signature = _signature(paths)
        return cls(name, tuple(paths), load(), load, signature)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have listener called, by the task that refreshes, each time after the value has changed."""
        self._listeners.append(listener)

    def refresh(self, *, always: bool = False) -> bool:
        """Read the value again if a file has changed, or always; tell whether it was read. Never raises ProglogError.

        Reads files; may be called in a thread.
        """
        signature = _signature(self.paths)
        if signature == self._signature and not always:
            return False
        # Also if reading fails: the reason is logged once for each state of the files.
        self._signature = signature
        try:
            self.value = self._load()
        except ProglogError as error:
            self.failures += 1
            _logger.error(f"{self.name}: not read again, what was read before stays in force", reason=str(error))
            return False
        self.reloads += 1
        _logger.info(f"{self.name}: read again")
        return True

    def tell(self, errors: InternalErrors) -> None:
        """Tell the listeners that the value has changed; one that fails keeps the others from nothing."""
        boundary = errors.boundary(Where.SECURITY_RELOAD, file_of=self.name)
        for listener in self._listeners:
            with boundary:
                listener()


def _signature(paths: Sequence[Path]) -> _Signature:
    """Return what changes when a file is written or replaced, also through a symbolic link that is switched."""
    found: list[tuple[int, int, int, int] | None] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


@define(eq=False)
class Reloader:
    """Reads values again when their files change, or when it is told to.

    Attributes:
        values: what it looks after.
        errors: where unforeseen errors are counted.
    """

    values: Sequence[FromFiles[Any]]
    errors: InternalErrors = field(factory=InternalErrors)
    _asked: trio.Event = field(factory=trio.Event)

    def reload(self) -> None:
        """Have everything read again now, changed or not; returns at once."""
        self._asked.set()

    async def run(self, check_seconds: float = CHECK_SECONDS) -> None:
        """Look after the values until cancelled.

        Args:
            check_seconds: how often the files are looked at; math.inf: only when told to.
        """
        if not self.values:
            check_seconds = math.inf
        turns = self.errors.turns(Where.SECURITY_RELOAD)
        while True:
            async with turns:
                with trio.move_on_after(check_seconds):
                    await self._asked.wait()
                asked = self._asked.is_set()
                if asked:
                    self._asked = trio.Event()
                    if not self.values:
                        _logger.info("told to read files again, but no certificate and no policy was given")
                for value in self.values:
                    # What was read before stays in force, and the other files are read all the same.
                    with self.errors.boundary(Where.SECURITY_RELOAD, file_of=value.name):
                        # In a thread: a network file system may keep it waiting.
                        if await trio.to_thread.run_sync(partial(value.refresh, always=asked)):
                            value.tell(self.errors)
