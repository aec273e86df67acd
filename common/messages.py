"""Messages between processes: bytes in Kafka and S3, frozen objects in the code.

The bytes are validated only here, so no other module sees dicts with string keys. Unknown fields
are ignored, so that either side of a topic can be upgraded first.
"""

from __future__ import annotations

import heapq
import json
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

import pydantic_core
from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from common import formats
from common.errors import InvalidMessage, InvalidTask, TaskError

T = TypeVar("T")
S = TypeVar("S")
Format = formats.Format
StemName = Literal["vocals", "instrumental"]
STEMS: tuple[StemName, StemName] = ("vocals", "instrumental")
Status = Literal["succeeded", "failed"]
Stage = Literal["download", "separate", "upload", "callback"]
PriorityName = Literal["normal", "high"]

#: Larger records are refused before they are parsed; a task has a few hundred bytes.
MAX_MESSAGE_BYTES = 1_048_576
MAX_ERROR_CHARACTERS = 1000
MAX_IGNORED_FIELDS, MAX_IGNORED_CHARACTERS = 20, 64
TASK_UUID_PATTERN = r"^[A-Za-z0-9_-]{1,128}$"
#: What the published schemas say of rules that the validators below check in full.
_CONTROL = r"\u0000-\u001f\u007f"
_AUDIO_URL_RULE = {
    "pattern": rf"^([Hh][Tt][Tt][Pp][Ss]?://|[Ss]3://|[Ff][Ii][Ll][Ee]:///)[^{_CONTROL}]+$"
}
_CALLBACK_URL_RULE = {"pattern": rf"^[Hh][Tt][Tt][Pp][Ss]?://[^{_CONTROL}]*$"}
_FILE_NAME_RULE = {"pattern": rf"^(?!\.{{1,2}}$)[^/\\:{_CONTROL}]+$"}


def utc_now() -> datetime:
    """Return the present time in UTC, in whole seconds as in callbacks."""
    return datetime.now(UTC).replace(microsecond=0)


def _depth(value: Any) -> int:  # noqa: ANN401 -- any JSON value
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    return 1 + max(map(_depth, children), default=0)


def _check_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    # Results and callbacks contain it, and their readers limit nesting, too.
    if _depth(metadata) > 32:
        raise ValueError("must not be nested deeper than 32 levels")
    # JSON allows numbers that overflow a float (1e999), which would not be echoed as valid JSON.
    size = len(
        json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    )
    if size > 4096:
        raise ValueError(f"must be at most 4096 bytes as JSON, not {size}")
    return metadata


def _check_printable(text: str) -> str:
    # Control characters, invisible ones, and those that reverse the direction of writing.
    if not text.isprintable():
        raise ValueError("must not contain control characters or invisible ones")
    return text


