"""The install line in hints is one that works for how the service was installed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from not_tested import missing
from service_process import REPOSITORY, told_by

from sidecar.engines import engine_selection
from sidecar.errors import SettingsInvalid
from sidecar.installation import install_command, needed_for

SAY = "from sidecar.installation import install_command; print(install_command('monitor'))"
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]


def installed(folder: Path, direct_url: dict[str, Any] | None) -> Path:
    """A folder of packages with as much of the service as says how it was installed."""
    about = folder / "vibevoice_asr-0.1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vibevoice-asr\nVersion: 0.1.0\n", "utf-8"
    )
    if direct_url is not None:
        (about / "direct_url.json").write_text(json.dumps(direct_url), "utf-8")
    (folder / "sidecar").mkdir()
    (folder / "sidecar/__init__.py").touch()
    shutil.copy(REPOSITORY / "sidecar/installation.py", folder / "sidecar")
    shutil.copytree(REPOSITORY / "sidecar/errors", folder / "sidecar/errors")
    return folder


def said(python: str | Path, folder: Path, program: str = SAY) -> str:
    words = [python, "-I", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {program}"]
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("direct_url", "line"),
    [
        ({"url": "file:///src/asr", "dir_info": {}}, "pip install '.[monitor]' in the folder"),
        (
            {"url": "file:///tmp/vibevoice_asr-0.1.0-py3-none-any.whl", "archive_info": {}},
            "pip install './vibevoice_asr-0.1.0-py3-none-any.whl[monitor]' in the folder",
        ),
        (
            {"url": "https://git.example/asr", "vcs_info": {"vcs": "git", "commit_id": "0a"}},
            "pip install 'vibevoice-asr[monitor] @ git+https://git.example/asr'",
        ),
        (
            None,
            "pip install --no-index --find-links FOLDER 'vibevoice-asr[monitor]' (FOLDER: where",
        ),
    ],
)
def test_install_command_follows_way_of_installation_and_names_no_path_of_the_machine(
    direct_url: dict[str, Any] | None, line: str, tmp_path: Path
) -> None:
    told = said(sys.executable, installed(tmp_path, direct_url))
    assert told.startswith(line)
    assert "/src/" not in told, "hints go to clients: no path of this machine"


def test_install_command_of_source_tree_is_editable_and_names_no_path_of_the_machine() -> None:
    told = install_command("auth"), install_command("")
    assert told[0].startswith("pip install -e '.[auth]' in the folder")
    assert told[1].startswith("pip install -e '.' in the folder")
    assert not [one for one in told if "/" in one or str(REPOSITORY) in one]


def test_install_command_in_executable_says_that_the_executable_lacks_the_extra(
    tmp_path: Path,
) -> None:
    told = said(sys.executable, installed(tmp_path, None), f"sys.frozen = True; {SAY}")
    assert told.startswith("the executable has no extra 'monitor'")


PIP = [sys.executable, "-m", "pip"]
QUIET: dict[str, Any] = {"check": True, "capture_output": True, "text": True}
LOCAL = ["--no-deps", "--disable-pip-version-check"]
LEFT = ("sidecar/jobs", "vibevoice_asr_client")
"""Packages in whose build folder an earlier build has left a module."""


def copy_tree(tree: Path) -> None:
    """Copy the sources that a wheel is built of."""
    sources = ["sidecar", "clients", "*.toml", "*.py", "*.md", "LICENSE*"]
    listed = told_by(["git", "ls-files", "-z", *sources], cwd=REPOSITORY, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tree / name)


def build_wheel(tree: Path, into: Path) -> Path:
    """Build the wheel of ``tree``, in the folder itself, as `pip install .` does."""
    subprocess.run([*PIP, "wheel", *LOCAL, "--no-build-isolation", "-w", into, tree], **QUIET)
    (wheel,) = into.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_module_left_by_earlier_build_is_not_in_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "sidecar/jobs/job_queue.py" in names
    assert [name for name in names if "removed_module" in name] == []


@pytest.mark.skipif(shutil.which("git") is None, reason=missing("git", "git"))
def test_build_into_source_tree_removes_no_module(tmp_path: Path) -> None:
    copy_tree(tmp_path)
    modules = {path for path in tmp_path.rglob("*.py") if "static" not in path.parts}
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", "."]
    subprocess.run(build, cwd=tmp_path, **QUIET)
    assert modules == {path for path in modules if path.exists()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, alone in its folder, built where an earlier build was."""
    tree = tmp_path_factory.mktemp("tree")
    copy_tree(tree / "tree")
    for package in LEFT:
        left = tree / "tree/build/lib" / package / "removed_module.py"
        left.parent.mkdir(parents=True)
        left.write_text("", "utf-8")
    return build_wheel(tree / "tree", tree / "wheels")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["a wheel", "a folder of wheels"])
