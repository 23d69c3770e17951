"""Interface of an engine slot and its lease.

A child process (`slot.EngineSlot`), or one that several jobs have at once (`joint.JointSlot`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sidecar import errors
from sidecar.audio.audio_decoder import AudioInfo
from sidecar.audio.audio_source import AudioSource
from sidecar.interfaces.engine_interface import EngineSpec, Precision, TranscribeOptions
from sidecar.transcripts.transcript import Checkpoint, TranscriptionEvent

BatchedRecording = tuple[AudioSource, AudioInfo, TranscribeOptions]
"""One of several recordings that are heard in step."""


class WorkerDied(Exception):
    """The engine's process ended in the middle of a call; where this one never ``began``, of
    another, or of none. ``explained``: it is known which calls were at work then, or that the
    service ended the process on purpose. ``sole``: no call but this one was at work then."""

    def __init__(
        self, why: str, began: bool = True, explained: bool = True, sole: bool = False
    ) -> None:
        super().__init__(why)
        self.began, self.explained, self.sole = began, explained, sole


class EngineHandedOver(WorkerDied):
    """Who had the engine ends in good order, and somebody else is to go on: nothing that was heard
    there is to blame."""


class EngineLease(Protocol):
    """An engine that is loaded and yours, until the lease ends."""

    @property
    def precision(self) -> Precision:
        """At which it is loaded."""
        ...

    def transcribe(
        self,
        source: AudioSource,
        facts: AudioInfo,
        options: TranscribeOptions,
        max_s: float,
        settled: Sequence[Checkpoint] | None = None,
    ) -> AsyncGenerator[TranscriptionEvent, None]:
        """Events of one transcription; leaving early cancels it. ``settled``: where it goes on from
        (`engine.ResumableEngine`); None where nobody wants checkpoints.

        Raises:
            WorkerDied: the engine's process ended.
            errors.SidecarError: the engine said no.
        """
        ...

    def transcribe_together(
        self, requests: Sequence[BatchedRecording], max_s: float
    ) -> AsyncGenerator[tuple[int, TranscriptionEvent | errors.SidecarError], None]:
        """Events of several transcriptions with their numbers; leaving early cancels all.

        Raises:
            WorkerDied: the engine's process ended.
            errors.SidecarError: the engine said no to all of them.
        """
        ...

    def leave(self, number: int) -> None:
        """One of several does not want its transcription any more."""
        ...


class EngineSlot(Protocol):
    """Where an engine is, or comes when it is wanted. Times are of `time.monotonic`."""

    @property
    def spec(self) -> EngineSpec:
        """Which engine."""
        ...

    @property
    def precision(self) -> Precision:
        """Of the engine that is there, or that is on its way."""
        ...

    @property
    def loaded(self) -> bool:
        """Whether it is in memory."""
        ...

    @property
    def loaded_at(self) -> float:
        """When it came there last."""
        ...

    @property
    def load_s(self) -> float:
        """How many seconds that took."""
        ...

    @property
    def loading(self) -> float | None:
        """How much of an engine that is being loaded is there (0 to 1), None at other times."""
        ...

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for the turn of whoever has it."""
        ...

    @property
    def resolution(self) -> tuple[Precision, float]:
        """As long as this is the same, so is every answer of `resolve`."""
        ...

    def resolve(self, wanted: Precision, since: float) -> Precision:
        """The precision at which a job would run that asked for ``wanted`` at ``since``."""
        ...

    def lease(
        self, wanted: Precision, since: float, alone: bool
    ) -> AbstractAsyncContextManager[EngineLease]:
        """Wait for the engine, loaded as `resolve` says if need be, and have it. ``alone``: nobody
        else's work is in its process.

        Raises:
            errors.SidecarError: it does not load, or there is no room for it.
        """
        ...
