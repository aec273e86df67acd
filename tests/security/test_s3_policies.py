"""The policies of docs/security-s3.md allow everything that is needed, and nothing else.

The tests use their own moto server, which enforces IAM once it is asked to.
"""

import copy
import hashlib
import json
import os
import re
import threading
import urllib.request
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest

from common.deadline import Deadline
from common.download import Downloader
from common.errors import DownloadFailed, HandoffMissing, Unreachable, UploadFailed
from common.handoff import S3Handoff
from common.messages import STEMS, Origin, Outcome, Result, Stem, Stems, Task
from common.network import Network
from common.outages import Refused
from common.reuse import Recipe, Reuse
from common.s3 import S3
from common.separation.protocol import SeparationSettings
from common.source_folders import SourceFolder
from common.storage import Storage
from tests.fixtures_edges import make_outcome, make_receipt
from tests.servers import moto_server

DOCUMENT = Path("docs/security-s3.md")
USERS = ("Uploader", "Processor", "Operator")
#: A policy cannot be empty.
HARMLESS = "s3:GetAccelerateConfiguration"
#: How often to repeat the word "instrumental" for an upload that is checked by its size in S3, and
#: for one in parts.
MIDDLE, LARGE = 100_000, 1_400_000
BUCKETS = STEMS_BUCKET, HANDOFF_BUCKET, SONGS_BUCKET = "uvr-stems", "uvr-handoff", "uvr-songs"
SETTINGS = SeparationSettings(
    engine="dsp",
    model="",
    model_dir=Path("models"),
    device="cpu",
    threads=0,
    max_audio_seconds=60.0,
    timeout_seconds=60.0,
    memory_bytes=0,
)
#: The errors that a refusal becomes.
REFUSALS = (Refused, Unreachable, UploadFailed, HandoffMissing, DownloadFailed)


def documented(title, number=0):
    section = DOCUMENT.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    return json.loads(re.findall(r"```json\n(.*?)```", section, re.DOTALL)[number])


def with_reuse(who):
    """Return a service's policy together with the one that REUSE_RESULTS adds."""
    policy = documented(who)
    policy["Statement"] += documented("Reused results", ("Processor", "Uploader").index(who))[
        "Statement"
    ]
    return policy


@dataclass(frozen=True)
class Iam:
    """A server whose only user is its administrator, and that user's clients."""

    endpoint_url: str
    users: Any
    s3: Any


@pytest.fixture(scope="module")
def iam():
    with moto_server() as server:
        reach = partial(boto3.client, endpoint_url=server.endpoint_url, region_name="us-east-1")
        before = {"aws_access_key_id": "anybody", "aws_secret_access_key": "nothing"}
        s3 = reach("s3", **before)
        for bucket in BUCKETS:
            s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=SONGS_BUCKET, Key="song.wav", Body=b"music")
        everything = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
        }
        key, secret = add_user(reach("iam", **before), "administrator", everything)
        enforce = urllib.request.Request(
            f"{server.endpoint_url}/moto-api/reset-auth",
            data=b"0",
            headers={"Content-Type": "text/plain"},
        )
        urllib.request.urlopen(enforce).close()
        known = {"aws_access_key_id": key, "aws_secret_access_key": secret}
        yield Iam(server.endpoint_url, reach("iam", **known), reach("s3", **known))


def add_user(users, name, policy):
    """Create a user with *policy*; return its access key and secret."""
    users.create_user(UserName=name)
    users.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=json.dumps(policy))
    key = users.create_access_key(UserName=name)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def as_moto_has_it(policy):
    """Let ListBucket allow HeadBucket, as in AWS, where HeadBucket is not an action."""
    policy = copy.deepcopy(policy)
    for statement in policy["Statement"]:
        if "s3:ListBucket" in statement["Action"]:
            statement["Action"] = [*statement["Action"], "s3:HeadBucket"]
    return policy


