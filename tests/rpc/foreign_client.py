"""A client made of grpcio and of stubs of the book's contract; a process of its own, told what to do by its arguments.

Usage: foreign_client.py STUBS ADDRESS COMMAND COUNT [CERTIFICATES CLIENT]; prints what it found as JSON. Several
commands, and as many counts, are separated by commas, and what they found is a list. Certificates are a directory as
the book has it: ca.pem, CLIENT-client.pem, CLIENT-client-key.pem.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

TIMEOUT = 60


class BookClient:
    def __init__(self, stubs: str, address: str, certificates: str = "", client: str = "") -> None:
        sys.path.insert(0, stubs)
        self.messages = importlib.import_module("book_pb2")
        if certificates:
            names = ("ca.pem", f"{client}-client-key.pem", f"{client}-client.pem")
            authority, key, chain = ((Path(certificates) / name).read_bytes() for name in names)
            credentials = grpc.ssl_channel_credentials(authority, key, chain)
            self.channel = grpc.secure_channel(address, credentials)
        else:
            self.channel = grpc.insecure_channel(address)
        self.stub = importlib.import_module("book_pb2_grpc").LogStub(self.channel)

    def _record(self, number: int) -> Any:
        return self.messages.ProduceRequest(record=self.messages.Record(value=b"record %d" % number, term=3, type=4))

    def produce(self, count: int) -> list[int]:
        return [self.stub.Produce(self._record(number), timeout=TIMEOUT).offset for number in range(count)]

    def consume(self, count: int) -> list[str]:
        values = []
        for offset in range(count):
            record = self.stub.Consume(self.messages.ConsumeRequest(offset=offset), timeout=TIMEOUT).record
            assert (record.offset, record.term, record.type) == (offset, 0, 0), record
            values.append(record.value.decode())
        return values

    def produce_stream(self, count: int) -> list[int]:
        def requests() -> Iterator[Any]:
            for number in range(count):
                yield self._record(number)

        return [answer.offset for answer in self.stub.ProduceStream(requests(), timeout=TIMEOUT)]

    def consume_stream(self, count: int) -> list[str]:
        values: list[str] = []
        stream = self.stub.ConsumeStream(self.messages.ConsumeRequest(offset=0), timeout=TIMEOUT)
        for answer in stream:
            assert answer.record.offset == len(values), answer
            values.append(answer.record.value.decode())
            if len(values) == count:
                stream.cancel()
                break
        return values

    def conversation(self, count: int) -> list[int]:
        """Send each record of a stream only when the one before is answered."""
        answered: list[int] = []
        may_send = threading.Semaphore(1)

        def requests() -> Iterator[Any]:
            for number in range(count):
                assert may_send.acquire(timeout=TIMEOUT)
                yield self._record(number)

        for answer in self.stub.ProduceStream(requests(), timeout=TIMEOUT):
            answered.append(answer.offset)
            may_send.release()
        return answered

    def past_the_end(self, count: int) -> dict[str, Any]:
        try:
            self.stub.Consume(self.messages.ConsumeRequest(offset=count), timeout=TIMEOUT)
        except grpc.RpcError as error:
            details: dict[Any, Any] = dict(error.trailing_metadata())  # type: ignore[arg-type]  # its pairs are tuples
            return {
                "code": error.code().name,
                "details": error.details(),
                "status": details["grpc-status-details-bin"].decode("latin-1"),
            }
        raise AssertionError("there was a record")

    def empty(self, count: int) -> list[str]:
        found = []
        for request in (self.messages.ProduceRequest(), self.messages.ProduceRequest(record=self.messages.Record())):
            try:
                self.stub.Produce(request, timeout=TIMEOUT)
            except grpc.RpcError as error:
                found.append(f"{error.code().name}: {error.details()}")
        return found

    def deadline(self, count: int) -> str:
        try:
            for _ in self.stub.ConsumeStream(self.messages.ConsumeRequest(offset=count), timeout=0.3):
                pass
        except grpc.RpcError as error:
            return str(error.code().name)
        raise AssertionError("the stream ended")

    def unauthorized(self, count: int) -> list[str]:
        """Try to produce and to consume, as the book's test does for nobody."""
        found = []
        for call in (
            lambda: self.stub.Produce(self._record(count), timeout=TIMEOUT),
            lambda: self.stub.Consume(self.messages.ConsumeRequest(offset=0), timeout=TIMEOUT),
            lambda: list(self.stub.ProduceStream(iter([self._record(count)]), timeout=TIMEOUT)),
            lambda: next(self.stub.ConsumeStream(self.messages.ConsumeRequest(offset=0), timeout=TIMEOUT)),
        ):
            try:
                call()
            except grpc.RpcError as error:
                found.append(f"{error.code().name}: {error.details()}")
            else:
                found.append("OK")
        return found

    def servers(self, count: int) -> list[tuple[str, str, bool]]:
        found = self.stub.GetServers(self.messages.GetServersRequest(), timeout=TIMEOUT).servers
        return [(server.id, server.rpc_addr, server.is_leader) for server in found]


def main() -> None:
    stubs, address, commands, counts, *certificates = sys.argv[1:]
    client = BookClient(stubs, address, *certificates)
    results = [
        getattr(client, command)(int(count))
        for command, count in zip(commands.split(","), counts.split(","), strict=True)
    ]
    client.channel.close()
    sys.stdout.write(json.dumps(results if "," in commands else results[0]))


if __name__ == "__main__":
    main()
