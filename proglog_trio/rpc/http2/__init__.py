"""HTTP/2 on asyncio, under Trio: the transport, its buffers and its keepalive, and what libraries need mended.

How it works. grpclib and h2 speak HTTP/2 on asyncio's loop, and that loop is a guest of Trio's (bridge.py,
asyncio_loop.py, callback_turns.py): all of it runs in one thread, so that nothing here needs a lock, and whatever holds
the loop holds the whole node. What a peer may decide is therefore bounded in bytes, in elements and in time on the
loop.

The way of bytes in::

    asyncio transport ── data_received
    └── TunedProtocol (transport.py)           some frames at a time; between turns reading is paused
        └── TunedConnection.feed (connection.py)        the watch hears of it; a frame too long ends the connection
            └── TolerantConnection (stream_errors.py)   h2's state machine; header blocks by header_blocks.py
        └── TunedEventsProcessor (events.py)   one event after the other, to its stream or to the handler
            └── MessageBuffer (message_buffer.py)       bytes of one stream, until its reader asks for messages

and out: a handler's task awaits TunedStream.wait_writable or send_data, which wait for both windows and for the
transport's buffer, and write at most a few frames at once.

States. A connection is *made* (our SETTINGS are sent), *greeted* (the peer's are here; until then a handshake timer
runs), and *closing*; from made to closing a PeerWatch (keepalive.py) runs exactly one timer. A stream is h2's; it is
*registered* with the processor from its request on until its handler releases it, and events of a stream that is not
registered are ignored.

Who may change what. h2's state is changed by what comes in (TunedConnection.feed) and by the streams' sending, both on
the loop; what it then has to send is written by the code that changed it, before that awaits anything. The bytes of a
DATA frame are given back to the sender's window once each: by the MessageBuffer as a reader consumes them, or as they
come while a reader waits; by grpclib what is left when a stream is released.

What holds always:

- An error belongs to the smallest thing that it is of: a message (its call), a stream (RST_STREAM), the connection
  (GOAWAY), never the loop. What is unforeseen ends the connection and is counted.
- The compression context stays in step: each header block is read to its end, or the connection ends.
- For each stream at most one window of bytes and the rest of one message is held; for each connection at most what
  streams may write at once and 1 MiB of replies that the peer does not read.
- A connection on which nothing comes is given up after two waits: for silence, and for the answer to a PING.
- A transport that is closed is aborted when the peer does not read what is left in it.
"""
