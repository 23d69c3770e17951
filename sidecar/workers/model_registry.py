"""Registry of the models that clients request: by an installed name, or by the speech server's API.

An engine has one model at a time (`engine.Engine`); this names models, finds them on the disk, and
says which ones are in use.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sidecar import errors
from sidecar.concurrency import ThreadLimiter
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import (
    EngineChoice,
    check_language,
    choose_engine,
    choose_installed,
)
from sidecar.interfaces.engine_interface import EngineSpec, Precision
from sidecar.workers.engine import Wanted
from sidecar.workers.loaded_model import DEFAULT_MODEL_ID
from sidecar.workers.role_engine import EngineRole, RoleEngine

log = logging.getLogger(__name__)
MAX_DISK_CALLS = 16
"""Requests whose models are looked for at once; a disk that hangs keeps a thread for each."""


@dataclass(frozen=True, slots=True)
class ModelLoadRequest:
    """Request for a model: from a folder, or by its name among those of its engine. If neither is
    set, it is the model of the start, at another precision."""

    model_id: str
    path: Path | None = None
    size: str = ""
    precision: Precision = Precision.AUTO


class ModelRegistry:
    """Models that clients request of the ``engines``, by role."""

    def __init__(self, settings: Settings, engines: Mapping[str, RoleEngine[EngineSpec]]) -> None:
        self._settings, self._engines = settings, engines
        self._requests: dict[
            str, tuple[asyncio.Task[None], Sequence[EngineChoice[EngineSpec]]]
        ] = {}
        """By the name of the model: what carries out a request, and the models that it loads."""
        self._lock = asyncio.Lock()
        self._disk = ThreadLimiter("models", MAX_DISK_CALLS)
        self.failed: dict[str, str] = {}
        """Error code of the last model that could not be loaded, by its name."""

    @property
    def names(self) -> list[str]:
        """Return the loaded models, each once."""
        return list(dict.fromkeys(one.model.name for one in self._engines.values()))

    def in_use(self) -> dict[str, EngineChoice[EngineSpec]]:
        """Return the choice of each engine of this service, by role; a front has none for files."""
        return {
            role: one.model.choice
            for role, one in self._engines.items()
            if not (self._settings.is_front and role == EngineRole.FILES)
        }

    def folders(self) -> list[Path]:
        """Return the folders of the models that are loaded or being loaded, and of those of the
        start; an adapter's model has a folder of its own."""
        models = [(engine.first, *engine.models) for engine in self._engines.values()]
        choices = [model.choice for each in models for model in each]
        choices += [one for _, requested in self._requests.values() for one in requested]
        found = [one.checkpoint for one in choices if one.checkpoint is not None]
        weights = [file.parent for one in found for file in one.weight_files]
        return [*(one.folder for one in found), *weights]

    @property
    def loading_names(self) -> list[str]:
        """Return the models that are being loaded, or wait for it."""
        return list(self._requests)

    async def use(self, name: str, precision: Precision = Precision.AUTO) -> Precision:
        """Load an installed model for recordings, by its name for `pull`, after the running job;
        return its precision. Its engine may be another than that in use; what another engine
        transcribes live stays as it is. If the caller is cancelled, the load goes on.

        Raises:
            errors.ModelNotFound: it is not installed, or no model has this name.
            errors.EngineUnavailable: its engine cannot run here, or does not support the
                language of the settings.
            errors.SidecarError: as `RoleEngine.other` and `Engine.change`; the old model goes on
                serving.
        """
        choice = await self._disk.run(choose_installed, name, self._settings)
        check_language(choice.spec, self._settings)
        log.info("model %s is loaded after the running job, as requested", name)
        engine = self._engines[EngineRole.FILES]
        model = await engine.change(engine.other(name, choice, precision))
        log.info("model %s transcribes recordings, as requested", name)
        return model.precision

    async def load(self, request: ModelLoadRequest) -> None:
        """Start to load a model; return without waiting for it.

        Raises:
            errors.ModelLoaded: a model of this name is loaded or being loaded.
            errors.ModelPathForbidden: its folder is outside the allowed roots.
            errors.ModelNotFound, errors.ModelUnsuited: no engine here can use it.
            errors.PrecisionUnavailable: it cannot be loaded at this precision.
        """
        self._check_new(request.model_id)
        request = replace(request, path=self._checked(request.path))
        suited = await self._disk.run(self._suited, request)
        self._check_new(request.model_id)
        changes = {
            role: self._engines[role].other(request.model_id, choice, request.precision)
            for role, choice in suited.items()
        }
        self._begin(request.model_id, changes, [*suited.values()])

    def unload(self, model_id: str) -> asyncio.Task[None]:
        """Start to go back to the model of the start, after the running job. The returned task ends
        when it is done; cancelling a wait for it has no effect.

        Raises:
            errors.ModelNotFound: no model has this name, or it is the one of the start.
        """
        changes = {
            role: one.other(DEFAULT_MODEL_ID, one.first.choice, one.first.precision)
            for role, one in self._engines.items()
            if one.model.name == model_id
        }
        if not changes or model_id == DEFAULT_MODEL_ID:
            raise errors.ModelNotFound(
                f"There is no model '{model_id}' that can be unloaded.",
                hint=(
                    "GET /admin/list_models lists the loaded models; the last one cannot be "
                    "unloaded."
                ),
            )
        return self._begin(DEFAULT_MODEL_ID, changes)

    async def close(self) -> None:
        """Cancel the requests that are being carried out."""
        tasks = [task for task, _ in self._requests.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _check_new(self, model_id: str) -> None:
        if model_id in self.names or model_id in self._requests:
            raise errors.ModelLoaded()

    def _begin(
        self,
        model_id: str,
        changes: Mapping[str, Wanted[EngineSpec]],
        choices: Sequence[EngineChoice[EngineSpec]] = (),
    ) -> asyncio.Task[None]:
        """Start the changes of engines, by role, one after the other."""
        work = self._change(model_id, changes)
        task = asyncio.get_running_loop().create_task(work, name="model")
        self._requests[model_id] = task, choices
        task.add_done_callback(lambda task: self._ended(model_id, task))
        return task

    def _ended(self, model_id: str, task: asyncio.Task[None]) -> None:
        if model_id in self._requests and self._requests[model_id][0] is task:
            del self._requests[model_id]
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("internal error while a model was loaded or unloaded", exc_info=fault)

    async def _change(self, model_id: str, changes: Mapping[str, Wanted[EngineSpec]]) -> None:
        self.failed.pop(model_id, None)
        async with self._lock:
            for role, wanted in changes.items():
                try:
                    await self._engines[role].change(wanted)
                except errors.SidecarError as error:
                    log.error("the model for %s could not be loaded: %s", role, error.detail)
                    self.failed = {model_id: error.code}

    def _suited(self, request: ModelLoadRequest) -> dict[str, EngineChoice[EngineSpec]]:
        """Return the engines that can use the model, with their choice for it; reads the disk."""
        suited, wrong = {}, list[errors.SidecarError]()
        for role, engine in self._engines.items():
            try:
                choice = self._chosen(role, request)
                engine.check_like(choice, request.precision)
                suited[role] = choice
            except errors.SidecarError as error:
                wrong.append(error)
        if not suited:
            raise wrong[0]
        return suited

    def _chosen(self, role: str, request: ModelLoadRequest) -> EngineChoice[EngineSpec]:
        first = self._engines[role].first.choice
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
