"""Alerts, dashboard and docker-compose's monitoring: they parse, and what they name exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import promql_parser
import pytest
import yaml

from common import metrics
from common.dependencies import DependencyName
from common.errors import TASK_ERRORS

MONITORING = Path("monitoring")
COMPOSE = yaml.safe_load(Path("docker-compose.yml").read_text(encoding="utf-8"))
PROMETHEUS = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads(
    (MONITORING / "grafana" / "dashboards" / "uvr.json").read_text(encoding="utf-8")
)
PROVISIONING = MONITORING / "grafana" / "provisioning"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
DOCUMENT = Path("docs/alerts.md").read_text(encoding="utf-8")
#: Grafana's own variables, as it fills them in.
VARIABLES = {"$__rate_interval": "1m"}
#: Metrics of Prometheus itself, one per target.
ITS_OWN = {"up"}


def expressions():
    for name, rule in ALERTS.items():
        yield pytest.param(rule["expr"], id=name)
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield pytest.param(target["expr"], id=f"{panel['title']}: {target['legendFormat']}")


def selectors(tree):
    """Yield every selector of a parsed expression."""
    if isinstance(tree, promql_parser.VectorSelector):
        yield tree
    elif isinstance(tree, promql_parser.MatrixSelector):
        yield tree.vector_selector
    for part in ("lhs", "rhs", "expr"):
        if hasattr(tree, part):
            yield from selectors(getattr(tree, part))
    for argument in getattr(tree, "args", ()):
        yield from selectors(argument)


def samples():
    """Return the labels of every sample that a process may export, by name."""
    named: dict[str, set[str]] = {}
    for family in metrics.REGISTRY.collect():
        for suffix in {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(
            family.type, ("",)
        ):
            labels = {
                "consumer_lag": {"topic", "partition"},
                "records_lost": {"topic"},
                "stage_duration_seconds": {"stage", "le"},
                "dependency_up": {"dependency"},
            }
            found = {label for sample in family.samples for label in sample.labels}
            named[family.name + suffix] = found | labels.get(
                family.name.removeprefix("uvr_"), set()
            )
    return named


@pytest.mark.parametrize("expression", list(expressions()))
def test_every_expression_parses_and_names_metrics_and_labels_that_exist(expression):
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    known = samples()

    found = list(selectors(promql_parser.parse(expression)))

    assert found
    for selector in found:
        assert selector.name in known.keys() | ITS_OWN
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= known.get(selector.name, set()) | {"job", "instance"}


def test_expressions_match_only_values_that_exist():
    text = json.dumps([ALERTS, DASHBOARD]).replace('\\"', '"')
    jobs = {config["job_name"] for config in PROMETHEUS["scrape_configs"]}

    assert set(re.findall(r'job="([^"]+)"', text)) == jobs == {"processor", "uploader"}
    assert set(re.findall(r'status="([^"]+)"', text)) <= {"succeeded", "failed"}
    assert set(re.findall(r'outcome!?="([^"]+)"', text)) <= {"delivered", *TASK_ERRORS}
    assert set(re.findall(r'dependency!?="([^"]+)"', text)) <= set(get_args(DependencyName))
    assert set(re.findall(r'reason!?="([^"]+)"', text)) <= {"cancelled", *TASK_ERRORS}


def test_every_alert_has_its_section_and_every_section_its_alert():
    sections = re.findall(r"^### (\w+)$", DOCUMENT, re.MULTILINE)

    assert sections == list(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        section = DOCUMENT.split(f"### {name}\n")[1].split("\n### ")[0]
        assert re.findall(r"^\*\*(\w+)\*\*:", section, re.MULTILINE) == ["Means", "Look", "Do"]


def test_the_document_lists_every_metric_with_its_labels():
    rows = re.findall(r"^\| `(uvr_\w+)` \| ([\w, ]*)\|", DOCUMENT, re.MULTILINE)

    known = {name.removesuffix("_bucket"): labels - {"le"} for name, labels in samples().items()}
    listed = {name: set(labels.replace(",", " ").split()) for name, labels in rows}
    assert listed == {
        name: labels for name, labels in known.items() if not name.endswith(("_sum", "_count"))
    }


def test_prometheus_scrapes_the_services_of_docker_compose_at_their_port():
    services = COMPOSE["services"]
    for config in PROMETHEUS["scrape_configs"]:
        (discovered,) = config["dns_sd_configs"]
        assert discovered["names"] == [config["job_name"]]
        assert discovered["port"] == services[config["job_name"]]["environment"]["METRICS_PORT"]
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]


def test_only_its_profile_starts_monitoring_which_listens_on_loopback():
    services = COMPOSE["services"]
    monitoring = {name: service for name, service in services.items() if "profiles" in service}

    assert monitoring.keys() == {"prometheus", "grafana"}
    for service in monitoring.values():
        assert service["profiles"] == ["monitoring"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    for name, service in services.items():
        for mount in service.get("volumes", ()):
            source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", mount).split(":")[0]  # its default
            exists = Path(source).exists() if source.startswith("./monitoring") else True
            assert exists if source.startswith(".") else source in COMPOSE["volumes"], (name, mount)


def test_grafana_finds_its_data_source_and_its_dashboard():
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "uvr.yml").read_text())["providers"]
    grafana = COMPOSE["services"]["grafana"]

    assert source["url"] == "http://prometheus:9090"
    assert f"./monitoring/grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].endswith(
        "/dashboards/uvr.json"
    )
    assert {
        panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if "datasource" in panel
    } == {source["uid"]}
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert all(panel["description"] and panel["title"] for panel in panels)
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian package prometheus) is not installed"
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_agrees(arguments):
    done = subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def docker_composes():
    docker = shutil.which("docker")
    return (
        docker
        and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not docker_composes(), reason="docker compose is not installed")
def test_docker_compose_reads_its_file():
    command = ["docker", "compose", "--profile", "monitoring", "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
