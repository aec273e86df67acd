"""The jars of S3Proxy.

    python -m tools.local_s3.jars > tools/local_s3/s3proxy-4.1.0.sha256

writes their list from Maven's resolution, for a new version of S3Proxy. It names
jackson-annotations, of which the resolution alone chooses a version that is too old for the jackson
beside it.
"""

from __future__ import annotations

from pathlib import Path

from tools.jvm.jars import JarList, write

S3PROXY_VERSION = "4.1.0"
S3PROXY = JarList(
    f"S3Proxy {S3PROXY_VERSION}",
    Path(__file__).with_name(f"s3proxy-{S3PROXY_VERSION}.sha256"),
    f"org.gaul:s3proxy:{S3PROXY_VERSION}+com.fasterxml.jackson.core:jackson-annotations:2.22",
)

if __name__ == "__main__":
    write(S3PROXY)
