"""Text from outside, as protobuf can carry it."""


def sendable(gossiped: str) -> str:
    """Return gossiped text as UTF-8 can hold it: other programs' names are bytes that need not be text."""
    return gossiped.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
