"""python benchmarks/run.py [NAME…] [--quick]

Run all benchmarks that state an expectation, or those named, and write docs/benchmarks.md,
docs/benchmarks.json, and the tables of docs/engines.md that they make. Every figure comes from one
interleaved run on this machine; peers get environments of their own, which this command makes.
--quick shows that all of them run; its figures mean nothing and are not written.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

from benchmarks.contestants import cores
from benchmarks.figures import HEADER, Figure, load, read
from common.separation import audio_separator

PAGE, DATA = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.json"
#: What the figures cannot say, by hand.
BOUNDS = ROOT / "benchmarks" / "bounds.md"
INTRODUCTION = """\
`python benchmarks/run.py` measures everything here, and writes this page and
[benchmarks.json](benchmarks.json). A ratio is the median of pairs that took turns in one run
(A B B A), with the lowest and the highest beside it, so that other work on the machine affects both
alike. Times and shares, which are no ratios, hold for a machine as quiet as the load says.
*Expected* is what we aim at, not what is promised.

A task's *own cost* is the time from Kafka's acknowledgement of the task to its callback, without
the separation. The *plain worker* is a loop that polls, downloads, separates, uploads, calls back
and commits, and keeps none of the promises of [delivery](delivery.md); a ratio above 1 means that
the pipeline is faster."""
PACKAGES = ("kafka-python", "boto3", "numpy", "scipy", "onnxruntime", "av")


@dataclass(frozen=True)
class Benchmark:
    """A script of benchmarks/ that prints figures.

    Args:
        title: what it measures.
        command: the script and its arguments.
        writes: arguments with which it writes what is its own in the documents.
        quick: arguments that make it short.
        needs: the command that makes the environment of a peer, if it is not there yet.
    """

    title: str
    command: tuple[str, ...]
    quick: tuple[str, ...]
    writes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def _engines(size: str, writes: tuple[str, ...] = ()) -> Benchmark:
    return Benchmark(
        f"`mdx` with a net of {size}, against audio-separator",
        ("engines.py", "--seconds", "30", "--net", size),
        ("--rounds", "1", "--seconds", "20"),
        writes,
        needs=("scripts/audio_separator.py", "install"),
    )


BENCHMARKS = {
    "engines": _engines("30 MB", writes=("--write",)),
    "engines-large": _engines("67 MB"),
    "own-cost": Benchmark("Own cost of a task", ("own_cost.py",), ("--tasks", "5")),
    "throughput": Benchmark("Throughput", ("throughput.py",), ("--clips", "5", "--rounds", "1")),
    "scaling": Benchmark(
        "N processors on N cores", ("scaling.py",), ("--songs", "1", "--rounds", "1")
    ),
    "idle": Benchmark("Idle processes", ("idle.py",), ("--seconds", "2", "--windows", "1")),
}


@dataclass(frozen=True)
class Run:
    """One benchmark's run."""

    name: str
    title: str
    command: str
    seconds: float
    load_before: str
    load_after: str
    figures: list[Figure]


def run(name: str, *, quick: bool) -> Run:
    """Run a benchmark, its peer's environment made before.

    Raises:
        SystemExit: it failed.
    """
    benchmark = BENCHMARKS[name]
    if benchmark.needs and not audio_separator.installed():
        _python(ROOT / benchmark.needs[0], *benchmark.needs[1:])
    arguments = benchmark.command[1:] + (benchmark.quick if quick else benchmark.writes)
    command = shlex.join(("python", f"benchmarks/{benchmark.command[0]}", *arguments))
    print(f"\n{command}", flush=True)
    before, began = load(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        script = ROOT / "benchmarks" / benchmark.command[0]
        _python(script, *arguments, "--json", str(file))
        figures = read(file)
    seconds = time.monotonic() - began
    return Run(name, benchmark.title, command, seconds, before, load(), figures)


def _python(script: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, str(script), *arguments], cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{script.name} failed with exit code {done.returncode}; see above.")


def page(runs: list[Run]) -> str:
    """Return docs/benchmarks.md."""
    return "\n".join(_page(runs))


def _page(runs: list[Run]) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield INTRODUCTION
    yield ""
    yield f"Machine: {_machine()}."
    yield ""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    yield f"Versions: Python {platform.python_version()}, {versions}."
    for one in runs:
        yield ""
        yield f"## {one.title}"
        yield ""
        loads = f"load before {one.load_before}, after {one.load_after}"
        yield f"`{one.command}`, {one.seconds:.0f} s; {loads}."
        yield ""
        yield HEADER
        yield from (figure.row() for figure in one.figures)
    yield ""
    yield BOUNDS.read_text(encoding="utf-8").rstrip()
    yield ""
    yield "## Not measured"
    yield ""
    yield "- CUDA: no device was at hand."
    if not shutil.which("redis-server"):
        yield "- Celery: no redis-server was installed."
    yield ""  # the end of the last line


def _machine() -> str:
    model = platform.processor() or platform.machine()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return f"{platform.system()} {platform.machine()}, {model}, {cores()} cores"


def main() -> None:
    """Run the benchmarks, and write the page unless they were quick."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="only show that they run")
    options = parser.parse_args()
    unknown = set(options.name) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARKS)}")
    kept = json.loads(DATA.read_text(encoding="utf-8")) if options.name and DATA.exists() else []
    by_name = {one["name"]: _run(one) for one in kept}
    for name in options.name or BENCHMARKS:
        by_name[name] = run(name, quick=options.quick)
        if not options.quick:
            _write([by_name[known] for known in BENCHMARKS if known in by_name])


def _write(runs: list[Run]) -> None:
    PAGE.write_text(page(runs), encoding="utf-8")
    DATA.write_text(json.dumps([asdict(one) for one in runs], indent=1) + "\n", encoding="utf-8")
    print(f"\nWritten: {PAGE.relative_to(ROOT)}, {DATA.relative_to(ROOT)}", flush=True)


def _run(data: dict[str, object]) -> Run:
    figures = [Figure(**one) for one in data["figures"]]  # type: ignore[attr-defined]
    return Run(**{**data, "figures": figures})  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
