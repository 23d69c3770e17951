"""LiteLLM's SDK: `litellm_files.py PORT RECORDING`."""

import sys

import litellm
from common import tell


def main(port: str, recording: str) -> None:
    base = f"http://127.0.0.1:{port}/v1"
    found: dict[str, object] = {}
    for model in ("openai/whisper-1", "openai/gpt-4o-transcribe"):
        with open(recording, "rb") as file:
            found[model] = litellm.transcription(model=model, file=file, api_base=base).text
    said = litellm.speech(model="openai/tts-1", input="Good morning.", voice="alloy", api_base=base)
    found["mp3"] = said.content[:2].hex()
    tell(found)


main(*sys.argv[1:])
