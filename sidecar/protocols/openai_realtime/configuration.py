"""How a client wants to be heard: what that means here, and how it is told. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sidecar.audio import g711
from sidecar.interfaces.engine import AUTO
from sidecar.interfaces.live import Encoding, Endpointing, LiveOptions, Turns
from sidecar.protocols.aliases import DIARIZING

USUAL_RATE = 24_000
"""Samples a second of PCM; OpenAI takes no other."""
TALKS = "realtime"
"""The type of a session that answers (`dialogue`); those that are heard here do not."""


class Sound(StrEnum):
    """What the bytes are, by its media type."""

    PCM = "audio/pcm"
    MU_LAW = "audio/pcmu"
    A_LAW = "audio/pcma"


BETA_SOUND = {"pcm16": Sound.PCM, "g711_ulaw": Sound.MU_LAW, "g711_alaw": Sound.A_LAW}
"""As the beta calls it."""


class Detection(StrEnum):
    """Who hears that somebody has done speaking; None besides, for the client alone."""

    SERVER = "server_vad"
    SEMANTIC = "semantic_vad"


class Delay(StrEnum):
    """How long a model may wait before it writes."""

    UNSAID = ""
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"


_DELAY_S = {
    Delay.MINIMAL: 0.16,
    Delay.LOW: 0.32,
    Delay.MEDIUM: 0.48,
    Delay.HIGH: 0.96,
    Delay.XHIGH: 2.4,
}


@dataclass(frozen=True, slots=True)
class Pauses:
    """What counts as speech and as its end."""

    threshold: float = 0.5
    padding_ms: int = 300
    silence_ms: int = 500


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that a client can say of a session. ``model`` and ``said_language`` are as it wrote them,
    ``pauses`` None where it ends turns itself."""

    sound: Sound = Sound.PCM
    rate: int = USUAL_RATE
    model: str = ""
    said_language: str = ""
    language: str = AUTO
    prompt: str = ""
    delay: Delay = Delay.UNSAID
    pauses: Pauses | None = field(default_factory=Pauses)

    @property
    def diarizes(self) -> bool:
        """Whether who speaks is to be told."""
        return self.model == DIARIZING

    def options(self, before: LiveOptions) -> LiveOptions:
        """The options of the session, which has had others."""
        return dataclasses.replace(
            before,
            language=self.language,
            turns=Turns.CLIENT if self.pauses is None else Turns.SILENCE,
            endpointing=_endpointing(self.pauses or Pauses()),
            diarize=self.diarizes,
            prompt=self.prompt,
            delay_s=_DELAY_S.get(self.delay),
        )

    def samples(self, raw: bytes) -> tuple[bytes, Encoding, int]:
        """Bytes of a client as a session takes them."""
        match self.sound:
            case Sound.PCM:
                return raw, Encoding.PCM16, self.rate
            case Sound.MU_LAW:
                return g711.from_mu_law(raw), Encoding.PCM16, g711.RATE
            case Sound.A_LAW:
                return g711.from_a_law(raw), Encoding.PCM16, g711.RATE

    @property
    def format_view(self) -> dict[str, Any]:
        """How sound comes in, as clients of today read it."""
        sound: dict[str, Any] = {"type": self.sound.value}
        return {**sound, "rate": self.rate} if self.sound is Sound.PCM else sound

    @property
    def transcription_view(self) -> dict[str, Any] | None:
        """How it is heard, in the shape of both; None where a client said nothing of that."""
        said = {
            "model": self.model,
            "language": self.said_language,
            "prompt": self.prompt,
            "delay": self.delay.value,
        }
        return {name: value for name, value in said.items() if value} or None

    def view(self, number: str, expires_at: int) -> dict[str, Any]:
        """The session as clients of today read it; ``expires_at`` in seconds since 1970."""
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": number,
            "expires_at": expires_at,
            "audio": {
                "input": {
                    "format": self.format_view,
                    "transcription": self.transcription_view,
                    "noise_reduction": None,
                    "turn_detection": self._detection(),
                }
            },
            "include": None,
        }

    def beta_view(self, number: str, expires_at: int) -> dict[str, Any]:
        """The session as clients of the beta read it."""
        sounds = {sound: name for name, sound in BETA_SOUND.items()}
        return {
            "id": number,
            "object": "realtime.transcription_session",
            "expires_at": expires_at,
            "input_audio_format": sounds[self.sound],
            "input_audio_transcription": self.transcription_view,
            "input_audio_noise_reduction": None,
            "turn_detection": self._detection(),
            "modalities": ["text"],
            "include": None,
        }

    def _detection(self) -> dict[str, Any] | None:
        if self.pauses is None:
            return None
        return {
            "type": Detection.SERVER.value,
            "threshold": self.pauses.threshold,
            "prefix_padding_ms": self.pauses.padding_ms,
            "silence_duration_ms": self.pauses.silence_ms,
        }


def _endpointing(pauses: Pauses) -> Endpointing:
    usual = Endpointing()
    below = usual.threshold - usual.neg_threshold
    return dataclasses.replace(
        usual,
        threshold=pauses.threshold,
        neg_threshold=max(0.0, pauses.threshold - below),
        sure_threshold=max(usual.sure_threshold, pauses.threshold),
        pre_roll_s=pauses.padding_ms / 1000,
        pause_s=min(usual.pause_s, pauses.silence_ms / 1000),
        silence_s=pauses.silence_ms / 1000,
    )
