"""Sound files for tests, written and read by the standard library and scipy."""

from __future__ import annotations

import functools
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from scipy.io import wavfile

from tools.songs.song import make

RATE = 44100


@functools.cache
def _mixture(seconds, seed, sample_rate):
    return make(seconds, seed, sample_rate)[0].astype(np.float64)


def song(seconds, *, sample_rate=RATE, channels=2, seed=0, peak=0.8):
    """Return a synthetic mixture, float64 `[channels, frames]`."""
    mixture = _mixture(seconds, seed, sample_rate)
    return mixture[:channels] * (peak / np.abs(mixture[:channels]).max())


def write_wav(path, samples, bits, sample_rate=RATE):
    """Write floats `[channels, frames]` as 16, 24 or 32 bit integers, or as floats of 32 (*bits* 0)
    or 64 bits.

    Integers are clipped.
    """
    if bits in {0, 64}:
        wavfile.write(path, sample_rate, samples.T.astype(np.float64 if bits else np.float32))
        return path
    full = 2 ** (bits - 1)
    whole = np.clip(np.rint(samples * full), -full, full - 1).astype("<i4").T
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[0])
        file.setsampwidth(bits // 8)
        file.setframerate(sample_rate)
        file.writeframes(
            np.ascontiguousarray(whole).view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
        )
    return path


def read_wav(path):
    """Return a WAV's sample rate and its samples as float64 `[channels, frames]`."""
    sample_rate, samples = wavfile.read(path)
    full = 1.0 if samples.dtype.kind == "f" else 2.0 ** (8 * samples.itemsize - 1)
    return sample_rate, np.atleast_2d(samples.astype(np.float64).T) / full


def _frame(samples, sample_format, sample_rate):
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    kinds = {
        "s16": (np.int16, 2**15),
        "s32": (np.int32, 2**31),
        "flt": (np.float32, 1),
        "dbl": (np.float64, 1),
    }
    dtype, full = kinds[sample_format.removesuffix("p")]
    native = (samples * (full * (1 - 1e-9))).astype(dtype)
    if not sample_format.endswith("p"):
        native = native.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(native), format=sample_format, layout=layout
    )
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
    return frame


def encode(
    path,
    samples,
    codec,
    muxer,
    sample_format,
    sample_rate=RATE,
    options=None,
    tags=None,
    video_codec=None,
):
    """Write floats `[channels, frames]` through FFmpeg, whatever it can encode, behind a second of
    video if asked.
    """
    frame = _frame(samples, sample_format, sample_rate)
    with (
        Path(path).open("wb") as file,
        av.open(file, "w", format=muxer, options=options or {}) as container,
    ):
        container.metadata.update(tags or {})
        video = container.add_stream(video_codec, rate=25) if video_codec else None
        stream = container.add_stream(codec, rate=sample_rate, layout=frame.layout.name)
        stream.format = sample_format
        stream.bit_rate = 128_000  # which lossless codecs ignore
        stream.codec_context.options = {
            "strict": "experimental"
        }  # as FFmpeg calls its own Vorbis encoder
        if video:
            film(container, video)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Path(path)


def silence(path, seconds, sample_rate=8000):
    """Write a FLAC of nothing, mono: hours of it fit into some kilobytes."""
    frame = _frame(np.zeros((1, 60 * sample_rate)), "s16", sample_rate)
    with Path(path).open("wb") as file, av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=sample_rate, layout="mono")
        stream.format = "s16"
        for minute in range(seconds // 60):
            frame.pts = minute * frame.samples
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Path(path)


def claim(path, frames):
    """Let the header of the FLAC at *path* promise so many frames: 36 bits from the middle of byte
    21.
    """
    data = bytearray(path.read_bytes())
    data[21] = data[21] & 0xF0 | frames >> 32
    data[22:26] = (frames & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def film(container, stream, frames=25):
    """Write *frames* black pictures into the video *stream* of *container*."""
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(frames):
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
        picture.pts, picture.time_base = number, Fraction(1, 25)
        container.mux(stream.encode(picture))
    container.mux(stream.encode(None))


def decode(path):
    """Return any audio file's sample rate and samples as float64 `[channels, frames]`."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    parts = []
    for frame in frames:
        native = frame.to_ndarray()
        full = 1.0 if native.dtype.kind == "f" else 2.0 ** (8 * native.itemsize - 1)
        samples = native.astype(np.float64) / full
        parts.append(samples if frame.format.is_planar else samples.reshape(frame.samples, -1).T)
    return frames[0].sample_rate, np.concatenate(parts, axis=1)


def db(amplitude):
    """Return *amplitude* in dB of full scale."""
    return 20 * np.log10(max(amplitude, 1e-15))


def rms(samples):
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(samples))))


def assert_faithful(folder, source, gain, sample_rate):
    """Assert that the WAV stems in *folder* have the rate of *source* and add up to it."""
    stems = [read_wav(folder / f"{name}.wav") for name in ("vocals", "instrumental")]
    written = read_wav(source)[1]
    assert {rate for rate, _ in stems} == {sample_rate}
    assert db(np.abs((stems[0][1] + stems[1][1]) / gain - written).max()) < -130


def correlation(found, wanted):
    """Return how alike two sounds are without moving them in time, 1.0 at best; the longer one is
    cut.
    """
    frames = min(found.shape[1], wanted.shape[1])
    found, wanted = found[:, :frames], wanted[:, :frames]
    return float(np.sum(found * wanted) / np.sqrt(np.sum(found**2) * np.sum(wanted**2)))


def bits(path):
    """Return the bits per sample that the header of a WAV or FLAC file names."""
    header = Path(path).read_bytes()[:4096]
    if header.startswith(b"fLaC"):
        return (
            int.from_bytes(header[18:26], "big") >> 36 & 31
        ) + 1  # STREAMINFO, after 12 bytes of sizes and a rate
    at = header.index(b"fmt ") + 22
    return int.from_bytes(header[at : at + 2], "little")


def tags(path):
    """Return the title and artist that FFmpeg reads in a file."""
    with av.open(str(path)) as container:
        found = {**container.metadata, **container.streams.audio[0].metadata}
    return {
        key.lower(): value for key, value in found.items() if key.lower() in {"title", "artist"}
    }