def printable(text: str) -> str:
    """Return *text* with a question mark for every control character and invisible one."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _check_moment(moment: datetime) -> datetime:
    if not 1970 <= moment.year < 9999:
        raise ValueError("must be between 1970 and 9998")
    return moment.astimezone(UTC).replace(microsecond=0)


def _check_file_name(name: str) -> str:
    if name in {".", ".."} or any(separator in name for separator in "/\\:"):
        raise ValueError("must be the name of a file in UVR_MODEL_DIR, without a folder")
    return name


def _check_callback_url(url: str) -> str:
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return url


def _check_stem_names(names: tuple[StemName, ...]) -> tuple[StemName, ...]:
    if not names:
        raise ValueError(f"must name {' or '.join(STEMS)}")
    if len(set(names)) < len(names):
        raise ValueError("must not name a stem twice")
    return tuple(name for name in STEMS if name in names)


TaskUuid = Annotated[
    str,
    Field(
        pattern=TASK_UUID_PATTERN,
        description="The task's id, chosen by its sender; also the key of its records.",
    ),
]
Url = Annotated[str, Field(min_length=1, max_length=8192), AfterValidator(_check_printable)]
AudioUrl = Annotated[
    Url,
    Field(
        description="The source: http(s)://, s3://bucket/key in a place of S3_SOURCE_BUCKETS, or "
        "file:/// below INPUT_DIR.",
        json_schema_extra=_AUDIO_URL_RULE,
    ),
]
CallbackUrl = Annotated[
    Url,
    AfterValidator(_check_callback_url),
    Field(description="Where the outcome is sent.", json_schema_extra=_CALLBACK_URL_RULE),
]
ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=255,
        description="A file in the processors' UVR_MODEL_DIR; their UVR_MODEL by default.",
        json_schema_extra=_FILE_NAME_RULE,
    ),
    AfterValidator(_check_printable),
    AfterValidator(_check_file_name),
]
#: Strict tuples take no JSON arrays.
StemNames = Annotated[
    tuple[StemName, ...],
    Field(
        strict=False,
        description="What is stored; both stems are made and checked.",
        json_schema_extra={"minItems": 1, "uniqueItems": True},
    ),
    AfterValidator(_check_stem_names),
]
Metadata = Annotated[
    dict[str, Any],
    AfterValidator(_check_metadata),
    Field(
        description="Any JSON object, returned as it was sent: at most 4096 bytes as JSON, and not "
        "nested deeper than 32 levels.",
        # The shortest of this many properties fill 4096 bytes.
        json_schema_extra={"maxProperties": 819},
    ),
]
Sha256 = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the bytes, in hexadecimal.")
]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Name = Annotated[str, Field(max_length=255), AfterValidator(_check_printable)]
IgnoredFields = Annotated[tuple[Name, ...], Field(strict=False, max_length=MAX_IGNORED_FIELDS)]
#: At most the largest number that every reader of JSON, and Kafka itself, can hold.
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
#: A record's timestamp; its producer can write any number of 64 bits there.
Timestamp = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Moment = Annotated[AwareDatetime, AfterValidator(_check_moment)]
#: A measured duration, level or ratio.
Measure = Annotated[float, Field(ge=0)]
# Built once, because building one takes longer than validating a record with it.
_TASK_UUID: TypeAdapter[str] = TypeAdapter(TaskUuid)
_CALLBACK_URL: TypeAdapter[str] = TypeAdapter(CallbackUrl)
_METADATA: TypeAdapter[dict[str, Any]] = TypeAdapter(Metadata)


class Message(BaseModel):
    """Base of every message: frozen, strict, and ignoring unknown fields."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", protected_namespaces=(), allow_inf_nan=False
    )

    def encode(self) -> bytes:
        """Return the message as UTF-8 JSON."""
        return self.model_dump_json().encode()


class Origin(Message):
    """The task's record, which identifies an order.

    The timestamp, in milliseconds, is the record's own: a topic that was made anew has the same
    offsets again. It is -1 for a record without one, and null where a release wrote the origin that
    did not know it.
    """

    topic: TopicName
    partition: Count
    offset: Count
    timestamp: Timestamp | None = None

    def same_order(self, other: Origin) -> bool:
        """Return whether both identify one order; an unknown timestamp equals any."""
        known = None not in (self.timestamp, other.timestamp)
        same_time = self.timestamp == other.timestamp or not known
        return self._place == other._place and same_time

    def newer_than(self, other: Origin) -> bool:
        """Return whether this order was sent after *other*, as far as the two can tell.

        Timestamps decide first, because offsets begin again in a topic that was made anew.
        """
        times = (self.timestamp, other.timestamp)
        if self.timestamp is None or other.timestamp is None or -1 in times or len({*times}) == 1:
            return self._place[:2] == other._place[:2] and self.offset > other.offset
        return self.timestamp > other.timestamp

    @property
    def _place(self) -> tuple[str, int, int]:
        return self.topic, self.partition, self.offset


