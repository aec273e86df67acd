"""What each finding means and what to do about it; docs/doctor.md shows the same table."""

from __future__ import annotations

from dataclasses import dataclass

from tools.doctor.finding import Finding, Status


@dataclass(frozen=True)
class Check:
    """A check's stable name, what a warning or fault of it means, and what to do then."""

    name: str
    area: str
    means: str
    advice: str


def finding(name: str, status: Status, seen: str, advice_first: str = "") -> Finding:
    """Return a finding of the check *name*; a warning or a fault carries the check's advice.

    *advice_first* is what fits this finding in particular, and comes first.
    """
    check = next(one for one in CHECKS if one.name == name)
    advice = f"{advice_first} {check.advice}".strip() if status in {"warning", "fault"} else ""
    return Finding(name, check.area, status, seen, advice)


#: All checks, in the order in which they run.
CHECKS = (
    Check(
        "libraries",
        "python",
        "A library is missing or is not the tested version.",
        "Run `.venv/bin/python -m pip install --require-hashes -r requirements.txt`.",
    ),
    Check(
        "env-file",
        "settings",
        "`.env` is missing and `KAFKA_BOOTSTRAP_SERVERS` is not set; or `.env` cannot be read; or "
        "it sets names that nothing reads.",
        "If there is none, copy `.env.example` to `.env` in the checkout. Correct names that "
        "nothing reads (the README lists the settings).",
    ),
    Check(
        "settings",
        "settings",
        "A setting is bad: the services exit with code 2.",
        "Correct it in `.env` or in the environment, which wins; the README lists what is valid.",
    ),
    Check(
        "kafka-reachable",
        "kafka",
        "No broker answers at `KAFKA_BOOTSTRAP_SERVERS`, the broker refuses access, or it stopped "
        "answering during the checks.",
        "Start Kafka (locally: `python scripts/kafka.py start`). Correct the address, or the "
        "protocol, mechanism, password and certificates (docs/security-kafka.md).",
    ),
    Check(
        "kafka-advertised",
        "kafka",
        "A broker advertises an address that clients cannot use: it does not resolve, does not "
        "answer, is not in the broker's certificate, or is a loopback address.",
        "Set the broker's `advertised.listeners` to an address that this machine reaches, or make "
        "the name resolve and open the port.",
    ),
    Check(
        "kafka-session",
        "kafka",
        "The broker does not allow `KAFKA_SESSION_TIMEOUT_MS`: no process can join its group.",
        "Set it between the broker's `group.min.session.timeout.ms` and "
        "`group.max.session.timeout.ms`, and `KAFKA_HEARTBEAT_INTERVAL_MS` below a third of it.",
    ),
    Check(
        "kafka-offsets-retention",
        "kafka",
        "The broker's `offsets.retention.minutes` is short: a group without a running process "
        "loses its offsets after that time. With `KAFKA_AUTO_OFFSET_RESET=latest` it then skips "
        "the records that waited.",
        "Raise it to 10080 (7 days) or more, and never stop all processes of a group for longer.",
    ),
    Check(
        "kafka-rights",
        "kafka",
        "Kafka's ACLs lack rights that the services check at start.",
        "`python scripts/kafka.py acls` prints the commands that grant them; "
        "docs/security-kafka.md lists them.",
    ),
    Check(
        "kafka-topics",
        "kafka",
        "Topics are missing (a fault if `KAFKA_CREATE_TOPICS` is false), or a partition has no "
        "leader.",
        "Start a processor and an uploader, which create missing topics, or create them yourself. "
        "For a partition without a leader, bring its broker back.",
    ),
    Check(
        "kafka-replication",
        "kafka",
        "Records are on one broker only, or on fewer brokers than configured: if its disk fails, "
        "they are lost.",
        "Use three replicas: `KAFKA_TOPIC_REPLICATION=3` for new topics, "
        "`kafka-reassign-partitions.sh` for existing ones. Bring back brokers that are down.",
    ),
    Check(
        "kafka-min-insync",
        "kafka",
        "`min.insync.replicas` exceeds the replicas in sync, so every write fails; or it is 1 with "
        "three replicas, so an acknowledged record can be lost with one broker.",
        "Run `kafka-configs.sh --alter --entity-type topics --entity-name TOPIC --add-config "
        "min.insync.replicas=2` for three replicas, 1 for one.",
    ),
    Check(
        "kafka-retention",
        "kafka",
        "Records may expire before they are processed; or cancels expire before their tasks, or "
        "callbacks before their next attempt; or the topic is compacted, which loses orders with "
        "the same id.",
        "Run `kafka-configs.sh --alter … --add-config retention.ms=…`: a week for tasks and "
        "results, no less than the tasks' for cancels, well above their delay for retry topics, -1 "
        "for dead letters; and set `cleanup.policy=delete`.",
    ),
    Check(
        "kafka-retries",
        "kafka",
        "Callbacks wait in a retry topic that no uploader reads, because "
        "`CALLBACK_RETRY_DELAYS_SECONDS` has fewer delays than before.",
        "Set as many delays as there are retry topics until their lag is 0.",
    ),
    Check(
        "kafka-dead-letters",
        "kafka",
        "Dead letters wait for a decision.",
        "`python scripts/dead_letters.py list` shows why; `redrive` sends them back "
        "(docs/dead-letters.md).",
    ),
    Check(
        "group-members",
        "groups",
        "The group has no members; or more than the topic has partitions, so some are idle; or "
        "there are fewer partitions than four times the processors, so tasks wait behind others in "
        "the same partition while processors are idle.",
        "Start one with `python scripts/services.py start`. Give the topic more partitions with "
        "`kafka-topics.sh --alter --partitions`.",
    ),
    Check(
        "group-lag",
        "groups",
        "Records wait and no process of this kind is running.",
        "Start a process of this kind; if one should be running, read `logs/`.",
    ),
    Check(
        "group-anchored",
        "groups",
        "The group has no offsets: it is new and starts where `KAFKA_AUTO_OFFSET_RESET` says. With "
        "`latest`, records sent before its first process starts are skipped.",
        "Start a processor before you send tasks (it anchors both groups), or set "
        "`KAFKA_AUTO_OFFSET_RESET=earliest`.",
    ),
    Check(
        "group-offsets",
        "groups",
        "The group's offset is outside the partition: records expired unread, or the topic was "
        "recreated.",
        "Send the lost tasks again and raise `retention.ms`. If the topic was recreated, stop all "
        "processes and run `kafka-consumer-groups.sh --reset-offsets --to-earliest --execute`.",
    ),
    Check(
        "s3-bucket",
        "s3",
        "A bucket cannot be reached, does not exist, or refuses access.",
        "Start S3 (locally: `python scripts/s3.py start`). Check `S3_BUCKET`, "
        "`S3_SOURCE_BUCKETS`, `S3_ENDPOINT_URL`, `AWS_REGION` and the AWS credentials. Most "
        "servers other than AWS need `S3_ADDRESSING_STYLE=path`.",
    ),
    Check(
        "s3-objects",
        "s3",
        "An object cannot be written, read, listed or removed (with `REUSE_RESULTS`, or copied), "
        "or a multipart upload cannot be started and aborted.",
        "Grant the rights in docs/security-s3.md; with `S3_SSE=aws:kms`, also those on the key.",
    ),
    Check(
        "s3-link",
        "s3",
        "A link as callbacks carry it does not open its object, or names a loopback address.",
        "Set `S3_PRESIGN_ENDPOINT_URL` to the address at which receivers reach S3, or "
        "`S3_PUBLIC_BASE_URL` to the bucket's public address. Receivers may see another network.",
    ),
    Check(
        "s3-link-life",
        "s3",
        "The links in callbacks end before `S3_URL_EXPIRY_SECONDS`, with the temporary "
        "credentials of a role or session that sign them. `expires` in callbacks has the true end "
        "if it is known.",
        "Sign with the long-lived key of a user that may only read stems, lower "
        "`S3_URL_EXPIRY_SECONDS` below the session's duration, or set `S3_PUBLIC_BASE_URL`.",
    ),
    Check(
        "s3-sources",
        "s3",
        "`S3_SOURCE_BUCKETS` contains everybody's stems: any sender of tasks can have them "
        "separated, and so read them.",
        "Name another bucket, or only the prefix of the sources, such as `uvr/sources`.",
    ),
    Check(
        "s3-clock",
        "s3",
        "This machine's clock differs from S3's. S3 rejects signatures more than 15 minutes off, "
        "receivers reject callbacks more than 5 minutes off.",
        "Let NTP set this machine's clock (`timedatectl set-ntp true`).",
    ),
    Check(
        "callback-secret",
        "callbacks",
        "Callbacks are not signed: a receiver cannot tell them from forged ones.",
        "Set `CALLBACK_SECRET` to the `whsk_` key that `python scripts/callbacks.py keygen` "
        "prints, and give receivers the `whpk_` key.",
    ),
    Check(
        "callback-url",
        "callbacks",
        "Callbacks cannot reach the address: it is forbidden, does not resolve, does not answer, "
        "or its certificate is invalid.",
        "Allow a private address with `ALLOWED_ADDRESSES` (CIDRs, such as 10.0.0.0/8). The "
        "certificate must be current, for this name, and from an authority in certifi. Redirects "
        "are not followed.",
    ),
    Check(
        "egress-proxy",
        "callbacks",
        "`EGRESS_PROXY_URL` does not accept connections: all downloads and callbacks fail.",
        "Start the proxy or correct the address (docs/egress.md).",
    ),
    Check(
        "folders",
        "files",
        "A folder of the services is not writable, or `INPUT_DIR` is not readable.",
        "Create it and give it to the user that runs the services; run doctor as that user.",
    ),
    Check(
        "disk-room",
        "files",
        "The disk of `WORK_DIR`, `HANDOFF_URL` or `LOG_DIR` is full: it has no room for a song or "
        "for logs (a fault), or not for the largest task that the limits allow (a warning).",
        "Free space elsewhere on this disk, or set the setting to a folder on a larger one. "
        "Waiting tasks go on by themselves once there is room. For a warning, lowering "
        "`MAX_DOWNLOAD_BYTES` and `MAX_AUDIO_SECONDS` helps, too.",
    ),
    Check(
        "handoff-s3",
        "files",
        "The processor cannot hand stems to the uploader through S3.",
        "Check `HANDOFF_URL`, and grant both services the rights in docs/security-s3.md below it.",
    ),
    Check(
        "handoff-shared",
        "files",
        "`HANDOFF_URL` is a folder, but the services run on several machines or in several "
        "folders.",
        "Set `HANDOFF_URL=s3://bucket/prefix`, unless all of them share the folder's disk. On one "
        "machine, set an absolute path.",
    ),
    Check(
        "model-files",
        "models",
        "A model file is damaged, or its content is not the model that it is named after.",
        "Run `python scripts/models.py verify`, remove the file, then run "
        "`python scripts/models.py download NAME`.",
    ),
    Check(
        "model-default",
        "models",
        "`UVR_MODEL` is not in `UVR_MODEL_DIR`.",
        "`python scripts/models.py list` shows the models there; `download` or `add` adds one.",
    ),
    Check(
        "separation",
        "separation",
        "Separating one second of sound with these settings failed.",
        "The message says why; `python scripts/separate.py SONG` tries the same with your song.",
    ),
    Check(
        "device",
        "separation",
        "`UVR_DEVICE` is `cuda`, or `openvino`, but the separation ran without it.",
        "For `cuda`, install the GPU's driver and the onnxruntime-gpu that matches its CUDA; for "
        "`openvino`, set `UVR_MODEL` to an `.onnx` model; or set `UVR_DEVICE=auto`.",
    ),
    Check(
        "speed",
        "separation",
        "Separating one second of sound took more than 10 s. (Short sounds are padded; songs run "
        "faster. A task's deadline is three times its song, at least 600 s.)",
        "Run fewer processors on this machine, or use a lighter model or a GPU.",
    ),
    Check(
        "memory",
        "machine",
        "The separation process may use all memory of this machine, or more than it has.",
        "Set `SEPARATION_MEMORY_BYTES` well below the memory divided by the processors here.",
    ),
    Check(
        "threads",
        "machine",
        "`UVR_THREADS` exceeds the number of cores.",
        "Set 0 for all cores; with several processors on one machine, cores / processors.",
    ),
    Check(
        "open-files",
        "machine",
        "The limit of open files is low; sockets count as files.",
        "Run `ulimit -n 4096`, or set `LimitNOFILE=4096` in the systemd unit.",
    ),
    Check(
        "metrics-port",
        "machine",
        "Another program uses `METRICS_PORT`: a service takes the next free port, which nobody "
        "scrapes.",
        "Choose another port, or stop that program.",
    ),
)
