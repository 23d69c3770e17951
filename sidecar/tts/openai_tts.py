"""TTS by a server with OpenAI's `/v1/audio/speech`.

What is said goes there. The sound comes as it is made, where the server does so: raw samples at
24 kHz are what that API calls 'pcm'.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.interfaces.engine_interface import (
    PCM16_BYTES,
    Cancelled,
    LoadOptions,
    Precision,
    SayOptions,
    Sound,
    VoiceSpec,
)

if TYPE_CHECKING:
    import httpx

SPEC = VoiceSpec(
    name="speech",
    title="A server with OpenAI's /v1/audio/speech",
    precisions=(Precision.FP32,),
    languages=(),
    streams=True,
    lists_voices=False,
)

PATH = "/v1/audio/speech"
RATE = 24_000
"""OpenAI's API reference: 'pcm' is 24 kHz, 16-bit signed, little-endian, without a header."""
USUAL_MODEL = "tts-1"
USUAL_VOICE = "alloy"
CONNECT_S = 3.0
SILENCE_S = 20.0
"""So long nothing may come: a server may have to load its model first."""
MOST_S = 300.0
"""Of sound for one text."""
SAID_OF_ERRORS = 200
FILES = (b"RIFF", b"ID3", b"OggS", b"fLaC")
"""How files begin that some servers send whatever was asked for: as samples they are noise."""


class EndpointVoice:
    """Owns the connections to one server."""

    def __init__(self) -> None:
        self._client: httpx.Client | None = None
        self._model = USUAL_MODEL

    def load(self, options: LoadOptions) -> Iterator[float]:
        """Nothing but a client; the server is asked when there is something to say."""
        import httpx

        assert options.upstream is not None
        context = httpx.create_ssl_context()
        if options.upstream.ca is not None:
            context.load_verify_locations(options.upstream.ca)
        (key,) = options.upstream.keys
        self._model = options.upstream.model or USUAL_MODEL
        self._client = httpx.Client(
            base_url=options.upstream.urls[0],
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
            headers={"User-Agent": "vibevoice-asr", "Accept-Encoding": "identity"}
            | ({"Authorization": f"Bearer {key}"} if key else {}),
        )
        yield 1.0

    def voices(self) -> Sequence[str]:
        """The API does not say; it is asked by name."""
        return ()

    def say(self, text: str, options: SayOptions, cancelled: Cancelled) -> Iterator[Sound]:
        """As `VoiceEngine.say`; nobody says when a word begins.

        Raises:
            errors.SpeechFailed: the server did not answer, or not with sound.
        """
        import httpx

        assert self._client is not None
        body = {
            "model": self._model,
            "input": text,
            "voice": options.voice or USUAL_VOICE,
            "speed": options.speed,
            "response_format": "pcm",
        }
        try:
            with self._client.stream("POST", PATH, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refused(response.status_code, _some(response))
                kind = response.headers.get("content-type", "")
                if "json" in kind or kind.startswith("text/"):
                    raise _refused(response.status_code, _some(response))
                yield from _sounds(response.iter_bytes(), cancelled)
        except httpx.TimeoutException:
            raise errors.SpeechFailed("Nothing came from it.") from None
        except httpx.HTTPError as error:
            raise errors.SpeechFailed(f"No connection: {type(error).__name__}.") from None


def _sounds(pieces: Iterator[bytes], cancelled: Cancelled) -> Iterator[Sound]:
    """Whole samples out of any pieces; a sample that is cut at the end is dropped."""
    rest, made = b"", 0
    for piece in pieces:
        if cancelled():
            return
        rest += piece
        if not made and rest.startswith(FILES):
            raise errors.SpeechFailed("It answers with a file, and not with raw samples.")
        whole = len(rest) - len(rest) % PCM16_BYTES
        if whole:
            yield Sound(rest[:whole], RATE)
        made += whole
        rest = rest[whole:]
        if made > MOST_S * RATE * PCM16_BYTES:
            raise errors.SpeechFailed("Its sound has no end.")
    if not made:
        raise errors.SpeechFailed("It answers with no sound.")


def _some(response: httpx.Response) -> bytes:
    """The beginning of an answer."""
    return next(response.iter_bytes(1 << 14), b"")


def _refused(status: int, body: bytes) -> errors.SpeechFailed:
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    match said:
        case {"error": {"message": str(why)}} | {"detail": str(why)} | {"error": str(why)}:
            return errors.SpeechFailed(f"It answers with {status}: {why[:SAID_OF_ERRORS]}")
    return errors.SpeechFailed(f"It answers with {status}, and no sound.")
