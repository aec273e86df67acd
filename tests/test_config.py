import re
from pathlib import Path

import pytest

from common.errors import SettingsInvalid
from common.source_folders import SourceFolder
from config import SECRETS, Settings, load

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def refused(service=None, **environ):
    with pytest.raises(SettingsInvalid) as caught:
        Settings.from_environ(environ, service)
    return str(caught.value)


def test_nothing_set_is_good_for_a_processor():
    settings = Settings.from_environ({}, "processor")

    assert settings.kafka_bootstrap_servers == ("localhost:9092",)
    assert settings.callback_retry_delays_seconds == (5, 60, 600, 3600, 21_600)


def test_an_uploader_needs_a_bucket():
    assert "S3_BUCKET" in refused("uploader")


def test_a_processor_that_reuses_results_needs_the_bucket_too():
    assert "REUSE_RESULTS" in refused("processor", REUSE_RESULTS="true")
    assert Settings.from_environ({"REUSE_RESULTS": "true", "S3_BUCKET": "b"}, "processor")


def test_one_message_names_every_bad_setting_its_value_and_what_is_allowed():
    message = refused(
        "uploader",
        KAFKA_TOPIC_PARTITIONS="none",
        OUTPUT_FORMAT="aiff",
        KAFKA_AUTO_OFFSET_RESET="newest",
        TASK_MAX_ATTEMPTS="0",
    )

    assert "KAFKA_TOPIC_PARTITIONS: 'none'" in message
    assert "OUTPUT_FORMAT: 'aiff': Input should be 'wav', 'flac', 'mp3', 'm4a' or 'opus'" in message
    assert (
        "KAFKA_AUTO_OFFSET_RESET: 'newest': Input should be 'latest', 'earliest' or 'none'"
        in message
    )
    assert "TASK_MAX_ATTEMPTS: '0': Input should be greater than or equal to 1" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost"),
        ("KAFKA_BOOTSTRAP_SERVERS", ","),
        ("KAFKA_TASK_TOPIC", "no spaces"),
        ("KAFKA_CREATE_TOPICS", "perhaps"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("KAFKA_GROUP_INSTANCE_ID", "a/b"),
        ("S3_ENDPOINT_URL", "localhost:9000"),
        ("S3_URL_EXPIRY_SECONDS", "604801"),
        ("HANDOFF_URL", "s3://"),
        ("UVR_DEVICE", "gpu"),
        ("ALLOWED_ADDRESSES", "10.0.0.0/8,home"),
        ("CALLBACK_RETRY_DELAYS_SECONDS", "5,-1"),
        ("EGRESS_PROXY_URL", "https://proxy.example:3128"),
        ("EGRESS_PROXY_URL", "proxy.example:3128"),
        ("EGRESS_PROXY_URL", "http://€:x@proxy.example"),
        ("METRICS_PORT", "70000"),
        ("DOWNLOAD_TIMEOUT_SECONDS", "0"),
        ("KAFKA_CONSUMER_OPTIONS", "[]"),
        ("KAFKA_CONSUMER_OPTIONS", "{"),
    ],
)
def test_a_bad_value_is_named(name, value):
    assert f"{name}: " in refused(**{name: value})


def test_heartbeats_must_be_below_a_third_of_the_session():
    assert "KAFKA_HEARTBEAT_INTERVAL_MS" in refused(
        KAFKA_SESSION_TIMEOUT_MS="30000", KAFKA_HEARTBEAT_INTERVAL_MS="10000"
    )


def test_a_key_for_encryption_needs_kms():
    assert "S3_SSE_KMS_KEY_ID" in refused(S3_SSE="AES256", S3_SSE_KMS_KEY_ID="key")


def test_sasl_needs_a_mechanism_and_a_mechanism_needs_credentials():
    assert "KAFKA_SASL_MECHANISM" in refused(KAFKA_SECURITY_PROTOCOL="SASL_SSL")
    assert "KAFKA_SASL_PASSWORD" in refused(KAFKA_SASL_MECHANISM="PLAIN", KAFKA_SASL_USERNAME="me")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ('{"group_id": "x"}', "promises"),
        ('{"enable_auto_commit": true}', "promises"),
        ('{"session_timeout_ms": 1}', "KAFKA_SESSION_TIMEOUT_MS"),
        ('{"compression": "zstd"}', "not an argument of kafka-python"),
    ],
)
def test_options_that_the_library_does_not_know_or_the_contract_owns_are_bad_settings(
    options, reason
):
    assert reason in refused(KAFKA_CONSUMER_OPTIONS=options)


