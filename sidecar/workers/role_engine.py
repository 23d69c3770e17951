"""Engine of a role of this service, by its settings and on its devices."""

import logging
from dataclasses import asdict, replace
from enum import StrEnum

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import EngineChoice, Spec
from sidecar.interfaces.engine_interface import EngineSpec, LoadOptions, Precision
from sidecar.observability.logs import default_data_folder
from sidecar.workers.crash_notes import CrashNotes
from sidecar.workers.engine import Engine, Wanted
from sidecar.workers.engine_lease import CONCURRENT, Sharing
from sidecar.workers.engine_memory import EngineMemory, MemoryDevices
from sidecar.workers.loaded_model import LoadedModel
from sidecar.workers.worker_process import WorkerProcess

log = logging.getLogger(__name__)


class EngineRole(StrEnum):
    """Role of an engine."""

    FILES = "files"
    """Recordings."""
    LIVE = "live"
    """Live sessions, many at once."""
    VOICE = "voice"
    """Speech synthesis."""


class RoleEngine(Engine[Spec]):
    """Engine with the memory of its models, the choice of others, and notes of its crashes.

    ``name``: its name in ledgers and crash notes. ``choice``: its model at the start. ``live``: it
    serves live sessions. ``speaks``: it is a TTS engine.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        choice: EngineChoice[Spec],
        devices: MemoryDevices,
        sharing: Sharing,
        *,
        live: bool = False,
        speaks: bool = False,
    ) -> None:
        self.name = name
        self.memory = EngineMemory(name, settings, choice, devices, live=live)
        self.concurrency = self.memory.concurrency
        """Recordings transcribed at once."""
        servers = choice.upstream and len(choice.upstream.urls)
        self.long_concurrency = servers or max(1, self.concurrency - 1)
        """How many of them may be long, so that short ones need not wait for them."""
        self.crashes = 0
        """Number of deaths and kills of its process."""
        self._crash_notes = CrashNotes(default_data_folder(settings.data_dir))
        self._devices = devices
        self.first: LoadedModel[Spec] = self.memory.first
        wanted = settings.precision
        if wanted is Precision.INT4 and self.first.admission and self.first.precision is not wanted:
            log.warning("%s", self.first.spec.replacement(wanted))
        super().__init__(
            self.first,
            settings.keep_alive,
            self.memory,
            self._note_crash,
            CONCURRENT if self.concurrency > 1 else sharing,
            LoadOptions(device=settings.device, live=live, speaks=speaks),
        )

    @property
    def on_gpu(self) -> bool:
        """Return whether the model uses the GPU; one without a checkpoint never does."""
        return self.memory.on_gpu(self.model.choice)

    @property
    def device(self) -> str:
        """Return the device that the model uses: ``cuda`` or ``cpu``."""
        return "cuda" if self.on_gpu else "cpu"

    def other(
        self, name: str, choice: EngineChoice[Spec], precision: Precision = Precision.AUTO
    ) -> Wanted[Spec]:
        """Return what a `change` to another model wants: one with the same weights keeps its
        precision if AUTO is requested. Else AUTO is the precision of the settings. It raises
        `errors.ModelUnsuited` if that cannot replace the one in use while the service runs.
        """

        def wanted(model: LoadedModel[Spec]) -> LoadedModel[Spec]:
            if model.has_weights(choice):
                same = replace(model, name=name)
                return same if precision is Precision.AUTO else same.checked_at(precision)
            other = self.memory.model(name, choice, precision)
            if not other.is_like(model):
                self._check_replacement(model.spec, other.spec)
                return other
            # what it may do depends on the memory that was free as it was chosen: not with the
            # old one
            spec = model.choice.spec
            return replace(model, name=name, choice=replace(choice, spec=spec)).at(other.precision)

        return wanted

    def check_like(self, choice: EngineChoice[Spec], precision: Precision) -> None:
        """Refuse a model that differs from the one in use in its engine, its languages, or what
        determines its memory, or lacks the precision. What is free now does not count.

        Raises:
            errors.ModelUnsuited: it differs.
            errors.PrecisionUnavailable: it has no such precision.
        """
        model = self.model
        if model.choice.checkpoint is None or not self.memory.model("", choice).is_like(model):
            raise errors.ModelUnsuited()
        model.checked_at(precision)

    def _check_replacement(self, old: Spec, new: Spec) -> None:
        assert isinstance(old, EngineSpec)
        assert isinstance(new, EngineSpec)
        if new.remote or old.remote or new.together < self.concurrency:
            raise errors.ModelUnsuited(
                f"The engine '{new.name}' cannot replace '{old.name}' while the service runs.",
                hint="Restart the service with it.",
            )

    def _note_crash(self, worker: WorkerProcess) -> None:
        """Write a crash note for a bug report; it contains no audio and no text."""
        self.crashes += 1
        gpu = self._devices.gpu.seen
        about = {
            "engine": self.spec.name,
            "role": self.name,
            "precision": self.precision.value,
            "memory_plan": asdict(self.memory_plan),
            "gpu": gpu and asdict(gpu),
            "exit_code": worker.exit_code,
            "last_lines": worker.last_lines,
        }
        self._crash_notes.write(worker.name, about)