class Task(Message):
    """One order: separate this audio (topic KAFKA_TASK_TOPIC)."""

    task_uuid: TaskUuid
    audio_url: AudioUrl = Field(validation_alias=AliasChoices("audio_url", "audio"))
    callback_url: CallbackUrl | None = Field(
        default=None, validation_alias=AliasChoices("callback_url", "hook_url")
    )
    model: ModelName | None = None
    output_format: Format | None = None
    bitrate_kbps: int | None = Field(
        default=None,
        description="Of each stem, in kbit/s, for mp3, m4a and opus, which have defaults.",
    )
    bit_depth: int | None = Field(
        default=None,
        description="Of wav and flac; 32 bits are floats, in wav only. The source's by default.",
    )
    stems: StemNames = STEMS
    priority: PriorityName = "normal"
    metadata: Metadata = Field(default_factory=dict)

    model_config = ConfigDict(json_schema_extra={"allOf": formats.schema_rules()})

    # Without an output_format, what any format can have is valid until `in_format` decides.
    @field_validator("bitrate_kbps")
    @classmethod
    def _check_bitrate(cls, bitrate_kbps: int, info: ValidationInfo) -> int:
        formats.check_bitrate(bitrate_kbps, info.data.get("output_format"))
        return bitrate_kbps

    @field_validator("bit_depth")
    @classmethod
    def _check_bit_depth(cls, bit_depth: int, info: ValidationInfo) -> int:
        formats.check_bit_depth(bit_depth, info.data.get("output_format"))
        return bit_depth

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:  # noqa: ANN401 -- any JSON value
        return (
            {key: value for key, value in data.items() if value is not None}
            if isinstance(data, dict)
            else data
        )

    @classmethod
    def decode(cls, value: bytes | None) -> Self:
        """Read a task from a record's *value*.

        Raises:
            InvalidMessage: not a JSON object with a valid task_uuid; nobody can be notified.
            InvalidTask: the task_uuid is valid, another field is not; see `Addressee.decode`.
        """
        data = _json_object(value)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            unreadable = (
                InvalidTask if _readable(_TASK_UUID, data.get("task_uuid")) else InvalidMessage
            )
            raise unreadable(_explain(error)) from error

    def in_format(self, default: Format) -> Self:
        """Return the task with an output format: its own, or the *default*.

        Raises:
            InvalidTask: the default format cannot have the task's bit rate or depth.
        """
        if self.output_format is not None:
            return self
        self.check_choices(default, self.bitrate_kbps, self.bit_depth)
        return self.model_copy(update={"output_format": default})

    @classmethod
    def check_choices(
        cls, output_format: Format, bitrate_kbps: int | None, bit_depth: int | None
    ) -> None:
        """Check that stems of a format can have this bit rate and depth.

        Raises:
            InvalidTask: they cannot; the message says what is allowed.
        """
        name = ""
        try:
            if bitrate_kbps is not None:
                name = "bitrate_kbps"
                formats.check_bitrate(bitrate_kbps, output_format)
            if bit_depth is not None:
                name = "bit_depth"
                formats.check_bit_depth(bit_depth, output_format)
        except ValueError as error:
            raise InvalidTask(f"{name}: {error}") from error


_TASK_FIELDS = frozenset(Task.model_fields) | {"audio", "hook_url"}


def ignored_fields(value: bytes | None) -> tuple[str, ...]:
    """Return the names of a task's unknown fields, sorted, and limited for hostile tasks.

    Raises:
        InvalidMessage: *value* is not a JSON object.
    """
    unknown = _json_object(value).keys() - _TASK_FIELDS
    first = heapq.nsmallest(MAX_IGNORED_FIELDS, unknown)
    return tuple(dict.fromkeys(printable(name[:MAX_IGNORED_CHARACTERS]) for name in first))


def is_high(value: bytes | None) -> bool:
    """Return whether a task's *value* asks for high priority; its other fields may be invalid.

    One process forwards a task by this answer, and another one, perhaps of another version, skips
    it by this answer at its own turn. Therefore the answer for a given value must never change.
    """
    if value is None or b"high" not in value:  # which costs less than parsing
        return False
    try:
        return bool(_json_object(value).get("priority") == "high")
    except InvalidMessage:
        return False


