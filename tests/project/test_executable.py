"""The executable: its recipe always, a built one where ``VIBEVOICE_EXECUTABLE`` names it.

`make exe` builds one and runs this file with it: as another user where root runs the tests, from a
place that cannot be written, with no Python on the PATH, in a folder with a space and an umlaut.
"""

import ast
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import plistlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from not_tested import MAKE, missing, missing_extra
from service_process import PATIENCE_S, told_by, wait_until
from upstream_stand_ins import OpenAiStandIn

from sidecar import engines
from sidecar.checkpoints import onnx_models
from sidecar.cli.open import sample
from sidecar.plugins.conversation import tts
from sidecar.version import REVISION_FILE, build_version

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "build_exe.spec"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RELEASE = PROJECT["version"]
BUILT = os.environ.get("VIBEVOICE_EXECUTABLE")
OTHER_USER = "nobody"
"""Who runs the executable where root runs the tests."""
SAYS = "Do you hear me?"
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.stdin.read().split()))
from rich.console import Console
from rich.syntax import Syntax
Console().print(Syntax("raise ValueError", "python"))
"""
"""Colours a line without the modules that standard input names."""
built = pytest.mark.skipif(not BUILT, reason=missing("an executable", "exe", MAKE))

LARGE = ("vibevoice", "vibevoice-streaming", "voxtral", "torch_inference")
"""Engines that run on torch."""


# packaging/ holds scripts and is no package (it shares its name with one).
sys.path.append(str(ROOT / "packaging"))
bill, flavours, inside, wanted = map(
    importlib.import_module, ("bill", "flavours", "inside", "wanted")
)


def importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def file_of(module: str) -> Path | None:
    """The file of a module; its packages are not imported to look."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    if not rest:
        return Path(spec.origin)
    path = Path(spec.origin).parent.joinpath(*rest)
    compiled = [*path.parent.glob(f"{path.name}.*.so"), *path.parent.glob(f"{path.name}*.pyd")]
    places = (path / "__init__.py", path.with_suffix(".py"), *compiled)
    return next((place for place in places if place.exists()), None)


# The recipe


@pytest.fixture(params=["cpu", "gpu"])
def flavour(request: pytest.FixtureRequest) -> Any:
    """What goes into each of the executables."""
    if request.param == "gpu" and not importable("transformers"):
        pytest.skip(missing_extra("torch"))
    return flavours.flavour(request.param)


def test_executables_are_not_packed_with_upx() -> None:
    assert re.findall(r"upx=(\w+)", SPEC.read_text("utf-8")) == ["False", "False"]


def test_hidden_imports_of_executable_exist(flavour: Any) -> None:
    assert [module for module in flavour.hidden if file_of(module) is None] == []


def test_executable_excludes_gpl_packages_and_nothing_it_needs(flavour: Any) -> None:
    """What every engine requires is in the GPU flavour, what the light one requires in both."""
    left_out = set(flavour.excluded)
    for spec in engines.ENGINES:
        if flavour.name.endswith("-gpu") or spec.name not in LARGE:
            assert left_out & set(spec.requires) <= {"moonshine_voice"}  # only its files are needed
    assert not left_out & {module.split(".")[0] for module in flavour.hidden}
    assert not left_out & set(flavour.hidden)
    assert set(tts.tts_spec("espeak").requires) <= left_out


def test_python_is_highlighted_without_the_pygments_modules_left_out_of_executable() -> None:
    left_out = {one for one in flavours.flavour("cpu").excluded if one.startswith("pygments.")}
    assert len(left_out) > 200
    assert not left_out & {"pygments.lexers", "pygments.lexers._mapping", "pygments.lexers.python"}
    ran = told_by([sys.executable, "-c", WITHOUT], input="\n".join(left_out))
    assert ran.returncode == 0, ran.stderr
    assert "raise ValueError" in ran.stdout


def test_libmvec_is_left_to_the_system_and_libstdcxx_is_not() -> None:
    assert flavours.is_of_the_system("libmvec.so.1")
    assert not flavours.is_of_the_system("libstdc++.so.6")


def test_cpu_executable_excludes_packages_of_engines_on_torch() -> None:
    for spec in engines.ENGINES:
        if spec.name in LARGE:
            assert set(spec.requires) <= set(flavours.flavour("cpu").excluded)


