"""Pipecat's transcription over the Realtime API: `pipecat_stt.py PORT RECORDING VAD TURNS`.

A `local` VAD is what it has by default: the pipeline's own ends turns. With `server` the service
does. The recording is spoken until a turn is heard, and each that is is told as a line.
"""

import asyncio
import contextlib
import sys

from common import recording, tell
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat_pipeline import pipeline, play, run

found = {"interim": 0, "final": [], "errors": []}
done = asyncio.Event()


class Sink(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            found["final"].append(frame.text)
            done.set()
        found["interim"] += isinstance(frame, InterimTranscriptionFrame)
        await self.push_frame(frame, direction)


async def main(port: str, path: str, vad: str, turns: str) -> None:
    samples, rate = recording(path)
    more = {"turn_detection": {"type": "server_vad"}} if vad == "server" else {}
    url = f"ws://127.0.0.1:{port}/v1/realtime"
    stt = OpenAIRealtimeSTTService(api_key="sk-none", base_url=url, **more)
    worker = pipeline(rate, [stt, Sink()], found["errors"].append)

    async def turn() -> None:
        while not stt._session_ready:  # noqa: ASYNC110  (it tells nobody)
            await asyncio.sleep(0.05)
        if vad == "local":
            await worker.queue_frame(VADUserStartedSpeakingFrame())
        await play(worker, samples, rate)
        if vad == "local":
            await worker.queue_frame(VADUserStoppedSpeakingFrame())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), 5)

    async def speak() -> None:
        for _ in range(int(turns)):
            while not done.is_set():
                await turn()
            done.clear()
            tell(found)
        await worker.queue_frame(EndFrame())

    await run(worker, speak())


asyncio.run(main(*sys.argv[1:]))
