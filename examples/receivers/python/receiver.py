"""Receive callbacks: CALLBACK_SECRET=whsec_… python receiver.py [PORT]"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

WEBHOOK = Webhook(os.environ["CALLBACK_SECRET"])
MAX_BYTES = 1_048_576
seen: set[str] = set()  # in your service: a database table with a unique column


class Receiver(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= MAX_BYTES:
            return self.answer(413)
        body = self.rfile.read(length)  # verify these bytes: parsing and encoding them changes them
        try:
            WEBHOOK.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except WebhookVerificationError:
            return self.answer(401)
        webhook_id = self.headers["webhook-id"]
        if webhook_id not in seen:
            handle(json.loads(body))
            seen.add(webhook_id)  # last, so that a callback whose handling failed is sent again
        return self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def handle(callback: dict) -> None:
    """Queue the work and do it elsewhere: the sender waits for the answer."""
    data = callback["data"]
    if callback["type"] == "uvr.task.succeeded":
        print(data["task_uuid"], "vocals:", data["vocals"]["url"], flush=True)
    else:
        print(data["task_uuid"], "failed:", data["error"]["code"], flush=True)


if __name__ == "__main__":
    server = ThreadingHTTPServer(
        ("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8099), Receiver
    )
    print(f"Listening at http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
