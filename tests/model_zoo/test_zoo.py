from __future__ import annotations

import hashlib
import ipaddress
import json
from pathlib import Path

import pytest

from common.errors import DiskFull, ModelInvalid
from common.network import Network
from common.outages import Backoff, Missing, Outage, Refused
from common.pace import Pace
from common.separation import onnx_engine
from common.separation.mdx import HOP, MdxSettings
from tests.mirror import FILES, MODEL, NAME, NETS, SETTINGS, known, mirror_server, zoo
from tools.model_zoo import mirror as mirror_module
from tools.model_zoo import zoo as known_models
from tools.model_zoo.mirror import Mirror
from tools.model_zoo.zoo import Fingerprint

LOOPBACK = Network([ipaddress.ip_network("127.0.0.0/8")])


@pytest.fixture
def server():
    with mirror_server() as server:
        yield server


class Fetching:
    """Fetches models from a path of the server; collects progress and outages."""

    def __init__(self, url, folder):
        self.url = url
        self.folder = folder
        self.outages: list[str] = []
        self.progress: list[tuple[int, int | None]] = []

    def __call__(self, path, model=None, **options):
        mirror = Mirror(
            self.url + path,
            LOOPBACK,
            on_wait=lambda outage, _tries: self.outages.append(str(outage)),
            backoff=Backoff(first_seconds=0.0),
            pace=lambda deadline: Pace(deadline, window_seconds=0.2),
            **options,
        )
        return mirror.fetch(
            model or known(), self.folder, lambda size, total: self.progress.append((size, total))
        )


@pytest.fixture
def fetch(server, tmp_path):
    return Fetching(server.url, tmp_path)


@pytest.fixture
def part(tmp_path):
    return tmp_path / f"{NAME}.part"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# What is known


def test_the_engine_can_run_every_known_model():
    for model in known_models.load().values():
        settings = model.settings
        if settings is None:
            assert model.wheel
            continue

        assert settings.bins <= settings.n_fft // 2 + 1
        assert HOP * (settings.columns - 1) > 2 * settings.n_fft
        if model.kind != "karaoke":
            assert settings.primary_stem.lower() == model.kind


def test_no_two_known_models_are_told_apart_by_the_same_hash():
    for facts in ("sha256", "tail_md5"):
        hashes = [
            getattr(model, facts) for model in known_models.load().values() if getattr(model, facts)
        ]

        assert len(hashes) == len(set(hashes)) > 10


def test_the_table_says_what_is_not_known():
    listed = json.loads(Path(known_models.__file__).with_suffix(".json").read_bytes())

    assert {frozenset(facts) - {"wheel"} for facts in listed.values()} == {
        frozenset({"kind", "bytes", "sha256", "tail_md5", "settings"})
    }
    assert listed["Kim_Inst.onnx"]["sha256"] is None
    assert "not known" in known_models.load()["Kim_Inst.onnx"].proof


@pytest.mark.parametrize(
    "changes", [{"sha256": None, "tail_md5": None}, {"file": "../x.onnx"}, {"sha256": "A" * 64}]
)
def test_a_table_that_cannot_be_trusted_is_not_read(changes):
    with pytest.raises(ValueError, match=r"sha256|file"):
        known_models.KnownModel(**{**dict(known()), **changes})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"bytes": 5}, "bytes instead of 5"),
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"tail_md5": "0" * 32, "sha256": None, "bytes": None}, "MD5 of its end"),
        ({"bytes": None, "sha256": None}, None),
    ],
)
def test_a_file_is_compared_with_all_that_is_known(tmp_path, changes, fault):
    path = tmp_path / NAME
    path.write_bytes(MODEL)
    found = known(**changes).fault(Fingerprint.of(path))

    assert (fault or str(None)) in str(found)


def test_the_tail_is_uvrs_last_10_240_000_bytes(tmp_path):
    path = tmp_path / "long.onnx"
    path.write_bytes(b"head" + b"tail" * 2_560_000)

    assert Fingerprint.of(path).tail_md5 == hashlib.md5(b"tail" * 2_560_000).hexdigest()


# Settings in the folder


def test_a_sidecar_wins_over_the_registry_and_both_have_uvrs_keys(tmp_path):
    path = tmp_path / NAME
    assert known_models.listed_settings(path, "md5") is None

    (tmp_path / "mdx_model_data.json").write_text(
        json.dumps({"md5": {**SETTINGS, "is_karaoke": True}})
    )
    settings = MdxSettings.model_validate(SETTINGS)
    assert known_models.listed_settings(path, "md5") == settings
    assert known_models.listed_settings(path, "another") is None

    known_models.write_sidecar(path, settings.model_copy(update={"compensate": 1.5}))
    assert "compensate=1.5" in repr(known_models.listed_settings(path, "md5"))
    assert json.loads((tmp_path / f"{NAME}.json").read_bytes()) == {**SETTINGS, "compensate": 1.5}


