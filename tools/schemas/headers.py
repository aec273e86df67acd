"""The headers of records, as models whose fields are strings."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from common.dead_letters import PREFIX
from common.messages import TopicName

Digits = Annotated[str, Field(pattern=r"^[0-9]+$")]


def _header(field: str) -> str:
    return PREFIX + field


class DeadLetterHeaders(BaseModel):
    """The headers that say why a record was set aside, UTF-8, beside those that its sender wrote.

    The value of a record that is too large for its topic is cut, and so may its headers be.
    """

    model_config = ConfigDict(alias_generator=_header)

    reason: str = Field(pattern=r"^[a-z_]{1,64}$", description="The error code.")
    message: str = Field(description="What happened, and what to do.")
    topic: TopicName = Field(description="The topic of the record that failed.")
    partition: Digits
    offset: Digits
    attempts: Digits = Field(description="How often the record was worked on.")
    host: str = Field(description="The name of the machine that gave up.")
    version: str = Field(description="The version of the pipeline that gave up.")
    redrives: str = Field(
        max_length=20,
        description="How often it was sent again from the dead letters; senders can write it.",
    )
    truncated: Digits = Field(
        default="",
        exclude_if=lambda value: not value,
        description="The value's bytes, if it was cut.",
    )
