"""The engine audio-separator: the real library in its own environment, on small nets with random
weights.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest

from common.errors import EngineCrashed, ModelInvalid, OutOfMemory, SeparationFailed
from common.separation.audio_separator import INSTALL, PYTHON, AudioSeparatorEngine, installed
from common.separation.child import Separator
from common.separation.child_process import ROOT
from common.separation.engines import Engines
from tests import sounds
from tests.separation.conftest import make_settings

needs_audio_separator = pytest.mark.skipif(
    not installed(), reason=f"needs .venv-audio-separator: {INSTALL}"
)
posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")

NETS = ["bs_roformer.ckpt", "mel_band_roformer.ckpt", "mdx23c.ckpt", "vr.pth", "tiny_demucs.yaml"]


# -- without it


def errors_of_a_checkout_without_it(folder, *calls):
    """Return what each of *calls* on Engines raises in a copy of the code that has no environment
    beside it.
    """
    shutil.copytree(
        ROOT / "common", folder / "common", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "net.ckpt").touch()
    (folder / "net.onnx").touch()
    program = """
import sys
from pathlib import Path
from common.errors import UvrError
from common.separation.engines import Engines
from common.separation.protocol import SeparationSettings as Settings
common = dict(
    engine="auto", model="", model_dir=Path("."), device="auto", threads=1,
    max_audio_seconds=60, timeout_seconds=60, memory_bytes=0,
)
for call in sys.argv[1:]:
    try:
        eval(call)
    except UvrError as error:
        print(f"{type(error).__name__}: {error}")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *calls], cwd=folder, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()


def test_where_it_is_not_installed_its_setting_and_its_models_say_what_to_run(tmp_path):
    setting, model = errors_of_a_checkout_without_it(
        tmp_path,
        "Engines(Settings(**common | dict(engine='audio-separator', model='net.ckpt'))).warm_up()",
        "Engines(Settings(**common)).of('net.ckpt')",
    )

    assert (
        setting
        == f"SettingsInvalid: UVR_ENGINE=audio-separator is not installed here; run {INSTALL}."
    )
    assert (
        model
        == f"ModelInvalid: 'net.ckpt' needs audio-separator, which is not installed: {INSTALL}."
    )


@pytest.mark.parametrize(
    ("engine", "file"), [("audio-separator", "a.onnx"), ("mdx", "a.ckpt"), ("auto", "a.th")]
)
def test_an_engine_refuses_the_files_of_another(tmp_path, engine, file):
    (tmp_path / file).touch()

    with pytest.raises(
        ModelInvalid,
        match=f"{engine}: mdx takes .onnx; spleeter takes .onnx; audio-separator takes .ckpt",
    ):
        Engines(make_settings(engine=engine, model_dir=tmp_path, threads=1)).of(file)


# -- with it


