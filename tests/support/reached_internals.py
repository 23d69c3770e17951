"""Which tests reach into the product: its private names, and constants that they change.

Such a test breaks when the product's inside changes. A part that a test sets up otherwise has a
parameter for it. Where that is worse, the line, or the one above it, says why in a comment:
``# internal: …``.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ROOT / "sidecar", ROOT / "clients" / "python" / "src"
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]+").fullmatch
PRIVATE = re.compile(r"_[A-Za-z]\w*").fullmatch
REASON = re.compile(r"# internal: \S")
PACKAGES = re.compile(r"(sidecar|vibevoice_asr_\w+)\b").match
OWN = ("self", "cls", "super()")


@cache
def of_product() -> frozenset[str]:
    """Return the private names and the constants that the product defines."""
    names = set[str]()
    for path in (path for folder in PRODUCT for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    names.add(name)
                case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
                case ast.Attribute(attr=name, ctx=ast.Store()):
                    names.add(name)
    return frozenset(name for name in names if PRIVATE(name) or CONSTANT(name))


def in_source(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines, and what each reaches, that give no reason."""
    lines = text.splitlines()
    for parent in ast.walk(ast.parse(text)):
        for node in ast.iter_child_nodes(parent):
            if (what := _reached(node, parent)) and what.rpartition(".")[2] in of_product():
                line = node.lineno  # type: ignore[attr-defined]
                if not REASON.search("\n".join(lines[max(0, line - 2) : line])):
                    yield line, what


def _reached(node: ast.AST, parent: ast.AST) -> str:
    """Return the private name, or that of the constant that is changed, or ''."""
    match node:
        case ast.alias(name=name) if isinstance(parent, ast.ImportFrom) and PRIVATE(name):
            return f"{parent.module}.{name}" if PACKAGES(f"{parent.module}") else ""
        case ast.Constant(value=str(name)) if isinstance(parent, ast.Tuple | ast.List):
            return name if CONSTANT(name) and "_" in name else ""
        case ast.Attribute(attr=name) if ast.unparse(node.value) in OWN:
            return ""
        case ast.Attribute(attr=name) if PRIVATE(name) and not name.startswith("__"):
            return ast.unparse(node)
        case ast.Attribute(attr=name, ctx=ast.Store()) if CONSTANT(name):
            return ast.unparse(node)
        case ast.Call(func=ast.Attribute(attr="setattr" | "object"), args=[first, *rest]):
            owner, *names = (ast.unparse(one).strip("'") for one in (first, *rest[:1]))
            name = owner if isinstance(first, ast.Constant) else ".".join((owner, *names))
            last = name.rpartition(".")[2]
            return name if PRIVATE(last) or CONSTANT(last) else ""
    return ""


def all_lines() -> list[str]:
    """Return the lines of all tests and their helpers, and what each reaches."""
    return [
        f"{path.relative_to(ROOT).as_posix()}:{line} {what}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line, what in sorted(in_source(path.read_text("utf-8")))
    ]


if __name__ == "__main__":
    print(*all_lines(), sep="\n")
