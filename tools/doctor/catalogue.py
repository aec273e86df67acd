"""Every question that doctor asks. docs/doctor.md shows this table; tests/operations/test_doctor.py
holds it to it.
"""

from __future__ import annotations

from tools.doctor.finding import Question

LIBRARIES = Question(
    "libraries",
    "python",
    "a library is missing, or is another version than the one that was tested",
    "`.venv/bin/python -m pip install --require-hashes -r requirements.txt`.",
)
ENV_FILE = Question(
    "env-file",
    "settings",
    "there is no `.env` where this was started, nor `KAFKA_BOOTSTRAP_SERVERS` in the environment; or it cannot be "
    "read, or names settings that nobody reads",
    "Start from the folder that holds `.env`; copy `.env.example` to make one; mend the names by the README's table.",
)
SETTINGS = Question(
    "settings",
    "settings",
    "a setting is bad, and the services end with exit code 2",
    "Correct it in `.env` or in the environment, which wins; the README's table says what is allowed.",
)
KAFKA_REACHABLE = Question(
    "kafka-reachable",
    "kafka",
    "no broker answers at `KAFKA_BOOTSTRAP_SERVERS`, or it refuses us, or it stopped answering while we asked",
    "Start Kafka (`python scripts/kafka.py start` for a local one); correct the address, and the protocol, mechanism, "
    "password and certificates by docs/security-kafka.md.",
)
KAFKA_ADVERTISED = Question(
    "kafka-advertised",
    "kafka",
    "the broker answers, but names an address for its clients that does not resolve or answer here, does not stand in "
    "its certificate, or is each client's own machine",
    "Set `advertised.listeners` of that broker to an address that this machine reaches, or make the name resolve and "
    "open the port here.",
)
KAFKA_SESSION = Question(
    "kafka-session",
    "kafka",
    "the broker does not allow `KAFKA_SESSION_TIMEOUT_MS`, and no process ever joins its group",
    "Set it between `group.min.session.timeout.ms` and `group.max.session.timeout.ms` of the broker, and "
    "`KAFKA_HEARTBEAT_INTERVAL_MS` below a third of it.",
)
KAFKA_OFFSETS_RETENTION = Question(
    "kafka-offsets-retention",
    "kafka",
    "`offsets.retention.minutes` of the broker is short: a group without a running process forgets after that time "
    "where it was, is brand-new again, and with `KAFKA_AUTO_OFFSET_RESET=latest` skips what waited",
    "Raise it to 10080 (7 days) or more, and never leave all processes of a group down for longer.",
)
KAFKA_RIGHTS = Question(
    "kafka-rights",
    "kafka",
    "Kafka's ACLs lack rights that the services ask for at their start",
    "`python scripts/kafka.py acls` shows the commands that give them; docs/security-kafka.md lists them.",
)
KAFKA_TOPICS = Question(
    "kafka-topics",
    "kafka",
    "topics are missing (a fault where `KAFKA_CREATE_TOPICS` is false), or a partition has no leader",
    "Start a processor and an uploader, which make missing topics, or make them; a partition without a leader needs "
    "its broker back.",
)
KAFKA_REPLICATION = Question(
    "kafka-replication",
    "kafka",
    "records lie on one broker alone, or on fewer than they should: they are lost with its disk",
    "Three replicas: `KAFKA_TOPIC_REPLICATION=3` for topics that are still to be made, "
    "`kafka-reassign-partitions.sh` for those that are there; bring back brokers that are away.",
)
KAFKA_MIN_INSYNC = Question(
    "kafka-min-insync",
    "kafka",
    "more replicas must take a record than there are, so that none is ever taken; or, with three, one is enough, and "
    "a record that was acknowledged can be lost with one broker",
    "`kafka-configs.sh --alter --entity-type topics --entity-name TOPIC --add-config min.insync.replicas=2` for three "
    "replicas, 1 for one.",
)
KAFKA_RETENTION = Question(
    "kafka-retention",
    "kafka",
    "records expire before they are worked on when the services are down or behind for that long; callbacks that wait "
    "expire before they are due; or the topic is compacted, which loses orders of one id",
    "`kafka-configs.sh --alter … --add-config retention.ms=…`: tasks and results a week, retry topics well above their "
    "delay, dead letters -1; `cleanup.policy=delete`.",
)
KAFKA_RETRIES = Question(
    "kafka-retries",
    "kafka",
    "callbacks wait in a retry topic that `CALLBACK_RETRY_DELAYS_SECONDS` no longer reaches: nobody reads it",
    "Set as many delays as there are such topics until their lag is 0.",
)
KAFKA_DEAD_LETTERS = Question(
    "kafka-dead-letters",
    "kafka",
    "records were set aside, and nobody has sent them again",
    "`python scripts/dead_letters.py list` says why; `redrive` sends them back (docs/dead-letters.md).",
)
GROUP_MEMBERS = Question(
    "group-members",
    "groups",
    "nobody works in the group, or more processes than the topic has partitions, and some are idle",
    "Start one: `python scripts/services.py start`; for more at once: `kafka-topics.sh --alter --partitions`.",
)
GROUP_LAG = Question(
    "group-lag",
    "groups",
    "records wait and nobody works on them",
    "Start a process of this kind, and look at `logs/` if one should run.",
)
GROUP_ANCHORED = Question(
    "group-anchored",
    "groups",
    "the group has no offsets: it is brand-new, and begins where `KAFKA_AUTO_OFFSET_RESET` says when the first process "
    "starts; with `latest`, what lies in the topic until then is not worked on",
    "Start a processor before tasks are sent (it anchors both groups), or set `KAFKA_AUTO_OFFSET_RESET=earliest`.",
)
GROUP_OFFSETS = Question(
    "group-offsets",
    "groups",
    "the group's offset lies outside of what the partition holds: records expired unread, or the topic was made anew",
    "Send the lost tasks again from where they came from; raise `retention.ms`. For a topic that was made anew: "
    "`kafka-consumer-groups.sh --reset-offsets --to-earliest --execute`, with all processes stopped.",
)
S3_BUCKET = Question(
    "s3-bucket",
    "s3",
    "a bucket cannot be reached, is not there, or may not be used",
    "Start S3 (`python scripts/s3.py start` for a local one); check `S3_BUCKET`, `S3_SOURCE_BUCKETS`, "
    "`S3_ENDPOINT_URL`, `AWS_REGION` and the AWS credentials; `path` in `S3_ADDRESSING_STYLE` for most servers that "
    "are not AWS.",
)
S3_OBJECTS = Question(
    "s3-objects",
    "s3",
    "an object cannot be written, read, listed or removed, or an upload in parts cannot be begun and given up",
    "Give the rights of docs/security-s3.md; with `S3_SSE=aws:kms` also those on the key.",
)
S3_LINK = Question(
    "s3-link",
    "s3",
    "a link as callbacks carry it does not open what it names, or names each receiver's own machine",
    "Set `S3_PRESIGN_ENDPOINT_URL` to the address at which receivers reach S3, or `S3_PUBLIC_BASE_URL` to where the "
    "bucket is public. Opened from here; receivers may see another network.",
)
S3_CLOCK = Question(
    "s3-clock",
    "s3",
    "this machine's clock and S3's differ: signatures are refused beyond 15 minutes, callbacks' beyond 5",
    "Let NTP set the clock of this machine (`timedatectl set-ntp true`).",
)
CALLBACK_SECRET = Question(
    "callback-secret",
    "callbacks",
    "callbacks are not signed, so a receiver cannot tell them from a stranger's",
    "Set `CALLBACK_SECRET`: `whsec_` and 32 random bytes in base64 (`echo whsec_$(openssl rand -base64 32)`).",
)
CALLBACK_URL = Question(
    "callback-url",
    "callbacks",
    "callbacks cannot reach the address: it is forbidden, does not resolve or answer, or its certificate does not hold",
    "A private address must be allowed by `ALLOWED_ADDRESSES` (CIDRs, such as 10.0.0.0/8); a certificate must be of an "
    "authority that certifi knows, for this name, and not expired; redirects are not followed.",
)
EGRESS_PROXY = Question(
    "egress-proxy",
    "callbacks",
    "nothing listens at `EGRESS_PROXY_URL`, and no download or callback gets out",
    "Start the proxy or correct the address (docs/egress.md).",
)
FOLDERS = Question(
    "folders",
    "files",
    "a folder of the services cannot be written, or `INPUT_DIR` cannot be read",
    "Make it, and give it to the user that runs the services; run doctor as that user.",
)
DISK_ROOM = Question(
    "disk-room",
    "files",
    "the disk has no room for a song (a fault), or not for the longest and largest that the limits allow",
    "Free some, or lower `MAX_DOWNLOAD_BYTES` and `MAX_AUDIO_SECONDS`.",
)
HANDOFF_S3 = Question(
    "handoff-s3",
    "files",
    "stems cannot be handed over through S3",
    "Check `HANDOFF_URL` and give both services the rights of docs/security-s3.md below it.",
)
HANDOFF_SHARED = Question(
    "handoff-shared",
    "files",
    "processors and uploaders run on different machines or in different folders, and `HANDOFF_URL` is a folder",
    "`HANDOFF_URL=s3://bucket/prefix`, unless the folder is on a disk that all of them share; on one machine an "
    "absolute path.",
)
MODEL_FILES = Question(
    "model-files",
    "models",
    "a model file is damaged, or is not the model that its name says",
    "`python scripts/models.py verify`, then remove it and `python scripts/models.py download NAME`.",
)
MODEL_DEFAULT = Question(
    "model-default",
    "models",
    "`UVR_MODEL` is not in `UVR_MODEL_DIR`",
    "`python scripts/models.py list` shows what is there; `download` or `add` puts it there.",
)
SEPARATION = Question(
    "separation",
    "separation",
    "a second of sound could not be separated as the settings say",
    "The message says why; `python scripts/separate.py SONG` tries the same with a song of yours.",
)
DEVICE = Question(
    "device",
    "separation",
    "`UVR_DEVICE=cuda`, but the processor computed",
    "Install the GPU's driver and the onnxruntime-gpu that goes with its CUDA, or set `UVR_DEVICE=auto`.",
)
SPEED = Question(
    "speed",
    "separation",
    "a second of sound took more than ten to separate (short sounds are padded; a song goes faster); a task's deadline "
    "is three times its song, at least 600 s",
    "Fewer processors on this machine, a lighter model, or a GPU.",
)
MEMORY = Question(
    "memory",
    "machine",
    "the separation process may take all memory of this machine, or more than there is",
    "`SEPARATION_MEMORY_BYTES` well below the memory, divided by the processors on this machine.",
)
THREADS = Question(
    "threads",
    "machine",
    "`UVR_THREADS` asks for more than there are cores",
    "0 is all cores; with several processors on one machine, cores / processors.",
)
OPEN_FILES = Question(
    "open-files",
    "machine",
    "a process may open few files, and sockets are files",
    "`ulimit -n 4096`, or `LimitNOFILE=4096` in the systemd unit.",
)
METRICS_PORT = Question(
    "metrics-port",
    "machine",
    "another program has `METRICS_PORT`; a service would take the next free one, where nobody looks for it",
    "Choose another port, or end that program.",
)

QUESTIONS = tuple(value for value in list(globals().values()) if isinstance(value, Question))
"""All of them, in the order in which they are asked."""
