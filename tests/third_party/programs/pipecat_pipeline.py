"""What the programs for Pipecat share: a pipeline that hears a recording."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from pipecat.frames.frames import ErrorFrame, InputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.workers.runner import WorkerRunner


def pipeline(rate: int, processors: list[Any], failed: Callable[[str], None]) -> PipelineWorker:
    """Return one that tells ``failed`` of its errors."""
    worker = PipelineWorker(
        Pipeline(processors),
        params=PipelineParams(audio_in_sample_rate=rate),
        cancel_on_idle_timeout=False,
    )

    @worker.event_handler("on_pipeline_error")
    async def on_error(worker: PipelineWorker, frame: ErrorFrame) -> None:
        failed(frame.error)

    return worker


async def play(worker: PipelineWorker, samples: bytes, rate: int) -> None:
    """Have it hear a recording, as fast as time goes."""
    size = rate // 50 * 2
    for at in range(0, len(samples), size):
        await worker.queue_frame(InputAudioRawFrame(samples[at : at + size], rate, 1))
        await asyncio.sleep(0.02)


async def run(worker: PipelineWorker, talk: Coroutine[Any, Any, None]) -> None:
    """Run it, and meanwhile what is said to it."""
    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), talk)
