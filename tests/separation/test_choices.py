"""What a task may choose of its stems, measured on the files: depth, bit rate; and their tags."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import get_args

import av
import numpy as np
import pytest

from common.errors import TaskError
from common.formats import Format
from common.messages import Task
from tests import covers, sounds
from tests.hostile import records

FORMATS: tuple[Format, ...] = get_args(Format)
STEMS = ("vocals", "instrumental")
TAGS = {
    "title": "Größe",
    "artist": "Ä",
    "album": "Nächte",
    "album_artist": "Verschiedene",
    "track": "3/12",
    "disc": "1/2",
    "date": "1999-05-01",
    "genre": "Jazz",
}
#: What RIFF's INFO list has no name for.
NOT_IN_WAV = {"album_artist", "disc"}


def found_in(path):
    """Return the known tags of a file and its picture, as FFmpeg reads them."""
    with av.open(str(path)) as container:
        tags = {**container.metadata, **container.streams.audio[0].metadata}
        pictures = [
            bytes(packet)
            for stream in container.streams.video
            for packet in container.demux(stream)
            if packet.size
        ]
    return {key.lower(): tags[key] for key in tags if key.lower() in TAGS}, pictures


def jpeg(width=48, height=32):
    """Return a picture whose dimensions follow a table and a comment."""
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuvj420p"
    codec.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
    return b"".join(bytes(packet) for packet in codec.encode(frame.reformat(format="yuvj420p")))


def tagged(path, cover=b"", codec="png"):
    """Write a FLAC with every tag, and a picture if there is one."""
    with av.open(str(path), "w", format="flac") as container:
        container.metadata.update(TAGS)
        stream = container.add_stream("flac", 44100, layout="stereo")
        if cover:
            picture = container.add_mux_stream(codec, width=64, height=64)
            picture.disposition = av.stream.Disposition.attached_pic
            packet = av.Packet(cover)
            packet.stream, packet.pts, packet.dts = picture, 0, 0
            container.start_encoding()
            container.mux(packet)
        samples = np.rint(sounds.song(0.5) * 30_000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T.reshape(1, -1)), format="s16", layout="stereo"
        )
        frame.sample_rate, frame.pts, frame.time_base = 44100, 0, Fraction(1, 44100)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def stems_of(folder, form):
    read = sounds.read_wav if form == "wav" else sounds.decode
    return [read(folder / f"{name}.{form}")[1] for name in STEMS]


@pytest.mark.parametrize("asked", [16, 24])
@pytest.mark.parametrize("source_bits", [16, 24, 0])
@pytest.mark.parametrize("form", ["wav", "flac"])
def test_integer_stems_have_the_depth_that_was_asked_for_and_add_up_within_one_of_its_steps(
    separate, tmp_path, form, source_bits, asked
):
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(1.5), source_bits)

    receipt = separate(source, form, bit_depth=asked)

    vocals, instrumental = stems_of(tmp_path, form)
    residual = (vocals + instrumental) / receipt.gain - sounds.read_wav(source)[1]
    assert {sounds.bits(tmp_path / f"{name}.{form}") for name in STEMS} == {asked}
    assert np.abs(residual).max() <= 2.0 ** (1 - asked) / receipt.gain
    assert receipt.residual_db == pytest.approx(max(sounds.db(sounds.rms(residual)), -200), abs=0.5)
    assert receipt.peak.vocals == pytest.approx(np.abs(vocals).max())
    assert receipt.peak.instrumental == pytest.approx(np.abs(instrumental).max())


@pytest.mark.parametrize("bits", [16, 24, 32, 0, 64])
def test_float_stems_add_up_to_any_source_and_need_no_gain(separate, tmp_path, bits):
    peak = 3.0 if bits in {0, 64} else 1.0
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(1.5, peak=peak), bits)

    receipt = separate(source, "wav", bit_depth=32)

    vocals, instrumental = stems_of(tmp_path, "wav")
    residual = vocals + instrumental - sounds.read_wav(source)[1]
    header = (tmp_path / "vocals.wav").read_bytes()[:200]
    assert struct.unpack_from("<H", header, header.index(b"fmt ") + 8) == (3,)  # IEEE float
    assert sounds.bits(tmp_path / "vocals.wav") == 32
    assert receipt.gain == 1.0
    assert np.abs(residual).max() <= peak * 2.0**-22
    assert receipt.residual_db == pytest.approx(max(sounds.db(sounds.rms(residual)), -200), abs=0.5)
    assert receipt.peak.instrumental == pytest.approx(np.abs(instrumental).max())


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("form", "kbps"),
    [("mp3", 64), ("mp3", 320), ("m4a", 64), ("m4a", 192), ("opus", 32), ("opus", 256)],
)
def test_lossy_stems_have_about_the_bit_rate_that_was_asked_for(
    separate, tmp_path, form, kbps, channels
):
    noise = np.random.default_rng(2).normal(0, 0.02, (channels, 4 * 44100))
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(4, channels=channels) + noise, 16)

    receipt = separate(source, form, bitrate_kbps=kbps)

    for name in STEMS:
        path = tmp_path / f"{name}.{form}"
        assert 8 * path.stat().st_size / 4 / 1000 == pytest.approx(kbps, rel=0.1)
        assert len(sounds.decode(path)[1]) == channels
    assert receipt.residual_db is None
    assert receipt.peak.vocals > 0.01


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("codec", ["png", "mjpeg"])
def test_tags_and_cover_art_are_carried_over_as_far_as_the_format_can_hold_them(
    separate, tmp_path, form, codec
):
    cover = covers.png() if codec == "png" else jpeg()
    source = tagged(tmp_path / "song.flac", cover, codec)

    separate(source, form)

    wanted = {name: TAGS[name] for name in TAGS.keys() - (NOT_IN_WAV if form == "wav" else set())}
    for name in STEMS:
        tags, pictures = found_in(tmp_path / f"{name}.{form}")
        assert tags == wanted
        assert pictures == ([] if form == "wav" else [cover])


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "m4a"])
def test_tags_survive_another_separation(separate, tmp_path, form):
    separate(tagged(tmp_path / "song.flac", covers.png()), form)
    again = (tmp_path / f"vocals.{form}").rename(tmp_path / f"song.{form}")

    separate(again, "flac")

    tags, pictures = found_in(tmp_path / "vocals.flac")
    assert tags.items() >= {name: TAGS[name] for name in TAGS.keys() - NOT_IN_WAV}.items()
    assert len(pictures) == (form != "wav")


@pytest.mark.parametrize(
    "cover", [b"GIF89a" + bytes(50), covers.png()[:20], b"\xff\xd8\xff\xe0\xff\xff", bytes(9)]
)
def test_a_picture_that_is_not_one_is_left_out_and_the_song_is_separated(separate, tmp_path, cover):
    source = tagged(tmp_path / "song.flac", cover)

    separate(source, "mp3")

    assert found_in(tmp_path / "vocals.mp3") == (TAGS, [])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"output_format": "mp3", "bitrate_kbps": 300}, "256 or 320 for mp3, not 300"),
        ({"output_format": "m4a", "bitrate_kbps": 8}, "32 to 320 for m4a, not 8"),
        ({"output_format": "opus", "bitrate_kbps": 10**300}, "16 to 510 for opus, not 1000"),
        ({"output_format": "wav", "bitrate_kbps": 128}, "must not be set for wav, but is 128"),
        (
            {"output_format": "flac", "bit_depth": 32},
            "bit_depth: must be 16 or 24 for flac, not 32",
        ),
        ({"output_format": "wav", "bit_depth": 20}, "must be 16, 24 or 32 for wav, not 20"),
        ({"output_format": "opus", "bit_depth": 16}, "must not be set for opus, but is 16"),
        ({"bit_depth": 24, "bitrate_kbps": 7}, "bitrate_kbps: must not be 7"),
        ({"bitrate_kbps": 128}, "must not be set for wav, but is 128"),
        ({"bit_depth": "16"}, "bit_depth: Input should be a valid integer"),
        ({"bit_depth": True}, "bit_depth: Input should be a valid integer"),
        ({"stems": []}, "stems: "),
        ({"stems": ["drums"]}, "stems.0: Input should be 'vocals' or 'instrumental'"),
        ({"stems": ["vocals", "vocals"]}, "stems: must not name a stem twice"),
        ({"stems": "vocals"}, "stems: "),
    ],
)
def test_what_no_stem_can_have_is_refused_with_what_is_allowed(fields, message):
    with pytest.raises(TaskError) as caught:
        Task.decode(records.task(**fields)).in_format("wav")

    assert caught.value.code == "invalid_task"
    assert message in caught.value.message
