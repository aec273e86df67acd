import ast
import base64
import hashlib
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.environment import LocalSetupFailed, venv

ROOT = venv.ROOT

#: A script like those in scripts/: it enters the environment, then imports a package from it.
SCRIPT = """\
import sys
from pathlib import Path

sys.path[0] = {root!r}
from tools.environment.venv import Environment, {entry}

{entry}(Environment(*map(Path, {places!r})))
try:
    from ladder import RUNGS
except ImportError:
    RUNGS = None
print(sys.prefix, RUNGS, sys.argv[1:])
sys.exit(7)
"""


def hash_in_record(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def build_wheel(folder: Path, version: str) -> str:
    """Write the wheel `ladder` into *folder* and return the line that requires it."""
    info = f"ladder-{version}.dist-info"
    files = {
        "ladder.py": f"RUNGS = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: ladder\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={hash_in_record(text.encode())},{len(text)}\n"
        for name, text in files.items()
    )
    folder.mkdir(exist_ok=True)
    file = folder / f"ladder-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(name, text)
    return f"ladder=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


class Checkout:
    """A miniature checkout: requirements, a script, and the folder of the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder / "wheels"
        self.venv = folder / ".venv"
        self.requirements = folder / "requirements.txt"
        self.environment = venv.Environment(self.venv, self.requirements, folder / "data")
        self.require("1.0")

    def require(self, version: str) -> None:
        self.requirements.write_text(build_wheel(self.wheels, version))

    def command(self, *arguments: str, entry: str = "ensure") -> list[str]:
        places = [str(self.venv), str(self.requirements), str(self.folder / "data")]
        script = self.folder / "script.py"
        script.write_text(SCRIPT.format(root=str(ROOT), entry=entry, places=places))
        return [sys.executable, str(script), *arguments]

    @property
    def variables(self) -> dict[str, str]:
        """The environment of an operator behind a firewall, with an empty home folder."""
        settings = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "HOME": str(self.folder / "home"),
        }
        return {**os.environ, **settings}

    def run(self, *arguments: str, entry: str = "ensure"):
        return subprocess.run(
            self.command(*arguments, entry=entry),
            env=self.variables,
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=120,
        )


@pytest.fixture
def checkout(tmp_path: Path):
    return Checkout(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """A checkout with its environment; its tests leave it complete."""
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    first = checkout.run()
    assert first.returncode == 7, first.stderr
    assert "ready" in first.stderr
    return checkout


def test_the_script_goes_on_inside_with_its_arguments_and_its_exit_code(made: Checkout):
    again = made.run("a song.mp3", "--model", "")

    assert again.stdout == f"{made.venv} 1.0 ['a song.mp3', '--model', '']\n"
    assert (again.returncode, again.stderr) == (7, "")


def test_a_current_environment_is_not_touched(made: Checkout):
    before = {path: path.stat().st_mtime_ns for path in made.venv.rglob("*.dist-info")}

    made.run()

    assert {path: path.stat().st_mtime_ns for path in made.venv.rglob("*.dist-info")} == before


def test_changed_requirements_are_brought_in(made: Checkout):
    made.require("1.1")

    changed = made.run()

    assert " 1.1 " in changed.stdout
    assert made.environment.current


def test_one_that_is_there_is_preferred_even_if_it_is_out_of_date(made: Checkout):
    before = made.requirements.read_text()
    made.requirements.write_text("changed==9.9\n")
    try:
        preferred = made.run(entry="prefer")
    finally:
        made.requirements.write_text(before)

    assert preferred.stdout.startswith(f"{made.venv} ")


def test_a_failed_install_shows_what_pip_said_and_is_made_up_for(made: Checkout):
    made.require("1.2")
    good = made.requirements.read_text()
    made.requirements.write_text(f"ladder==1.2 --hash=sha256:{'0' * 64}\n")

    failed = made.run()

    assert (failed.returncode, failed.stdout) == (1, "")
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in failed.stderr
    assert not made.environment.current

    made.requirements.write_text(good)
    assert " 1.2 " in made.run().stdout


def test_an_interrupted_one_is_made_anew(made: Checkout):
    (made.folder / "data" / "venv.unfinished").touch()
    leftover = made.venv / "half-a-package"
    leftover.touch()

    repaired = made.run()

    assert repaired.returncode == 7
    assert not leftover.exists()
    assert made.environment.current


def test_two_at_once_make_it_once(checkout: Checkout):
    processes = [
        subprocess.Popen(
            checkout.command(),
            env=checkout.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120) for process in processes]

    assert [process.returncode for process in processes] == [7, 7]
    assert "".join(errors for _, errors in answers).count("is ready") == 1


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_one_whose_maker_was_killed_is_made_anew_without_waiting(checkout: Checkout):
    with subprocess.Popen(
        checkout.command(),
        env=checkout.variables,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as maker:
        assert maker.stderr is not None
        assert "creating the environment" in maker.stderr.readline()
        os.killpg(maker.pid, signal.SIGKILL)

    assert not checkout.environment.current
    assert checkout.run().returncode == 7
    assert checkout.environment.current


def test_nothing_there_and_nothing_wanted_means_going_on_where_we_are(checkout: Checkout):
    stayed = checkout.run(entry="prefer")

    assert stayed.stdout.startswith(f"{sys.prefix} ")
    assert not checkout.venv.exists()


def test_an_old_python_is_told_so(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        venv.check_python((3, 9, 2))

    assert end.value.code == 2
    assert "needs Python 3.11 or later" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "environment/__init__.py",
        "environment/script.py",
        "environment/venv.py",
        "environment/lock.py",
        "environment/pip.py",
        "terminal/status_line.py",
        "topics/options.py",
    ],
)
def test_an_old_python_can_read_that_far(name: str):
    source = (ROOT / "tools" / name).read_text()

    tree = ast.parse(source, feature_version=(3, 8))

    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    top_level = {name.split(".")[0] for name in imported | modules}
    assert top_level <= sys.stdlib_module_names | {"tools"}


def test_a_python_without_venv_names_the_package_to_install():
    with pytest.raises(LocalSetupFailed, match=r"apt install python3\.\d+-venv"):
        venv._check_modules(find=lambda _: None)
