"""What people really send: damaged, tagged, chained and odd files are right, or refused in words
that help.
"""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest

from common.errors import AudioTooLong, DecodeFailed
from common.separation import audio
from common.separation.unsupported import id3_bytes
from tests import sounds
from tests.hostile.media import good, ogg, tags
from tests.separation import damages


def probed(tmp_path, data):
    path = tmp_path / "song"
    path.write_bytes(data)
    return audio.probe(path, 60)


def decoded(tmp_path, data):
    song = probed(tmp_path, data)
    return song, np.concatenate(list(audio.blocks(tmp_path / "song", song)), axis=1)


@pytest.mark.parametrize("part", range(len(damages.DAMAGES)))
def test_damage_costs_the_place_that_it_hits_or_is_refused(part):
    """Try a few; `python -m tests.separation.damages 300` tries more."""
    kinds = len(damages.KINDS)
    numbers = [part * kinds + (2 * part + step) % kinds for step in (0, 7, 14)]

    found = {number: damages.judge(damages.case(number)) for number in numbers}

    assert {number: what for number, what in found.items() if what.startswith("WRONG")} == {}


@pytest.mark.parametrize("kind", ["adts", "m4a", "ac3", "eac3", "mp3"])
def test_one_damaged_packet_of_a_lossy_song_is_silent_and_told(tmp_path, kind):
    whole = damages.good(kind)
    middle = len(whole) // 2
    data = whole[:middle] + b"\xff" * 150 + whole[middle + 150 :]

    song = probed(tmp_path, data)

    assert abs(song.frames - damages.wanted(kind).shape[1]) <= 2048
    assert song.damaged >= 1
    assert song.peak == pytest.approx(float(np.abs(damages.wanted(kind)).max()), rel=0.3)


@pytest.mark.parametrize("tag", damages.TAGS)
@pytest.mark.parametrize("kind", ["adts", "m4a", "ac3", "eac3", "wavpack", "flac", "vorbis"])
def test_a_tag_or_junk_behind_a_song_changes_nothing(tmp_path, kind, tag):
    _, found = decoded(tmp_path, damages.good(kind) + damages.TAGS[tag])

    assert np.abs(found - damages.wanted(kind)).max() < 1e-3


