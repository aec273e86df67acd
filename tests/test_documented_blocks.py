"""JSON, Python and settings in the documents are ones that work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from config import Settings
from tests.schemas.mutations import example
from tests.schemas.validators import in_python

DOCUMENTS = sorted(
    [*Path().glob("*.md"), *Path("docs").glob("**/*.md"), *Path("examples").glob("**/*.md")]
)
#: Other programs' variables, those of commands and of examples, and names that only look like one.
OTHER_VARIABLES = {
    *("CALLBACK_AUDIENCE", "CALLBACK_KEY", "STATUS_TOKEN", "STATUS_TOKEN_FILE", "UVR_ENV_FILE"),
    *("UVR_HOSTILE_STRIDE", "UVR_MODEL_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY"),
    *("SASL_PLAINTEXT", "SASL_SSL", "TASK_UUID", "MODEL_SUFFIXES", "UVR_MDXNET_9482"),
}
#: Whose settings they are is said where they stand.
OTHER_PREFIXES = ("AWS_", "OTEL_", "PIP_")


def blocks(document, *languages):
    """Return a document's fenced blocks in any of *languages*."""
    text = document.read_text(encoding="utf-8")
    fences = re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [block for language, block in fences if language in languages]


def values(text):
    """Return the JSON values that *text* holds, one after the other."""
    decoder, found = json.JSONDecoder(), []
    text = text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return found


def filled(shown: Any, whole: Any) -> Any:
    """Return *shown*, with what it elides taken from *whole*."""
    if isinstance(shown, dict) and isinstance(whole, dict):
        return {key: filled(value, whole.get(key)) for key, value in shown.items()}
    return whole if isinstance(shown, str) and "…" in shown else shown


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_documented_json_is_valid(document):
    for shown in (value for block in blocks(document, "json") for value in values(block)):
        if "audio_url" in shown:
            assert in_python([("task", shown)]) == [None]
        elif str(shown.get("type", "")).startswith("uvr.task."):
            kind = shown["type"].rpartition(".")[2]
            whole = example(f"callback-{kind}")
            callback = filled(shown, whole)
            if kind == "succeeded":
                callback["data"]["receipt"] = whole["data"]["receipt"] | callback["data"]["receipt"]
            assert in_python([("callback", callback)]) == [None]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_documented_task_is_valid_wherever_it_stands(document):
    text = document.read_text(encoding="utf-8")
    tasks = [json.loads(task) for task in re.findall(r"""'[\w|:-]*(\{"task_uuid".*?\})'""", text)]

    assert in_python([("task", task) for task in tasks]) == [None] * len(tasks)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_documented_python_is_python(document):
    for block in blocks(document, "python"):
        compile(block, str(document), "exec")


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_documented_setting_exists(document):
    settings = {name.upper() for name in Settings.model_fields}
    known = settings | {f"{name}_FILE" for name in settings} | OTHER_VARIABLES
    text = document.read_text(encoding="utf-8")
    code = " ".join(re.findall(r"`([^`\n]+)`", text)) + " ".join(blocks(document, "", "bash"))
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]*[A-Z0-9]\b", code))

    assert {name for name in named - known if not name.startswith(OTHER_PREFIXES)} == set()
