"""What the separation child cannot do, seen from outside in /proc and tried from within by a child
of the same kind.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from common.separation import limits
from common.separation.child import Separator
from common.separation.child_process import ROOT
from tests import sounds
from tests.separators import make_settings, separate

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="Linux alone has such means, and /proc to look at them"
)

#: Begins a Python that is in the sandbox of the real child, with *folder* to write into; it runs
#: what follows.
CONFINED = """
import sys
from pathlib import Path
from common.separation import sandbox
reads = (*sandbox.python_folders(), Path("common").resolve())
calls = sandbox.Calls(sys.argv[2])
reach = sandbox.Reach(reads, (Path(sys.argv[1]),), lists=(Path.cwd(),), calls=calls)
left_open = sandbox.enter(reach)
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A home with a credential in it, beside the only folder that the child may use."""
    home = tmp_path_factory.mktemp("home")
    (home / "credentials").write_text("aws_secret_access_key = canary")
    (home / "work").mkdir()
    return home


@pytest.fixture(scope="module")
def confined(places):
    """A separator that may open files in `work` and nowhere else of anybody's."""
    separator = Separator(make_settings(writes=(places / "work",)))
    separator.start()
    yield separator
    separator.close()


def attempt(code, folder, calls="song"):
    """Run *code* in the sandbox of *calls*; return the error that ends it, or its output."""
    tried = f"try:\n    {code}\nexcept OSError as e: print(type(e).__name__)"
    program = f"{CONFINED}\nassert left_open == [], left_open\n{tried}"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), calls],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_every_thread_of_the_child_has_given_up_privileges_and_is_filtered(confined):
    tasks = list(Path(f"/proc/{confined.pid}/task").iterdir())
    states = [
        dict(line.split(":\t") for line in (task / "status").read_text().splitlines())
        for task in tasks
    ]

    assert len(states) > 1
    assert {(state["NoNewPrivs"], state["Seccomp"]) for state in states} == {("1", "2")}
    # Of root's capabilities those of files alone, if it has them at all.
    assert {int(state["CapEff"], 16) & ~0b110 for state in states} == {0}


def test_the_child_is_limited_for_good(confined):
    child = psutil.Process(confined.pid)
    stem_bytes = (1 << 28) + 60 * 384_000 * 2 * 8

    assert child.rlimit(resource.RLIMIT_CORE) == (0, 0)
    assert child.rlimit(resource.RLIMIT_NOFILE) == (512, 512)
    assert child.rlimit(resource.RLIMIT_FSIZE) == (stem_bytes, stem_bytes)


def test_a_song_gets_time_to_compute_and_cannot_give_itself_more(confined, places):
    source = sounds.write_wav(places / "work" / "song.wav", sounds.song(1), 16)
    granted: list[tuple[int, int]] = []

    def look(_percent):
        for song in psutil.Process(confined.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                granted.append(song.rlimit(resource.RLIMIT_CPU))

    for _ in range(3):
        separate(confined, source, places / "work", progress=look)

    # While it reads headers it gets less, and never more than at the beginning.
    soft, hard = max(granted)
    cores = os.cpu_count() or 1
    assert 300 * cores <= hard <= 300 * cores + 10
    assert soft == hard


def test_what_computes_for_longer_than_it_may_is_killed():
    program = "from common.separation import limits; limits.allow_cpu(0.01)\nwhile True: pass"

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60)

    assert -done.returncode == signal.SIGXCPU


def test_the_child_works_in_a_folder_of_its_own_that_goes_with_it(places):
    separator = Separator(make_settings(writes=(places / "work",)))
    separator.start()
    folder = Path(f"/proc/{separator.pid}/cwd").readlink()

    assert folder.name.startswith("uvr-separation-")
    separator.close()
    assert not folder.exists()


def test_the_folder_of_a_killed_child_goes_too(places):
    separator = Separator(make_settings(writes=(places / "work",)))
    separator.start()
    folder = Path(f"/proc/{separator.pid}/cwd").readlink()
    psutil.Process(separator.pid).kill()

    separate(
        separator,
        sounds.write_wav(places / "work" / "song.wav", sounds.song(1), 16),
        places / "work",
    )
    separator.close()

    assert not folder.exists()


def test_a_work_folder_that_is_made_anew_is_open_to_the_next_song(confined, places):
    work = places / "work"
    for path in work.iterdir():
        path.unlink()
    work.rename(places / "old")
    work.mkdir()

    assert (
        separate(
            confined, sounds.write_wav(work / "song.wav", sounds.song(1), 16), work
        ).residual_db
        == -200
    )


@pytest.mark.parametrize(
    "path",
    [
        "{home}/credentials",
        "{home}/work/../credentials",
        "/etc/shadow",
        "/proc/{parent}/environ",
        "/proc/{parent}/mem",
    ],
)
def test_files_of_others_cannot_be_read(places, path):
    path = path.format(home=places, parent=os.getpid())

    assert attempt(f"open({path!r}, 'rb').read(9)", places / "work") == "PermissionError"


