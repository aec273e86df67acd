"""Counts the requests that clients send to a broker, by passing them on."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kafka.protocol.api_key import ApiKey

HOST = "127.0.0.1"


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
        sent = b""
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
                        sent = self._count(sent + data)
                    (broker if source is client else client).sendall(data)

    def _count(self, sent: bytes) -> bytes:
        """Count the whole requests in *sent*; return the rest."""
        while len(sent) >= 4 and len(sent) >= 4 + (size := struct.unpack(">i", sent[:4])[0]):
            # The header: key, version, correlation id, and the client's id.
            key, _, _, length = struct.unpack(">hhih", sent[4:14])
            client_id = sent[14 : 14 + max(length, 0)].decode()
            with self._lock:
                self._requests[client_id][ApiKey(key).name] += 1
            sent = sent[4 + size :]
        return sent


@contextmanager
def counting_kafka() -> Iterator[CountingKafka]:
    counting = CountingKafka()
    try:
        yield counting
    finally:
        counting.close()
