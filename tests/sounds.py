"""Sound files for tests, written and read by the standard library and scipy: not by what is tested."""

from __future__ import annotations

import functools
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from scipy.io import wavfile

from scripts.local.song import make

RATE = 44100


@functools.cache
def _mixture(seconds, seed, sample_rate):
    return make(seconds, seed, sample_rate)[0].astype(np.float64)


def song(seconds, *, sample_rate=RATE, channels=2, seed=0, peak=0.8):
    """Return a synthetic mixture, float64 `[channels, frames]`."""
    mixture = _mixture(seconds, seed, sample_rate)
    return mixture[:channels] * (peak / np.abs(mixture[:channels]).max())


def write_wav(path, samples, bits, sample_rate=RATE):
    """Write floats `[channels, frames]` as 16, 24 or 32 bit integers, or as floats (*bits* 0); integers are clipped."""
    if bits == 0:
        wavfile.write(path, sample_rate, samples.T.astype(np.float32))
        return path
    full = 2 ** (bits - 1)
    whole = np.clip(np.rint(samples * full), -full, full - 1).astype("<i4").T
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[0])
        file.setsampwidth(bits // 8)
        file.setframerate(sample_rate)
        file.writeframes(np.ascontiguousarray(whole).view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes())
    return path


def read_wav(path):
    """Return a WAV's sample rate and its samples as float64 `[channels, frames]`."""
    sample_rate, samples = wavfile.read(path)
    full = 1.0 if samples.dtype.kind == "f" else 2.0 ** (8 * samples.itemsize - 1)
    return sample_rate, np.atleast_2d(samples.astype(np.float64).T) / full


def encode(path, samples, codec, muxer, sample_format, sample_rate=RATE, options=None):
    """Write floats `[channels, frames]` through FFmpeg, whatever it can encode."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    kinds = {"s16": (np.int16, 2**15), "s32": (np.int32, 2**31), "flt": (np.float32, 1), "dbl": (np.float64, 1)}
    dtype, full = kinds[sample_format.removesuffix("p")]
    native = (samples * (full * (1 - 1e-9))).astype(dtype)
    if not sample_format.endswith("p"):
        native = native.T.reshape(1, -1)
    with Path(path).open("wb") as file, av.open(file, "w", format=muxer, options=options or {}) as container:
        stream = container.add_stream(codec, rate=sample_rate, layout=layout)
        stream.format = sample_format
        stream.bit_rate = 128_000  # which lossless codecs ignore
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(native), format=sample_format, layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Path(path)


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
