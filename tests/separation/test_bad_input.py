"""Bad input has its own code, in bounded time and memory, and the next song is separated as if
nothing had been.

What is made to do harm is in tests/hostile.
"""

from __future__ import annotations

import time

import av
import numpy as np
import psutil
import pytest

from common.errors import (
    AudioTooLong,
    DecodeFailed,
    InputEmpty,
    ModelInvalid,
    ModelNotFound,
    NoAudio,
)
from common.separation.child import Separator
from tests import covers, onnx_files, separators, sounds


def film_without_sound(path):
    with path.open("wb") as file, av.open(file, "w", format="mp4") as container:
        sounds.film(container, container.add_stream("mpeg4", rate=25))


def hours_of_silence(path):
    sounds.encode(path, np.zeros((1, 44100 * 61)), "flac", "flac", "s16")


def hours_behind_a_short_header(path):
    hours_of_silence(path)
    sounds.claim(path, 1)


def damaged_flac(path):
    data = bytearray(sounds.encode(path, sounds.song(2), "flac", "flac", "s16").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 16] = bytes(16)
    path.write_bytes(data)


def truncated(codec, muxer, sample_format, sample_rate=44100):
    def make(path):
        song = sounds.song(2, sample_rate=sample_rate)
        whole = sounds.encode(path, song, codec, muxer, sample_format, sample_rate).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])

    return make


def silent_hours(path):
    """Write three hours in some kilobytes, of which the header says that they are one frame."""
    sounds.silence(path, 3 * 3600)
    sounds.claim(path, 1)


def promise(frames):
    def make(path):
        sounds.encode(path, sounds.song(1), "flac", "flac", "s16")
        sounds.claim(path, frames)

    return make


def changed(offset, data):
    """Return what writes a WAV with other *data* in its header."""

    def make(path):
        whole = bytearray(sounds.write_wav(path, sounds.song(1), 16).read_bytes())
        whole[offset : offset + len(data)] = data
        path.write_bytes(whole)

    return make


BAD_INPUT = {
    "no bytes": (lambda path: path.write_bytes(b""), InputEmpty),
    "no frames": (lambda path: sounds.write_wav(path, np.zeros((2, 0)), 16), InputEmpty),
    "text": (lambda path: path.write_text("This is no music.\n" * 500), DecodeFailed),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(1).bytes(200_000)), DecodeFailed),
    "zeros": (lambda path: path.write_bytes(bytes(200_000)), DecodeFailed),
    "no channels": (changed(22, bytes(2)), DecodeFailed),
    "data of three bytes": (changed(40, (3).to_bytes(4, "little")), DecodeFailed),
    "six channels": (
        lambda path: sounds.encode(path, np.zeros((6, 44100)), "flac", "flac", "s16"),
        DecodeFailed,
    ),
    "not a number": (
        lambda path: sounds.write_wav(path, np.full((2, 100), np.nan), 0),
        DecodeFailed,
    ),
    "absurdly loud": (
        lambda path: sounds.write_wav(path, np.full((2, 100), 1e30), 0),
        DecodeFailed,
    ),
    "damaged flac": (damaged_flac, DecodeFailed),
    "truncated flac": (truncated("flac", "flac", "s16"), DecodeFailed),
    "truncated m4a": (truncated("aac", "ipod", "fltp"), DecodeFailed),
    "truncated alac": (truncated("alac", "ipod", "s16p"), DecodeFailed),
    "truncated ogg": (truncated("libopus", "ogg", "flt", 48000), DecodeFailed),
    "video without sound": (film_without_sound, NoAudio),
    "cover art in an mp3": (lambda path: path.write_bytes(covers.mp3()), NoAudio),
    "cover art in an m4a": (lambda path: path.write_bytes(covers.m4a()), NoAudio),
    "promises hours": (promise(44100 * 3600 * 20), AudioTooLong),
    "promises more than it holds": (promise(44100 * 50), DecodeFailed),
    "hours in kilobytes": (silent_hours, AudioTooLong),
    "too long": (hours_of_silence, AudioTooLong),
    "too long behind its header": (hours_behind_a_short_header, AudioTooLong),
}


