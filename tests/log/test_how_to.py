"""The examples of docs/how-to/embedded-log.md run as they stand there, one after the other in one directory."""

import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "embedded-log.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
SAID = [
    "2 records are durable, from offset 0\noffset 0 None b'one'\noffset 1 b'a key' b'two'\n",
    "read [b'one', b'two']\nread [b'record 0']\n",
    "nothing was removed yet\n1 commit,",
]


def run(example: str, directory: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_examples(tmp_path: Path) -> None:
    assert len(EXAMPLES) == len(SAID)
    for example, said in zip(EXAMPLES, SAID, strict=True):
        assert said in run(example, tmp_path)


def test_following_goes_on_where_it_was(tmp_path: Path) -> None:
    assert "read [b'record 2']\n" in run(EXAMPLES[1], tmp_path)
    again = run(EXAMPLES[1], tmp_path).splitlines(keepends=True)
    assert "".join(line for line in again if line.startswith("read")) == "".join(
        f"read [b'record {number}']\n" for number in range(3)
    )
