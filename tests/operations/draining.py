"""How long a service may take to stop, which whatever starts it must allow."""

import re

from config import Settings

_UNIT_SECONDS = {"h": 3600, "min": 60, "m": 60}


def draining_seconds():
    """Return for each service how long the record in hand may take at the default settings."""
    settings = Settings(reuse_results=True)
    # The two minutes after which common/worker.py gives up what is stuck, and half a minute more.
    return {
        "processor": settings.processor_work_seconds + 150,
        "uploader": settings.uploader_work_seconds + 150,
    }


def seconds(text):
    """Return the seconds of *text*, such as 8h45m or 15min."""
    found = re.findall(r"(\d+)(h|min|m)", text)
    return sum(int(number) * _UNIT_SECONDS[name] for number, name in found)
