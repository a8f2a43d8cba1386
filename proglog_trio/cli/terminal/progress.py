"""How far a long command is: a line on standard error that is drawn again and again, when that is a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """What a command tells of its progress."""

    def __call__(self, *, records: int = 0, size: int = 0, total: int | None = None) -> None:
        """Count so many more records and bytes; ``total`` is how many bytes there are in all, if that changed."""


def _show_nothing(*, records: int = 0, size: int = 0, total: int | None = None) -> None:
    """Count for no display."""


@contextmanager
def progress(what: str, *, total_bytes: int | None = None, wanted: bool = True) -> Iterator[Progress]:
    """Show progress while the block runs, if it is ``wanted`` and standard error is a terminal.

    With ``total_bytes`` (0 if that is told later) there is a bar, which grows with the bytes that are counted.
    """
    if not (wanted and sys.stderr.isatty()):
        yield _show_nothing
        return
    # imported late: rich takes a while, and scripts never see it
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TransferSpeedColumn

    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        *([BarColumn(), TextColumn("{task.percentage:>3.0f} %")] if total_bytes is not None else []),
        TextColumn("{task.fields[records]:,} records"),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=total_bytes, records=0)
        seen = 0

        def count(*, records: int = 0, size: int = 0, total: int | None = None) -> None:
            nonlocal seen
            seen += records
            shown.update(task, total=total, advance=size, records=seen)

        yield count
