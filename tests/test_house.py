"""The rules of the house that a tool can hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "sidecar").rglob("*.py"))
HEAVY = {"numpy", "soundfile", "soxr", "moonshine_voice", "torch", "transformers", "rich", "httpx"}


def test_the_rooms_import_each_other_in_one_direction_only() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_heavy_is_imported_before_the_service_answers() -> None:
    code = "import sys, sidecar.app; print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(result.stdout.split())


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_importing_a_module_has_no_effects(module: Path) -> None:
    """At module level there are definitions, constants and guards, and no bare calls."""
    allowed = (
        ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef,
        ast.Assign, ast.AnnAssign, ast.If,
    )  # fmt: skip
    for node in ast.parse(module.read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert docstring or isinstance(node, allowed), f"line {node.lineno}"
