"""Plugins can be deleted: their folder, their line in the list, their tests."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.plugins import PLUGINS

ROOT = Path(__file__).resolve().parents[2]
NAMES = [plugin.name for plugin in PLUGINS]
NOT_COPIED = (".*", "__pycache__", "node_modules", "dist", "build", "target")
IMPORT_ALL = """
import importlib, pkgutil, sidecar
for module in pkgutil.walk_packages(sidecar.__path__, "sidecar."):
    if module.name not in ("sidecar.main", "sidecar.health_probe"):  # they run when imported
        importlib.import_module(module.name)
"""
START = """
from starlette.testclient import TestClient
from sidecar.plugins import PLUGINS, load_settings
from sidecar.server.app import create_app
app = create_app(load_settings(engine="scripted"))
with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 5000)) as client:
    assert client.get("/health").status_code == 200
    assert app.openapi()["paths"]
print(*(plugin.name for plugin in PLUGINS))
"""


def imports(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports, with the packages that they are in, and the names that
    it imports from them."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        names = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{name.name}" for name in node.names]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def those_without(name: str) -> set[str]:
    """Return the plugins that are deleted with one: itself and those that require it."""
    return {name} | {plugin.name for plugin in PLUGINS if name in plugin.requires}


@pytest.mark.parametrize("name", NAMES)
def test_plugin_is_imported_by_the_list_of_plugins_only(name: str) -> None:
    own = ROOT / "sidecar" / "plugins"
    allowed = {
        own / "__init__.py",
        *(f for one in those_without(name) for f in own.glob(f"{one}/*")),
    }
    found = [
        str(file.relative_to(ROOT))
        for file in (ROOT / "sidecar").rglob("*.py")
        if file not in allowed and f"sidecar.plugins.{name}" in imports(file)
    ]
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_program_without_a_plugin_starts_imports_lints_and_passes_tests(
    name: str, tmp_path: Path
) -> None:
    shutil.copytree(ROOT, tmp_path, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True)
    gone = those_without(name)
    for one in gone:
        shutil.rmtree(tmp_path / "sidecar/plugins" / one)
        shutil.rmtree(tmp_path / "tests/plugins" / one)
    listed = tmp_path / "sidecar/plugins/__init__.py"
    text = listed.read_text()
    for one in gone:
        text = re.sub(rf"^    {one}\.PLUGIN,\n|(?<=[ ,]){one}(, |(?=\n))", "", text, flags=re.M)
    listed.write_text(text.replace(", \n", "\n"))
    delete_tests_of(gone, tmp_path / "tests")

    def run(*command: str) -> str:
        ended = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{tmp_path}/clients/python/src"},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, (ended.stdout + ended.stderr)[-4000:]
        return ended.stdout

    assert set(run("-c", START).split()) == set(NAMES) - gone
    run("-c", IMPORT_ALL)
    run(
        "-c",
        "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()",
    )
    run("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/config", "tests/errors")


def delete_tests_of(plugins: set[str], tests: Path) -> None:
    """Delete the tests that import a plugin, or a module of tests that does."""
    modules = {f"sidecar.plugins.{name}" for name in plugins}
    files = {file: set(imports(file)) for file in tests.rglob("*.py")}
    while found := [file for file, named in files.items() if modules & named]:
        for file in found:
            del files[file]
            file.unlink()
            modules.add(file.stem)
