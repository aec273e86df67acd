"""From packets to frames: damage is stepped over, and the song keeps its time.

Decoders and demuxers fail in many ways; each failure is one damaged packet. In what loses nothing
(pcm, flac, alac, wavpack) none is tolerated. In lossy streams silence takes the place of what is
lost, as far as time stamps tell how long it was, and a stream that breaks off ends there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

import av

from common.errors import DecodeFailed

#: Three are always tolerated: tags, junk between frames, and an encoder's first frame.
_TOLERATED = 3
#: One Ogg page or Matroska cluster lasts up to five seconds; a gap of more may be a wrong time.
_LONG_SECONDS = 10
#: Opus that leaves out silence still sends a packet every 400 ms (RFC 6716, 2.1.9).
_OPUS, _PAUSE_SECONDS = {"libopus", "opus"}, 0.5
#: Where FFmpeg's Ogg finds no page within the size of the largest, it gives up; asked, it goes on.
_OGG_SEARCH_BYTES = 65_307
_SILENT_FRAMES = 1 << 16
_AC3_SYNC = b"\x0b\x77"
#: Of frames of AC-3, by their code (A/52, table 5.18).
_AC3_KBITS = (
    *(32, 40, 48, 56, 64, 80, 96, 112, 128, 160),
    *(192, 224, 256, 320, 384, 448, 512, 576, 640),
)


class Frames:
    """The frames of a stream, and how many packets of it were damaged.

    Raises while it is iterated over:
        DecodeFailed: too much is damaged.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.AudioStream,
        *,
        lossless: bool,
        promised: int | None,
    ) -> None:
        self.damaged = 0
        #: Packets that failed since the last frame, places where some failed or are missing, and
        #: frames that are missing.
        self._failed = self._places = self._missing = 0
        self._container, self._stream = container, stream
        self._lossless, self._promised = lossless, promised
        self._decoder: av.AudioCodecContext = stream.codec_context
        self._packets = 0
        self._decoded = 0
        self._lasted = 0
        self._shape: tuple[int, str, str] | None = None
        #: Where the first frame begins and the last one ended, in samples; None before the first.
        self._begin: float | None = None
        self._end: float | None = None
        self._frames_per_tick = 0.0
        #: How long what stands behind the last packet would last.
        self._junk_frames = 0
        self._odd = 0

    def __iter__(self) -> Iterator[av.AudioFrame]:
        for packet in self._demuxed():
            for frame in self._frames(packet):
                if self._is_odd(frame):
                    continue
                missing = self._missing_before(frame)
                if missing:
                    yield from self._silence(frame, missing)
                self._decoded += frame.samples
                yield frame
            if self._end is not None:
                self._end -= self._junk_frames
            self._junk_frames = 0
            # Decoders give a few thousand frames at once; a stream cut this small is an attack.
            if self._packets > 100_000 and self._decoded < self._packets * 16:
                raise DecodeFailed(
                    f"The source's packets are too small: {self._packets} packets hold "
                    f"{self._decoded} frames."
                )
        if self._places > _TOLERATED + self._packets // 100:
            raise DecodeFailed(
                f"The source is damaged: at {self._places} places packets do not decode or are "
                f"missing, and it has {self._packets} of them."
            )

    def _demuxed(self) -> Iterator[av.Packet[av.AudioStream]]:
        """Yield the packets; try again behind what the demuxer cannot read.

        It is one damage, however long; at the end it is none, but a tag or where the song breaks
        off.
        """
        failure: av.FFmpegError | None = None
        failures = 0
        while failures <= _TOLERATED + self._container.size // _OGG_SEARCH_BYTES:
            try:
                for packet in self._container.demux(self._stream):
                    if failure and packet.size:
                        self._count_damage(failure)
                        failure, failures = None, 0
                    self._packets += packet.size > 0
                    self._lasted += packet.duration or 0
                    yield packet
                break
            except av.error.MemoryError:
                raise
            except av.PatchWelcomeError as error:
                # What FFmpeg's Ogg says of a next song in the same file.
                raise DecodeFailed(
                    "The source changes its sample rate, channels or codec midway."
                ) from error
            except av.FFmpegError as error:
                failure, failures = error, failures + 1
                if self._promised is not None and self.is_whole():
                    return  # what follows is a tag
                if self._lossless:
                    self._count_damage(error)
        if failure and not self._packets:
            raise DecodeFailed("The source is damaged: no packet of it can be read.") from failure

    def is_whole(self) -> bool:
        """Tell whether as many frames as the header promises have been decoded."""
        decoded = self._decoded
        if (self._container.format.name, self._decoder.name) == ("caf", "alac"):
            # FFmpeg 5.1 wrote a packet table without the remainder of the last packet.
            decoded = max(decoded, self._lasted)
        return self._promised is None or decoded >= self._promised

    def _frames(self, packet: av.Packet[av.AudioStream]) -> list[av.AudioFrame]:
        if self._decoder.name == "vorbis":
            self._begin_next_song(packet)
        if self._packets > 1 and self._decoder.name in _OPUS and _skips(packet):
            # The next song of a chained Ogg, which begins with a decoder that holds nothing.
            self._decoder.flush_buffers()
        if self._decoder.name in {"ac3", "eac3"}:
            packet = self._without_junk(packet)
        try:
            return self._decoder.decode(packet)
        except av.error.MemoryError:
            raise
        except av.FFmpegError as error:
            is_behind_the_end = self._lossless and self._promised is not None and self.is_whole()
            if not is_behind_the_end and not self._is_half_a_frame(packet):
                self._count_damage(error)
            return []

    def _is_half_a_frame(self, packet: av.Packet[av.AudioStream]) -> bool:
        """Tell whether *packet* is of plain samples, too few for a frame: the file breaks off."""
        bits = re.fullmatch(r"pcm_[a-z](\d+)[a-z]*", self._decoder.name)
        if bits is None or not self._decoded:
            return False
        return packet.size < self._decoder.channels * int(bits[1]) // 8

    def _without_junk(self, packet: av.Packet[av.AudioStream]) -> av.Packet[av.AudioStream]:
        """Return the frame of AC-3 in *packet*, to which FFmpeg adds what follows the last one."""
        data = bytes(packet)
        size = _ac3_bytes(data)
        if not 0 < size < len(data) or data[size:].startswith(_AC3_SYNC):
            return packet
        # What stands there may have been frames; then others follow.
        self._junk_frames = 1536 * round((len(data) - size) / size)
        frame = cast("av.Packet[av.AudioStream]", av.Packet(data[:size]))
        frame.stream, frame.time_base = self._stream, packet.time_base
        frame.pts, frame.dts = packet.pts, packet.dts
        return frame

    def _begin_next_song(self, packet: av.Packet[av.AudioStream]) -> None:
        """Give the second song of a chained Ogg a decoder of its own.

        FFmpeg 8.1 decodes it with the codebooks of the first, and its first packet to sound.
        """
        for data in packet.iter_sidedata():
            if data.data_type == "new_extradata":
                self._decoder = av.AudioCodecContext.create("vorbis", "r")
                self._decoder.extradata = bytes(data)

    def _count_damage(self, error: av.FFmpegError) -> None:
        self._note_failure()
        if self._lossless:
            raise DecodeFailed(
                f"The source is damaged: its packet {self._packets} ({self._stream.name}), "
                f"at frame {self._decoded}, does not decode."
            ) from error

    def _note_failure(self) -> None:
        self.damaged += 1
        self._failed += 1
        self._places += 1

    def _is_odd(self, frame: av.AudioFrame) -> bool:
        """Tell whether *frame* is of another shape than the song: damage, if it is alone."""
        shape = frame.sample_rate, frame.layout.name, frame.format.name
        if self._shape is None:
            self._shape = shape
        if shape == self._shape:
            self._odd = 0
            return False
        self._odd += 1
        self._note_failure()
        if self._lossless or self._odd > _TOLERATED:
            raise DecodeFailed(
                f"The source changes midway from {self._shape[0]} Hz, {self._shape[1]}, to "
                f"{shape[0]} Hz, {shape[1]}; convert it to one sample rate and channel layout."
            )
        return True

    def _missing_before(self, frame: av.AudioFrame) -> int:
        """Return how many frames of silence stand for what is missing before this frame."""
        missing = self._gap_before(frame)
        failed, self._failed = self._failed, 0
        if missing <= max(frame.samples // 2, frame.sample_rate // 200):
            return 0
        if self._lossless:
            raise DecodeFailed(
                f"The source is damaged: {missing} frames are missing at frame {self._decoded}."
            )
        if missing > _LONG_SECONDS * frame.sample_rate and self._is_behind_the_end(frame):
            self.damaged += 1
            self._places += 1
            return 0
        is_opus = self._decoder.name in _OPUS
        if not is_opus or failed or missing > _PAUSE_SECONDS * frame.sample_rate:
            packets = round(missing * self._packets / max(1, self._decoded - self._missing))
            self.damaged += max(packets - failed, 0 if failed else 1)
            self._places += not failed
        if not is_opus:  # recordings of calls may be pauses for the most part
            self._bear(missing, frame.sample_rate)
        self._missing += missing
        self._decoded += missing
        return missing

    def _bear(self, missing: int, rate: int) -> None:
        """Refuse a song of which more is missing than a few pages and half of it."""
        lasts = max(self._decoded, (self._container.duration or 0) * rate // av.time_base)
        frames = self._missing + missing
        if frames > _LONG_SECONDS * rate + lasts // 2:
            raise DecodeFailed(
                f"The source is damaged: {frames / rate:.1f} seconds are missing in its first "
                f"{(self._decoded + missing) / rate:.1f} seconds."
            )

    def _gap_before(self, frame: av.AudioFrame) -> int:
        """Return how many frames lie between the last frame and this one by their times."""
        missing = 0
        if frame.pts is not None and frame.time_base:
            if not self._frames_per_tick:
                self._frames_per_tick = float(frame.time_base * frame.sample_rate)
            starts = frame.pts * self._frames_per_tick
            if self._begin is None:
                self._begin = starts
            if self._end is not None:
                missing = round(starts - self._end)
            self._end = starts + frame.samples
        elif self._end is not None:
            self._end += frame.samples
        # Time stamps of Matroska are rounded to milliseconds; what is lost is whole frames.
        if self._container.format.name.startswith("matroska") and frame.samples:
            missing = round(missing / frame.samples) * frame.samples
        return missing

    def _is_behind_the_end(self, frame: av.AudioFrame) -> bool:
        """Tell whether *frame* has a time at which the song is over: a wrong one."""
        duration = self._container.duration
        if duration is None or self._begin is None or self._end is None:
            return False
        return self._end - self._begin > (duration / av.time_base + 1) * frame.sample_rate

    @staticmethod
    def _silence(frame: av.AudioFrame, missing: int) -> Iterator[av.AudioFrame]:
        """Yield *missing* frames of silence of the kind of *frame*."""
        while missing:
            silence = av.AudioFrame(
                frame.format.name, frame.layout.name, min(missing, _SILENT_FRAMES)
            )
            silence.sample_rate = frame.sample_rate
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            missing -= silence.samples
            yield silence


def _skips(packet: av.Packet[av.AudioStream]) -> bool:
    """Tell whether the first samples of *packet* are none of the song."""
    return any(
        data.data_type == "skip_samples" and any(bytes(data)[:4]) for data in packet.iter_sidedata()
    )


def _ac3_bytes(data: bytes) -> int:
    """Return the size that a frame of AC-3 or E-AC-3 says it has (A/52, 5.4.1 and E.2.3.1)."""
    if len(data) < 6 or not data.startswith(_AC3_SYNC):
        return 0
    if data[5] >> 3 > 10:
        return 2 * (1 + ((data[2] & 7) << 8 | data[3]))
    rate, code = data[4] >> 6, data[4] & 63
    if rate == 3 or code >= 2 * len(_AC3_KBITS):
        return 0
    kbits = _AC3_KBITS[code >> 1]
    return 2 * (2 * kbits, kbits * 320 // 147 + (code & 1), 3 * kbits)[rate]
