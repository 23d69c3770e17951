"""`vibevoice-asr pull whisper:NAME`: the same download, another layout."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_whisper
from model_hub import COMMIT, Hub
from test_pull_command import Shell, check_same

from sidecar import errors
from sidecar.checkpoints.installed_checkpoints import (
    CTRANSLATE2_LAYOUT,
    TRANSFORMERS_LAYOUT,
    WEIGHTS_FILE,
    WHISPER_BEST_FIRST,
    find_whisper,
    read_whisper,
    resolve_repository,
    whisper_model_name,
)
from sidecar.checkpoints.model_repositories import WHISPER_MODELS
from sidecar.checkpoints.resumable_download import SHA256, HubCacheDestination, HubFile

pytest.importorskip("huggingface_hub")
SMALL = WHISPER_MODELS["small"].repository


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub({SMALL: tiny_whisper.write_like(tmp_path / "published")}) as hub:
        yield hub


@pytest.fixture
def shell(tmp_path: Path, hub: Hub) -> Shell:
    return Shell(tmp_path / "home", hub)


def test_whisper_model_is_pulled_by_name_and_found(shell: Shell, hub: Hub) -> None:
    run = shell.pull("whisper:small")
    said = f"vibevoice-asr: {SMALL} at commit {COMMIT}\n"
    assert (run.returncode, run.stderr, run.stdout) == (0, said, f"{shell.folder}\n")
    published = hub.repos[SMALL]
    (published / "README.md").unlink()
    assert not (shell.folder / "README.md").exists(), "what nobody needs is not fetched"
    check_same(shell.folder, published)
    assert find_whisper(shell.cache).folder == shell.folder
    assert find_whisper(shell.home / "huggingface").folder == shell.folder
    assert find_whisper(shell.cache, "small").config["multilingual"] is True
    assert whisper_model_name(shell.folder) == "whisper-small"
    assert whisper_model_name(shell.home / "of-my-own") == "of-my-own"
    with pytest.raises(errors.CheckpointNotFound) as missing:
        find_whisper(shell.cache, "turbo")
    assert "vibevoice-asr pull whisper:large-v3-turbo (1.62 GB)" in missing.value.hint


def test_file_of_a_cache_where_no_link_appears_is_the_file_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "symlink_to", lambda *_: None)  # Wine says that it was made
    cache = HubCacheDestination(tmp_path / "models--one", COMMIT)
    file = HubFile("config.json", 2, SHA256, "a" * 64)
    cache.partial(file).parent.mkdir(parents=True)
    cache.partial(file).write_text("{}", "utf-8")
    cache.keep(file)
    assert cache.path(file).read_text("utf-8") == "{}"


def test_whisper_names_resolve_to_the_repositories_that_faster_whisper_downloads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert set(WHISPER_BEST_FIRST) == set(WHISPER_MODELS)
    for name, named in WHISPER_MODELS.items():
        assert resolve_repository(f"whisper:{name}") == (named.repository, CTRANSLATE2_LAYOUT)
        assert resolve_repository(named.repository) == (named.repository, CTRANSLATE2_LAYOUT)
    assert resolve_repository("whisper:turbo")[0] == WHISPER_MODELS["large-v3-turbo"].repository
    assert resolve_repository("vibevoice")[1] is TRANSFORMERS_LAYOUT
    faster_whisper = pytest.importorskip("faster_whisper.utils", reason="the extra 'whisper'")
    theirs: list[str] = []  # what it would download
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda repository, **_: theirs.append(repository)
    )
    for name in WHISPER_MODELS:
        faster_whisper.download_model(name)
    assert theirs == [one.repository for one in WHISPER_MODELS.values()]


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def with_weights(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / WEIGHTS_FILE).write_bytes(
        change((folder / WEIGHTS_FILE).read_bytes())
    )


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (without("config.json"), errors.CheckpointNotFound),
        (
            lambda folder: (folder / "config.json").write_text(
                '{"model_type": "whisper"}', "utf-8"
            ),
            errors.CheckpointUnsupported,
        ),
        (without(WEIGHTS_FILE), errors.CheckpointIncomplete),
        (without("tokenizer.json"), errors.CheckpointIncomplete),
        (without("vocabulary.json"), errors.CheckpointIncomplete),
        (with_weights(lambda whole: whole[:-1000]), errors.CheckpointDamaged),
        (with_weights(lambda whole: whole[:25]), errors.CheckpointDamaged),
        (with_weights(lambda whole: b"PK\3\4" + whole), errors.CheckpointUnsupported),
        (
            lambda folder: (folder / "vocabulary.json").write_text("{", "utf-8"),
            errors.CheckpointDamaged,
        ),
    ],
)
def test_incomplete_damaged_or_foreign_whisper_folder_is_refused_with_an_error_of_its_kind(
    spoil: Callable[[Path], object], error: type[errors.BadCheckpoint], tmp_path: Path
) -> None:
    folder = tiny_whisper.write_like(tmp_path / "model")
    assert read_whisper(folder).bytes > 400_000
    spoil(folder)
    with pytest.raises(error):
        find_whisper(folder)


def test_folder_of_the_ctranslate2_converter_is_accepted_and_with_cut_weights_damaged(
    tmp_path: Path,
) -> None:
    folder = tiny_whisper.model()
    assert read_whisper(folder).config["multilingual"] is True
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:-5000])
    with pytest.raises(errors.CheckpointDamaged) as caught:
        read_whisper(copy)
    assert "vibevoice-asr pull whisper:" in caught.value.hint
