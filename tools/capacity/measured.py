"""The constants of the capacity plan, each with where it was measured or comes from.

Times are in seconds, sizes in bytes, on two cores of a cloud machine where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Engine:
    """What an engine costs.

    Args:
        realtime_factor: seconds of audio a second, from the song's file to both stems as WAV; None
            where only the operator can measure it.
        start_seconds: what each song's own process costs.
        song_bytes: the peak memory of that process.
    """

    realtime_factor: float | None
    start_seconds: float
    song_bytes: int


#: docs/engines.md: factors of whole jobs on two cores, spleeter's from the engine's own and what
#: dsp's other steps take, mdx's with a net of 30 MB; memory from benchmarks/memory.py and
#: benchmarks/engines.py. CHANGELOG.md has what a process for each song costs.
ENGINES: Mapping[str, Engine] = {
    "dsp": Engine(97.0, 0.05, 454 * MIB),
    "spleeter": Engine(53.0, 0.5, 563 * MIB),
    "mdx": Engine(7.0, 0.5, 480 * MIB),
    "audio-separator": Engine(None, 10.0, 3072 * MIB),
}

#: CPU seconds for one second of one stem, beyond WAV: docs/stems.md, "What writing costs"; FLAC
#: from benchmarks/capacity.py, rounded up.
ENCODING_CPU: Mapping[str, float] = {
    "wav": 0.0,
    "flac": 0.003,
    "mp3": 4.65 / 180,
    "m4a": 1.85 / 180,
    "opus": 2.0 / 180,
}

#: Of one stem, stereo at 44.1 kHz: docs/stems.md; FLAC of loud music is rarely larger.
STEM_KBPS: Mapping[str, float] = {
    "wav": 1411.2,
    "flac": 900.0,
    "mp3": 320.0,
    "m4a": 256.0,
    "opus": 192.0,
}
#: While a song is separated, its vocals may be kept as 32-bit floats.
KEPT_KBPS = 2822.4

#: benchmarks/capacity.py: resident sets on Linux, rounded up.
PROCESSOR_BYTES = 110 * MIB
CHILD_BYTES = 90 * MIB
UPLOADER_BYTES = 115 * MIB

#: What a task costs beside its download and separation (commits, cancels, the handoff's folder),
#: and a result beside its S3 requests and its callback; estimates for a quiet machine.
TASK_OVERHEAD = 0.15
RESULT_OVERHEAD = 0.1

#: Messages with signed URLs and some metadata, and the log's overhead for each record.
TASK_RECORD_BYTES = 500
RESULT_RECORD_BYTES = 1300
PROGRESS_RECORD_BYTES = 230
#: common/progress.py: at most twice a second; and the first and last of each of four stages.
PROGRESS_PER_SECOND = 2.0
PROGRESS_PER_TASK = 8.0

#: common/handover.py: how often an idle member looks, how far rebalances are apart, and up to which
#: numbers of members.
LOOK_SECONDS, LOOK_MEMBERS = 0.5, 40
PACE_SECONDS, PACE_MEMBERS = 2.0, 20
#: common/handover.py draws the pause from 1 to 1.3 times the pace.
PACE_FACTOR = 1.15
#: common/kafka_consumer.py: heartbeats of groups up to 20, and of the largest.
HEARTBEAT_SECONDS, HEARTBEAT_MEMBERS, LONGEST_HEARTBEAT_SECONDS = 0.3, 20, 3.0
#: A rebalance takes two rounds, of a heartbeat each, and this: a second in small groups (docs/
#: operations.md), three with a hundred members.
REBALANCE_SECONDS = 0.4

#: common/s3.py: up to the first, S3 checks the MD5 sum; from the second on, an upload has parts.
SMALL_BYTES = MIB
MULTIPART_BYTES, PART_BYTES = 16 * MIB, 8 * MIB

#: AWS documents these for each partitioned prefix (Best practices design patterns: optimizing
#: Amazon S3 performance).
S3_WRITES_PER_SECOND, S3_READS_PER_SECOND = 3500, 5500

#: config.py: CALLBACK_TIMEOUT_SECONDS, the retry topics and their partitions.
CALLBACK_TIMEOUT_SECONDS = 15.0
RETRY_PARTITIONS = 5 * 6

#: docs/operations.md: four to eight partitions for each processor.
PARTITIONS_PER_PROCESSOR = 8
#: benchmarks/waiting.py ran with up to a hundred members; beyond, handing over takes half a minute.
MAX_GROUP = 100
#: A guess on the safe side, not measured: what one broker serves of these small requests.
BROKER_REQUESTS_PER_SECOND = 5000
#: KIP-578 quotes this as the usual recommendation for one broker.
BROKER_REPLICAS = 4000
