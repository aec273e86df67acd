"""JSON Schema 2020-12 of every message, made from the models.

A new field of a model appears by itself. A rule between fields that a validator checks in code goes
beside it, as `model_config = ConfigDict(json_schema_extra={"allOf": [{"if": …, "then": …}]})`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import AliasChoices, BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from common.callback import Callback
from common.messages import Outcome, Progress, Result, Task
from tools.schemas.headers import DeadLetterHeaders

Schema = dict[str, Any]
Variants = Mapping[str, Mapping[str, Schema]]

#: Where other programs find the schemas under one name, wherever the files lie.
ID = "urn:uvr-pipeline:schema:"
NULL: Schema = {"type": "null"}
TOLERANT = "Ignore fields that you do not know: later versions may add some."


def _definition(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _constant(value: str) -> Schema:
    return {"type": "string", "const": value}


_SUCCEEDED, _FAILED = _constant("succeeded"), _constant("failed")
_FAILED_FIELDS = {"status": _FAILED, "error": _definition("ErrorInfo"), "receipt": NULL}


@dataclass(frozen=True)
class Document:
    """One published schema; *variants* are the kinds of message that the model allows."""

    name: str
    model: type[BaseModel]
    sent_to_us: bool = False
    note: str = TOLERANT
    variants: Variants = field(default_factory=dict)

    def schema(self) -> Schema:
        """Return the schema."""
        mode: JsonSchemaMode = "validation" if self.sent_to_us else "serialization"
        made = self.model.model_json_schema(
            mode=mode, schema_generator=_Generator, ref_template="#/$defs/{model}"
        )
        if self.sent_to_us:
            _accept_nulls(made)
            _accept_older_names(made, self.model)
        definitions = made.pop("$defs", {})
        if self.variants:
            made, kinds = _split(made, self.variants)
            definitions |= kinds
        description = f"{made.pop('description')} {self.note}"
        head = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": ID + self.name,
            "title": made.pop("title"),
            "description": description,
        }
        if definitions:
            made["$defs"] = dict(sorted(definitions.items()))
        return cast("Schema", _unwrapped(head | made))


DOCUMENTS = (
    Document(
        "task",
        Task,
        sent_to_us=True,
        note="Unknown fields are ignored, and null is the same as leaving a field out.",
    ),
    Document(
        "result",
        Result,
        variants={
            "SucceededResult": {
                "status": _SUCCEEDED,
                "error": NULL,
                "stems": _definition("Stems"),
                "receipt": _definition("Receipt"),
            },
            "FailedResult": _FAILED_FIELDS | {"stems": {"type": "object", "maxProperties": 0}},
        },
    ),
    Document(
        "outcome",
        Outcome,
        variants={
            "SucceededOutcome": {
                "status": _SUCCEEDED,
                "error": NULL,
                "stems": _definition("StoredStems"),
                "receipt": _definition("Receipt"),
            },
            "FailedOutcome": _FAILED_FIELDS | {"stems": NULL},
        },
    ),
    Document(
        "callback",
        Callback,
        variants={
            "SucceededCallback": {
                "type": _constant("uvr.task.succeeded"),
                "data": _definition("SucceededData"),
            },
            "FailedCallback": {
                "type": _constant("uvr.task.failed"),
                "data": _definition("FailedData"),
            },
        },
    ),
    Document("progress", Progress),
    Document("dead-letter-headers", DeadLetterHeaders),
)


class _Generator(GenerateJsonSchema):
    """What is written: all fields that always are, and moments as `rfc3339` gives them."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002
        """Leave titles to the models: those of fields repeat their names."""
        return False

    def field_is_required(
        self,
        field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField,
        total: bool,
    ) -> bool:
        """Say that every written field is there, unless the model leaves it out at times."""
        if self.mode == "serialization":
            return "serialization_exclude_if" not in field
        return super().field_is_required(field, total)

    def ser_schema(self, schema: Any) -> JsonSchemaValue | None:  # noqa: ANN401 -- pydantic's
        """Describe a field by its type, for the types of its serialisers say less."""
        return None if schema["type"].startswith("function-") else super().ser_schema(schema)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Give defaults of what is sent to us, but for null: leaving the field out says it."""
        made = super().default_schema(schema)
        if self.mode == "serialization" or made.get("default", ...) is None:
            made.pop("default", None)
        return made

    def model_field_schema(self, schema: core_schema.ModelField) -> JsonSchemaValue:
        """Describe a field that is left out instead of being null by what it is when there."""
        inner = schema["schema"]
        if self.mode == "serialization" and "serialization_exclude_if" in schema:
            while inner["type"] in {"default", "nullable"}:
                inner = cast("core_schema.WithDefaultSchema", inner)["schema"]
        return self.generate_inner(inner)

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Describe `X | None` in the shortest way."""
        return _nullable(self.generate_inner(schema["schema"]))

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:  # noqa: ARG002
        """Describe a moment as it is written."""
        return {
            "type": "string",
            "format": "date-time",
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
        }


