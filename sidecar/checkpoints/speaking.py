"""VibeVoice that speaks on this machine, in the layout of transformers: where it is, is it whole.

Looks at `config.json` and the headers of the weights, and imports nothing heavy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.checkpoints.cache import first_whole, folders_of, looked_in
from sidecar.checkpoints.checkpoint import (
    ORIGINAL_MODEL_TYPE,
    Checkpoint,
    damaged,
    read_checkpoint,
    read_json,
)

REPOSITORY = "vibevoice/VibeVoice-1.5B-hf"
"""As the configuration of transformers names it."""
NAMES = frozenset({"vibevoice-1.5b", "vibevoice-1.5b-hf", "vibevoice/vibevoice-1.5b-hf"})
COMMAND = "vibevoice-asr pull vibevoice-1.5b"
MODEL_TYPE = "vibevoice"
"""What `config.json` says in both layouts; they differ in what its parts are called."""
_PARTS = frozenset({"audio_config", "text_config", "semantic_model_config"})
_ORIGINAL_PARTS = frozenset({"acoustic_tokenizer_config", "decoder_config"})


def find_model(voice_path: Path | None) -> Checkpoint:
    """The one in ``voice_path`` (its folder, or a cache that has it), or in the cache.

    Raises:
        errors.BadCheckpoint: there is none, or what is wrong with the first.
    """
    path = looked_in(voice_path)
    try:
        found = first_whole(folders_of(path, [REPOSITORY]), read_model)
    except OSError as error:
        raise errors.CheckpointNotFound(
            f"{error.filename} cannot be read: {error.strerror}.", hint="Check its permissions."
        ) from None
    if found is None:
        raise errors.CheckpointNotFound(
            f"There is no VibeVoice that speaks in {path}.",
            hint=f"Get it: {COMMAND}, or set VIBEVOICE_VOICE_PATH to its folder.",
        )
    return found


def read_model(folder: Path) -> Checkpoint:
    """Look at everything that can be seen without loading it.

    Raises:
        errors.BadCheckpoint: there is none, it is not whole, or of another kind.
    """
    try:
        return read_checkpoint(folder, check_config)
    except (errors.CheckpointIncomplete, errors.CheckpointDamaged, errors.CheckpointUnsafe) as bad:
        raise type(bad)(
            bad.detail, hint=f"Copy the folder anew, or get the whole: {COMMAND}"
        ) from None


def check_config(folder: Path) -> dict[str, Any]:
    """`config.json`, which must be that of VibeVoice as transformers has it."""
    if not (folder / "config.json").is_file():
        raise errors.CheckpointNotFound(
            f"{folder} has no config.json.", hint=f"Get VibeVoice: {COMMAND}"
        )
    config = read_json(folder / "config.json")
    if "auto_map" in config:
        raise errors.CheckpointUnsafe(
            f"{folder} brings code of its own (auto_map), which is never run."
        )
    kind = config.get("model_type")
    if kind == MODEL_TYPE and config.keys() >= _PARTS:
        _check_parts(folder, config)
        return config
    if kind == ORIGINAL_MODEL_TYPE and config.keys() & _ORIGINAL_PARTS:
        raise errors.CheckpointNotConverted(
            f"{folder} has the original layout of VibeVoice, not the one of transformers.",
            hint=f"Get the converted one: {COMMAND}",
        )
    raise errors.CheckpointUnsupported(
        f"{folder} is no VibeVoice that speaks: its model_type is {str(kind)[:60]!r}.",
        hint=f"Get one: {COMMAND}",
    )


def _check_parts(folder: Path, config: dict[str, Any]) -> None:
    whole = all(isinstance(config[part], dict) for part in _PARTS)
    if not whole or "hidden_size" not in config["text_config"]:
        raise damaged(folder / "config.json", "does not say how large the model is")
