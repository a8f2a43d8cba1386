"""The examples of docs/how-to/client-library.md run as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tests.client.harness import running_node
from tests.node_process import node_process
from tests.pki import Pki

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "client-library.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
SAID = [
    "stored at offset 0 as",
    "records from offset 1",
    "stored on 1 nodes, as many as asked for: True",
    "all of it is stored",
    "stored by 127.0.0.1:",
    "4 None b'value 3'\nthe next is 5",
    " bytes of values",
    "work on 1 records from offset 0",
    "101005 records; 0 offsets could not be read []",
    "",
    "1 records",
]


DRIVER = """
import sys

for example in sys.argv[1:]:
    exec(example, {"__name__": "__main__"})
    print("----", flush=True)
"""


@pytest.mark.backends("trio")  # each example runs in a process of its own, on what it says itself
async def test_all_examples(tmp_path: Path) -> None:
    assert len(EXAMPLES) == len(SAID)
    pki = Pki.make(tmp_path / "pki")
    async with (
        running_node(tmp_path / "data") as node,
        node_process(tmp_path / "secured", *pki.node_arguments()) as secured,
    ):
        programs = [
            example.replace("127.0.0.1:8400", secured.address if "ClientTls" in example else node.address)
            for example in EXAMPLES
        ]
        with anyio.fail_after(60):
            ended = await anyio.run_process(
                [sys.executable, "-W", "error", "-c", DRIVER, *programs],
                cwd=tmp_path,
                stderr=subprocess.STDOUT,
                check=False,
            )
    output = ended.stdout.decode()
    assert ended.returncode == 0, output
    for said, printed in zip(SAID, output.split("----\n"), strict=False):
        assert said in printed