@pytest.mark.parametrize("text", ["{", "[]", '{"md5": {"config_yaml": "x.yaml"}}', '{"md5": 1}'])
def test_a_registry_that_cannot_be_used_is_named(tmp_path, text):
    (tmp_path / "mdx_model_data.json").write_text(text)

    with pytest.raises(ModelInvalid, match=r"mdx_model_data\.json"):
        known_models.listed_settings(tmp_path / NAME, "md5")


# The way from a mirror into the folder


@pytest.mark.parametrize("path", ["/range", "/plain", "/away", "/busy/4", "/unsaid/1", "/range/"])
def test_a_model_comes_whole_and_with_its_settings(fetch, tmp_path, path):
    assert fetch(path)

    assert names(tmp_path) == [NAME, f"{NAME}.json"]
    assert (tmp_path / NAME).read_bytes() == MODEL
    assert fetch.progress[-1] == (len(MODEL), len(MODEL))
    known_models.try_out(tmp_path / NAME)


def test_a_downloaded_model_has_the_settings_that_uvrs_registry_would_give_it(fetch, tmp_path):
    fetch("/range")
    by_sidecar = onnx_engine.load(tmp_path / NAME, "cpu", threads=1)
    (tmp_path / f"{NAME}.json").unlink()
    (tmp_path / "mdx_model_data.json").write_text(json.dumps({known().tail_md5: SETTINGS}))

    assert (
        vars(onnx_engine.load(tmp_path / NAME, "cpu", threads=1))["_settings"]
        == vars(by_sidecar)["_settings"]
    )


def test_a_cut_connection_goes_on_where_it_broke(fetch, server, tmp_path):
    fetch("/cut/2")

    half = len(MODEL) // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half + (len(MODEL) - half) // 2}-"]
    assert len(fetch.outages) == 2
    assert (tmp_path / NAME).read_bytes() == MODEL


def test_a_mirror_that_keeps_cutting_is_an_outage_and_what_came_stays(
    fetch, server, tmp_path, part
):
    with pytest.raises(Outage, match="broke off"):
        fetch("/cut/9")

    assert len(server.seen) == mirror_module.MAX_ATTEMPTS
    assert names(tmp_path) == [part.name]
    assert MODEL.startswith(part.read_bytes())
    assert part.stat().st_size > len(MODEL) * 0.9


@pytest.mark.parametrize(
    ("left", "asked"),
    [
        (MODEL[:1000], ["bytes=1000-"]),
        (MODEL, []),
        (b"x" * 1000, ["bytes=1000-", None]),
        (b"x" * len(MODEL), [None]),
        (MODEL + b"x", [f"bytes={len(MODEL) + 1}-", None]),
        (b"", [None]),
    ],
    ids=["beginning", "whole", "of another file", "another file", "too long", "empty"],
)
def test_what_an_earlier_run_left_is_used_if_it_is_right(
    fetch, server, tmp_path, part, left, asked
):
    part.write_bytes(left)

    fetch("/range")

    assert server.ranges == asked
    assert (tmp_path / NAME).read_bytes() == MODEL
    assert not part.exists()


@pytest.mark.parametrize("path", ["/plain", "/shifted"])
def test_what_begins_elsewhere_is_not_appended(fetch, tmp_path, part, path):
    part.write_bytes(MODEL[:1000])

    fetch(path)

    assert (tmp_path / NAME).read_bytes() == MODEL


@pytest.mark.parametrize("changes", [{"bytes": None}, {"bytes": None, "sha256": None}])
@pytest.mark.parametrize("left", [b"", MODEL[:1000], MODEL])
def test_a_model_of_unknown_size_comes_as_well(fetch, tmp_path, part, changes, left):
    part.write_bytes(left)

    fetch("/range", known(**changes))

    assert (tmp_path / NAME).read_bytes() == MODEL


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("/wrong", Refused, "SHA-256"),
        ("/longer", Refused, "more than"),
        ("/endless", Refused, "more than"),
        ("/status/404", Missing, "404"),
        ("/status/410", Missing, "410"),
        ("/status/403", Refused, "403"),
        ("/status/500", Outage, "500"),
        ("/status/429", Outage, "429"),
        ("/silent", Outage, "0 bytes in"),
    ],
)
def test_what_a_mirror_does_wrong_is_named_and_no_model_appears(
    fetch, tmp_path, path, error, message
):
    with pytest.raises(error, match=message):
        fetch(path)

    assert [name for name in names(tmp_path) if not name.endswith(".part")] == []


