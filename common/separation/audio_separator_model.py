"""A model in the library audio-separator 0.47.1; importable only in its environment.


The library is built to fetch models, to read and write files of every kind, and to make stems loud.
Nothing of that is wanted here: models lie in the folder or are refused, stems are taken out of its
hands before it writes them (VR would write 16 bits whatever it reads), and nothing is scaled. What
it asks of a file is found by what lies beside it, or by the lists that UVR and the library itself
keep.
"""

from __future__ import annotations

import json
import logging
import math
import random
import sys
import types
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from common.errors import ModelInvalid

# A stand-in for `diffq`, which only old Demucs models need, but every Demucs module imports.
_diffq = types.ModuleType("diffq")
for _name in ("DiffQuantizer", "UniformQuantizer", "restore_quantized_state"):
    setattr(_diffq, _name, None)
sys.modules.setdefault("diffq", _diffq)

from audio_separator.separator import Separator  # noqa: E402 -- it looks for diffq

SAMPLE_RATE = 44_100
_ARCHITECTURES = {".ckpt": "MDXC", ".pth": "VR", ".yaml": "Demucs"}

#: UVR's registry of VR models: {MD5 of the file's last 10 240 000 bytes: settings}.
VR_REGISTRY = "vr_model_data.json"


class _Library(Separator):  # type: ignore[misc] # it ships no types
    """The library without its ways out."""

    def check_ffmpeg_installed(self) -> None:
        """Do without: soundfile reads our WAV files, and no stem is written."""

    def download_model_files(self, model_filename: str) -> tuple[str, str, str, str, str | None]:
        """Return file, architecture, name, path and settings of a model in the folder."""
        path = Path(self.model_file_dir, model_filename)
        kind = _ARCHITECTURES[path.suffix.lower()]
        return path.name, kind, path.stem, str(path), str(_config(path)) if kind == "MDXC" else None

    def load_model_data_using_hash(self, model_path: str) -> dict[str, Any]:
        """Return the settings of a VR model, from its sidecar or a registry."""
        path = Path(model_path)
        sidecar = path.with_name(f"{path.name}.json")
        if sidecar.is_file():
            return _json(sidecar.read_bytes())
        listed = _beside(path, VR_REGISTRY) | _packaged("model-data.json")["vr_model_data"]
        found = listed.get(self.get_model_hash(model_path))
        if found is None:
            raise ModelInvalid(
                f"{path.name!r} is not in {VR_REGISTRY}; write its settings into {sidecar.name}."
            )
        return dict(found)


class Model:
    """One model, loaded.

    Args:
        path: the model's file: `.ckpt` (RoFormer, MDX23C), `.pth` (VR) or `.yaml` (Demucs).
        device: `auto`, `cpu` or `cuda`.
        threads: how many to compute with.
        folder: for the files of its trial.

    Raises:
        ModelInvalid: its settings are not there, or it gives neither vocals nor instrumental.
        Exception, SystemExit: whatever the library finds wrong with it.
    """

    def __init__(self, path: Path, device: str, threads: int, folder: str) -> None:
        torch.set_num_threads(threads)
        self.device = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        self._library = _library(path.parent, self.device, folder)
        self._library.load_model(path.name)
        self._stems: dict[str, NDArray[np.float32]] = {}
        instance = self._library.model_instance
        instance.final_process = self._take
        training = instance.model_data.get("training") or {}
        named = (
            instance.primary_stem_name,
            instance.secondary_stem_name,
            *(training.get("instruments") or ()),
        )
        stems = {str(stem).lower() for stem in named}
        if not stems & {"vocals", "instrumental"}:
            raise ModelInvalid(
                f"{path.name!r} gives {', '.join(sorted(stems))}: neither vocals nor instrumental."
            )
        # These two load their weights with the first song; a broken file is to be found before.
        if _ARCHITECTURES[path.suffix.lower()] in {"VR", "Demucs"}:
            trial = Path(folder, "trial.wav")
            noise = np.random.default_rng(0).uniform(-0.5, 0.5, (SAMPLE_RATE, 2))
            soundfile.write(trial, noise, SAMPLE_RATE, subtype="FLOAT")
            self.separate(str(trial), str(trial.with_suffix(".npy")))

    def separate(self, mixture: str, stem: str) -> Literal["vocals", "instrumental"]:
        """Separate the WAV file *mixture* into *stem*; return whether that is vocals or
        instrumental.
        """
        random.seed(
            0
        )  # Demucs averages over shifts that are drawn; the same song is to give the same stems
        self._stems.clear()
        try:
            self._library.separate(mixture)
            name: Literal["vocals", "instrumental"] = (
                "vocals" if "vocals" in self._stems else "instrumental"
            )
            np.save(stem, np.asarray(self._stems[name], np.float32))
        finally:
            self._stems.clear()
        return name

    def _take(self, _path: str, samples: NDArray[np.float32], name: str) -> None:
        """Replace the library's `final_process`, which would write `[frames, 2]` to a file."""
        self._stems[name.lower()] = samples


def _library(model_dir: Path, device: str, folder: str) -> _Library:
    library = _Library(
        logging.ERROR, model_file_dir=str(model_dir), output_dir=folder, sample_rate=SAMPLE_RATE
    )
    library.torch_device, library.torch_device_mps = torch.device(device), None
    # It checks that this is at most 1, and scales every stem that is louder. None is.
    library.normalization_threshold = math.inf
    return library


def _config(path: Path) -> Path:
    """Return the YAML file with the settings of the `.ckpt` at *path*."""
    names = [path.with_suffix(".yaml").name, f"{path.name}.yaml"]
    # The second is UVR's own: both name models and their settings.
    for listing in (_packaged("models.json"), _beside(path, "download_checks.json")):
        for kind in ("roformer_download_list", "mdx23c_download_list", "mdx23c_download_vip_list"):
            for files in listing.get(kind, {}).values():
                names += [files[path.name]] if path.name in files else []
    for name in names:
        if path.with_name(name).is_file():
            return path.with_name(name)
    raise ModelInvalid(
        f"{path.name!r} needs its settings beside it: {' or '.join(dict.fromkeys(names[::-1]))}."
    )


def _beside(path: Path, name: str) -> dict[str, Any]:
    file = path.with_name(name)
    return _json(file.read_bytes()) if file.is_file() else {}


def _packaged(name: str) -> dict[str, Any]:
    return _json(resources.files("audio_separator").joinpath(name).read_bytes())


def _json(text: bytes) -> dict[str, Any]:
    return dict(json.loads(text))