class Addressee(Message):
    """Whom to notify of an invalid task: its id and, where valid, its callback URL."""

    task_uuid: TaskUuid
    callback_url: CallbackUrl | None = None
    metadata: Metadata = Field(default_factory=dict)

    @classmethod
    def decode(cls, value: bytes | None) -> Self | None:
        """Read the valid fields of an invalid task's *value*; None without a valid task_uuid."""
        try:
            data = _json_object(value)
        except InvalidMessage:
            return None
        task_uuid = _readable(_TASK_UUID, data.get("task_uuid"))
        if task_uuid is None:
            return None
        return cls(
            task_uuid=task_uuid,
            callback_url=_readable(_CALLBACK_URL, data.get("callback_url") or data.get("hook_url")),
            metadata=_readable(_METADATA, data.get("metadata")) or {},
        )


class ErrorInfo(Message):
    """Why a task failed; `retryable` when the same task may succeed if sent again."""

    code: Annotated[
        str,
        Field(
            pattern=r"^[a-z_]{1,64}$",
            description="One of the stable codes in the README; later versions may add some.",
            examples=sorted(error.code for error in TaskError.__subclasses__()),
        ),
    ]
    message: Annotated[str, Field(max_length=MAX_ERROR_CHARACTERS), AfterValidator(printable)]
    retryable: bool


class Stem(Message):
    """One stem in the handoff; `path` is relative to HANDOFF_URL, with forward slashes."""

    path: Name
    bytes: Count
    sha256: Sha256
    format: Format


def _is_none(value: object) -> bool:
    return value is None


#: What the published schemas say of an object with a field for each stem that was asked for.
ANY_STEM: Any = {"anyOf": [{"properties": {name: {}}, "required": [name]} for name in STEMS]}


#: What a message says of one stem; it leaves out a stem that was not asked for.
OptionalStem = Annotated[S | None, Field(exclude_if=_is_none)]


class _OfStems(Message, Generic[S]):
    """Something of each stem that the task asked for; at least of one."""

    model_config = ConfigDict(json_schema_extra=ANY_STEM)

    vocals: OptionalStem[S] = None
    instrumental: OptionalStem[S] = None

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if not self.by_name():
            raise ValueError(f"must have {' or '.join(STEMS)}")
        return self

    def by_name(self) -> dict[StemName, S]:
        """Return what is there, by the stem's name."""
        stems = {"vocals": self.vocals, "instrumental": self.instrumental}
        return {name: stem for name in STEMS if (stem := stems[name]) is not None}


class Stems(_OfStems[Stem]):
    """The stems in the handoff."""


class Source(Message):
    """The decoded source: the hash of its bytes, and the shape of its audio.

    `track` is the number of the audio track that was used, of `tracks`; `damaged` the number of
    packets that do not decode or are missing, which are silent.
    """

    sha256: Sha256
    seconds: Measure
    frames: Count
    sample_rate: Count
    channels: Count
    codec: Name
    track: Count = 1
    tracks: Count = 1
    damaged: Count = 0


class StemPeaks(Message):
    """The largest absolute sample of each stem as written; 1.0 is full scale."""

    vocals: Measure
    instrumental: Measure


class StageSeconds(Message):
    """Durations of the stages; `separate` includes decoding and encoding."""

    download: Measure
    separate: Measure


class ReusedFrom(Message):
    """The earlier order whose stems were copied."""

    task_uuid: TaskUuid
    origin: Origin