#: What stands in a PNG reads as the begin of many frames.
PICTURE = tags.png(500, 500) + np.random.default_rng(1).bytes(1_000_000)
APE = tags.ape(Title=b"APE", Cover=b"cover.png\0" + PICTURE)
ID3V2 = tags.id3(tags.frame(b"APIC", b"\0image/png\0\3\0" + PICTURE))
ID3V1 = b"TAG" + b"ID3".ljust(124, b"\0") + b"\xff"
BEHIND = {
    "APE": APE,
    "APE, ID3v1": APE + ID3V1,
    "ID3v2": ID3V2,
    "ID3v2 with a footer": ID3V2 + b"3DI" + ID3V2[3:10],
    "ID3v2, APE, ID3v1": ID3V2 + APE + ID3V1,
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("kind", ["mp3", "adts"])
def test_a_picture_behind_a_song_is_not_heard(tmp_path, kind, behind):
    song, found = decoded(tmp_path, damages.good(kind) + BEHIND[behind])

    assert found.shape == damages.wanted(kind).shape
    assert np.abs(found - damages.wanted(kind)).max() < 1e-3
    assert song.damaged == 0


@pytest.mark.parametrize(
    ("kind", "behind", "title"),
    [("mp3", "APE, ID3v1", "ID3"), ("adts", "APE, ID3v1", "ID3"), ("adts", "APE", "APE")],
)
def test_tags_behind_a_song_are_read(tmp_path, kind, behind, title):
    whole = damages.good(kind)

    song = probed(tmp_path, whole[id3_bytes(whole[:10]) :] + BEHIND[behind])

    assert song.tags["title"] == title
    assert (song.cover is None) == (title == "ID3")


def test_tags_behind_nothing_are_refused(tmp_path):
    with pytest.raises(DecodeFailed):
        probed(tmp_path, b"\xff\xfb" + tags.ape(Title=b"x") * 100_000)


@pytest.mark.parametrize("kind", ["wav", "aiff", "caf", "m4a", "vorbis", "wavpack", "mka aac"])
def test_a_tag_before_a_song_changes_nothing(tmp_path, kind):
    _, found = decoded(tmp_path, tags.id3(tags.frame(b"TIT2", b"\3x")) + damages.good(kind))

    assert np.abs(found - damages.wanted(kind)).max() < 1e-3


@pytest.mark.parametrize("kind", ["vorbis", "opus"])
def test_what_follows_a_large_hole_in_an_ogg_is_heard(tmp_path, kind):
    whole = list(ogg.pages(damages.good(kind)))

    song, found = decoded(tmp_path, b"".join([*whole[:4], bytes(300_000), *whole[4:]]))

    assert np.array_equal(found, damages.wanted(kind))
    assert song.damaged == 1


@pytest.mark.parametrize("kind", ["vorbis", "opus"])
def test_megabytes_behind_an_ogg_are_no_damage(tmp_path, kind):
    song, found = decoded(tmp_path, damages.good(kind) + np.random.default_rng(3).bytes(3 << 20))

    assert np.array_equal(found, damages.wanted(kind))
    assert song.damaged == 0


def with_gap(tmp_path, kind, seconds, packets=100, muxer=""):
    """Return a song whose time jumps ahead by so many *seconds* after so many *packets*."""

    def moved(number, packet):
        if number >= packets:
            packet.pts += round(seconds / packet.time_base)
            packet.dts = packet.pts
        return True

    return remuxed(tmp_path, kind, moved, muxer)


def remuxed(tmp_path, kind, kept, muxer=""):
    """Return a song with the packets of which `kept(number, packet)` is true."""
    source, path = tmp_path / "whole", tmp_path / "remuxed"
    source.write_bytes(damages.good(kind))
    with (
        av.open(str(source)) as whole,
        path.open("wb") as file,
        av.open(file, "w", format=muxer or damages.KINDS[kind][1]) as container,
    ):
        stream = container.add_stream_from_template(whole.streams.audio[0])
        for number, packet in enumerate(whole.demux(audio=0)):
            if packet.size and kept(number, packet):
                packet.stream = stream
                container.mux(packet)
    return path.read_bytes()


@pytest.mark.parametrize("seconds", [2.0, 12.0])
@pytest.mark.parametrize("kind", ["m4a", "vorbis", "opus", "webm", "mka aac"])
def test_a_gap_in_a_lossy_song_is_silent_and_the_rest_keeps_its_time(tmp_path, kind, seconds):
    wanted = damages.wanted(kind)
    rate = damages.KINDS[kind][3]

    song, found = decoded(tmp_path, with_gap(tmp_path, kind, seconds))

    assert found.shape[1] - wanted.shape[1] == pytest.approx(seconds * rate, abs=2048)
    assert np.abs(found[:, :rate] - wanted[:, :rate]).max() < 1e-3
    assert not found[:, 3 * rate : 7 * rate // 2].any()
    assert np.abs(found[:, -2 * rate :] - wanted[:, -2 * rate :]).max() < 1e-3
    assert song.damaged >= 1


@pytest.mark.parametrize(
    ("kind", "lost"), [("m4a", 10), ("vorbis", 10), ("opus", 30), ("webm", 30), ("mka aac", 10)]
)
def test_missing_packets_are_counted(tmp_path, kind, lost):

    song = probed(tmp_path, remuxed(tmp_path, kind, lambda number, _: not 0 <= number - 100 < lost))

    assert song.damaged == pytest.approx(lost, abs=1)


def test_the_pauses_of_opus_are_silence_and_no_damage(tmp_path):
    wanted = damages.wanted("webm")

    song, found = decoded(tmp_path, remuxed(tmp_path, "webm", lambda number, _: number % 20 == 0))

    assert found.shape[1] == pytest.approx(wanted.shape[1], abs=19 * 960)
    assert song.damaged == 0


@pytest.mark.parametrize("kind", ["m4a", "mka aac"])
@pytest.mark.parametrize(
    "kept", [lambda number: number % 10 == 0, lambda number: number % 2, lambda number: number % 9]
)
def test_a_lossy_song_with_too_few_packets_is_refused(tmp_path, kind, kept):
    with pytest.raises(DecodeFailed, match="places packets do not decode or are missing"):
        probed(tmp_path, remuxed(tmp_path, kind, lambda number, _: kept(number)))


def test_a_lossy_song_of_which_too_long_a_part_is_missing_is_refused(tmp_path):
    with pytest.raises(DecodeFailed, match=r"40\.0 seconds are missing in its first 42\.3"):
        probed(tmp_path, with_gap(tmp_path, "mka aac", 40.0))


@pytest.mark.parametrize("seconds", [2.0, 12.0])
@pytest.mark.parametrize(
    ("kind", "muxer"),
    [("wav", "matroska"), ("flac", "matroska"), ("ogg flac", "ogg"), ("alac", "ipod")],
)
def test_a_gap_in_a_lossless_song_is_refused(tmp_path, kind, muxer, seconds):
    with pytest.raises(DecodeFailed, match="frames are missing at frame"):
        probed(tmp_path, with_gap(tmp_path, kind, seconds, packets=30, muxer=muxer))


def test_a_flac_that_does_not_say_its_length_is_refused_if_part_of_it_is_missing(tmp_path):
    path = sounds.claim(sounds.silence(tmp_path / "silence", 60), 0)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(audio=0) if packet.size]
    data = path.read_bytes()

    with pytest.raises(DecodeFailed, match="frames are missing at frame"):
        probed(tmp_path, data[: places[len(places) // 3]] + data[places[len(places) * 2 // 3] :])


def test_a_time_behind_the_end_of_the_song_is_damage_and_no_silence(tmp_path):
    pages = list(ogg.pages(damages.good("opus")))
    pages[4] = ogg.changed(pages[4], position=48_000 * 3_600)

    song, found = decoded(tmp_path, b"".join(pages))

    assert abs(found.shape[1] - damages.wanted("opus").shape[1]) <= 48_000
    assert song.damaged >= 1


@pytest.mark.parametrize(("kind", "refusal"), [("mka aac", DecodeFailed), ("webm", AudioTooLong)])
def test_no_hours_of_silence_come_out_of_a_gap(tmp_path, kind, refusal):
    with pytest.raises(refusal):
        probed(tmp_path, with_gap(tmp_path, kind, 36_000.0))


@pytest.mark.parametrize("kind", ["wav", "flac", "aiff", "mp3", "m4a"])
def test_two_tags_before_a_song_change_nothing(tmp_path, kind):
    _, found = decoded(tmp_path, ID3V2 + ID3V2 + damages.good(kind))

    assert np.abs(found - damages.wanted(kind)).max() < 1e-3


@pytest.mark.parametrize("kind", ["flac", "wavpack"])
@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_flipped_bit_of_a_lossless_song_is_noticed(tmp_path, kind, place):
    data = bytearray(damages.good(kind))
    data[int(place * len(data))] ^= 4

    with pytest.raises(DecodeFailed, match="The source is damaged"):
        probed(tmp_path, bytes(data))


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_damage_does_not_set_the_gain(tmp_path, place):
    data = bytearray(damages.good("mp3"))
    at = data.index(data[data.index(b"\xff\xfb") :][:2], int(place * len(data)))
    # The gain of a frame's first channel (ISO 11172-3, 2.4.1.7), at the most: 96 dB up.
    data[at + 9] |= 0x7F
    data[at + 10] |= 0x80

    song, found = decoded(tmp_path, bytes(data))

    assert song.noise
    assert song.peak == float(np.abs(found).max())
    assert song.peak == pytest.approx(float(np.abs(damages.wanted("mp3")).max()), rel=0.01)
    assert found.shape == damages.wanted("mp3").shape


@pytest.mark.parametrize("peak", [1.4, 2.0])
def test_a_loud_lossy_master_keeps_its_peaks(tmp_path, peak):
    path = sounds.encode(tmp_path / "song", sounds.song(3, peak=peak), "aac", "ipod", "fltp")

    song = audio.probe(path, 60)

    assert not song.noise
    assert song.peak == pytest.approx(float(np.abs(sounds.decode(path)[1]).max()))


def test_a_chained_ogg_is_both_songs(tmp_path):
    parts = [vorbis(tmp_path, seed=seed) for seed in (0, 3)]
    apart = [decoded(tmp_path, part)[1] for part in parts]

    song, found = decoded(
        tmp_path, b"".join(ogg.changed(part, serial=n) for n, part in enumerate(parts))
    )

    assert song.frames == sum(part.shape[1] for part in apart)
    assert np.abs(found - np.concatenate(apart, axis=1)).max() < 1e-6


@pytest.mark.parametrize("serials", [(0, 0), (0, 1)])
def test_a_chained_ogg_of_opus_is_both_songs(tmp_path, serials):
    parts = [
        sounds.encode(
            tmp_path / "opus",
            np.random.default_rng(seed).uniform(-0.5, 0.5, (2, 144_000)),
            "libopus",
            "ogg",
            "flt",
            48000,
        ).read_bytes()
        for seed in (0, 3)
    ]
    apart = [decoded(tmp_path, part)[1] for part in parts]

    chained = zip(serials, parts, strict=True)
    song, found = decoded(
        tmp_path, b"".join(ogg.changed(part, serial=serial) for serial, part in chained)
    )

    assert song.frames == sum(part.shape[1] for part in apart)
    assert np.abs(found - np.concatenate(apart, axis=1)).max() < 1e-6
    assert (song.damaged, song.noise) == (0, frozenset())


def vorbis(tmp_path, seed=0, rate=44100):
    samples = sounds.song(1, seed=seed, sample_rate=rate)
    path = tmp_path / "vorbis"
    return sounds.encode(path, samples, "vorbis", "ogg", "fltp", rate).read_bytes()


def test_alac_whose_packet_table_has_no_remainder_is_whole(tmp_path):
    data = bytearray(
        good.song("alac caf", 0.5) if "alac caf" in good.KINDS else _alac_caf(tmp_path)
    )
    at = data.index(b"pakt") + 12
    packets = struct.unpack_from(">q", data, at)[0]
    struct.pack_into(">qii", data, at + 8, packets * 4096, 0, 0)

    assert probed(tmp_path, bytes(data)).frames == 22050


def _alac_caf(tmp_path):
    path = tmp_path / "alac"
    return sounds.encode(path, sounds.song(1)[:, :22050], "alac", "caf", "s16p").read_bytes()


def test_a_flac_whose_header_says_shorter_blocks_plays(tmp_path):
    data = bytearray(damages.good("flac"))
    struct.pack_into(">HH", data, 8, 192, 192)

    _, found = decoded(tmp_path, bytes(data))

    assert np.array_equal(found, damages.wanted("flac"))


def id3v1(title, artist):
    return b"TAG" + title.ljust(30, b"\0") + artist.ljust(30, b"\0") + bytes(64) + b"\xff"


def test_tags_are_read_in_the_encoding_that_they_have(tmp_path):
    whole = damages.good("mp3")
    untagged = whole[id3_bytes(whole[:10]) :]

    song = probed(tmp_path, untagged + id3v1(b"Caf\xe9", b"Bj\xf6rk"))

    assert song.tags == {"title": "Café", "artist": "Björk"}


def test_all_artists_of_a_tag_are_kept(tmp_path):
    header = tags.id3(tags.frame(b"TPE1", b"\3" + "Ä\0Ö".encode()), tags.frame(b"TIT2", b"\3Song"))

    assert probed(tmp_path, header + damages.good("mp3")).tags == {
        "title": "Song",
        "artist": "Ä; Ö",
    }


REFUSED = {
    "AVI": (b"RIFF\0\1\0\0AVI LIST" + bytes(400), "AVI video"),
    "TS": ((b"\x47\x40\0\x10" + bytes(184)) * 50, "transport stream"),
    "FLV": (b"FLV\1\5\0\0\0\x09" + bytes(400), "FLV"),
    "VOB": (b"\0\0\1\xba" + bytes(400), "VOB"),
    "DSF": (b"DSD \x1c" + bytes(400), "DSF"),
    "TTA": (b"TTA1\1\0" + bytes(400), "TTA"),
    "MPC": (b"MPCK" + bytes(400), "MPC"),
    "APE": (b"MAC \x96\x0f" + bytes(400), "APE"),
    "free format": (b"\xff\xfb\x00\x64" + bytes(700), "free format"),
    "zip": (b"PK\3\4" + bytes(400), "archive"),
    "page": (b"<!DOCTYPE html><html>" + b"<p>" * 200, "web page"),
    "text": (b"Song\n" * 200, "a text"),
    "noise": (np.random.default_rng(1).bytes(9000), "unknown format"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_says_what_it_refuses(tmp_path, kind):
    data, name = REFUSED[kind]

    with pytest.raises(DecodeFailed, match=name):
        probed(tmp_path, data)


@pytest.mark.parametrize(
    ("kind", "codec", "sample_format", "frame_bytes"),
    [
        ("wav", "pcm_s16le", "s16", 4),
        ("wav", "pcm_s24le", "s32", 6),
        ("wav", "pcm_f32le", "flt", 8),
        ("aiff", "pcm_s16be", "s16", 4),
        ("au", "pcm_s16be", "s16", 4),
        ("caf", "pcm_s24be", "s32", 6),
    ],
)
def test_uncompressed_sound_may_end_within_a_frame(
    tmp_path, kind, codec, sample_format, frame_bytes
):
    path = tmp_path / "song"
    # FFmpeg reads 4096 frames at once, so that a part of one is alone in its packet.
    samples = sounds.song(1)[:, :40_961]
    whole = sounds.encode(path, samples, codec, kind, sample_format).read_bytes()

    assert probed(tmp_path, whole[: 1 - frame_bytes]).frames == 40_960


@pytest.mark.parametrize("kind", ["mp3", "aac"])
def test_a_song_that_changes_its_channels_is_refused_in_these_words(tmp_path, kind):
    with pytest.raises(DecodeFailed, match=r"changes midway from 44100 Hz, stereo, to .* mono"):
        probed(tmp_path, good.song(kind, 1.0, 2) + good.song(kind, 1.0, 1))


def test_an_ogg_that_changes_its_rate_is_refused_in_these_words(tmp_path):
    parts = [vorbis(tmp_path, rate=rate) for rate in (44100, 48000)]

    with pytest.raises(DecodeFailed, match="changes"):
        probed(tmp_path, b"".join(ogg.changed(part, serial=n) for n, part in enumerate(parts)))


@pytest.mark.parametrize(
    ("layouts", "default", "track"),
    [(["stereo", "mono"], 1, 2), (["5.1", "stereo"], 0, 2), (["stereo", "stereo"], None, 1)],
)
def test_the_default_track_that_can_be_separated_is_used_and_told(
    separate, tmp_path, layouts, default, track
):
    path = tmp_path / "song.mka"
    with av.open(str(path), "w", format="matroska") as container:
        streams = [container.add_stream("flac", rate=44100, layout=name) for name in layouts]
        for number, stream in enumerate(streams):
            stream.disposition = av.stream.Disposition(int(number == default))
        for stream, name in zip(streams, layouts, strict=True):
            count = {"mono": 1, "stereo": 2, "5.1": 6}[name]
            samples = np.resize(sounds.song(1), (count, 44100))
            container.mux(stream.encode(sounds._frame(samples, "s16", 44100)))
            container.mux(stream.encode(None))

    source = separate(path).source

    assert (source.track, source.tracks) == (track, 2)
    assert source.channels == (1 if layouts[track - 1] == "mono" else 2)