@pytest.fixture(scope="session")
def nets(tmp_path_factory):
    """A model folder with a small net of every kind."""
    folder = tmp_path_factory.mktemp("uvr-nets")
    command = [str(PYTHON), "-W", "ignore", "-m", "tests.separation.make_uvr_nets", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def uvr_separator(nets):
    """One warm separator for every test that leaves it alive."""
    separator = Separator(make_settings(model=NETS[0], model_dir=nets))
    separator.start()
    yield separator
    separator.close()


@pytest.fixture
def own_separator(nets):
    """A factory of separators that a test may mistreat."""
    made: list[Separator] = []

    def make(**changes):
        separator = Separator(
            make_settings(**{"model": "mdx23c.ckpt", "model_dir": nets, **changes})
        )
        made.append(separator)
        separator.start()
        return separator

    yield make
    for separator in made:
        separator.close()


@pytest.fixture
def engine(nets):
    return lambda name: AudioSeparatorEngine(nets / name, "auto", 2)


def vocals_of(engine, mixture):
    return np.concatenate(list(engine.vocals(iter([mixture.astype(np.float32)]), 44100)), axis=1)


def library_processes(separator):
    """The processes of the library, of which each song has its own."""
    found = []
    for process in psutil.Process(separator.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "common.separation.audio_separator_main" in process.cmdline():
                found.append(process)
    return found


def once_at_work(separator, action):
    """Return a progress callback that calls *action* with the library's process, once."""
    done: list[psutil.Process] = []

    def progress(_percent):
        if not done:
            wait_until(lambda: library_processes(separator))
            done.extend(library_processes(separator))
            action(*done)

    return progress


def gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_until(condition, seconds=30.0):
    stop = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        stop.wait(0.02)
    raise AssertionError("it never came to that")


def stems_of(folder):
    return [sounds.read_wav(folder / f"{name}.wav") for name in ("vocals", "instrumental")]


@needs_audio_separator
@pytest.mark.parametrize("net", NETS)
def test_stems_of_every_kind_of_model_are_faithful(uvr_separator, separate, tmp_path, net):
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(3), 16)

    receipt = separate(source, with_separator=uvr_separator, model=net)

    mixture = sounds.read_wav(source)[1]
    (_, vocals), (_, instrumental) = stems_of(tmp_path)
    assert vocals.shape == instrumental.shape == mixture.shape
    assert sounds.db(np.abs((vocals + instrumental) / receipt.gain - mixture).max()) < -80
    assert vocals.any()
    assert (receipt.engine, receipt.model, receipt.source.frames) == (
        "audio-separator",
        net,
        3 * 44100,
    )


@needs_audio_separator
@pytest.mark.parametrize(
    ("sample_rate", "channels", "bits"), [(48000, 2, 24), (22050, 1, 16), (96000, 2, 0)]
)
def test_stems_of_every_kind_of_source_are_faithful(
    uvr_separator, separate, tmp_path, sample_rate, channels, bits
):
    song = sounds.song(2.5, sample_rate=sample_rate, channels=channels)
    source = sounds.write_wav(tmp_path / "song.wav", song, bits, sample_rate)

    receipt = separate(source, with_separator=uvr_separator, model="mdx23c.ckpt")

    mixture = sounds.read_wav(source)[1]
    stems = stems_of(tmp_path)
    assert {rate for rate, _ in stems} == {sample_rate}
    assert {samples.shape for _, samples in stems} == {mixture.shape}
    assert sounds.db(np.abs((stems[0][1] + stems[1][1]) / receipt.gain - mixture).max()) < -80


@needs_audio_separator
@pytest.mark.parametrize("net", NETS)
def test_loudness_does_not_decide(uvr_separator, separate, tmp_path, net):
    vocals = []
    for peak in (0.8, 0.08):
        source = sounds.write_wav(tmp_path / "song.wav", sounds.song(2, peak=peak), 0)
        separate(source, with_separator=uvr_separator, model=net)
        vocals.append(stems_of(tmp_path)[0][1] / peak)

    assert sounds.rms(vocals[0] - vocals[1]) < 1e-4 * sounds.rms(vocals[0])


@needs_audio_separator
def test_what_a_model_gives_in_the_band_is_missing_in_the_vocals(engine):
    mixture = sounds.song(2, peak=1.0)

    voice = vocals_of(engine("mdx23c_vocals.ckpt"), mixture)
    rest = vocals_of(engine("mdx23c_band.ckpt"), mixture)

    assert np.abs(voice + rest - mixture).max() < 1e-6


@needs_audio_separator
def test_vr_stays_in_time_to_the_last_frame(engine):
    mixture = sounds.song(5, peak=1.0)

    vocals = vocals_of(engine("vr.pth"), mixture)

    # Its untrained mask lets about half of everything through.
    assert sounds.correlation(vocals, mixture) > 0.9
    assert sounds.correlation(vocals[:, -2000:], mixture[:, -2000:]) > 0.9


@needs_audio_separator
def test_a_song_of_several_windows_has_no_seam(engine):
    mixture = np.tile(sounds.song(5, peak=1.0), 51)[:, : 252 * 44100]
    vr = engine("vr.pth")

    vocals = vocals_of(vr, mixture)

    assert vocals.shape == mixture.shape
    seam = slice(225 * 44100, 252 * 44100)
    assert sounds.correlation(vocals[:, seam], mixture[:, seam]) > 0.9


@needs_audio_separator
@pytest.mark.parametrize("frames", [1, 1000, 44100])
def test_any_length_comes_out_as_long_as_it_went_in(uvr_separator, separate, tmp_path, frames):
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(1)[:, :frames] + 0.01, 16)

    assert separate(source, with_separator=uvr_separator, model="vr.pth").source.frames == frames