class Work:
    """Everything that each user does with S3, as a user with *policy*."""

    def __init__(self, iam, policy, folder, monkeypatch):
        key, secret = add_user(iam.users, f"user-{os.urandom(4).hex()}", as_moto_has_it(policy))
        file = folder / "credentials"
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
        # In a file, like a mounted secret.
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        self.folder = folder
        self.administrator = iam.s3
        self.s3 = S3(endpoint_url=iam.endpoint_url, addressing_style="path", region="us-east-1")
        self.storage = Storage(self.s3, STEMS_BUCKET, prefix="stems/")
        self.handoff = S3Handoff(self.s3, HANDOFF_BUCKET, "waiting")

    def uploader(self, size):
        for key in ("vocals.mp3", "result.json"):  # from an earlier order
            self._put(STEMS_BUCKET, f"stems/task-1/{key}", make_outcome("task-1").encode())
        result, files = self._order(size)
        for name in STEMS:
            self._put(
                HANDOFF_BUCKET,
                f"waiting/{getattr(result.stems, name).path}",
                files[name].read_bytes(),
            )
        self.storage.check()
        self.handoff.sweep(10_000)
        assert self.storage.read_outcome("task-none", soon()) is None
        assert self.storage.read_outcome("task-1", soon()) is not None
        fetched = self.handoff.fetch(result.stems, self.folder, soon())
        stored = self.storage.upload_stems(result, fetched, soon())
        self.storage.write_outcome(make_outcome("task-1", offset=1), soon())
        assert "stems/task-1/vocals.mp3" not in self._keys(STEMS_BUCKET)
        failed = make_outcome("task-1", offset=2, failed=True)
        for _ in range(2):  # recorded, then read
            assert self.storage.write_outcome(failed, soon()) == failed
        # moto refuses signatures in URLs, so the URL is not opened.
        key = stored.by_name()["vocals"].key
        assert key in self.storage.link(key).url
        self.handoff.remove(result.stems)
        if self._keys(HANDOFF_BUCKET):
            raise Refused("the handoff could not remove stems, which it only logs")

    def processor(self, size):
        self.handoff.sweep(10_000)
        downloader = Downloader(
            Network(),
            timeout_seconds=20,
            max_bytes=1000,
            source_folders=(SourceFolder(SONGS_BUCKET),),
            store=self.s3,
        )
        url, never = f"s3://{SONGS_BUCKET}/song.wav", threading.Event()
        downloader.fetch(url, self.folder / "song", progress=lambda _: None, cancelled=never)
        self.handoff.put("task-1", "run", self._order(size)[1], "flac", soon())
        assert self.handoff.sweep(-10) == 1

    def operator(self, size):
        self._put(STEMS_BUCKET, "stems/task-1/result.json", make_outcome("task-1").encode())
        assert self.storage.read_outcome("task-1", soon()) is not None
        failed = make_outcome("task-1", offset=2, failed=True)
        key = self.storage.failed_key("task-1", failed.origin)
        self._put(STEMS_BUCKET, key, failed.encode())
        assert self.storage.read_outcome_of("task-1", failed.origin, soon()) == failed
        assert self.storage.objects("task-1", soon())
        assert size

    def _order(self, size):
        files, stems = {}, {}
        for name in STEMS:
            content = name.encode() * size
            files[name] = self.folder / f"{name}.wav"
            files[name].write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            stems[name] = Stem(
                path=f"task-1/run/{name}.flac", bytes=len(content), sha256=digest, format="flac"
            )
        origin = Origin(topic="uvr_tasks", partition=0, offset=1)
        facts: dict[str, Any] = {
            "error": None,
            "callback_url": None,
            "metadata": {},
            "attempt": 1,
            "receipt": make_receipt(),
        }
        result = Result(
            task_uuid="task-1", status="succeeded", origin=origin, stems=Stems(**stems), **facts
        )
        return result, files

    def _put(self, bucket, key, body):
        self.administrator.put_object(Bucket=bucket, Key=key, Body=body)

    def _keys(self, bucket):
        return [
            item["Key"]
            for item in self.administrator.list_objects_v2(Bucket=bucket).get("Contents", [])
        ]


def soon():
    return Deadline(20)


@pytest.fixture
def work(iam, tmp_path, monkeypatch):
    """Return a function that does the work of a user with a policy."""

    def do(who, policy, size=10):
        getattr(Work(iam, policy, tmp_path, monkeypatch), who.lower())(size)

    return do


def needed():
    """Return every action of every statement, except the one that only broken uploads need."""
    return [
        (who, statement["Sid"], action)
        for who in USERS
        for statement in documented(who)["Statement"]
        for action in statement["Action"]
        if action != "s3:AbortMultipartUpload"
    ]


@pytest.mark.parametrize("who", USERS)
def test_the_documented_policy_is_enough(work, who):
    work(who, documented(who), size=LARGE)


@pytest.mark.parametrize(("who", "statement", "action"), needed(), ids=str)
def test_without_any_one_action_the_work_is_refused(work, who, statement, action):
    policy = documented(who)
    for one in policy["Statement"]:
        if one["Sid"] == statement:
            one["Action"] = [HARMLESS if each == action else each for each in one["Action"]]

    with pytest.raises(REFUSALS):
        work(who, policy, size=MIDDLE)


def test_the_documented_policies_are_enough_to_reuse_results(iam, tmp_path, monkeypatch):
    def services():
        for who in ("Uploader", "Processor"):
            monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE", raising=False)
            folder = tmp_path / who
            folder.mkdir()
            work = Work(iam, with_reuse(who), folder, monkeypatch)
            yield work, Reuse(work.s3, STEMS_BUCKET, "stems/")

    (uploader, offering), (_, taking) = services()
    result, files = uploader._order(10)
    task = Task(task_uuid="task-2", audio_url="https://example.com/a", output_format="flac")
    recipe = Recipe.of(task, "a" * 64, SETTINGS)
    assert recipe is not None
    stored = uploader.storage.upload_stems(result, files, soon())
    offering.offer(recipe.key(STEMS), Outcome.of(result, stored))

    assert taking.waiting.sweep(10_000) == 0
    stems, receipt = taking.take(recipe, task, "run", soon())
    later = Result.succeeded(task, result.origin, 1, stems, receipt)
    keys = {name: offering.waiting.key(stem) for name, stem in stems.by_name().items()}
    uploader.storage.copy_stems(later, keys, soon())
    offering.waiting.remove(stems)
    assert taking.take(recipe, task, "run", soon())
    assert taking.waiting.sweep(-10) == 1
    names = {"task-1/vocals.flac", "task-1/instrumental.flac", "task-2/vocals.flac"}
    assert {f"stems/{name}" for name in names} <= set(uploader._keys(STEMS_BUCKET))


def test_the_uploader_may_touch_nothing_but_stems_and_outcomes(iam, tmp_path, monkeypatch):
    other = Work(iam, documented("Uploader"), tmp_path, monkeypatch).s3

    for key in ("stems/task-1/notes.txt", "elsewhere/task-1/result.json"):
        with pytest.raises(Refused):
            other.put(STEMS_BUCKET, key, b"", "text/plain")
        with pytest.raises(Refused):
            other.delete(STEMS_BUCKET, key)
    with pytest.raises(Refused):
        other.get(SONGS_BUCKET, "song.wav", 10)


def test_a_policy_that_allows_nothing_is_refused_at_start(iam, tmp_path, monkeypatch):
    nothing = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": HARMLESS, "Resource": "*"}],
    }

    with pytest.raises(Unreachable, match="refused"):
        Work(iam, nothing, tmp_path, monkeypatch).storage.check()
