"""gRPC: the one place where asyncio code lives, and the client library on top of it."""