@needs_audio_separator
@pytest.mark.parametrize("net", ["bs_roformer.ckpt", "vr.pth", "tiny_demucs.yaml"])
def test_silence_stays_silent(engine, net):
    assert not vocals_of(engine(net), np.zeros((2, 44100))).any()


@needs_audio_separator
@pytest.mark.parametrize(
    ("net", "change", "message"),
    [
        ("dry_bs_roformer.ckpt", None, "neither vocals nor instrumental"),
        (
            "bs_roformer.ckpt",
            lambda folder: (folder / "bs_roformer.yaml").unlink(),
            r"bs_roformer\.yaml",
        ),
        (
            "bs_roformer.ckpt",
            lambda folder: (folder / "bs_roformer.ckpt").write_bytes(b"PK"),
            "cannot be loaded",
        ),
        (
            "bs_roformer.ckpt",
            lambda folder: (folder / "bs_roformer.yaml").write_text("model: 1"),
            "cannot be loaded",
        ),
        (
            "mdx23c.ckpt",
            lambda folder: shutil.copy(folder / "vr.pth", folder / "mdx23c.ckpt"),
            "cannot be loaded",
        ),
        (
            "vr.pth",
            lambda folder: (folder / "vr.pth.json").unlink(),
            r"vr_model_data\.json.*vr\.pth\.json",
        ),
        ("vr.pth", lambda folder: (folder / "vr.pth").write_bytes(b""), "cannot be loaded"),
        ("tiny_demucs.yaml", lambda folder: (folder / "0123abcd.th").unlink(), "cannot be loaded"),
        ("bs_roformer.yaml", None, "cannot be loaded"),
    ],
    ids=[
        "other stems",
        "no settings",
        "broken",
        "bad settings",
        "another net",
        "unknown",
        "empty",
        "no weights",
        "not demucs",
    ],
)
def test_a_model_that_cannot_be_used_is_invalid_and_nothing_is_downloaded(
    nets, tmp_path, net, change, message
):
    folder = shutil.copytree(nets, tmp_path / "models")
    if change:
        change(folder)
    before = sorted(folder.iterdir())

    with pytest.raises(ModelInvalid, match=message) as caught:
        AudioSeparatorEngine(folder / net, "cpu", 1)

    assert net in caught.value.message
    assert str(folder) not in caught.value.message
    assert sorted(folder.iterdir()) == before


@needs_audio_separator
def test_settings_are_found_by_the_librarys_list_too(nets, tmp_path):
    shutil.copy(nets / "mel_band_roformer.ckpt", tmp_path / "MelBandRoformer.ckpt")
    shutil.copy(nets / "mel_band_roformer.yaml", tmp_path / "own.yaml")
    (tmp_path / "download_checks.json").write_text(
        '{"roformer_download_list": {"Roformer Model: mine": {"MelBandRoformer.ckpt": "own.yaml"}}}'
    )

    assert AudioSeparatorEngine(tmp_path / "MelBandRoformer.ckpt", "cpu", 1).device == "cpu"


