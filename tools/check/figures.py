"""Measure the code: sizes of functions, classes and modules, constants, length of lines."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAX_METHODS, MAX_MODULE_LINES = 10, 300
#: Which part of the project a top-level folder belongs to; modules beside them are the product.
PARTS = {"common": "product", "scripts": "tools", "tools": "tools", "tests": "tests"}


@dataclass
class Figures:
    """Figures of one part of the project."""

    modules: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    functions: list[int] = field(default_factory=list)
    line_lengths: list[int] = field(default_factory=list)
    constants: int = 0
    statements: int = 0
    private_helpers: int = 0
    used_once: int = 0

    @property
    def lines(self) -> int:
        """The lines of all modules."""
        return sum(self.modules.values())

    def add(self, name: str, source: str) -> None:
        """Count the module *name*."""
        tree = ast.parse(source)
        nodes = list(ast.walk(tree))
        lines = source.splitlines()
        self.modules[name] = len(lines)
        self.line_lengths += [len(line) for line in lines if line.strip()]
        self.statements += sum(isinstance(node, ast.stmt) for node in nodes)
        self.constants += sum(1 for _ in _constants(tree))
        uses = Counter(node.id for node in nodes if isinstance(node, ast.Name))
        uses.update(node.attr for node in nodes if isinstance(node, ast.Attribute))
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                self.classes[f"{name}:{node.name}"] = sum(
                    isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body
                )
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self.functions.append((node.end_lineno or node.lineno) - node.lineno + 1)
                if node.name.startswith("_") and not node.name.startswith("__"):
                    self.private_helpers += 1
                    self.used_once += uses[node.name] == 1

    def describe(self) -> Iterator[str]:
        """Yield the figures, a line each."""
        once = 100 * self.used_once / max(1, self.private_helpers)
        yield f"{len(self.modules)} modules, {self.lines} lines, {self.statements} statements"
        median = statistics.median(self.functions)
        yield (
            f"{len(self.functions)} functions, lines: median {median:.0f}, "
            f"p90 {_p90(self.functions)}, max {max(self.functions)}"
        )
        yield f"{self.private_helpers} private helpers, {once:.0f} % used once"
        yield f"{self.constants} constants, {1000 * self.constants / self.lines:.1f} per 1000 lines"
        yield f"line length: p90 {_p90(self.line_lengths)}"
        yield f"classes of more than {MAX_METHODS} methods: {_largest(self.classes, MAX_METHODS)}"
        yield (
            f"modules of more than {MAX_MODULE_LINES} lines: "
            f"{_largest(self.modules, MAX_MODULE_LINES)}"
        )


def measure(root: Path) -> dict[str, Figures]:
    """Return the figures of the product, the tools and the tests in the checkout *root*."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],  # noqa: S607 -- wherever git is installed
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    parts = {"product": Figures(), "tools": Figures(), "tests": Figures()}
    for name in listed:
        folder, _, rest = name.partition("/")
        part = PARTS.get(folder) if rest else "product"
        if part and (root / name).exists():
            parts[part].add(name, (root / name).read_text(encoding="utf-8"))
    return parts


def _constants(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(name, ast.Name) and re.fullmatch(r"_?[A-Z][A-Z0-9_]*", name.id):
                    yield name.id


def _p90(values: Sequence[int]) -> int:
    return sorted(values)[int(0.9 * len(values))]


def _largest(sizes: Mapping[str, int], limit: int) -> str:
    large = sorted(((size, name) for name, size in sizes.items() if size > limit), reverse=True)
    return ", ".join([str(len(large)), *(f"{name} {size}" for size, name in large)])
