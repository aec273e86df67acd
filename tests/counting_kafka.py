"""Counts the requests that clients send to a broker, by passing them on.

A request that is sent behind a fetch, which waits for data, counts as `HELD_UP` as well: brokers
answer the requests of a connection in their order.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kafka.protocol.api_key import ApiKey

HOST = "127.0.0.1"
HELD_UP = "held up"
#: A fetch that may wait longer than this holds others up.
SHORT_WAIT_MS = 10


class CountingKafka:
    """Passes connections on to the broker at *target_port*, once it is set, and counts requests."""

    def __init__(self) -> None:
        self.target_port = 0
        self._listener = socket.create_server((HOST, 0))
        self._lock = threading.Lock()
        # By the client's id.
        self._requests: defaultdict[str, Counter[str]] = defaultdict(Counter)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def taken(self) -> dict[str, Counter[str]]:
        """Return the requests since the last call: of each client id, by their names."""
        with self._lock:
            requests, self._requests = dict(self._requests), defaultdict(Counter)
        return requests

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        sent, answered = b"", b""
        #: Of each request that has no answer yet: whether it holds others up.
        open_requests: deque[bool] = deque()
        with (
            suppress(OSError),
            client,
            socket.create_connection((HOST, self.target_port)) as broker,
        ):
            while True:
                for source in select.select([client, broker], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client:
                        sent = self._count(sent + data, open_requests)
                    else:
                        answered = _closed(answered + data, open_requests)
                    (broker if source is client else client).sendall(data)

    def _count(self, sent: bytes, open_requests: deque[bool]) -> bytes:
        """Count the whole requests in *sent*; return the rest."""
        while (size := _message_bytes(sent)) is not None:
            # The header: key, version, correlation id, and the client's id.
            key, _, _, length = struct.unpack(">hhih", sent[4:14])
            body = 14 + max(length, 0)
            client_id, name = sent[14:body].decode(), ApiKey(key).name
            # Behind the header's tagged fields, of which there are none: a replica's id, the wait.
            wait_ms = struct.unpack(">i", sent[body + 5 : body + 9])[0] if name == "Fetch" else 0
            with self._lock:
                self._requests[client_id][name] += 1
                self._requests[client_id][HELD_UP] += any(open_requests)
            open_requests.append(wait_ms > SHORT_WAIT_MS)
            sent = sent[size:]
        return sent


def _closed(answered: bytes, open_requests: deque[bool]) -> bytes:
    """Forget the requests whose whole answers are in *answered*; return the rest."""
    while (size := _message_bytes(answered)) is not None:
        open_requests.popleft()
        answered = answered[size:]
    return answered


def _message_bytes(data: bytes) -> int | None:
    """Return the size of the first message in *data*; None if it is not whole yet."""
    size = 4 + struct.unpack(">i", data[:4])[0] if len(data) >= 4 else None
    return size if size is not None and len(data) >= size else None


@contextmanager
def counting_kafka() -> Iterator[CountingKafka]:
    counting = CountingKafka()
    try:
        yield counting
    finally:
        counting.close()
