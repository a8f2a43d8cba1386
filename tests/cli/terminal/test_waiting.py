from types import SimpleNamespace

import pytest
import trio
import trio.testing

from proglog_trio.cli.terminal import waiting as waiting_module
from proglog_trio.cli.terminal.waiting import LOOK_SECONDS, waiting_is_told


class Terminal:
    """A standard error that says it is a terminal."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    # not in sys itself, where pytest puts back its own before the test
    monkeypatch.setattr(waiting_module, "sys", SimpleNamespace(stderr=terminal))
    monkeypatch.setattr(waiting_module, "report", terminal.said.append)
    return terminal


async def test_waiting_is_said_once_and_so_is_its_end(
    terminal: Terminal, autojump_clock: trio.testing.MockClock
) -> None:
    async with waiting_is_told(("a:1", "b:1")) as waiting:
        await trio.sleep(LOOK_SECONDS / 2)
        assert terminal.said == []
        await trio.sleep(LOOK_SECONDS * 3)
        said = ["waiting for a node: none has answered at a:1, b:1 (Ctrl-C ends this)"]
        assert terminal.said == said
        waiting.obstacle = lambda: None
        await trio.sleep(LOOK_SECONDS * 3)
        said.append("a node is there: going on")
        assert terminal.said == said
        waiting.obstacle = lambda: "refused"
        await trio.sleep(LOOK_SECONDS)
        assert terminal.said == [*said, "waiting for a node: refused (Ctrl-C ends this)"]


async def test_errors_come_out_as_they_are(terminal: Terminal) -> None:
    with pytest.raises(OSError, match=r"^as it is$"):
        async with waiting_is_told(("a:1",)):
            raise OSError("as it is")


async def test_without_a_terminal_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    async with waiting_is_told(("a:1",)):
        await trio.sleep(LOOK_SECONDS * 3)
    assert capfd.readouterr().err == ""
