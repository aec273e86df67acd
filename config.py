"""Every setting of both services: read once, checked together, frozen.

The only reader of the environment. tests/test_config.py compares README's table with `Settings`.
To add a setting: one field here, one row in README.md, one line in .env.example.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypedDict
from urllib.parse import unquote, urlsplit

from dotenv import load_dotenv
from dotenv.parser import Original, parse_stream
from kafka import KafkaConsumer, KafkaProducer
from kafka.codec import has_gzip, has_lz4, has_snappy, has_zstd
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from common.errors import SettingsInvalid
from common.kafka_settings import KafkaSettings
from common.messages import Format
from common.separation.protocol import EngineName, SeparationSettings
from common.signing import parse_key
from common.source_folders import SourceFolder
from common.topology import OffsetReset, Service, Topology

#: Settings that the environment lacks are read from this file, whatever the working folder.
ENV_FILE = Path(__file__).resolve().with_name(".env")

#: Arguments of kafka-python that the pipeline fixes: another value would break a promise.
OWNED_OPTIONS = {
    "group_id", "enable_auto_commit", "key_deserializer", "value_deserializer", "max_poll_records",
    "auto_offset_reset", "partition_assignment_strategy", "isolation_level",
    "acks", "enable_idempotence", "key_serializer", "value_serializer", "transactional_id",
}  # fmt: skip
#: Arguments of kafka-python that have their own setting.
OPTIONS_WITH_A_SETTING = {
    "bootstrap_servers": "KAFKA_BOOTSTRAP_SERVERS",
    "session_timeout_ms": "KAFKA_SESSION_TIMEOUT_MS",
    "heartbeat_interval_ms": "KAFKA_HEARTBEAT_INTERVAL_MS",
    "max_poll_interval_ms": "PROCESSOR_MAX_POLL_INTERVAL_MS or UPLOADER_MAX_POLL_INTERVAL_MS",
    "group_instance_id": "KAFKA_GROUP_INSTANCE_ID",
    "security_protocol": "KAFKA_SECURITY_PROTOCOL",
    "sasl_mechanism": "KAFKA_SASL_MECHANISM",
    "sasl_plain_username": "KAFKA_SASL_USERNAME",
    "sasl_plain_password": "KAFKA_SASL_PASSWORD",
    "ssl_cafile": "KAFKA_SSL_CAFILE",
    "ssl_certfile": "KAFKA_SSL_CERTFILE",
    "ssl_keyfile": "KAFKA_SSL_KEYFILE",
    "ssl_password": "KAFKA_SSL_PASSWORD",
}


#: What the producer can compress with, and whether it can here.
_CODECS: Mapping[object, Callable[[], bool]] = {
    "gzip": has_gzip,
    "snappy": has_snappy,
    "lz4": has_lz4,
    "zstd": has_zstd,
}


def _separated(separator: str | None, value: Any) -> Any:  # noqa: ANN401 -- a string from the environment, or a default
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(separator) if part.strip())


def _json(value: Any) -> Any:  # noqa: ANN401
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"must be a JSON object: {error}") from error


def _is_true(value: Any) -> bool:  # noqa: ANN401
    """Return what OpenTelemetry takes for true; anything else is false."""
    return str(value).strip().lower() == "true"


def _source_folder(value: Any) -> Any:  # noqa: ANN401
    return SourceFolder.parse(value) if isinstance(value, str) else value


def _check_secret(secret: SecretStr) -> SecretStr:
    parse_key(secret.get_secret_value())
    return secret


def _check_proxy_url(secret: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(secret.get_secret_value())
        usable = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
        unquote(f"{parts.username}{parts.password}").encode("latin-1")
    except ValueError:  # its message would repeat part of the secret
        usable = False
    if not usable:
        raise ValueError("must be http://host:port or http://user:password@host:port")
    return secret


def _check_server(server: str) -> str:
    host, _, port = server.rpartition(":")
    if not host or "/" in host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("must be host:port")
    return server


def _check_http_url(url: str) -> str:
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise ValueError("must be an http:// or https:// URL")
    return url


def _shown(name: str, value: str) -> str:
    """Return *value* without what may be secret in it."""
    if name in SECRETS or name.endswith("_OPTIONS"):
        return "****"
    # A URL may have a password and a token.
    return re.sub(r"(?<=://)[^/\s]*(?=@)|(?<=\?).*", "****", value) if "://" in value else value


def _check_options(known: Mapping[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    problems = []
    for name, value in options.items():
        if name in OPTIONS_WITH_A_SETTING:
            problems.append(f"{name} has its own setting: {OPTIONS_WITH_A_SETTING[name]}")
        elif name in OWNED_OPTIONS:
            problems.append(f"{name} is fixed: another value would break the pipeline's promises")
        elif name not in known:
            problems.append(f"{name} is not an argument of kafka-python's client")
        elif name == "compression_type" and value is not None:
            problems += _codec_problems(value)
    if problems:
        raise ValueError("; ".join(problems))
    return options


def _codec_problems(name: object) -> Iterator[str]:
    if name not in tuple(_CODECS):  # it may be a list, which no mapping takes
        yield f"compression_type must be one of {', '.join(map(str, _CODECS))}"
    elif not _CODECS[name]():
        yield f"compression_type {name} needs a library that is not installed"


TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")]
HttpUrl = Annotated[str, AfterValidator(_check_http_url)]
AddressRange = Annotated[
    ipaddress.IPv4Network | ipaddress.IPv6Network,
    BeforeValidator(partial(ipaddress.ip_network, strict=False)),
]
CommaSeparated = BeforeValidator(partial(_separated, ","))
Seconds = Annotated[float, Field(gt=0)]
Milliseconds = Annotated[int, Field(gt=0)]
SourceLocation = Annotated[SourceFolder, BeforeValidator(_source_folder)]
Secret = Annotated[SecretStr, AfterValidator(_check_secret)]


class S3Arguments(TypedDict):
    """The arguments that every `S3` is made from."""

    endpoint_url: str | None
    addressing_style: Literal["auto", "path", "virtual"]
    region: str | None
    encryption: Literal["AES256", "aws:kms"] | None
    kms_key_id: str | None


class EgressArguments(TypedDict):
    """The arguments that every `Network` is made from; the proxy's URL carries its password."""

    allowed: tuple[AddressRange, ...]
    proxy_url: str | None


