"""Client of the TTS engine, which retries once in a new process."""

from collections.abc import AsyncGenerator

from sidecar import errors
from sidecar.interfaces.engine_interface import (
    MAX_TTS_CHARACTERS,
    SynthesisOptions,
    SynthesizedAudio,
    TtsSpec,
    WordMark,
)
from sidecar.workers.engine import Engine
from sidecar.workers.worker_process import WorkerDied


class TtsClient:
    """Client of the one TTS engine. Texts are synthesized one after the other, in the order of the
    calls."""

    def __init__(self, engine: Engine[TtsSpec]) -> None:
        self._engine = engine
        self._voices: tuple[str, ...] = ()
        self._voices_load = 0
        """The load of the engine that has these voices."""

    @property
    def spec(self) -> TtsSpec:
        """Return the spec of the engine."""
        return self._engine.spec

    @property
    def known_voices(self) -> tuple[str, ...]:
        """Names of the voices of the loaded engine; none before the first `ready` of that load."""
        return self._voices if self._voices_load == self._engine.loader.loads else ()

    async def ready(self) -> tuple[str, ...]:
        """Load the engine if necessary; return the names of its voices.

        Raises:
            errors.ModelLoadFailed, errors.ShuttingDown: it cannot be loaded.
            errors.EngineFailed: its process ended.
        """
        try:
            async with self._engine.lease() as engine, engine.calling("voices") as call:
                async for answer, _ in call.answers():
                    self._voices = tuple(answer["voices"])
                    self._voices_load = self._engine.loader.loads
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
                    self._engine.lease() as engine,
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
