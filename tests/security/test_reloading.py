from __future__ import annotations

import math
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from proglog_trio.errors import SecurityFileError
from proglog_trio.security.reloading import CHECK_SECONDS, FromFiles, Reloader


def number_in(path: Path) -> FromFiles[int]:
    def load() -> int:
        try:
            return int(path.read_text())
        except (OSError, ValueError):
            raise SecurityFileError(f"{path} holds no number") from None

    return FromFiles.read("the number", [path], load)


def replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


def test_the_first_reading_raises(tmp_path: Path) -> None:
    with pytest.raises(SecurityFileError, match="holds no number"):
        number_in(tmp_path / "missing")


def test_a_changed_file_is_read_again_and_a_wrong_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "number"
    path.write_text("1")
    number = number_in(path)
    assert not number.refresh()
    replace(path, "2")
    assert number.refresh()
    assert (number.value, number.reloads, number.failures) == (2, 1, 0)
    replace(path, "nonsense")
    assert not number.refresh()
    assert not number.refresh()
    path.unlink()
    assert not number.refresh()
    assert (number.value, number.reloads, number.failures) == (2, 1, 2)
    assert caplog.text.count("what was read before stays in force") == 2
    replace(path, "3")
    assert number.refresh()
    assert number.value == 3


def test_a_link_that_is_switched_is_a_change(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "number").write_text(name)
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "1")
    number = number_in(link / "number")
    link.unlink()
    link.symlink_to(tmp_path / "2")
    assert number.refresh()
    assert number.value == 2


async def test_told_to_reload_it_reads_what_has_not_changed_as_well(tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("1")
    number = number_in(path)
    told = trio.Event()
    number.on_change(told.set)
    reloader = Reloader([number])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reloader.run, math.inf)
        reloader.reload()
        await told.wait()
        nursery.cancel_scope.cancel()
    assert number.reloads == 1


def test_files_are_looked_at_now_and_then(tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("1")
    number = number_in(path)

    async def main() -> float:
        told = trio.Event()
        number.on_change(told.set)
        replace(path, "2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Reloader([number]).run)
            await told.wait()
            nursery.cancel_scope.cancel()
        return trio.current_time()

    begun = MockClock(rate=1000.0)
    assert trio.run(main, clock=begun) >= CHECK_SECONDS
    assert number.value == 2
