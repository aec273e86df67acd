"""Callbacks have exactly the contract's body, and the reference library verifies them."""

from __future__ import annotations

import hmac
import json
import threading
import traceback
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from common.callback import Callbacks, webhook_id
from common.errors import CallbackFailed, CallbackGone, Cancelled
from common.http_url import HttpUrl
from common.messages import Link
from common.network import Network
from common.outages import Outage
from common.signing import PrivateKey, encode, parse_key, signatures, signed_content
from tests.fixtures_edges import make_outcome

OLD_SECRET = "whsec_" + "b2xk" * 10
NEW_SECRET = "whsec_" + "bmV3" * 10
MOMENT_SECONDS = 1_795_244_700.9


def link(key):
    return Link(
        url=f"https://stems.example/{key}?signature=x",
        expires=datetime(2026, 11, 28, 7, 5, tzinfo=UTC),
    )


@pytest.fixture
def send(http, network):
    """Return a function that sends an outcome to the HTTP server and returns its request."""

    def send_to(path="/status/200", outcome=None, secrets=(NEW_SECRET,), cancelled=None, **options):
        callbacks = Callbacks(network, secrets, options.pop("timeout_seconds", 30), **options)
        callbacks.send(http.url(path), outcome or make_outcome(), link, cancelled=cancelled)
        return http.seen[-1]

    return send_to


def test_a_succeeded_outcome_is_told_as_the_contract_says(send, http):
    seen = send()

    assert seen.method == "POST"
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["User-Agent"].startswith("uvr-pipeline/")
    assert json.loads(seen.body) == {
        "type": "uvr.task.succeeded",
        "timestamp": "2026-11-21T07:05:00Z",
        "audience": f"http://127.0.0.1:{http.port}",
        "data": {
            "task_uuid": "task-1",
            "status": "succeeded",
            "vocals": {
                "url": "https://stems.example/task-1/vocals.flac?signature=x",
                "expires": "2026-11-28T07:05:00Z",
                "key": "task-1/vocals.flac",
                "bytes": 1,
                "sha256": "b" * 64,
                "format": "flac",
            },
            "instrumental": {
                "url": "https://stems.example/task-1/instrumental.flac?signature=x",
                "expires": "2026-11-28T07:05:00Z",
                "key": "task-1/instrumental.flac",
                "bytes": 1,
                "sha256": "b" * 64,
                "format": "flac",
            },
            "receipt": make_outcome().model_dump(mode="json")["receipt"],
            "metadata": {"user": 7, "name": "Jürgen {} \u2028"},
        },
    }


def test_a_url_that_never_ends_has_no_expires_beside_it(http, network):
    Callbacks(network, [], 30).send(
        http.url("/status/200"), make_outcome(), lambda key: Link(url=f"https://cdn.example/{key}")
    )

    vocals = json.loads(http.seen[-1].body)["data"]["vocals"]
    assert vocals["url"] == "https://cdn.example/task-1/vocals.flac"
    assert "expires" not in vocals


def test_a_failed_outcome_is_told_as_the_contract_says(send, http):
    seen = send(outcome=make_outcome(failed=True))

    assert json.loads(seen.body) == {
        "type": "uvr.task.failed",
        "timestamp": "2026-11-21T07:05:00Z",
        "audience": f"http://127.0.0.1:{http.port}",
        "data": {
            "task_uuid": "task-1",
            "status": "failed",
            "error": {"code": "download_failed", "message": "It answered 404.", "retryable": False},
            "metadata": {"user": 7, "name": "Jürgen {} \u2028"},
        },
    }


def test_the_reference_library_believes_the_signature(send):
    seen = send()

    assert Webhook(NEW_SECRET).verify(seen.body, seen.headers)["type"] == "uvr.task.succeeded"
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD_SECRET).verify(seen.body, seen.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW_SECRET).verify(seen.body.replace(b"task-1", b"task-2"), seen.headers)


