"""Tell the one who ordered: an outcome as a signed HTTP request (Standard Webhooks 1.0)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal

from pydantic import field_serializer

from common.deadline import Deadline, DeadlineExpired
from common.errors import CallbackFailed, CallbackGone, UrlForbidden
from common.messages import (
    ErrorInfo,
    Format,
    Message,
    Metadata,
    Outcome,
    Receipt,
    Sha256,
    Status,
    StoredStem,
    TaskUuid,
    rfc3339,
)
from common.network import Network, Response
from common.outages import RemoteError

SECRET_PREFIX = "whsec_"  # noqa: S105 -- the prefix is public
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
_GONE = 410

#: Makes the URL of a key, fresh for each attempt.
Link = Callable[[str], str]


class LinkedStem(Message):
    """One stem as a callback names it."""

    url: str
    key: str
    bytes: int
    sha256: Sha256
    format: Format

    @classmethod
    def of(cls, stem: StoredStem, link: Link) -> LinkedStem:
        """Make it of *stem*, its URL by *link*."""
        return cls(
            url=link(stem.key),
            key=stem.key,
            bytes=stem.bytes,
            sha256=stem.sha256,
            format=stem.format,
        )


class SucceededData(Message):
    """`data` of uvr.task.succeeded."""

    task_uuid: TaskUuid
    status: Status
    vocals: LinkedStem
    instrumental: LinkedStem
    receipt: Receipt
    metadata: Metadata


class FailedData(Message):
    """`data` of uvr.task.failed."""

    task_uuid: TaskUuid
    status: Status
    error: ErrorInfo
    metadata: Metadata


class Callback(Message):
    """The body of one callback."""

    type: Literal["uvr.task.succeeded", "uvr.task.failed"]
    timestamp: datetime
    data: SucceededData | FailedData

    @field_serializer("timestamp")
    def _rfc3339(self, timestamp: datetime) -> str:
        return rfc3339(timestamp)

    @classmethod
    def of(cls, outcome: Outcome, link: Link) -> Callback:
        """Make the callback of *outcome*, its stems' URLs by *link*."""
        if outcome.status == "succeeded":
            return cls(
                type="uvr.task.succeeded",
                timestamp=outcome.timestamp,
                data=_succeeded(outcome, link),
            )
        return cls(type="uvr.task.failed", timestamp=outcome.timestamp, data=_failed(outcome))


def _succeeded(outcome: Outcome, link: Link) -> SucceededData:
    assert outcome.stems is not None
    assert outcome.receipt is not None
    return SucceededData(
        task_uuid=outcome.task_uuid,
        status=outcome.status,
        vocals=LinkedStem.of(outcome.stems.vocals, link),
        instrumental=LinkedStem.of(outcome.stems.instrumental, link),
        receipt=outcome.receipt,
        metadata=outcome.metadata,
    )


def _failed(outcome: Outcome) -> FailedData:
    assert outcome.error is not None
    return FailedData(
        task_uuid=outcome.task_uuid,
        status=outcome.status,
        error=outcome.error,
        metadata=outcome.metadata,
    )


class Callbacks:
    """Delivers callbacks, one attempt at a time.

    Args:
        network: the way out.
        secrets: signing secrets, as `parse_secret` reads them; none leaves callbacks unsigned.
        timeout_seconds: of one attempt, in total.
        now: the present moment, in seconds since the epoch.
    """

    def __init__(
        self,
        network: Network,
        secrets: Sequence[str],
        timeout_seconds: float,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._network = network
        self._keys = [parse_secret(secret) for secret in secrets]
        self._timeout_seconds = timeout_seconds
        self._now = now

    def send(
        self,
        callback_url: str,
        outcome: Outcome,
        link: Link,
        *,
        cancelled: threading.Event | None = None,
    ) -> None:
        """Make one attempt to tell *callback_url* of *outcome*.

        Raises:
            CallbackGone: the receiver answered 410.
            CallbackFailed: it answered anything else that is not 2xx, or nothing, or may not be
                called.
            Cancelled: *cancelled* was set; whether the receiver heard of it is unknown.
        """
        deadline = Deadline(self._timeout_seconds, cancelled=cancelled)
        try:
            body = Callback.of(outcome, link).encode()
            self._post(callback_url, webhook_id(outcome), body, deadline)
        except DeadlineExpired as error:
            raise CallbackFailed(
                f"The receiver did not answer within {self._timeout_seconds:g} s."
            ) from error
        except UrlForbidden as error:
            # It stays forbidden, however often we try.
            raise CallbackFailed(f"{error.message} ({error.code})", retryable=False) from error
        except RemoteError as error:
            raise CallbackFailed(f"The receiver cannot be told now: {error}.") from error

    def _post(self, url: str, identity: str, body: bytes, deadline: Deadline) -> None:
        headers = {"Content-Type": "application/json", **self._signed(identity, body)}
        with self._network.request(
            "POST", url, limit=deadline, headers=headers, body=body
        ) as response:
            # Its body is left unread: a receiver that said 2xx has the callback, however its answer
            # ends.
            self._judge(response)

    def _signed(self, identity: str, body: bytes) -> dict[str, str]:
        """Return the specification's headers for exactly these bytes."""
        timestamp = str(int(self._now()))
        headers = {"webhook-id": identity, "webhook-timestamp": timestamp}
        if self._keys:
            content = f"{identity}.{timestamp}.".encode() + body
            headers["webhook-signature"] = " ".join(_signature(key, content) for key in self._keys)
        return headers

    def _judge(self, response: Response) -> None:
        if 200 <= response.status < 300:
            return
        if response.status == _GONE:
            raise CallbackGone("The receiver answered 410: it wants no more callbacks.")
        raise CallbackFailed(
            f"The receiver answered {response.status}.",
            retry_after_seconds=response.retry_after_seconds(self._now()),
        )


def webhook_id(outcome: Outcome) -> str:
    """Return the same id for every attempt to tell of this outcome, by whatever process."""
    origin = outcome.origin
    identity = f"{outcome.task_uuid}\n{origin.topic}\n{origin.partition}\n{origin.offset}\n{outcome.status}"
    return "msg_" + hashlib.sha256(identity.encode()).hexdigest()[:32]


def parse_secret(secret: str) -> bytes:
    """Return the key of a `whsec_` *secret*: 24 to 64 bytes.

    Raises:
        ValueError: it is not one; the message does not repeat it.
    """
    prefix, encoded = secret[: len(SECRET_PREFIX)], secret[len(SECRET_PREFIX) :]
    if prefix != SECRET_PREFIX:
        raise ValueError(f"must begin with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"must be base64 after {SECRET_PREFIX}") from error
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(
            f"must hold {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, not {len(key)}"
        )
    return key


def _signature(key: bytes, content: bytes) -> str:
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
