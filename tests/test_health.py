"""The server of metrics and health, and clients that hang."""

from __future__ import annotations

import socket
import struct
import threading
import urllib.request
from contextlib import ExitStack

import pytest

from common import health
from tests.pipeline.services import until
from tests.servers import free_port


@pytest.fixture
def port():
    """Return the port of a server of this test."""
    port = free_port()
    health.serve("127.0.0.1", port, live=lambda: None, ready=lambda: "not yet")
    return port


def connect(port, sent=b""):
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(sent)
    return client


def threads():
    return [one for one in threading.enumerate() if "process_request" in one.name]


def alive(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=60) as answer:
        return answer.status == 200


def closed(client):
    """Return whether the server hung up."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", b"GET /metrics", b"GET /metrics HTTP/1.1\r\nHost: a\r\n"])
def test_clients_that_hang_hold_few_threads_and_keep_nobody_from_an_answer(port, sent):
    with ExitStack() as stack:
        hanging = [stack.enter_context(connect(port, sent)) for _ in range(300)]

        assert alive(port)
        until(lambda: len(threads()) <= health.MAX_CONNECTIONS, "few threads")
        assert alive(port)
        most = len(hanging) - health.MAX_CONNECTIONS
        until(lambda: sum(map(closed, hanging)) >= most, "an end of most connections")


def test_a_client_that_hangs_is_hung_up_on(port):
    with connect(port) as silent, connect(port, b"GET /metrics HTTP") as slow:
        until(lambda: closed(silent) and closed(slow), "an end of both connections")
    until(lambda: not threads(), "an end of every thread")


def test_clients_that_hang_up_leave_no_traceback(port, capfd):
    for _ in range(50):
        client = connect(port, b"GET /metrics HTTP/1.1\r\n\r\n")
        # A reset, in the middle of the answer or before it.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    assert alive(port)
    until(lambda: not threads(), "an end of every thread")
    assert capfd.readouterr().err == ""