class Receipt(Message):
    """How a separation was made, and its quality, measured on the files as written.

    Both stems are made and measured, even when only one of them is stored. `ignored_fields` are
    the task's unknown fields; see the function of that name.

    `residual_db` is the RMS of (vocals + instrumental) / gain - source in dB of full scale, floor
    -200, null for lossy formats. `realtime_factor` is seconds of audio per second of separation.

    `reused_from` names the earlier order whose stems were copied; what the receipt says of the
    separation is then that order's, and `seconds.download` and `ignored_fields` are this one's.
    """

    source: Source
    engine: Name
    model: Name | None
    model_sha256: Sha256 | None
    device: Name
    residual_db: float | None
    gain: Measure
    peak: StemPeaks
    seconds: StageSeconds
    realtime_factor: Measure
    ignored_fields: IgnoredFields = Field(default=(), exclude_if=lambda names: not names)
    reused_from: ReusedFrom | None = Field(default=None, exclude_if=_is_none)

    def completed(self, download_seconds: float, ignored: tuple[str, ...]) -> Self:
        """Return the receipt with what only the processor knows."""
        seconds = StageSeconds(download=download_seconds, separate=self.seconds.separate)
        return self.model_copy(update={"seconds": seconds, "ignored_fields": ignored})


class Result(Message):
    """What the processor sends to the uploader (topic KAFKA_RESULT_TOPIC).

    With `reuse_key`, later orders of the same audio and settings may get copies of the stems. Stems
    that are copies (`reused_from` in the receipt) wait in S3_BUCKET instead of at HANDOFF_URL.
    """

    task_uuid: TaskUuid
    status: Status
    error: ErrorInfo | None
    origin: Origin
    stems: Stems | None
    receipt: Receipt | None
    callback_url: CallbackUrl | None
    metadata: Metadata
    attempt: Count
    reuse_key: Sha256 | None = Field(default=None, exclude_if=_is_none)

    @model_validator(mode="before")
    @classmethod
    def _no_stems(cls, data: Any) -> Any:  # noqa: ANN401 -- any JSON value
        """Read the contract's `"stems": {}` of a failed result."""
        return {**data, "stems": data.get("stems") or None} if isinstance(data, dict) else data

    @field_serializer("stems", mode="wrap")
    def _empty_stems(self, stems: Stems | None, serialise: SerializerFunctionWrapHandler) -> Any:  # noqa: ANN401
        return {} if stems is None else serialise(stems)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.status == "succeeded" and (self.stems is None or self.receipt is None):
            raise ValueError("a succeeded result must have stems and a receipt")
        if self.status == "failed" and self.error is None:
            raise ValueError("a failed result must have an error")
        return self

    @property
    def is_reused(self) -> bool:
        """Whether the stems are copies of an earlier order's."""
        return self.receipt is not None and self.receipt.reused_from is not None

    @classmethod
    def succeeded(
        cls,
        task: Task | Addressee,
        origin: Origin,
        attempt: int,
        stems: Stems,
        receipt: Receipt,
        reuse_key: str | None = None,
    ) -> Self:
        """Return the result of a successful separation."""
        return cls(
            task_uuid=task.task_uuid,
            status="succeeded",
            error=None,
            origin=origin,
            stems=stems,
            receipt=receipt,
            callback_url=task.callback_url,
            metadata=task.metadata,
            attempt=attempt,
            reuse_key=reuse_key,
        )

    @classmethod
    def failed(
        cls, addressee: Task | Addressee | Result, origin: Origin, attempt: int, error: TaskError
    ) -> Self:
        """Return the result that reports to *addressee* why its task failed."""
        info = ErrorInfo(
            code=error.code, message=error.message[:MAX_ERROR_CHARACTERS], retryable=error.retryable
        )
        return cls(
            task_uuid=addressee.task_uuid,
            status="failed",
            error=info,
            origin=origin,
            stems=None,
            receipt=None,
            callback_url=addressee.callback_url,
            metadata=addressee.metadata,
            attempt=attempt,
        )

    @classmethod
    def decode(cls, value: bytes | None) -> Self:
        """Read a result from a record's *value*.

        Raises:
            InvalidMessage: not a result; nobody can be notified.
        """
        try:
            return cls.model_validate(_json_object(value))
        except ValidationError as error:
            raise InvalidMessage(_explain(error)) from error


class Link(Message):
    """A URL in a callback; without `expires` it does not end."""

    url: str
    expires: datetime | None = Field(default=None, exclude_if=lambda moment: moment is None)

    @field_serializer("expires")
    def _rfc3339(self, expires: datetime | None) -> str | None:
        return None if expires is None else rfc3339(expires)


