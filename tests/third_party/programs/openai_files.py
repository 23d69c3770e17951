"""OpenAI's package for Python, for files and speech: `openai_files.py PORT RECORDING`."""

import sys

from common import tell
from openai import OpenAI


def main(port: str, recording: str) -> None:
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1")

    def ask(**fields: object) -> object:
        with open(recording, "rb") as file:
            return client.audio.transcriptions.create(
                **{"file": file, "model": "whisper-1", **fields}
            )

    found: dict[str, object] = {"json": ask().text, "text": ask(response_format="text")}
    found["words"] = len(
        ask(response_format="verbose_json", timestamp_granularities=["word"]).words
    )
    diarized = ask(response_format="diarized_json", model="gpt-4o-transcribe-diarize")
    found["speakers"] = sorted({one.speaker for one in diarized.segments})
    found["streamed"] = "".join(
        event.delta for event in ask(stream=True) if event.type == "transcript.text.delta"
    )
    found["logprobs"] = ask(model="gpt-4o-transcribe", include=["logprobs"]).text
    found["models"] = [model.id for model in client.models.list()]
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Good morning."
    ) as answer:
        found["mp3"] = answer.read()[:2].hex()
    tell(found)


main(*sys.argv[1:])
