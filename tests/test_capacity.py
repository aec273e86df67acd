"""The capacity plan keeps the wanted wait on a simulated day, and wastes little."""

import json
import math
import random
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean, quantiles

import pytest

from common import handover
from common.kafka_consumer import HEARTBEAT_MS
from config import Settings
from scripts import capacity
from tests import days
from tools.capacity import measured, queueing
from tools.capacity.plan import Impossible, Load, Plan
from tools.topics.options import FORMATS

SCRIPT = Path("scripts/capacity.py")
PAGE = Path("docs/capacity.md")
#: 10,000 songs a day each; their tasks take 7, 37 and 122 s.
LOADS = {
    "spleeter": Load(10_000, engine="spleeter", wait_mean=10, wait_p95=40),
    "mdx": Load(10_000, engine="mdx"),
    "slow": Load(10_000, engine="mdx", realtime_factor=2, wait_mean=30, wait_p95=120),
}


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60
    )


def waits_of_the_busiest_hour(load, processors, simulated_days):
    """Return the mean wait, and what 95 % do not exceed, over some days."""
    spread = load.spread(load.task_seconds, load.fixed_seconds)
    waits = []
    for seed in range(simulated_days):
        generator = random.Random(seed)
        tasks = days.day(
            round(load.songs_per_day * (1 + load.repeated)),
            load.peak,
            lambda generator: days.lognormal(load.task_seconds, spread, generator),
            generator,
        )
        simulated = days.Processors(processors, max(24, 8 * processors), generator).run(tasks)
        waits += [wait for at, wait in simulated if at >= days.END - days.HOUR]
    return fmean(waits), quantiles(waits, n=20)[-1]


def test_a_wait_that_is_nothing_is_shown_as_nothing():
    (line,) = (line for line in run("--songs-per-day", "10").stdout.splitlines() if "95 %" in line)

    assert line.split()[-1] == "0"


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_on_a_simulated_day_the_plan_keeps_the_wanted_wait_and_15_percent_fewer_do_not(load):
    plan = Plan.of(load)

    mean, p95 = waits_of_the_busiest_hour(load, plan.processors, 4)
    assert mean <= load.wait_mean
    assert p95 <= load.wait_p95
    # Neither does the plan promise more than there is, nor far less.
    assert mean == pytest.approx(plan.waits.mean_seconds, rel=0.35)
    assert p95 == pytest.approx(plan.waits.quantile(0.95), rel=0.35)

    mean, p95 = waits_of_the_busiest_hour(load, math.floor(0.85 * plan.processors), 1)
    assert mean > load.wait_mean
    assert p95 > load.wait_p95


def test_a_large_load_gets_several_pipelines_whose_groups_stay_small():
    plan = Plan.of(Load(1_000_000, engine="mdx"))

    assert max(plan.processors, plan.uploaders) <= measured.MAX_GROUP
    assert plan.pipelines > 8
    assert plan.part.songs_per_day * plan.pipelines == pytest.approx(1_000_000)


def test_a_wait_that_handing_over_exceeds_cannot_be_kept():
    with pytest.raises(Impossible, match="handing a task over takes"):
        Plan.of(Load(100_000, engine="mdx", wait_mean=0.01, wait_p95=0.02))


# -- queues -----------------------------------------------------------------------


@pytest.mark.parametrize(
    # One server is busy at its load; the others are in any table of Erlang C.
    ("servers", "load", "probability"),
    [(1, 0.7, 0.7), (2, 1.0, 1 / 3), (10, 8.0, 0.409), (100, 90.0, 0.217)],
)
def test_erlang_c_is_that_of_the_tables(servers, load, probability):
    assert queueing.erlang_c(servers, load) == pytest.approx(probability, abs=5e-4)


def test_one_server_with_equal_tasks_waits_half_as_long_as_with_exponential_ones():
    varied, equal = (queueing.Queue.of(1, 0.8, 1.0, (1 + cv) / 2) for cv in (1, 0))

    assert varied.busy * varied.mean_seconds == pytest.approx(4.0)  # 0.8 / (1 - 0.8)
    assert equal.busy * equal.mean_seconds == pytest.approx(2.0)


