"""Voxtral as the engine for live audio: where it is looked for, and what is said without it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_voxtral

from sidecar import errors
from sidecar.checkpoints import installed_checkpoints, model_repositories
from sidecar.checkpoints.hugging_face_cache import cache_folder
from sidecar.checkpoints.installed_checkpoints import VOXTRAL_LAYOUT, resolve_repository
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import choose_engine, choose_live_engine


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_it_is_taken_from_the_cache_where_it_is_named(cache: Path) -> None:
    model = tiny_voxtral.model()
    settings = Settings(engine="scripted", live_engine="voxtral", device="cpu")
    files = choose_engine(settings)
    with pytest.raises(errors.CheckpointNotFound) as missing:
        choose_live_engine(settings, files)
    assert "pull voxtral" in missing.value.hint
    folder = cache_folder(model_repositories.VOXTRAL_REPOSITORY, cache) / "snapshots" / "abc"
    shutil.copytree(model, folder)
    found, reason = choose_live_engine(settings, files)
    assert found is not None
    assert found.checkpoint is not None
    assert (found.spec.name, found.checkpoint.folder, reason) == ("voxtral", folder, "as set")
    assert 1 <= found.spec.sessions <= 100


def test_a_folder_that_is_not_whole_or_another_model_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_voxtral.model(), folder)
    assert installed_checkpoints.read_voxtral(folder).bytes > 500_000
    (folder / "tekken.json").rename(folder / "aside")
    with pytest.raises(errors.CheckpointIncomplete, match="tekken"):
        installed_checkpoints.find_voxtral(folder)
    (folder / "aside").rename(folder / "tekken.json")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(errors.CheckpointDamaged, match="truncated"):
        installed_checkpoints.find_voxtral(folder)
    (folder / "config.json").write_text('{"model_type": "voxtral"}')
    with pytest.raises(errors.CheckpointUnsupported, match="'voxtral'"):
        installed_checkpoints.find_voxtral(folder)


def test_pull_fetches_one_of_two_layouts_of_the_weights() -> None:
    assert resolve_repository("voxtral") == (
        model_repositories.VOXTRAL_REPOSITORY,
        VOXTRAL_LAYOUT,
    )
    assert resolve_repository(model_repositories.VOXTRAL_REPOSITORY) == (
        model_repositories.VOXTRAL_REPOSITORY,
        VOXTRAL_LAYOUT,
    )
    names = ["model.safetensors", "consolidated.safetensors", "tekken.json", "params.json"]
    assert [name for name in names if VOXTRAL_LAYOUT.fetched(name)] == [
        "model.safetensors",
        "tekken.json",
    ]
