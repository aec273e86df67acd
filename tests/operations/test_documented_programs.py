"""Commands of other programs in the documents: each is run or checked, or listed with why not."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pip._internal.commands import create_command

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [*Path().glob("*.md"), *Path("docs").glob("**/*.md"), *Path("examples").glob("**/*.md")]
)
#: Blocks of these languages are commands, if their first words are.
SHELL = {"", "bash", "sh"}
#: Lines of such blocks that are no commands, but settings or a Dockerfile's.
OTHER_LINES = re.compile(r"#.*|[A-Z_]+=\S+|(COPY|RUN) .*")
#: Code in a line of text is a command if it begins with one of these and has arguments.
PROGRAMS = re.compile(
    r"(\.venv/bin/)?(aws|cp|curl|docker|docker-compose|echo|git|helm|install|journalctl|kcat|"
    r"kubectl|kustomize|npm|npx|openssl|pip|python|sh|sudo|systemctl|timedatectl|uv|"
    r"kafka-[a-z-]+\.sh) .+"
)

#: What other tests run, as regular expressions, and which test that is.
RUN_BY = {
    r"python (scripts|benchmarks)/.*": "test_documented_commands.py",
    r"(\.venv/bin/)?python (processor|uploader)\.py": "../pipeline/services.py",
    r"echo .* \| kafka-console-producer\.sh --bootstrap-server .*"
    r"|kafka-(topics|consumer-groups)\.sh --bootstrap-server .*": "test_documented_commands.py",
    r"kafka-acls\.sh .*": "../security/test_kafka_acls.py",
    r"npx json-schema-to-typescript .*": "../schemas/test_published.py",
    r"kubectl kustomize overlay": "test_kubernetes.py",
}
#: What no test runs, and why.
NOT_RUN = {
    "docker build -t registry.example.com/uvr-pipeline:0.1.0 .": "needs Docker",
    "docker-compose up": "needs Docker; tests/pipeline/test_compose.py reads the file",
    "docker-compose ps": "needs Docker",
    "docker-compose --profile monitoring up": "needs Docker; test_monitoring.py reads the profile",
    "kafka-configs.sh --alter --entity-type topics --entity-name TOPIC --add-config "
    "min.insync.replicas=2": "names no broker: the reader's own",
    "kafka-configs.sh --alter … --add-config retention.ms=…": "is a part of a command",
    "kafka-topics.sh --alter --partitions": "is a part of a command",
    "kafka-consumer-groups.sh --describe": "is a part of a command",
    "kafka-consumer-groups.sh --reset-offsets --to-earliest --execute": "is a part of a command",
    "kafka-console-producer.sh --bootstrap-server localhost:9092 --topic uvr_tasks "
    '--reader-property parse.key=true --reader-property "key.separator=|" < task.json': (
        "sends a file of the reader's; test_documented_commands.py runs it with a task"
    ),
    "kcat -C -b localhost:9092 -t uvr_progress -o end": "needs kcat",
    """echo 'song-1:{"task_uuid": "song-1", "audio_url": "https://example.com/song.mp3"}' """
    "| kcat -P -b localhost:9092 -t uvr_tasks -K : -X acks=all": "needs kcat",
    "kubectl label namespace uvr pod-security.kubernetes.io/enforce=restricted": "needs a cluster",
    "kubectl apply -k overlay": "needs a cluster; test_kubernetes.py makes what it applies",
    "kubectl apply -k": "is a part of a command",
    "kubectl scale": "is a part of a command",
    "kubectl drain": "is a part of a command",
    "kubectl logs": "is a part of a command",
    "kubectl --namespace uvr rollout status deployment/uvr-processor": "needs a cluster",
    "kubectl --namespace uvr rollout restart deployment": "needs a cluster",
    "kubectl delete pod --grace-period=60": "needs a cluster",
    "systemctl daemon-reload": "changes this machine",
    "export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318": "a setting; see test_tracing.py",
    "cp -a": "is a part of a command",
    "timedatectl set-ntp true": "changes this machine",
    "uv pip compile --universal --python-version 3.11 --generate-hashes requirements/services.in "
    "-o requirements.txt": "changes the requirements, and needs the package index",
}


def shown():
    """Return every command of the documents, on one line each, without comments."""
    found = set()
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        fences = r"^ *```(\w*)\n(.*?)^ *```"
        for language, block in re.findall(fences, text, re.MULTILINE | re.DOTALL):
            if language not in SHELL or "──►" in block:  # a diagram
                continue
            lines = re.sub(r"\\\n", " ", block).splitlines()
            if lines[0].startswith("python scripts/capacity.py"):  # what it prints follows
                del lines[1:]
            for line in lines:
                command = re.sub(r"\s+", " ", re.split(r"\s{2,}(?=#)|^#", line.strip())[0]).strip()
                if command and not OTHER_LINES.fullmatch(line.strip()):
                    found |= set(command.split(" && "))
        prose = re.sub(fences, "", text, flags=re.MULTILINE | re.DOTALL)
        found |= {code for code in re.findall(r"`([^`\n]+)`", prose) if PROGRAMS.fullmatch(code)}
    return sorted(found)


COMMANDS = shown()


def begin_with(*words):
    return [command for command in COMMANDS if command.startswith(words)]


PIP = [command for command in COMMANDS if re.match(r"(\S+ -m )?(\S+/)?pip ", command)]
CHECKED_HERE = {
    *PIP,
    *begin_with("python -m venv", "cp examples", "install ", "systemctl enable", "systemctl stop"),
    *begin_with("systemctl restart", "kubectl create", "kubectl --namespace uvr create"),
}


def test_every_command_of_another_program_is_run_or_listed_with_why_not():
    """A new one has to be added: to a test, or to the list."""
    run = {one for one in COMMANDS if any(re.fullmatch(form, one) for form in RUN_BY)}

    assert set(COMMANDS) - run - set(NOT_RUN) - CHECKED_HERE == set()
    assert set(NOT_RUN) - set(COMMANDS) == set(), "no longer in the documents"
    for form, test in RUN_BY.items():
        assert any(re.fullmatch(form, one) for one in COMMANDS), form
        assert (Path(__file__).parent / test).is_file()


@pytest.mark.parametrize("command", PIP)
def test_pip_understands_what_it_is_told_to_install(command):
    words = shlex.split(command)
    name, *arguments = words[words.index("-m") + 2 if "-m" in words else 1 :]

    options, names = create_command(name).parse_args(arguments)

    assert names or options.requirements
    assert all((REPOSITORY / file).is_file() for file in getattr(options, "requirements", ()))


def test_an_environment_is_made_as_the_readme_says(tmp_path):
    (command,) = begin_with("python -m venv")
    assert shlex.split(command)[0] == "python"

    arguments = [*shlex.split(command)[1:], "--without-pip"]  # which takes the most of the time
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True)

    assert (tmp_path / ".venv" / "pyvenv.cfg").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="they are commands of POSIX systems")
def test_files_are_copied_and_folders_made_as_the_documents_say(tmp_path):
    copies = begin_with("cp examples", "install ")
    assert len(copies) == 3
    group = str(tmp_path.stat().st_gid)
    for command in copies:
        line = re.sub(r" (/\S+/?|\.env)$", f" {tmp_path}", command).replace("-g uvr", f"-g {group}")
        assert str(tmp_path) in line
        subprocess.run(["sh", "-c", line], cwd=REPOSITORY, check=True)
    assert (tmp_path / "local.env").is_file()
    assert (tmp_path / "uvr.target").is_file()


def test_the_units_that_systemctl_is_told_of_exist():
    units = {word for one in begin_with("systemctl ") for word in one.split() if "uvr" in word}

    assert len(units) >= 4
    for unit in units:
        file = re.sub(r"@\d+", "@.service", unit)
        assert (REPOSITORY / "examples" / "systemd" / file).is_file()


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_understands_what_it_is_told_to_create(tmp_path):
    creations = begin_with("kubectl create", "kubectl --namespace uvr create")
    assert len(creations) >= 3
    for name in ("processor-aws", "uploader-aws", "callback"):
        (tmp_path / name).write_text("secret")
    for command in creations:
        line = [*shlex.split(command), "--dry-run=client", "-o", "name"]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