# -- constants --------------------------------------------------------------------


def test_the_constants_are_those_of_the_code():
    settings = {name: field.default for name, field in Settings.model_fields.items()}

    assert measured.LOOK_SECONDS == handover.LOOK_SECONDS
    assert measured.HEARTBEAT_SECONDS * 1000 == HEARTBEAT_MS
    assert measured.PACE_SECONDS == handover.PACE_SECONDS
    assert settings["callback_timeout_seconds"] == measured.CALLBACK_TIMEOUT_SECONDS
    retry_topics = len(settings["callback_retry_delays_seconds"])
    assert retry_topics * settings["kafka_retry_topic_partitions"] == measured.RETRY_PARTITIONS


def test_the_choices_are_those_of_the_plan():
    assert measured.ENGINES.keys() == set(capacity.ENGINES)
    assert measured.STEM_KBPS.keys() == measured.ENCODING_CPU.keys() == set(FORMATS)


# -- the command ------------------------------------------------------------------


def test_the_page_shows_what_the_command_prints():
    text = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"^```\npython (scripts/capacity[^\n]+)\n([^`]+)```", text, re.MULTILINE)

    assert len(shown) == 2
    for command, output in shown:
        done = run(*shlex.split(command)[1:])
        assert (done.returncode, done.stdout, done.stderr) == (0, output, "")


def test_json_has_a_line_for_each_load():
    done = run("--audio-hours", "10", "1000", "--json")

    small, large = map(json.loads, done.stdout.splitlines())
    assert small["audio_hours_per_hour"] == pytest.approx(10)
    assert large["processors"] > small["processors"] > 0
    assert large["limits"].keys() == small["limits"].keys()


def receipt(seconds, status="succeeded", engine="mdx"):
    stem = {"bytes": int(seconds * 50_000)}
    return {
        "status": status,
        "stems": {"vocals": stem, "instrumental": stem},
        "receipt": {
            "engine": engine,
            "source": {"seconds": seconds},
            "seconds": {"separate": seconds / 5},
        },
    }


def test_receipts_of_separate_py_set_speed_lengths_and_sizes(tmp_path):
    lines = [receipt(100), receipt(300), {"status": "failed", "receipt": None, "stems": {}}]
    (tmp_path / "measured").write_text("\n".join(map(json.dumps, lines)))
    expected = replace(
        Load(10_000),
        engine="mdx",
        realtime_factor=5.0,
        song_seconds=200.0,
        song_spread=0.5,
        stem_kbps=400.0,
    )

    done = run("--songs-per-day", "10000", "--receipts", str(tmp_path / "measured"), "--json")

    found = json.loads(done.stdout)
    assert found["task_seconds"] == pytest.approx(expected.task_seconds)
    assert found["processors"] == Plan.of(expected).processors
    assert found["s3_stored_gb_per_day"] == pytest.approx(10_000 * 0.98 * 2 * 200 * 50_000 / 1e9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": no such file or directory"),
        ("not JSON", "does not hold the output of scripts/separate.py --json"),
        (json.dumps(receipt(1, status="failed")), "holds no song that was separated"),
        (json.dumps(receipt(1)) + "\n" + json.dumps(receipt(1, engine="dsp")), "one known engine"),
    ],
)
def test_receipts_that_cannot_be_used_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "measured").write_text(content)

    done = run("--songs-per-day", "1", "--receipts", str(tmp_path / "measured"))

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_plan_that_cannot_be_made_says_why():
    unknown = run("--songs-per-day", "1000", "--engine", "audio-separator")
    wrong = run("--songs-per-day", "-1")

    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "scripts/separate.py --json" in unknown.stderr
    assert wrong.returncode == 2
    assert "'-1' is not a number above 0" in wrong.stderr
