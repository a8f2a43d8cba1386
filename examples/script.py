"""A script without any loop: it stores each line of standard input, and prints what the log got meanwhile.

Run it with: ls | python examples/script.py 127.0.0.1:8400
"""

import sys

from proglog_trio.client.sync import Anchor, DeliveryError, Record, open_consumer, open_producer


def main(address: str) -> int:
    with open_consumer(address, anchor=Anchor.END) as consumer, open_producer(address) as producer:
        lines = (line.rstrip(b"\n") for line in sys.stdin.buffer)
        delivery = producer.send_many(Record(line, key=b"line") for line in lines if line)
        try:
            parts = delivery.wait(timeout=60)
        except (DeliveryError, TimeoutError) as error:
            print("not all lines are stored:", error, file=sys.stderr)
            return 1
        if parts:
            last = parts[-1].origin, parts[-1].base_sequence + parts[-1].count - 1
            for record in consumer:
                print(record.offset, record.value.decode(errors="replace"))
                if (record.origin, record.sequence) == last:
                    break
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8400"))
