"""What counts of this machine when an engine is chosen: packages, a GPU, checkpoints.

Nothing heavy is imported for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from sidecar import engines, errors
from sidecar.checkpoints import voxtral, weights, whisper_checkpoints
from sidecar.checkpoints.checkpoint import Checkpoint
from sidecar.config.settings import Settings
from sidecar.gpu_memory.devices import gpu_memory
from sidecar.interfaces.engine import AUTO

VIBEVOICE, WHISPER, EMBEDDED, UPSTREAM = "vibevoice", "whisper", "moonshine", "upstream"
VOXTRAL = "voxtral"


@dataclass(frozen=True, slots=True)
class Facts:
    """What counts when an engine is chosen.

    ``lacking``: the packages that are missing, by engine. ``gpu``: its name, None without one.
    ``cuda``: whether the torch that is installed can use it. ``checkpoint``: what was found, or
    what is wrong; None where nobody looked. ``named``: whether the settings say where it is.
    ``whisper``: the same of a Whisper model, ``voxtral`` of Voxtral Realtime. ``language``: the
    one that is set.
    """

    lacking: Mapping[str, Sequence[str]]
    gpu: str | None = None
    cuda: bool = False
    checkpoint: Checkpoint | errors.BadCheckpoint | None = None
    named: bool = False
    whisper: Checkpoint | errors.SidecarError | None = None
    voxtral: Checkpoint | errors.BadCheckpoint | None = None
    language: str = AUTO


def look(settings: Settings) -> Facts:
    """The facts, as far as the settings make them matter: each costs some milliseconds."""
    lacking = {spec.name: engines.missing(spec) for spec in engines.ENGINES}
    named = settings.model_path is not None
    facts = _look_for_vibevoice(settings, lacking, named)
    foreign = is_foreign(settings.language)
    if settings.engine == WHISPER or (settings.engine == AUTO and (named or foreign)):
        facts = replace(facts, whisper=whisper_model(settings))
    if settings.engine == VOXTRAL:
        facts = replace(facts, voxtral=_voxtral_model(settings))
    return replace(facts, language=settings.language)


def _look_for_vibevoice(
    settings: Settings, lacking: Mapping[str, Sequence[str]], named: bool
) -> Facts:
    usable = not lacking.get(VIBEVOICE, [VIBEVOICE])
    if settings.engine not in (AUTO, VIBEVOICE) or not (usable or named):
        return Facts(lacking)
    try:
        checkpoint: Checkpoint | errors.BadCheckpoint = weights.find_checkpoint(settings.model_path)
    except errors.BadCheckpoint as error:
        checkpoint = error
    if not usable:
        return Facts(lacking, checkpoint=checkpoint, named=named)
    gpu = gpu_memory()
    return Facts(lacking, gpu.name if gpu else None, torch_has_cuda(), checkpoint, named)


def whisper_model(settings: Settings) -> Checkpoint | errors.SidecarError:
    """The one that would be loaded, or what is wrong with it."""
    try:
        return whisper_checkpoints.find_model(settings.model_path, settings.whisper_model)
    except (errors.BadCheckpoint, errors.RepositoryNotFound) as error:
        return error


def _voxtral_model(settings: Settings) -> Checkpoint | errors.BadCheckpoint:
    try:
        return voxtral.find_model(settings.model_path)
    except errors.BadCheckpoint as error:
        return error


def without_whisper(settings: Settings) -> errors.SidecarError | None:
    """What is wrong with the Whisper model that would be loaded; None where nothing is."""
    found = whisper_model(settings)
    return None if isinstance(found, Checkpoint) else found


def is_foreign(language: str) -> bool:
    """Whether a tag is of a language that the embedded engine does not know."""
    return not engines.spec_of(EMBEDDED).speaks(language)


def torch_has_cuda() -> bool:
    """Whether the torch that is installed was built for NVIDIA GPUs; told by its libraries.

    It is not imported: that takes seconds and hundreds of megabytes.
    """
    torch = find_spec("torch")
    folders = torch.submodule_search_locations if torch else None
    return any(any(Path(folder).glob("lib/*torch_cuda.*")) for folder in folders or ())
