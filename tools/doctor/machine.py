"""Checks of the machine: memory, cores, open files, and the metrics port."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

import config
from tools.doctor.catalogue import finding
from tools.doctor.finding import Finding

MIN_OPEN_FILES = 1024
#: What an engine with its model needs, about; measured for docs/engines.md.
SEPARATION_BYTES = 2 * 1024**3


def check(settings: config.Settings) -> Iterator[Finding]:
    """Check everything about the machine."""
    yield check_memory(settings)
    yield check_threads(settings)
    yield from check_open_files()
    yield check_metrics_port(settings)


def check_memory(settings: config.Settings) -> Finding:
    """Compare the separation's memory limit with the available memory."""
    available, limit = memory_bytes(), settings.separation_memory_bytes
    is_risky = available < limit or (limit == 0 and available < SEPARATION_BYTES)
    shown = f"{limit}{'' if limit else ' (no limit)'}"
    seen = f"{available / 1e9:.1f} GB available; SEPARATION_MEMORY_BYTES={shown}"
    return finding("memory", "warning" if is_risky else "ok", seen)


def memory_bytes() -> int:
    """Return the available memory: the container's limit, or the machine's memory."""
    physical = int(psutil.virtual_memory().total)
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return physical
    return min(physical, int(text)) if text.isdigit() else physical


def check_threads(settings: config.Settings) -> Finding:
    """Compare the threads of a separation with the cores."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    threads = settings.uvr_threads
    seen = f"{cores} cores; UVR_THREADS={threads}{'' if threads else ' (all)'}"
    return finding("threads", "warning" if threads > cores else "ok", seen)


def check_open_files() -> Iterator[Finding]:
    """Check the limit of open files; Windows has no such limit that matters."""
    try:
        import resource
    except ImportError:
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_low = 0 <= soft < MIN_OPEN_FILES
    yield finding("open-files", "warning" if is_low else "ok", f"the limit is {soft} open files")


def check_metrics_port(settings: config.Settings) -> Finding:
    """Check that the port is free or belongs to a service."""
    host, port = settings.metrics_host, settings.metrics_port
    if port == 0:
        return finding("metrics-port", "ok", "METRICS_PORT=0: metrics are off")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.suppress(OSError):
        socket.create_server((host, port), family=family).close()
        return finding("metrics-port", "ok", f"{host}:{port} is free")
    health = _health("127.0.0.1" if host in {"0.0.0.0", "::", ""} else host, port)  # noqa: S104 -- asked, not bound
    if health is None:
        return finding("metrics-port", "warning", f"{host}:{port} is used by another program")
    return finding(
        "metrics-port", "ok", f"{host}:{port} is used by a service; its status is {health}"
    )


def _health(host: str, port: int) -> str | None:
    """Return the status that a service reports at the port; None if it is not a service."""
    # Ask directly, even if the environment names a proxy.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{host}:{port}/livez", timeout=3) as answer:
            body = answer.read(10_000)
    except urllib.error.HTTPError as error:
        body = error.read(10_000)
    except (OSError, ValueError):
        return None
    try:
        return f"{json.loads(body)['status']}"
    except (ValueError, KeyError, TypeError):
        return None
