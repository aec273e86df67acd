"""Which orders count as the same, and what becomes of copies, on both S3 servers."""

import dataclasses
import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest

from common.deadline import Deadline
from common.errors import Cancelled
from common.messages import STEMS, Origin, Outcome, Result, ReusedFrom, Stem, Stems, Task
from common.reuse import Recipe, Reuse
from common.s3 import S3
from common.separation.protocol import SeparationSettings
from common.storage import Storage
from tests.fixtures_edges import ON_MOTO, make_receipt
from tests.servers import free_port, stalled_server

RECIPE = Recipe("a" * 64, "auto", False, "", None, None, 7200.0, "flac", None, None)
TASK = Task(task_uuid="later", audio_url="https://example.com/a.mp3", output_format="flac")


def soon():
    return Deadline(20)


def settings_of(folder, model="", device="cpu"):
    return SeparationSettings(
        engine="auto",
        model=model,
        model_dir=folder,
        device=device,
        threads=0,
        max_audio_seconds=7200.0,
        timeout_seconds=60.0,
        memory_bytes=0,
    )


@pytest.fixture
def store(s3):
    return S3(endpoint_url=s3.endpoint_url, addressing_style="path")


@pytest.fixture
def earlier(store, bucket, tmp_path):
    """Return a function that stores an order below a prefix and offers it to later ones."""

    def make(prefix="", size=1000):
        files, stems = {}, {}
        for name in STEMS:
            files[name] = tmp_path / f"{name}.flac"
            files[name].write_bytes(name.encode() * size)
            stems[name] = Stem(
                path=f"earlier/run/{name}.flac",
                bytes=files[name].stat().st_size,
                sha256=hashlib.sha256(files[name].read_bytes()).hexdigest(),
                format="flac",
            )
        origin = Origin(topic="uvr_tasks", partition=0, offset=1)
        task = TASK.model_copy(update={"task_uuid": "earlier", "metadata": {"user": "secret"}})
        result = Result.succeeded(task, origin, 1, Stems(**stems), make_receipt())
        stored = Storage(store, bucket, prefix=prefix).upload_stems(result, files, soon())
        outcome = Outcome.of(result, stored)
        Reuse(store, bucket, prefix).offer(RECIPE.key(STEMS), outcome)
        return outcome

    return make


def keys(s3, bucket):
    return {item["Key"] for item in s3.client().list_objects_v2(Bucket=bucket).get("Contents", [])}


def test_every_choice_and_only_a_choice_changes_the_key():
    others: dict[str, Any] = {
        "source_sha256": "b" * 64,
        "engine": "mdx",
        "openvino": True,
        "model": "net.onnx",
        "model_sha256": "c" * 64,
        "model_files": "d" * 64,
        "max_audio_seconds": 60.0,
        "output_format": "wav",
        "bitrate_kbps": 128,
        "bit_depth": 16,
    }
    assert others.keys() == {field.name for field in dataclasses.fields(Recipe)}
    recipes = [dataclasses.replace(RECIPE, **{name: value}) for name, value in others.items()]

    seen = {recipe.key(stems) for recipe in [RECIPE, *recipes] for stems in (STEMS, ("vocals",))}
    assert len(seen) == 2 * (len(others) + 1)
    assert dataclasses.replace(RECIPE).key(STEMS) == RECIPE.key(STEMS)


def test_a_model_that_changes_with_its_settings_or_weights_is_another(tmp_path):
    def recipe(name):
        made = Recipe.of(TASK.model_copy(update={"model": name}), "a" * 64, settings_of(tmp_path))
        return made and made.key(STEMS)

    names = ("net.onnx", "set.yaml")
    for name in names:
        (tmp_path / name).write_bytes(b"model")
    assert recipe("missing.onnx") is None
    seen = {name: {recipe(name)} for name in names}
    for file in ("net.onnx", "net.onnx.json", "net.onnx.data", "registry.json", "config.yaml"):
        (tmp_path / file).write_bytes(file.encode())
        seen["net.onnx"].add(recipe("net.onnx"))
    assert len(seen["net.onnx"]) == 6

    unrelated = recipe("net.onnx")
    for file in ("other.onnx", "weights.th"):
        (tmp_path / file).write_bytes(b"other")
    assert recipe("net.onnx") == unrelated
    assert recipe("set.yaml") not in seen["set.yaml"]
    assert Recipe.of(TASK, "a" * 64, settings_of(Path("missing"))) is not None  # dsp has no model


