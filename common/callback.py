"""Callbacks: an outcome as a signed HTTP request (Standard Webhooks 1.0)."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, field_serializer

from common import tracing
from common.deadline import Deadline, DeadlineExpired
from common.errors import CallbackFailed, CallbackGone, UrlForbidden
from common.http_url import HttpUrl
from common.messages import (
    ANY_STEM,
    Count,
    ErrorInfo,
    Format,
    Link,
    Message,
    Metadata,
    OptionalStem,
    Outcome,
    Receipt,
    Sha256,
    StoredStem,
    TaskUuid,
    rfc3339,
)
from common.network import Network
from common.outages import RemoteError
from common.signing import parse_key, signatures, signed_content

#: Returns the link of a key, signed anew for each attempt.
MakeLink = Callable[[str], Link]


class LinkedStem(Link):
    """One stem as a callback names it; without `expires` its URL does not end."""

    key: str
    bytes: Count
    sha256: Sha256
    format: Format

    @classmethod
    def of(cls, stem: StoredStem, link: MakeLink) -> LinkedStem:
        """Return *stem* with its URL from *link*."""
        made = link(stem.key)
        return cls(
            url=made.url,
            expires=made.expires,
            key=stem.key,
            bytes=stem.bytes,
            sha256=stem.sha256,
            format=stem.format,
        )


class SucceededData(Message):
    """`data` of uvr.task.succeeded, with the stems that the task asked for."""

    task_uuid: TaskUuid
    status: Literal["succeeded"]
    vocals: OptionalStem[LinkedStem] = None
    instrumental: OptionalStem[LinkedStem] = None
    receipt: Receipt
    metadata: Metadata

    model_config = ConfigDict(json_schema_extra=ANY_STEM)


class FailedData(Message):
    """`data` of uvr.task.failed."""

    task_uuid: TaskUuid
    status: Literal["failed"]
    error: ErrorInfo
    metadata: Metadata


class Callback(Message):
    """The body of one callback; `audience` is the origin of the receiver that it is meant for."""

    type: Literal["uvr.task.succeeded", "uvr.task.failed"]
    timestamp: datetime
    audience: str
    data: SucceededData | FailedData

    @field_serializer("timestamp")
    def _rfc3339(self, timestamp: datetime) -> str:
        return rfc3339(timestamp)

    @classmethod
    def of(cls, outcome: Outcome, link: MakeLink, audience: str) -> Callback:
        """Return the callback of *outcome* to *audience*, with its stems' URLs from *link*."""
        data: SucceededData | FailedData
        if outcome.status == "succeeded":
            assert outcome.stems is not None
            assert outcome.receipt is not None
            data = SucceededData(
                task_uuid=outcome.task_uuid,
                status="succeeded",
                **{
                    name: LinkedStem.of(stem, link)
                    for name, stem in outcome.stems.by_name().items()
                },
                receipt=outcome.receipt,
                metadata=outcome.metadata,
            )
        else:
            assert outcome.error is not None
            data = FailedData(
                task_uuid=outcome.task_uuid,
                status="failed",
                error=outcome.error,
                metadata=outcome.metadata,
            )
        return cls(
            type="uvr.task.succeeded" if outcome.status == "succeeded" else "uvr.task.failed",
            timestamp=outcome.timestamp,
            audience=audience,
            data=data,
        )


class Callbacks:
    """Delivers callbacks, one attempt at a time.

    Args:
        network: the way to receivers.
        secrets: signing keys, as `parse_key` reads them; without any, callbacks are unsigned.
        timeout_seconds: of one attempt, in total.
        now: returns the present time, in seconds since the epoch.
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
        self._keys = [parse_key(secret) for secret in secrets]
        self._timeout_seconds = timeout_seconds
        self._now = now

    def send(
        self,
        callback_url: str,
        outcome: Outcome,
        link: MakeLink,
        *,
        cancelled: threading.Event | None = None,
    ) -> None:
        """Make one attempt to deliver *outcome* to *callback_url*.

        Raises:
            CallbackGone: the receiver answered 410.
            CallbackFailed: it answered another status than 2xx, or nothing, or is forbidden.
            Cancelled: *cancelled* was set; the receiver may have got the callback.
        """
        deadline = Deadline(self._timeout_seconds, cancelled=cancelled)
        try:
            url = HttpUrl.parse(callback_url)
            body = Callback.of(outcome, link, url.origin).encode()
            self._post(url, webhook_id(outcome), body, deadline)
        except DeadlineExpired as error:
            raise CallbackFailed(
                f"The receiver did not answer within {self._timeout_seconds:g} s."
            ) from error
        except UrlForbidden as error:
            # A retry would be forbidden, too.
            raise CallbackFailed(f"{error.message} ({error.code})", retryable=False) from error
        except RemoteError as error:
            raise CallbackFailed(f"The callback cannot be delivered now: {error}.") from error

    def _post(self, url: HttpUrl, identity: str, body: bytes, deadline: Deadline) -> None:
        timestamp = str(int(self._now()))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": identity,
            "webhook-timestamp": timestamp,
            **tracing.request_headers(),
        }
        tracing.note({"server.address": url.host, "server.port": url.port})
        if self._keys:
            content = signed_content(identity, timestamp, body)
            headers["webhook-signature"] = signatures(self._keys, content)
        with self._network.request(
            "POST", url, limit=deadline, headers=headers, body=body
        ) as response:
            tracing.note({"http.response.status_code": response.status})
            # The body is not read: after 2xx the receiver has the callback, whatever follows.
            if 200 <= response.status < 300:
                return
            if response.status == 410:
                raise CallbackGone(
                    "The receiver answered 410 (Gone): it wants no more callbacks for this URL."
                )
            raise CallbackFailed(
                f"The receiver answered {response.status} instead of 2xx.",
                retry_after_seconds=response.retry_after_seconds(self._now()),
            )


def webhook_id(outcome: Outcome) -> str:
    """Return an outcome's id, which is the same for every attempt of every process."""
    origin = outcome.origin
    order = f"{outcome.task_uuid}\n{origin.topic}\n{origin.partition}\n{origin.offset}"
    if origin.timestamp is not None:  # the id of an order of an earlier release stays as it was
        order += f"\n{origin.timestamp}"
    digest = hashlib.sha256(f"{order}\n{outcome.status}".encode()).hexdigest()
    return f"msg_{digest[:32]}"