def test_cpu_executable_excludes_no_module_that_service_imports() -> None:
    left_out = set(flavours.flavour("cpu").excluded)
    imported = set()
    for path in (ROOT / "sidecar").rglob("*.py"):
        if any(
            place in path.as_posix()
            for place in (
                *(f"engines/{name}" for name in LARGE),
                *("gpu_memory/torch_devices", "plugins/transformers_asr"),
                *("tts/espeak", "tts/vibevoice"),
            )
        ):
            continue
        if "grpc_stt" in path.parts and not importable("grpc"):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        tree.body = [one for one in tree.body if not isinstance(one, ast.If)]  # TYPE_CHECKING
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
    # Extras that are not inside, and voices: who asks for them is told that they are missing.
    others = {*flavours.EXTRAS, "package", "build", "lint", "test", "dev", "mutants", "bench"}
    optional = {
        module
        for extra in PROJECT["optional-dependencies"].keys() - others
        for module in wanted.packages_of([extra])
    }
    assert imported & left_out <= optional | {"av", "google.protobuf", "moonshine_voice"}


@pytest.mark.skipif(not importable("grpc"), reason=missing_extra("grpc"))
def test_executable_excludes_installed_packages_outside_its_extras() -> None:
    unwanted = set(wanted.packages_not_wanted(("auth", "whisper")))
    assert {"pytest", "_pytest", "hypothesis", "grpc"} <= unwanted
    assert not {"fastapi", "numpy", "cryptography", "tokenizers", "ctranslate2"} & unwanted
    assert not {"packaging", "setuptools", "PyInstaller", "sidecar"} & unwanted
    assert "grpc" not in wanted.packages_not_wanted(("auth", "grpc"))


@pytest.mark.skipif(not importable("opentelemetry.sdk"), reason=missing_extra("otel"))
def test_unwanted_distribution_excludes_its_package_but_not_its_namespace_package() -> None:
    unwanted = wanted.packages_not_wanted(("auth",))
    assert "opentelemetry.sdk" in unwanted
    assert "opentelemetry" not in unwanted


def test_executable_embeds_recognition_models_or_if_it_has_voices_the_library_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, voiced = (dataclasses.replace(flavours.flavour("cpu"), voices=v) for v in (0, 1))
    ((path, folder),) = flavours.write_embedded_models(silent, tmp_path)
    assert folder == "moonshine_voice"
    assert [*flavours.libraries(silent)] == []
    assert flavours.write_embedded_models(voiced, tmp_path) == []
    assert [*flavours.libraries(voiced)]
    there = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there)
    models = flavours.EMBEDDED_MODELS
    assert onnx_models.find_embedded_models(models).keys() == {*models}
    assert path.stat().st_size == sum(one.size for one in models)


@pytest.mark.skipif(not importable("faster_whisper"), reason=missing_extra("whisper"))
def test_whisper_imports_with_stand_in_for_pyav_and_opus_decoder_is_unavailable() -> None:
    code = (
        "import faster_whisper, av\n"
        "from sidecar import errors\n"
        "from sidecar.audio.codecs import OpusDecoder\n"
        "try:\n    OpusDecoder()\n"
        "except errors.EncodingUnavailable:\n    print(av.__file__)\n"
    )
    stand_in = flavours.STAND_INS["av"]
    paths = os.pathsep.join([str(stand_in.parent), os.environ.get("PYTHONPATH", "")])
    ran = told_by([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})
    assert ran.stdout.strip() == str(stand_in), ran.stderr


def test_entitlements_allow_what_runtime_needs_and_nothing_else() -> None:
    allowed = plistlib.loads(flavours.ENTITLEMENTS.read_bytes())
    short = {name.removeprefix("com.apple.security.") for name in allowed}
    assert short == {
        "cs.allow-jit",
        "cs.allow-unsigned-executable-memory",
        "cs.disable-library-validation",
        "device.audio-input",
    }
    assert {*allowed.values()} == {True}


def test_data_files_of_cpu_executable_include_models_sample_swagger_ui_and_ffmpeg() -> None:
    data = list(flavours.data(flavours.flavour("cpu")))
    names = {path.name for path, _ in data}
    assert {"encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin"} <= names
    assert {sample().name, "swagger-ui-bundle.js", "swagger-ui.css"} <= names
    assert {"tw2s.json", "STPhrases.txt", "TSCharacters.txt", "TWVariants.txt"} <= names
    assert "moonshine_voice/assets/tiny-en" in {folder for _, folder in data}
    assert flavours.ffmpeg().stat().st_size > 1_000_000