@pytest.mark.parametrize(
    ("environ", "problems"),
    [
        (
            {"KAFKA_SESSION_TIMEOUT_MS": "long", "KAFKA_HEARTBEAT_INTERVAL_MS": "30000"},
            ["KAFKA_SESSION_TIMEOUT_MS: 'long'", "KAFKA_HEARTBEAT_INTERVAL_MS: 30000 must be below"]
            + ["KAFKA_SESSION_TIMEOUT_MS (60000, its default)"],
        ),
        (
            {"METRICS_PORT": "http", "HANDOFF_URL": "s3://"},
            ["METRICS_PORT: 'http'", "HANDOFF_URL: 's3://'"],
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_TLS", "S3_SSE_KMS_KEY_ID": "key"},
            ["SECURITY_PROTOCOL: 'SASL_TLS'", "SASL_MECHANISM: is required", "S3_SSE_KMS_KEY_ID"],
        ),
        (
            {"KAFKA_SASL_MECHANISM": "GSSAPI"},
            ["KAFKA_SASL_MECHANISM: 'GSSAPI'", "KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD: both"],
        ),
        (
            {"OUTPUT_FORMAT": "aiff", "KAFKA_SSL_CAFILE": "none.pem", "KAFKA_SSL_KEYFILE": "k"},
            ["OUTPUT_FORMAT: 'aiff'", "KAFKA_SSL_CAFILE: none.pem", "KAFKA_SSL_KEYFILE: needs"],
        ),
        ({"OUTPUT_FORMAT": "aiff"}, ["OUTPUT_FORMAT: 'aiff'", "S3_BUCKET: is not set"]),
        (
            {"KAFKA_CONSUMER_OPTIONS": '{"isolation_level": "read_uncommitted", "unknown": 1}'},
            ["isolation_level is fixed", "unknown is not an argument"],
        ),
    ],
)
def test_a_bad_setting_keeps_no_other_from_being_named(environ, problems):
    message = refused("uploader", **environ)

    assert [problem for problem in problems if problem not in message] == []


def test_a_bad_setting_accuses_no_other(tmp_path):
    gone = str(tmp_path / "gone")
    message = refused(
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SASL_MECHANISM="SCRAM",
        KAFKA_SASL_USERNAME="me",
        KAFKA_SASL_PASSWORD_FILE=gone,
        KAFKA_HEARTBEAT_INTERVAL_MS="often",
    )

    assert [line.partition(":")[0] for line in message.splitlines()] == [
        "Bad settings",
        "KAFKA_SASL_PASSWORD_FILE",
        "KAFKA_HEARTBEAT_INTERVAL_MS",
        "KAFKA_SASL_MECHANISM",
    ]


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("KAFKA_CONSUMER_OPTIONS", "isolation_level"),
        ("KAFKA_CONSUMER_OPTIONS", "partition_assignment_strategy"),
        ("KAFKA_CONSUMER_OPTIONS", "auto_offset_reset"),
        ("KAFKA_CONSUMER_OPTIONS", "max_poll_records"),
        ("KAFKA_PRODUCER_OPTIONS", "acks"),
        ("KAFKA_PRODUCER_OPTIONS", "enable_idempotence"),
        ("KAFKA_PRODUCER_OPTIONS", "transactional_id"),
        ("KAFKA_PRODUCER_OPTIONS", "value_serializer"),
    ],
)
def test_each_option_that_the_contract_owns_is_a_bad_setting(name, option):
    assert f"{option} is fixed" in refused(**{name: f'{{"{option}": "x"}}'})


@pytest.mark.parametrize("codec", ['"zip"', "[]", "1"])
def test_a_compression_that_there_is_not_is_a_bad_setting(codec):
    message = refused(KAFKA_PRODUCER_OPTIONS=f'{{"compression_type": {codec}}}')

    assert "compression_type must be one of gzip, snappy, lz4, zstd" in message


def test_options_of_the_producer_are_handed_on():
    settings = Settings.from_environ({"KAFKA_PRODUCER_OPTIONS": '{"compression_type": "zstd"}'})

    assert settings.kafka.producer_options == {"compression_type": "zstd"}


def test_an_empty_variable_is_an_unset_one():
    assert (
        Settings.from_environ({"S3_PREFIX": "", "METRICS_PORT": "", "CALLBACK_SECRET": ""})
        == Settings()
    )


def test_secrets_come_from_files_too(tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n")

    settings = Settings.from_environ({"CALLBACK_SECRET_FILE": str(tmp_path / "secret")})

    assert [secret.get_secret_value() for secret in settings.callback_secret] == [SECRET]


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_the_end_of_a_secret_files_line_is_not_of_the_secret(tmp_path, end):
    (tmp_path / "password").write_bytes(b" with spaces " + end.encode())
    login = {"KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_SASL_USERNAME": "me"}

    settings = Settings.from_environ(
        {**login, "KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password")}
    )

    assert settings.kafka.security["sasl_plain_password"] == " with spaces "


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hunter\xff", "not UTF-8"),
        (None, "cannot be read"),
    ],
    ids=["empty", "a line's end", "bytes", "a folder"],
)
def test_a_secret_file_that_cannot_be_used_is_named_with_its_reason(
    tmp_path, name, content, reason
):
    path = tmp_path / "secret"
    path.mkdir() if content is None else path.write_bytes(content)

    message = refused(**{f"{name}_FILE": str(path)})

    assert f"{name}_FILE: {path}" in message
    assert reason in message
    assert "hunter" not in message


