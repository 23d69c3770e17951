"""OpenAI's package for Python: `openai_realtime.py PORT RECORDING`."""

import asyncio
import base64
import sys

from common import recording, tell
from openai import AsyncOpenAI


async def conversation(client: AsyncOpenAI) -> str:
    said = ""
    async with client.realtime.connect(model="gpt-realtime") as connection:
        await connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
        part = {"type": "input_text", "text": "And plain"}
        item = {"type": "message", "role": "user", "content": [part]}
        await connection.conversation.item.create(item=item)
        await connection.response.create()
        async for event in connection:
            assert event.type != "error", event
            if event.type == "response.output_audio_transcript.delta":
                said += event.delta
            if event.type == "response.done":
                assert event.response.status == "completed", event
                return said.strip()
    raise AssertionError("the connection has ended")


async def transcription(client: AsyncOpenAI, path: str) -> str:
    samples, rate = recording(path)
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        form = {"type": "audio/pcm", "rate": rate}
        heard = {"format": form, "transcription": {"model": "gpt-4o-transcribe"}}
        await connection.session.update(
            session={"type": "transcription", "audio": {"input": heard}}
        )
        audio = base64.b64encode(samples + bytes(2 * rate)).decode()
        await connection.input_audio_buffer.append(audio=audio)
        async for event in connection:
            assert event.type != "error", event
            if event.type == "conversation.item.input_audio_transcription.completed":
                return event.transcript
    raise AssertionError("the connection has ended")


async def main(port: str, path: str) -> None:
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1") as client:
        tell({"said": await conversation(client), "heard": await transcription(client, path)})


asyncio.run(main(*sys.argv[1:]))
