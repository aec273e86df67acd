"""Hostile URLs, each with its expected code as a source and as a receiver of callbacks.

None of them may reach the inside: a service on loopback at `{port}`, or a canary beside INPUT_DIR.
Placeholders: `{port}` of the inside, `{input}` for INPUT_DIR and `{beside}` for its parent folder.
Every URL that got through, or that scripts/fuzz.py found, is added here.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class HostileUrl:
    """A URL; *hosts* are the addresses that its name resolves to, if the test must resolve it."""

    url: str
    audio: str = "url_forbidden"
    callback: str = "callback_failed"
    hosts: tuple[str, ...] = field(default=())

    def filled(self, **places: object) -> str:
        """Return the URL with its placeholders filled."""
        url = self.url
        for name, value in places.items():
            url = url.replace(f"{{{name}}}", str(value))
        return url


#: Spellings of internal addresses.
SPELLINGS = [
    HostileUrl(url)
    for url in (
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://LOCALHOST.:{port}/",
        "http://2130706433:{port}/",
        "http://0x7f000001:{port}/",
        "http://0x7f.1:{port}/",
        "http://0177.0.0.1:{port}/",
        "http://127.1:{port}/",
        "http://127.0.1:{port}/",
        "http://0:{port}/",
        "http://0.0.0.0:{port}/",
        "http://127.0.0.1.:{port}/",
        "http://[::1]:{port}/",
        "http://[::]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[::ffff:7f00:1]:{port}/",
        "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
        "http://[::127.0.0.1]:{port}/",
        "http://[64:ff9b::7f00:1]:{port}/",
        "http://[64:ff9b:1::7f00:1]:{port}/",
        "http://[2002:7f00:1::]:{port}/",
        "http://[2001:0:7f00:1::80ff:fffe]:{port}/",
        "http://[::1%25lo]:{port}/",
        "http://[::1%lo]:{port}/",
        "http://[fe80::1%251]:{port}/",
        "http://[fe80::1%25lo]:{port}/",
        "http://user:pass@127.0.0.1:{port}/",
        "http://example.com@127.0.0.1:{port}/",
        "http://example.com:80@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@example.com/",
        "http://127.0.0.1:{port}/\\@example.com",
        "http://127.0.0.1:{port}#@example.com/",
        "http://127.0.0.1:{port}?@example.com/",
        "http://127。0。0。1:{port}/",
        "http://①②⑦.⓪.⓪.①:{port}/",
        "http://１２７.0.0.1:{port}/",
        "HTTP://127.0.0.1:{port}/",
        "hTTp://LOCALHOST:{port}/",
        "http://%31%32%37.0.0.1:{port}/",
        "http://127.0.0.1%00.example.com:{port}/",
        "http://127.0.0.1%2f:{port}/",
        "http://127.0.0.1%20:{port}/",
        "http:///127.0.0.1:{port}/",
        "http:////127.0.0.1:{port}/",
        "http://127.0.0.1 :{port}/",
        "http://[127.0.0.1]:{port}/",
        "http://[::1:{port}/",
        "http://127.0.0.1:{port}:80/",
        "http://127.0.0.1:99{port}9999/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:-1/",
        "http://@127.0.0.1:{port}/",
        "http://:@127.0.0.1:{port}/",
        "http://a@b@127.0.0.1:{port}/",
        "http://[::ffff:0:127.0.0.1]:{port}/",
        "http://€:x@127.0.0.1:{port}/",
        "http://",
        "http://?",
        "http://#",
        "http://:{port}/",
        "http://.:{port}/",
        "http://[]:{port}/",
        "https://127.0.0.1:{port}/",
        "https://localhost:{port}/",
        "https://[::1]:{port}/",
    )
]
#: Metadata services and other internal addresses.
METADATA = [
    HostileUrl(url)
    for url in (
        "http://169.254.169.254/latest/meta-data/",
        "http://169.254.170.2/v2/credentials",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://100.100.100.200/latest/",
        "http://192.0.0.192/opc/v2/",
        "http://168.63.129.16/machine",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://[fc00::1]/",
        "http://[fec0::1]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[ff02::1]/",
        "http://198.18.0.1/",
        "http://192.0.2.1/",
        "http://240.0.0.1/",
    )
]
#: Other schemes; as a callback_url they make the task invalid.
SCHEMES = [
    HostileUrl(url, callback="invalid_task")
    for url in (
        "//127.0.0.1:{port}/",
        "127.0.0.1:{port}/",
        "gopher://127.0.0.1:{port}/_x",
        "ftp://127.0.0.1:{port}/",
        "dict://127.0.0.1:{port}/",
        "ldap://127.0.0.1:{port}/",
        "tftp://127.0.0.1:{port}/",
        "sftp://127.0.0.1:{port}/",
        "http:127.0.0.1:{port}/",
        "http:/127.0.0.1:{port}/",
        "http//127.0.0.1:{port}/",
        " http://127.0.0.1:{port}/",
        "view-source:http://127.0.0.1:{port}/",
        "jar:http://127.0.0.1:{port}!/",
        "http+unix://%2fvar%2frun%2fdocker.sock/",
        "unix:///var/run/docker.sock",
        "data:audio/wav;base64,UklGRg==",
        "concat:a|b",
        "subfile,,start,0,end,9,,:/etc/passwd",
        "hls+http://127.0.0.1:{port}/x.m3u8",
        "crypto:http://127.0.0.1:{port}/",
        "javascript:alert(1)",
        "pipe:0",
        "fd:0",
        "-",
        "--help",
        "/etc/passwd",
        "C:\\Windows\\win.ini",
        "\\\\127.0.0.1\\share\\x",
        "~/.netrc",
    )
]
#: URLs that make the task invalid.
UNREADABLE = [
    HostileUrl(url, "invalid_task", "invalid_task")
    for url in (
        "",
        "http://127.0.0.1:{port}/\r\nX: y",
        "http://127.0.0.1\n:{port}/",
        "http://127.0.0.1:{port}/\x00",
        "http://\u202e1.0.0.721:{port}/",
        "http://127.0.0.1:{port}/\u200b",
        "\x1b[31mhttp://127.0.0.1:{port}/",
        "http://127.0.0.1:{port}/\u2028",
        "http://127.0.0.1:{port}/" + "a" * 9000,
    )
]
#: Names and their addresses.
NAMES = [
    HostileUrl("http://song.example:{port}/", hosts=hosts)
    for hosts in (
        ("127.0.0.1",),
        ("1.1.1.1", "127.0.0.1"),
        ("127.0.0.1", "1.1.1.1"),
        ("1.1.1.1", "10.0.0.1"),
        ("::1",),
        ("::ffff:127.0.0.1",),
        ("2606:4700::1111", "::ffff:10.0.0.1"),
        ("64:ff9b::7f00:1",),
        ("2002:7f00:1::",),
        ("2001:0:7f00:1::80ff:fffe",),
        ("fe80::1%1",),
        ("::1%1",),
        ("0.0.0.0",),
        ("::",),
        ("169.254.169.254",),
        ("1.1.1.1", "fd00:ec2::254"),
        ("100.100.100.200",),
        ("192.0.0.192",),
        ("168.63.129.16",),
        ("224.0.0.1",),
        ("3fff::1",),
    )
]
#: Files; INPUT_DIR has song.wav, `link` to the canary beside it, and `folder` to its parent.
FILES = [
    HostileUrl(url, callback="invalid_task")
    for url in (
        "file://{input}/../canary",
        "file://{input}/%2e%2e/canary",
        "file://{input}/%2E%2E%2Fcanary",
        "file://{input}/folder/../../canary",
        "file://{input}/link",
        "file://{input}/folder/canary",
        "file://{beside}/canary",
        "FILE://{beside}/canary",
        "file://localhost{input}/song.wav",
        "file://host{input}/song.wav",
        "file://127.0.0.1:{port}{input}/song.wav",
        "file:{input}/song.wav",
        "file:///{input}/song.wav",
        "file://{input}/canary%00.wav",
        "file://{input}/song.wav%00",
        "file:///etc/passwd",
        "file:///proc/self/environ",
        "file:///dev/zero",
        "file:///dev/stdin",
        "file://{input}",
        "file://{input}/.",
        "file:///",
        "file:///..",
        "file:////host/share/x",
        "file:///\\\\host/share",
        "file:///{input}/../canary",
        "file://",
        "file:",
    )
]
#: Objects; only the bucket `songs` is allowed.
OBJECTS = [
    HostileUrl(url, callback="invalid_task")
    for url in (
        "s3://somebody-else/a.mp3",
        "s3://songs",
        "s3://songs/",
        "s3:///a.mp3",
        "s3://songs.evil/a.mp3",
        "s3://songs@evil/a.mp3",
        "s3://SONGS/a.mp3",
        "s3://songs/../somebody-else/a.mp3",
        "s3://songs/./../x",
        "s3://songs/a/..",
        "s3:songs/a.mp3",
        "s3://arn:aws:s3:::somebody-else/a.mp3",
        "s3://songs/%2e%2e/somebody-else/a.mp3",
        "s3://songs/a%2F..%2Fb",
        "s3://songs/%252e%252e%252fa",
        "s3://songs/..\\\\a",
    )
]

#: URLs that parsers read differently from people, and that lead nowhere.
MISREAD = [
    HostileUrl("http://song.example\\@127.0.0.1:{port}/", hosts=("192.0.2.1",)),
    HostileUrl("http://song.example:{port}\\@127.0.0.1/", hosts=("192.0.2.1",)),
    HostileUrl(
        "file://{input}/%252e%252e/canary", audio="download_failed", callback="invalid_task"
    ),
    HostileUrl("file://{input}/~/canary", audio="download_failed", callback="invalid_task"),
    HostileUrl("file://{input}/$HOME/{}", audio="download_failed", callback="invalid_task"),
]

CORPUS = [*SPELLINGS, *METADATA, *SCHEMES, *UNREADABLE, *NAMES, *FILES, *OBJECTS, *MISREAD]
