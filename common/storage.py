"""S3: the only importer of boto3.

`S3` is one request at a time and our names for what can go wrong; `Storage` is where orders'
outcomes lie, by section 5 of the contract. Every method of `Storage` but `check` waits out outages
within its deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote

import boto3
from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from loguru import logger

from common.deadline import Deadline, DeadlineExpired
from common.disk import full_disk_named
from common.errors import InvalidMessage, Unreachable, UploadFailed
from common.messages import STEMS, Format, Outcome, Result, StemName, StoredStem, StoredStems
from common.outages import (
    Backoff,
    Missing,
    OnWait,
    Outage,
    OutageLog,
    Refused,
    RemoteError,
    keep_trying,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")
AddressingStyle = Literal["auto", "path", "virtual"]
Encryption = Literal["AES256", "aws:kms"]
Progress = Callable[[int], None]

CONTENT_TYPES: Mapping[Format, str] = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "opus": "audio/ogg",
}
JSON_TYPE = "application/json"
CHUNK_BYTES = 256 * 1024
MAX_OUTCOME_BYTES = 1_048_576
#: S3 stalls for longer only when it is lost; a retry reaches another of its hosts.
CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 30
#: Four parts of 8 MiB at a time bound memory and connections, and fill most lines.
TRANSFER = TransferConfig(
    multipart_threshold=16 * 1024 * 1024, multipart_chunksize=8 * 1024 * 1024, max_concurrency=4
)
TRANSFER_POLL_SECONDS = 0.02

_MISSING = {"NoSuchKey", "404", "NotFound"}
#: Answers that a later try may not get; a clock that jumped comes back.
_FOR_NOW = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "RequestTimeout",
    "IncompleteBody",
    "429",
    "RequestTimeTooSkewed",
}
_WORDS = {
    "403": "AccessDenied",
    "301": "PermanentRedirect (the bucket is in another region; set AWS_REGION)",
    "PermanentRedirect": "PermanentRedirect (the bucket is in another region; set AWS_REGION)",
}


@dataclass(frozen=True)
class StoredObject:
    """What a listing says of an object."""

    key: str
    bytes: int
    written: datetime


class S3:
    """One S3 service, reached with boto3's own credentials; every method is one request, or a few.

    Every method raises Outage (not reachable, 5xx, throttled), Refused (access, no such bucket) or,
    where it reads, Missing.

    Args:
        endpoint_url: of a service that is not AWS.
        addressing_style: whether the bucket stands in the path or in the host's name.
        region: AWS_REGION; boto3 itself reads AWS_DEFAULT_REGION alone.
        encryption: S3_SSE, asked for with every object that is written; the bucket's default when
            None.
        kms_key_id: S3_SSE_KMS_KEY_ID, for `aws:kms`; the account's key for S3 when None.
    """

    def __init__(
        self,
        *,
        endpoint_url: str | None = None,
        addressing_style: AddressingStyle = "auto",
        region: str | None = None,
        encryption: Encryption | None = None,
        kms_key_id: str | None = None,
    ) -> None:
        self.endpoint_url = endpoint_url
        wanted = {"ServerSideEncryption": encryption, "SSEKMSKeyId": kms_key_id}
        self._encryption: dict[str, Any] = {
            name: value for name, value in wanted.items() if value is not None
        }
        self._client = _client(endpoint_url, addressing_style, region)

    def check(self, bucket: str) -> None:
        """Ask whether *bucket* is there and we may use it."""
        with _foreign_errors_named(f"bucket {bucket}"):
            self._client.head_bucket(Bucket=bucket)

    @contextmanager
    def read(self, bucket: str, key: str) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Yield an object's size in bytes and its chunks."""
        with _foreign_errors_named("the object"):
            answer = self._client.get_object(Bucket=bucket, Key=key)
        with closing(answer["Body"]) as body:
            yield answer["ContentLength"], _chunks(body)

    def get(self, bucket: str, key: str, max_bytes: int) -> bytes:
        """Return the beginning of a small object."""
        with self.read(bucket, key) as (_, chunks):
            return b"".join(_until(max_bytes, chunks))

    def get_file(self, bucket: str, key: str, path: Path, deadline: Deadline) -> None:
        """Write an object to *path*; raises DiskFull, too, and what *deadline* raises."""
        with self.read(bucket, key) as (_, chunks), full_disk_named(), path.open("wb") as file:
            for chunk in chunks:
                deadline.remaining_seconds()
                file.write(chunk)

    def put(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        """Write a small object."""
        with _foreign_errors_named("the object"):
            self._client.put_object(
                Bucket=bucket, Key=key, Body=body, ContentType=content_type, **self._encryption
            )

    def put_file(
        self,
        bucket: str,
        key: str,
        path: Path,
        content_type: str,
        deadline: Deadline,
        sent: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Write the file at *path*, and see that it arrived whole; raises what *deadline* raises,
        too.

        *sent* is called with bytes sent (negative when they are sent again), on threads of the
        transfer.
        """
        with _foreign_errors_named("the object"):
            self._transfer(bucket, key, path, content_type, deadline, sent)
            stored_bytes = self._client.head_object(Bucket=bucket, Key=key)["ContentLength"]
        if stored_bytes != path.stat().st_size:
            raise Outage(f"S3 holds {stored_bytes} bytes of {path.stat().st_size}")

    def _transfer(
        self,
        bucket: str,
        key: str,
        path: Path,
        content_type: str,
        deadline: Deadline,
        sent: Callable[[int], None],
    ) -> None:
        # Leaving the manager by an exception cancels the transfer and waits for its threads.
        # Raising in `sent` would end it, too, but it is called when the file is closed as well,
        # which then stays open.
        with create_transfer_manager(self._client, TRANSFER) as manager:
            future = manager.upload(
                str(path),
                bucket,
                key,
                extra_args={"ContentType": content_type, **self._encryption},
                subscribers=[ProgressCallbackInvoker(sent)],
            )
            while not future.done():
                deadline.wait(TRANSFER_POLL_SECONDS)
            future.result()

    def check_multipart(self, bucket: str, key: str) -> None:
        """Begin an upload in parts and give it up: two rights that are missed only when a large
        file fails.
        """
        with _foreign_errors_named("an upload in parts"):
            begun = self._client.create_multipart_upload(Bucket=bucket, Key=key, **self._encryption)
            self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=begun["UploadId"])

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; that there is none is fine."""
        with _foreign_errors_named("the object"):
            self._client.delete_object(Bucket=bucket, Key=key)

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with *prefix*."""
        return (found.key for found in self.objects(bucket, prefix))

    def aged(self, bucket: str, prefix: str, older_than_seconds: float) -> Iterator[str]:
        """Yield the keys that begin with *prefix* and were written longer ago than that."""
        oldest = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        return (found.key for found in self.objects(bucket, prefix) if found.written < oldest)

    def objects(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with *prefix*."""
        with _foreign_errors_named("the listing"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield StoredObject(item["Key"], item["Size"], item["LastModified"])

    def presign(self, bucket: str, key: str, expiry_seconds: int) -> str:
        """Return a URL by which anybody can read an object for a while; asks nobody, but needs
        credentials.
        """
        with _foreign_errors_named("the URL"):
            return self._client.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=expiry_seconds
            )


class Storage:
    """Where outcomes lie: `{prefix}{task_uuid}/vocals.{format}`, `…/instrumental.{format}`,
    `…/result.json`.

    Args:
        s3: the service, as we reach it.
        bucket: S3_BUCKET.
        prefix: S3_PREFIX, put before every key.
        presigner: the same service as receivers of callbacks reach it; *s3* when None.
        public_base_url: S3_PUBLIC_BASE_URL; when None, URLs are presigned.
        url_expiry_seconds: life of a presigned URL.
        backoff: the waits in an outage.
        on_wait: hears of each of these waits.
    """

    def __init__(
        self,
        s3: S3,
        bucket: str,
        *,
        prefix: str = "",
        presigner: S3 | None = None,
        public_base_url: str | None = None,
        url_expiry_seconds: int = 604_800,
        backoff: Backoff = Backoff(),  # noqa: B008 -- it is frozen
        on_wait: OnWait | None = None,
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._prefix = prefix
        self._presigner = presigner or s3
        self._public_base_url = public_base_url
        self._url_expiry_seconds = url_expiry_seconds
        self._backoff = backoff
        self._on_wait = on_wait
        self._outage = OutageLog("S3")
        #: Why S3 did not answer when it was asked last; None when it did. May be read by any
        #: thread.
        self.away: str | None = None

    def check(self) -> None:
        """See, with one request, whether the bucket can be reached and used.

        Raises:
            Unreachable: it cannot; says why.
        """
        try:
            self._s3.check(self._bucket)
        except Missing as error:
            raise Unreachable(f"S3 has no bucket {self._bucket!r} at {self._where}") from error
        except RemoteError as error:
            raise Unreachable(f"S3 bucket {self._bucket!r} at {self._where}: {error}") from error

    def read_outcome(self, task_uuid: str, deadline: Deadline) -> Outcome | None:
        """Return the outcome that stands, or None when there is none that can be read.

        Raises:
            UploadFailed, Cancelled: as they say.
        """
        key = self._result_key(task_uuid)
        try:
            content = self._through(deadline, lambda: self._get_or_none(key))
            return None if content is None else Outcome.decode(content)
        except InvalidMessage as error:
            logger.bind(task_uuid=task_uuid, key=key).warning(
                "result.json is not ours and is replaced: {}", error
            )
            return None

    def objects(self, task_uuid: str, deadline: Deadline) -> list[StoredObject]:
        """Return everything that lies below a task's key, result.json included.

        Raises:
            UploadFailed, Cancelled: as they say.
        """
        return self._through(
            deadline, lambda: list(self._s3.objects(self._bucket, self._folder(task_uuid)))
        )

    def upload_stems(
        self,
        result: Result,
        files: Mapping[StemName, Path],
        deadline: Deadline,
        progress: Progress = lambda _: None,
    ) -> StoredStems:
        """Upload the *files* of a succeeded *result*, after taking away an earlier order's
        result.json.

        Args:
            result: names the stems' bytes, hashes and format.
            files: the stems, verified.
            deadline: of the upload, outages included.
            progress: called with whole percents, by one thread at a time but not always the same.

        Raises:
            UploadFailed: S3 refused, or was away until the deadline.
            Cancelled: the turn is no longer ours; some stems may have been uploaded.
        """
        assert result.stems is not None
        stored = {name: self._stored(result, name) for name in STEMS}
        # Between here and write_outcome the order has no result, rather than one whose stems change
        # under it.
        self._through(deadline, lambda: self._remove_result(result.task_uuid))
        meter = _Meter(sum(stem.bytes for stem in stored.values()), progress)
        for name in STEMS:
            self._through(
                deadline, partial(self._put_stem, stored[name], files[name], meter, deadline)
            )
        return StoredStems(vocals=stored["vocals"], instrumental=stored["instrumental"])

    def write_outcome(self, outcome: Outcome, deadline: Deadline) -> None:
        """Let *outcome* stand: write result.json, then remove stems that it does not name.

        Raises:
            UploadFailed, Cancelled: as they say.
        """
        key = self._result_key(outcome.task_uuid)
        self._through(
            deadline, lambda: self._s3.put(self._bucket, key, outcome.encode(), JSON_TYPE)
        )
        self._through(deadline, lambda: self._remove_strays(outcome))

    def url(self, key: str) -> str:
        """Return a URL of *key* that receivers of callbacks can open: public, or presigned anew.

        Raises:
            Refused, Outage: there are no credentials to sign with, or they cannot be had now.
        """
        if self._public_base_url is not None:
            return f"{self._public_base_url.rstrip('/')}/{quote(key)}"
        return self._presigner.presign(self._bucket, key, self._url_expiry_seconds)

    @property
    def _where(self) -> str:
        return self._s3.endpoint_url or "AWS"

    def _folder(self, task_uuid: str) -> str:
        return f"{self._prefix}{task_uuid}/"

    def _result_key(self, task_uuid: str) -> str:
        return f"{self._folder(task_uuid)}result.json"

    def _stored(self, result: Result, name: StemName) -> StoredStem:
        assert result.stems is not None
        stem = getattr(result.stems, name)
        key = f"{self._folder(result.task_uuid)}{name}.{stem.format}"
        return StoredStem(key=key, bytes=stem.bytes, sha256=stem.sha256, format=stem.format)

    def _put_stem(self, stem: StoredStem, path: Path, meter: _Meter, deadline: Deadline) -> None:
        meter.begin(stem.key)
        self._s3.put_file(
            self._bucket, stem.key, path, CONTENT_TYPES[stem.format], deadline, meter.count
        )

    def _get_or_none(self, key: str) -> bytes | None:
        try:
            return self._s3.get(self._bucket, key, MAX_OUTCOME_BYTES)
        except Missing:
            return None

    def _remove_result(self, task_uuid: str) -> None:
        key = self._result_key(task_uuid)
        # Asked first, because in a versioned bucket every delete leaves a marker.
        if self._get_or_none(key) is not None:
            self._s3.delete(self._bucket, key)

    def _remove_strays(self, outcome: Outcome) -> None:
        """Remove the stems of earlier orders of the same id, and nothing else that may lie there."""
        folder = self._folder(outcome.task_uuid)
        ours = {f"{folder}{name}.{extension}" for name in STEMS for extension in CONTENT_TYPES}
        kept = (
            {outcome.stems.vocals.key, outcome.stems.instrumental.key} if outcome.stems else set()
        )
        for key in (ours - kept).intersection(self._s3.keys(self._bucket, folder)):
            self._s3.delete(self._bucket, key)

    def _wait(self, error: Exception, attempts: int) -> None:
        self.away = f"S3 cannot be used: {error}"
        self._outage.failed(error)
        if self._on_wait:
            self._on_wait(error, attempts)

    def _through(self, deadline: Deadline, step: Callable[[], T]) -> T:
        """Do *step*, waiting outages out until *deadline*."""
        try:
            deadline.remaining_seconds()
            done = keep_trying(step, deadline=deadline, backoff=self._backoff, on_wait=self._wait)
            self.away = None
            self._outage.recovered()
            return done
        except DeadlineExpired as error:
            raise UploadFailed(
                f"S3 did not take the outcome within {deadline.seconds:g} s."
            ) from error
        except Outage as error:
            raise UploadFailed(
                f"S3 was away until {deadline.seconds:g} s were over: {error}."
            ) from error
        except (Refused, Missing) as error:
            self.away = None
            raise UploadFailed(f"The outcome cannot be stored: {error}.") from error


class _Meter:
    """Adds up what the transfer's threads send."""

    def __init__(self, total_bytes: int, progress: Progress) -> None:
        self._total_bytes = max(total_bytes, 1)
        self._progress = progress
        self._lock = threading.Lock()
        self._sent_bytes: dict[str, int] = {}
        self._key = ""
        self._percent = -1

    def begin(self, key: str) -> None:
        """Count what follows for *key*, from nothing: it may be sent again."""
        self._key = key
        self._sent_bytes[key] = 0

    def count(self, size_bytes: int) -> None:
        with self._lock:
            self._sent_bytes[self._key] += size_bytes
            percent = min(100, 100 * sum(self._sent_bytes.values()) // self._total_bytes)
            if percent > self._percent:
                self._percent = percent
                self._progress(percent)


def _client(
    endpoint_url: str | None, addressing_style: AddressingStyle, region: str | None
) -> S3Client:
    session = boto3.session.Session()
    config = Config(
        # Without it, custom endpoints get URLs signed by the old version 2, which strict servers
        # refuse.
        signature_version="s3v4",
        s3={"addressing_style": addressing_style},
        retries={"mode": "standard", "total_max_attempts": 2},
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        **_checksums(endpoint_url),
    )
    return session.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region or session.region_name or "us-east-1",
        config=config,
    )


def _checksums(endpoint_url: str | None) -> dict[str, Any]:
    # Some services that are not AWS refuse the checksums that botocore sends by default.
    when = "when_required" if endpoint_url else "when_supported"
    return {"request_checksum_calculation": when, "response_checksum_validation": when}


def _chunks(body: Any) -> Iterator[bytes]:  # noqa: ANN401 -- botocore's StreamingBody
    with _foreign_errors_named("the object"):
        yield from body.iter_chunks(CHUNK_BYTES)


def _until(max_bytes: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:max_bytes]
        max_bytes -= len(chunk)
        if max_bytes <= 0:
            return


@contextmanager
def _foreign_errors_named(what: str) -> Iterator[None]:
    """Turn what boto3 raises inside the block into our own."""
    try:
        yield
    except ClientError as error:
        raise _judged(error, what) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Refused(
            "there are no credentials for S3 (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        ) from error
    except ParamValidationError as error:
        raise Refused(f"S3 cannot be asked for {what}: its name is not valid") from error
    except BotoCoreError as error:
        raise Outage(f"S3 cannot be reached ({type(error).__name__})") from error


def _judged(error: ClientError, what: str) -> RemoteError:
    """Say which of the three failures an answer is; its own message can name accounts and stays in
    the cause.
    """
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING:
        return Missing(f"S3 does not have {what}")
    if status >= 500 or code in _FOR_NOW:
        return Outage(f"S3 answered {status} {code}")
    return Refused(f"S3 refused {what}: {_WORDS.get(code, code)}")