def test_copies_are_whole_and_wait_under_the_runs_own_keys(s3, store, bucket, earlier):
    outcome = earlier("stems/", size=1_400_000)  # one is uploaded in parts
    reuse = Reuse(store, bucket, "stems/")

    taken = reuse.take(RECIPE, TASK, "run", soon())

    assert taken is not None
    stems, receipt = taken
    assert receipt.reused_from == ReusedFrom(task_uuid="earlier", origin=outcome.origin)
    for name, stem in stems.by_name().items():
        key = f"stems/.reuse/waiting/later/run/{name}.flac"
        assert reuse.waiting.key(stem) == key
        body = s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        assert hashlib.sha256(body).hexdigest() == stem.sha256
    (index,) = (key for key in keys(s3, bucket) if key.endswith(".json"))
    assert b"secret" not in s3.client().get_object(Bucket=bucket, Key=index)["Body"].read()
    assert reuse.waiting.sweep(-10) == 1
    assert index in keys(s3, bucket)


@pytest.mark.parametrize("size", [6000, 5999, None])
def test_stems_that_others_replaced_or_removed_are_not_taken(s3, store, bucket, earlier, size):
    outcome = earlier()
    place = {"Bucket": bucket, "Key": outcome.stems.vocals.key}
    assert outcome.stems.vocals.bytes == 6000
    if size is None:
        s3.client().delete_object(**place)
    else:
        s3.client().put_object(Body=bytes(size), Metadata={"sha256": "0" * 64}, **place)

    assert Reuse(store, bucket).take(RECIPE, TASK, "run", soon()) is None
    assert not any("waiting" in key for key in keys(s3, bucket))


def test_nothing_is_taken_from_another_prefix_not_even_by_an_index_that_was_moved(
    s3, store, bucket, earlier
):
    earlier("a/")
    assert Reuse(store, bucket, "b/").take(RECIPE, TASK, "run", soon()) is None

    moved = f".reuse/{RECIPE.key(STEMS)}.json"
    body = store.get(bucket, f"a/{moved}", 10_000)
    store.put(bucket, f"b/{moved}", body, "application/json")
    assert Reuse(store, bucket, "b/").take(RECIPE, TASK, "run", soon()) is None
    assert {key for key in keys(s3, bucket) if key.startswith("b/")} == {f"b/{moved}"}


@ON_MOTO
def test_a_damaged_index_is_passed_over(store, bucket, earlier):
    earlier()
    store.put(bucket, f".reuse/{RECIPE.key(STEMS)}.json", b"{", "application/json")

    assert Reuse(store, bucket).take(RECIPE, TASK, "run", soon()) is None


@pytest.mark.usefixtures("credentials")
def test_without_s3_nothing_is_reused():
    reuse = Reuse(S3(endpoint_url=f"http://127.0.0.1:{free_port()}"), "bucket")

    assert reuse.take(RECIPE, TASK, "run", soon()) is None


@pytest.mark.usefixtures("credentials")
def test_a_cancelled_order_does_not_wait_for_an_s3_that_is_silent():
    cancelled = threading.Event()
    with stalled_server(cancelled.set) as port:
        reuse = Reuse(S3(endpoint_url=f"http://127.0.0.1:{port}"), "bucket")
        with pytest.raises(Cancelled):
            reuse.take(RECIPE, TASK, "run", Deadline(300, cancelled=cancelled))
