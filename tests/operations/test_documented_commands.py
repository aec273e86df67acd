"""The commands that the documents show are commands that work."""

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENTS = sorted([Path("README.md"), Path("CONTRIBUTING.md"), *Path("docs").glob("*.md")])
#: What stands for an id of the reader's.
ELLIPSIS = "…"


class Understood(Exception):
    """Raised in place of the work that a parsed command line asks for."""


def blocks(document):
    return re.findall(
        r"^```\w*\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def of_scripts():
    for document in DOCUMENTS:
        lines = "\n".join(blocks(document)).replace("\\\n", " ").splitlines()
        inline = re.findall(r"`(python [^` \n]+ [^`\n]+)`", document.read_text(encoding="utf-8"))
        for line in [*lines, *inline]:
            command = re.match(r" *python (scripts|benchmarks)/(\w+)\.py(.*)", line)
            # Square brackets, bars and N are of a synopsis; test.py hands its arguments to pytest.
            if command and command[2] != "test" and not re.search(r"[\[|]|N…", command[3]):
                # Two spaces or more, and a number sign, begin the reader's explanation.
                arguments = re.split(r"\s{2,}(?!-)|\s#", command[3])[0].strip()
                yield f"{command[1]}.{command[2]}", arguments


def commands(document, tool):
    """Return the commands of *document* that run *tool*, on one line each."""
    lines = "".join(blocks(Path(document))).replace("\\\n", " ").splitlines()
    return [line for line in lines if tool in line]


@pytest.mark.parametrize(("script", "arguments"), sorted(set(of_scripts())))
def test_a_script_understands_what_the_documents_show(script, arguments, tmp_path, monkeypatch):
    module = importlib.import_module(script)
    words = shlex.split(arguments.replace(ELLIPSIS, ""))
    monkeypatch.chdir(tmp_path)
    for word in words:
        if word.endswith((".mp3", ".csv", ".onnx")) and ":" not in word:
            Path(word).touch()

    parse_args = argparse.ArgumentParser.parse_args

    def only_parse(parser, *_arguments):
        parse_args(parser, words)  # ends the process when it does not understand
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    with pytest.raises(Understood):
        module.main()


def at(pipeline, command):
    """Return *command* for this test's Kafka, topic and group."""
    for tool in ("kafka-console-producer", "kafka-consumer-groups", "kafka-topics"):
        command = command.replace(f"{tool}.sh", shlex.quote(str(pipeline.broker.tool(tool))))
    return (
        command.replace("localhost:9092", pipeline.kafka)
        .replace("uvr_processor_group", f"{pipeline.name}_processors")
        .replace("uvr_tasks", pipeline.tasks)
    )


@pytest.mark.skipif(sys.platform == "win32", reason="they are lines of a POSIX shell")
def test_what_the_documents_show_of_kafkas_own_tools_works(running, shared_world):
    pipeline = running
    song = shared_world.url("/song.wav")
    producers = [
        *commands("README.md", "kafka-console-producer.sh"),
        *commands("docs/producing-tasks.md", "kafka-console-producer.sh"),
    ]
    assert len(producers) >= 1
    for number, command in enumerate(producers):
        line = command.replace("https://example.com/song.mp3", song).replace(
            "song-1", f"documented-{number}"
        )
        line = line.replace("https://example.com/hook", shared_world.url("/hook"))
        subprocess.run(["sh", "-c", at(pipeline, line)], check=True, capture_output=True)
        assert pipeline.outcome(f"documented-{number}")["status"] == "succeeded"

    described, reset = commands("docs/operations.md", "kafka-consumer-groups.sh")
    assert pipeline.tasks in subprocess.check_output(
        ["sh", "-c", at(pipeline, described)], text=True
    )
    answered = subprocess.run(["sh", "-c", at(pipeline, reset)], capture_output=True, text=True)
    # It is understood, and refused because somebody is at work.
    assert "current state is Stable" in answered.stdout + answered.stderr

    for raised in commands("docs/operations.md", "kafka-topics.sh"):
        subprocess.run(["sh", "-c", at(pipeline, raised)], check=True, capture_output=True)


def test_the_producer_in_python_sends_a_task_that_is_done(running, shared_world):
    (snippet,) = [
        block for block in blocks(Path("docs/producing-tasks.md")) if "KafkaProducer" in block
    ]
    snippet = snippet.replace("localhost:9092", running.kafka).replace("uvr_tasks", running.tasks)
    snippet = snippet.replace("https://example.com/song.mp3", shared_world.url("/song.wav"))
    snippet = (
        snippet.replace("https://example.com/hook", shared_world.url("/hook"))
        + "\nprint(task_uuid)\n"
    )

    said = subprocess.check_output([sys.executable, "-c", snippet], text=True).split()

    assert re.fullmatch(rf"{running.tasks}-\d+@\d+", said[0])
    assert running.outcome(said[1])["status"] == "succeeded"
