"""Signals that end the process, also where it is the first one of a container.

The kernel has no default actions for the first process of a PID namespace: SIGTERM has no effect there unless a handler
is installed (pid_namespaces(7)).
"""

import os
import signal
from types import FrameType
from typing import NoReturn

_FIRST_PROCESS = 1


def end_on(*numbers: signal.Signals) -> None:
    """Have these signals end the process from now on, at once and without unwinding.

    By default that is the kernel's work, which no code of ours can hold up. The first process of a PID namespace ends
    itself when the interpreter comes to it, with the exit code that a shell shows for the signal.
    """
    action = _end if os.getpid() == _FIRST_PROCESS else signal.SIG_DFL
    for number in numbers:
        signal.signal(number, action)


def end_as_by_default() -> None:
    """Give the first process of a PID namespace what all others have by default: signals that end it.

    One that the parent process wants ignored stays so. The interpreter itself handles SIGINT.
    """
    if os.getpid() == _FIRST_PROCESS:
        ending = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
        end_on(*(number for number in ending if signal.getsignal(number) is signal.SIG_DFL))


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)
