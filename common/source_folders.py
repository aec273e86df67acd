"""The places in S3 that sources may come from: S3_SOURCE_BUCKETS."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote

from common.errors import UrlForbidden

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


@dataclass(frozen=True)
class SourceFolder:
    """A bucket, or the part of it below a prefix.

    *prefix* is empty, or ends with a slash: `songs` and `songs/` both mean the keys that begin with
    `songs/`, not those that begin with `songs-of-others/`.
    """

    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> SourceFolder:
        """Read `bucket` or `bucket/prefix`.

        Raises:
            ValueError: it is neither.
        """
        bucket, _, prefix = text.partition("/")
        prefix = prefix.removesuffix("/")
        parts = prefix.split("/") if prefix else []
        if not _BUCKET.fullmatch(bucket) or "" in parts or has_dot_segments(prefix):
            raise ValueError(f"{text!r} must be bucket or bucket/prefix, without s3://")
        return cls(bucket, f"{prefix}/" if prefix else "")

    def contains(self, bucket: str, key: str) -> bool:
        """Return whether the object *key* of *bucket* is below this folder."""
        return bucket == self.bucket and key.startswith(self.prefix) and key != self.prefix


def checked_object(url: str, folders: Collection[SourceFolder]) -> tuple[str, str]:
    """Return the bucket and key of an s3:// *url* in one of the *folders*.

    Raises:
        UrlForbidden: it is not in any of them, or has no key that every server reads alike.
    """
    bucket, _, key = url[len("s3://") :].partition("/")
    if not any(folder.bucket == bucket for folder in folders):
        raise UrlForbidden(
            "The source's bucket is not allowed; the operator can add it to S3_SOURCE_BUCKETS."
        )
    if not key:
        raise UrlForbidden("The source's URL has no object key; send s3://bucket/key.")
    if has_dot_segments(key):
        # Some servers, and proxies before them, resolve such a key into another bucket.
        raise UrlForbidden("The source's key must not contain . or .. between slashes.")
    if not any(folder.contains(bucket, key) for folder in folders):
        raise UrlForbidden("The source's key is not below a prefix that S3_SOURCE_BUCKETS allows.")
    return bucket, key


def has_dot_segments(key: str) -> bool:
    """Return whether a part of *key* is `.` or `..`, as written or as a server may decode it."""
    decoded = unquote(key)
    # A proxy before the server may decode it again.
    spellings = {key, decoded, unquote(decoded)}
    return any({".", ".."}.intersection(re.split(r"[/\\]", one)) for one in spellings)