class Settings(BaseModel):
    """The settings of one process. Each field is an environment variable in lower case."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=str.upper, hide_input_in_errors=True
    )

    kafka_bootstrap_servers: Annotated[
        tuple[Annotated[str, AfterValidator(_check_server)], ...],
        CommaSeparated,
        Field(min_length=1),
    ] = ("localhost:9092",)
    kafka_task_topic: TopicName = "uvr_tasks"
    kafka_result_topic: TopicName = "uvr_results"
    kafka_progress_topic: TopicName = "uvr_progress"
    kafka_cancel_topic: TopicName = "uvr_cancel"
    kafka_processor_group: str = "uvr_processor_group"
    kafka_uploader_group: str = "uvr_uploader_group"
    processor_max_poll_interval_ms: Milliseconds = 600_000
    uploader_max_poll_interval_ms: Milliseconds = 300_000
    kafka_session_timeout_ms: Milliseconds = 60_000
    kafka_heartbeat_interval_ms: Milliseconds = 10_000
    kafka_auto_offset_reset: OffsetReset = "latest"
    kafka_create_topics: bool = True
    kafka_topic_partitions: int = Field(default=24, ge=1)
    kafka_retry_topic_partitions: int = Field(default=6, ge=1)
    kafka_topic_replication: int = Field(default=-1, ge=-1)
    kafka_group_instance_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] | None = None
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: Path | None = None
    kafka_ssl_certfile: Path | None = None
    kafka_ssl_keyfile: Path | None = None
    kafka_ssl_password: SecretStr | None = None
    kafka_consumer_options: Annotated[
        dict[str, Any],
        BeforeValidator(_json),
        AfterValidator(partial(_check_options, KafkaConsumer.DEFAULT_CONFIG)),
    ] = Field(default_factory=dict)
    kafka_producer_options: Annotated[
        dict[str, Any],
        BeforeValidator(_json),
        AfterValidator(partial(_check_options, KafkaProducer.DEFAULT_CONFIG)),
    ] = Field(default_factory=dict)

    s3_bucket: str | None = None
    s3_prefix: str = ""
    s3_endpoint_url: HttpUrl | None = None
    s3_addressing_style: Literal["auto", "path", "virtual"] = "auto"
    aws_region: str | None = None
    s3_presign_endpoint_url: HttpUrl | None = None
    s3_source_buckets: Annotated[tuple[SourceLocation, ...], CommaSeparated] = ()
    s3_public_base_url: HttpUrl | None = None
    s3_url_expiry_seconds: int = Field(default=604_800, gt=0, le=604_800)
    s3_sse: Literal["AES256", "aws:kms"] | None = None
    s3_sse_kms_key_id: str | None = None

    uvr_engine: EngineName = "auto"
    uvr_model: str = ""
    uvr_model_dir: Path = Path("models")
    uvr_device: Literal["auto", "cpu", "cuda", "openvino"] = "auto"
    uvr_threads: int = Field(default=0, ge=0)
    output_format: Format = "wav"
    reuse_results: bool = False

    work_dir: Path = Path("data/work")
    handoff_url: str = "data/handoff"
    handoff_retention_seconds: Seconds = 604_800
    input_dir: Path | None = None
    max_download_bytes: int = Field(default=2_147_483_648, gt=0)
    max_audio_seconds: Seconds = 7200
    download_timeout_seconds: Seconds = 300
    upload_timeout_seconds: Seconds = 300
    separation_timeout_seconds: Seconds = 14_400
    separation_memory_bytes: int = Field(default=0, ge=0)
    task_max_attempts: int = Field(default=3, ge=1)

    callback_secret: Annotated[tuple[Secret, ...], BeforeValidator(partial(_separated, None))] = ()
    callback_timeout_seconds: Seconds = 15
    callback_retry_delays_seconds: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...], CommaSeparated
    ] = (5, 60, 600, 3600, 21_600)
    allowed_addresses: Annotated[tuple[AddressRange, ...], CommaSeparated] = ()
    egress_proxy_url: Annotated[SecretStr, AfterValidator(_check_proxy_url)] | None = None

    startup_timeout_seconds: Seconds = 60
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65_535)
    log_dir: Path = Path("logs")
    log_level: Annotated[
        Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = "INFO"
    log_format: Literal["text", "json"] = "text"
    # Further OTEL_* are read by its SDK alone.
    otel_traces_exporter: str | None = None
    otel_exporter_otlp_endpoint: str | None = None
    otel_exporter_otlp_traces_endpoint: str | None = None
    otel_sdk_disabled: Annotated[bool, BeforeValidator(_is_true)] = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], service: Service | None = None) -> Self:
        """Read and check all settings of *service* together.

        Raises:
            SettingsInvalid: names every bad setting, its value and what is allowed.
        """
        # An empty variable counts as unset: `${NAME:-}` in compose files leaves such.
        values = {name: value for name, value in environ.items() if value != ""}
        problems, bad = _read_secret_files(values)
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                message = problem["msg"].removeprefix("Value error, ")
                name = str(problem["loc"][0])
                problems.append(f"{name}: {_shown(name, values.get(name, ''))!r}: {message}")
                bad.add(name)
            # The others are compared all the same, with the defaults of the bad ones.
            settings = cls.model_validate({name: values[name] for name in values.keys() - bad})
        problems += [*_disagreements(settings, values, bad), *_unusable_certificates(settings, bad)]
        if service == "uploader" and not settings.s3_bucket:
            problems.append("S3_BUCKET: is not set; name the bucket for the stems")
        if service == "processor" and settings.reuse_results and not settings.s3_bucket:
            problems.append("S3_BUCKET: is not set, but REUSE_RESULTS looks for stems there")
        if problems:
            raise SettingsInvalid("\n".join(["Bad settings:", *problems]))
        return settings

    @property
    def handoff_is_s3(self) -> bool:
        """Whether the handoff goes through S3 instead of a shared folder."""
        return self.handoff_url.lower().startswith("s3://")

    @property
    def disk_folders(self) -> tuple[Path, ...]:
        """The folders that need free space."""
        return (self.work_dir,) if self.handoff_is_s3 else (self.work_dir, Path(self.handoff_url))

    @property
    def traces_exporter(self) -> str:
        """The exporter of spans that the settings of OpenTelemetry ask for: `otlp`, or `none`."""
        if self.otel_sdk_disabled:
            return "none"
        endpoint = self.otel_exporter_otlp_endpoint or self.otel_exporter_otlp_traces_endpoint
        return (self.otel_traces_exporter or ("otlp" if endpoint else "none")).strip().lower()

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that no log or message may show."""
        values = (getattr(self, name.lower()) for name in SECRETS)
        one_by_one = (
            secret
            for value in values
            for secret in (value if isinstance(value, tuple) else (value,))
        )
        whole = tuple(secret.get_secret_value() for secret in one_by_one if secret is not None)
        password = urlsplit(self.egress["proxy_url"] or "").password
        return (*whole, password) if password else whole

    @property
    def topology(self) -> Topology:
        """The topics and groups."""
        return Topology(
            task_topic=self.kafka_task_topic,
            result_topic=self.kafka_result_topic,
            progress_topic=self.kafka_progress_topic,
            cancel_topic=self.kafka_cancel_topic,
            processor_group=self.kafka_processor_group,
            uploader_group=self.kafka_uploader_group,
            retry_delays_seconds=self.callback_retry_delays_seconds,
            partitions=self.kafka_topic_partitions,
            retry_partitions=self.kafka_retry_topic_partitions,
            replication=self.kafka_topic_replication,
            create=self.kafka_create_topics,
            offset_reset=self.kafka_auto_offset_reset,
        )

    @property
    def egress(self) -> EgressArguments:
        """The way out to the URLs of downloads and callbacks."""
        return {"allowed": self.allowed_addresses, "proxy_url": _reveal(self.egress_proxy_url)}

    @property
    def s3(self) -> S3Arguments:
        """The S3 service."""
        return {
            "endpoint_url": self.s3_endpoint_url,
            "addressing_style": self.s3_addressing_style,
            "region": self.aws_region,
            "encryption": self.s3_sse,
            "kms_key_id": self.s3_sse_kms_key_id,
        }

    @property
    def s3_presign(self) -> S3Arguments:
        """The same service at the address that receivers of callbacks can reach."""
        return {**self.s3, "endpoint_url": self.s3_presign_endpoint_url or self.s3_endpoint_url}

    @property
    def processor_work_seconds(self) -> float:
        """All deadlines of one attempt at a task together: what is longer is stuck.

        All three stages, the wait for space on a full disk, and all three again; before each
        separation, the copies of an earlier one.
        """
        return (
            2 * self.download_timeout_seconds
            + 2 * self.separation_timeout_seconds
            + (5 if self.reuse_results else 3) * self.upload_timeout_seconds
        )

    @property
    def uploader_work_seconds(self) -> float:
        """All deadlines of one attempt at a result: the upload, its failure, and the callback."""
        return 2 * self.upload_timeout_seconds + self.callback_timeout_seconds

    @property
    def separation(self) -> SeparationSettings:
        """The separation child, which may write below WORK_DIR."""
        return SeparationSettings(
            engine=self.uvr_engine,
            model=self.uvr_model,
            model_dir=self.uvr_model_dir,
            device=self.uvr_device,
            threads=self.uvr_threads,
            max_audio_seconds=self.max_audio_seconds,
            timeout_seconds=self.separation_timeout_seconds,
            memory_bytes=self.separation_memory_bytes,
            reads=(),
            writes=(self.work_dir,),
        )

    @property
    def kafka(self) -> KafkaSettings:
        """The Kafka cluster."""
        security = {
            "security_protocol": self.kafka_security_protocol,
            "sasl_mechanism": self.kafka_sasl_mechanism,
            "sasl_plain_username": self.kafka_sasl_username,
            "sasl_plain_password": _reveal(self.kafka_sasl_password),
            "ssl_cafile": _text(self.kafka_ssl_cafile),
            "ssl_certfile": _text(self.kafka_ssl_certfile),
            "ssl_keyfile": _text(self.kafka_ssl_keyfile),
            "ssl_password": _reveal(self.kafka_ssl_password),
        }
        return KafkaSettings(
            bootstrap_servers=self.kafka_bootstrap_servers,
            security={name: value for name, value in security.items() if value is not None},
            session_timeout_ms=self.kafka_session_timeout_ms,
            heartbeat_interval_ms=self.kafka_heartbeat_interval_ms,
            group_instance_id=self.kafka_group_instance_id,
            consumer_options=self.kafka_consumer_options,
            producer_options=self.kafka_producer_options,
        )


