"""scripts/status.py serve: a page for operators, the state of each task, and who may read them."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from common.messages import Result, Task
from config import Settings
from tests import browser
from tests.fixtures_edges import make_receipt
from tests.pipeline.services import REPOSITORY, bare_environ, until
from tests.servers import free_port
from tests.test_report import CONTRASTS, Elements
from tools.services.fleet import Fleet
from tools.status.index import Index
from tools.status.server import Server
from tools.status.tasks import Tasks
from tools.status.watcher import Watcher
from tools.topics.records import TimedRecord

EVIL = "\"><img src=x onerror=alert(1)><script>alert(2)</script>'"
TOKEN = "correct-horse-battery-staple"


class Service:
    """A running status service."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path="/", method="GET", **headers):
        """Return status, headers and text of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()

    def html(self, path="/"):
        return self.ask(path, Accept="text/html,*/*")[2]

    def json(self, path="/"):
        return json.loads(self.ask(path)[2])

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def serving(pipeline, *arguments, **environ):
    port = free_port()
    script = str(REPOSITORY / "scripts" / "status.py")
    command = [sys.executable, script, "serve", "--port", str(port), *arguments]
    with (pipeline.folder / "status.out").open("ab") as output:
        process = subprocess.Popen(
            [*command, "--folder", str(pipeline.folder)],
            cwd=pipeline.folder,
            env={**bare_environ(), **pipeline.environ, **environ},
            stdout=output,
            stderr=output,
        )
    service = Service(port)

    def well():
        assert process.poll() is None, (pipeline.folder / "status.out").read_text()
        try:
            return service.ask("/healthz")[0] == 200
        except OSError:
            return False

    try:
        until(well, "the first look")
        yield service
    finally:
        process.send_signal(signal.SIGINT if sys.platform != "win32" else signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def tasks(running, shared_world):
    """Return a task that succeeded, one that failed, and one whose callback is refused."""
    shared_world.answers["/down?token=hidden"] = 500
    metadata = {"title": EVIL}
    down = shared_world.url("/down?token=hidden")
    shared_world.files["/song.wav?X-Amz-Signature=hidden"] = shared_world.files["/song.wav"]
    found = {
        "good": running.order(shared_world.url("/song.wav?X-Amz-Signature=hidden")),
        "bad": running.order(shared_world.url("/absent.wav"), metadata=metadata),
        "down": running.order(shared_world.url("/song.wav"), callback_url=down),
    }
    for task_uuid in found.values():
        running.outcome(task_uuid)
    shared_world.until_attempts("/down?token=hidden", 1)
    return found


@pytest.fixture(scope="module")
def service(running, tasks):  # noqa: ARG001 -- what it shows
    with serving(running) as service:
        until(lambda: service.json()["callbacks_waiting"], "the callback that waits")
        yield service


# -- tasks ------------------------------------------------------------------------


def test_a_task_has_what_trace_knows(service, tasks):
    good, bad = service.json(f"/tasks/{tasks['good']}"), service.json(f"/tasks/{tasks['bad']}")

    assert set(good) == {"task_uuid", "state", "what", "note", "events", "outcome"}
    assert (good["state"], good["note"]) == ("succeeded", None)
    assert good["outcome"]["stems"]["vocals"]["key"] == f"{tasks['good']}/vocals.wav"
    assert good["events"][0]["what"].startswith("task sent: http://127.0.0.1:")
    assert any(one["place"] == f"s3:{tasks['good']}/result.json" for one in good["events"])
    assert bad["state"] == "failed"
    assert bad["outcome"]["error"]["code"] == "download_failed"
    assert service.json(f"/tasks/{tasks['down']}")["state"] == "callback waiting"


def test_a_task_that_nobody_knows_is_not_found(service):
    status, _, text = service.ask("/tasks/nobody-1")

    assert status == 404
    assert json.loads(text)["state"] == "unknown"


@pytest.mark.parametrize(
    "path", ["/tasks/%3Cscript%3E", "/tasks/../x", "/tasks/" + "a" * 129, "/tasks?id=%22%3E", "/x"]
)
def test_what_is_no_task_id_is_refused_and_not_repeated(service, path):
    for accept in ("text/html", "application/json"):
        status, _, text = service.ask(path, Accept=accept)

        assert status in {400, 404}
        assert "<script>alert" not in text
        assert "aaaaaaaa" not in text


def test_a_search_leads_to_the_task(service, tasks):
    status, headers, _ = service.ask(f"/tasks?id={tasks['good']}")

    assert (status, headers["Location"]) == (303, f"/tasks/{tasks['good']}")


def test_the_overview_has_what_an_operator_asks_for(service, tasks):
    seen = service.json()

    assert seen["verdict"].startswith("Warning: The receiver http://127.0.0.1:")
    assert [group["members"] for group in seen["groups"]] == [1, 1]
    assert seen["drain_seconds"] >= 0
    assert seen["s3"]["problem"] is None
    assert [one["code"] for one in seen["failures"]] == ["download_failed"]
    assert seen["callbacks_waiting"] == 1
    assert {one["task_uuid"] for one in seen["songs"]} >= set(tasks.values())


def test_pages_are_whole_and_escape_what_senders_write(service, tasks):
    for path in ("/", "/tasks", *(f"/tasks/{one}" for one in tasks.values())):
        html = service.html(path)
        elements = Elements(
            html.replace('<link rel="icon" href="data:,">', "").replace(
                '<link rel="stylesheet" href="/page.css">', ""
            )
        )

        assert elements.open == []
        assert EVIL not in html
        assert [script.get("src") for script in elements.named("script")] == ["/page.js"]
        assert not elements.named("img")
        assert not [name for _, found in elements.found for name in found if name.startswith("on")]
        assert not [found for _, found in elements.found if "style" in found]


def test_no_signature_and_no_secret_is_shown(service, tasks):
    for path in ("/", "/tasks", *(f"/tasks/{one}" for one in tasks.values())):
        for text in (service.html(path), service.ask(path)[2]):
            assert "hidden" not in text
            assert "X-Amz-Signature" not in text


def test_every_answer_has_strict_headers(service):
    for path in ("/", "/tasks/nobody-1", "/page.css", "/page.js", "/healthz", "/nothing"):
        _, headers, _ = service.ask(path)

        assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(service, method):
    status, headers, _ = service.ask("/", method)

    assert status == 501
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_name_that_a_strange_site_gave_to_our_address_is_refused(service):
    assert service.ask("/", Host="evil.example")[0] == 421
    assert service.ask("/", Host=f"localhost:{service.port}")[0] == 200
    assert service.ask("/", Host=f"[::1]:{service.port}")[0] == 200


@pytest.fixture
def unread(tmp_path):
    """A service in this process that has read nothing yet."""
    watcher = Watcher(SETTINGS, Fleet(tmp_path, {}))
    tasks = Tasks(SETTINGS, watcher)
    server = Server(("127.0.0.1", 0), watcher, tasks, token=None, names=frozenset())
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def raw(server, request):
    """Return the first line and the body that answer *request*."""
    with socket.create_connection(server.server_address, timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read().decode()
    return answer.partition("\r\n")[0], answer.rpartition("\r\n\r\n")[2]


@pytest.mark.parametrize("target", [b"http://[", b"http://[::1]a/", b"/tasks/[::1", b"//[/tasks"])
def test_a_target_that_is_no_url_is_refused(unread, target):
    line, body = raw(unread, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert line.split()[1] in {"400", "404", "503"}
    assert "error" in json.loads(body)


def test_the_health_is_told_to_a_probe_that_names_no_host(unread):
    line, body = raw(unread, b"GET /healthz HTTP/1.0\r\n\r\n")

    assert line.split()[1] == "503"
    assert json.loads(body) == {"status": "failed", "reason": "the topics are being read"}


def test_it_joins_no_group_and_makes_nothing(service, running):
    """The services' members alone are in the groups, and the bucket has outcomes alone."""
    before = running.keys()

    for path in ("/", "/tasks", "/tasks/nobody-1"):
        service.ask(path)

    assert running.keys() == before
    assert [group["members"] for group in service.json()["groups"]] == [1, 1]