def test_while_secrets_rotate_both_verify(send):
    seen = send(secrets=(NEW_SECRET, OLD_SECRET))

    for secret in (NEW_SECRET, OLD_SECRET):
        Webhook(secret).verify(seen.body, seen.headers)


def test_without_a_secret_only_id_and_timestamp_are_sent(send):
    headers = {
        name.lower(): value
        for name, value in send(secrets=(), now=lambda: MOMENT_SECONDS).headers.items()
    }

    assert headers["webhook-id"] == webhook_id(make_outcome())
    assert headers["webhook-timestamp"] == "1795244700"
    assert "webhook-signature" not in headers


def test_the_id_is_the_same_for_every_attempt_and_differs_between_orders_and_statuses():
    ids = [
        webhook_id(make_outcome()),
        webhook_id(make_outcome(offset=43)),
        webhook_id(make_outcome("task-2")),
        webhook_id(make_outcome(failed=True)),
        webhook_id(make_outcome(timestamp=1)),
    ]

    assert len(set(ids)) == 5
    assert webhook_id(make_outcome()) == ids[0]


def test_the_id_of_an_order_without_a_timestamp_is_that_of_earlier_releases():
    assert webhook_id(make_outcome(timestamp=None)) == "msg_483f43997a1252acdd5d82577d306148"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_delivered(send, status):
    send(f"/status/{status}")


@pytest.mark.parametrize("path", ["/drip", "/endless", "/short/100", "/announced/100"])
def test_a_2xx_is_delivered_whatever_becomes_of_its_body(send, path):
    send(path)


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 429, 500, 503])
def test_any_other_status_is_a_failure_that_names_it(send, status):
    with pytest.raises(CallbackFailed, match=str(status)):
        send(f"/status/{status}")


@pytest.mark.parametrize("path", ["/redirect/1/10", "/to-endless?url=/bytes/10"])
def test_a_redirect_is_a_failure_and_is_not_followed(send, http, path):
    with pytest.raises(CallbackFailed, match="302"):
        send(path)
    assert len(http.seen) == 1


def test_410_means_that_nobody_wants_it_any_more(send):
    with pytest.raises(CallbackGone):
        send("/status/410")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120.0), ("Sat,%2021%20Nov%202026%2007:06:00%20GMT", 59.1), ("soon", None)],
)
def test_the_wait_that_the_receiver_asks_for_is_passed_on(send, header, seconds):
    with pytest.raises(CallbackFailed) as caught:
        send(f"/status/503/{header}", now=lambda: MOMENT_SECONDS)
    assert caught.value.retry_after_seconds == (pytest.approx(seconds) if seconds else None)


@pytest.mark.parametrize("path", ["/silent", "/drip-headers"])
def test_a_receiver_that_does_not_answer_in_time_fails(send, path):
    with pytest.raises(CallbackFailed, match=r"within 0\.3 s"):
        send(path, timeout_seconds=0.3)


def test_a_receiver_that_does_not_listen_or_speak_http_fails(send):
    with pytest.raises(CallbackFailed):
        send("/garbage")


def test_a_forbidden_address_fails_and_says_so(http):
    with pytest.raises(CallbackFailed, match="url_forbidden"):
        Callbacks(Network(), [], 30).send(http.url("/status/200"), make_outcome(), link)
    assert http.seen == []


def test_a_link_that_cannot_be_signed_now_is_a_failed_attempt(http, network):
    def unavailable(_key):
        raise Outage("there are no credentials now")

    with pytest.raises(CallbackFailed, match="no credentials"):
        Callbacks(network, [], 30).send(http.url("/status/200"), make_outcome(), unavailable)


def test_a_cancelled_turn_ends_the_attempt(send, http):
    cancelled = threading.Event()
    http.on_request = cancelled.set

    with pytest.raises(Cancelled):
        send("/silent", cancelled=cancelled)


