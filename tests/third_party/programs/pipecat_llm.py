"""Pipecat's conversation over the Realtime API: `pipecat_llm.py PORT RECORDING`.

A typed turn, then a spoken one.
"""

import asyncio
import sys

from common import recording, tell
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    TTSAudioRawFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat_pipeline import pipeline, play, run

found = {"audio": 0, "answers": 0, "errors": []}
answered = asyncio.Event()


class Sink(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            found["audio"] += len(frame.audio)
        if isinstance(frame, LLMFullResponseEndFrame):
            found["answers"] += 1
            answered.set()
        await self.push_frame(frame, direction)


async def main(port: str, path: str) -> None:
    samples, rate = recording(path)
    url = f"ws://127.0.0.1:{port}/v1/realtime"
    llm = OpenAIRealtimeLLMService(api_key="sk-none", base_url=url)
    context = LLMContext([{"role": "user", "content": "And plain"}])
    pair = LLMContextAggregatorPair(context)

    def failed(error: str) -> None:
        found["errors"].append(error)
        answered.set()

    worker = pipeline(rate, [pair.user(), llm, Sink(), pair.assistant()], failed)

    async def talk() -> None:
        await worker.queue_frame(LLMRunFrame())
        await answered.wait()
        answered.clear()
        await play(worker, samples, rate)
        await answered.wait()
        await worker.queue_frame(EndFrame())

    await run(worker, talk())
    found["history"] = [[one["role"], one["content"]] for one in context.messages]
    tell(found)


asyncio.run(main(*sys.argv[1:]))
