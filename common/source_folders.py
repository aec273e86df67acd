"""The places in S3 that sources may come from: S3_SOURCE_BUCKETS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

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


def has_dot_segments(key: str) -> bool:
    """Return whether a part of *key* is `.` or `..`, as written or as a server may decode it."""
    decoded = unquote(key)
    # A proxy before the server may decode it again.
    spellings = {key, decoded, unquote(decoded)}
    return any({".", ".."}.intersection(re.split(r"[/\\]", one)) for one in spellings)
