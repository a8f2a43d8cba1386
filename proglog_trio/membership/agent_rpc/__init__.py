"""The protocol in which clients of a Serf agent speak to it: the `serf` command, and libraries such as serfclient.

```
server     listens, and has a task for each connection (server.py, connection.py, outbox.py)
session    what a client may do now, and what becomes of each of its requests; no I/O (session.py)
commands   does what is asked (commands.py, member_records.py, statistics.py, log_lines.py)
wire       requests and answers, in Serf's old form of msgpack (messages.py, request_decoder.py)
```

The protocol is described on the RPC page of Serf's own documentation; what an agent says word for word was learned
from running ones.
"""
