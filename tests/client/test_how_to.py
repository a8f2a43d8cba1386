"""The examples of docs/how-to/client-library.md and of the README run as they stand there, in each of their forms."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.client.harness import running_node
from tests.node_process import node_process
from tests.pki import Pki

REPOSITORY = Path(__file__).parents[2]
GUIDE = (REPOSITORY / "docs" / "how-to" / "client-library.md").read_text()
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TAB = re.compile(r"^:::\{tab-item\} (.*?)\n.*?^```python\n(.*?)^```\n:::$", re.MULTILINE | re.DOTALL)
FORMS = ("asyncio", "Trio", "Threads")
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
    "records, read with little memory",
]


DRIVER = """
import sys

for example in sys.argv[1:]:
    exec(example, {"__name__": "__main__"})
    print("----", flush=True)
"""


async def run(programs: list[str], directory: Path) -> str:
    """Run programs in one process, one after the other; return what they print."""
    with trio.fail_after(60):
        ended = await trio.run_process(
            [sys.executable, "-W", "error", "-c", DRIVER, *programs],
            cwd=directory,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    output = ended.stdout.decode()
    assert ended.returncode == 0, output
    return output


def examples(form: str) -> list[str]:
    return [example for label, example in TAB.findall(GUIDE) if label == form]


def test_each_example_has_all_forms() -> None:
    assert [label for label, _ in TAB.findall(GUIDE)] == [*FORMS] * len(SAID)
    assert PYTHON.findall(GUIDE) == [example for _, example in TAB.findall(GUIDE)]


@pytest.mark.backends("trio")  # each example runs in a process of its own, on what it says itself
@pytest.mark.parametrize("form", FORMS)
async def test_all_examples(form: str, tmp_path: Path) -> None:
    pki = Pki.make(tmp_path / "pki")
    async with (
        running_node(tmp_path / "data") as node,
        node_process(tmp_path / "secured", *pki.node_arguments()) as secured,
    ):
        programs = [
            example.replace("127.0.0.1:8400", secured.address if "ClientTls" in example else node.address)
            for example in examples(form)
        ]
        output = await run(programs, tmp_path)
    for said, printed in zip(SAID, output.split("----\n"), strict=False):
        assert said in printed


@pytest.mark.backends("trio")  # as above
async def test_the_readmes(tmp_path: Path) -> None:
    programs = PYTHON.findall((REPOSITORY / "README.md").read_text())
    assert len(programs) == 3
    assert all(len(program.splitlines()) <= 6 for program in programs)
    async with running_node(tmp_path / "data") as node:
        output = await run([program.replace("127.0.0.1:8400", node.address) for program in programs], tmp_path)
    assert output.split("----\n") == [
        "",
        "[b'from asyncio']\n",
        "stored at offset 1\n[b'from asyncio', b'from a script']\n",
        "",
    ]
