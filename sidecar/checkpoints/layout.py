"""The kinds of models that can be fetched: which files, and how a folder of them is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.checkpoints import checkpoint, speaking, voxtral, weights, whisper_checkpoints
from sidecar.checkpoints.checkpoint import Checkpoint

SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".txt"})
"""What a checkpoint of transformers consists of; nothing else is fetched, pickles least of all."""


@dataclass(frozen=True, slots=True)
class Layout:
    """``fetched``: whether a file of the repository is; ``is_large``: whether it is of the weights,
    which come last; ``check_config``: raises where they are not worth it."""

    weights: str
    fetched: Callable[[str], bool]
    is_large: Callable[[str], bool]
    check_config: Callable[[Path], dict[str, Any]]
    read: Callable[[Path], Checkpoint]
    find: Callable[[Path], Checkpoint]


TRANSFORMERS = Layout(
    "*.safetensors",
    lambda name: Path(name).suffix in SUFFIXES,
    lambda name: name.endswith(".safetensors"),
    checkpoint.check_config,
    checkpoint.read_checkpoint,
    weights.find_checkpoint,
)
CTRANSLATE2 = Layout(
    whisper_checkpoints.WEIGHTS,
    lambda name: name in whisper_checkpoints.FILES,
    lambda name: name == whisper_checkpoints.WEIGHTS,
    whisper_checkpoints.check_config,
    whisper_checkpoints.read_model,
    whisper_checkpoints.find_model,
)
VOXTRAL = Layout(
    "model*.safetensors",
    voxtral.is_fetched,
    lambda name: name.endswith(".safetensors"),
    voxtral.check_config,
    voxtral.read_model,
    voxtral.find_model,
)
SPEAKING = Layout(
    TRANSFORMERS.weights,
    TRANSFORMERS.fetched,
    TRANSFORMERS.is_large,
    speaking.check_config,
    speaking.read_model,
    speaking.find_model,
)


def wanted(name: str) -> tuple[str, Layout]:
    """The repository that people mean by ``name``, and what is in it.

    Raises:
        errors.RepositoryNotFound: it is no name.
    """
    if name.startswith(whisper_checkpoints.PREFIX):
        return whisper_checkpoints.named(
            name.removeprefix(whisper_checkpoints.PREFIX)
        ).repository, CTRANSLATE2
    if name.strip().lower() in voxtral.NAMES:
        return voxtral.REPOSITORY, VOXTRAL
    if name.strip().lower() in speaking.NAMES:
        return speaking.REPOSITORY, SPEAKING
    known = {one.repository for one in whisper_checkpoints.NAMES.values()}
    repository = weights.repository(name)
    return repository, CTRANSLATE2 if repository in known else TRANSFORMERS
