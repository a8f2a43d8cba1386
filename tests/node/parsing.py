"""Reading a node's options as its command does."""

from pathlib import Path

from proglog_trio.cli.node import app as node_app
from proglog_trio.node.config import NodeConfig


def parse(*arguments: str) -> NodeConfig:
    """What `node` is given for these arguments, without running it."""
    _, bound, _ = node_app.parse_args(arguments, exit_on_error=False, print_error=False)
    config = bound.arguments.get("config") or NodeConfig()
    assert isinstance(config, NodeConfig)
    return config


def write(path: Path, text: str) -> str:
    file = path / "node.toml"
    file.write_text(text, "utf-8")
    return str(file)
