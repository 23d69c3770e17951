"""Which tests depend on real time.

Listed are sleeps, and readings of a clock, in tests and their helpers, except in virtual time
(`virtual_time`). A sleep between two questions whether something is so decides nothing, nor does
a limit after which a test is given up: such a line, or the one above it, says why in a comment:
``# real time: …``.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLOCKS = ("monotonic", "perf_counter", "process_time", "thread_time")
USE = re.compile(rf"sleep|loop(\(\))?\.time|{'|'.join(CLOCKS)}")
REASON = re.compile(r"# real time: (\S.*)")


@dataclass(frozen=True)
class RealTime:
    """A line that depends on real time; ``reason``: why no verdict does, '' if it does not say."""

    file: str
    line: int
    function: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}: {self.what}. {self.reason}".rstrip(". ")


def in_file(path: Path, root: Path) -> Iterator[RealTime]:
    """Yield the lines of a file below ``root``."""
    text = path.read_text("utf-8")
    if not USE.search(text):
        return
    tree, lines = ast.parse(text), text.splitlines()
    if any("virtual_time" in ast.unparse(node.value) for node in _marks(tree)):
        return
    for function in _outermost(tree):
        if any("virtual_time" in ast.unparse(one) for one in function.decorator_list):
            continue
        for node in ast.walk(function):
            if what := _clock(node):
                near = "\n".join(lines[max(0, node.lineno - 2) : node.lineno])
                found = REASON.search(near)
                file = path.relative_to(root).as_posix()
                yield RealTime(file, node.lineno, function.name, what, found[1] if found else "")


def _outermost(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield functions and methods, but not those inside of them."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        else:
            yield from _outermost(node)


def _marks(tree: ast.Module) -> list[ast.Assign]:
    return [
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]


def _clock(node: ast.AST) -> str:
    """Return what a call does with real time, or ''; an event loop's clock may have another name
    when it is called."""
    if isinstance(node, ast.Attribute) and node.attr == "time":
        owner = ast.unparse(node.value)
        return f"{owner}.time" if owner.endswith(("loop", "loop()")) else ""
    if not isinstance(node, ast.Call):
        return ""
    name = ast.unparse(node.func)
    if name.rpartition(".")[2] == "sleep" and node.args and ast.unparse(node.args[0]) != "0":
        return f"{name}({ast.unparse(node.args[0])})"
    return f"{name}()" if name in [f"time.{clock}" for clock in CLOCKS] else ""


def all_lines(root: Path = ROOT) -> list[RealTime]:
    """Return the lines of all tests but those of third-party clients."""
    files = sorted((root / "tests").rglob("*.py"))
    return [one for path in files if "third_party" not in path.parts for one in in_file(path, root)]
