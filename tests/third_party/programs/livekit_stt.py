"""LiveKit's transcription over the Realtime API: `livekit_stt.py PORT RECORDING MODEL`.

The recording is spoken again and again, and each turn is told as a line, until somebody ends it.
"""

import asyncio
import sys

from common import recording, tell
from livekit import rtc
from livekit.agents import stt as speech_to_text
from livekit.agents.utils import http_context
from livekit.plugins import openai


async def main(port: str, path: str, model: str) -> None:
    samples, rate = recording(path)
    url = f"http://127.0.0.1:{port}/v1"
    more = {} if model.startswith("gpt-realtime") else {"use_realtime": True}
    stt = openai.STT(base_url=url, api_key="sk-none", model=model, **more)
    errors: list[str] = []
    stt.on("error", lambda event: errors.append(f"{event.recoverable}: {event.error}"))
    stream = stt.stream()

    async def speak() -> None:
        size = rate // 20 * 2
        while True:
            for at in range(0, len(samples), size):
                piece = samples[at : at + size]
                stream.push_frame(rtc.AudioFrame(piece, rate, 1, len(piece) // 2))
                await asyncio.sleep(0.05)

    async def hear() -> None:
        async for event in stream:
            if event.type is speech_to_text.SpeechEventType.FINAL_TRANSCRIPT:
                tell({"said": event.alternatives[0].text, "errors": errors})

    await asyncio.gather(speak(), hear())


async def with_session(*arguments: str) -> None:
    """As LiveKit's worker has it: one HTTP session for its plugins."""
    async with http_context.open():
        await main(*arguments)


asyncio.run(with_session(*sys.argv[1:]))
