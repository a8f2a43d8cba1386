"""What it costs to write and read messages, against the generated classes' own encoder and parser.

Of a message with payload or frames both copy those; the node's own reader checks besides.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from functools import partial

import betterproto2

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.messages.codec import MessageCodec
from proglog_trio.rpc.messages.protobuf import encode_message
from proglog_trio.rpc.server.server import MAX_REST_BYTES

MIB = 1024 * 1024
SECONDS = 0.01
ROUNDS = 9
_RECORD = log_v1.Record(value=bytes(128), offset=1 << 30, origin=bytes(16), sequence=1 << 30, log_time=1 << 60)
_RANGES = [log_v1.OriginRange(origin=bytes(16), next=1 << 30, last_header_crc=1 << 31) for _ in range(50)]
MESSAGES: tuple[tuple[str, betterproto2.Message], ...] = (
    ("ProduceBatchRequest of 128 B", log_v1.ProduceBatchRequest(payload=bytes(128), count=4, producer_id=1 << 60)),
    ("ProduceBatchRequest of 1 MiB", log_v1.ProduceBatchRequest(payload=bytes(MIB), count=4, producer_id=1 << 60)),
    ("ProduceBatchResponse", log_v1.ProduceBatchResponse(base_offset=1 << 33, origin=bytes(16), log_time=1 << 60)),
    ("ConsumeResponse of 128 B", log_v1.ConsumeResponse(record=_RECORD)),
    ("ConsumeBatchesResponse of 5,000", log_v1.ConsumeBatchesResponse(base_offsets=list(range(5000)))),
    ("PullResponse of 1 MiB", log_v1.PullResponse(frames=bytes(MIB))),
    ("PullRequest of 50 origins", log_v1.PullRequest(positions=log_v1.Positions(ranges=_RANGES))),
)


def microseconds(work: Callable[[], object]) -> float:
    """The processor time of one call, the least of several rounds."""
    timer = timeit.Timer(work, timer=time.process_time)
    count = 1
    while timer.timeit(count) < SECONDS:
        count *= 2
    return min(timer.repeat(ROUNDS, count)) / count * 1e6


def main() -> None:
    """Measure all, and print how many times as long the generated classes' own way takes."""
    codec = MessageCodec(MAX_REST_BYTES)
    print(f"{'µs':<34}{'encode':>9}{'own':>9}{'ratio':>7}{'decode':>10}{'own':>9}{'ratio':>7}")
    for name, message in MESSAGES:
        kind, data = type(message), bytes(message)
        ours, theirs = microseconds(partial(encode_message, message)), microseconds(partial(bytes, message))
        read, parsed = microseconds(partial(codec.decode, data, kind)), microseconds(partial(kind.parse, data))
        encoding = f"{ours:>9.1f}{theirs:>9.1f}{theirs / ours:>7.1f}"
        print(f"{name:<34}{encoding}{read:>10.1f}{parsed:>9.1f}{parsed / read:>7.1f}", flush=True)


if __name__ == "__main__":
    main()
