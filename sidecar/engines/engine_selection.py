"""Selection of the ASR engine from facts about this machine.

`auto` takes VibeVoice-ASR where everything it needs to be quick is there, Whisper where the
language that is set is not English and a model of it is there, the embedded engine otherwise, and
never one that sends recordings to another machine. Who names an engine gets that one or an error;
so does who names a checkpoint's folder, which `auto` does not pass over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar

from sidecar import engines, errors
from sidecar.checkpoints import installed_checkpoints, whisper_checkpoints
from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.config.remote_server import host_of, upstream_options
from sidecar.config.settings import Settings
from sidecar.engines.voxtral import STREAM_MEMORY_S
from sidecar.gpu_memory.gpu_devices import host_free_bytes, read_gpu_memory
from sidecar.gpu_memory.memory_footprint import StreamShape
from sidecar.installation import install_command, is_frozen
from sidecar.interfaces.engine_interface import AUTO, EngineSpec, ModelSpec, UpstreamOptions

VIBEVOICE, WHISPER, MOONSHINE, UPSTREAM = "vibevoice", "whisper", "moonshine", "upstream"
VOXTRAL = "voxtral"


FoundModel = ModelCheckpoint | errors.SidecarError
"""An engine's weights, or what is wrong with them."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Facts by which an engine is chosen.

    ``lacking``: the packages that are missing, by engine. ``gpu``: its name, None without one.
    ``cuda``: whether the installed torch can use it. ``checkpoint``: what was found, or the error;
    None if it was not looked for. ``named``: whether the settings name it. ``whisper``: the same of
    a Whisper model, ``voxtral`` of Voxtral Realtime. ``language``: the one that is set.
    """

    lacking: Mapping[str, Sequence[str]]
    gpu: str | None = None
    cuda: bool = False
    checkpoint: FoundModel | None = None
    named: bool = False
    whisper: FoundModel | None = None
    voxtral: FoundModel | None = None
    language: str = AUTO

    def found(self, engine: str) -> FoundModel | None:
        """Return the checkpoint that was found for an engine; None if it has no weights of its
        own."""
        return {VIBEVOICE: self.checkpoint, WHISPER: self.whisper, VOXTRAL: self.voxtral}.get(
            engine
        )


def gather_facts(settings: Settings) -> EngineFacts:
    """The facts, as far as the settings make them matter: each costs some milliseconds."""
    lacking = {spec.name: engines.missing_packages(spec) for spec in engines.ENGINES}
    named = settings.model_path is not None
    facts = _find_vibevoice_facts(settings, lacking, named)
    foreign = is_unsupported_language(settings.language)
    if settings.engine == WHISPER or (settings.engine == AUTO and (named or foreign)):
        facts = replace(facts, whisper=find_model(WHISPER, settings))
    if settings.engine == VOXTRAL:
        facts = replace(facts, voxtral=find_model(VOXTRAL, settings))
    return replace(facts, language=settings.language)


def _find_vibevoice_facts(
    settings: Settings, lacking: Mapping[str, Sequence[str]], named: bool
) -> EngineFacts:
    usable = not lacking.get(VIBEVOICE, [VIBEVOICE])
    if settings.engine not in (AUTO, VIBEVOICE) or not (usable or named):
        return EngineFacts(lacking)
    checkpoint = find_model(VIBEVOICE, settings)
    if not usable:
        return EngineFacts(lacking, checkpoint=checkpoint, named=named)
    gpu = read_gpu_memory()
    return EngineFacts(lacking, gpu.name if gpu else None, torch_has_cuda(), checkpoint, named)


def find_model(engine: str, settings: Settings) -> FoundModel:
    """The weights that an engine would load, or what is wrong with them."""
    try:
        if engine == WHISPER:
            return whisper_checkpoints.find_whisper(settings.model_path, settings.whisper_model)
        if engine == VOXTRAL:
            return installed_checkpoints.find_voxtral(settings.model_path)
        return installed_checkpoints.find_checkpoint(settings.model_path)
    except (errors.BadCheckpoint, errors.RepositoryNotFound) as error:
        return error


def is_unsupported_language(language: str) -> bool:
    """Return whether a tag is of a language that the embedded engine does not know."""
    return not engines.engine_spec(MOONSHINE).speaks(language)


def torch_has_cuda() -> bool:
    """Return whether the installed torch was built for NVIDIA GPUs, by its libraries.

    It is not imported: that takes seconds and hundreds of megabytes.
    """
    torch = find_spec("torch")
    folders = torch.submodule_search_locations if torch else None
    return any(any(Path(folder).glob("lib/*torch_cuda.*")) for folder in folders or ())


ENGINES_WITH_EXTRAS = (VIBEVOICE, WHISPER, VOXTRAL)
"""Engines whose packages the base does not include; the extra has the engine's name."""


MAX_REMOTE_SESSIONS = 10_000
"""Sessions of one service that others hear: its own limits count, and theirs."""


Spec = TypeVar("Spec", bound=ModelSpec)


