"""What runs on a Python that has nothing but its standard library, beside a checkout as cloned."""

import os
import shutil
import subprocess
import sys
import venv as standard_venv
from importlib.metadata import packages_distributions
from typing import get_args

import pytest

from common.messages import STEMS, TASK_UUID_PATTERN, Format, PriorityName
from common.separation.protocol import EngineName
from common.version import VERSION
from tools.environment import venv
from tools.topics import options

ROOT = venv.ROOT
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
SERVICES = ["processor", "uploader"]
#: Each command up to its first step that needs the requirements.
COMMANDS = [
    *(["separate.py", "song.wav"], ["submit.py", "song.wav"], ["services.py", "status"]),
    *(["status.py", "serve"],),
    *(["trace.py", "a"], ["report.py", "a"], ["dead_letters.py", "list"]),
    *(["callbacks.py", "receive"], ["models.py", "list"], ["kafka.py", "status"]),
    *(
        ["s3.py", "status"],
        ["demo.py", "--stop"],
        ["sbom.py"],
        ["fuzz.py"],
        ["schemas.py", "check"],
        ["chaos.py"],
    ),
    *(["check.py"], ["test.py"], ["test_streaming_pipeline.py", "--mode", "produce"]),
]


@pytest.fixture
def checkout(tree):
    """A copy of the tree without `.venv`."""
    yield tree
    for path in (tree / ".venv", tree / "data"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("common", "tools", "scripts", "requirements"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("config.py", "processor.py", "uploader.py", "requirements.txt"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The base interpreter without whatever is installed beside it."""
    folder = tmp_path_factory.mktemp("bare")
    maker = [
        getattr(sys, "_base_executable", sys.executable),
        "-m",
        "venv",
        "--without-pip",
        str(folder),
    ]
    subprocess.run(maker, check=True)
    bare = folder / venv.PROJECT.python.relative_to(venv.PROJECT.folder)
    assert run(bare, folder, "-c", "import loguru").stderr.endswith("named 'loguru'\n")
    return bare


def run(python, folder, *arguments, **variables):
    needed = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    # No index: what would install the requirements says at once that it cannot.
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [str(python), *arguments],
        cwd=folder,
        env={**needed, **offline, **variables},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_answers_help(checkout, python, script):
    done = run(python, checkout, f"scripts/{script}", "--help", PYTHONIOENCODING="ascii")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {script}")
    assert len(done.stdout) > 300
    assert not (checkout / ".venv").exists()


def test_the_capacity_plan_needs_no_requirements(checkout, python):
    done = run(python, checkout, "scripts/capacity.py", "--songs-per-day", "10000")

    assert (done.returncode, done.stderr) == (0, "")
    assert "processors" in done.stdout
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_answers_help_and_version_and_says_what_it_needs(checkout, python, service):
    shown = run(python, checkout, f"{service}.py", "--help")
    version = run(python, checkout, f"{service}.py", "--version")
    started = run(python, checkout, f"{service}.py")

    assert (shown.returncode, shown.stdout.partition("[")[0]) == (0, f"usage: {service}.py ")
    assert (version.returncode, version.stdout) == (0, f"{service}.py {VERSION}\n")
    assert (started.returncode, started.stdout) == (2, "")
    assert "-m pip install --require-hashes -r requirements.txt" in started.stderr
    assert started.stderr.count("\n") == 1


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_does_not_start_with_an_argument_it_does_not_know(tmp_path, service):
    done = run(sys.executable, tmp_path, ROOT / f"{service}.py", "--port=1")

    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: {service}.py")
    assert "unrecognized arguments: --port=1" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_points_to_the_environment_that_is_there(checkout, python, service):
    made = checkout / ".venv" / python.relative_to(python.parents[1])
    made.parent.mkdir(parents=True)
    made.touch()

    done = run(python, checkout, f"{service}.py")

    assert done.returncode == 2
    assert f"Run: {made} {service}.py" in done.stderr


def test_a_command_makes_the_environment_that_it_needs(checkout, python):
    done = run(python, checkout, "scripts/separate.py", "song.wav")

    assert done.returncode == 1
    assert "creating the environment in" in done.stderr
    assert "The first installation needs the network" in done.stderr  # there is no index here
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("state", ["not executable", "dangling", "a file", "not ours", "no data"])
@pytest.mark.parametrize("command", COMMANDS[:1] + COMMANDS[8:9], ids=lambda words: words[0])
def test_an_environment_that_cannot_be_used_is_explained(checkout, python, command, state):
    made = checkout / ".venv" / python.relative_to(python.parents[1])
    if state == "a file":
        (checkout / ".venv").touch()
    else:
        made.parent.mkdir(parents=True)
        (checkout / ".venv" / "mine").touch()
    if state == "not executable":
        made.touch(mode=0o600)
    elif state == "dangling":
        made.symlink_to("gone")
    elif state == "no data":
        (checkout / "data").touch()

    done = run(python, checkout, f"scripts/{command[0]}", *command[1:])

    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert str(checkout / ".venv") in done.stderr
    assert "run this" in done.stderr
    assert (checkout / ".venv").is_file() or (checkout / ".venv" / "mine").exists()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_an_environment_that_lacks_a_package_is_explained(checkout, python, command):
    """Made by this project, and complete as far as it knows."""
    home = checkout / ".venv"
    standard_venv.create(home, symlinks=os.name != "nt")
    sha256 = venv.Environment(home, checkout / "requirements" / "dev.txt", checkout / "data")
    (home / "requirements.json").write_text(
        f'{{"requirements": "{sha256._requirements_sha256()}", '
        f'"python": "{venv._minor_version()}"}}'
    )

    done = run(python, checkout, f"scripts/{command[0]}", *command[1:])

    assert done.returncode == 1
    assert done.stderr.startswith(f"{home} is incomplete (No module named ")
    assert done.stderr.count("\n") == 1


def test_the_modules_that_are_looked_for_are_those_of_the_requirements():
    lines = (ROOT / "requirements" / "services.in").read_text().splitlines()
    names = {line.partition("#")[0].partition("=")[0].strip() for line in lines} - {""}
    distributions = packages_distributions()

    found = {distributions[module][0].lower().replace("_", "-") for module in venv.MODULES}
    assert found == names
    assert venv.missing() == []
    assert venv.missing(find=lambda _: None) == list(venv.MODULES)


def test_choices_that_scripts_offer_are_those_of_the_messages():
    separate = (ROOT / "scripts" / "separate.py").read_text(encoding="utf-8")

    assert get_args(Format) == options.FORMATS
    assert get_args(PriorityName) == options.PRIORITIES
    assert STEMS == options.STEMS
    assert options.TASK_UUID_PATTERN == TASK_UUID_PATTERN
    assert f"ENGINES = {get_args(EngineName)}".replace("'", '"') in separate