def test_gpu_executable_has_model_of_language_detection() -> None:
    if not (importable("py3langid") and importable("transformers")):
        pytest.skip(missing_extra("torch"))
    from py3langid.langid import MODEL_FILE

    files = {f"{folder}/{path.name}" for path, folder in flavours.data(flavours.flavour("gpu"))}
    assert f"py3langid/{MODEL_FILE}" in files


def test_executable_excludes_no_library_of_tokens_tls_and_encryption(flavour: Any) -> None:
    assert not {"cryptography", "jwt", "keyring", "_cffi_backend"} & {*flavour.excluded}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "vibevoice-asr[auth,package,people,whisper]" in build["optional-dependencies"]["build"]


def test_engines_are_imported_by_literal_names() -> None:
    """A packager cannot see names that are put together from strings."""
    tree = ast.parse((ROOT / "sidecar/engines/__init__.py").read_text("utf-8"))
    imported = {
        alias.name.removesuffix("_engine")
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module in ("sidecar", "sidecar.engines")
        for alias in node.names
    }
    assert {spec.name.replace("-", "_") for spec in engines.ENGINES} <= imported


@pytest.mark.parametrize(
    ("stamp", "version"),
    [
        (None, "1.2.3"),
        ("", "1.2.3"),
        ("\n", "1.2.3"),
        ("36b227a8617f\n", "1.2.3+36b227a8617f"),
        ("36b227a8617f-dirty", "1.2.3+36b227a8617f.dirty"),
        ("<script>ß", "1.2.3+script"),
    ],
)
def test_version_has_cleaned_revision_of_a_build_and_source_tree_has_no_revision(
    tmp_path: Path, stamp: str | None, version: str
) -> None:
    if stamp is not None:
        (tmp_path / REVISION_FILE).write_text(stamp, encoding="utf-8")
    assert build_version("1.2.3", tmp_path) == version
    assert not (ROOT / "sidecar" / REVISION_FILE).exists()


