"""``proglog-trio log``: the commands that need no node."""

from cyclopts import App

from proglog_trio.cli.log import dump, new_id, verify

app = App(name="log", help="Look into a data directory without a node.")
app.command(verify.app)
app.command(dump.app)
app.command(new_id.app)