def test_a_hundred_browsers_are_answered_from_one_look(service):
    with ThreadPoolExecutor(20) as pool:
        seen = list(pool.map(lambda _: service.json(), range(100)))

    # Each look has its time; more than a few mean that requests make their own.
    assert len({one["at"] for one in seen}) < 20


# -- the token --------------------------------------------------------------------


def test_with_a_token_only_its_owner_is_answered(running, tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    with serving(running, STATUS_TOKEN_FILE=str(file)) as service:
        refused = service.ask("/")
        wrong = service.ask("/", Authorization="Bearer wrong-wrong-wrong-wrong")
        right = service.ask("/", Authorization=f"Bearer {TOKEN}")
        password = "eDpjb3JyZWN0LWhvcnNlLWJhdHRlcnktc3RhcGxl"  # x:TOKEN
        browsers = service.ask("/", Authorization=f"Basic {password}")
        health = service.ask("/healthz")

    assert (refused[0], wrong[0], right[0], browsers[0], health[0]) == (401, 401, 200, 200, 200)
    assert "Basic" in refused[1]["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "--host 0.0.0.0: others can reach this address, so a token is needed"),
        ({"STATUS_TOKEN": "short"}, "STATUS_TOKEN: must have at least 16"),
        ({"STATUS_TOKEN_FILE": "/nowhere"}, "STATUS_TOKEN_FILE: /nowhere cannot be read"),
    ],
)
def test_an_address_that_others_reach_needs_a_token(tmp_path, environ, said):
    script = str(REPOSITORY / "scripts" / "status.py")
    done = subprocess.run(
        [sys.executable, script, "serve", "--host", "0.0.0.0", "--folder", str(tmp_path)],
        env={**bare_environ(), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 2
    assert said in done.stderr


# -- many tasks -------------------------------------------------------------------

SETTINGS = Settings.from_environ({})


def record(topic, value, key, at_ms):
    return TimedRecord(topic, 0, at_ms, key.encode(), value, (), timestamp_ms=at_ms)


def result_of(task, at_ms):
    origin = record("uvr_tasks", b"", task.task_uuid, at_ms).origin
    receipt = make_receipt().model_dump(mode="json")
    stem = {"path": "a", "bytes": 1, "sha256": "0" * 64, "format": "wav"}
    facts = {
        "task_uuid": task.task_uuid,
        "status": "succeeded",
        "error": None,
        "origin": origin.model_dump(),
        "stems": {"vocals": stem, "instrumental": stem},
        "receipt": receipt,
        "callback_url": None,
        "metadata": {},
        "attempt": 1,
    }
    return Result.model_validate(facts)


def indexed(index, number):
    for at in range(number):
        task_uuid = f"song-{at}"
        value = json.dumps({"task_uuid": task_uuid, "audio_url": f"https://x.example/{at}.mp3"})
        task = Task.decode(value.encode())
        index.add([record("uvr_tasks", value.encode(), task_uuid, at)])
        index.add([record("uvr_results", result_of(task, at).encode(), task_uuid, at + 1)])


def test_a_thousand_tasks_are_listed_newest_first():
    index = Index(SETTINGS)
    indexed(index, 1200)

    songs = index.songs(1000)

    assert len(songs) == 1000
    assert (songs[0].task_uuid, songs[0].title, songs[0].state) == (
        "song-1199",
        "1199",
        "succeeded",
    )


def test_the_index_keeps_the_newest_tasks_within_its_memory():
    index = Index(SETTINGS, max_bytes=100_000)
    indexed(index, 200)

    assert index.of("song-199")
    assert not index.of("song-0")
    assert sum(len(one.value or b"") for one in index.all()) < 100_000


def test_one_task_that_is_sent_again_and_again_keeps_its_newest_records():
    index = Index(SETTINGS)
    value = json.dumps({"task_uuid": "song", "audio_url": "https://x.example/a.mp3"}).encode()
    for at in range(1000):
        index.add([record("uvr_tasks", value, "song", at)])

    assert [index.of("song")[0].offset, index.of("song")[-1].offset] == [800, 999]


# -- in a browser -----------------------------------------------------------------


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if browser.CHROMIUM is None:
        pytest.skip(
            "no Chromium is installed (Debian: apt-get install chromium; or name it in CHROMIUM)"
        )
    with browser.browser(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_the_window_and_their_text_is_legible(tab, service, tasks, width, scheme):
    for path in ("/", "/tasks", f"/tasks/{tasks['bad']}"):
        tab.open(service.url(path), width=width, prefers_color_scheme=scheme)

        assert tab.value("document.documentElement.scrollWidth") <= width
        assert tab.value(CONTRASTS) == []
        small = "[...document.querySelectorAll('button, input')]"
        assert tab.value(f"{small}.every((one) => one.getBoundingClientRect().height >= 44)")
    assert tab.complaints == []


def test_the_page_is_brought_up_to_date_where_the_reader_is(tab, service, running, shared_world):
    tab.open(service.url("/"), height=400)
    tab.value("document.querySelector('#songs a').focus()")
    tab.value("scrollTo(0, 300)")
    was = tab.value("document.activeElement.getAttribute('href')")
    before = tab.value("scrollY")

    task_uuid = running.order(shared_world.url("/song.wav"))
    tab.until(f"document.querySelector('#songs').textContent.includes('{task_uuid}')")

    assert tab.value("document.activeElement.getAttribute('href')") == was
    assert tab.value("scrollY") == before
    assert {url.split("/")[2] for url in tab.requests if url.startswith("http")} == {
        f"127.0.0.1:{service.port}"
    }


def test_the_keyboard_reaches_the_content_and_the_tasks(tab, service):
    tab.open(service.url("/"))

    tab.press("Tab")
    first = tab.value("document.activeElement.className")
    focusable = tab.value("[...document.querySelectorAll('a, button, input')].length")
    order = tab.value(
        "[...document.querySelectorAll('[tabindex]')].every((one) => one.tabIndex <= 0)"
    )

    assert first == "skip"
    assert focusable > 5
    assert order


def test_the_styles_colours_contrast_enough_in_both_schemes():
    """Every text colour on every ground that the style puts it on (WCAG 2.2, 1.4.3)."""
    style = (REPOSITORY / "tools" / "status" / "page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    pairs = [(text, ground) for text in ("ink", "quiet", "link") for ground in ("paper", "card")]
    pairs += [(mood, f"{mood}-wash") for mood in ("good", "busy", "bad")]
    pairs += [(text, f"{m}-wash") for m in ("good", "busy", "bad") for text in ("ink", "quiet")]

    poor = [
        (name, *pair, round(contrast(colours[pair[0]], colours[pair[1]]), 2))
        for name, colours in (("light", light), ("dark", dark))
        for pair in pairs
        if contrast(colours[pair[0]], colours[pair[1]]) < 4.5
    ]

    assert poor == []


def contrast(one, other):
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour):
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
