"""An HTTP server with short songs for the tasks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from tools.songs.song import make

SONGS = 4


@contextmanager
def serving_songs(folder: Path, host: str) -> Iterator[str]:
    """Serve `0.wav`, `1.wav`, … from *folder* in the background; yield the base URL."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(SONGS):
        mixture, _ = make(1.0, number)
        samples = np.rint(mixture.T * 32767).astype(np.int16)
        wavfile.write(folder / f"{number}.wav", 44_100, samples)
    server = ThreadingHTTPServer((host, 0), partial(_Quiet, directory=str(folder)))
    serve = partial(server.serve_forever, poll_interval=0.1)
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""