def test_the_repository_and_its_settings_cannot_be_read(places):
    assert attempt(f"open({str(ROOT / 'README.md')!r})", places / "work") == "PermissionError"


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("import os; os.symlink('/etc/passwd', sys.argv[1] + '/vocals.wav')", "PermissionError"),
        (
            "import os; os.link(sys.argv[1] + '/../credentials', sys.argv[1] + '/vocals.wav')",
            "PermissionError",
        ),
        ("import os; os.mkfifo(sys.argv[1] + '/vocals.wav')", "PermissionError"),
        ("open(sys.argv[1] + '/../planted', 'w')", "PermissionError"),
        ("import os; os.rename(sys.argv[1], sys.argv[1] + '2')", "PermissionError"),
        ("open(sys.argv[1] + '/vocals.wav', 'w').close(); print('written')", "written"),
    ],
)
def test_stems_can_be_written_and_nothing_that_leads_elsewhere(tmp_path, code, answer):
    work = tmp_path / "home" / "work"
    work.mkdir(parents=True)
    (work.parent / "credentials").touch()

    assert attempt(code, work) == answer


@pytest.mark.parametrize(
    "family",
    [
        "AF_INET, socket.SOCK_STREAM",
        "AF_INET6, socket.SOCK_DGRAM",
        "AF_UNIX, socket.SOCK_STREAM",
        "AF_NETLINK, 3",
    ],
)
def test_there_are_no_sockets(places, family):
    assert (
        attempt(f"import socket; socket.socket(socket.{family})", places / "work")
        == "PermissionError"
    )


def test_a_listener_on_this_machine_cannot_be_reached(places):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = ("127.0.0.1", listener.getsockname()[1])
        code = f"import socket; socket.create_connection({address}, 5)"

        assert attempt(code, places / "work") == "PermissionError"


#: Begins a Python whose calls are limited as a song's are, without Landlock; it runs what follows.
FILTERED = """
import ctypes, os, platform, resource, socket, sys
from common.separation import sandbox
x86 = platform.machine() == "x86_64"
sandbox._call("prctl", sandbox._PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
sandbox._limit_calls(sandbox.syscalls.program(sandbox.Calls(sys.argv[1])))
def outcome(attempt):
    try:
        return "done" if (attempt() or 0) >= 0 else "refused"
    except OSError as error:
        return type(error).__name__
"""


def filtered(calls, *attempts):
    """Return what comes of each of *attempts*, expressions, where *calls* may be made."""
    program = FILTERED + "".join(f"\nprint(outcome(lambda: {attempt}))" for attempt in attempts)
    command = [sys.executable, "-c", program, calls]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_sockets_of_the_machine_are_left_where_cuda_needs_them():
    internet, local = "socket.socket().close()", "socket.socket(socket.AF_UNIX).close()"

    assert filtered("cuda", internet, local) == ["PermissionError", "done"]


def test_with_cuda_no_limit_of_another_process_is_set_and_no_namespace_made():
    limit = "(4096, 4096)"
    new_user = "ctypes.CDLL(None).syscall(56 if x86 else 220, 0x10000000 | 17, 0, 0, 0, 0)"

    outcomes = filtered(
        "cuda",
        f"resource.prlimit({os.getpid()}, resource.RLIMIT_CORE) and None",
        f"resource.setrlimit(resource.RLIMIT_NOFILE, {limit})",
        new_user,
        "os.waitpid(os.fork() or os._exit(0), 0) and None",
    )

    assert outcomes == ["PermissionError", "done", "refused", "done"]


@pytest.mark.parametrize("calls", ["song", "song with processes", "cuda"])
def test_a_file_that_may_only_be_read_is_not_emptied_where_landlock_does_not_see_it(
    tmp_path, calls
):
    file = tmp_path / "file"
    file.write_text("content")

    reading, neither, writing = (
        f"os.close(os.open({str(file)!r}, os.O_TRUNC | {mode}))"
        for mode in ("os.O_RDONLY", "os.O_WRONLY | os.O_RDWR", "os.O_WRONLY")
    )

    assert filtered(calls, reading, neither) == ["PermissionError", "PermissionError"]
    assert file.read_text() == "content"
    assert filtered(calls, writing, f"open({str(file)!r}, 'rb').close()") == ["done", "done"]


@pytest.mark.parametrize(
    "call",
    [
        f"os.kill({os.getpid()}, 0)",
        "libc_call(101 if __import__('platform').machine() == 'x86_64' else 117, 16)",
    ],
    ids=["a signal", "ptrace"],
)
def test_other_processes_are_out_of_reach(places, call):
    code = f"""import os
    def libc_call(*numbers): sandbox._syscall(numbers[0], numbers[1], {os.getpid()}, 0, 0)
    {call}"""

    assert attempt(code, places / "work") == "PermissionError"


def test_what_the_child_starts_is_confined_as_well(places):
    code = (
        "import subprocess; subprocess.run([sys.executable, '-c', "
        "'import socket\\ntry: socket.socket()\\n"
        "except OSError as e: print(type(e).__name__)'], check=True)"
    )

    assert attempt(code, places / "work", "song with processes") == "PermissionError"


def test_a_process_that_hides_cannot_be_looked_into_by_others_of_the_same_user():
    program = """
from pathlib import Path
from common.separation import sandbox
sandbox.hide()
import ctypes
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
print(Path("/proc/self/environ").stat().st_uid, dumpable)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == [
        "0",
        "0",
    ]  # root owns what others of the user could read, and it is not dumpable


def test_memory_that_is_given_for_a_while_is_a_limit_for_that_while():
    before = resource.getrlimit(resource.RLIMIT_DATA)

    with limits.more_memory(1 << 30), pytest.raises(MemoryError):
        bytearray(2 << 30)

    assert len(bytearray(2 << 30)) == 2 << 30
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
