"""proglog_trio.log as other programs see it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proglog_trio import log

LOADED = "import sys, proglog_trio.log as log; log.Record; print(*sys.modules)"


def test_every_public_name_is_there() -> None:
    for name in log.__all__:
        found = getattr(log, name)
        assert found.__name__ == name
        assert found.__doc__
    assert set(log.__all__) <= set(dir(log))


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = log.Nothing  # type: ignore[attr-defined]


def test_a_name_loads_what_it_needs_and_no_more() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert not {"trio", "proglog_trio.log.log", "proglog_trio.log.opening"} & set(done.stdout.split())