#: None of it takes longer than this, nor more memory, whatever it holds.
BAD_INPUT_SECONDS, BAD_INPUT_BYTES = 10.0, 100 << 20


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_gets_its_own_code_and_costs_neither_the_child_nor_the_next_song(
    separate, separator, tmp_path, name
):
    make, error = BAD_INPUT[name]
    source = tmp_path / "source.mp3"
    make(source)
    child = psutil.Process(separator.pid)
    held_bytes, started = child.memory_info().rss, time.monotonic()

    with pytest.raises(error):
        separate(source)

    assert time.monotonic() - started < BAD_INPUT_SECONDS
    assert child.memory_info().rss - held_bytes < BAD_INPUT_BYTES
    assert [path.name for path in tmp_path.iterdir()] == ["source.mp3"]
    assert separate(sounds.write_wav(source, sounds.song(1)[:, :5000], 16)).residual_db == -200
    assert separator.pid == child.pid


EXTENSIONS = [
    *(
        "wav",
        "aiff",
        "caf",
        "flac",
        "mp3",
        "m4a",
        "mp4",
        "aac",
        "ogg",
        "opus",
        "webm",
        "mkv",
        "mka",
        "wma",
        "ac3",
    ),
    *("wv", "au", "m3u8", "mpd", "sdp", "jpg", "png", "zip"),
]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_noise_is_no_audio_under_any_name(separate, separator, tmp_path, extension):
    pid = separator.pid
    source = tmp_path / f"song.{extension}"
    source.write_bytes(np.random.default_rng(len(extension)).bytes(50_000))

    with pytest.raises(DecodeFailed):
        separate(source)

    assert separator.pid == pid


@pytest.fixture(scope="module")
def bad_models(tmp_path_factory):
    """A model folder of which little is in order, with a model beside it that is none of ours."""
    folder = separators.model_folder(tmp_path_factory.mktemp("bad") / "models")
    net = (folder / "half_2048.onnx").read_bytes()
    (folder.parent / "secret.onnx").write_bytes(net)
    for name, data in {
        "truncated": net[: len(net) // 2],
        "empty": b"",
        "noise": np.random.default_rng(3).bytes(5000),
        "three dimensions": onnx_files.identity([1, 4, 2048]),
        "other bins": onnx_files.identity([1, 4, 3072, 256]),
        "other answer": onnx_files.net("Shape", [1, 4, 2048, 256], [4], onnx_files.INT64),
        "whole numbers": onnx_files.net(
            "Identity",
            [1, 4, 2048, 256],
            [1, 4, 2048, 256],
            onnx_files.INT64,
            takes_type=onnx_files.INT64,
        ),
        "two inputs": onnx_files.net("Identity", [1, 4, 2048, 256], [1, 4, 2048, 256], also=[b"z"]),
        "one number": onnx_files.net("ReduceMean", [1, 4, 2048, 256], [1, 1, 1, 1]),
    }.items():
        (folder / f"{name}.onnx").write_bytes(data)
        separators.add_settings(folder / f"{name}.onnx")
    (folder / "folder.onnx").mkdir()
    (folder / "link.onnx").symlink_to(folder.parent / "secret.onnx")
    return folder


@pytest.fixture(scope="module")
def model_separator(bad_models):
    with separators.started(model_dir=bad_models) as separator:
        yield separator


BAD_MODELS = [
    "truncated",
    "empty",
    "noise",
    "three dimensions",
    "other bins",
    "other answer",
    "whole numbers",
    "two inputs",
    "one number",
]
NO_MODELS = [
    "missing.onnx",
    "../secret.onnx",
    "x/../../secret.onnx",
    "/etc/passwd",
    "link.onnx",
    "folder.onnx",
    "a" * 300,
]


@pytest.mark.parametrize(
    ("model", "error"),
    [
        *((f"{name}.onnx", ModelInvalid) for name in BAD_MODELS),
        *((name, ModelNotFound) for name in NO_MODELS),
        ("half_2048.onnx.json", ModelInvalid),
    ],
)
def test_a_bad_model_costs_neither_the_child_nor_the_next_song(
    separate, model_separator: Separator, tmp_path, model, error
):
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(1), 16)
    pid = model_separator.pid

    with pytest.raises(error):
        separate(source, with_separator=model_separator, model=model)

    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]
    assert (
        separate(source, with_separator=model_separator, model="half_2048.onnx").residual_db == -200
    )
    assert model_separator.pid == pid
