"""The documents agree with the code; test_config.py and test_errors.py check README's tables."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from common.callback import Callback, LinkedStem, SucceededData
from common.errors import ProcessError
from common.messages import STEMS, Task
from common.version import VERSION
from tools.local_kafka.jars import KAFKA_VERSION
from tools.local_s3.jars import S3PROXY, S3PROXY_VERSION

README = Path("README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*Path().glob("*.md"), *Path("docs").glob("**/*.md")])
SCRIPTS = sorted(Path("scripts").glob("*.py"))


def section(title):
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_changelog_begins_with_this_version():
    versions = re.findall(
        r"^## \[([^\]]+)\]", Path("CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )

    assert next(version for version in versions if version != "Unreleased") == VERSION


def test_what_comes_before_the_readmes_reference_stays_short():
    assert README.split("\n## Commands\n")[0].count("\n") <= 110


def test_the_readme_shows_a_task_and_its_callback_with_all_their_fields():
    task, shown = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    callback = json.loads(shown)

    assert Task.decode(task.encode()).task_uuid == callback["data"]["task_uuid"]
    assert callback.keys() == Callback.model_fields.keys()
    assert callback["data"].keys() == SucceededData.model_fields.keys()
    for stem in STEMS:
        assert callback["data"][stem].keys() == LinkedStem.model_fields.keys()


@pytest.mark.parametrize("index", [Path("README.md"), Path("docs/README.md")], ids=str)
def test_an_index_lists_every_page(index):
    links = re.findall(r"\]\(([^)#]+\.md)", index.read_text(encoding="utf-8"))

    listed = {(index.parent / link).resolve() for link in links}
    pages = {page.resolve() for page in Path("docs").glob("*.md") if page.name != "README.md"}
    assert pages <= listed


def test_the_readme_lists_the_exit_codes_of_every_process_error():
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)}

    assert codes == {0, 1} | {error.exit_code for error in ProcessError.__subclasses__()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_to_a_file_leads_somewhere(document):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))

    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_to_a_heading_leads_to_one(document):
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", document.read_text(encoding="utf-8"))

    for name, anchor in links:
        page = document.parent / name if name else document
        headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}
        assert anchor in slugs


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_script_that_is_named_exists(document):
    named = set(
        re.findall(
            r"python (?:\S*/)?((?:scripts|benchmarks)/\w+\.py)",
            document.read_text(encoding="utf-8"),
        )
    )

    assert [name for name in named if not Path(name).exists()] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_every_script_says_how_it_is_used_and_is_in_the_readme(script):
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)

    assert done.returncode == 0
    assert f"usage: {script.name}" in done.stdout
    assert f"scripts/{script.name}" in README


def test_words_to_grep_are_words_of_the_code():
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in (*Path().glob("*.py"), *Path("common").glob("*.py"))
    )
    words = re.findall(r"`([^`]+)`", README.split("Words to grep: ")[1].split(".\n")[0])

    assert len(words) == 8
    assert [word for word in words if word not in code] == []


@pytest.mark.parametrize(
    ("page", "heading", "min_rows"), [("delivery", "| step", 30), ("security", "| asset", 20)]
)
def test_every_row_of_a_table_of_promises_names_tests_that_exist(page, heading, min_rows):
    rows = [
        line
        for line in Path(f"docs/{page}.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    tests = "".join(path.read_text(encoding="utf-8") for path in Path("tests").rglob("test_*.py"))

    cells = [row.split("|")[-2] for row in rows if not row.startswith(heading)]
    assert len(cells) > min_rows
    for cell in cells:
        names = re.findall(r"`(test_\w+)`", cell)
        assert names
        assert [name for name in names if f"def {name}(" not in tests] == []


def test_docker_compose_runs_the_kafka_that_the_tests_run():
    services = yaml.safe_load(Path("docker-compose.yml").read_text(encoding="utf-8"))["services"]

    assert services["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert {"kafka", "seaweedfs", "processor", "uploader"} <= services.keys()


def test_the_local_s3_server_is_the_one_of_the_document():
    document = Path("docs/operations.md").read_text(encoding="utf-8")
    jars = S3PROXY.jars()

    assert f"(https://github.com/gaul/s3proxy) {S3PROXY_VERSION} on loopback" in document
    assert f"its {len(jars)} jars" in document
    assert f"`tools/local_s3/{S3PROXY.file.name}`" in document


def test_the_stems_names_are_those_of_the_contract():
    for stem in STEMS:
        assert f"/{stem}.{{format}}" in README
