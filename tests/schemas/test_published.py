"""The files in schemas/ say what the models say, and validators understand them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from common.messages import Outcome, Progress, Result, Task
from config import Settings
from tests.hostile import records
from tests.schemas.mutations import MUTATIONS, example, mutated, schema_of
from tests.schemas.validators import SCHEMAS, in_python
from tools.schemas import files
from tools.schemas.documents import DOCUMENTS, Document

NAMES = [document.name for document in DOCUMENTS]
EXAMPLES = sorted(path.stem for path in (SCHEMAS / "examples").glob("*.json"))
READERS: dict[str, Any] = {"task": Task, "result": Result, "outcome": Outcome, "progress": Progress}
REFUSED = [(schema_of(name), mutated(name, path, value)) for name, path, value in MUTATIONS]
#: Rules that JSON Schema cannot say; the descriptions do.
UNSAID = {
    "metadata over the limit",
    "metadata over the limit in bytes alone",
    "metadata nested deep",
    "a number that no float holds",
    "an audio_url written backwards",
    "a model written backwards",
    "a model of a space that is not seen",
}


def test_the_files_are_what_the_models_say():
    assert files.different(SCHEMAS) == []


def test_the_command_says_so_too():
    done = subprocess.run(
        [sys.executable, "scripts/schemas.py", "check"], capture_output=True, text=True
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_differs_is_named_and_written_anew(tmp_path):
    shutil.copytree(SCHEMAS, tmp_path / "schemas")
    folder = tmp_path / "schemas"
    (folder / "task.json").write_text("{}")
    (folder / "progress.json").unlink()
    (folder / "examples" / "old.json").touch()
    names = ["examples/old.json", "progress.json", "task.json"]

    assert files.different(folder) == names
    assert files.write(folder) == names
    assert files.different(folder) == []


def test_a_field_that_a_model_gains_is_in_its_schema():
    class LaterTask(Task):
        """A task of a later version."""

        colour: int = 7

    schema = Document("task", LaterTask, sent_to_us=True).schema()

    assert schema["properties"]["colour"] == {"default": 7, "type": ["integer", "null"]}


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_valid_and_names_only_what_it_holds(name):
    schema = json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))

    Draft202012Validator.check_schema(schema)
    definitions = {f"#/$defs/{definition}" for definition in schema.get("$defs", {})}
    assert set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(schema))) == definitions


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_valid_and_read_by_the_code(name):
    schema = schema_of(name)

    assert in_python([(schema, example(name))]) == [None]
    if schema in READERS:
        encoded = json.dumps(example(name)).encode()
        assert READERS[schema].decode(encoded).task_uuid == example(name)["task_uuid"]


def test_every_schema_has_an_example():
    assert {schema_of(name) for name in EXAMPLES} == set(NAMES)


def test_readers_accept_fields_that_they_do_not_know():
    messages = [(schema_of(name), example(name) | {"later": {"x": [1]}}) for name in EXAMPLES]

    assert in_python(messages) == [None] * len(messages)


@pytest.mark.parametrize(
    "record",
    [
        record
        for record in records.corpus()
        if record.code not in {"invalid_message", "url_forbidden"}
    ],
    ids=lambda record: record.name,
)
def test_the_schema_accepts_of_hostile_tasks_what_the_code_does(record):
    (refusal,) = in_python([("task", json.loads(record.value))])

    if record.readable:
        assert refusal is None
    elif record.name not in UNSAID:
        assert refusal is not None


def test_python_refuses_every_mutation():
    assert len(REFUSED) >= 50
    accepted = [
        mutation
        for mutation, refusal in zip(MUTATIONS, in_python(REFUSED), strict=True)
        if refusal is None
    ]
    assert accepted == []


def test_node_refuses_every_mutation_and_accepts_every_example(node):
    messages = [(schema_of(name), example(name)) for name in EXAMPLES]

    assert node.refusals(messages) == [None] * len(messages)
    assert [
        mutation
        for mutation, refusal in zip(MUTATIONS, node.refusals(REFUSED), strict=True)
        if refusal is None
    ] == []


def asyncapi():
    return json.loads((SCHEMAS / "asyncapi.json").read_text("utf-8"))


def test_the_asyncapi_document_has_every_topic_and_only_files_that_exist():
    topology = Settings.model_construct().topology
    topics = {
        topic.name for service in ("processor", "uploader") for topic in topology.topics(service)
    }
    addresses = {channel["address"] for channel in asyncapi()["channels"].values()}
    files_named = set(re.findall(r'"\$ref": "\./([^"]+)"', json.dumps(asyncapi())))

    retries = {topic for topic in topics if topology.is_retry_topic(topic)}
    template = f"{topology.result_topic}_callback_retry_{{number}}"
    assert addresses == (topics - retries) | {template, None}
    assert [name for name in files_named if not (SCHEMAS / name).is_file()] == []


def test_the_asyncapi_document_follows_the_official_schema(node):
    broken = asyncapi() | {"operations": {"x": {"action": "shout"}}}

    valid, invalid = node.refusals([("asyncapi", asyncapi()), ("asyncapi", broken)])

    assert valid is None
    assert invalid is not None


def test_typescript_has_types_by_the_schemas_alone(node):
    callback, task = node.typescript("callback"), node.typescript("task")

    assert "export type Callback = SucceededCallback | FailedCallback;" in callback
    assert 'type: "uvr.task.succeeded";' in callback
    assert "[k: string]: unknown;\n}\n" not in callback.replace("metadata: {\n    [k", "")
    assert re.search(r"^export (interface|type) Task\b", task, re.MULTILINE)
    assert "task_uuid: string;" in task


def test_every_field_of_a_task_is_in_the_page_for_senders():
    page = Path("docs/producing-tasks.md").read_text(encoding="utf-8")
    table = page.split("| field | |\n")[1].split("\n\n")[0]
    schema = json.loads((SCHEMAS / "task.json").read_text("utf-8"))

    assert [name for name in schema["properties"] if f"`{name}`" not in table] == []
