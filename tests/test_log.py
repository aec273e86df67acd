"""Hostile data in a log line neither forges another line nor controls a terminal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FORGED = "2026-11-21T07:05:00.000+0000 INFO    1 x Offset committed successfully"
HOSTILE = (
    f"{{}} {{0}} {{extra}} <red>%s</red> \x1b[31m \x9b31m \r \n{FORGED}\n \u2028 \u202e \u2066 "
    "\u200b \x7f \ud800 \x00"
)
CODE = f"""
import logging, sys
from pathlib import Path
from loguru import logger
from common import log, network
log.configure("test", Path(sys.argv[1]), "INFO", sys.argv[2])
hostile = {HOSTILE!r}
logger.bind(task_uuid="a").warning("It said {{}} and {{}}", hostile, 1)
try:
    raise ValueError(hostile)
except ValueError:
    logger.exception("It failed: {{}}", hostile)
logging.getLogger("urllib3.connection").warning("Failed to parse headers (url=http://h/?token=hunter2)")
"""


@pytest.fixture(scope="module", params=["text", "json"])
def logged(request, tmp_path_factory):
    """Return the log style of a process, and its standard error and log file with hostile data."""
    folder = tmp_path_factory.mktemp("logs")
    done = subprocess.run(
        [sys.executable, "-c", CODE, folder, request.param], cwd=REPOSITORY, capture_output=True
    )
    assert done.returncode == 0
    return request.param, done.stderr.decode(), (folder / "test.log").read_bytes().decode()


def test_nothing_in_it_acts_on_a_terminal(logged):
    for text in logged[1:]:
        assert [line for line in text.split("\n") if not line.isprintable()] == []


def test_no_line_is_forged_not_even_by_a_traceback(logged):
    for text in logged[1:]:
        assert "Offset committed" in text
        assert [line for line in text.splitlines() if line.startswith(FORGED)] == []


def test_braces_and_tags_are_shown_as_they_are(logged):
    style, *texts = logged
    for text in texts:
        first = text.splitlines()[0]
        shown = json.loads(first)["message"] if style == "json" else first
        assert "It said {} {0} {extra} <red>%s</red> " in shown
        assert "Logging error" not in text


def test_what_urllib3_says_of_whole_urls_is_not_logged(logged):
    for text in logged[1:]:
        assert "hunter2" not in text


LIBRARIES = """
import logging, sys
from pathlib import Path
import boto3, kafka, urllib3, requests
from loguru import logger
from common import log, network
log.configure("test", Path(sys.argv[1]), sys.argv[2], "text")
logger.error("there is a log"); logger.trace("ours, at the lowest level")
for name in ("kafka.producer.kafka", "kafka.net.connection", "kafka.protocol.parser",
             "botocore.endpoint", "boto3.resources", "s3transfer.tasks", "urllib3.connectionpool",
             "requests", "another"):
    for level in (5, logging.DEBUG):
        logging.getLogger(name).log(level, "Sending %r", b"https://h/hook?token=hunter2")
logging.getLogger("kafka.conn").info("of interest")
"""


@pytest.mark.parametrize("level", ["TRACE", "DEBUG", "INFO"])
def test_no_level_writes_what_libraries_dump_of_records_and_requests(tmp_path, level):
    done = subprocess.run(
        [sys.executable, "-c", LIBRARIES, tmp_path, level], cwd=REPOSITORY, capture_output=True
    )

    text = done.stderr.decode() + (tmp_path / "test.log").read_text()
    assert done.returncode == 0, text
    assert "hunter2" not in text
    assert [words in text for words in ("ours", "of interest")] == [level == "TRACE"] * 2
