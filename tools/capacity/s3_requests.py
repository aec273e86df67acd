"""The S3 requests of one order; tests/pipeline/test_capacity.py counts those of the services."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from tools.capacity.measured import MULTIPART_BYTES, PART_BYTES, SMALL_BYTES

Requests = Counter[str]

WRITES, READS = ("PUT", "POST", "DELETE"), ("GET", "HEAD", "LIST")
NAMES = WRITES + READS


def upload(size_bytes: int) -> Requests:
    """Return the requests that store a stem and check that it arrived."""
    if size_bytes <= SMALL_BYTES:
        return Counter(PUT=1)
    if size_bytes < MULTIPART_BYTES:
        return Counter(PUT=1, HEAD=1)
    return Counter(POST=2, PUT=math.ceil(size_bytes / PART_BYTES), HEAD=1)


def of_processor(stems: Sequence[int], *, source_in_s3: bool, handoff_in_s3: bool) -> Requests:
    """Return a processor's requests for a task whose stems have these sizes; none if it failed."""
    requests: Requests = Counter(GET=1) if source_in_s3 else Counter()
    if handoff_in_s3:
        for size_bytes in stems:
            requests += upload(size_bytes)
    return requests


def of_uploader(stems: Sequence[int], *, handoff_in_s3: bool) -> Requests:
    """Return an uploader's requests for the first order of an id; without *stems*, it failed."""
    # The folder is listed, and the outcome written; a failure lists it once more, for stems of a
    # broken upload.
    requests = Counter(PUT=1, LIST=1 if stems else 2)
    for size_bytes in stems:
        requests += upload(size_bytes)
        if handoff_in_s3:
            requests += Counter(GET=1, DELETE=1)
    return requests


def writes(requests: Mapping[str, float]) -> float:
    """Return how many of *requests* count towards S3's rate of writes."""
    return sum(requests[name] for name in WRITES)


def reads(requests: Mapping[str, float]) -> float:
    """Return how many of *requests* count towards S3's rate of reads."""
    return sum(requests[name] for name in READS)
