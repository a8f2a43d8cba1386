"""``proglog-trio log``: the commands that need no node."""

from cyclopts import App

from proglog_trio.cli import log_dump, log_new_id, log_verify

app = App(name="log", help="Look into a data directory without a node.")
app.command(log_verify.app)
app.command(log_dump.app)
app.command(log_new_id.app)
