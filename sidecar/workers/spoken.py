"""What is said by the engine that speaks, for who has something to say."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from sidecar import errors
from sidecar.interfaces.voice import LONGEST_TEXT, Mark, SayOptions, Sound
from sidecar.workers.shared import SharedSlot
from sidecar.workers.slot_interface import WorkerDied


class Spoken:
    """The engine that speaks, one for all. Pieces of text are said in the order in which they were
    asked for, one after the other."""

    def __init__(self, slot: SharedSlot) -> None:
        self._slot = slot

    async def ready(self) -> tuple[str, ...]:
        """Load the engine, if it is not there; whose voices it has.

        Raises:
            errors.ModelLoadFailed, errors.WontFit, errors.ShuttingDown: it does not come.
            errors.EngineFailed: its process ended.
        """
        try:
            async with self._slot.share() as engine, engine.calling("voices") as call:
                async for answer, _ in call.answers():
                    return tuple(answer["voices"])
        except WorkerDied:
            raise _failed() from None
        return ()

    async def say(
        self, text: str, options: SayOptions | None = None
    ) -> AsyncGenerator[Sound, None]:
        """The sound of ``text`` (`LONGEST_TEXT` at most), loading the engine if need be. Leaving
        early ends it: at once for who leaves, between two pieces of sound for the engine. Where the
        process ends before there is any sound (of another's text, or before this began), it is
        tried once more in a new one.

        Raises:
            errors.VoiceUnknown: there is no such voice.
            errors.ModelLoadFailed, errors.WontFit, errors.ShuttingDown: the engine does not come.
            errors.EngineFailed: it broke, or its process ended.
        """
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"more than {LONGEST_TEXT} characters at once")
        values = (options or SayOptions()).to_wire()
        again, begun = True, False
        while True:
            try:
                async with (
                    self._slot.share() as engine,
                    engine.calling("say", text=text, options=values) as call,
                ):
                    async for answer, pcm in call.answers():
                        begun = True
                        marks = tuple(Mark(at, start) for at, start in answer["marks"])
                        yield Sound(pcm, answer["rate"], marks)
                return
            except WorkerDied:
                if begun or not again:
                    raise _failed() from None
                again = False


def _failed() -> errors.EngineFailed:
    return errors.EngineFailed("The process of the engine that speaks ended.")
