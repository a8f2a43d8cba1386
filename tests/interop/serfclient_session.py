"""What Python's serfclient gets from an agent: `python serfclient_session.py HOST PORT MEMBER`, one JSON object."""

import base64
import json
import sys
from typing import Any

from serfclient.client import SerfClient

HOST, PORT, OTHER = sys.argv[1], int(sys.argv[2]), sys.argv[3]
client = SerfClient(HOST, PORT, timeout=60)
watching = SerfClient(HOST, PORT, timeout=60)
stream = watching.stream(["user:hello"])
found = {
    "stream": stream.head,
    "join": client.join([OTHER]),
    "members": client.members(),
    "filtered": client.members(name=".*", status="alive", tags={"role": "web|db"}),
    "none": client.members(name="nobody"),
    "event": client.event("hello", "a payload", coalesce=False),
    "force_leave": client.force_leave("nobody"),
    "stats": client.stats(),
}
told = next(iter(stream.body))
found["told"] = told
client.close()
watching.close()


def plain(value: Any) -> Any:
    """Return what JSON can hold."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return {"head": value.head, "body": value.body} if hasattr(value, "head") else str(value)


sys.stdout.write(json.dumps(found, default=plain))
