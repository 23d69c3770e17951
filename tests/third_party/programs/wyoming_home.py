"""The wyoming package, as Home Assistant uses it: `wyoming_home.py PORT RECORDING`."""

import asyncio
import sys

from common import recording, tell
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info


async def main(port: str, path: str) -> None:
    samples, rate = recording(path)
    async with AsyncTcpClient("127.0.0.1", int(port)) as client:
        await client.write_event(Describe().event())
        event = await client.read_event()
        models = [one.name for program in Info.from_event(event).asr for one in program.models]
        form = {"rate": rate, "width": 2, "channels": 1}
        await client.write_event(Transcribe(language="en").event())
        await client.write_event(AudioStart(**form).event())
        for at in range(0, len(samples), 2048):
            await client.write_event(AudioChunk(audio=samples[at : at + 2048], **form).event())
        await client.write_event(AudioStop().event())
        while not Transcript.is_type((event := await client.read_event()).type):
            pass
        tell({"models": models, "text": Transcript.from_event(event).text})


asyncio.run(main(*sys.argv[1:]))
