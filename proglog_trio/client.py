"""The client library: write records with a Producer, read them with a Consumer. See docs/how-to/client-library.md."""

from .rpc.client import *  # noqa: F403 - its __all__ is the public surface
from .rpc.client import __all__ as __all__
