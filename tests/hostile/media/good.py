"""Whole files to begin from, in every container that the product reads."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from tests import sounds

#: Codec, muxer, sample format and sample rate, by the name of what FFmpeg writes with them.
KINDS = {
    "wav": ("pcm_s16le", "wav", "s16", 44100),
    "w64": ("pcm_s24le", "w64", "s32", 44100),
    "aiff": ("pcm_s16be", "aiff", "s16", 44100),
    "au": ("pcm_s16be", "au", "s16", 44100),
    "caf": ("alac", "caf", "s16p", 44100),
    "flac": ("flac", "flac", "s16", 44100),
    "flac in ogg": ("flac", "oga", "s16", 44100),
    "mp3": ("libmp3lame", "mp3", "fltp", 44100),
    "aac": ("aac", "adts", "fltp", 44100),
    "m4a": ("aac", "ipod", "fltp", 44100),
    "alac": ("alac", "ipod", "s16p", 44100),
    "opus": ("libopus", "ogg", "flt", 48000),
    "vorbis": ("vorbis", "ogg", "fltp", 44100),
    "webm": ("libopus", "webm", "flt", 48000),
    "mka": ("pcm_s16le", "matroska", "s16", 44100),
    "wma": ("wmav2", "asf", "fltp", 44100),
    "ac3": ("ac3", "ac3", "fltp", 44100),
    "eac3": ("eac3", "eac3", "fltp", 44100),
    "wv": ("wavpack", "wv", "s16p", 44100),
}


@functools.cache
def song(kind: str, seconds: float = 0.2, channels: int = 2) -> bytes:
    """Return a song as a whole file of *kind*."""
    codec, muxer, sample_format, sample_rate = KINDS[kind]
    samples = sounds.song(1, sample_rate=sample_rate, channels=channels)[
        :, : int(seconds * sample_rate)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song"
        sounds.encode(path, samples, codec, muxer, sample_format, sample_rate)
        return path.read_bytes()
