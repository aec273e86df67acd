"""Audio files in and out, tried on files that other programs wrote."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest

from common.errors import AudioTooLong, DecodeFailed, InputEmpty, NoAudio
from common.separation import audio, resampling
from tests import covers, sounds

#: How FFmpeg writes each container that people send: encoder, muxer, sample format.
LOSSLESS = {
    "wav": ("pcm_s16le", "wav", "s16"),
    "wav24": ("pcm_s24le", "wav", "s32"),
    "w64": ("pcm_s24le", "w64", "s32"),
    "aiff": ("pcm_s16be", "aiff", "s16"),
    "caf": ("pcm_s24be", "caf", "s32"),
    "au": ("pcm_s16be", "au", "s16"),
    "flac": ("flac", "flac", "s16"),
    "flac24": ("flac", "flac", "s32"),
    "ogg flac": ("flac", "ogg", "s16"),
    "alac": ("alac", "ipod", "s16p"),
    "alac caf": ("alac", "caf", "s16p"),
    "mka": ("pcm_s16le", "matroska", "s16"),
    "mka flac": ("flac", "matroska", "s16"),
    "mov": ("pcm_s16le", "mov", "s16"),
    "wavpack": ("wavpack", "wv", "s16p"),
}
LOSSY = {
    "mp3": ("libmp3lame", "mp3", "fltp"),
    "m4a": ("aac", "ipod", "fltp"),
    "mp4": ("aac", "mp4", "fltp"),
    "adts": ("aac", "adts", "fltp"),
    "ogg": ("vorbis", "ogg", "fltp"),
    "opus": ("libopus", "opus", "flt"),
    "webm": ("libopus", "webm", "flt"),
    "mka": ("vorbis", "matroska", "fltp"),
    "wma": ("wmav2", "asf", "fltp"),
    "wma 1": ("wmav1", "asf", "fltp"),
    "ac3": ("ac3", "ac3", "fltp"),
    "eac3": ("eac3", "eac3", "fltp"),
}
#: By how much a player's length may differ: a codec's frame, and its delay where the container does
#: not tell it.
LOSSY_SLACK_FRAMES = {
    "adts": 2048,
    "wma": 2048,
    "wma 1": 2048,
    "ac3": 1536,
    "eac3": 1536,
    "m4a": 1024,
    "mp4": 1024,
}
#: The same with a film in front of the sound.
FILMS = {
    "mp4": ("aac", "mp4", "fltp", "mpeg4"),
    "mov": ("pcm_s16le", "mov", "s16", "mpeg4"),
    "webm": ("libopus", "webm", "flt", "libvpx"),
    "mkv": ("ac3", "matroska", "fltp", "mpeg4"),
}
#: What FFmpeg writes no title into, and where it forgets the artist.
UNTITLED, NAMELESS = {"w64", "adts", "ac3", "eac3"}, {"aiff"}


def probed(path, max_seconds=60):
    return audio.probe(path, max_seconds)


def decoded(path, song, block_frames=audio.BLOCK_FRAMES):
    return np.concatenate(list(audio.blocks(path, song, block_frames)), axis=1)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_containers_decode_to_exactly_what_went_in(tmp_path, kind):
    mixture = sounds.song(1)
    path = sounds.encode(tmp_path / "song", mixture, *LOSSLESS[kind])

    song = probed(path)

    assert (song.frames, song.sample_rate, song.channels) == (44100, 44100, 2)
    step = 2**-15 if song.depth == "s16" else 2**-23
    assert np.abs(decoded(path, song) - mixture).max() <= 1.01 * step
    assert song.peak == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_containers_decode_to_the_same_frames_each_time(tmp_path, kind):
    rate = 48000
    path = sounds.encode(
        tmp_path / "song", sounds.song(1, sample_rate=rate), *LOSSY[kind], sample_rate=rate
    )

    song = probed(path)

    assert (song.sample_rate, song.channels, song.depth) == (rate, 2, "s16")
    assert abs(song.frames - rate) <= LOSSY_SLACK_FRAMES.get(kind, 0)
    assert decoded(path, song).shape == (2, song.frames)


@pytest.mark.parametrize("kind", FILMS)
def test_the_sound_of_a_film_is_a_song(tmp_path, kind):
    rate = 48000
    codec, muxer, sample_format, video_codec = FILMS[kind]
    mixture = sounds.song(1, sample_rate=rate)
    path = tmp_path / "film"
    sounds.encode(
        path, mixture, codec, muxer, sample_format, sample_rate=rate, video_codec=video_codec
    )

    song = probed(path)

    assert (song.sample_rate, song.channels) == (rate, 2)
    assert abs(song.frames - rate) <= 1536
    assert sounds.correlation(decoded(path, song), mixture) > 0.95


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY])
def test_title_and_artist_are_read_from_every_container_that_has_them(tmp_path, kind):
    tags = {"title": "Größe"} | ({} if kind in NAMELESS else {"artist": "Ä und Ö"})
    mixture = sounds.song(1, sample_rate=48000)
    path = sounds.encode(
        tmp_path / "song", mixture, *{**LOSSLESS, **LOSSY}[kind], sample_rate=48000, tags=tags
    )

    assert probed(path).tags == ({} if kind in UNTITLED else tags)


def test_a_title_as_long_as_a_book_is_cut(tmp_path):
    tags = {"title": "x" * 3_000_000}
    path = sounds.encode(tmp_path / "song", sounds.song(1), *LOSSLESS["flac"], tags=tags)

    assert probed(path).tags == {"title": "x" * 1_000}


@pytest.mark.parametrize("frames", [1, 4095, 4096, 4097, 9000])
@pytest.mark.parametrize("muxer", ["caf", "ipod"])
def test_the_last_frame_of_alac_is_whole(tmp_path, muxer, frames):
    """FFmpeg 8.1 shortens the last frame of ALAC in CAF twice."""
    mixture = sounds.song(1)[:, 20000 : 20000 + frames]

    song = probed(sounds.encode(tmp_path / "song", mixture, "alac", muxer, "s16p"))

    assert song.frames == frames


@pytest.mark.parametrize("block_frames", [1, 777, 44099, 44100, 100_000])
def test_blocks_are_as_long_as_asked_but_for_the_last(tmp_path, block_frames):
    path = sounds.write_wav(tmp_path / "song.wav", sounds.song(1)[:, :5000], 16)
    song = probed(path)

    lengths = [block.shape[1] for block in audio.blocks(path, song, block_frames)]

    assert sum(lengths) == 5000
    assert set(lengths[:-1]) <= {block_frames}


def test_a_32_bit_source_comes_in_float64_and_loses_nothing(tmp_path):
    random = np.random.default_rng(3)
    whole = random.integers(-(2**31), 2**31 - 1, (2, 1000))
    path = sounds.write_wav(tmp_path / "song.wav", whole / 2**31, 32)

    samples = decoded(path, probed(path))

    assert np.array_equal(samples * 2**31, whole)


def test_the_header_does_not_decide_how_long_a_song_is(tmp_path):
    path = sounds.write_wav(tmp_path / "song.wav", sounds.song(1), 16)
    data = bytearray(path.read_bytes())
    data[40:44] = b"\xff\xff\xff\xff"  # as programs write that do not know yet
    path.write_bytes(data)

    assert probed(path).frames == 44100


def test_a_wav_that_is_cut_short_ends_where_it_ends(tmp_path):
    path = sounds.write_wav(tmp_path / "song.wav", sounds.song(1), 16)
    path.write_bytes(path.read_bytes()[: 44 + 4 * 10_000])

    assert probed(path).frames == 10_000


@pytest.mark.parametrize(
    ("bytes_said", "frames"), [(0, 44100), (100, 25), (101, 25), (0x7FFFFFFF, 44100)]
)
def test_a_wav_that_lies_about_its_size_gives_what_is_there_and_no_more_than_it_says(
    tmp_path, bytes_said, frames
):
    path = sounds.write_wav(tmp_path / "song.wav", sounds.song(1), 16)
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", bytes_said)
    path.write_bytes(data)

    assert probed(path).frames == frames


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (44100 * 3600 * 20, AudioTooLong, "60 seconds"),
        (44100 * 50, DecodeFailed, "44100 of 2205000 frames"),
    ],
)
def test_a_flac_that_promises_more_than_it_holds_is_refused(tmp_path, frames, error, message):
    path = sounds.encode(tmp_path / "song", sounds.song(1), *LOSSLESS["flac"])

    with pytest.raises(error, match=message):
        probed(sounds.claim(path, frames))


@pytest.mark.parametrize(
    "data", [covers.mp3(), covers.mp3() + bytes(3000), covers.m4a()], ids=["mp3", "padded", "m4a"]
)
def test_cover_art_alone_is_no_audio(tmp_path, data):
    path = tmp_path / "song.mp3"
    path.write_bytes(data)

    with pytest.raises(NoAudio):
        probed(path)


def test_cover_art_before_the_music_is_stepped_over(tmp_path):
    path = sounds.encode(tmp_path / "song.mp3", sounds.song(1), *LOSSY["mp3"])
    path.write_bytes(covers.mp3() + path.read_bytes())

    assert probed(path).frames == 44100


def test_an_mp3_plays_over_a_tag_and_junk_at_its_end(tmp_path):
    path = sounds.encode(tmp_path / "song.mp3", sounds.song(3), *LOSSY["mp3"])
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))

    assert probed(path).frames == pytest.approx(3 * 44100, abs=1200)


def test_an_mp3_of_which_much_is_damaged_is_refused(tmp_path):
    path = sounds.encode(tmp_path / "song.mp3", sounds.song(3), *LOSSY["mp3"])
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(2).bytes(len(data))
    for at in range(4000, len(data) - 1500, 2500):
        data[at : at + 1200] = noise[at : at + 1200]
    path.write_bytes(data)

    with pytest.raises(DecodeFailed):
        probed(path)


def test_a_file_that_changes_between_the_passes_is_noticed(tmp_path):
    path = sounds.write_wav(tmp_path / "song.wav", sounds.song(1), 16)
    song = probed(path)
    sounds.write_wav(path, sounds.song(1)[:, :1000], 16)

    with pytest.raises(DecodeFailed, match="44100 frames first and to 1000"):
        decoded(path, song)


def test_the_limit_is_the_longest_that_is_allowed(tmp_path):
    path = sounds.write_wav(tmp_path / "song.wav", sounds.song(1), 16)

    assert probed(path, max_seconds=1.0).seconds == 1.0
    with pytest.raises(AudioTooLong, match=r"0\.99 seconds"):
        probed(path, max_seconds=0.99)


def test_an_empty_file_is_empty_whatever_it_is_called(tmp_path):
    path = tmp_path / "song.mp3"
    path.touch()

    with pytest.raises(InputEmpty):
        probed(path)


@pytest.mark.parametrize("suffix", ["mp3", "wav", "m4a", "m3u8", "jpg", "concat"])
def test_a_files_name_decides_nothing(tmp_path, suffix):
    path = tmp_path / f"song.{suffix}"
    sounds.encode(path, sounds.song(1), *LOSSLESS["flac"])

    assert probed(path).codec == "flac"


def test_an_image_is_no_song_and_opens_no_image_decoder(tmp_path):
    path = tmp_path / "song.mp3"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(5000))

    with pytest.raises(DecodeFailed):
        probed(path)


def test_a_source_of_six_channels_is_refused_and_not_mixed_down(tmp_path):
    path = sounds.encode(tmp_path / "song.wav", np.zeros((6, 4410)), "pcm_s16le", "wav", "s16")

    with pytest.raises(DecodeFailed, match="6 channels"):
        probed(path)


@pytest.mark.parametrize("rate", [383_993, 96_001, 44_101, 44_056, 4_001])
def test_odd_rates_take_little_memory_and_come_back_as_they_were(rate):
    frames = rate // 2
    sound = np.sin(np.arange(frames) * 2 * np.pi * 1000 / rate).astype(np.float32)[None]
    blocks = [sound[:, at : at + 65_536] for at in range(0, frames, 65_536)]

    tracemalloc.start()
    there = resampling.resampled(blocks, rate, 44_100)
    back = list(resampling.exactly(resampling.resampled(there, 44_100, rate), frames))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    found = np.concatenate(back, axis=1)
    middle = slice(frames // 4, -frames // 4)
    assert found.shape == sound.shape
    assert np.abs(found - sound)[:, middle].max() < 1e-5
    assert peak_bytes < 256 << 20


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(48000, 44100), (44100, 48000), (22050, 44100), (44100, 96000)]
)
def test_resampling_is_clean_centred_and_seamless(from_rate, to_rate):
    frames = 2 * from_rate + 17
    tones = [440, 0.43 * min(from_rate, to_rate)]
    time = np.arange(frames) / from_rate
    signal = np.array([np.sin(2 * np.pi * tone * time) for tone in tones], np.float32)

    def resampled(block_frames):
        blocks = (signal[:, at : at + block_frames] for at in range(0, frames, block_frames))
        return np.concatenate(list(resampling.resampled(blocks, from_rate, to_rate)), axis=1)

    found = resampled(65536)
    time = np.arange(found.shape[1]) / to_rate
    expected = np.array([np.sin(2 * np.pi * tone * time) for tone in tones])
    inner = slice(500, -500)
    assert found.shape[1] == -(-frames * to_rate // from_rate)
    assert sounds.db(sounds.rms((found - expected)[:, inner])) < -100
    assert np.array_equal(found, resampled(1237))


@pytest.mark.parametrize("frames", [0, 1, 5, 99, 100, 101, 500])
def test_exactly_cuts_and_fills(frames):
    parts = [np.ones((2, 50), np.float32)] * 2

    found = np.concatenate(
        [np.zeros((2, 0), np.float32), *resampling.exactly(parts, frames)], axis=1
    )

    assert found.shape[1] == frames
    assert found.sum() == 2 * min(frames, 100)
