"""The examples and tables of docs/task-life.md are those of the models."""

import json
import re
from pathlib import Path
from types import UnionType
from typing import Literal, get_args

import pytest

from common import messages
from common.callback import Callback, FailedData, LinkedStem, SucceededData
from common.messages import Outcome, Result, Stem, Stems, StoredStem, StoredStems

DATA = (SucceededData, FailedData)
PAGE = Path("docs/task-life.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"(?:<!-- (\w+) -->\n)?```json\n(.*?)```", PAGE, re.DOTALL)


def objects():
    """Yield the model that each JSON object of the page is said to be of, and the object."""
    for name, text in EXAMPLES:
        rest = text.strip()
        while rest:
            example, end = json.JSONDecoder().raw_decode(rest)
            yield name, example
            rest = rest[end:].strip()


@pytest.mark.parametrize(("name", "example"), list(objects()))
def test_every_example_is_a_message_as_it_is_sent(name, example):
    model = getattr(messages, name).model_validate_json(json.dumps(example))

    sent = json.loads(model.encode())
    # A task may leave out what has a default; all others are written by the pipeline.
    assert (example.items() <= sent.items()) if name == "Task" else (sent == example)


def test_the_last_report_of_each_story_has_a_status_and_no_earlier_stage_has():
    stories = [[json.loads(line) for line in text.splitlines()] for name, text in EXAMPLES if name == "Progress"]  # fmt: skip  # noqa: E501

    assert [story[-1].get("status") for story in stories] == ["succeeded", "failed", None]
    for report in (report for story in stories for report in story):
        assert ("status" in report) is (report["stage"] == "callback")


def columns():
    """Return the names that the table of parts gives for result, result.json and callback."""
    table = PAGE.split("## What their parts are called")[1].split("\n## ")[0]
    rows = [line.split("|")[2:5] for line in table.splitlines() if line.startswith("| ")][1:]
    parts, stem = rows[:-2], rows[-2:]
    return [
        [{name for row in part for name in re.findall(r"`([\w.]+)`", row[at])} for at in range(3)]
        for part in (parts, stem)
    ]


def test_the_table_of_parts_has_every_field_of_result_outcome_and_callback():
    (result, outcome, callback), (stem, stored, linked) = columns()

    data = {name for model in DATA for name in model.model_fields}
    assert result == Result.model_fields.keys()
    assert outcome == Outcome.model_fields.keys()
    assert callback - {"webhook-id"} == {
        *(Callback.model_fields.keys() - {"data"}),
        *(f"data.{name}" for name in data),
    }
    assert stem - {"HANDOFF_URL"} == Stem.model_fields.keys()
    assert stored == StoredStem.model_fields.keys()
    assert linked == LinkedStem.model_fields.keys()


def alternatives(kind):
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)


def test_parts_of_the_same_name_are_of_the_same_kind():
    shared = (Result.model_fields.keys() & Outcome.model_fields.keys()) - {"stems"}

    for name in shared:
        fields = [model.model_fields.get(name) for model in (Result, Outcome, *DATA)]
        kinds = {kind for field in fields if field for kind in alternatives(field.annotation)}
        # `data` of a callback is of one status each.
        kinds -= {type(None), Literal["succeeded"], Literal["failed"]}
        assert len(kinds) == 1, (name, kinds)
    assert Stems.model_fields.keys() == StoredStems.model_fields.keys() == set(messages.STEMS)
