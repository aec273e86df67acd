"""The formats of stems, and which bit rates and depths can be asked of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

Format = Literal["wav", "flac", "mp3", "m4a", "opus"]

#: Of both channels together. LAME rounds any other rate to one of these.
_MP3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS: Mapping[Format, Collection[int]] = {
    "mp3": _MP3_KBPS,
    "m4a": range(32, 321),
    "opus": range(16, 511),
}
#: 32 bits are floats, which FLAC does not have.
_BIT_DEPTHS: Mapping[Format, Collection[int]] = {"wav": (16, 24, 32), "flac": (16, 24)}


def check_bitrate(bitrate_kbps: int, output_format: Format | None) -> None:
    """Check that stems of *output_format* can have this bit rate; None means any format.

    Raises:
        ValueError: they cannot; the message says what is allowed.
    """
    _check(bitrate_kbps, output_format, _KBPS)


def check_bit_depth(bit_depth: int, output_format: Format | None) -> None:
    """Check that stems of *output_format* can have this depth; None means any format.

    Raises:
        ValueError: they cannot; the message says what is allowed.
    """
    _check(bit_depth, output_format, _BIT_DEPTHS)


def schema_rules() -> Any:  # noqa: ANN401 -- JSON, for pydantic
    """Return what these checks allow in each format, as JSON Schema."""
    return [
        {
            "if": {"properties": {"output_format": {"const": form}}, "required": ["output_format"]},
            "then": {
                "properties": {
                    "bitrate_kbps": _schema(_KBPS.get(form)),
                    "bit_depth": _schema(_BIT_DEPTHS.get(form)),
                }
            },
        }
        for form in get_args(Format)
    ]


def _schema(values: Collection[int] | None) -> dict[str, Any]:
    if values is None:
        return {"type": "null"}
    if isinstance(values, range):
        kinds = ["integer", "null"]
        return {"type": kinds, "minimum": values[0], "maximum": values[-1]}
    return {"enum": [*values, None]}


def _check(
    value: int, output_format: Format | None, allowed: Mapping[Format, Collection[int]]
) -> None:
    formats = [output_format] if output_format else get_args(Format)
    if any(value in allowed.get(form, ()) for form in formats):
        return
    shown = str(value)[:12]
    if output_format and output_format in allowed:
        raise ValueError(
            f"must be {_values(allowed[output_format])} for {output_format}, not {shown}"
        )
    rule = "; ".join(f"{form}: {_values(values)}" for form, values in allowed.items())
    if output_format:
        raise ValueError(f"must not be set for {output_format}, but is {shown} ({rule})")
    raise ValueError(f"must not be {shown} ({rule})")


def _values(values: Collection[int]) -> str:
    if isinstance(values, range):
        return f"{values[0]} to {values[-1]}"
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}"
