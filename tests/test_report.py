"""Reports: their content, that they load nothing, and that they play in a real browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import av
import numpy as np
import pytest

from common.errors import DecodeFailed
from common.messages import ErrorInfo
from common.separation.child_process import ROOT
from tests import browser, sounds
from tests.fixtures_edges import make_outcome, make_receipt
from tests.pipeline.scripts import lines, run
from tests.pipeline.services import until
from tools.report import index, page, picture, words
from tools.report.contents import Report, Step, stems_in
from tools.report.sound import load
from tools.report.title import title_of

SCRIPT = ROOT / "scripts" / "report.py"
SECONDS = 4.0
EVIL = "\"><img src=x onerror=alert(1)><script>alert(2)</script>'</script><!--"
RATE = 44_100


def write_stems(folder: Path, suffix: str = "wav") -> Path:
    """Write vocals that are silent in their first half, and a steady instrumental."""
    folder.mkdir(parents=True, exist_ok=True)
    moments = np.arange(int(SECONDS * RATE)) / RATE
    loudness = np.select([moments < SECONDS / 2, moments < 0.6 * SECONDS], [0, 0.5], 0.4)
    voice = loudness * np.sin(2 * np.pi * 440 * moments)
    rest = 0.25 * np.sin(2 * np.pi * 110 * moments)
    for name, samples in (("vocals", voice), ("instrumental", rest)):
        sounds.write_wav(folder / f"{name}.{suffix}", np.stack([samples, samples]), 16)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_stems(tmp_path_factory.mktemp("stems") / "my song")


@pytest.fixture(scope="module")
def hostile_report(folder):
    """Return a report that is hostile wherever the sender of a task chooses the text."""
    return Report(
        EVIL,
        "task-1",
        "succeeded",
        receipt=make_receipt().model_copy(update={"model": EVIL, "gain": 0.5}),
        metadata={EVIL: EVIL},
        stems=stems_in(folder),
        timeline=(Step("2026-11-21 18:05:04.120", f"task sent: {EVIL}", f"s3:{EVIL}"),),
        note=EVIL,
    )


@pytest.fixture(scope="module")
def written(hostile_report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write(hostile_report, path)
    return path


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the elements that are not closed."""

    VOID = ("meta", "img", "input", "br", "path")

    def __init__(self, html):
        super().__init__()
        self.found, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def named(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


# -- the page ---------------------------------------------------------------------


def test_a_page_loads_nothing_and_escapes_hostile_text(written):
    html = written.read_text(encoding="utf-8")
    elements = Elements(html)

    assert elements.open == []
    assert not elements.named("link")
    assert all(image["src"].startswith("data:image/png;base64,") for image in elements.named("img"))
    scripts = elements.named("script")
    assert [script.get("type") for script in scripts] == ["application/octet-stream"] * 2 + [None]
    assert not [
        name for _, attributes in elements.found for name in attributes if name.startswith("on")
    ]
    assert not [attributes for _, attributes in elements.found if "style" in attributes]
    (policy,) = [meta["content"] for meta in elements.named("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert html.count(EVIL) == 0


def test_pictures_and_controls_are_described_to_screen_readers(written):
    elements = Elements(written.read_text(encoding="utf-8"))

    assert elements.named("html") == [{"lang": "en"}]
    assert all(image["alt"].startswith("Spectrogram of the ") for image in elements.named("img"))
    drawn = [svg["aria-label"] for svg in elements.named("svg") if svg.get("role") == "img"]
    assert drawn[1] == (
        f"Waveform of the vocals, {SECONDS} s: loudest at 0:02, peak \u22126.0 dB, "
        "silent 50% of the time."
    )
    labels = [
        button.get("aria-label") for button in elements.named("button") if "data-switch" in button
    ]
    assert labels == [
        "Mute the vocals",
        "Solo the vocals",
        "Mute the instrumental",
        "Solo the instrumental",
    ]
    ids = {attributes["id"] for _, attributes in elements.found if "id" in attributes}
    assert {
        attributes["aria-labelledby"]
        for _, attributes in elements.found
        if "aria-labelledby" in attributes
    } <= ids
    assert [
        attributes["role"]
        for _, attributes in elements.found
        if attributes.get("aria-live") == "polite"
    ] == ["status"]


def test_the_receipt_is_written_in_words():
    receipt = make_receipt()
    lossy = receipt.model_copy(
        update={"residual_db": None, "gain": 0.5, "realtime_factor": 0.5, "model": "Inst.onnx"}
    )

    work = (
        "The engine dsp, which needs no model, separated 1.0 s of stereo audio (44,100 Hz, mp3) "
        "on the CPU in 27.1 s"
    )
    assert words.sentences(receipt) == [
        f"{work}, 6.6 times faster than real time.",
        "Vocals and instrumental add up to the source exactly (residual \u2212144.0 dB).",
        "Both stems have the level of the source (gain 1).",
    ]
    text = " ".join(words.sentences(lossy))
    assert "with the model Inst.onnx" in text
    assert "2.0 times slower than real time" in text
    assert "is not measured" in text
    assert "lowered by 6.0 dB" in text


def test_a_failed_task_has_a_page_without_a_player():
    error = ErrorInfo(code="download_failed", message="It answered 404.", retryable=True)

    html = page.render(Report("song-1", "song-1", "failed", error=error), {})

    assert Elements(html).open == []
    assert "download_failed" in html
    assert "may succeed if it is sent again" in html
    assert 'id="player"' not in html


def test_a_page_of_one_stem_shows_and_plays_that_alone(tmp_path):
    folder = write_stems(tmp_path / "song")
    (folder / "instrumental.wav").unlink()

    page.write(Report.of_folder(folder), folder / "report.html")

    html = (folder / "report.html").read_text(encoding="utf-8")
    elements = Elements(html)
    assert elements.open == []
    assert [tag["id"] for tag in elements.named("script") if "id" in tag] == ["sound-vocals"]
    assert [tag["class"] for tag in elements.named("section") if "track" in tag["class"]] == [
        "track vocals"
    ]
    assert not [tag for tag in elements.named("button") if "data-listen" in tag]
    assert "The vocals of the song" in html


def test_the_page_of_a_long_song_contains_its_beginning(folder):
    heard = load(stems_in(folder), max_seconds=1.0)

    assert heard["vocals"].seconds == SECONDS
    assert heard["vocals"].embedded_seconds == 1.0
    assert "This page contains the first 1.0 s of 4.0 s." in page.render(
        Report("song", None, "succeeded"), heard
    )


def test_pictures_show_when_a_tone_sounds():
    moments = np.arange(RATE) / RATE
    tone = np.float32(0.5) * np.sin(2 * np.pi * 1000 * moments, dtype=np.float32) * (moments < 0.5)

    peaks, _ = picture.waveform(tone.astype(np.float32))
    png = picture.spectrogram(
        tone.astype(np.float32), RATE, picture.loudest_db(tone.astype(np.float32)), (1, 2, 3)
    )

    points = [tuple(map(int, point.split())) for point in peaks.strip("MZ").split("L")]
    assert len(points) == 2 * picture.COLUMNS
    assert {y for x, y in points if x > picture.COLUMNS * 0.51} == {500}
    assert min(y for _, y in points) == 250
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    levels = picture.levels(tone.astype(np.float32), RATE)
    assert (round(levels.peak_db, 1), round(levels.silent_ratio, 1)) == (-6.0, 0.5)


# -- in a browser -----------------------------------------------------------------


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if browser.CHROMIUM is None:
        pytest.skip(
            "no Chromium is installed (Debian: apt-get install chromium; or name it in CHROMIUM)"
        )
    with browser.browser(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


GAINS = "player.stems.map((stem) => Math.round(player.gains[stem].gain.value * 100) / 100)"


def test_it_plays_switches_stems_in_step_and_requests_nothing(tab, written):
    tab.open(written.as_uri())

    tab.click(".play")
    tab.until("player.playing && player.position > 0.2")
    assert tab.value(GAINS) == [1, 1]
    assert len(set(tab.value("player.stems.map((stem) => player.buffers[stem].duration)"))) == 1
    tab.click("[data-listen=vocals]")
    tab.until(f"{GAINS}.join() === '1,0'")
    before = tab.value("player.position")
    tab.until(f"player.position > {before}")
    assert tab.value("document.querySelector('.state').textContent") == "You hear the vocals."
    tab.click(".instrumental [data-switch=solo]")
    tab.click(".vocals [data-switch=mute]")
    tab.until(f"{GAINS}.join() === '0,1'")
    pressed = (
        "[...document.querySelectorAll('[aria-pressed=true]')].map((button) => button.textContent)"
    )
    assert tab.value(pressed) == ["Instrumental", "Mute", "Solo", "Solo"]
    tab.click(".play")

    assert tab.value("document.querySelector('.state').textContent").startswith("Paused at 0:0")
    assert {url.split(":")[0] for url in tab.requests} <= {"file", "data", "about"}
    assert tab.complaints == []


def test_keys_and_pictures_move_the_playhead(tab, written):
    tab.open(written.as_uri())

    tab.press("End")
    ends = tab.value("player.position")
    tab.press("ArrowLeft")
    assert (round(ends, 2), tab.value("player.position")) == (SECONDS, 0)
    tab.click(".vocals .pictures", at=0.75)
    assert tab.value("player.position") == pytest.approx(3, abs=0.02)
    assert tab.value("document.querySelector('.vocals .playhead').style.left").startswith("7")
    assert tab.value("document.querySelector('input').getAttribute('aria-valuetext')") in {
        "0:02 of 0:04",
        "0:03 of 0:04",
    }
    tab.press(" ")
    tab.until("player.playing")
    tab.until("!player.playing && player.position === 0")
    assert tab.value("document.querySelector('.state').textContent") == "The end."
    tab.press("2")
    assert tab.value("player.heard('vocals') && !player.heard('instrumental')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_its_window_and_its_text_is_legible(tab, written, width, scheme):
    tab.open(written.as_uri(), width=width, prefers_color_scheme=scheme)

    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value(CONTRASTS) == []
    buttons = "[...document.querySelectorAll('button')]"
    small = f"{buttons}.filter((button) => button.getBoundingClientRect().height < 44)"
    assert tab.value(f"{small}.length") == 0


#: Texts whose contrast with their background is below 4.5 (WCAG 2.2, success criterion 1.4.3).
CONTRASTS = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const channels = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([red, green, blue]) => {
    const linear = [red, green, blue].map((v) =>
      v <= 10 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = channels(getComputedStyle(at).backgroundColor);
      if (found[3] > 200) return found;
    }
    return [255, 255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) =>
      node.nodeType === 3 && node.textContent.trim());
    if (!text || element.closest("script") || !element.getClientRects().length) continue;
    const colours = [channels(getComputedStyle(element).color), behind(element)];
    const [one, other] = colours.map(luminance);
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) poor.push(`${element.className || element.tagName} ${contrast.toFixed(2)}`);
  }
  return poor;
})()"""


# -- the scripts ------------------------------------------------------------------


def report(*arguments, folder):
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("KAFKA", "S3"))
    }
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_folder_of_stems_gets_a_page_with_the_outcome_beside_them(tmp_path):
    folder = write_stems(tmp_path / "song")
    (folder / "result.json").write_bytes(make_outcome("task-9").encode())

    done = report("--folder", folder, "--format", "json", folder=tmp_path)

    facts = json.loads(done.stdout)
    assert (done.returncode, facts["task_uuid"], facts["status"]) == (0, "task-9", "succeeded")
    html = Path(facts["path"]).read_text(encoding="utf-8")
    assert Path(facts["path"]) == folder / "report.html"
    assert "Jürgen" in html
    assert "The engine dsp" in html
    # Pictures have the same size for any song; sound takes 32 kB per second for both stems.
    sounds_bytes = sum(len(sound) for sound in re.findall(r'id="sound-\w+">([^<]+)<', html))
    assert 0 < sounds_bytes < 36_000 * SECONDS
    assert len(html) - sounds_bytes < 1_200_000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--folder", "empty"], 1, "empty holds no vocals.<format> or instrumental.<format>."),
        (["a", "--folder", "empty"], 2, "give task ids, or --folder"),
        (["../a"], 2, "is not a task id"),
    ],
)
def test_a_missing_page_is_explained(tmp_path, arguments, code, message):
    (tmp_path / "empty").mkdir()

    done = report(*arguments, folder=tmp_path)

    assert done.returncode == code
    assert message in done.stderr


def test_stems_that_are_not_audio_raise_decode_failed(tmp_path):
    (tmp_path / "vocals.wav").write_bytes(b"RIFF")
    (tmp_path / "instrumental.wav").write_bytes(b"RIFF")

    with pytest.raises(DecodeFailed):
        page.write(Report.of_folder(tmp_path), tmp_path / "report.html")

    assert not (tmp_path / "report.html").exists()


def test_separate_writes_a_page_beside_the_stems(tmp_path):
    song = sounds.write_wav(tmp_path / "song.wav", sounds.song(2), 16)
    command = [
        sys.executable,
        str(ROOT / "scripts" / "separate.py"),
        str(song),
        "--report",
        "--output",
        "out",
    ]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{song}: {Path('out', 'song', 'report.html')}"
    assert "<h1>song.wav</h1>" in (tmp_path / "out" / "song" / "report.html").read_text(
        encoding="utf-8"
    )


def test_tasks_are_reported_from_kafka_and_s3(running, shared_world):
    pipeline, world = running, shared_world
    good = pipeline.order(world.url("/song.wav"), metadata={"user": 7})
    bad = pipeline.order(world.url("/absent.wav"))
    for task_uuid in (good, bad):
        pipeline.outcome(task_uuid)
    until(lambda: run(pipeline, "trace.py", good).returncode == 0, "the timeline")

    written = lines(pipeline, "report.py", good, bad, "--output", "pages")
    unknown = run(pipeline, "report.py", "nobody-1")
    pipeline.s3.put_object(Bucket=pipeline.bucket, Key=f"{good}/vocals.wav", Body=b"changed")
    changed = lines(pipeline, "report.py", good, "--output", "changed")

    assert [(line["task_uuid"], line["status"]) for line in written] == [
        (good, "succeeded"),
        (bad, "failed"),
    ]
    pages = [
        (pipeline.folder / line["path"]).read_text(encoding="utf-8")
        for line in [*written, *changed]
    ]
    assert 'id="player"' in pages[0]
    assert "<h1>song</h1>" in pages[0]
    assert (pipeline.folder / "pages" / good / "vocals.wav").exists()
    assert f'href="{good}/vocals.wav"' in pages[0]
    assert pages[0].index(f"s3:{good}/vocals.wav") < pages[0].index(f"s3:{good}/result.json")
    assert good in (pipeline.folder / "pages" / "index.html").read_text(encoding="utf-8")
    assert f"result of {pipeline.tasks}-0@" in pages[0]
    assert "download_failed" in pages[1]
    assert 'id="player"' not in pages[1]
    assert unknown.returncode == 1
    assert "nobody-1: " in unknown.stderr
    assert "The page has no sound: " in pages[2]


# -- titles, downloads, the index -------------------------------------------------


def test_a_song_has_the_title_that_its_sender_or_its_tags_or_its_file_gives(tmp_path):
    tagged = tmp_path / "stems" / "vocals.flac"
    tagged.parent.mkdir()
    write_tagged(tagged, {"title": "Tagged", "artist": "Somebody"})
    url = "https://example.com/songs/From%20the%20URL.mp3?token=1"

    def title(metadata, stems, audio_url=url):
        return title_of(metadata, stems, audio_url, "task-1")

    assert title({"title": "Sent", "file": "mine.mp3"}, [tagged]) == "Sent"
    assert title({"file": "mine.mp3"}, [tagged]) == "Somebody \N{EN DASH} Tagged"
    assert title({"title": 7, "file": "mine.mp3"}, []) == "mine"
    assert title({}, [tmp_path / "gone.wav"]) == "From the URL"
    assert title({}, [], None) == "task-1"
    assert title({}, [], "s3://bucket/sources/task-1.wav") == "task-1"


def write_tagged(file, tags):
    with av.open(str(file), "w") as container:
        container.metadata.update(tags)
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.int16), "s16", "mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_a_page_links_to_the_files_of_its_stems_from_where_it_lies(tmp_path):
    folder = write_stems(tmp_path / "a song #1")
    (tmp_path / "pages").mkdir()

    for path in (folder / "report.html", tmp_path / "pages" / "page.html"):
        page.write(Report('a/b: "c"', None, "succeeded", stems=stems_in(folder)), path)

        links = Elements(path.read_text(encoding="utf-8")).named("a")
        assert [link["download"] for link in links] == [
            "a_b_ _c_ - vocals.wav",
            "a_b_ _c_ - instrumental.wav",
        ]
        for link in links:
            file = path.parent / unquote(link["href"])
            assert file.resolve() in {one.resolve() for one in folder.glob("*.wav")}


def test_several_pages_in_a_folder_have_an_index_with_their_titles(tmp_path):
    page.write(Report("one", "task-1", "succeeded"), tmp_path / "task-1.html")
    assert index.write(tmp_path) is None
    page.write(Report(EVIL, "task-2", "failed"), tmp_path / "task-2.html")
    index.write(tmp_path)

    path = index.write(tmp_path)

    assert path is not None
    html = path.read_text(encoding="utf-8")
    elements = Elements(html)
    assert {link["href"] for link in elements.named("a")} == {"task-1.html", "task-2.html"}
    assert "one \N{MIDDLE DOT} succeeded" in html
    assert html.count(EVIL) == 0
    assert elements.open == []
