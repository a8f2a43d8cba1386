"""Fuzz one target with atheris: `python -m fuzz.one TARGET DIRECTORY [libFuzzer's options]`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import atheris
import structlog

with atheris.instrument_imports(
    include=["proglog_trio", "dnslib", "grpclib", "h2", "hpack", "hyperframe"], enable_loader_override=False
):
    from fuzz import agent_requests, pulls, seeds
    from fuzz.targets import targets

SEEDS = {
    "packets": seeds.packets,
    "streams": seeds.streams,
    "frames": seeds.frames,
    "messages": seeds.messages,
    "questions": seeds.questions,
    "pulls": pulls.seeds,
    "connections": seeds.connections,
    "agent-requests": agent_requests.seeds,
}


def main() -> None:
    """Write the seeds into the directory and fuzz; ends the process."""
    name, directory, *options = sys.argv[1:]
    corpus = Path(directory)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]()):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet, logger_factory=structlog.ReturnLoggerFactory())
    logging.disable(logging.CRITICAL)
    with targets() as known:
        atheris.Setup([sys.argv[0], *options, directory], known[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
