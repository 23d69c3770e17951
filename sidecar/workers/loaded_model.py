"""Model of an engine as a value: what a load loads, and what follows from it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic

from sidecar import errors
from sidecar.checkpoints.checkpoint import checkpoint_name
from sidecar.engines.engine_selection import EngineChoice, Spec
from sidecar.gpu_memory.engine_footprint import EngineFootprint
from sidecar.gpu_memory.memory_admission import MemoryAdmission
from sidecar.interfaces.engine_interface import EngineSpec, MemoryPlan, Precision

DEFAULT_MODEL_ID = "default"
"""Name of the models that are loaded at the start."""


@dataclass(frozen=True, slots=True)
class DurationKey:
    """Key of measured durations. ``model``: the name of the weights, '' if the engine has none of
    its own."""

    engine: str = ""
    model: str = ""
    precision: str = ""


@dataclass(frozen=True, eq=False)
class LoadedModel(Generic[Spec]):
    """Model that an engine has loaded, or loads next.

    ``name``: its name for clients. ``spec``: that of the ``choice`` on this device. ``admission``:
    plans of the memory of jobs; None if it needs none.
    """

    name: str
    choice: EngineChoice[Spec]
    spec: Spec
    precision: Precision
    admission: MemoryAdmission | None = None

    @property
    def title(self) -> str:
        """Return its name and precision for messages."""
        name = self.spec.name if self.name == DEFAULT_MODEL_ID else self.name
        return f"'{name}' in {self.precision}"

    @property
    def checkpoint(self) -> str | None:
        """Return the folder of its files; None if it needs none."""
        checkpoint = self.choice.checkpoint
        folder = checkpoint.folder if checkpoint is not None else self.choice.folder
        return str(folder) if folder is not None else None

    @property
    def footprint(self) -> EngineFootprint | None:
        """Return its memory, of a model that takes the same for any recording; None for others."""
        return self.choice.footprints.get(self.precision)

    @cached_property
    def duration_key(self) -> DurationKey:
        """Return the key by which its durations are measured."""
        checkpoint = self.choice.checkpoint
        weights = checkpoint.folder.name if checkpoint is not None else ""
        return DurationKey(self.spec.name, weights, self.precision)

    def resume_form(self: LoadedModel[EngineSpec], memory: MemoryPlan) -> str:
        """Return the form of the resume points of a recording with this plan; '' if the engine
        makes none. Points of another form are of another engine, checkpoint, precision or length of
        windows."""
        checkpoint, form = self.choice.checkpoint, self.spec.resumes
        if not form or checkpoint is None:
            return form
        name, revision = checkpoint_name(checkpoint.folder), checkpoint.revision or ""
        window = f" {memory.window_s:g} s" if self.spec.planned else ""
        return f"{form} {name}@{revision} {checkpoint.bytes} {self.precision}{window}"

    def at(self, precision: Precision) -> LoadedModel[Spec]:
        """Return the same model at another precision, or at the one that runs instead."""
        return replace(self, precision=self.spec.resolve_precision(precision))

    def checked_at(self, precision: Precision) -> LoadedModel[Spec]:
        """Return the same model at the precision that a load at ``precision`` would load.

        Raises:
            errors.PrecisionUnavailable: the engine has no such precision.
        """
        spec, model = self.spec, self.at(precision)
        if precision not in (Precision.AUTO, model.precision, *spec.stands_for):
            reason = spec.lacking.get(precision)
            raise errors.PrecisionUnavailable(
                f"The engine '{spec.name}' does not support the precision '{precision}'"
                f"{f': {reason}' if reason else ''}.",
                hint=f"It supports: {', '.join(spec.precisions)}.",
            )
        return model

    def loads_as(self, other: LoadedModel[Spec]) -> bool:
        """Return whether a load of the other would load the same."""
        return self.precision is other.precision and self.has_weights(other.choice)

    def has_weights(self, choice: EngineChoice[Spec]) -> bool:
        """Return whether another model has the same weights."""
        return _weights(self.choice) == _weights(choice)

    def is_like(self, other: LoadedModel[Spec]) -> bool:
        """Return whether another model has the same engine, languages and needs of memory, so that
        both may be loaded beside each other."""
        if _needs(self.choice) != _needs(other.choice):
            return False
        return self.admission is None or self.admission.plans_as(other.admission)

    def idle_bytes(self, memory: MemoryPlan) -> int:
        """Return the bytes of the idle engine, which has parts on the host as ``memory`` says; the
        size of its files if these are not planned."""
        if self.footprint is not None:
            return self.footprint.loaded_bytes
        if self.admission is not None:
            return self.admission.loaded_bytes(self.precision, memory)
        checkpoint = self.choice.checkpoint
        return checkpoint.bytes if checkpoint is not None else self.choice.folder_bytes


def _weights(choice: EngineChoice[Any]) -> tuple[Any, ...]:
    checkpoint = choice.checkpoint
    folder = checkpoint.folder.resolve() if checkpoint is not None else choice.folder
    return choice.spec.name, folder


def _needs(choice: EngineChoice[Any]) -> tuple[Any, ...]:
    memory = choice.footprints or (choice.spec.precisions, choice.session_bytes)
    return choice.spec.name, choice.spec.languages, choice.checkpoint is not None, memory
