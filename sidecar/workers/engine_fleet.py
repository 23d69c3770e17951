"""Engines of this service by role, and the model each one works with.

An engine has one model at a time. A new one is loaded beside the old one if memory allows, else
instead of it. If it cannot be loaded, the old one goes on.

Recognition of files and of live audio have an engine each, so that neither waits for the other. The
TTS engine has a client, which retries once in a new process.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, cast

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import (
    EngineChoice,
    check_language,
    choose_engine,
    choose_installed,
)
from sidecar.gpu_memory.gpu_devices import GpuMemory
from sidecar.interfaces.engine_interface import (
    MAX_TTS_CHARACTERS,
    EngineSpec,
    Precision,
    SynthesisOptions,
    SynthesizedAudio,
    TtsSpec,
    WordMark,
)
from sidecar.workers import engine_slot
from sidecar.workers.engine_host import EngineHost, MemoryDevices
from sidecar.workers.worker_process import WorkerDied

AnyHost = EngineHost[Any]
log = logging.getLogger(__name__)
DEFAULT_MODEL_ID = "default"
"""Name of the models that are loaded at the start."""


class EngineRole(StrEnum):
    """Role of an engine."""

    FILES = "files"
    """Recordings."""
    LIVE = "live"
    """Live sessions, many at once."""
    VOICE = "voice"
    """Speech synthesis."""


class TtsClient:
    """Client of the one TTS engine. Texts are synthesized one after the other, in the order of the
    calls."""

    def __init__(self, slot: engine_slot.EngineSlot[TtsSpec]) -> None:
        self._slot = slot
        self._voices: tuple[str, ...] = ()
        self._voices_load = 0
        """The load of the engine that has these voices."""

    @property
    def spec(self) -> TtsSpec:
        """Return the spec of the engine."""
        return self._slot.spec

    @property
    def known_voices(self) -> tuple[str, ...]:
        """Names of the voices of the loaded engine; none before the first `ready` of that load."""
        return self._voices if self._voices_load == self._slot.loads else ()

    async def ready(self) -> tuple[str, ...]:
        """Load the engine if necessary; return the names of its voices.

        Raises:
            errors.ModelLoadFailed, errors.ShuttingDown: it cannot be loaded.
            errors.EngineFailed: its process ended.
        """
        try:
            async with self._slot.lease() as engine, engine.calling("voices") as call:
                async for answer, _ in call.answers():
                    self._voices = tuple(answer["voices"])
                    self._voices_load = self._slot.loads
                    return self._voices
        except WorkerDied:
            raise _engine_failed_error() from None
        return ()

    async def say(
        self, text: str, options: SynthesisOptions | None = None
    ) -> AsyncGenerator[SynthesizedAudio, None]:
        """Yield the audio of ``text`` (at most `MAX_TTS_CHARACTERS`), loading the engine if
        necessary. Leaving early returns at once; the engine stops between two frames of audio. If
        the process ends before the first audio (because of another text, or before this call),
        retry once in a new process.

        Raises:
            errors.VoiceUnknown: there is no such voice.
            errors.ModelLoadFailed, errors.ShuttingDown: the engine cannot be loaded.
            errors.EngineFailed: it failed, or its process ended.
        """
        if len(text) > MAX_TTS_CHARACTERS:
            raise ValueError(f"more than {MAX_TTS_CHARACTERS} characters at once")
        values = (options or SynthesisOptions()).to_wire()
        begun = False
        for last in (False, True):
            try:
                async with (
                    self._slot.lease() as engine,
                    engine.calling("say", text=text, options=values) as call,
                ):
                    async for answer, pcm in call.answers():
                        begun = True
                        marks = tuple(WordMark(at, start) for at, start in answer["marks"])
                        yield SynthesizedAudio(pcm, answer["rate"], marks)
                return
            except WorkerDied:
                if begun or last:
                    raise _engine_failed_error() from None


def _engine_failed_error() -> errors.EngineFailed:
    return errors.EngineFailed("The worker process of the TTS engine died.")


class EngineFleet:
    """Engines of this service and memory of its devices. An engine is loaded at its first use.

    ``live``: None if no engine transcribes live audio. ``voice``: None if there is no TTS engine.
    """

    def __init__(
        self,
        settings: Settings,
        files: EngineChoice[EngineSpec],
        live: EngineChoice[EngineSpec] | None,
        voice: EngineChoice[TtsSpec] | None = None,
        voice_sharing: engine_slot.Sharing = engine_slot.SERIAL,
    ) -> None:
        self._devices = MemoryDevices()
        # The live engine comes first: the precision of that for files depends on what it reserves.
        live_host: EngineHost[EngineSpec] | None = None
        if live is not None:
            live_host = EngineHost(
                EngineRole.LIVE, settings, live, self._devices, engine_slot.LIVE, live=True
            )
        self.files = EngineHost(
            EngineRole.FILES, settings, files, self._devices, engine_slot.EXCLUSIVE
        )
        """Host of the engine for files."""
        self.hosts: dict[str, EngineHost[EngineSpec]] = {EngineRole.FILES: self.files}
        """Host of each ASR engine, by role."""
        if live_host is not None:
            self.hosts[EngineRole.LIVE] = live_host
        self.engines = {EngineRole(role): cast(AnyHost, one) for role, one in self.hosts.items()}
        """Host of each engine."""
        self.voice: TtsClient | None = None
        """TTS client; None without a TTS engine."""
        if voice is not None:
            host = EngineHost(
                EngineRole.VOICE, settings, voice, self._devices, voice_sharing, speaks=True
            )
            self.engines[EngineRole.VOICE] = host
            self.voice = TtsClient(host.slot)

    @property
    def live(self) -> engine_slot.EngineSlot[EngineSpec]:
        """Return the slot for live audio; only if there is a live engine."""
        return self.hosts[EngineRole.LIVE].slot

    @property
    def gpu(self) -> GpuMemory | None:
        """Return the GPU as of the last query; None if there is none."""
        return self._devices.gpu.seen

    async def watch(self) -> None:
        """Query the GPU periodically, until cancelled."""
        await self._devices.gpu.go_on()

    async def close(self) -> None:
        """Unload all engines, the last one opened first."""
        for host in reversed(self.engines.values()):
            await host.slot.close()


@dataclass(frozen=True, slots=True)
class ModelLoadRequest:
    """Request for a model: from a folder, or by its name among those of its engine. If neither is
    set, it is the model of the start, at another precision."""

    model_id: str
    path: Path | None = None
    size: str = ""
    precision: Precision = Precision.AUTO


@dataclass(slots=True)
class _ServedModel:
    """Model that an engine serves."""

    model_id: str
    choice: EngineChoice[EngineSpec]
    precision: Precision


@dataclass(slots=True, eq=False)
class _ModelUse:
    """Request for a model that transcribes recordings, and the task that loads it."""

    name: str
    choice: EngineChoice[EngineSpec]
    precision: Precision
    task: asyncio.Task[Precision] = field(init=False)
    begun: bool = False
    """Its load must not be cancelled any more."""
    superseded_by: str | None = None
    """Name of the model for which it was cancelled."""

    def wants(self, choice: EngineChoice[EngineSpec], precision: Precision) -> bool:
        """Return whether it is for this model at this precision."""
        return precision is self.precision and _same_model(choice, self.choice)

    def begin(self) -> None:
        """Record that the running job has ended and the load begins."""
        self.begun = True


class ModelRegistry:
    """Registry of the models of all engines in ``hosts``. ``choices``: their models at the
    start."""

    def __init__(
        self,
        settings: Settings,
        hosts: Mapping[str, EngineHost[EngineSpec]],
        choices: Mapping[str, EngineChoice[EngineSpec]],
    ) -> None:
        self._settings, self._hosts = settings, hosts
        self._first = {
            role: _ServedModel(DEFAULT_MODEL_ID, choices[role], one.slot.precision)
            for role, one in hosts.items()
        }
        self._served = dict(self._first)
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._loading_choices: dict[str, Mapping[str, EngineChoice[EngineSpec]]] = {}
        self._uses: list[_ModelUse] = []
        """Models that `use` loads: at most one now, and the last one requested."""
        self._lock = asyncio.Lock()
        self.failed: dict[str, str] = {}
        """Error code of the last model that could not be loaded, by its name."""

    @property
    def names(self) -> list[str]:
        """Return the loaded models, each once."""
        return list(dict.fromkeys(one.model_id for one in self._served.values()))

    @property
    def by_role(self) -> dict[str, str]:
        """Return the model of each engine."""
        return {role: one.model_id for role, one in self._served.items()}

    def in_use(self) -> dict[str, EngineChoice[EngineSpec]]:
        """Return the choice of each engine of this service, by role; a front has none for files."""
        used = {role: one.choice for role, one in self._served.items()}
        if self._settings.is_front:
            del used[EngineRole.FILES]
        return used

    def folders(self) -> list[Path]:
        """Return the folders of the models that are loaded or being loaded, and of those of the
        start; an adapter's model has a folder of its own."""
        choices = [one.choice for one in (*self._first.values(), *self._served.values())]
        choices += [one for suited in self._loading_choices.values() for one in suited.values()]
        choices += [one.choice for one in self._uses]
        found = [one.checkpoint for one in choices if one.checkpoint is not None]
        weights = [file.parent for one in found for file in one.weight_files]
        return [*(one.folder for one in found), *weights]

    @property
    def loading_names(self) -> list[str]:
        """Return the models that are being loaded, or wait for it."""
        return list(self._loading)

    async def load(self, request: ModelLoadRequest) -> None:
        """Start to load a model; return without waiting for it.

        Raises:
            errors.ModelLoaded: a model of this name is loaded or being loaded.
            errors.ModelPathForbidden: its folder is outside the allowed roots.
            errors.ModelNotFound, errors.ModelUnsuited: no engine here can use it.
            errors.PrecisionUnavailable: it cannot be loaded at this precision.
        """
        if request.model_id in self.names or request.model_id in self._loading:
            raise errors.ModelLoaded()
        request = replace(request, path=self._checked(request.path))
        suited = await asyncio.to_thread(self._suited, request)
        if request.model_id in self._loading:  # loaded meanwhile
            raise errors.ModelLoaded()
        self._begin(request.model_id, suited, request.precision)

    async def use(self, name: str, precision: Precision = Precision.AUTO) -> Precision:
        """Load an installed model for recordings, by its name for `pull`, after the running job;
        return its precision. Its engine may be another than that in use; what another engine
        transcribes live stays as it is. If the caller is cancelled, the load goes on. Of requests
        that wait, the last one wins; equal ones share a load.

        Raises:
            errors.ModelNotFound: it is not installed, or no model has this name.
            errors.EngineUnavailable: its engine cannot run here, or does not support the
                language of the settings.
            errors.ReloadSuperseded: another model was requested before the load of this one began.
            errors.ModelUnsuited: its engine cannot replace the one in use.
            errors.PrecisionUnavailable, errors.WontFit, errors.ModelLoadFailed: it cannot be loaded
                so; the old engine goes on serving.
        """
        choice = await asyncio.to_thread(choose_installed, name, self._settings)
        check_language(choice.spec, self._settings)
        host = self._hosts[EngineRole.FILES]
        if not host.takes(choice):
            host.check_switch(choice, precision)
        last = self._uses[-1] if self._uses else None
        if last is None or not last.wants(choice, precision):
            if last is not None and not last.begun:
                last.superseded_by = name
                last.task.cancel()
            last = _ModelUse(name, choice, precision)
            last.task = asyncio.get_running_loop().create_task(self._use(last), name="model")
            self._uses.append(last)
            last.task.add_done_callback(partial(self._use_ended, last))
        try:
            return await asyncio.shield(last.task)
        except asyncio.CancelledError:
            if last.superseded_by is not None and last.task.cancelled():
                raise errors.ReloadSuperseded(
                    f"Before the load of '{last.name}' began '{last.superseded_by}' was requested."
                ) from None
            raise

    async def _use(self, use: _ModelUse) -> Precision:
        """Load a model for recordings, after what is being loaded."""
        host, role, precision = self._hosts[EngineRole.FILES], EngineRole.FILES, use.precision
        async with self._lock:
            served = self._served[role]
            if _same_model(served.choice, use.choice):
                use.begin()
                if precision not in (Precision.AUTO, host.slot.precision):
                    await host.slot.reload(precision)
                served.model_id = use.name
                return host.slot.precision
            if host.takes(use.choice):
                use.begin()
                found = await host.load_model(use.choice, precision)
            else:
                log.info("model %s is loaded after the running job, as requested", use.name)
                found = await host.switch(use.choice, precision, use.begin)
            self._served[role] = _ServedModel(use.name, use.choice, found)
            log.info("model %s transcribes recordings, as requested", use.name)
            return found

    def _use_ended(self, use: _ModelUse, task: asyncio.Task[Precision]) -> None:
        self._uses.remove(use)
        if not task.cancelled():
            task.exception()  # else asyncio logs that it was never retrieved

    def unload(self, model_id: str) -> asyncio.Task[None]:
        """Start to go back to the model of the start, after the running job. The returned task ends
        when it is done; cancelling a wait for it has no effect.

        Raises:
            errors.ModelNotFound: no model has this name, or it is the one of the start.
        """
        roles = [role for role, one in self._served.items() if one.model_id == model_id]
        if not roles or model_id == DEFAULT_MODEL_ID:
            raise errors.ModelNotFound(
                f"There is no model '{model_id}' that can be unloaded.",
                hint=(
                    "GET /admin/list_models lists the loaded models; the last one cannot be "
                    "unloaded."
                ),
            )
        return self._begin(DEFAULT_MODEL_ID, {role: self._first[role].choice for role in roles})

    async def close(self) -> None:
        """Cancel the loads that are in progress."""
        tasks = [*self._loading.values(), *(one.task for one in self._uses)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(
        self,
        model_id: str,
        suited: Mapping[str, EngineChoice[EngineSpec]],
        precision: Precision | None = None,
    ) -> asyncio.Task[None]:
        """Start the load. ``precision``: None for that of the start."""
        task = asyncio.get_running_loop().create_task(
            self._load(model_id, suited, precision), name="model"
        )
        self._loading[model_id] = task
        self._loading_choices[model_id] = suited
        task.add_done_callback(lambda task: self._load_ended(model_id, task))
        return task

    def _load_ended(self, model_id: str, task: asyncio.Task[None]) -> None:
        if self._loading.get(model_id) is task:
            del self._loading[model_id], self._loading_choices[model_id]
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("internal error while a model was loaded or unloaded", exc_info=fault)

    async def _load(
        self,
        model_id: str,
        suited: Mapping[str, EngineChoice[EngineSpec]],
        precision: Precision | None,
    ) -> None:
        self.failed.pop(model_id, None)
        async with self._lock:
            for role, choice in suited.items():
                wanted = self._first[role].precision if precision is None else precision
                try:
                    host = self._hosts[role]
                    change = host.load_model if host.takes(choice) else host.switch
                    found = await change(choice, wanted)
                except errors.SidecarError as error:
                    log.error("the model for %s could not be loaded: %s", role, error.detail)
                    self.failed = {model_id: error.code}
                else:
                    self._served[role] = _ServedModel(model_id, choice, found)

    def _suited(self, request: ModelLoadRequest) -> dict[str, EngineChoice[EngineSpec]]:
        """Return the engines that can use the model, with their choice for it; reads the disk."""
        suited, wrong = {}, list[errors.SidecarError]()
        for role, host in self._hosts.items():
            try:
                choice = self._chosen(role, request)
                host.check(choice)
                host.slot.check(request.precision)
                suited[role] = choice
            except errors.SidecarError as error:
                wrong.append(error)
        if not suited:
            raise wrong[0]
        return suited

    def _chosen(self, role: str, request: ModelLoadRequest) -> EngineChoice[EngineSpec]:
        first = self._first[role].choice
        if request.path is None and not request.size:
            return first
        named = {
            "engine": first.spec.name,
            "model_path": request.path,
            "whisper_model": request.size,
        }
        try:
            return choose_engine(self._settings.model_copy(update=named))
        except (errors.BadCheckpoint, errors.RepositoryNotFound) as error:
            raise errors.ModelNotFound(error.detail, hint=error.hint) from None

    def _checked(self, path: Path | None) -> Path | None:
        """Return the resolved path, so that a symlink changed later has no effect."""
        if path is None:
            return None
        found = path.resolve()
        allowed = [root.resolve() for root in self._settings.admin_model_roots]
        if not any(found.is_relative_to(root) for root in allowed):
            raise errors.ModelPathForbidden()
        return found


def _same_model(one: EngineChoice[EngineSpec], other: EngineChoice[EngineSpec]) -> bool:
    return (one.spec.name, _folder(one)) == (other.spec.name, _folder(other))


def _folder(choice: EngineChoice[EngineSpec]) -> Path | None:
    return choice.checkpoint.folder.resolve() if choice.checkpoint is not None else None
