"""The machine: memory, cores, open files, and the port of the metrics."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

import config
from tools.doctor import catalogue
from tools.doctor.finding import Finding

MIN_OPEN_FILES = 1024
ANSWER_SECONDS = 3.0
#: The engines need about so much, with a model; measured for docs/engines.md.
SEPARATION_BYTES = 2 * 1024**3
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def check(settings: config.Settings) -> Iterator[Finding]:
    """Ask everything that can be asked of the machine."""
    yield check_memory(settings)
    yield check_threads(settings)
    yield from check_open_files()
    yield check_metrics_port(settings)


def check_memory(settings: config.Settings) -> Finding:
    """Compare the separation's limit with the memory that there is."""
    there, limit = memory_bytes(), settings.separation_memory_bytes
    seen = f"{there / 1e9:.1f} GB for us; SEPARATION_MEMORY_BYTES={limit}{'' if limit else ' (no limit)'}"
    is_risky = there < limit or (limit == 0 and there < SEPARATION_BYTES)
    return (catalogue.MEMORY.warning if is_risky else catalogue.MEMORY.ok)(seen)


def memory_bytes() -> int:
    """Return the memory that is ours: a container's limit, else the machine's."""
    physical = int(psutil.virtual_memory().total)
    try:
        text = _CGROUP_LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return physical
    return min(physical, int(text)) if text.isdigit() else physical


def check_threads(settings: config.Settings) -> Finding:
    """Compare the threads of a separation with the cores."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    seen = f"{cores} cores; UVR_THREADS={settings.uvr_threads}{'' if settings.uvr_threads else ' (all)'}"
    return (catalogue.THREADS.warning if settings.uvr_threads > cores else catalogue.THREADS.ok)(
        seen
    )


def check_open_files() -> Iterator[Finding]:
    """Look at the limit of open files; Windows has none that matters."""
    try:
        import resource
    except ImportError:
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_low = 0 <= soft < MIN_OPEN_FILES
    yield (catalogue.OPEN_FILES.warning if is_low else catalogue.OPEN_FILES.ok)(
        f"{soft} open files"
    )


def check_metrics_port(settings: config.Settings) -> Finding:
    """See who has the port: nobody, or a service."""
    host, port = settings.metrics_host, settings.metrics_port
    if port == 0:
        return catalogue.METRICS_PORT.ok("METRICS_PORT=0: no metrics")
    if _is_free(host, port):
        return catalogue.METRICS_PORT.ok(f"{host}:{port} is free")
    health = _health("127.0.0.1" if host in {"0.0.0.0", "::", ""} else host, port)  # noqa: S104 -- it is asked, not bound
    if health is None:
        return catalogue.METRICS_PORT.warning(f"{host}:{port} is taken by another program")
    return catalogue.METRICS_PORT.ok(f"{host}:{port} is a service's; it says {health}")


def _is_free(host: str, port: int) -> bool:
    try:
        socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        ).close()
    except OSError:
        return False
    return True


def _health(host: str, port: int) -> str | None:
    """Return what a service says of itself there; None when it is none."""
    # Its own answer, whatever proxy the environment names.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{host}:{port}/livez", timeout=ANSWER_SECONDS) as answer:
            body = answer.read(10_000)
    except urllib.error.HTTPError as error:
        body = error.read(10_000)
    except (OSError, ValueError):
        return None
    try:
        return f"{json.loads(body)['status']}"
    except (ValueError, KeyError, TypeError):
        return None