class StoredStem(Message):
    """One stem in S3."""

    key: str
    bytes: Count
    sha256: Sha256
    format: Format

    @classmethod
    def of(cls, stem: Stem, key: str) -> Self:
        """Return *stem* as it is stored at *key*."""
        return cls(key=key, bytes=stem.bytes, sha256=stem.sha256, format=stem.format)


class StoredStems(_OfStems[StoredStem]):
    """The stems in S3."""


class Outcome(Message):
    """How an order ended: the content of an outcome's object, and the source of its callback."""

    task_uuid: TaskUuid
    status: Status
    origin: Origin
    error: ErrorInfo | None
    stems: StoredStems | None
    receipt: Receipt | None
    metadata: Metadata
    timestamp: Moment

    @field_serializer("timestamp")
    def _rfc3339(self, timestamp: datetime) -> str:
        return rfc3339(timestamp)

    @classmethod
    def of(cls, result: Result, stems: StoredStems | None) -> Self:
        """Return the outcome of *result*, whose *stems* are in S3."""
        return cls(
            task_uuid=result.task_uuid,
            status=result.status,
            origin=result.origin,
            error=result.error,
            stems=stems,
            receipt=result.receipt,
            metadata=result.metadata,
            timestamp=utc_now(),
        )

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Read an outcome's object.

        Raises:
            InvalidMessage: it is not an outcome, or damaged.
        """
        _check_size(value)
        try:
            return cls.model_validate_json(value)
        except ValidationError as error:
            raise InvalidMessage(_explain(error)) from error


class Progress(Message):
    """How far a task has come (topic KAFKA_PROGRESS_TOPIC, best effort).

    `status` says that the order has ended: its outcome is recorded. Reports of the stage callback
    have it, and others have not; an order without a callback URL ends with one such report.
    """

    task_uuid: TaskUuid
    stage: Stage
    percent: int = Field(ge=0, le=100)
    timestamp: datetime = Field(default_factory=utc_now)
    #: Whether an idle process took the task over from a busy one; in its first report alone.
    taken_over: bool = Field(default=False, exclude_if=lambda taken_over: not taken_over)
    status: Status | None = Field(default=None, exclude_if=lambda status: status is None)

    @classmethod
    def decode(cls, value: bytes | None) -> Self | None:
        """Read progress from a record's *value*; None when it is invalid."""
        try:
            return cls.model_validate_json(value or b"")
        except ValidationError:
            return None

    @field_serializer("timestamp")
    def _rfc3339(self, timestamp: datetime) -> str:
        return rfc3339(timestamp)


def rfc3339(moment: datetime) -> str:
    """Return *moment* as `2026-11-21T07:05:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json_object(value: bytes | None) -> dict[str, Any]:
    if value is None:
        raise InvalidMessage("The record has no value (a tombstone); send a JSON object.")
    _check_size(value)
    try:
        # pydantic's parser limits nesting and the length of numbers, and refuses NaN and bad UTF-8.
        data = pydantic_core.from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidMessage(f"The record is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise InvalidMessage(f"The record is a JSON {type(data).__name__}; send a JSON object.")
    return data


def _check_size(value: bytes) -> None:
    if len(value) > MAX_MESSAGE_BYTES:
        raise InvalidMessage(
            f"The record has {len(value)} bytes; send at most {MAX_MESSAGE_BYTES}."
        )


def _readable(kind: TypeAdapter[T], value: Any) -> T | None:  # noqa: ANN401 -- any JSON value
    try:
        return kind.validate_python(value, strict=True)
    except ValidationError:
        return None


def _explain(error: ValidationError) -> str:
    """Return which fields are invalid and why, without repeating strangers' values."""
    problems = []
    for problem in error.errors():
        field = ".".join(map(str, problem["loc"])) or "message"
        problems.append(f"{field}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(problems)[:MAX_ERROR_CHARACTERS]
