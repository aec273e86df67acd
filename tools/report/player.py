"""The player: waveforms, spectrograms, and the stems to switch between."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

from common.messages import STEMS, StemName
from common.separation.engine import Samples
from tools.report import picture, words
from tools.report.sound import Sound

#: Colours of the spectrograms, legible on light and on dark backgrounds.
INKS = {"mixture": (104, 118, 168), "vocals": (214, 96, 70), "instrumental": (28, 152, 140)}
TITLES = {"mixture": "Mixture", "vocals": "Vocals", "instrumental": "Instrumental"}
PLAY_ICON = (
    '<svg class="start" viewBox="0 0 24 24" aria-hidden="true"><path d="M7 4.5v15L20 12z"/></svg>'
    '<svg class="pause" viewBox="0 0 24 24" aria-hidden="true">'
    '<path d="M6 4.5h4v15H6zM14 4.5h4v15h-4z"/></svg>'
)
KEYS = (
    ("Space", "play or pause"),
    ("\N{LEFTWARDS ARROW} \N{RIGHTWARDS ARROW}", "back or forward 5 seconds (with Shift: 30)"),
    ("1 2 3", "listen to mixture, vocals, instrumental"),
)


def section(sounds: Mapping[StemName, Sound]) -> str:
    """Return the player with its tracks."""
    first = next(iter(sounds.values()))
    frames = min(sound.mono.size for sound in sounds.values())
    tracks = {str(name): sounds[name].mono[:frames] for name in STEMS if name in sounds}
    if len(tracks) == len(STEMS):
        tracks = {"mixture": tracks["vocals"] + tracks["instrumental"], **tracks}
    seconds = frames / first.sample_rate
    # The spectrograms share one scale, so that their densities compare.
    full_scale_db = picture.loudest_db(next(iter(tracks.values())))
    drawn = "\n".join(
        _track(name, mono, first.sample_rate, full_scale_db, alone=len(tracks) == 1)
        for name, mono in tracks.items()
    )
    marks = "".join(
        f"<span>{words.clock(seconds * part)}</span>" for part in (0, 0.25, 0.5, 0.75, 1)
    )
    listen, keys = "", KEYS if len(tracks) > 1 else KEYS[:2]
    if len(tracks) > 1:
        buttons = "".join(
            f'<button type="button" data-listen="{name}" '
            f'aria-pressed="{str(name == "mixture").lower()}">{title}</button>'
            for name, title in TITLES.items()
        )
        listen = (
            '<div class="listen" role="group" aria-label="Listen to">\n'
            f'<span aria-hidden="true">Listen to</span>{buttons}\n</div>'
        )
    ready = "Ready."
    if first.embedded_seconds <= first.seconds - 1:
        part, whole = words.duration(first.embedded_seconds), words.duration(first.seconds)
        ready = f"This page contains the first {part} of {whole}."
    hints = " \N{MIDDLE DOT} ".join(f"<kbd>{key}</kbd> {what}" for key, what in keys)
    return f"""<section class="card" id="player" aria-labelledby="listen"
 data-seconds="{seconds:.3f}">
<h2 id="listen">Listen</h2>
<div class="transport">
<button type="button" class="play" aria-label="Play">{PLAY_ICON}</button>
<input type="range" min="0" max="{seconds:.3f}" step="0.1" value="0" aria-label="Position">
<p class="time"><output>0:00</output> / {words.clock(seconds)}</p>
</div>
{listen}
<p class="state" role="status" aria-live="polite">{ready}</p>
<div class="tracks">
{drawn}
</div>
<div class="ruler" aria-hidden="true">{marks}</div>
<p class="keys">{hints}</p>
</section>"""


def _track(name: str, mono: Samples, sample_rate: int, full_scale_db: float, *, alone: bool) -> str:
    levels = picture.levels(mono, sample_rate)
    peaks, averages = picture.waveform(mono)
    png = picture.spectrogram(mono, sample_rate, full_scale_db, INKS[name])
    description = words.wave(name, levels, mono.size / sample_rate)
    switches = "".join(
        f'<button type="button" data-switch="{switch}" data-stem="{name}" aria-pressed="false" '
        f'aria-label="{switch.title()} the {name}">{switch.title()}</button>'
        for switch in ("mute", "solo")
    )
    return f"""<section class="track {name}" aria-labelledby="track-{name}">
<div class="about">
<h3 id="track-{name}">{TITLES[name]}</h3>
<p class="level"><span>peak {words.decibels(levels.peak_db)},</span>
<span>average {words.decibels(levels.average_db)}</span></p>
{"" if alone or name == "mixture" else f'<div class="switches">{switches}</div>'}
</div>
<div class="pictures">
<svg viewBox="0 0 {picture.COLUMNS} {picture.HEIGHT}" preserveAspectRatio="none" role="img"
 aria-label="{escape(description)}">
<path class="peaks" d="{peaks}"/><path class="averages" d="{averages}"/></svg>
<img src="data:image/png;base64,{base64.b64encode(png).decode()}"
 width="{picture.COLUMNS}" height="{picture.ROWS}"
 alt="Spectrogram of the {name}: time runs to the right, pitch rises from 40 Hz to 16 kHz,
 louder is denser.">
<span class="pitch hz10000" aria-hidden="true">10 kHz</span>
<span class="pitch hz1000" aria-hidden="true">1 kHz</span>
<span class="pitch hz100" aria-hidden="true">100 Hz</span>
<div class="playhead"></div>
</div>
</section>"""


def embedded(name: str, sound: Sound) -> str:
    """Return the element that holds the sound of a stem."""
    data = base64.b64encode(sound.opus).decode()
    return f'<script type="application/octet-stream" id="sound-{name}">{data}</script>'
