"""Pipecat's transcription over the Realtime API: `pipecat_stt.py PORT RECORDING VAD`.

A `local` VAD is what it has by default: the pipeline's own ends turns. With `server` the service
does.
"""

from __future__ import annotations

import asyncio
import sys

from common import recording, tell
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat.workers.runner import WorkerRunner

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


async def main(port: str, path: str, vad: str) -> None:
    samples, rate = recording(path)
    more = {"turn_detection": {"type": "server_vad"}} if vad == "server" else {}
    url = f"ws://127.0.0.1:{port}/v1/realtime"
    stt = OpenAIRealtimeSTTService(api_key="sk-none", base_url=url, **more)
    worker = PipelineWorker(
        Pipeline([stt, Sink()]),
        params=PipelineParams(audio_in_sample_rate=rate),
        cancel_on_idle_timeout=False,
    )

    @worker.event_handler("on_pipeline_error")
    async def on_error(worker: PipelineWorker, frame: ErrorFrame) -> None:
        found["errors"].append(frame.error)

    async def speak() -> None:
        while not stt._session_ready:  # noqa: ASYNC110  (it tells nobody)
            await asyncio.sleep(0.05)
        if vad == "local":
            await worker.queue_frame(VADUserStartedSpeakingFrame())
        size = rate // 50 * 2
        for at in range(0, len(samples), size):
            frame = InputAudioRawFrame(samples[at : at + size], rate, 1)
            await worker.queue_frame(frame)
            await asyncio.sleep(0.02)
        if vad == "local":
            await worker.queue_frame(VADUserStoppedSpeakingFrame())
        await done.wait()
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), speak())
    tell(found)


asyncio.run(main(*sys.argv[1:]))
