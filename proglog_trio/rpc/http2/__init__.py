"""HTTP/2 on asyncio, under Trio: the transport, its buffers and its keepalive, and what libraries need mended."""
