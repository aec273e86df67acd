"""Figures in words."""

from __future__ import annotations

from math import log10

from common.messages import Receipt
from tools.report.picture import Levels


def clock(seconds: float) -> str:
    """Return `3:07` or `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """Return `3 min 7 s` or `7.0 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def decibels(value: float) -> str:
    """Return *value* with a real minus sign."""
    return f"{round(value, 1) + 0.0:.1f} dB".replace("-", "\N{MINUS SIGN}")


def size(size_bytes: int) -> str:
    """Return a file's size."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"


DEVICES = {
    "cpu": "the CPU",
    "cuda": "a GPU (CUDA)",
    "openvino-fp32": "the CPU (OpenVINO, float32)",
    "openvino-fp16": "the CPU (OpenVINO, float16)",
    "openvino-bf16": "the CPU (OpenVINO, bfloat16)",
}


def sentences(receipt: Receipt) -> list[str]:
    """Return the *receipt* as sentences."""
    source, factor = receipt.source, receipt.realtime_factor
    model = f" with the model {receipt.model}" if receipt.model else ", which needs no model,"
    channels = {1: "mono", 2: "stereo"}.get(source.channels, f"{source.channels}-channel")
    device = DEVICES.get(receipt.device, receipt.device)
    pace = f"{factor:.1f} times faster" if factor >= 1 else f"{1 / factor:.1f} times slower"
    separation = (
        f"The engine {receipt.engine}{model} separated {duration(source.seconds)} of {channels} "
        f"audio ({source.sample_rate:,} Hz, {source.codec}) on {device} "
        f"in {duration(receipt.seconds.separate)}, {pace} than real time."
    )
    if receipt.residual_db is None:
        sum_of_stems = "The format is lossy, so the residual of the stems is not measured."
    elif receipt.residual_db <= -140:  # below the resolution of 24 bits
        residual = decibels(receipt.residual_db)
        sum_of_stems = (
            f"Vocals and instrumental add up to the source exactly (residual {residual})."
        )
    else:
        residual = decibels(receipt.residual_db)
        sum_of_stems = (
            f"Vocals and instrumental add up to the source within {residual} of full scale."
        )
    level = "Both stems have the level of the source (gain 1)."
    if receipt.gain != 1:
        lowered = decibels(-20 * log10(receipt.gain))
        level = (
            f"Both stems were lowered by {lowered} so that neither clips (gain {receipt.gain:.3f})."
        )
    return [separation, sum_of_stems, level]


def wave(name: str, levels: Levels, seconds: float) -> str:
    """Describe a waveform to readers who cannot see it."""
    silent = (
        f", silent {levels.silent_ratio:.0%} of the time" if levels.silent_ratio >= 0.01 else ""
    )
    return (
        f"Waveform of the {name}, {duration(seconds)}: loudest at {clock(levels.loudest_seconds)}, "
        f"peak {decibels(levels.peak_db)}{silent}."
    )