SEED = bytes(range(32))
PUBLIC = PrivateKey(SEED).public_bytes


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    ("prefix", "key"),
    [
        *(("whsec_", bytes(size)) for size in (24, 32, 64)),
        ("whsk_", SEED),
        ("whsk_", SEED + PUBLIC),
    ],
    ids=lambda value: value if isinstance(value, str) else str(len(value)),
)
def test_a_key_is_a_secret_of_24_to_64_bytes_or_an_ed25519_seed_with_or_without_its_public_key(
    prefix, key, padded
):
    text = encode(prefix, key)

    parsed = parse_key(text if padded else text.rstrip("="))

    content = b"content"
    if prefix == "whsec_":
        assert parsed.sign(content) == hmac.digest(key, content, "sha256")
    else:
        Ed25519PublicKey.from_public_bytes(PUBLIC).verify(parsed.sign(content), content)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "must begin with whsec_ or whsk_"),
        ("secret", "must begin with whsec_ or whsk_"),
        ("WHSEC_" + "A" * 40, "must begin with whsec_ or whsk_"),
        ("A" * 43 + "=", "must begin with whsec_ or whsk_"),
        ("whsec_", "24 to 64 bytes"),
        ("whsec_" + "A" * 30, "24 to 64 bytes"),
        ("whsec_" + "A" * 90, "24 to 64 bytes"),
        ("whsec_short", "base64"),
        ("whsec_" + "ü" * 40, "base64"),
        ("whsec_" + "A" * 31 + "!", "base64"),
        ("whsec_" + "A" * 32 + ",whsec_" + "A" * 32, "base64"),
        ("whsk_", "32 or 64 bytes"),
        (encode("whsk_", SEED[:31]), "32 or 64 bytes"),
        (encode("whsk_", SEED * 2 + SEED), "32 or 64 bytes"),
        (encode("whsk_", SEED * 2), "public half"),
        ("whsk_" + "-" * 43, "base64"),
        (encode("whpk_", PUBLIC), "is a public key"),
    ],
)
def test_anything_else_is_no_key_and_is_not_repeated(key, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        parse_key(key)
    told = "".join(traceback.format_exception(caught.value))
    assert len(key) <= len("whsec_") or key not in told
    assert len(key) < 12 or key.rpartition("_")[2] not in told


def test_an_ed25519_signature_is_that_of_the_reference_library():
    # Of the Go library's tests.
    key = parse_key("whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=")
    content = signed_content("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')

    assert signatures([key], content) == (
        "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag=="
    )


def test_each_key_signs_in_its_own_way_and_the_reference_library_finds_its_signature(send):
    private = encode("whsk_", SEED)
    seen = send(secrets=(private, NEW_SECRET))

    versions = [one.partition(",")[0] for one in seen.headers["webhook-signature"].split(" ")]
    assert versions == ["v1a", "v1"]
    Webhook(NEW_SECRET).verify(seen.body, seen.headers)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://example.com/hook?x=1#y", "https://example.com"),
        ("HTTPS://Example.COM:443/hook", "https://example.com"),
        ("http://example.com:80", "http://example.com"),
        ("http://example.com:443/", "http://example.com:443"),
        ("https://example.com:08443/", "https://example.com:8443"),
        ("https://me:secret@example.com/", "https://example.com"),
        ("https://B\u00fccher.example/", "https://xn--bcher-kva.example"),
        ("https://stra\u00dfe.example/", "https://xn--strae-oqa.example"),
        ("https://b%C3%BCcher.example/", "https://xn--bcher-kva.example"),
        ("https://example.com./", "https://example.com."),
        ("http://0x7f.1:8080/", "http://127.0.0.1:8080"),
        ("http://[2001:DB8:0:0::1]/", "http://[2001:db8::1]"),
        ("http://[2001:DB8::1]:8080/", "http://[2001:db8::1]:8080"),
        ("http://[::ffff:127.0.0.1]:8080/", "http://[::ffff:7f00:1]:8080"),
    ],
)
def test_the_audience_is_the_origin_of_the_callback_url_as_a_browser_has_it(url, origin):
    assert HttpUrl.parse(url).origin == origin
