"""Receive callbacks:
CALLBACK_KEY=whpk_… CALLBACK_AUDIENCE=https://example.com python receiver.py [PORT]
"""

import base64
import hmac
import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_BYTES = 1_048_576
TOLERANCE_SECONDS = 300
seen: set[str] = set()  # in your service: a database table with a unique column


class Key:
    """A public key (whpk_) or a shared secret (whsec_): each verifies its own kind alone."""

    def __init__(self, text: str) -> None:
        prefix, _, encoded = text.partition("_")
        self.raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        if prefix == "whpk":
            self.version, self.public = "v1a", Ed25519PublicKey.from_public_bytes(self.raw)
        elif prefix == "whsec" and len(self.raw) >= 24:
            self.version = "v1"
        else:
            raise SystemExit("CALLBACK_KEY must hold whpk_… or whsec_… keys")

    def verifies(self, signature: bytes, content: bytes) -> bool:
        if self.version == "v1":
            return hmac.compare_digest(signature, hmac.digest(self.raw, content, "sha256"))
        try:
            self.public.verify(signature, content)
        except InvalidSignature:
            return False
        return True


KEYS = [Key(text) for text in os.environ["CALLBACK_KEY"].split()]
AUDIENCE = os.environ["CALLBACK_AUDIENCE"]  # never from the request: its sender chooses its Host


def verified(webhook_id: str, timestamp: str, signatures: str, body: bytes) -> bool:
    if not webhook_id or not re.fullmatch("[0-9]{1,12}", timestamp):
        return False
    if abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    content = f"{webhook_id}.{timestamp}.".encode() + body
    for versioned in signatures.split(" "):
        version, _, encoded = versioned.partition(",")
        try:
            signature = base64.b64decode(encoded, validate=True)
        except ValueError:
            continue
        if any(key.version == version and key.verifies(signature, content) for key in KEYS):
            return True
    return False


class Receiver(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= MAX_BYTES:
            return self.answer(413)
        body = self.rfile.read(length)  # verify these bytes: parsing and encoding them changes them
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        webhook_id, timestamp, signatures = (self.headers.get(name, "") for name in names)
        if not verified(webhook_id, timestamp, signatures, body):
            return self.answer(401)
        callback = json.loads(body)
        if callback.get("audience") != AUDIENCE:  # signed, but for another receiver
            return self.answer(401)
        if webhook_id not in seen:
            handle(callback)
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
        for stem in ("vocals", "instrumental"):
            if stem in data:  # a task may ask for one of them
                print(data["task_uuid"], f"{stem}:", data[stem]["url"], flush=True)
    else:
        print(data["task_uuid"], "failed:", data["error"]["code"], flush=True)


if __name__ == "__main__":
    server = ThreadingHTTPServer(
        ("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8099), Receiver
    )
    print(f"Listening at http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
