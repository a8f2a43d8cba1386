"""The example of docs/how-to/serf-tools.md runs as it stands there; tests/interop runs what serfclient does."""

import re
from pathlib import Path

from tests.membership.test_how_to import run_example

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "serf-tools.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


async def test_a_program_that_offers_both() -> None:
    (example,) = (each for each in EXAMPLES if "trio.run" in each)
    assert await run_example(example) == [
        "serf members -rpc-addr would list the members of a at 127.0.0.1",
        "a answers b'hello a'",
        "a answers b'low\\n'",
    ]
