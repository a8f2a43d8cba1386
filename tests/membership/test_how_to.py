"""The examples of docs/how-to/embedded-membership.md run as they stand there."""

import re
import sys
from pathlib import Path

import trio

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "embedded-membership.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
SAID = [
    "a gossips at 127.0.0.1\nb knows ['a', 'b']\na knows b as alive with the tags {'role': 'db'}\nb has left\n",
    "connect to b at 10.0.0.7:8400\nhang up on b\n",
    "install-key done by ['a', 'b'] problems {}\n"
    "use-key done by ['a', 'b'] problems {}\n"
    "remove-key done by ['a', 'b'] problems {}\n",
]


async def run_example(example: str) -> str:
    """Return what an example prints."""
    with trio.fail_after(120):
        ended = await trio.run_process(
            [sys.executable, "-W", "error", "-c", example],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    output = ended.stdout.decode()
    assert ended.returncode == 0, output + ended.stderr.decode()
    # What structlog writes when a program has not configured it: a line that begins with the time.
    return "".join(line for line in output.splitlines(keepends=True) if not re.match(r"\S*\d{4}-\d\d-\d\d ", line))


async def test_all_examples() -> None:
    assert len(EXAMPLES) == len(SAID)
    for example, said in zip(EXAMPLES, SAID, strict=True):
        assert await run_example(example) == said