def test_workflow_builds_and_tests_executable_on_three_systems() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra 'vibevoice'")
    text = (ROOT / ".github/workflows/build.yml").read_text("utf-8")
    workflow = yaml.safe_load(text)
    job = workflow["jobs"]["executable"]
    systems = {row["os"].split("-")[0] for row in job["strategy"]["matrix"]["include"]}
    assert systems == {"ubuntu", "windows", "macos"}
    commands = " ".join(step.get("run", "") for step in job["steps"])
    named = re.findall(r"(?:^|\s)((?:tests|packaging)/\S+\.py|\S+\.spec)", commands)
    assert {"build_exe.spec", "packaging/bill.py", "tests/project/test_executable.py"} <= set(named)
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("library", ["libmoonshine.so", "libmoonshine.dylib", "moonshine.dll"])
def test_library_that_is_opened_by_path_goes_along_on_each_system(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names as in the wheels for Linux, macOS and Windows of the version that is locked."""
    (tmp_path / library).touch()
    flavour = dataclasses.replace(flavours.flavour("cpu"), voices=True)
    found = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(flavours, "find_spec", lambda _: found)
    assert list(flavours.libraries(flavour)) == [(tmp_path / library, "moonshine_voice")]


@pytest.mark.system
@pytest.mark.parametrize("named", [None, "/another.plist"])
@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_entitlements_are_told_to_the_signature_of_macos_alone(
    platform: str, named: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spec is executed as PyInstaller does, without what it would collect."""
    told: dict[str, Any] = {}
    parts = SimpleNamespace(pure=[], binaries=[], datas=[], scripts=[])
    names = {name: lambda *_, **__: parts for name in ("Analysis", "PYZ", "COLLECT")}
    names["EXE"] = lambda *_, **words: told.update(words)
    parts.name = str(tmp_path)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(shutil, "which", lambda _: None)  # no library is stripped
    monkeypatch.setattr(flavours, "write_embedded_models", lambda *_: ())
    monkeypatch.setenv("ENTITLEMENTS_FILE", named or "")
    places = {"SPECPATH": str(ROOT), "workpath": str(tmp_path)}
    exec(compile(SPEC.read_text("utf-8"), SPEC, "exec"), {**places, **names})
    expected = named or str(flavours.ENTITLEMENTS)
    assert told["entitlements_file"] == (expected if platform == "darwin" else None)


@pytest.mark.slow
def test_files_of_build_are_traced_to_packages_and_metadata_alone_is_no_package() -> None:
    import numpy

    module = Path(numpy.__file__)
    (metadata,) = module.parents[1].glob("numpy-*.dist-info/METADATA")
    found, rest = inside.owners([module, metadata, ROOT / "LICENSE"])
    names = [inside.normal(one.metadata["Name"]) for one in found]
    assert set(names) - {"pyinstaller"} == {"numpy"}  # its loader is in every build
    assert rest == [ROOT / "LICENSE"]
    assert inside.owners([metadata])[1] == []


@pytest.mark.system
@pytest.mark.parametrize("package", inside.WITHIN)
def test_libraries_inside_wheels_have_licence_and_version(package: str) -> None:
    assert importable(package.replace("-", "_"))
    for part in inside.WITHIN[package]:
        assert part.licence
        assert not part.text or (bill.TEXTS / part.text).stat().st_size > 4_000
        if part.name in ("ffmpeg", "libsndfile", "libsoxr"):
            assert re.match(r"\d+\.\d+", inside.version_within(part.name))


def test_version_of_ffmpeg_in_the_bill_has_the_commit_that_ffmpeg_tells() -> None:
    told = subprocess.run(
        [flavours.ffmpeg(), "-version"], capture_output=True, text=True, check=True
    )
    version = inside.version_within("ffmpeg")
    assert version in told.stdout.splitlines()[0]
    commit = re.search(r"-g[0-9a-f]{7,}", told.stdout.splitlines()[0])
    assert commit is None or commit[0] in version


def test_bill_of_materials_has_bootloader_exception_in_licence_of_pyinstaller(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metadata = tmp_path / "pyinstaller-6.22.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: PyInstaller\nVersion: 6.22.3\n"
        "Classifier: License :: OSI Approved :: GNU General Public License v2 (GPLv2)\n",
        "utf-8",
    )
    loader = importlib.metadata.Distribution.at(metadata)
    free = "GPL-2.0-or-later WITH Bootloader-exception"
    assert bill.declared(loader) == free
    listed = {
        "metadata": {"component": {"bom-ref": "us"}},
        "components": [
            {
                "name": "pyinstaller",
                "bom-ref": "loader",
                "licenses": [{"license": {"id": "GPL-2.0-only"}}],
            }
        ],
    }
    answer = subprocess.CompletedProcess([], 0, json.dumps(listed))
    monkeypatch.setattr(bill.subprocess, "run", lambda *_, **__: answer)
    (component, _python) = bill.bill_of([loader], [], tmp_path)["components"]
    assert component["licenses"] == [{"expression": free}]
    for text in (bill.TEXTS / "README.md", ROOT / "THIRD_PARTY_LICENSES.md"):
        assert "Bootloader" in text.read_text("utf-8")


# A built one


class Guest:
    """Somebody else's account, to whom the executable was given: a folder, and an environment."""

    def __init__(self, folder: Path, executable: Path) -> None:
        self.folder = folder
        self.executable = executable
        self.temp = folder / "tmp"
        self.home = folder / "home"
        self.work = folder / "Aufnahmen für später"
        for made in (self.temp, self.home, self.work):
            made.mkdir()
        nowhere = folder / "no python here"
        nowhere.mkdir()
        kept = "SYSTEMROOT", "KMP_AFFINITY"  # the second under Wine: see `systems.register`
        system = {key: os.environ[key] for key in kept if key in os.environ}
        self.env = {
            **system,
            "PATH": str(nowhere),
            **dict.fromkeys(("HOME", "USERPROFILE"), str(self.home)),
            **{name: str(self.home / "AppData" / name) for name in ("APPDATA", "LOCALAPPDATA")},
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temp)),
            "VIBEVOICE_CONFIG": str(self.home / "none.toml"),
            "VIBEVOICE_ENGINE": "moonshine",
            "VIBEVOICE_PORT": "0",
        }
        self.identity: dict[str, Any] = {}
        if os.name == "posix" and os.geteuid() == 0:
            import pwd

            account = pwd.getpwnam(OTHER_USER)
            self.identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            for made in (self.temp, self.home, self.work):
                os.chown(made, account.pw_uid, account.pw_gid)

    def start(self, *words: object, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.executable), *map(str, words)],
            cwd=self.work,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            **self.identity,
        )

    def run(self, *words: object, **env: str) -> str:
        """What it prints; it must succeed."""
        with self.start(*words, **env) as process:
            out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, out + err
        return out

    @contextlib.contextmanager
    def serving(self, **env: str) -> Iterator[dict[str, Any]]:
        """The ready line of a service that runs meanwhile."""
        process = self.start("serve", "--log-level", "warning", **env)
        try:
            assert process.stdout is not None
            limit = threading.Timer(PATIENCE_S, process.kill)
            limit.start()
            line = process.stdout.readline()
            limit.cancel()
            ready = json.loads(line or "null")
            assert isinstance(ready, dict), line
            assert ready["event"] == "ready", line
            yield {**ready, "process": process}
        finally:
            process.kill()
            process.communicate()


