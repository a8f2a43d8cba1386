"""The exit codes of the commands, which scripts may rely on."""

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """How a command ended. The meaning of each is also the text of the reference documentation."""

    def __new__(cls, value: int, meaning: str) -> Self:
        """Make a member of its number and what the number means."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    meaning: str

    DONE = 0, "Everything that was asked for is done."
    FAILED = (
        1,
        (
            "The work failed, or a part of it: a record was refused, a log is damaged, a node stopped on an error, "
            "standard output cannot be written."
        ),
    )
    USAGE = (
        2,
        (
            "Nothing was done, because it was asked for wrongly, and a person has to change something: an unknown "
            "option or key of the configuration file, a bad value, an address that may not be listened on, a data "
            "directory that cannot be used, a file that cannot be read, such as that of a certificate or a policy."
        ),
    )
    UNREACHABLE = 3, "The node could not be reached, or the connection to it was lost for good."
    ADDRESS_UNAVAILABLE = (
        4,
        (
            "A node could not listen at one of its addresses for as long as it tried (--start-timeout): another "
            "process has the port, the machine does not have the address, or its name cannot be looked up."
        ),
    )
    DIRECTORY_UNAVAILABLE = 5, "A node could not have its data directory for so long: another node uses it."
    NAME_HELD = 6, "A node could not have its name for so long: another member of the cluster has it."
    NO_ROOM = (
        7,
        "For so long there was no room on the disk for a node to begin.",
    )
    INTERRUPTED = 130, "Ended by Ctrl-C before the work was done. A node that is told to stop that way ends with 0."


class CommandError(Exception):
    """A command that cannot go on. The message is one line, shown to the user as it is.

    ``code`` is what the process exits with.
    """

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code