@dataclass(frozen=True, slots=True)
class EngineChoice(Generic[Spec]):
    """The engine that serves; ``checkpoint`` is the one to load, None where it needs none;
    ``upstream`` has who does the work for it, None where it does it itself; ``session_bytes``: what
    each live session takes of the device beside the weights; ``folder`` is where its files are, of
    one that is light and stays on the CPU, and ``folder_bytes`` what it takes in of them at
    most."""

    spec: Spec
    reason: str
    checkpoint: ModelCheckpoint | None = None
    upstream: UpstreamOptions | None = None
    session_bytes: int = 0
    folder: Path | None = None
    folder_bytes: int = 0


def choose_engine(settings: Settings) -> EngineChoice[EngineSpec]:
    """The engine that the settings mean on this machine.

    Raises:
        errors.EngineUnavailable: it cannot run here.
        errors.BadCheckpoint: an engine or a folder was named, and its weights are not usable.
        errors.SettingsInvalid: the upstreams that it needs are not said, or wrongly.
    """
    facts = gather_facts(settings)
    name, reason = decide_engine(settings.engine, facts)
    spec = engines.engine_spec(name)
    if name == UPSTREAM:
        others = upstream_options(settings)
        hosts = ", ".join(map(host_of, others.urls))
        return EngineChoice(spec, f"{reason}; recordings go to {hosts}", None, others)
    found = facts.found(name)
    checkpoint = found if isinstance(found, ModelCheckpoint) else None
    if name == WHISPER and checkpoint is not None and not checkpoint.config["multilingual"]:
        spec = replace(spec, languages=("en",), translates=False)
    if name == VOXTRAL and checkpoint is not None:
        shape = StreamShape.from_config(checkpoint.config)
        spec = replace(spec, sessions=_max_streams(spec, checkpoint, shape, settings))
        return EngineChoice(
            spec, reason, checkpoint, session_bytes=shape.peak_bytes(STREAM_MEMORY_S)
        )
    return EngineChoice(spec, reason, checkpoint)


def choose_engine_for_nodes(settings: Settings) -> EngineChoice[EngineSpec]:
    """The engine that the nodes have for which this service takes jobs in: as `choose_engine` where
    it can run here too; else the one that is named, which is then known by what is true of it
    anywhere, and hears nothing live.

    Raises:
        errors.SidecarError: none is named, and none can run here.
    """
    try:
        return choose_engine(settings)
    except (errors.EngineUnavailable, errors.BadCheckpoint):
        if settings.engine == AUTO:
            raise
        spec = engines.engine_spec(settings.engine)
        return EngineChoice(replace(spec, sessions=0), "nodes have it")


def choose_live_engine(
    settings: Settings, files: EngineChoice[EngineSpec]
) -> tuple[EngineChoice[EngineSpec] | None, str]:
    """The engine for live audio beside the one that serves ``files``, and why it is that one; None
    where nobody named one and none can.

    Raises:
        errors.EngineUnavailable: the engine that was named cannot run here, or does not hear live.
        errors.BadCheckpoint: its weights are not usable.
    """
    wanted = settings.live_engine
    if wanted == AUTO:
        return _auto_live_spec(files)
    if wanted == UPSTREAM:
        found = _remote_live_choice(settings)
        return found, found.reason
    named = files
    if wanted != files.spec.name:  # the folder that is set is that of the engine for files
        named = choose_engine(settings.model_copy(update={"engine": wanted, "model_path": None}))
    if not named.spec.sessions:
        raise errors.EngineUnavailable(
            f"The engine '{wanted}' does not transcribe live audio.",
            hint=f"Engines that do: {', '.join(_live_engine_names()) or 'none'}; or set 'auto'.",
        )
    return named, "as set"


def _remote_live_choice(settings: Settings) -> EngineChoice[EngineSpec]:
    """Return the servers that the settings name for recordings: their capacity and languages are
    theirs to say."""
    others = upstream_options(settings)
    hosts = ", ".join(map(host_of, others.urls))
    spec = replace(engines.engine_spec(UPSTREAM), sessions=MAX_REMOTE_SESSIONS, translates=True)
    return EngineChoice(spec, f"as set; sound goes to {hosts}", None, others)


def _auto_live_spec(files: EngineChoice[EngineSpec]) -> tuple[EngineChoice[EngineSpec] | None, str]:
    if files.spec.sessions:
        return files, "it transcribes recordings and live audio"
    reason = f"the engine '{files.spec.name}', for recordings, does not transcribe live audio"
    embedded = engines.engine_spec(MOONSHINE)
    if lacking := engines.missing_packages(embedded):
        return None, f"{reason}; for the embedded one are not installed: {', '.join(lacking)}"
    if not embedded.sessions:
        return None, f"{reason}, nor does the embedded one"
    return EngineChoice(embedded, reason), reason


def _live_engine_names() -> list[str]:
    """The names of all that hear live."""
    return [spec.name for spec in engines.ENGINES if spec.sessions]