def test_redirects_are_followed_a_few_times(fetch, server):
    with pytest.raises(Refused, match="redirects more than 5 times"):
        fetch("/loop")
    assert len(server.seen) == 6


def test_a_file_of_another_size_is_refused_before_it_comes_and_costs_nothing_that_is_here(
    fetch, part
):
    part.write_bytes(MODEL[:1000])

    with pytest.raises(Refused, match=f"{len(MODEL)} bytes instead of {len(MODEL) + 1}"):
        fetch("/range", known(bytes=len(MODEL) + 1))
    assert part.stat().st_size == 1000
    assert fetch.progress == []


def test_a_mirror_that_sends_other_bytes_leaves_nothing_behind(fetch, tmp_path):
    with pytest.raises(Refused):
        fetch("/wrong")

    assert names(tmp_path) == []


@pytest.mark.parametrize("path", ["/endless", "/range"])
def test_what_is_larger_than_any_model_is_refused(fetch, part, path):
    with pytest.raises(Refused, match="more than 200000 bytes"):
        fetch(path, known(bytes=None), max_bytes=200_000)
    assert part.stat().st_size <= 200_000


def test_a_model_that_is_there_needs_no_mirror_and_gets_its_settings(fetch, server, tmp_path):
    (tmp_path / NAME).write_bytes(MODEL)

    assert not fetch("/status/500")

    assert server.seen == []
    known_models.try_out(tmp_path / NAME)


def test_settings_that_somebody_wrote_stay(fetch, tmp_path):
    (tmp_path / f"{NAME}.json").write_text(json.dumps({**SETTINGS, "compensate": 1.5}))

    fetch("/range")

    assert json.loads((tmp_path / f"{NAME}.json").read_bytes())["compensate"] == 1.5


def test_another_file_of_the_name_is_not_touched(fetch, tmp_path):
    (tmp_path / NAME).write_bytes(b"mine")

    with pytest.raises(ModelInvalid, match="Move it away"):
        fetch("/range")
    assert (tmp_path / NAME).read_bytes() == b"mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named(fetch, part):
    part.symlink_to("/dev/full")

    with pytest.raises(DiskFull):
        fetch("/range")


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("https://a/b/c", "d", "https://a/b/d"),
        ("http://a/b", "https://c/d", "https://c/d"),
        ("HTTPS://a/b", "http://a/b", None),
        ("https://a/b", "file:///c", None),
        ("http://a/b", "http://[", None),
    ],
)
def test_a_redirect_does_not_leave_https(url, location, target):
    if target:
        assert mirror_module._target(url, location, 0) == target
    else:
        with pytest.raises(Refused):
            mirror_module._target(url, location, 0)


# What is taken in and examined


def test_adopting_leaves_the_folder_as_it_was_if_the_model_does_not_run(tmp_path):
    (tmp_path / ".adding").mkdir()
    (tmp_path / ".adding" / "left.onnx").write_bytes(b"by a run that was killed")
    unfit = MdxSettings.model_validate({**SETTINGS, "mdx_dim_f_set": 3072})

    with pytest.raises(ModelInvalid, match="shape"):
        known_models.adopt(NETS / "half_2048.onnx", tmp_path, unfit)
    assert names(tmp_path) == []

    known_models.adopt(NETS / "half_2048.onnx", tmp_path, MdxSettings.model_validate(SETTINGS))
    assert names(tmp_path) == ["half_2048.onnx", "half_2048.onnx.json"]


def test_examining_finds_what_a_file_is_and_a_flipped_byte(tmp_path):
    path = tmp_path / "renamed.onnx"
    path.write_bytes(MODEL)
    known_models.write_sidecar(path, MdxSettings.model_validate(SETTINGS))
    verdict = known_models.examine(path, zoo())
    assert (verdict.problem, verdict.model) == (None, known())

    named = path.replace(tmp_path / NAME)
    damaged = bytearray(MODEL)
    damaged[-1000] ^= 1
    named.write_bytes(damaged)
    assert "SHA-256" in str(known_models.examine(named, zoo()).problem)


def test_examining_loads_and_runs_what_is_unknown(tmp_path):
    path = tmp_path / "mine.onnx"
    path.write_bytes(FILES["Centre.onnx"])
    assert "mine.onnx.json" in str(known_models.examine(path, {}).problem)

    known_models.write_sidecar(path, MdxSettings.model_validate(SETTINGS))
    assert known_models.examine(path, {}).problem is None

    path.write_bytes(b"no net")
    assert "not an ONNX model" in str(known_models.examine(path, {}).problem)

    path.unlink()
    assert "cannot be read" in str(known_models.examine(path, {}).problem)
