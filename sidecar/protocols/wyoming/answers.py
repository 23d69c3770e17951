"""What clients are told: who is here, and a transcript while it comes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sidecar import __version__
from sidecar.api.http.unsaid import Saying, Unsaid
from sidecar.interfaces.engine import AUTO, EngineSpec
from sidecar.interfaces.languages import NAMES
from sidecar.jobs.record import JobRecord
from sidecar.protocols.wyoming.frames import frame
from sidecar.transcripts.transcript import Transcript

US = {"name": "vibevoice-asr", "url": ""}
MAKERS = {
    "moonshine": {"name": "Moonshine AI", "url": "https://github.com/moonshine-ai/moonshine"},
    "vibevoice": {"name": "Microsoft", "url": "https://github.com/microsoft/VibeVoice"},
    "whisper": {"name": "OpenAI", "url": "https://github.com/openai/whisper"},
}
"""Whose models engines run; of others it is not known here."""


def info(spec: EngineSpec) -> dict[str, Any]:
    """Who is here: one program with the model that is loaded. Of an engine that takes any language
    all are named that have one, since clients choose among those that are named."""
    model = _artifact(spec.name, spec.title, MAKERS.get(spec.name, US))
    program = _artifact("vibevoice-asr", "Speech to text", US) | {
        "models": [model | {"languages": list(spec.languages or NAMES), "version": None}],
        "supports_transcript_streaming": True,
    }
    others = ("tts", "handle", "intent", "wake", "mic", "snd")
    return {"asr": [program], **{name: [] for name in others}}


class Told:
    """The events of one job: `transcript-start`, a `transcript-chunk` for each segment, and at the
    end all of it in a `transcript`, which counts."""

    def __init__(self) -> None:
        self._unsaid, self._saying = Unsaid(), Saying()
        self._begun = False

    def more(self, record: JobRecord) -> Iterator[bytes]:
        """Of what is new in a job."""
        for _, segment in self._unsaid.more(record):
            if segment.is_speech and (text := self._saying.add(segment.text)):
                yield from self._begin()
                yield frame("transcript-chunk", {"text": text})

    def end(self, transcript: Transcript) -> Iterator[bytes]:
        """The whole of it."""
        yield from self._begin()
        language = transcript.language
        known = {} if language in (None, AUTO) else {"language": language}
        yield frame("transcript", {"text": transcript.text, **known})
        yield frame("transcript-stop")

    def _begin(self) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            yield frame("transcript-start")


def _artifact(name: str, description: str, maker: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "version": __version__,
        "installed": True,
        "attribution": maker,
    }