SECRETS = ("KAFKA_SASL_PASSWORD", "KAFKA_SSL_PASSWORD", "CALLBACK_SECRET", "EGRESS_PROXY_URL")


def load(
    service: Service | None = None,
    environ: MutableMapping[str, str] = os.environ,
) -> Settings:
    """Read the settings of *service* from the environment and, where it lacks them, from `.env`.

    `.env` is loaded into the environment, because boto3 reads its own variables there.

    Raises:
        SettingsInvalid: the file cannot be read; or see `Settings.from_environ`.
    """
    if environ is os.environ:
        _load_env_file(env_file())
    return Settings.from_environ(environ, service)


def env_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file with settings: the checkout's `.env`, or the one that UVR_ENV_FILE names."""
    return Path(environ.get("UVR_ENV_FILE") or ENV_FILE)


def _load_env_file(file: Path) -> None:
    if not file.exists():
        if file != ENV_FILE:
            raise SettingsInvalid(f"UVR_ENV_FILE: {file}: there is no such file")
        return
    if file.is_dir():
        raise SettingsInvalid(f"{file} cannot be read: it is a folder")
    try:
        with file.open(encoding="utf-8") as content:
            bad = [_line_of(one.original) for one in parse_stream(content) if one.error]
        if bad:
            lines = f"line{'s' if len(bad) > 1 else ''} {', '.join(bad)}"
            raise SettingsInvalid(f"{file}, {lines}: must be NAME=value, or a comment after #")
        load_dotenv(file, override=False)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{file} cannot be read: {error}") from error


