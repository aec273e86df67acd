"""Validators of the published schemas: one in Python, and a consumer of its own in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tools.environment import lock, venv

SCHEMAS = Path("schemas").resolve()
HERE = Path(__file__).parent
#: Where the consumer in Node is installed, and what it has when that is done.
FOLDER = venv.ROOT / "data" / "schema-consumer"
INSTALLED = "installed-package-lock.json"
#: A schema's name and a message.
Message = tuple[str, Any]


@cache
def validator(schema: str) -> Draft202012Validator:
    """Return the validator of a published schema."""
    return Draft202012Validator(json.loads((SCHEMAS / f"{schema}.json").read_text("utf-8")))


def in_python(messages: Iterable[Message]) -> list[str | None]:
    """Return for each message why its schema refuses it, or None."""
    best = [next(validator(schema).iter_errors(value), None) for schema, value in messages]
    return [None if error is None else f"{error.json_path}: {error.message}" for error in best]


class Node:
    """The consumer in Node, with its packages in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def already_installed() -> Node | None:
        """Return the consumer if an earlier test or run has installed it in this checkout."""
        done = FOLDER / INSTALLED
        locked = (HERE / "package-lock.json").read_bytes()
        return Node(FOLDER) if done.is_file() and done.read_bytes() == locked else None

    @staticmethod
    def installed() -> Node | str:
        """Install the packages once in this checkout; return why that is impossible if it is."""
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            return "there is no Node here"
        folder = FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        locked = (HERE / "package-lock.json").read_bytes()
        done = folder / INSTALLED
        with lock.exclusive(folder / "install.lock", lambda: None):
            for name in ("package.json", "package-lock.json", "consumer.mjs"):
                shutil.copy(HERE / name, folder / name)
            if done.is_file() and done.read_bytes() == locked:
                return Node(folder)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            try:
                subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=120)
            except subprocess.SubprocessError as error:
                return f"npm cannot install ajv: {error}"
            done.write_bytes(locked)
            return Node(folder)

    def refusals(self, messages: Sequence[Message]) -> list[str | None]:
        """Return for each message why its schema refuses it, or None."""
        official = "node_modules/@asyncapi/specs/schemas/3.0.0.json"
        lines = "".join(
            json.dumps({"schema": schema, "value": value}) + "\n" for schema, value in messages
        )
        answers = self.run("node", "consumer.mjs", str(SCHEMAS), official, text=lines)
        return [json.loads(line) for line in answers.splitlines()]

    def typescript(self, schema: str) -> str:
        """Return the types that json-schema-to-typescript makes of a schema."""
        path = str(SCHEMAS / f"{schema}.json")
        tool = "node_modules/json-schema-to-typescript/dist/src/cli.js"
        return self.run("node", tool, "--no-additionalProperties", "-i", path)

    def run(self, *command: str, text: str = "") -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            input=text,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