@needs_audio_separator
def test_the_network_is_out_of_reach():
    program = """
import socket, sys
from common.separation import audio_separator_main
sys.addaudithook(audio_separator_main._stay_inside)
socket.create_connection(("127.0.0.1", 9))
"""

    done = subprocess.run([str(PYTHON), "-c", program], cwd=ROOT, capture_output=True, text=True)

    assert "PermissionError: audio-separator tried to use the network" in done.stderr


@needs_audio_separator
@posix_only
@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGSEGV, EngineCrashed), (signal.SIGKILL, OutOfMemory)]
)
def test_a_library_that_dies_fails_the_song_and_the_next_one_is_separated(
    own_separator, separate, tmp_path, number, error
):
    separator = own_separator()
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(20), 16)

    with pytest.raises(error, match=number.name):
        separate(
            source,
            with_separator=separator,
            progress=once_at_work(separator, lambda process: process.send_signal(number)),
        )

    assert library_processes(separator) == []
    assert separate(source, with_separator=separator).residual_db < -80


@needs_audio_separator
def test_a_library_that_died_between_songs_is_replaced_without_a_failure(engine):
    others = psutil.Process().children()
    mdx23c = engine("mdx23c.ckpt")
    (process,) = (child for child in psutil.Process().children() if child not in others)
    process.kill()
    process.wait()

    assert vocals_of(mdx23c, sounds.song(1)).shape == (2, 44100)


@needs_audio_separator
@posix_only
def test_stop_signals_do_not_stop_a_separation(own_separator, separate, tmp_path):
    separator = own_separator()
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(1), 16)

    def stop(process):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)

    progress = once_at_work(separator, stop)

    assert separate(source, with_separator=separator, progress=progress).residual_db < -80


@needs_audio_separator
def test_the_library_goes_when_the_child_is_killed(own_separator, separate, tmp_path):
    separator = own_separator()
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(20), 16)
    libraries = []

    def kill(process):
        libraries.append(process)
        psutil.Process(separator.pid).kill()

    with pytest.raises(OutOfMemory, match="SIGKILL"):
        separate(source, with_separator=separator, progress=once_at_work(separator, kill))

    wait_until(lambda: gone(libraries[0]))


@needs_audio_separator
def test_each_song_has_its_own_library_process_and_another_model_if_it_names_one(
    own_separator, separate, tmp_path
):
    separator = own_separator()
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(1), 16)
    pids = []
    for model in ("mdx23c.ckpt", "bs_roformer.ckpt"):
        at_work = once_at_work(separator, lambda process: pids.append(process.pid))
        receipt = separate(source, with_separator=separator, model=model, progress=at_work)
        assert receipt.model == model
        assert library_processes(separator) == []

    assert len(set(pids)) == 2


@needs_audio_separator
def test_the_librarys_memory_counts_as_the_separations(own_separator, separate, tmp_path):
    separator = own_separator(
        memory_bytes=400 << 20
    )  # more than the child needs, less than torch does
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(2), 16)

    with pytest.raises(OutOfMemory, match="SEPARATION_MEMORY_BYTES"):
        separate(source, with_separator=separator)


@needs_audio_separator
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells")
def test_the_library_sees_no_secrets(nets):
    program = f"""
import os, sys
from pathlib import Path
from common.separation.audio_separator import AudioSeparatorEngine
import psutil
engine = AudioSeparatorEngine(Path({str(nets / "mdx23c.ckpt")!r}), "cpu", 1)
print(sorted(psutil.Process().children()[0].environ()))
"""
    environment = {
        **os.environ,
        "AWS_SECRET_ACCESS_KEY": "x",
        "AUDIO_SEPARATOR_MODEL_DIR": "elsewhere",
    }

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "PATH" in done.stdout
    assert "AWS" not in done.stdout
    assert "AUDIO_SEPARATOR" not in done.stdout


@needs_audio_separator
def test_another_rate_is_not_taken_for_its_own(engine):
    with pytest.raises(SeparationFailed, match="44100"):
        list(engine("mdx23c.ckpt").vocals(iter([np.zeros((2, 10), np.float32)]), 48000))
