"""python tests/separation/make_uvr_nets.py FOLDER, in the environment of audio-separator: a small
net of every kind.

Their weights are random, but their files are what UVR's are: what a checkpoint holds, and its
settings beside it.
"""

import json
import sys
from pathlib import Path

import torch
import yaml

from common.separation import audio_separator_model  # first: it stands in for diffq

from audio_separator.separator.architectures import demucs_separator  # isort: skip
from audio_separator.separator.uvr_lib_v5.roformer.bs_roformer import BSRoformer
from audio_separator.separator.uvr_lib_v5.roformer.mel_band_roformer import MelBandRoformer
from audio_separator.separator.uvr_lib_v5.tfc_tdf_v3 import TFC_TDF_net
from audio_separator.separator.uvr_lib_v5.vr_network.nets_new import CascadedNet
from ml_collections import ConfigDict

#: As real checkpoints have it: the class is found as `demucs.htdemucs`, beside the library's other
#: copies.
sys.path.insert(0, str(Path(demucs_separator.__file__).parents[1] / "uvr_lib_v5"))

ROFORMER = {
    "dim": 16,
    "depth": 1,
    "stereo": True,
    "num_stems": 1,
    "time_transformer_depth": 1,
    "freq_transformer_depth": 1,
    "dim_head": 8,
    "heads": 2,
    "stft_n_fft": 512,
    "stft_hop_length": 128,
    "stft_win_length": 512,
}
TRAINING = {"instruments": ["vocals", "other"], "target_instrument": "vocals"}
INFERENCE = {"dim_t": 401, "num_overlap": 2}


def save(folder, name, net, settings):
    torch.save(net.state_dict(), folder / f"{name}.ckpt")
    (folder / f"{name}.yaml").write_text(yaml.dump(settings))


def roformers(folder):
    bs = {**ROFORMER, "freqs_per_bands": (32,) * 7 + (33,)}
    settings = {
        "model": bs,
        "training": TRAINING,
        "inference": INFERENCE,
        "audio": {"hop_length": 128},
    }
    save(folder, "bs_roformer", BSRoformer(**bs), settings)
    # One that finds the instrumental, one that finds neither.
    for name, stems in {
        "instrumental": ["Instrumental", "Vocals"],
        "dry": ["dry", "other"],
    }.items():
        training = {"instruments": stems, "target_instrument": stems[0]}
        save(folder, f"{name}_bs_roformer", BSRoformer(**bs), settings | {"training": training})

    mel = {**ROFORMER, "num_bands": 8, "sample_rate": 44100}
    save(folder, "mel_band_roformer", MelBandRoformer(**mel), settings | {"model": mel})


def mdx23c(folder):
    settings = {
        "audio": {
            "dim_f": 256,
            "hop_length": 256,
            "n_fft": 1024,
            "num_channels": 2,
            "sample_rate": 44100,
        },
        "model": {
            "act": "gelu",
            "bottleneck_factor": 4,
            "growth": 4,
            "norm": "InstanceNorm",
            "num_blocks_per_scale": 1,
            "num_channels": 8,
            "num_scales": 2,
            "num_subbands": 4,
            "scale": [2, 2],
        },
        "training": {"instruments": ["Vocals", "Instrumental"], "target_instrument": None},
        "inference": {"batch_size": 1, "dim_t": 256, "num_overlap": 2},
    }
    save(folder, "mdx23c", TFC_TDF_net(ConfigDict(settings), "cpu"), settings)
    # The same net twice: what it gives is the voice, or the band and nothing else.
    settings["training"] = {"instruments": ["Vocals"], "target_instrument": None}
    net = TFC_TDF_net(ConfigDict(settings), "cpu")
    save(folder, "mdx23c_vocals", net, settings)
    settings["training"] = {"instruments": ["Instrumental"], "target_instrument": None}
    save(folder, "mdx23c_band", net, settings)


def vr(folder):
    net = CascadedNet(2048, nout=8, nout_lstm=16)
    torch.save(net.state_dict(), folder / "vr.pth")
    settings = {
        "vr_model_param": "1band_sr44100_hl512",
        "primary_stem": "Instrumental",
        "nout": 8,
        "nout_lstm": 16,
    }
    (folder / "vr.pth.json").write_text(json.dumps(settings))


def demucs(folder):
    from demucs.htdemucs import HTDemucs

    arguments = {
        "sources": ["drums", "bass", "other", "vocals"],
        "channels": 8,
        "nfft": 2048,
        "depth": 4,
        "t_layers": 1,
        "t_heads": 2,
        "bottom_channels": 16,
        "segment": 4,
    }
    net = HTDemucs(**arguments)
    package = {"klass": HTDemucs, "args": [], "kwargs": arguments, "state": net.state_dict()}
    torch.save(package, folder / "0123abcd.th")
    (folder / "tiny_demucs.yaml").write_text(yaml.dump({"models": ["0123abcd"]}))


if __name__ == "__main__":
    torch.manual_seed(0)
    assert audio_separator_model.SAMPLE_RATE == 44100
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for make in (roformers, mdx23c, vr, demucs):
        make(target)