def _line_of(statement: Original) -> str:
    """Return the number of the line of a statement, which begins with empty lines before it."""
    text = statement.string
    return str(statement.line + text[: len(text) - len(text.lstrip())].count("\n"))


def _disagreements(
    settings: Settings, values: Mapping[str, str], bad: Collection[str]
) -> Iterator[str]:
    """Yield what is wrong with settings that are each valid by themselves.

    Args:
        settings: all settings, with the defaults of the bad ones.
        values: what was given.
        bad: the settings whose own values are invalid.
    """
    beat_ms, session_ms = settings.kafka_heartbeat_interval_ms, settings.kafka_session_timeout_ms
    if beat_ms * 3 >= session_ms and "KAFKA_HEARTBEAT_INTERVAL_MS" not in bad:
        default = ", its default" if "KAFKA_SESSION_TIMEOUT_MS" in bad else ""
        yield (
            f"KAFKA_HEARTBEAT_INTERVAL_MS: {beat_ms} must be below a third of "
            f"KAFKA_SESSION_TIMEOUT_MS ({session_ms}{default})"
        )
    # As given: a misspelt protocol or mechanism needs the same as a valid one.
    protocol = values.get("KAFKA_SECURITY_PROTOCOL", "")
    if protocol.upper().startswith("SASL") and "KAFKA_SASL_MECHANISM" not in values:
        yield f"KAFKA_SASL_MECHANISM: is required by KAFKA_SECURITY_PROTOCOL={protocol}"
    credentials = ("KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD")
    if "KAFKA_SASL_MECHANISM" in values and not {*credentials} <= values.keys() | set(bad):
        yield f"{', '.join(credentials)}: both are required by KAFKA_SASL_MECHANISM"
    yield from _same_names(settings)
    if settings.s3_sse_kms_key_id and settings.s3_sse != "aws:kms":
        yield "S3_SSE_KMS_KEY_ID: needs S3_SSE=aws:kms"
    if settings.handoff_is_s3 and not urlsplit(settings.handoff_url).netloc:
        yield f"HANDOFF_URL: {settings.handoff_url!r}: must be a folder or s3://bucket/prefix"
    if settings.handoff_is_s3:
        yield from _overlap(settings)