def digest(folder: Path) -> str:
    """All names and contents below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(path.relative_to(folder).as_posix().encode())
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    """The build, copied to where its user may read and nobody may write."""
    assert BUILT is not None
    folder = Path(tempfile.mkdtemp(prefix="Programme für Gäste "))  # pytest's are closed to others
    folder.chmod(0o755)
    place = folder / "vibevoice asr"
    shutil.copytree(Path(BUILT).resolve().parent, place, symlinks=True)
    below = [place, *place.rglob("*")]
    for path in below:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    before = digest(place)
    made = Guest(folder, place / Path(BUILT).name)
    try:
        yield made
        assert digest(place) == before, "the build was written to"
        assert list(made.temp.iterdir()) == []
    finally:
        for path in folder.rglob("*"):  # Windows deletes nothing that is read-only
            if not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(folder)


@built
def test_executable_prints_git_revision(guest: Guest) -> None:
    version = guest.run("--version").strip()
    assert re.fullmatch(rf"vibevoice-asr {re.escape(RELEASE)}\+[0-9a-f]{{12}}(\.dirty)?", version)


@built
def test_doctor_of_executable_exits_0_and_finds_engine_and_ffmpeg(guest: Guest) -> None:
    said = guest.run("doctor", COLUMNS="200")
    assert re.search(r"ok +engine +moonshine", said), said
    assert re.search(r"ok +ffmpeg +ffmpeg version", said), said


@built
def test_executable_transcribes_and_diarizes_file_with_space_and_umlaut_in_its_name(
    guest: Guest,
) -> None:
    recording = guest.work / "Zwei Stimmen, schön.wav"
    shutil.copy(next(guest.executable.parent.rglob(sample().name)), recording)
    said = json.loads(guest.run("transcribe", recording.name, "--format", "json", LC_ALL="C"))
    segments = said["segments"]
    assert SAYS in segments[0]["text"]
    assert {one["speaker"] for one in segments} == {"Speaker_0", "Speaker_1"}


@built
@pytest.mark.skipif("-gpu" in (BUILT or ""), reason="the large one has torch inside")
def test_executable_is_at_most_300_mb() -> None:
    assert BUILT is not None
    folder = Path(BUILT).resolve().parent
    (ffmpeg,) = folder.rglob("imageio_ffmpeg/binaries/ffmpeg-*")
    if ffmpeg.stat().st_size > 20e6:
        pytest.skip(missing("the small ffmpeg in the executable", "ffmpeg, then make exe", MAKE))
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if not path.is_symlink()}
    largest = sorted(sizes, key=lambda path: -sizes[path])[:20]
    assert sum(sizes.values()) <= 300e6, {path.name: sizes[path] for path in largest}


@built
def test_executable_transcribes_with_whisper_and_detects_english(guest: Guest) -> None:
    import whisper_base

    model = guest.folder / "whisper"
    shutil.copytree(whisper_base.model(), model, dirs_exist_ok=True)
    for path in (model, *model.iterdir()):
        path.chmod(0o755)
    recording = next(guest.executable.parent.rglob(sample().name))
    env = {"VIBEVOICE_ENGINE": "whisper", "VIBEVOICE_MODEL_PATH": str(model)}
    said = json.loads(guest.run("transcribe", recording, "--format", "json", **env))
    assert said["metadata"]["engine"] == "whisper"
    assert said["metadata"]["language"] == "en"
    assert "hear me" in said["segments"][0]["text"] + said["segments"][1]["text"]


@built
def test_executable_pulls_whisper_model_and_lists_it(guest: Guest, tmp_path: Path) -> None:
    from model_hub import Hub
    from tiny_whisper import write_like

    from sidecar.checkpoints.model_repositories import WHISPER_MODELS

    with Hub({WHISPER_MODELS["tiny"].repository: write_like(tmp_path / "published")}) as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(guest.home / "hub")}
        guest.run("pull", "whisper:tiny", **env)
        assert "whisper:tiny" in guest.run("list", **env)


@built
def test_executable_issues_token_and_transcribes_over_self_signed_tls(guest: Guest) -> None:
    """What needs the extra `auth`: in a service that others can reach, with TLS of its own."""
    token = guest.run("token", "create", "--subject", "anna", "--expires", "90d").strip()
    assert "anna" in guest.run("token", "list")
    settings = {
        "VIBEVOICE_KEEP_JOBS": "1",
        "VIBEVOICE_JOURNAL_KEY": "0123456789abcdef0123456789abcdef",
        "VIBEVOICE_TLS": "self-signed",
        "VIBEVOICE_HOST": "0.0.0.0",
    }
    recording = next(guest.executable.parent.rglob(sample().name))
    with guest.serving(**settings) as ready:
        server = re.sub(r"//[^/]+:", "//127.0.0.1:", ready["url"])
        words = ("--server", server, "--fingerprint", ready["fingerprint"])
        said = guest.run("transcribe", recording, *words, VIBEVOICE_TOKEN=token)
    assert SAYS in said


@built
def test_executable_decodes_m4a_with_own_ffmpeg(guest: Guest) -> None:
    recording = guest.work / "Gespräch.m4a"
    with (guest.work / "Zwei Stimmen.wav").open("wb") as file:
        file.write(sample().read_bytes())
    subprocess.run(
        [flavours.bundled_ffmpeg(), "-nostdin", "-loglevel", "error", "-y",
         "-i", guest.work / "Zwei Stimmen.wav", "-c:a", "aac", recording],
        check=True,
    )  # fmt: skip
    recording.chmod(0o644)
    said = guest.run("transcribe", recording.name, "--no-diarize")
    assert SAYS in said


@built
def test_executable_writes_chinese_of_an_upstream_in_the_script_that_is_asked_for(
    guest: Guest,
) -> None:
    """By the tables of OpenCC inside."""
    (guest.work / "Zwei Stimmen.wav").write_bytes(sample().read_bytes())
    with OpenAiStandIn("json") as upstream:
        upstream.answer = lambda *_: {"text": "他看著這裏。"}  # type: ignore[method-assign]
        asked = ("transcribe", "Zwei Stimmen.wav", "--no-diarize", "--language", "zh-TW")
        env = {"VIBEVOICE_ENGINE": "upstream", "VIBEVOICE_UPSTREAM": upstream.url}
        said = guest.run(*asked, **env, PYTHONIOENCODING="utf-8")
    assert "他看著這裡。" in said


@built
def test_executable_does_not_import_from_working_directory(guest: Guest) -> None:
    trap = "raise SystemExit('imported from the working directory')\n"
    names = ("sidecar", "json", "encodings", "numpy", "sitecustomize", "usercustomize", "typer")
    for name in names:
        (guest.work / f"{name}.py").write_text(trap, "utf-8")
    (guest.work / "main.py").write_text(trap, "utf-8")
    try:
        env = {"PYTHONPATH": str(guest.work), "PYTHONHOME": str(guest.work), "PYTHONSTARTUP": "x"}
        assert guest.run("--version", **env).startswith("vibevoice-asr ")
        assert "moonshine" in guest.run("doctor", **env)
    finally:
        for name in (*names, "main"):
            (guest.work / f"{name}.py").unlink()


@built
def test_executable_serves_http_docs_and_wyoming_and_its_workers_end_if_it_is_killed(
    guest: Guest,
) -> None:
    with guest.serving(VIBEVOICE_WYOMING_PORT="0") as ready:
        process: subprocess.Popen[str] = ready["process"]
        assert ready["pid"] == process.pid  # one process: no loader above it to be orphaned by
        url = ready["url"]

        def get(path: str, body: dict[str, Any] | None = None) -> bytes:
            request = urllib.request.Request(
                url + path,
                json.dumps(body).encode() if body else None,
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                return bytes(response.read())

        assert json.loads(get("/health"))["version"] == ready["version"]
        assert b"swagger-ui-bundle.js" in get("/docs")
        assert len(get("/docs/assets/swagger-ui-bundle.js")) > 1_000_000
        assert len(get("/docs/assets/swagger-ui.css")) > 10_000
        with socket.create_connection(("127.0.0.1", ready["wyoming_port"]), PATIENCE_S) as sock:
            sock.sendall(b'{"type": "describe"}\n')
            with sock.makefile("rb") as stream:
                described = json.loads(stream.readline())
                assert json.loads(stream.read(described["data_length"]))["asr"]
        recording = next(guest.executable.parent.rglob(sample().name))
        answer = json.loads(get("/transcribe", {"audio_path": str(recording)}))
        assert answer["metadata"]["num_speakers"] == 2
        if "-gpu" not in (BUILT or "") and not flavours.VOICES and sys.platform == "linux":
            with pytest.raises(urllib.error.HTTPError) as refused:
                get("/v1/audio/speech", {"model": "tts-1", "voice": "alloy", "input": "Hello."})
            error = json.load(refused.value)["error"]
            assert (refused.value.code, error["code"]) == (422, "speech_unavailable")
            remedy = json.loads(get("/v1/talk"))["remedy"]
            assert remedy.startswith("This build has no voices")
            assert remedy in error["message"]
        below = psutil.Process(process.pid).children(recursive=True)
        assert below, "its workers are processes of their own"
        names = {Path(child.cmdline()[0]).name for child in below}
        assert names - {"conhost.exe"} == {guest.executable.name}  # a hidden console has a host
        process.kill()
        process.wait(PATIENCE_S)
        gone = lambda: not any(child.is_running() for child in below)  # noqa: E731
        wait_until(gone, "its workers end with it")


@built
@pytest.mark.skipif("-gpu" not in (BUILT or ""), reason="only the GPU flavour has torch")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_gpu_executable_transcribes_with_vibevoice_at_given_precision_and_detects_english(
    guest: Guest, precision: str
) -> None:
    """A small checkpoint of the real class, on the CPU where there is nothing else."""
    import tiny_vibevoice

    recording = guest.work / "endgame.wav"
    shutil.copy(tiny_vibevoice.clip_wav("endgame_nagg_nell"), recording)
    model = guest.folder / "model"
    shutil.copytree(tiny_vibevoice.checkpoint("tiny"), model, dirs_exist_ok=True)
    for path in (recording, *model.iterdir()):
        path.chmod(0o644)
    env = {"VIBEVOICE_ENGINE": "vibevoice", "VIBEVOICE_MODEL_PATH": str(model)}
    words = ("transcribe", recording.name, "--precision", precision, "--format", "json")
    said = json.loads(guest.run(*words, **env))
    assert said["segments"]
    assert said["metadata"]["engine"] == "vibevoice"
    assert said["metadata"]["model_precision"] == precision
    assert said["metadata"]["language"] == "en"  # by the model of languages inside


@built
def test_bill_of_materials_names_runtime_packages_and_no_development_tools() -> None:
    assert BUILT is not None
    folder = Path(BUILT).resolve().parent
    bill = json.loads((folder / "sbom.cdx.json").read_text("utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    named = {one["name"].lower() for one in bill["components"]}
    assert {"cpython", "ffmpeg", "moonshine-voice", "onnxruntime", "numpy", "fastapi"} <= named
    assert not {"pytest", "pip", "cyclonedx-bom", "mypy", "ruff"} & named
    version = bill["metadata"]["component"]["version"]
    assert version.startswith(f"{RELEASE}+")
    assert "file:///" not in json.dumps(bill)


@built
def test_executable_has_licence_texts_of_all_parts() -> None:
    assert BUILT is not None
    folder = Path(BUILT).resolve().parent / "licences"
    table = (folder / "README.md").read_text("utf-8")
    for name in ("ffmpeg", "moonshine-voice", "numpy", "soundfile", "Python 3", "pyinstaller"):
        assert name in table
    texts = {path.name for path in folder.rglob("*")}
    assert {"LGPL-2.1.txt", "Python-LICENSE.txt", "LICENSE"} <= texts
    assert "GPL-3.0.txt" in texts or sys.platform == "win32"  # where libgomp is inside
    without = [line for line in table.splitlines() if line.endswith("| — |")]
    assert without == []
