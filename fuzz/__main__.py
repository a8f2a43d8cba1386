"""Fuzz every target, each in a process of its own, and count the cases: `python -m fuzz [--cases N] [TARGET ...]`.

Fails when a target fails, needs more than 10 s for a case or more than 1 GiB, or when fewer cases were run than asked
for. What made a target fail is kept in the directory, as crash-… or timeout-….
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# shares of the cases; a connection costs as much as several packets
SHARES = {
    "packets": 0.25,
    "streams": 0.17,
    "frames": 0.18,
    "messages": 0.12,
    "questions": 0.1,
    "pulls": 0.1,
    "agent-requests": 0.06,
    "connections": 0.02,
}
LONGEST_CASE_SECONDS = 10
MAX_MEBIBYTES = 1024
LONGEST_INPUT = {"connections": 2048}


def run(target: str, cases: int, seed: int, directory: Path) -> tuple[int, int]:
    """Run one target; return how many cases were run and the most memory, in MiB. Exits on a failure."""
    options = [
        f"-runs={cases}",
        f"-seed={seed}",
        f"-max_len={LONGEST_INPUT.get(target, 1400)}",
        f"-timeout={LONGEST_CASE_SECONDS}",
        f"-rss_limit_mb={MAX_MEBIBYTES}",
        f"-artifact_prefix={directory}/{target}-",
        "-print_final_stats=1",
        "-len_control=0",
    ]
    command = [sys.executable, "-m", "fuzz.one", target, str(directory / f"corpus-{target}"), *options]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode:
        sys.exit(
            f"{target} failed with {done.returncode}; its input is in {directory}\n{done.stdout}\n{done.stderr[-8000:]}"
        )
    counted = re.search(r"number_of_executed_units:\s+(\d+)", done.stderr)
    memory = re.search(r"peak_rss_mb:\s+(\d+)", done.stderr)
    if counted is None or memory is None:
        sys.exit(f"{target} did not say how many cases it ran:\n{done.stderr[-8000:]}")
    number, most = int(counted[1]), int(memory[1])
    print(f"{target:<12} {number:>9,} cases  {most:>5} MiB at most  {time.monotonic() - began:6.0f} s", flush=True)
    return number, most


def main() -> None:
    """Fuzz, and say how much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *SHARES], help="which; default: all")
    parser.add_argument("--cases", type=int, default=1_000_000, help="of all targets together (default: 1,000,000)")
    parser.add_argument("--seed", type=int, default=1, help="other seeds try other input (default: 1)")
    parser.add_argument("--directory", type=Path, default=None, help="keeps the corpus for the next run, and failures")
    arguments = parser.parse_args()
    chosen = arguments.targets or list(SHARES)
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="proglog-fuzz-"))
    directory.mkdir(parents=True, exist_ok=True)
    share = sum(SHARES[target] for target in chosen)
    total = 0
    for target in chosen:
        cases = round(arguments.cases * SHARES[target] / share) + 1
        total += run(target, cases, arguments.seed, directory)[0]
    print(f"{total:,} cases, no failure", flush=True)
    if total < arguments.cases:
        sys.exit(f"fewer than {arguments.cases:,}")


if __name__ == "__main__":
    main()
