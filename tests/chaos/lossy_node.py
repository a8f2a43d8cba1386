"""`python -m tests.chaos.lossy_node …`: proglog-trio's command line, its log on a LossyDisk."""

from __future__ import annotations

from functools import partial

from proglog_trio.cli.app import main
from proglog_trio.log import opening
from proglog_trio.log.opening import open_log_files
from tests.chaos.lossy_disk import LossyDisk

if __name__ == "__main__":
    opening.open_log_files = partial(open_log_files, disk=LossyDisk())
    main()
