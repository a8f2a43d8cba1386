import subprocess
import sys

import pytest

LOAD = "from proglog_trio.cli.structlog_loading import load_structlog_without_rich; load_structlog_without_rich()"
LATER = "import sys; assert 'structlog' in sys.modules and 'rich' not in sys.modules; import rich.console"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", LATER),
        ("import rich", "import structlog.dev; assert structlog.dev.rich is rich"),
        ("import structlog", "assert structlog.dev.rich"),
    ],
    ids=["first", "after rich", "after structlog"],
)
def test_rich_is_there_for_everybody_else(before: str, after: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\n{LOAD}\n{after}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
