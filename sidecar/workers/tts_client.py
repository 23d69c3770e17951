"""TTS client: synthesis by the engine in a slot, with one retry in a new process."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from sidecar import errors
from sidecar.interfaces import engine_interface
from sidecar.workers.engine_slot import EngineSlot
from sidecar.workers.worker_process import WorkerDied


class TtsClient:
    """Client of the one TTS engine. Texts are synthesized one after the other, in the order of the
    calls."""

    def __init__(self, slot: EngineSlot[engine_interface.TtsSpec]) -> None:
        self._slot = slot
        self._voices: tuple[str, ...] = ()
        self._voices_load = 0
        """The load of the engine that has these voices."""

    @property
    def known_voices(self) -> tuple[str, ...]:
        """Names of the voices of the loaded engine; none before the first `ready` of that load."""
        return self._voices if self._voices_load == self._slot.loads else ()

    async def ready(self) -> tuple[str, ...]:
        """Load the engine if necessary; return the names of its voices.

        Raises:
            errors.ModelLoadFailed, errors.WontFit, errors.ShuttingDown: it cannot be loaded.
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
        self, text: str, options: engine_interface.SynthesisOptions | None = None
    ) -> AsyncGenerator[engine_interface.SynthesizedAudio, None]:
        """Yield the audio of ``text`` (at most `MAX_TTS_CHARACTERS`), loading the engine if
        necessary. Leaving early returns at once; the engine stops between two frames of audio. If
        the process ends before the first audio (because of another text, or before this call),
        retry once in a new process.

        Raises:
            errors.VoiceUnknown: there is no such voice.
            errors.ModelLoadFailed, errors.WontFit, errors.ShuttingDown: the engine cannot be
                loaded.
            errors.EngineFailed: it failed, or its process ended.
        """
        if len(text) > engine_interface.MAX_TTS_CHARACTERS:
            raise ValueError(f"more than {engine_interface.MAX_TTS_CHARACTERS} characters at once")
        values = (options or engine_interface.SynthesisOptions()).to_wire()
        begun = False
        for last in (False, True):
            try:
                async with (
                    self._slot.lease() as engine,
                    engine.calling("say", text=text, options=values) as call,
                ):
                    async for answer, pcm in call.answers():
                        begun = True
                        marks = tuple(
                            engine_interface.WordMark(at, start) for at, start in answer["marks"]
                        )
                        yield engine_interface.SynthesizedAudio(pcm, answer["rate"], marks)
                return
            except WorkerDied:
                if begun or last:
                    raise _engine_failed_error() from None


def _engine_failed_error() -> errors.EngineFailed:
    return errors.EngineFailed("The worker process of the TTS engine died.")
