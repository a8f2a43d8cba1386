"""gRPC: the one place where asyncio code lives, and the client library on top of it."""

from proglog_trio.rpc.http2.library_fixes import ask_asyncio_each_time

# here, where it comes before whatever of this package makes a call or answers one
ask_asyncio_each_time()
