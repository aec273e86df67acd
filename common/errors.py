"""Every error that the pipeline raises, each with a stable code.

UvrError
├── TaskError                     ends one task or result; `code` is public (README, "Error codes")
│   ├── InvalidMessage            invalid_message
│   ├── InvalidTask               invalid_task
│   ├── UrlForbidden              url_forbidden
│   ├── DownloadFailed            download_failed
│   ├── DownloadTimeout           download_timeout
│   ├── DownloadTooLarge          download_too_large
│   ├── InputEmpty                input_empty
│   ├── NoAudio                   no_audio
│   ├── AudioTooLong              audio_too_long
│   ├── DecodeFailed              decode_failed
│   ├── ModelNotFound             model_not_found
│   ├── ModelInvalid              model_invalid
│   ├── SeparationFailed          separation_failed
│   ├── SeparationTimeout         separation_timeout
│   ├── OutOfMemory               out_of_memory
│   ├── EngineCrashed             engine_crashed
│   ├── DiskFull                  disk_full
│   ├── EncodeFailed              encode_failed
│   ├── WorkerLost                worker_lost
│   ├── HandoffMissing            handoff_missing
│   ├── UploadFailed              upload_failed
│   ├── CallbackFailed            callback_failed
│   ├── CallbackGone              callback_gone
│   ├── OrderCancelled            cancelled
│   └── InternalError             internal_error
├── ProcessError                  ends the process; `exit_code` is public (README, "Exit codes")
│   ├── SettingsInvalid           2
│   ├── Unreachable               3
│   └── InstanceIdTaken           4
└── Cancelled                     the attempt must stop: its partition was lost, its order is
                                  unwanted, or a second stop signal came
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class UvrError(Exception):
    """Root of every error that the pipeline raises on purpose."""


class TaskError(UvrError):
    """Raised when one task or result fails; becomes its failed outcome.

    Args:
        message: what happened, with which value, and what to do; it is sent to strangers, so it
            must contain neither secrets nor local paths.
        retryable: whether the same task may succeed if sent again; None for the class's default.
    """

    code: ClassVar[str]
    default_retryable: ClassVar[bool] = False
    #: Whether the record is also dead-lettered, because a human must look at it.
    dead_letter: ClassVar[bool] = False

    def __init__(self, message: str, *, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = self.default_retryable if retryable is None else retryable


class InvalidMessage(TaskError):
    """Raised when a record is unreadable, its task_uuid included."""

    code = "invalid_message"
    dead_letter = True


class InvalidTask(TaskError):
    """Raised when a task has a readable task_uuid but breaks the contract elsewhere."""

    code = "invalid_task"
    dead_letter = True


class UrlForbidden(TaskError):
    """Raised when a URL names a scheme, an address, a bucket or a folder that is not allowed."""

    code = "url_forbidden"


class DownloadFailed(TaskError):
    """Raised when the source cannot be downloaded: refused, not found, broken off."""

    code = "download_failed"
    default_retryable = True


class DownloadTimeout(TaskError):
    """Raised when the download takes longer than DOWNLOAD_TIMEOUT_SECONDS."""

    code = "download_timeout"
    default_retryable = True


class DownloadTooLarge(TaskError):
    """Raised when the source is larger than MAX_DOWNLOAD_BYTES."""

    code = "download_too_large"


class InputEmpty(TaskError):
    """Raised when the source has no bytes, or no audio frames."""

    code = "input_empty"


class NoAudio(TaskError):
    """Raised when the source is a media file without an audio stream."""

    code = "no_audio"


class AudioTooLong(TaskError):
    """Raised when the source is longer than MAX_AUDIO_SECONDS."""

    code = "audio_too_long"


class DecodeFailed(TaskError):
    """Raised when the source is an unsupported or damaged audio file."""

    code = "decode_failed"


class ModelNotFound(TaskError):
    """Raised when the model that a task names is not in UVR_MODEL_DIR."""

    code = "model_not_found"


class ModelInvalid(TaskError):
    """Raised when a model file cannot be loaded or has the wrong shape."""

    code = "model_invalid"


class SeparationFailed(TaskError):
    """Raised when the engine fails, or its stems do not pass their check."""

    code = "separation_failed"


class SeparationTimeout(TaskError):
    """Raised when separation takes longer than the task's deadline."""

    code = "separation_timeout"


class OutOfMemory(TaskError):
    """Raised when separation needs more memory than its limit."""

    code = "out_of_memory"
    default_retryable = True


class EngineCrashed(TaskError):
    """Raised when the separation process dies without an answer."""

    code = "engine_crashed"
    default_retryable = True


class DiskFull(TaskError):
    """Raised when a disk of the worker has no space for the task.

    `folder`, where it wrote, and `needed_bytes` are for the log; None if unknown.
    """

    code = "disk_full"
    default_retryable = True

    def __init__(
        self,
        message: str,
        *,
        retryable: bool | None = None,
        folder: Path | None = None,
        needed_bytes: int | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable)
        self.folder = folder
        self.needed_bytes = needed_bytes


class EncodeFailed(TaskError):
    """Raised when the stems cannot be written in the requested format."""

    code = "encode_failed"


class WorkerLost(TaskError):
    """Raised when a task crashed its process TASK_MAX_ATTEMPTS times."""

    code = "worker_lost"
    dead_letter = True


class HandoffMissing(TaskError):
    """Raised when stems are gone, or differ from the size and hash in their result."""

    code = "handoff_missing"
    default_retryable = True


class UploadFailed(TaskError):
    """Raised when S3 or the handoff does not take the stems within UPLOAD_TIMEOUT_SECONDS."""

    code = "upload_failed"
    default_retryable = True


class CallbackFailed(TaskError):
    """Raised when a callback's receiver does not answer 2xx.

    `retry_after_seconds` is the wait that the receiver asks for; None without one.
    """

    code = "callback_failed"
    default_retryable = True

    def __init__(
        self,
        message: str,
        *,
        retryable: bool | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable)
        self.retry_after_seconds = retry_after_seconds


class CallbackGone(TaskError):
    """Raised when a callback's receiver answers 410: it wants no more callbacks."""

    code = "callback_gone"


class OrderCancelled(TaskError):
    """Raised when a record on KAFKA_CANCEL_TOPIC cancelled the order before its result."""

    code = "cancelled"


class InternalError(TaskError):
    """Raised for a bug of the pipeline; its traceback is in the log of the process."""

    code = "internal_error"
    default_retryable = True
    dead_letter = True


class ProcessError(UvrError):
    """Raised when the process cannot start or continue; `exit_code` is the reason."""

    exit_code: ClassVar[int]


class SettingsInvalid(ProcessError):
    """Raised when settings are missing or wrong; the message names every one of them."""

    exit_code = 2


class Unreachable(ProcessError):
    """Raised when Kafka or S3 is unreachable or refuses us for STARTUP_TIMEOUT_SECONDS."""

    exit_code = 3


class InstanceIdTaken(ProcessError):
    """Raised when another process takes over our KAFKA_GROUP_INSTANCE_ID."""

    exit_code = 4


class Cancelled(UvrError):
    """Raised in an attempt that must stop: its record is no longer ours, or its order unwanted."""


TASK_ERRORS: dict[str, type[TaskError]] = {
    error.code: error for error in TaskError.__subclasses__()
}
"""Every task error by its code; a test compares README's table with it."""


def task_error(code: str, message: str, *, retryable: bool) -> TaskError:
    """Recreate the task error of *code* after it crossed a process or a topic."""
    error = TASK_ERRORS.get(code, InternalError)(message)
    error.retryable = retryable
    return error
