"""How many files a node may have open: connections are files as well."""

import resource

MAX_OPEN_FILES = 65_536
_FOR_THE_REST = 512
"""Left for the log's segments, gossip and whatever is opened for a moment: without one, a log turns read-only."""


def allow_many_open_files() -> None:
    """Raise the process's soft limit to what the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_that_fit(wanted: int) -> int:
    """Return how many connections there may be, of those wanted, for the log to have files left; at least 16."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(16, min(wanted, soft - _FOR_THE_REST))
