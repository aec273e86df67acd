"""Songs that scripts/submit.py submits, through the services in the background."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from config import Settings
from tests.pipeline.scripts import run
from tests.pipeline.services import REPOSITORY, bare_environ, until
from tests.pipeline.world import song
from tests.servers import free_port
from tools.submit.source_upload import to_s3
from tools.submit.sources import find
from tools.submit.submission_log import SubmissionLog
from tools.topics.command import WrongUsage

SCRIPT = "submit.py"


def ended(done):
    """Return the JSON line of each task, by its name."""
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_a_folder_and_a_list_are_submitted_waited_for_and_their_stems_fetched(
    fleet, shared_world, tmp_path
):
    (tmp_path / "songs" / "live").mkdir(parents=True)
    (tmp_path / "songs" / "one.wav").write_bytes(song(0.5))
    (tmp_path / "songs" / "live" / "one.wav").write_bytes(song(0.5, 220))
    (tmp_path / "songs" / "notes.txt").write_text("no song")
    listed = tmp_path / "list.csv"
    listed.write_text(
        "audio_url,task_uuid,callback_url,output_format,metadata\n"
        f"{shared_world.url('/song.wav')},listed-1,{shared_world.url('/hook')},wav,"
        '"{""user"": 7}"\n'
        f"{shared_world.url('/absent.wav')},,,,\n"
    )

    done = run(
        fleet.pipeline, SCRIPT, str(tmp_path / "songs"), str(listed), "--format", "flac", "--json",
        "--output", str(tmp_path / "stems"),
    )  # fmt: skip

    lines = ended(done)
    assert done.returncode == 1
    assert "3 of 4 succeeded." in done.stderr
    assert "song: succeeded\n" in done.stderr
    assert "one: callback 100 %" not in done.stderr  # none was requested
    assert lines["absent"]["source"] == shared_world.url("/absent.wav")
    assert lines["one"]["source"] == str(tmp_path / "songs" / "one.wav")
    assert sorted(
        path.relative_to(tmp_path / "stems").as_posix() for path in tmp_path.rglob("stems/*/*")
    ) == [
        "one-2/instrumental.flac",
        "one-2/vocals.flac",
        "one/instrumental.flac",
        "one/vocals.flac",
        "song/instrumental.wav",
        "song/vocals.wav",
    ]
    assert lines["song"]["task_uuid"] == "listed-1"
    assert (tmp_path / "stems/one/vocals.flac").stat().st_size == lines["one"]["stems"]["vocals"][
        "bytes"
    ]
    assert (lines["absent"]["status"], lines["absent"]["error"]["code"]) == (
        "failed",
        "download_failed",
    )
    assert shared_world.callback("listed-1")["data"]["metadata"] == {"user": 7}
    assert f"sources/{lines['one']['task_uuid']}.wav" in fleet.pipeline.keys()  # noqa: SIM118 -- of the bucket


def test_ctrl_c_leaves_the_tasks_running_and_prints_how_to_resume(fleet, shared_world, tmp_path):
    # S3 holds the outcome of an earlier task with this id, which must not count for this one.
    fleet.pipeline.order(shared_world.url("/absent.wav"), task_uuid="again")
    fleet.pipeline.outcome("again")
    gate = shared_world.gated("/later.wav")

    waiting = started(fleet, shared_world.url("/later.wav"), "--wait", "--task-uuid", "again")
    assert waiting.stderr.readline().startswith("Connecting to Kafka")
    assert waiting.stderr.readline() == "later: download 0 %\n"
    waiting.send_signal(signal.SIGINT)
    _, errors = waiting.communicate(timeout=60)
    (log,) = re.findall(r"submit\.py --resume (\S+)", errors)
    resumed = started(fleet, "--resume", log, "--json", "--output", str(tmp_path))
    assert resumed.stderr.readline().startswith("Connecting to Kafka")
    assert resumed.stderr.readline() == "later: download 0 %\n"
    gate.set()
    output, errors = resumed.communicate(timeout=90)

    assert waiting.returncode == 130
    assert resumed.returncode == 0, errors
    assert json.loads(output)["status"] == "succeeded"
    assert (tmp_path / "later" / "vocals.wav").exists()


def started(fleet, *arguments, **environ):
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "scripts" / SCRIPT), *arguments],
        cwd=fleet.pipeline.folder,
        env={**bare_environ(), **fleet.pipeline.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_file_can_be_served_and_its_task_id_chosen(fleet, tmp_path):
    (tmp_path / "mine.wav").write_bytes(song(0.5))

    done = run(
        fleet.pipeline,
        SCRIPT,
        "--serve",
        "--task-uuid",
        "served",
        "--json",
        str(tmp_path / "mine.wav"),
    )

    assert (done.returncode, ended(done)["mine"]["status"]) == (0, "succeeded"), done.stderr
    assert fleet.pipeline.keys_of("served") == {"vocals.wav", "instrumental.wav", "result.json"}
    assert fleet.pipeline.outcome("served")["receipt"]["source"]["frames"] == 22050


def test_tasks_submitted_before_the_first_process_starts_wait_for_it(pipeline):
    sent = run(pipeline, SCRIPT, "https://example.com/a.mp3", "https://example.com/b.mp3")

    assert sent.returncode == 0, sent.stderr
    assert [line.split("\t")[0] for line in sent.stdout.splitlines()] == ["NAME", "a", "b"]
    assert pipeline.lag(f"{pipeline.name}_processors", pipeline.tasks) == 2
    # The group is anchored: a processor that starts later begins there, not at the end.
    described = pipeline.describe(f"{pipeline.name}_processors")
    assert [
        line.split()[3:6] for line in described.splitlines() if f" {pipeline.tasks} " in line
    ] == [["0", "2", "2"]]


def test_several_tasks_are_cancelled_by_their_ids(pipeline):
    early = run(pipeline, SCRIPT, "--cancel", "one")
    run(pipeline, SCRIPT, "https://example.com/a.mp3", "--task-uuid", "one")

    done = run(pipeline, SCRIPT, "--cancel", "one", "nobodys")
    wrong = run(pipeline, SCRIPT, "--cancel", "no/id")

    assert early.returncode == 3
    assert f"Topic {pipeline.cancels} is missing" in early.stderr
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            f"one\tcancel sent: {pipeline.cancels}-0@0",
            f"nobodys\tcancel sent: {pipeline.cancels}-0@1",
        ],
    )
    assert [record.key for record in pipeline.records(pipeline.cancels)] == [b"one", b"nobodys"]
    assert wrong.returncode == 2


def test_failures_to_submit_are_explained_and_have_exit_codes(fleet):
    url = "https://example.com/a.mp3"
    bad = run(fleet.pipeline, SCRIPT, url, "--callback-url", "ftp://x")
    unreachable = run(
        fleet.pipeline,
        SCRIPT,
        url,
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
        STARTUP_TIMEOUT_SECONDS="1",
    )

    assert (bad.returncode, bad.stdout) == (2, "")
    assert f"{url}: callback_url: must begin with http:// or https://" in bad.stderr
    assert (unreachable.returncode, unreachable.stdout) == (3, "")
    assert "Kafka at 127.0.0.1:1 could not be reached" in unreachable.stderr
    with pytest.raises(WrongUsage, match="absent: No such file"):
        SubmissionLog(Path("absent")).read()
    with pytest.raises(WrongUsage, match=r"submission log: line 1 is not a submission$"):
        SubmissionLog(Path("README.md")).read()


def test_the_table_has_the_order_of_the_sources_and_names_them(fleet, shared_world, tmp_path):
    pipeline, gate = fleet.pipeline, shared_world.gated("/blocker.wav")
    pipeline.order(shared_world.url("/blocker.wav"))
    shared_world.until_asked("/blocker.wav")
    shared_world.files["/first.wav?token=1"] = song(0.5)
    (tmp_path / "caf\udce9.wav").write_bytes(song(0.5))
    (tmp_path / "list.jsonl").write_text(
        json.dumps({"source": shared_world.url("/first.wav?token=1")})
        + json.dumps({"source": "caf\udce9.wav", "priority": "high"}).join(("\n", "\n"))
    )

    waiting = started(fleet, str(tmp_path / "list.jsonl"), "--wait")
    high = f"{pipeline.tasks}_high"
    until(lambda: pipeline.lag(f"{pipeline.name}_processors", high) == 1, "the second task")
    gate.set()
    output, errors = waiting.communicate(timeout=90)

    heading, first, second = (line.split("\t") for line in output.splitlines())
    assert errors.index("caf_: succeeded") < errors.index("first: succeeded")
    assert (heading[0], heading[3]) == ("NAME", "SOURCE")
    assert (first[0], first[3]) == ("first", shared_world.url("/first.wav"))
    assert (second[0], second[3]) == ("caf_", f"{tmp_path}/caf\ufffd.wav")
    (task,) = (one for one in pipeline.records(high) if one.key == second[1].encode())
    assert json.loads(task.value)["metadata"] == {"file": "caf\ufffd.wav"}


def test_a_wait_that_s3_ends_does_not_ask_for_another_order(fleet, shared_world):
    s3 = f"http://127.0.0.1:{free_port()}"

    done = run(
        fleet.pipeline, SCRIPT, shared_world.url("/song.wav"), "--wait",
        S3_ENDPOINT_URL=s3, STARTUP_TIMEOUT_SECONDS="5",
    )  # fmt: skip

    *_, hint, reason = done.stderr.splitlines()
    assert done.returncode == 3
    assert hint.startswith("The tasks continue. To wait for them: ")
    assert reason.startswith(f"S3 at {s3} cannot be read: ")
    assert "send the task again" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process")
def test_ctrl_c_during_the_first_upload_says_that_nothing_was_sent(fleet, tmp_path):
    (tmp_path / "mine.wav").write_bytes(song(0.5))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        waiting = started(
            fleet, str(tmp_path / "mine.wav"),
            S3_ENDPOINT_URL=f"http://127.0.0.1:{silent.getsockname()[1]}",
        )  # fmt: skip
        silent.accept()
        waiting.send_signal(signal.SIGINT)
        _, errors = waiting.communicate(timeout=60)

    assert waiting.returncode == 130
    assert errors.splitlines()[1:] == ["Nothing was sent.", "Interrupted."]


def test_what_no_processor_takes_is_not_sent_and_all_of_it_is_named(pipeline, tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "list.csv").write_text(
        "source,metadata\nhttps://x/a.mp3,notjson\nhttps://x/b.mp3,\nhttp:///y.wav,\n"
    )

    done = run(
        pipeline, SCRIPT, str(tmp_path / "empty.wav"), str(tmp_path / "list.csv"),
        "--format", "wav", "--bitrate", "64",
    )  # fmt: skip

    listed = f"{tmp_path / 'list.csv'}, line"
    first, second, third, fourth = sorted(done.stderr.splitlines())
    assert (done.returncode, done.stdout) == (2, "")
    assert first.startswith(f"{tmp_path / 'empty.wav'}: ")
    assert second == f"{listed} 2: metadata: 'notjson' is not a JSON object."
    assert "bitrate_kbps: must not be set for wav" in third
    assert fourth.startswith(f"{listed} 4: ")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["https://x/a.mp3", "--cancel", "x"], "--cancel cannot be combined with sources"),
        (["https://x/a.mp3", "--resume", "x"], "--resume cannot be combined with sources"),
        (["https://x/a.mp3", "--check", "--wait"], "--check cannot be combined with --wait"),
    ],
)
def test_options_that_do_not_go_together_are_named(tmp_path, arguments, problem):
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / SCRIPT), *arguments],
        cwd=tmp_path, env=bare_environ(), capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 2
    assert problem in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", "title\nx\n", "a.csv has no column source"),
        ("a.csv", "", "a.csv has no column source"),
        ("a.csv", "source,title\na.wav,x\n", "line 2: unknown column title"),
        ("a.csv", "source,bit_depth\nhttps://x/y.mp3,x\n", "bit_depth: 'x' is not a whole number"),
        ("a.csv", "source,metadata\nhttps://x/y.mp3,[1]\n", "'.1.' is not a JSON object"),
        ("a.csv", "source\nabsent.wav\n", "there is no file"),
        ("a.csv", "source,model\n,m\n", "give the source in one of source, audio_url, audio"),
        (
            "a.jsonl",
            '{"source": "https://x/y.mp3"}\nnot json\n',
            "line 2: 'not json' is not a JSON object",
        ),
        ("a.jsonl", "[1]\n", "not a JSON object"),
        ("a.jsonl", "\n", "There is no audio"),
        ("a/", None, "There is no audio"),
        ("absent.mp3", None, "there is no such file or folder"),
    ],
)
def test_invalid_sources_are_refused_as_a_whole(tmp_path, name, content, problem):
    if content is not None:
        (tmp_path / name).write_text(content)
    else:
        (tmp_path / "a").mkdir()

    with pytest.raises(WrongUsage, match=problem):
        find([str(tmp_path / name)])


def test_a_list_names_files_relative_to_itself_and_every_song_gets_its_own_folder(tmp_path):
    (tmp_path / "Song.wav").touch()
    (tmp_path / "a.jsonl").write_text(
        '{"source": "Song.wav", "model": "m.onnx"}\n\n{"audio": "https://x/a%2Fb/song.mp3"}'
    )

    first, second, third = find([str(tmp_path / "a.jsonl"), "https://x/..%2F.."])

    assert (first.location, first.name, first.fields) == (
        tmp_path / "Song.wav",
        "Song",
        {"model": "m.onnx"},
    )
    assert (second.location, second.name) == ("https://x/a%2Fb/song.mp3", "song-2")
    assert third.name == "song-3"


def check(folder, *arguments, **settings):
    """Run `submit.py --check` without Kafka; return exit code, problems by source, and errors."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / SCRIPT), "--check", "--json", *arguments],
        cwd=folder,
        env={**bare_environ(), "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = map(json.loads, done.stdout.splitlines())
    return done.returncode, {line["source"]: line["problem"] for line in lines}, done.stderr


def test_check_names_what_is_wrong_with_each_source_and_sends_nothing(tmp_path):
    (tmp_path / "good.wav").write_bytes(song(0.1))
    (tmp_path / "empty.wav").touch()
    (tmp_path / "large.wav").write_bytes(bytes(70_000))
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "a.wav").write_bytes(b"x")
    (tmp_path / "list.csv").write_text(
        "source,task_uuid,output_format,bitrate_kbps,bit_depth,stems,callback_url\n"
        "good.wav,one,mp3,128,,vocals,\n"
        "good.wav,one,mp3,,,,\n"
        "good.wav,two,mp3,300,,,\n"
        "good.wav,three,wav,,32,vocals instrumental,\n"
        "good.wav,four,,,,drums,\n"
        "good.wav,bad id,,,,,\n"
        "good.wav,five,,,,,https://h:99999/\n"
        "absent.wav,,,,,,\n"
        "good.wav,six,mp3,x,,,\n"
        "good.wav,seven,,,,,http://127.0.0.1/\n"
    )
    (tmp_path / "list.jsonl").write_text(
        '{"source": "https://x/y.mp3", "stems": ["instrumental"], "bit_depth": 24}\n'
    )
    inside = (tmp_path / "input").as_uri()
    sources = {
        "good.wav": "",
        "empty.wav": "no bytes",
        "large.wav": "MAX_DOWNLOAD_BYTES",
        "absent.mp3": "there is no such file",
        "https://example.com/a.mp3": "",
        "http://[x/a.mp3": "url_forbidden",
        "http:///a.mp3": "url_forbidden",
        "http://10.1.2.3/a.mp3": "not on the public internet",
        "http://192.168.0.7/a.mp3": "",
        "s3://uvr/sources/a.mp3": "",
        "s3://uvr/sources/../a.mp3": "must not contain",
        "s3://uvr/stems/a.mp3": "not below a prefix",
        f"{inside}/a.wav": "",
        f"{inside}/b.wav": "does not exist",
        "file:///etc/passwd": "not below INPUT_DIR",
    }

    code, problems, errors = check(
        tmp_path, *sources, "list.csv", "list.jsonl",
        S3_BUCKET="uvr", S3_SOURCE_BUCKETS="uvr/sources", INPUT_DIR=str(tmp_path / "input"),
        MAX_DOWNLOAD_BYTES="65536", ALLOWED_ADDRESSES="192.168.0.0/24",
    )  # fmt: skip

    assert code == 1
    for source, problem in sources.items():
        assert problem in problems[source], source
        assert bool(problem) == bool(problems[source]), source
    listed = {
        2: "",
        3: "has the task_uuid of list.csv, line 2: one",
        4: "256 or 320 for mp3, not 300",
        5: "",
        6: "Input should be 'vocals' or 'instrumental'",
        7: "task_uuid: ",
        8: "url_forbidden",
        9: "there is no file absent.wav",
        10: "bitrate_kbps: 'x' is not a whole number",
        11: "not on the public internet",
    }
    for number, problem in listed.items():
        assert problem in problems[f"list.csv, line {number}"]
        assert bool(problem) == bool(problems[f"list.csv, line {number}"])
    assert problems["list.jsonl, line 1"] == ""
    assert errors.splitlines()[-1] == "8 of 26 can be sent. Nothing was sent."


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--format", "opus", "--bitrate", "96", "--stem", "vocals"], ""),
        (["--bit-depth", "32"], ""),
        (["--bitrate", "128"], "bitrate_kbps: must not be set for wav, but is 128"),
        (["--format", "flac", "--bit-depth", "32"], "must be 16 or 24 for flac, not 32"),
        (["--callback-url", "ftp://x"], "must begin with http:// or https://"),
        (["--model", "../x"], "must be the name of a file"),
    ],
)
def test_check_holds_the_options_against_the_rules_for_tasks(tmp_path, arguments, problem):
    url = "https://example.com/a.mp3"

    code, problems, errors = check(tmp_path, url, *arguments)

    assert (code, set(problems)) == (int(bool(problem)), {url}), errors
    assert problem in problems[url]


def test_check_goes_with_nothing_that_sends_or_waits(tmp_path):
    assert check(tmp_path, "https://x/y.mp3", "--wait")[0] == 2
    assert check(tmp_path)[0] == 2


def test_one_stem_is_submitted_and_fetched(fleet, tmp_path):
    (tmp_path / "mine.wav").write_bytes(song(0.5))

    done = run(
        fleet.pipeline, SCRIPT, str(tmp_path / "mine.wav"), "--stem", "vocals", "--format", "flac",
        "--bit-depth", "24", "--output", str(tmp_path / "stems"), "--json",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "stems" / "mine").iterdir()] == ["vocals.flac"]
    assert ended(done)["mine"]["stems"].keys() == {"vocals"}


@pytest.mark.parametrize("places", ["", "songs", "uvr/sources", "uvr/a/other"])
def test_files_are_not_uploaded_where_the_processors_may_not_read(places):
    environ = {"S3_BUCKET": "uvr", "S3_PREFIX": "a/", "S3_SOURCE_BUCKETS": places}

    with (
        pytest.raises(WrongUsage, match="Add uvr/a/sources to S3_SOURCE_BUCKETS"),
        to_s3(Settings.from_environ(environ)),
    ):
        pass