def test_install_command_of_wheel_or_folder_resolves_in_pip_dry_run_with_its_extra(
    source: str, wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "empty", with_pip=False)
    python = tmp_path / "empty" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [*PIP, "--python", str(python), "install", "--no-compile", *LOCAL]
    offline = ["--no-index", "--find-links", wheel.parent]
    what = [wheel] if source == "a wheel" else [*offline, "vibevoice-asr"]
    subprocess.run([*install, *what], **QUIET)
    line = subprocess.run([python, "-I", "-c", SAY], cwd=tmp_path, **QUIET).stdout
    assert ("--no-index" in line) is (source != "a wheel"), "an index could give another's package"
    told = re.split(r" in the folder| \(FOLDER", line)[0].replace("FOLDER", str(wheel.parent))
    pip, word, *command = shlex.split(told)
    assert (pip, word) == ("pip", "install")
    dry = ["--dry-run", "--quiet", "--ignore-installed", "--report", "-"]
    reported = subprocess.run([*install, *dry, *command], cwd=wheel.parent, **QUIET)
    (found,) = json.loads(reported.stdout)["install"]
    assert found["metadata"]["name"] == "vibevoice-asr"
    assert "[monitor]" in " ".join(command)
    assert "monitor" in found["metadata"]["provides_extra"]


def test_no_hint_or_page_installs_the_package_from_a_package_index() -> None:
    places = [*REPOSITORY.glob("sidecar/**/*.py"), *REPOSITORY.glob("docs/*.*"),
              *REPOSITORY.glob("clients/python/**/*.py"), REPOSITORY / "README.md"]  # fmt: skip
    wrong = re.compile(
        r"(pip|pipx) install ['\"]?vibevoice-asr|(?<!--find-links wheels )['\"]vibevoice-asr\["
    )
    found = {
        path.name
        for path in places
        if path.name != "installation.py" and wrong.search(path.read_text("utf-8", "replace"))
    }
    assert found == set()


def test_extras_named_in_code_exist() -> None:
    text = "".join(path.read_text("utf-8") for path in REPOSITORY.glob("sidecar/**/*.py"))
    named = set(re.findall(r"install_command\([\"'](\w+)[\"']\)", text))
    named |= set(re.findall(r"needed_for\([^)]*, \"(\w+)\"\)", text))
    assert named
    assert named <= set(EXTRAS)


def test_error_of_feature_whose_package_is_missing_names_the_extra_before_the_package() -> None:
    with pytest.raises(SettingsInvalid) as told, needed_for("Signed tokens"):
        import no_such_package_here  # noqa: F401
    begin = "Signed tokens require the extra 'auth', which is not installed (missing: no_such_"
    assert told.value.detail.startswith(begin)


def test_hint_for_missing_engine_in_executable_names_no_pip_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    hint = engine_selection.install_hint("voxtral")
    assert hint == "Install with Python: no executable has the packages of 'voxtral'."
    assert "build with the extra 'whisper'" in engine_selection.install_hint("whisper")
