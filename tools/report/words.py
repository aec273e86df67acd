"""Figures, said in words."""

from __future__ import annotations

from math import log10

from common.messages import Receipt
from tools.report.picture import Levels

#: Below this, 24 bits hold no difference.
EXACT_DB = -140.0


def clock(seconds: float) -> str:
    """Return `3:07` or `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def spoken(seconds: float) -> str:
    """Return a length of time as it is read aloud."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def decibels(value: float) -> str:
    """Return *value* with a real minus sign."""
    return f"{round(value, 1) + 0.0:.1f} dB".replace("-", "\N{MINUS SIGN}")


def size(size_bytes: int) -> str:
    """Return a file's size."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"


def sentences(receipt: Receipt) -> list[str]:
    """Return what the *receipt* says, as sentences."""
    return [_work(receipt), _faithfulness(receipt), _gain(receipt)]


def _work(receipt: Receipt) -> str:
    source, model = (
        receipt.source,
        f"with the model {receipt.model}" if receipt.model else "which needs no model",
    )
    channels = {1: "mono", 2: "stereo"}.get(source.channels, f"{source.channels} channels")
    device = {"cpu": "the CPU", "cuda": "a GPU (CUDA)"}.get(receipt.device, receipt.device)
    factor = receipt.realtime_factor
    pace = (
        f"{factor:.1f} times as fast as it plays"
        if factor >= 1
        else f"{1 / factor:.1f} times as long as it plays"
    )
    return (
        f"The engine {receipt.engine}, {model}, separated {spoken(source.seconds)} of {channels} "
        f"({source.sample_rate:,} Hz, {source.codec}) on {device} in {spoken(receipt.seconds.separate)}: {pace}."
    )


def _faithfulness(receipt: Receipt) -> str:
    if receipt.residual_db is None:
        return "The stems are in a lossy format, so how exactly they add up to the source is not measured."
    if receipt.residual_db <= EXACT_DB:
        return f"Vocals and instrumental add up to the source exactly (residual {decibels(receipt.residual_db)})."
    return f"Vocals and instrumental add up to the source to within {decibels(receipt.residual_db)} of full scale."


def _gain(receipt: Receipt) -> str:
    if receipt.gain == 1:
        return "Both play at the source's level (gain 1)."
    lowered = decibels(-20 * log10(receipt.gain))
    return f"Both were turned down together by {lowered} so that neither clips (gain {receipt.gain:.3f})."


def wave(name: str, measured: Levels, seconds: float) -> str:
    """Describe a waveform to somebody who does not see it."""
    silent = (
        f", silent for {measured.silent_ratio:.0%} of it" if measured.silent_ratio >= 0.01 else ""
    )
    return (
        f"Waveform of the {name}, {spoken(seconds)}: loudest at {clock(measured.loudest_seconds)}, "
        f"peak {decibels(measured.peak_db)}{silent}."
    )