def _same_names(settings: Settings) -> Iterator[str]:
    """Yield the settings that must differ and do not."""
    for names in (
        ("kafka_task_topic", "kafka_result_topic", "kafka_progress_topic", "kafka_cancel_topic"),
        ("kafka_processor_group", "kafka_uploader_group"),
    ):
        values = [getattr(settings, name) for name in names]
        for value in {value for value in values if values.count(value) > 1}:
            same = ", ".join(name.upper() for name in names if getattr(settings, name) == value)
            yield f"{same}: {value!r}: must differ"


def _overlap(settings: Settings) -> Iterator[str]:
    """Yield what is wrong when the handoff's keys and those of the outputs are not apart.

    Stems in the handoff are removed by age; finished ones must never be.
    """
    bucket, _, folder = settings.handoff_url[len("s3://") :].partition("/")
    handoff = f"{folder.strip('/')}/" if folder.strip("/") else ""
    outputs = settings.s3_prefix
    if bucket == settings.s3_bucket and (
        handoff.startswith(outputs) or outputs.startswith(handoff)
    ):
        yield (
            f"HANDOFF_URL, S3_BUCKET, S3_PREFIX: {settings.handoff_url!r}, {bucket!r}, "
            f"{outputs!r}: the handoff and the outputs overlap, and what is old in the handoff is "
            f"removed; use two buckets, or prefixes of which neither begins with the other, such "
            f"as HANDOFF_URL=s3://{bucket}/handoff and S3_PREFIX=stems/"
        )


