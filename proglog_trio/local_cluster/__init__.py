"""Several nodes on this machine, started, watched and ended together; see `python -m proglog_trio cluster`."""
