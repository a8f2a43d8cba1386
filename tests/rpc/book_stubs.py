"""Stubs of the book's own contract, made by grpcio's compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def compile_stubs(directory: Path) -> Path:
    """Write the stubs into a directory, and return it."""
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", HERE, HERE / "book.proto"),
            *(f"--python_out={directory}", f"--grpc_python_out={directory}"),
        ],
        check=True,
    )
    return directory
