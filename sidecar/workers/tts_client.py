"""TTS client: speech of the engine in a slot, tried again once in a new process."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from sidecar import errors
from sidecar.interfaces import engine_interface
from sidecar.workers.engine_slot import EngineSlot
from sidecar.workers.worker_process import WorkerDied


class TtsClient:
    """The engine that speaks, one for all. Pieces of text are said in the order in which they were
    asked for, one after the other."""

    def __init__(self, slot: EngineSlot[engine_interface.TtsSpec]) -> None:
        self._slot = slot

    async def ready(self) -> tuple[str, ...]:
        """Load the engine, if it is not there; whose voices it has.

        Raises:
            errors.ModelLoadFailed, errors.WontFit, errors.ShuttingDown: it does not come.
            errors.EngineFailed: its process ended.
        """
        try:
            async with self._slot.lease() as engine, engine.calling("voices") as call:
                async for answer, _ in call.answers():
                    return tuple(answer["voices"])
        except WorkerDied:
            raise _engine_failed_error() from None
        return ()

    async def say(
        self, text: str, options: engine_interface.SynthesisOptions | None = None
    ) -> AsyncGenerator[engine_interface.SynthesizedAudio, None]:
        """The sound of ``text`` (`MAX_TTS_CHARACTERS` at most), loading the engine if need be.
        Leaving early ends it: at once for who leaves, between two pieces of sound for the engine.
        Where the process ends before there is any sound (of another's text, or before this began),
        it is tried once more in a new one.

        Raises:
            errors.VoiceUnknown: there is no such voice.
            errors.ModelLoadFailed, errors.WontFit, errors.ShuttingDown: the engine does not come.
            errors.EngineFailed: it broke, or its process ended.
        """
        if len(text) > engine_interface.MAX_TTS_CHARACTERS:
            raise ValueError(f"more than {engine_interface.MAX_TTS_CHARACTERS} characters at once")
        values = (options or engine_interface.SynthesisOptions()).to_wire()
        again, begun = True, False
        while True:
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
                if begun or not again:
                    raise _engine_failed_error() from None
                again = False


def _engine_failed_error() -> errors.EngineFailed:
    return errors.EngineFailed("The worker process of the TTS engine died.")
