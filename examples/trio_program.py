"""A Trio program that answers: for each record with the key "question" it writes one with the key "answer".

Run it with: python examples/trio_program.py 127.0.0.1:8400
It keeps its place in the file "position", goes on there when it is started again, and ends with Ctrl-C or SIGTERM.
"""

import signal
import sys

import trio

from proglog_trio.client import open_consumer, open_producer

PLACE = trio.Path("position")


async def answer(address: str) -> None:
    position = await PLACE.read_bytes() if await PLACE.exists() else None
    async with open_producer(address) as producer, open_consumer(address, position=position) as consumer:
        async for batch in consumer.batches():
            for record in batch:
                if record.key == b"question":
                    producer.observe(record.log_time)
                    await producer.send(record.value.upper(), key=b"answer")
            await producer.flush()
            await PLACE.write_bytes(batch.position)


async def main(address: str) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, address)
            await anext(signals)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8400")
