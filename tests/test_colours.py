import io
import sys

import pytest
from rich.console import Console

from proglog_trio.colours import Colour, may_have_colours, painted


class Stream(io.StringIO):
    """A stream that may say it is a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("no_colour", [None, "", "1", "0"])
@pytest.mark.parametrize("force_colour", [None, "", "1"])
@pytest.mark.parametrize("kind", ["xterm-256color", "dumb", "unknown"])
def test_as_rich_decides(terminal: bool, no_colour: str | None, force_colour: str | None, kind: str) -> None:
    given = {"NO_COLOR": no_colour, "FORCE_COLOR": force_colour, "TERM": kind}
    environ = {name: value for name, value in given.items() if value is not None}
    console = Console(file=Stream(terminal=terminal), _environ=environ)
    richs = console.color_system is not None and not console.no_color
    assert may_have_colours(Stream(terminal=terminal), environ) == richs


def test_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "NO_COLOR": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    terminal = Stream(terminal=True)
    assert painted("text", Colour.FAILED, terminal) == "\x1b[31mtext\x1b[0m"
    assert painted("text", None, terminal) == "text"
    assert painted("text", Colour.FAILED, Stream(terminal=False)) == "text"
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted("text", Colour.FAILED, terminal) == "text"
    assert painted("text", Colour.FAILED, sys.stdout) == "text"
