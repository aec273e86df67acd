from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from common.outages import Backoff
from common.separation import onnx_engine
from common.separation.child_process import ROOT
from common.separation.mdx import MdxSettings
from scripts import models
from tests.mirror import FILES, MODEL, NAME, NETS, SETTINGS, mirror_server, zoo
from tests.servers import free_port
from tools.model_zoo import commands
from tools.model_zoo import zoo as known_models

SCRIPT = [sys.executable, str(ROOT / "scripts" / "models.py")]
#: The script with the test's nets in place of UVR's models, whose weights are not ours to carry.
WITH_NETS = [
    sys.executable,
    "-c",
    "from scripts import models; from tests.mirror import zoo; exit(models.main(zoo=zoo()))",
]
OTHER = "Centre.onnx"
KNOWN = zoo()


@pytest.fixture
def server():
    with mirror_server() as server:
        yield server


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("UVR_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.delenv("UVR_MODEL_BASE_URL", raising=False)
    return tmp_path / "models"


def run(command, *arguments, **options):
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


@pytest.fixture
def start():
    processes = []

    def begin(*arguments):
        process = subprocess.Popen(
            [*WITH_NETS, *arguments], cwd=ROOT, stdout=-1, stderr=-1, text=True
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def call(capsys):
    """Run the script's main in this process; return its exit code, output and errors."""

    def run_here(*arguments, zoo=KNOWN):
        code = models.main(
            [str(argument) for argument in arguments], zoo=zoo, backoff=Backoff(first_seconds=0.0)
        )
        return code, *capsys.readouterr()

    return run_here


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        threading.Event().wait(0.01)


def size(path):
    return path.stat().st_size if path.exists() else 0


# list


def test_list_shows_the_known_models_offline_and_makes_no_folder(folder):
    done = run(SCRIPT, "list", env={**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9"})

    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"{name} " in done.stdout for name in known_models.load())
    assert str(folder) in done.stdout
    assert not folder.exists()


def test_list_as_json_says_what_is_not_known(call):
    rows = {
        row["model"]: row
        for row in map(json.loads, call("list", "--json", zoo=None)[1].splitlines())
    }

    assert rows.keys() == known_models.load().keys()
    assert rows["Kim_Vocal_2.onnx"] == {
        "model": "Kim_Vocal_2.onnx",
        "kind": "vocals",
        "bytes": 66759214,
        "sha256": "ce74ef3b6a6024ce44211a07be9cf8bc6d87728cc852a68ab34eb8e58cde9c8b",
        "tail_md5": "970b3f9492014d18fefeedfe4773cb42",
        "in_folder": "no",
    }
    assert rows["kuielab_a_vocals.onnx"]["sha256"] is None


def test_list_shows_what_is_in_the_folder_your_own_too(call, folder):
    folder.mkdir()
    (folder / NAME).write_bytes(MODEL)
    (folder / f"{OTHER}.part").write_bytes(b"x")
    (folder / "mine.onnx").write_bytes(b"x")

    lines = [line.split() for line in call("list")[1].splitlines()]

    assert ["Half.onnx", "vocals", "0.3", "SHA-256", "yes"] in lines
    assert ["Centre.onnx", "vocals", "0.3", "SHA-256", "part"] in lines
    assert ["mine.onnx", "(your", "own)", "0.0", "-", "yes"] in lines


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_list_shows_names_that_a_terminal_cannot(folder):
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.onnx")).write_bytes(b"x")

    done = run(WITH_NETS, "list", env={**os.environ, "PYTHONIOENCODING": "ascii"})

    assert (done.returncode, done.stderr) == (0, "")
    assert r"\udcff.onnx" in done.stdout


def test_a_reader_who_has_seen_enough_hears_no_complaint(start):
    process = start("list")
    process.stdout.close()

    assert process.stderr.read() == ""


# download


def test_a_downloaded_model_works_offline(server, folder, call):
    env = {**os.environ, "UVR_MODEL_BASE_URL": f"{server.url}/cut/1"}

    done = run(WITH_NETS, "download", NAME.removesuffix(".onnx"), OTHER, env=env)

    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [f"{NAME}: downloaded, checked by SHA-256", f"{OTHER}: downloaded, checked by SHA-256"],
    )
    assert "retrying (1)" in done.stderr
    assert names(folder) == sorted([NAME, OTHER, f"{NAME}.json", f"{OTHER}.json"])
    for file in FILES:
        assert onnx_engine.load(folder / file, "cpu", threads=1).model == file
    assert call("verify")[0] == 0


def test_a_model_that_is_there_is_not_asked_for(server, call):
    call("download", NAME, "--base-url", f"{server.url}/range")

    code, output, _ = call("download", NAME, "--base-url", f"{server.url}/range")

    assert (code, output) == (0, f"{NAME}: already downloaded, checked by SHA-256\n")
    assert len(server.seen) == 1


def test_a_model_that_fails_does_not_stop_the_next(server, folder, call):
    names_of_two = ("Kim_Inst", "Kim_Vocal_1.onnx")
    code, _, errors = call("download", *names_of_two, "--base-url", f"{server.url}/range", zoo=None)

    assert code == 1
    assert [path for path, _ in server.seen] == ["/range/Kim_Inst.onnx", "/range/Kim_Vocal_1.onnx"]
    assert errors.count("the mirror does not have it (404)") == 2
    assert names(folder) == []


def test_wrong_bytes_get_no_name(server, call, folder):
    code, _, errors = call("download", NAME, "--base-url", f"{server.url}/wrong")

    assert code == 1
    assert "another file under this name: its SHA-256 is" in errors
    assert names(folder) == []


def test_a_mirror_that_cannot_be_reached_ends_in_3_and_its_password_stays_unsaid(call):
    code, _, errors = call(
        "download", NAME, OTHER, "--base-url", f"http://me:secret@127.0.0.1:{free_port()}/x"
    )

    assert code == 3
    assert "127.0.0.1" in errors
    assert errors.count("retrying") == 4
    assert OTHER not in errors
    assert "secret" not in errors


def test_a_killed_download_goes_on_where_it_was(server, folder, start, call):
    process = start("download", NAME, "--base-url", f"{server.url}/hold")
    part = folder / f"{NAME}.part"
    until(lambda: size(part) > len(MODEL) // 4)
    process.kill()
    process.wait()
    assert names(folder) == [part.name]
    left = size(part)

    assert call("download", NAME, "--base-url", f"{server.url}/range")[0] == 0

    assert server.ranges == [None, f"bytes={left}-"]
    assert (folder / NAME).read_bytes() == MODEL
    assert names(folder) == [NAME, f"{NAME}.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_an_interrupted_download_says_that_it_can_go_on(server, folder, start):
    process = start("download", NAME, "--base-url", f"{server.url}/hold")
    until(lambda: size(folder / f"{NAME}.part") >= len(MODEL) // 2)
    process.send_signal(signal.SIGINT)

    assert process.wait(20) == 1
    assert process.stderr.read().splitlines()[-1].startswith("Interrupted")
    assert size(folder / f"{NAME}.part") >= len(MODEL) // 2


def test_two_downloads_at_once_make_one(server, folder, start):
    first = start("download", NAME, "--base-url", f"{server.url}/hold")
    until(lambda: size(folder / f"{NAME}.part") > 0)
    second = start("download", NAME, "--base-url", f"{server.url}/hold")
    assert "waiting for another process" in second.stderr.readline()
    server.released.set()

    assert first.communicate(timeout=30)[0].endswith("downloaded, checked by SHA-256\n")
    assert second.communicate(timeout=30)[0].endswith("already downloaded, checked by SHA-256\n")
    assert len(server.seen) == 1
    assert (folder / NAME).read_bytes() == MODEL


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110 -- as short as it gets
def test_a_full_disk_is_named(server, call, folder):
    folder.mkdir()
    (folder / f"{NAME}.part").symlink_to("/dev/full")

    code, _, errors = call("download", NAME, "--base-url", f"{server.url}/range")

    assert code == 1
    assert f"The disk of {folder} is full" in errors


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_file_that_may_not_grow_goes_on_where_it_may(server, folder, call):
    import resource

    limit = (100_000, resource.RLIM_INFINITY)
    arguments = ("download", NAME, "--base-url", f"{server.url}/range")
    limited = run(
        WITH_NETS, *arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )
    assert limited.returncode == 1
    assert f"{folder}: File too large" in limited.stderr

    assert call(*arguments)[0] == 0
    assert server.ranges == [None, "bytes=100000-"]
    assert (folder / NAME).read_bytes() == MODEL


# verify


def test_verify_finds_a_flipped_byte(server, call, folder):
    call("download", NAME, OTHER, "--base-url", f"{server.url}/range")
    damaged = bytearray(MODEL)
    damaged[1000] ^= 1
    (folder / NAME).write_bytes(damaged)

    code, output, _ = call("verify")

    assert code == 1
    assert f"{NAME}: BAD: its SHA-256 is" in output
    assert f"{OTHER}: ok: SHA-256 matches" in output
    assert call("verify", OTHER)[0] == 0
    rows = [json.loads(line) for line in call("verify", "--json")[1].splitlines()]
    assert [(row["model"], row["ok"], row["known_as"]) for row in rows] == [
        (OTHER, True, OTHER),
        (NAME, False, NAME),
    ]


def test_verify_has_nothing_to_say_of_an_empty_folder(call, folder):
    assert call("verify") == (0, f"There is no model in {folder}.\n", "")
    assert call("verify", "--json") == (0, "", "")


# add


def own(tmp_path, name="mine.onnx", **settings):
    """Return a model file that is not known, with its settings beside it."""
    source = tmp_path / name
    shutil.copyfile(NETS / "half_2048.onnx", source)
    if settings:
        (tmp_path / f"{name}.json").write_text(json.dumps(settings))
    return source


def test_add_takes_in_a_model_with_its_settings(folder, tmp_path, call):
    source = own(tmp_path, **{**SETTINGS, "compensate": 1.25})

    done = run(SCRIPT, "add", source)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{folder / 'mine.onnx'}: added, a model of your own\n"
    assert names(folder) == ["mine.onnx", "mine.onnx.json"]
    assert json.loads((folder / "mine.onnx.json").read_bytes())["compensate"] == 1.25
    assert "mine.onnx: ok: unknown" in call("verify", "mine")[1]


def test_add_finds_settings_in_a_registry_and_knows_a_known_model_by_its_hash(
    call, folder, tmp_path
):
    by_registry = own(tmp_path)
    fingerprint = known_models.Fingerprint.of(by_registry)
    (tmp_path / "mdx_model_data.json").write_text(json.dumps({fingerprint.tail_md5: SETTINGS}))
    by_hash = tmp_path / "renamed.onnx"
    by_hash.write_bytes(MODEL)

    assert call("add", by_registry)[0] == 0
    assert call("add", by_hash) == (0, f"{folder / 'renamed.onnx'}: added, it is {NAME}\n", "")
    assert f"renamed.onnx: ok: is {NAME}; SHA-256 matches" in call("verify")[1]


def test_add_takes_the_settings_that_the_folder_has(call, folder, tmp_path):
    folder.mkdir()
    source = own(folder, **SETTINGS)

    assert call("add", source)[0] == 0
    assert call("add", own(tmp_path))[0] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the settings of this model are unknown"),
        ({**SETTINGS, "mdx_dim_f_set": 3072}, "takes the shape"),
        ({**SETTINGS, "primary_stem": "Drums"}, "primary_stem"),
        ({"compensate": 1.0}, "mdx_dim_f_set: Field required"),
    ],
)
def test_add_refuses_what_would_not_run(call, folder, tmp_path, settings, message):
    code, _, errors = call("add", own(tmp_path, **settings))

    assert code == 1
    assert message in errors
    assert names(folder) == []


def test_add_gives_no_name_to_a_second_model(call, folder, tmp_path):
    assert call("add", own(tmp_path, **SETTINGS))[0] == 0
    (tmp_path / "mine.onnx").write_bytes(MODEL)
    code, _, errors = call("add", tmp_path / "mine.onnx")
    assert code == 1
    assert "is another model" in errors

    code, _, errors = call("add", own(tmp_path, NAME, **SETTINGS))
    assert code == 1
    assert "UVR has another model of this name" in errors
    assert (folder / "mine.onnx").read_bytes() != MODEL


# wrong usage


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "list|download|add|verify"),
        (["download"], 2, "NAME"),
        (["download", "../Half"], 2, "'../Half' is not a known model"),
        (["download", NAME, "--base-url", "ftp://x"], 2, "must be an http:// or https:// URL"),
        (["download", NAME, "--base-url", "http://[x"], 2, "must be an http:// or https:// URL"),
        (["verify", "../outside"], 1, "no model '../outside.onnx'"),
        (["verify", "missing"], 1, "no model 'missing.onnx'"),
        (["add", "missing.onnx"], 1, "missing.onnx: No such file"),
        (["add", "a model.onnx"], 2, "rename it"),
        (["add", ".onnx"], 2, "rename it"),
        (["add", ".."], 2, "rename it"),
    ],
)
def test_wrong_usage_is_named(call, folder, capsys, arguments, code, message):
    folder.mkdir()
    known_models.write_sidecar(folder.parent / "outside.onnx", MdxSettings.model_validate(SETTINGS))
    (folder.parent / "outside.onnx").write_bytes(MODEL)
    try:
        found = call(*arguments)
    except SystemExit as error:
        found = error.code, *capsys.readouterr()

    assert found[0] == code
    assert message in found[2]
    assert names(folder) == []


def test_a_folder_that_is_a_file_is_named(server, call, folder):
    folder.write_text("no folder")

    code, _, errors = call("download", NAME, "--base-url", f"{server.url}/range")

    assert code == 1
    assert errors.startswith(f"{folder}: ")


def test_help_opens_with_the_command_line_and_names_every_exit_code():
    done = run(SCRIPT, "--help")

    assert "python scripts/models.py list|download NAME" in done.stdout
    codes = done.stdout.partition("Exit codes:")[2].split()
    assert {"0", "1", "2", "3"} <= set(codes)


def test_the_documentation_shows_settings_that_the_engine_takes():
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    example = page.partition("```json\n")[2].partition("```")[0]

    assert json.loads(example).keys() == SETTINGS.keys()
    MdxSettings.model_validate_json(example)
    assert commands.BASE_URL_SETTING in page
