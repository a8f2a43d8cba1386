"""``proglog-trio log new-id``."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.node_commands import report

app = App(name="new-id")


@app.default
def new_id(directory: Annotated[Path, Parameter(help="The data directory, which no node uses.")], /) -> int:
    """Make a copy of a data directory a directory of its own, so that a node can use it beside the original.

    What it holds stays. Two nodes of one cluster that use copies of one directory at the same time would each count for
    the other; the one that was started later ends, until it has an id of its own.
    """
    from proglog_trio.errors import DataDirectoryError
    from proglog_trio.log.new_id import give_new_id

    try:
        changed = give_new_id(directory)
    except DataDirectoryError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    report(f"{directory} had the id {changed.before.hex()} and has {changed.after.hex()} now")
    return ExitCode.DONE