def test_a_secret_file_that_is_missing_or_doubled_is_named(tmp_path):
    assert "CALLBACK_SECRET_FILE" in refused(CALLBACK_SECRET_FILE=str(tmp_path / "missing"))
    assert "CALLBACK_SECRET_FILE" in refused(CALLBACK_SECRET_FILE="x", CALLBACK_SECRET=SECRET)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("CALLBACK_SECRET", "hunter2 hunter2", "****"),
        ("KAFKA_CONSUMER_OPTIONS", '{"sasl_plain_password": "hunter2"}', "KAFKA_SASL_PASSWORD"),
        ("KAFKA_PRODUCER_OPTIONS", '{"socks5_proxy": "hunter2", "ack": 1}', "ack is not an arg"),
        ("KAFKA_PRODUCER_OPTIONS", '{"socks5_proxy": "hunter2"', "must be a JSON object"),
        ("S3_ENDPOINT_URL", "s3://me:hunter2@s3.example", "s3://****@s3.example"),
        ("S3_PUBLIC_BASE_URL", "cdn://cdn.example/?token=hunter2", "cdn://cdn.example/?****"),
    ],
)
def test_what_may_be_secret_in_a_bad_setting_is_not_shown(name, value, shown):
    message = refused(**{name: value})

    assert "hunter2" not in message
    assert shown in message


def test_secrets_are_masked_in_representations():

    settings = Settings.from_environ(
        {
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_SASL_USERNAME": "me",
            "KAFKA_SASL_PASSWORD": "hunter2",
            "CALLBACK_SECRET": SECRET,
        }
    )
    assert "hunter2" not in f"{settings!r}{settings.kafka!r}"
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (f"{SECRET} {'hunter2' * 6}", "must begin with whsec_ or whsk_"),
        (f"whsk_{'hunter2' * 6}-=", "base64"),
        (f"whsk_{'hunter2' * 4}", "must encode 32 or 64 bytes after whsk_, not 21"),
        (f"whpk_{'hunter2' * 6}A=", "is a public key, for receivers; set the private one"),
    ],
)
def test_a_bad_key_among_good_ones_is_a_bad_setting_that_does_not_show_it(keys, reason):
    message = refused(CALLBACK_SECRET=f"{SECRET} {keys}")

    assert "CALLBACK_SECRET: '****': " in message
    assert reason in message
    assert "hunter2" not in message
    assert SECRET not in message


def test_keys_of_both_kinds_sign_while_receivers_change_over():
    keys = f"{SECRET}\n  whsk_{'A' * 43}=\t"

    settings = Settings.from_environ({"CALLBACK_SECRET": keys})

    assert settings.secrets == tuple(keys.split())


def test_the_credentials_of_the_egress_proxy_are_a_secret_and_may_come_from_a_file(tmp_path):
    (tmp_path / "proxy").write_text("http://me:hunter2@proxy.example:3128\n")

    settings = Settings.from_environ({"EGRESS_PROXY_URL_FILE": str(tmp_path / "proxy")})

    assert settings.egress["proxy_url"] == "http://me:hunter2@proxy.example:3128"
    assert settings.secrets == ("http://me:hunter2@proxy.example:3128", "hunter2")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in refused(EGRESS_PROXY_URL="http://me:hunter2")