def _max_streams(
    spec: EngineSpec, checkpoint: ModelCheckpoint, shape: StreamShape, settings: Settings
) -> int:
    """Return the number of sessions that fit in memory beside the weights; at least one."""
    gpu = read_gpu_memory() if settings.device != "cpu" else None
    free = gpu.free_bytes if gpu is not None else host_free_bytes()
    return max(1, min(spec.sessions, shape.most(free - checkpoint.bytes, STREAM_MEMORY_S)))


def decide_engine(wanted: str, facts: EngineFacts) -> tuple[str, str]:
    """The name of the engine that serves, and the reason.

    Raises:
        errors.EngineUnavailable: packages are missing.
        errors.BadCheckpoint: what was found, where VibeVoice-ASR or the folder was named.
    """
    if wanted == AUTO:
        name, reason = _decide_auto(facts)
    else:
        name = wanted
        slow = wanted == VIBEVOICE and not (facts.gpu and facts.cuda)
        reason = "as set; slow, without a GPU that torch can use" if slow else "as set"
    if lacking := facts.lacking.get(name, [f"sidecar.engines.{name}"]):
        raise errors.EngineUnavailable(
            f"The engine '{name}' needs packages that are not installed: {', '.join(lacking)}.",
            hint=install_hint(name),
        )
    if isinstance(wrong := facts.found(name), errors.SidecarError):
        raise wrong
    return name, reason


def _decide_auto(facts: EngineFacts) -> tuple[str, str]:
    """Return the engine that `auto` chooses, and why.

    Raises:
        errors.BadCheckpoint: the folder that was named is no good for any engine.
    """
    hears = isinstance(facts.whisper, ModelCheckpoint)
    if facts.named and isinstance(facts.checkpoint, errors.SidecarError) and not hears:
        raise facts.checkpoint
    obstacle = vibevoice_shortcoming(facts)
    if not obstacle:
        return VIBEVOICE, f"it runs on {facts.gpu}"
    reason = f"VibeVoice-ASR is not used: {obstacle}"
    if not (facts.named and hears) and not is_unsupported_language(facts.language):
        return MOONSHINE, reason
    if lacking := facts.lacking.get(WHISPER, [WHISPER]):
        return MOONSHINE, f"{reason} Nor is Whisper: not installed are {', '.join(lacking)}"
    if hears:
        return WHISPER, f"it is for '{facts.language}', or was named. {reason}"
    assert isinstance(facts.whisper, errors.SidecarError)
    return MOONSHINE, f"{reason} Nor is Whisper: {facts.whisper.detail} {facts.whisper.hint}"


def check_language(spec: EngineSpec, settings: Settings) -> None:
    """Check that the engine knows the language that is set: else it would refuse every request that
    names no other.

    Raises:
        errors.EngineUnavailable: it does not.
    """
    tag = settings.language
    if not spec.speaks(tag):
        raise errors.EngineUnavailable(
            f"The engine '{spec.name}' does not support the language '{tag}' of the settings.",
            hint=language_hint(tag, settings),
        )


def language_hint(tag: str, settings: Settings) -> str:
    """Return the hint for a language that the engine in use does not know."""
    able = [spec for spec in engines.ENGINES if spec.languages and spec.speaks(tag)]
    if WHISPER not in (spec.name for spec in able):
        return f"No engine of this build is made for '{tag}'."
    start = f"start with --language {tag} (or --engine {WHISPER})"
    if engines.missing_packages(engines.engine_spec(WHISPER)):
        pull = whisper_checkpoints.pull_command()
        return f"For '{tag}': {install_hint(WHISPER)}, then {pull}, then {start}."
    model = find_model(WHISPER, settings)
    if isinstance(model, ModelCheckpoint) and model.config["multilingual"]:
        return f"For '{tag}': {start}; its model is here."
    return f"For '{tag}': {whisper_checkpoints.pull_command()}, then {start}."


def install_hint(engine: str) -> str:
    """Return the hint for an engine whose packages are missing."""
    if engine in ENGINES_WITH_EXTRAS:
        if is_frozen() and engine == VIBEVOICE:
            return "Use the build 'vibevoice-asr-gpu', which has them."
        return install_command(engine)
    if is_frozen():
        return "Download this build again: it is not whole."
    return f"Install it again: {install_command('')}"


def vibevoice_shortcoming(facts: EngineFacts) -> str | None:
    """Return the reason why `auto` does not choose VibeVoice-ASR, None if there is none."""
    if lacking := facts.lacking.get(VIBEVOICE, [VIBEVOICE]):
        return f"not installed are {', '.join(lacking)} ({install_hint(VIBEVOICE)})"
    if facts.gpu is None:
        return (
            "there is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it "
            "(it runs without, slowly, when it is set)"
        )
    if not facts.cuda:
        return f"the torch that is installed cannot use the GPU ({facts.gpu})"
    if isinstance(facts.checkpoint, errors.SidecarError):
        return f"{facts.checkpoint.detail} {facts.checkpoint.hint}"
    return None
