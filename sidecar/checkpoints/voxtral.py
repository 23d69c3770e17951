"""Voxtral Realtime on this machine, in the layout of transformers: where it is, is it whole.

Looks at `config.json` and the headers of the weights, and imports nothing heavy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.checkpoints.cache import first_whole, folders_of, looked_in
from sidecar.checkpoints.checkpoint import (
    INDEX,
    WEIGHTS,
    Checkpoint,
    check_safetensors,
    read_json,
    require,
    unreadable,
)

REPOSITORY = "mistralai/Voxtral-Mini-4B-Realtime-2602"
NAMES = frozenset({"voxtral", "voxtral-realtime", "mistralai/voxtral-mini-4b-realtime-2602"})
COMMAND = "vibevoice-asr pull voxtral"
MODEL_TYPE = "voxtral_realtime"
TOKENS = "tekken.json"
FILES = frozenset(
    {
        *("config.json", "generation_config.json", "processor_config.json"),
        *("preprocessor_config.json", TOKENS, WEIGHTS, INDEX),
    }
)


def is_fetched(name: str) -> bool:
    """Whether a file of the repository is for us: it may have the weights in Mistral's own layout
    besides."""
    return name in FILES or (name.startswith("model-") and name.endswith(".safetensors"))


def find_model(model_path: Path | None) -> Checkpoint:
    """The one in ``model_path`` (its folder, or a cache that has it), or in the cache.

    Raises:
        errors.BadCheckpoint: there is none, or what is wrong with the first.
    """
    path = looked_in(model_path)
    found = first_whole(folders_of(path, [REPOSITORY]), read_model)
    if found is None:
        raise errors.CheckpointNotFound(
            f"There is no Voxtral Realtime in {path}.", hint=f"Get it: {COMMAND}."
        )
    return found


def read_model(folder: Path) -> Checkpoint:
    """Look at everything that can be seen without loading it.

    Raises:
        errors.BadCheckpoint: there is none, it is not whole, or of another kind.
    """
    with unreadable():
        config = check_config(folder)
        files = _weight_files(folder)
        require(folder, [] if (folder / TOKENS).is_file() else [TOKENS], 1)
        return Checkpoint.of(folder, config, files)


def check_config(folder: Path) -> dict[str, Any]:
    """`config.json`, which must be that of Voxtral Realtime as transformers has it."""
    if not (folder / "config.json").is_file():
        raise errors.CheckpointNotFound(
            f"{folder} has no config.json.", hint=f"Get Voxtral Realtime: {COMMAND}."
        )
    config = read_json(folder / "config.json")
    if "auto_map" in config:
        raise errors.CheckpointUnsafe(
            f"{folder} brings code of its own (auto_map), which is never run."
        )
    if config.get("model_type") != MODEL_TYPE:
        raise errors.CheckpointUnsupported(
            f"{folder} is not Voxtral Realtime: its model_type is "
            f"{str(config.get('model_type'))[:60]!r}.",
            hint=f"Get it: {COMMAND}.",
        )
    return config


def _weight_files(folder: Path) -> tuple[Path, ...]:
    names = {WEIGHTS}
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        listed = read_json(folder / INDEX).get("weight_map")
        names = {Path(str(name)).name for name in (listed or {}).values()} or names
    require(folder, [name for name in names if not (folder / name).is_file()], len(names))
    files = tuple(folder / name for name in sorted(names))
    for file in files:
        check_safetensors(file)
    return files
