"""Plugins can be deleted: their folder, their line in the list, their tests."""

import ast
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import wave
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


@functools.cache
def imports(file: Path, *, inside: bool = True) -> frozenset[str]:
    """Return the modules that a file imports, with the packages that they are in, and the names
    that it imports from them; ``inside``: also those that functions import."""
    found = set()
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree) if inside else tree.body:
        names = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{name.name}" for name in node.names]
        for name in names:
            parts = name.split(".")
            found |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return frozenset(found)


def those_without(name: str) -> set[str]:
    """Return the plugins that are deleted with one: itself and those that require it."""
    gone = {name}
    while more := {plugin.name for plugin in PLUGINS if gone & {*plugin.requires}} - gone:
        gone |= more
    return gone


@pytest.mark.parametrize("name", NAMES)
def test_plugin_is_imported_by_the_list_of_plugins_only(name: str) -> None:
    own = ROOT / "sidecar" / "plugins"
    allowed = {
        own / "__init__.py",
        *(f for one in those_without(name) for f in own.glob(f"{one}/**/*.py")),
    }
    found = [
        str(file.relative_to(ROOT))
        for file in (ROOT / "sidecar").rglob("*.py")
        if file not in allowed and f"sidecar.plugins.{name}" in imports(file)
    ]
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_program_without_a_plugin_starts_imports_lints_and_passes_tests_of_config_and_errors(
    name: str, tmp_path: Path
) -> None:
    shutil.copytree(ROOT, tmp_path, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True)
    gone = those_without(name)
    for one in gone:
        shutil.rmtree(tmp_path / "sidecar/plugins" / one)
        shutil.rmtree(tmp_path / "tests/plugins" / one)
    listed = tmp_path / "sidecar/plugins/__init__.py"
    lines = re.compile(rf"^    ({'|'.join(gone)})(\.PLUGIN)?,\n", re.MULTILINE)
    listed.write_text(lines.sub("", listed.read_text("utf-8")), "utf-8")
    delete_rules_of(gone, tmp_path / "pyproject.toml")
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


def delete_rules_of(plugins: set[str], file: Path) -> None:
    """Delete import rules for modules of plugins."""
    mark = "[[tool.importlinter.contracts]]"
    named = re.compile(rf'^    "sidecar\.plugins\.({"|".join(plugins)})[.\w*]*",\n', re.MULTILINE)
    kept = [named.sub("", rule) for rule in file.read_text(encoding="utf-8").split(mark)]
    file.write_text(
        mark.join(rule for rule in kept if "modules = [\n]" not in rule), encoding="utf-8"
    )


def delete_tests_of(plugins: set[str], tests: Path) -> None:
    """Delete the tests that import a plugin when they are imported, or a module of tests that
    does."""
    modules = {f"sidecar.plugins.{name}" for name in plugins}
    files = {file: imports(file, inside=False) for file in tests.rglob("*.py")}
    while found := [file for file, named in files.items() if modules & named]:
        for file in found:
            del files[file]
            file.unlink()
            modules.add(file.stem)


USE = """
import sys
from starlette.testclient import TestClient
from sidecar.plugins import load_settings
from sidecar.server.app import create_app
app = create_app(load_settings(engine="scripted", speaking_time_least="0.5", queue_limit=9))
with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 5000)) as client:
    job = client.post("/v1/jobs", files={"file": open(sys.argv[1], "rb")}).json()["id"]
    while client.get(f"/v1/jobs/{job}").json()["state"] in ("queued", "running"):
        pass
    print(client.get(f"/v1/jobs/{job}/speaking-time").text)
"""


ENGINE = """
import sys
from starlette.testclient import TestClient
from sidecar.plugins import load_settings
from sidecar.server.app import create_app
app = create_app(load_settings(engine="loudness"))
with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 5000)) as client:
    print(client.post("/transcribe", files={"file": open(sys.argv[1], "rb")}).text)
"""
DOCTOR = """
from sidecar.cli.doctor import examine
print(next(finding.text for finding in examine() if finding.topic == "plugins"))
"""


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of a plugin, copied and installed in a folder."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(ROOT / "examples/plugin", folder / "source")
    how = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile")
    command = [sys.executable, "-m", "pip", "install", *how, "--target", folder / "site", "."]
    done = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def run_with(distribution: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    paths = distribution, ROOT, ROOT / "clients/python/src"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True
    )


def test_plugin_of_another_distribution_serves_its_route_with_its_setting(
    distribution: Path, tmp_path: Path
) -> None:
    recording = tmp_path / "speech.wav"
    with wave.open(str(recording), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 16_000 * 9))
    done = run_with(distribution, "-c", USE, recording)
    assert done.returncode == 0, done.stderr
    seconds = json.loads(done.stdout)["seconds"]
    assert seconds
    assert all(spoken >= 0.5 for spoken in seconds.values())


def test_engine_of_another_distribution_transcribes(distribution: Path, tmp_path: Path) -> None:
    recording = tmp_path / "speech.wav"
    with wave.open(str(recording), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\x00\x20\x00\xe0" * 8_000)
    done = run_with(distribution, "-c", ENGINE, recording)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [segment["text"] for segment in answer["segments"]] == ["(speech)"]
    assert answer["metadata"]["engine"] == "loudness"


def test_doctor_names_plugins_of_other_distributions(distribution: Path) -> None:
    done = run_with(distribution, "-c", DOCTOR)
    assert done.stdout.strip() == "of others: speaking_time", done.stderr


def test_serve_and_doctor_exit_78_and_name_another_distributions_plugin_that_fails_to_import(
    distribution: Path,
) -> None:
    (distribution / "speaking_time/__init__.py").rename(distribution / "speaking_time/kept")
    try:
        service = run_with(distribution, "-m", "sidecar.main", "serve", "--port", "0")
        doctor = run_with(distribution, "-m", "sidecar.main", "doctor")
    finally:
        (distribution / "speaking_time/kept").rename(distribution / "speaking_time/__init__.py")
    named = "The plugin 'speaking_time' (speaking_time:PLUGIN) cannot be imported"
    fatal = json.loads(service.stdout)
    assert (service.returncode, fatal["event"]) == (78, "fatal")
    assert named in fatal["message"]
    assert doctor.returncode == 78
    assert named in doctor.stderr
    assert "Traceback" not in service.stderr + doctor.stderr
