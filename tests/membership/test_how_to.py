"""The examples of docs/how-to/embedded-membership.md run as they stand there."""

import re
import sys
from pathlib import Path

import pytest
import trio

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "embedded-membership.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
# What each prints; None: it needs an agent, and is run among the tests with agents.
SAID: list[list[str] | None] = [
    ["a gossips at 127.0.0.1", "b knows ['a', 'b']", "a knows b as alive with the tags {'role': 'db'}", "b has left"],
    ["connect to b at 10.0.0.7:8400", "hang up on b"],
    [
        "the tag 'id' is what the node itself tells the others: it cannot be changed",
        "after a restart: {'role': 'db', 'id': '7'}",
    ],
    ["a hears deploy version 7", "b answers 0.5 as a asks now"],
    None,
    [f"{operation}-key done by ['a', 'b'] problems {{}}" for operation in ("install", "use", "remove")],
    ["b knows ['a', 'b']"],
    ["b is told: b: not of the blue team", "a knows ['a']"],
]


async def run_example(example: str) -> list[str]:
    """Return the lines that an example prints."""
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
    return [line for line in output.splitlines() if not re.match(r"\S*\d{4}-\d\d-\d\d ", line)]


@pytest.mark.system
async def test_all_examples() -> None:
    assert len(EXAMPLES) == len(SAID)
    for example, said in zip(EXAMPLES, SAID, strict=True):
        if said is None:
            continue
        # The port in it is another each time.
        lines = [re.sub(r"(?<=told: ).*(b: not of the blue team)", r"\1", line) for line in await run_example(example)]
        assert lines == said
