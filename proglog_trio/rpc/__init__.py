"""gRPC: the one place where asyncio code lives.

`http2` is the transport, and says how all of it works; `messages` what stands on the wire; `server` serves; `calls` is
what this program asks of other nodes. Imports go downwards: server and calls know messages, messages knows http2.
"""

from proglog_trio.rpc.http2.library_fixes import ask_asyncio_each_time

# here, where it comes before whatever of this package makes a call or answers one
ask_asyncio_each_time()
