"""A log of the tasks that were sent, so that a later command can wait for them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from common.messages import Message, Origin, TaskUuid
from common.private import make_private
from tools.topics.command import WrongUsage


class Submission(Message):
    """A sent task; `origin` is its record and identity."""

    name: str
    source: str = ""
    task_uuid: TaskUuid
    origin: Origin
    sent: datetime = Field(default_factory=lambda: datetime.now(UTC))


class SubmissionLog:
    """A file with one line of JSON for each submission."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @classmethod
    def new(cls, folder: Path) -> SubmissionLog:
        """Return a log in *folder* that is named after the present moment."""
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        return cls(folder / f"{moment}.jsonl")

    def append(self, submission: Submission) -> None:
        """Add a submission."""
        make_private(self.file.parent)
        with self.file.open("ab") as file:
            file.write(submission.encode() + b"\n")

    def read(self) -> list[Submission]:
        """Return all submissions.

        Raises:
            WrongUsage: the file does not exist, is empty, or is not a submission log.
        """
        try:
            lines = self.file.read_bytes().splitlines()
        except OSError as error:
            raise WrongUsage(f"{self.file}: {error.strerror or error}") from error
        submissions = [self._read(number, line) for number, line in enumerate(lines, 1)]
        if not submissions:
            raise WrongUsage(f"{self.file} is empty.")
        return submissions

    def _read(self, number: int, line: bytes) -> Submission:
        try:
            return Submission.model_validate_json(line)
        except ValidationError as error:
            raise WrongUsage(
                f"{self.file} is not a submission log: line {number} is not a submission"
            ) from error
