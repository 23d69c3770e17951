"""TTS client of OpenAI's `/v1/audio/speech`.

The text is sent to that server. If the server streams, the audio is passed on as it arrives: the
API's format 'pcm' is raw samples at 24 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sidecar import errors
from sidecar.interfaces import engine_interface
from sidecar.upstream import openai_http

if TYPE_CHECKING:
    import httpx

SPEC = engine_interface.TtsSpec(
    name="speech",
    title="A server with OpenAI's /v1/audio/speech",
    streams=True,
    lists_voices=False,
)

SPEECH_PATH = "/v1/audio/speech"
RATE = 24_000
"""OpenAI's API reference: 'pcm' is 24 kHz, 16-bit signed, little-endian, without a header."""
DEFAULT_MODEL = "tts-1"
DEFAULT_VOICE = "alloy"
CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 20.0
"""Maximum pause in an answer: a server may have to load its model first."""
MAX_SYNTHESIS_S = 300.0
"""Maximum audio for one text."""
FILE_MAGICS = (b"RIFF", b"ID3", b"OggS", b"fLaC")
"""Magic numbers of audio files. Some servers send such a file for any requested format; as samples
it is noise."""


class OpenAiTts:
    """TTS engine on one server with OpenAI's API; it owns the connections."""

    def __init__(self) -> None:
        self._client: httpx.Client | None = None
        self._model = DEFAULT_MODEL

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Create the HTTP client; the first request is sent by `say`."""
        import httpx

        assert options.upstream is not None
        (key,) = options.upstream.keys
        self._model = options.upstream.model or DEFAULT_MODEL
        (url,), context = options.upstream.urls, openai_http.trusted(options.upstream.ca)
        self._client = httpx.Client(
            **openai_http.client_options(
                CONNECT_TIMEOUT_S, READ_TIMEOUT_S, url=url, key=key, verify=context
            )
        )
        yield 1.0

    def voices(self) -> Sequence[str]:
        """Return nothing: the API does not list voices, and a request names one."""
        return ()

    def say(
        self,
        text: str,
        options: engine_interface.SynthesisOptions,
        cancelled: engine_interface.CancelCheck,
    ) -> Iterator[engine_interface.SynthesizedAudio]:
        """Synthesize as `TtsEngine.say`, without word marks.

        Raises:
            errors.SpeechFailed: the server did not answer, or not with audio.
        """
        import httpx

        assert self._client is not None
        body = {
            "model": self._model,
            "input": text,
            "voice": options.voice or DEFAULT_VOICE,
            "speed": options.speed,
            "response_format": "pcm",
        }
        try:
            with self._client.stream("POST", SPEECH_PATH, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refused_error(response.status_code, _body_start(response))
                kind = response.headers.get("content-type", "")
                if "json" in kind or kind.startswith("text/"):
                    raise _refused_error(response.status_code, _body_start(response))
                yield from _whole_samples(response.iter_bytes(), cancelled)
        except httpx.TimeoutException:
            raise errors.SpeechFailed("The speech server sent nothing in time.") from None
        except httpx.HTTPError as error:
            raise errors.SpeechFailed(
                f"The connection to the speech server failed: {type(error).__name__}."
            ) from None


def _whole_samples(
    pieces: Iterator[bytes], cancelled: engine_interface.CancelCheck
) -> Iterator[engine_interface.SynthesizedAudio]:
    """Yield whole samples from byte blocks of any size; an incomplete last sample is dropped."""
    rest, made = b"", 0
    for piece in pieces:
        if cancelled():
            return
        rest += piece
        if not made and rest.startswith(FILE_MAGICS):
            raise errors.SpeechFailed(
                "The speech server answered with a file, not with raw samples."
            )
        whole = len(rest) - len(rest) % engine_interface.PCM16_BYTES
        if whole:
            yield engine_interface.SynthesizedAudio(rest[:whole], RATE)
        made += whole
        rest = rest[whole:]
        if made > MAX_SYNTHESIS_S * RATE * engine_interface.PCM16_BYTES:
            raise errors.SpeechFailed("The audio of the speech server exceeded the limit.")
    if not made:
        raise errors.SpeechFailed("The speech server answered without audio.")


def _body_start(response: httpx.Response) -> bytes:
    """Return the first bytes of a response."""
    return next(response.iter_bytes(1 << 14), b"")


def _refused_error(status: int, body: bytes) -> errors.SpeechFailed:
    said = openai_http.server_message(body)
    end = f": {said}" if said else ", and no sound."
    return errors.SpeechFailed(f"The speech server answered {status}{end}")
