"""The form of records that a command's options stand for."""

from typing import TYPE_CHECKING

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.formats.record_options import Format
from proglog_trio.cli.structlog_loading import load_structlog_without_rich
from proglog_trio.node.garbage import put_off

if TYPE_CHECKING:
    from proglog_trio.cli.formats.record_forms import RecordForm


def chosen_form(name: Format, delimiter: bytes, key_separator: str | None) -> "RecordForm":
    """Return the form that the options of a command stand for; raises CommandError if they do not go together."""
    with put_off():
        load_structlog_without_rich()
        from proglog_trio.cli.formats.record_forms import record_form

    if key_separator == "":
        raise CommandError("--key-separator must not be empty.", ExitCode.USAGE)
    separator = None if key_separator is None else key_separator.encode("utf-8", "surrogateescape")
    try:
        return record_form(name, delimiter, separator)
    except ValueError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