def _unwrapped(value: Any) -> Any:  # noqa: ANN401 -- any part of a schema
    """Return *value* with descriptions of one line per paragraph, as docstrings are not."""
    if isinstance(value, list):
        return [_unwrapped(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: re.sub(r"(?<!\n)\n(?!\n)", " ", item)
        if key == "description" and isinstance(item, str)
        else _unwrapped(item)
        for key, item in value.items()
    }


def _nullable(schema: Schema) -> Schema:
    if "type" not in schema:
        described = {"description": schema["description"]} if "description" in schema else {}
        plain = {name: value for name, value in schema.items() if name != "description"}
        return {"anyOf": [plain, NULL], **described}
    made = schema | {"type": [schema["type"], "null"]}
    return made | {"enum": [*schema["enum"], None]} if "enum" in schema else made


def _accept_nulls(schema: Schema) -> None:
    """Let every field that may be left out be null."""
    for name, value in schema["properties"].items():
        if name not in schema["required"] and not _takes_null(value):
            schema["properties"][name] = _nullable(value)


def _takes_null(schema: Schema) -> bool:
    return "null" in schema.get("type", ()) or NULL in schema.get("anyOf", ())


def _accept_older_names(schema: Schema, model: type[BaseModel]) -> None:
    """Add the older name of each field that has one; of a required field, one must be there."""
    properties = schema["properties"]
    for name, info in model.model_fields.items():
        if not isinstance(info.validation_alias, AliasChoices):
            continue
        names = [str(choice) for choice in info.validation_alias.choices]
        for other in names[1:]:
            properties[other] = properties[name] | {
                "description": f"An older name of `{name}`, which wins where both are there."
            }
        if name in schema["required"]:
            schema["required"].remove(name)
            # Not as a choice of schemas, which generators of types make unreadable.
            schema["if"], schema["else"] = _there(names[1:]), _there(names[:1])


def _there(names: list[str]) -> Schema:
    # Strict validators want to see what is required.
    return {"properties": dict.fromkeys(names, True), "required": names}


def _split(schema: Schema, variants: Variants) -> tuple[Schema, Schema]:
    """Return the schema of any of *variants*, and theirs by name."""
    described = {
        name: {key: value for key, value in schema["properties"].items() if key == "description"}
        for name in schema["properties"]
    }
    kinds = {
        name: {
            **schema,
            "title": name,
            "properties": {
                key: described[key] | fields.get(key, value)
                for key, value in schema["properties"].items()
            },
        }
        for name, fields in variants.items()
    }
    for kind in kinds.values():
        kind.pop("description", None)
    whole = {
        "title": schema["title"],
        "description": schema["description"],
        "oneOf": [_definition(name) for name in variants],
    }
    return whole, kinds
