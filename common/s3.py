"""S3, one request at a time; with `s3_errors`, the only importer of boto3."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs, urlsplit

import boto3
from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.manager import TransferManager
from s3transfer.subscribers import BaseSubscriber

from common.content_coding import Damaged, decoded, is_gzip
from common.deadline import Deadline, abandonable
from common.dependencies import Call, Dependency, s3_dependency
from common.disk import full_disk_named
from common.errors import SettingsInvalid
from common.messages import Link
from common.outages import Changed, Missing, Outage, Refused
from common.s3_errors import CredentialsRefused, bad_setting, foreign_errors_named

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

AddressingStyle = Literal["auto", "path", "virtual"]

#: Up to here, a file is sent as it is: threads, parts and a look at its size cost more than that.
_SMALL_BYTES = 1024 * 1024

#: The version of an object that does not exist; see `S3.put`.
ABSENT = ""


class _Sender(threading.local):
    """The deadline of the upload that this thread sends requests for, if any."""

    deadline: Deadline | None = None

    def begin(self, deadline: Deadline) -> None:
        """Send requests for an upload until the thread ends."""
        self.deadline = deadline

    def check(self, **_: object) -> None:
        """Raise what the deadline raises: botocore sends again what was left behind, too."""
        if self.deadline is not None:
            self.deadline.remaining_seconds()


_SENDER = _Sender()


@dataclass(frozen=True)
class StoredObject:
    """An object in a listing."""

    key: str
    bytes: int
    written: datetime
    version: str

    def age_seconds(self) -> float:
        """Return how long ago the object was written."""
        return (datetime.now(UTC) - self.written).total_seconds()


class S3:
    """An S3 service, reached with boto3's own credentials.

    Every method raises Outage (not reachable, 5xx, throttled, credentials that are not valid),
    Refused (no access, no such bucket) or, where it reads, Missing. After credentials were refused,
    every S3 of this process looks for new ones before its next call.

    Args:
        endpoint_url: of a service that is not AWS.
        addressing_style: whether the bucket is part of the path or of the host name.
        region: AWS_REGION; boto3 itself reads only AWS_DEFAULT_REGION.
        encryption: S3_SSE, requested for every object; the bucket's default when None.
        kms_key_id: S3_SSE_KMS_KEY_ID, for `aws:kms`; the account's key for S3 when None.
        local_keys: the access key and the secret key of a service on this machine, which no proxy
            reaches; boto3's own credentials, and the environment's proxies, when None.
        dependency: learns of every call, and whether it is answered.

    Raises:
        SettingsInvalid: boto3 cannot use its own settings, such as AWS_PROFILE.
    """

    #: How often credentials were refused, of any S3 of this process: all have the same.
    _refusals = 0

    def __init__(
        self,
        *,
        endpoint_url: str | None = None,
        addressing_style: AddressingStyle = "auto",
        region: str | None = None,
        encryption: Literal["AES256", "aws:kms"] | None = None,
        kms_key_id: str | None = None,
        local_keys: tuple[str, str] | None = None,
        dependency: Dependency | None = None,
    ) -> None:
        self.endpoint_url = endpoint_url
        wanted = {"ServerSideEncryption": encryption, "SSEKMSKeyId": kms_key_id}
        self._encryption: dict[str, Any] = {
            name: value for name, value in wanted.items() if value is not None
        }
        self._local_keys = local_keys or (None, None)
        proxies: dict[str, str] | None = None if local_keys is None else {}
        self._make_client = partial(
            _client,
            endpoint_url=endpoint_url,
            addressing_style=addressing_style,
            region=region,
            proxies=proxies,
        )
        self._dependency = dependency or s3_dependency()
        #: The `Date` of the last answer, of errors too.
        self.last_date = ""
        #: The keys of uploads under way, those that were left behind included.
        self._uploading: list[str] = []
        self._refusals_seen = S3._refusals
        try:
            self._connect(boto3.session.Session(*self._local_keys))
        except BotoCoreError as error:
            raise SettingsInvalid(f"Bad settings:\n{bad_setting(error)}") from error

    def _connect(self, session: boto3.session.Session) -> None:
        client = self._make_client(session)
        client.meta.events.register("response-received.s3", self._note_date)
        for request in ("PutObject", "UploadPart", "CompleteMultipartUpload"):
            client.meta.events.register(f"before-send.s3.{request}", _SENDER.check)
        self._client, self._credentials = client, session.get_credentials()

    def _renew(self) -> None:
        """Take the credentials that there are by now, if credentials were refused meanwhile."""
        if self._refusals_seen == S3._refusals:
            return
        self._refusals_seen = S3._refusals
        # Botocore reads a file of credentials once for each session.
        with suppress(BotoCoreError, ClientError):  # the next refusal looks again
            session = boto3.session.Session(*self._local_keys)
            old, new = (
                found and found.get_frozen_credentials()
                for found in (self._credentials, session.get_credentials())
            )
            if new not in {None, old}:
                self._connect(session)

    def used_as(self, dependency: Dependency) -> S3:
        """Return the same service, whose calls *dependency* learns of."""
        other = copy(self)
        other._dependency = dependency  # noqa: SLF001 -- of our own class
        return other

    def _note_date(self, response_dict: dict[str, Any] | None, **_: object) -> None:
        if response_dict is not None:
            self.last_date = str(response_dict["headers"].get("date", ""))

    def check(self, bucket: str) -> None:
        """Check that *bucket* exists and that we may use it."""
        with self._call(f"HEAD {bucket}", f"bucket {bucket}"):
            self._client.head_bucket(Bucket=bucket)

    @contextmanager
    def read(self, bucket: str, key: str) -> Iterator[tuple[int | None, Iterator[bytes]]]:
        """Yield an object's size in bytes, if it is known, and its chunks.

        What was stored with Content-Encoding gzip is decompressed.
        """
        with self._call(f"GET {key}"):
            answer = self._client.get_object(Bucket=bucket, Key=key)
        body = answer["Body"]

        def chunks() -> Iterator[bytes]:
            # Only the reads are S3's time: the reader may take as long as it likes in between.
            while chunk := next_chunk():
                yield chunk

        def next_chunk() -> bytes:
            with self._call(f"GET {key}"):
                return body.read(256 * 1024)

        with closing(body):
            compressed, stored = is_gzip(chunks(), answer.get("ContentEncoding", ""))
            if compressed:
                yield None, _decompressed(stored)
            else:
                # A service that decompresses itself does not know the size.
                yield answer.get("ContentLength"), stored

    def get(self, bucket: str, key: str, max_bytes: int) -> bytes:
        """Return the first *max_bytes* of an object."""
        return self.get_version(bucket, key, max_bytes)[0]

    def get_version(self, bucket: str, key: str, max_bytes: int) -> tuple[bytes, str]:
        """Return the first *max_bytes* of an object, and its version (the ETag)."""
        with self._call(f"GET {key}"):
            answer = self._client.get_object(Bucket=bucket, Key=key)
            content = bytearray()
            with closing(answer["Body"]) as body:
                # Up to its end: a single read returns what came before the line was cut.
                while chunk := body.read(max_bytes - len(content)):
                    content += chunk
            return bytes(content), answer["ETag"]

    def put(
        self, bucket: str, key: str, body: bytes, content_type: str, replaces: str | None = None
    ) -> None:
        """Write a small object, in place of the version *replaces* (or ABSENT) alone, if given.

        A service without conditional writes replaces any version.

        Raises:
            Changed: another version is stored, or is being written.
        """
        facts: dict[str, Any] = {
            "ContentType": content_type,
            # Buckets with a retention period want a checksum.
            "ContentMD5": _md5(body),
            **self._encryption,
        }
        condition: dict[str, Any] = {} if replaces is None else {"IfMatch": replaces}
        if replaces == ABSENT:
            condition = {"IfNoneMatch": "*"}
        with self._call(f"PUT {key}"):
            try:
                self._client.put_object(Bucket=bucket, Key=key, Body=body, **condition, **facts)
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "")
                if condition and code in {"NoSuchKey", "404"}:
                    raise Changed("the object was removed meanwhile") from error
                if not condition or code not in {"NotImplemented", "501"}:
                    raise
                self._client.put_object(Bucket=bucket, Key=key, Body=body, **facts)

    def put_file(
        self,
        bucket: str,
        key: str,
        path: Path,
        content_type: str,
        deadline: Deadline,
        sent: Callable[[int], None] = lambda _: None,
        *,
        sha256: str | None = None,
    ) -> None:
        """Upload the file at *path*, and see that it arrived; also raises what *deadline* raises.

        A small one is sent with its MD5 sum, which S3 checks; the size of any other is checked.
        Threads of the transfer call *sent* with bytes sent (negative when they are sent again).
        The hash *sha256* is kept in the object's metadata, for `copy`.
        """
        facts: dict[str, Any] = {"ContentType": content_type, **self._encryption}
        if sha256 is not None:
            facts["Metadata"] = {"sha256": sha256}

        def put() -> None:
            _SENDER.begin(deadline)
            self._uploading.append(key)
            try:
                if path.stat().st_size <= _SMALL_BYTES:
                    content = path.read_bytes()
                    with self._call(f"PUT {key}"):
                        self._client.put_object(
                            Bucket=bucket, Key=key, Body=content, ContentMD5=_md5(content), **facts
                        )
                    deadline.remaining_seconds()  # the order may have ended without us
                    sent(len(content))
                else:
                    self._put_in_parts(bucket, key, path, facts, deadline, sent)
            except Missing as error:
                raise Outage("S3 lost what was uploaded") from error
            finally:
                self._uploading.remove(key)

        # Cancelling a transfer waits for its threads, which may wait for S3.
        abandonable(put, deadline)

    def until_uploaded(self, keys: Collection[str], seconds: float, deadline: Deadline) -> bool:
        """Wait until no upload to *keys* is under way, and tell whether that came in *seconds*.

        An upload that its deadline left behind ends with the answer to what it had sent already.
        """
        left_seconds = deadline.left_seconds() - seconds
        while {*keys} & {*self._uploading}:
            if deadline.left_seconds() <= left_seconds:
                return False
            deadline.wait(0.1)
        return True

    def _put_in_parts(
        self,
        bucket: str,
        key: str,
        path: Path,
        facts: Mapping[str, Any],
        deadline: Deadline,
        sent: Callable[[int], None],
    ) -> None:
        # Four parts of 8 MiB at a time bound memory and connections, and fill most lines.
        transfer = TransferConfig(
            multipart_threshold=16 * 1024 * 1024,
            multipart_chunksize=8 * 1024 * 1024,
            max_concurrency=4,
        )
        with self._call(f"PUT {key}") as call:

            def progressed(bytes_transferred: int) -> None:
                call.progressed(bytes_transferred)
                sent(bytes_transferred)

            # Leaving the manager by an exception cancels the transfer and waits for its
            # threads. Raising in *sent* would end it, too, but it is also called when the file
            # is closed, which would then stay open.
            # S3transfer calls it as it would call the class.
            executor: Any = partial(
                ThreadPoolExecutor, initializer=_SENDER.begin, initargs=(deadline,)
            )
            with TransferManager(self._client, transfer, executor_cls=executor) as manager:
                ended = _Ended()
                future = manager.upload(
                    str(path),
                    bucket,
                    key,
                    extra_args=dict(facts),
                    subscribers=[ProgressCallbackInvoker(progressed), ended],
                )
                while not ended.event.wait(0.1):
                    deadline.remaining_seconds()
                future.result()
        with self._call(f"HEAD {key}"):
            stored_bytes = self._client.head_object(Bucket=bucket, Key=key)["ContentLength"]
        if stored_bytes != path.stat().st_size:
            raise Outage(f"S3 stored {stored_bytes} of {path.stat().st_size} bytes")

    def copy(self, bucket: str, source: str, key: str, size_bytes: int, sha256: str) -> None:
        """Copy the object *source*, on the server, and check that the copy is what was expected.

        It must have *size_bytes*, and have been stored with *sha256*, which is copied with it. S3
        copies one version of an object as a whole, so the check holds for every byte.

        Raises:
            Missing: there is no *source*.
            Changed: it has other content, and so has the copy.
        """
        with self._call(f"COPY {key}"):
            self._client.copy_object(
                Bucket=bucket,
                Key=key,
                CopySource={"Bucket": bucket, "Key": source},
                **self._encryption,
            )
        with self._call(f"HEAD {key}"):
            copied = self._client.head_object(Bucket=bucket, Key=key)
        if (copied["ContentLength"], copied["Metadata"].get("sha256")) != (size_bytes, sha256):
            raise Changed("the object was changed meanwhile")

    def check_multipart(self, bucket: str, key: str) -> None:
        """Begin and abort a multipart upload, which needs rights that only large files use."""
        with self._call(f"POST {key}", "a multipart upload"):
            begun = self._client.create_multipart_upload(Bucket=bucket, Key=key, **self._encryption)
            self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=begun["UploadId"])

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object, if it exists."""
        # Some services say so when there is none, as they do when botocore asks a second time.
        with suppress(Missing), self._call(f"DELETE {key}"):
            self._client.delete_object(Bucket=bucket, Key=key)

    def objects(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with *prefix*."""
        for page in self._pages(prefix, Bucket=bucket, Prefix=prefix):
            yield from _objects(page)

    def folder(self, bucket: str, prefix: str) -> tuple[list[StoredObject], set[str]]:
        """Return the objects right in the folder *prefix*, and the prefixes of its folders."""
        pages = list(self._pages(prefix, Bucket=bucket, Prefix=prefix, Delimiter="/"))
        objects = [stored for page in pages for stored in _objects(page)]
        return objects, {one["Prefix"] for page in pages for one in page.get("CommonPrefixes", [])}

    def _pages(self, prefix: str, **wanted: Any) -> Iterator[Any]:  # noqa: ANN401 -- boto3's own
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(**wanted))
        while True:
            with self._call(f"LIST {prefix}", "the listing"):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def presign(self, bucket: str, key: str, expiry_seconds: int) -> Link:
        """Return a URL at which anybody can read an object for a while; needs only credentials.

        It ends with the credentials that sign it, if they end earlier: those of a role do.
        """
        self._renew()
        with foreign_errors_named("the URL"):
            url = self._client.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=expiry_seconds
            )
        signed = parse_qs(urlsplit(url).query)["X-Amz-Date"][0]
        start = datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        end = start + timedelta(seconds=expiry_seconds)
        return Link(url=url, expires=min(end, self.credentials_end or end))

    @property
    def credentials_end(self) -> datetime | None:
        """When the credentials in use end; None when they do not, or when nobody says so."""
        # Botocore refreshes the credentials of a role; it has no public name for their end.
        end: datetime | None = getattr(self._credentials, "_expiry_time", None)
        return end

    @contextmanager
    def _call(self, doing: str, what: str = "the object") -> Iterator[Call]:
        """Watch the block as a call, and turn boto3's errors about *what* into ours."""
        with self._dependency.call(doing) as call:
            self._renew()
            try:
                with foreign_errors_named(what):
                    yield call
            except CredentialsRefused:
                S3._refusals += 1
                raise


def _decompressed(stored: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from decoded(stored, "gzip")
    except Damaged as error:  # all of it arrived, so it was stored like that
        raise Refused(str(error)) from error


def _md5(content: bytes) -> str:
    """Return what S3 takes as Content-MD5 (RFC 1864)."""
    digest = hashlib.md5(content, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def _objects(page: Any) -> Iterator[StoredObject]:  # noqa: ANN401 -- boto3's own
    for item in page.get("Contents", []):
        yield StoredObject(item["Key"], item["Size"], item["LastModified"], item["ETag"])


class _Ended(BaseSubscriber):
    """Sets its event when a transfer has ended, well or not."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def on_done(self, future: object, **_: object) -> None:  # noqa: ARG002 -- as s3transfer has it
        self.event.set()


def download(store: S3, bucket: str, key: str, path: Path, deadline: Deadline) -> None:
    """Write an object to *path*; also raises DiskFull, and what *deadline* raises."""
    with (
        store.read(bucket, key) as (_, chunks),
        full_disk_named(path.parent),
        path.open("wb") as file,
    ):
        for chunk in chunks:
            deadline.remaining_seconds()
            file.write(chunk)


def _client(
    session: boto3.session.Session,
    endpoint_url: str | None,
    addressing_style: AddressingStyle,
    region: str | None,
    proxies: dict[str, str] | None,
) -> S3Client:
    # Some services that are not AWS refuse the checksums that botocore sends by default.
    host = urlsplit(endpoint_url or "").hostname or "amazonaws.com"
    is_aws = host.endswith(("amazonaws.com", "amazonaws.com.cn"))
    checksums: Any = "when_supported" if is_aws else "when_required"
    config = Config(
        # Without it, custom endpoints get URLs signed with version 2, which strict servers refuse.
        signature_version="s3v4",
        s3={"addressing_style": addressing_style},
        proxies=proxies,
        retries={"mode": "standard", "total_max_attempts": 2},
        # S3 stalls for longer only when it is lost; a retry reaches another of its hosts. A call
        # that hangs ends after both attempts, half a minute, so that a stop need not wait longer.
        connect_timeout=5,
        read_timeout=15,
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
    )
    return session.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region or session.region_name or "us-east-1",
        config=config,
    )