def _unusable_certificates(settings: Settings, bad: Collection[str]) -> Iterator[str]:
    """Load the TLS files as the client will: a bad file is a bad setting, not an outage."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca, certificate, key = (
        settings.kafka_ssl_cafile,
        settings.kafka_ssl_certfile,
        settings.kafka_ssl_keyfile,
    )
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except OSError as error:
            yield f"KAFKA_SSL_CAFILE: {ca}: cannot be used: {error}"
    if certificate is not None and "KAFKA_SSL_PASSWORD" not in bad:
        # Without a password, OpenSSL would ask the terminal for one.
        password = _reveal(settings.kafka_ssl_password) or ""
        try:
            context.load_cert_chain(certificate, key, password)
        except (OSError, ValueError) as error:
            names = "KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE, KAFKA_SSL_PASSWORD"
            yield f"{names}: {certificate}, {key}: cannot be used: {error}"
    elif certificate is None and key is not None:
        yield "KAFKA_SSL_KEYFILE: needs KAFKA_SSL_CERTFILE"


def _read_secret_files(values: dict[str, str]) -> tuple[list[str], set[str]]:
    """Put each secret that a NAME_FILE names into *values*; return what went wrong, and where."""
    problems: list[str] = []
    bad: set[str] = set()
    for name in SECRETS:
        path = values.get(f"{name}_FILE")
        if path is None:
            continue
        if name in values:
            problems.append(f"{name}_FILE: {name} is set as well; keep one of them")
            continue
        try:
            # Editors and `echo` add a line end, which does not belong to the secret.
            secret = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            problems.append(f"{name}_FILE: {path} cannot be read: {error}")
            bad.add(name)
        except UnicodeDecodeError:
            problems.append(f"{name}_FILE: {path} cannot be read: it is not UTF-8")
            bad.add(name)
        else:
            values[name] = secret
            if not secret.strip():
                problems.append(f"{name}_FILE: {path} is empty")
    return problems, bad


def _reveal(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