def test_the_readme_lists_every_setting_with_its_default_and_no_other():
    section = (
        Path("README.md").read_text(encoding="utf-8").split("\n## Settings")[1].split("\n## ")[0]
    )
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| (?:`([^`]*)`|–) \|", section, re.MULTILINE))

    assert rows == {
        name.upper(): shown(field.get_default(call_default_factory=True))
        for name, field in Settings.model_fields.items()
    }


def shown(default):
    if default in (None, "", ()):
        return ""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_the_example_env_names_only_settings_that_exist():
    names = re.findall(
        r"^#? ?([A-Z0-9_]+)=", Path(".env.example").read_text(encoding="utf-8"), re.MULTILINE
    )

    known = {name.upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in SECRETS}
    assert set(names) - {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= known
    assert "S3_BUCKET" in names


@pytest.mark.parametrize(
    ("handoff", "prefix"),
    [
        ("s3://uvr", ""),
        ("s3://uvr/", ""),
        ("S3://uvr/handoff", ""),
        ("s3://uvr/handoff/", ""),
        ("s3://uvr", "stems/"),
        ("s3://uvr/stems", "stems/"),
        ("s3://uvr/stems/", "stems/"),
        ("s3://uvr//stems//", "stems/"),
        ("s3://uvr/stems", "stems"),
        ("s3://uvr/stems/waiting", "stems/"),
        ("s3://uvr/stems", "stems/done/"),
        ("s3://uvr/stems", "st"),
    ],
)
@pytest.mark.parametrize("service", ["processor", "uploader"])
def test_a_handoff_that_overlaps_the_outputs_is_refused(service, handoff, prefix):
    message = refused(service, S3_BUCKET="uvr", S3_PREFIX=prefix, HANDOFF_URL=handoff)

    assert "HANDOFF_URL, S3_BUCKET, S3_PREFIX: " in message
    assert "use two buckets" in message


@pytest.mark.parametrize(
    ("handoff", "prefix"),
    [
        ("s3://uvr-handoff", ""),
        ("s3://uvr/handoff", "stems/"),
        ("s3://uvr/stems", "stems-done/"),
        ("s3://uvr/stems/a", "stems/b/"),
        ("uvr/handoff", ""),
    ],
)
def test_a_handoff_beside_the_outputs_is_good(handoff, prefix):
    environ = {"S3_BUCKET": "uvr", "S3_PREFIX": prefix, "HANDOFF_URL": handoff}

    assert Settings.from_environ(environ, "uploader").handoff_url == handoff


def test_by_default_no_object_is_a_source_not_even_in_the_bucket_of_the_stems():
    assert Settings.from_environ({"S3_BUCKET": "uvr"}, "processor").s3_source_buckets == ()


def test_a_place_of_sources_is_a_bucket_or_a_folder_in_one():
    environ = {"S3_SOURCE_BUCKETS": "songs, uvr/sources,uvr/a/b/"}

    assert Settings.from_environ(environ).s3_source_buckets == (
        SourceFolder("songs"),
        SourceFolder("uvr", "sources/"),
        SourceFolder("uvr", "a/b/"),
    )


@pytest.mark.parametrize(
    "place", ["s3://songs", "/songs", "songs//a", "songs/../uvr", "songs/%2e%2e/uvr", "a b", "*"]
)
def test_a_place_of_sources_that_is_neither_is_refused(place):
    message = refused(S3_SOURCE_BUCKETS=f"good,{place}")

    assert f"S3_SOURCE_BUCKETS: 'good,{place}'" in message
    assert "must be bucket or bucket/prefix" in message


@pytest.mark.parametrize(
    ("environ", "exporter"),
    [
        ({}, "none"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "OTLP"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "none"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "True"}, "none"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "perhaps"}, "otlp"),
    ],
)
def test_opentelemetrys_own_settings_say_whether_spans_are_exported(environ, exporter):
    assert Settings.from_environ(environ, "processor").traces_exporter == exporter


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (
            {"KAFKA_BOOTSTRAP_SERVERS": "http://kafka:9092"},
            "'http://kafka:9092': must be host:port",
        ),
        (
            {"KAFKA_TASK_TOPIC": "uvr_results"},
            "KAFKA_TASK_TOPIC, KAFKA_RESULT_TOPIC: 'uvr_results': must differ",
        ),
        (
            {"KAFKA_PROCESSOR_GROUP": "uvr_uploader_group"},
            "KAFKA_PROCESSOR_GROUP, KAFKA_UPLOADER_GROUP: 'uvr_uploader_group': must differ",
        ),
        (
            {"KAFKA_PRODUCER_OPTIONS": '{"compression_type": "zip"}'},
            "compression_type must be one of gzip, snappy, lz4, zstd",
        ),
    ],
)
def test_what_would_fail_later_is_refused_at_once(environ, problem):
    assert problem in refused(**environ)


def test_the_producer_may_compress():
    for codec in ('"gzip"', "null"):
        Settings.from_environ({"KAFKA_PRODUCER_OPTIONS": f'{{"compression_type": {codec}}}'})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("S3_BUCKET=b\n\nno setting\nKAFKA_TASK_TOPIC=t\n", ".env, line 3: must be NAME=value"),
        ("one two\n# a comment\nthree four\n", ".env, lines 1, 3: must be NAME=value"),
        (None, ".env cannot be read: it is a folder"),
    ],
)
def test_an_env_file_that_is_none_is_refused_with_its_place(
    monkeypatch, tmp_path, content, problem
):
    file = tmp_path / ".env"
    file.mkdir() if content is None else file.write_text(content)
    monkeypatch.setenv("UVR_ENV_FILE", str(file))

    with pytest.raises(SettingsInvalid, match=re.escape(problem)):
        load()
