"""TTS client of OpenAI's `/v1/audio/speech`.

The text is sent to that server. If the server streams, the audio is passed on as it arrives: the
API's format 'pcm' is raw samples at 24 kHz.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sidecar import openai_http
from sidecar.interfaces import engine_interface
from sidecar.plugins.conversation.errors import SpeechFailed

if TYPE_CHECKING:
    import httpx

SPEC = engine_interface.TtsSpec(
    name="speech",
    factory="sidecar.plugins.conversation.tts.openai_tts:OpenAiTts",
    title="A server with OpenAI's /v1/audio/speech",
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
CANCEL_POLL_S = 0.05
"""Interval of the check whether a synthesis is cancelled while the server sends nothing."""
MAX_SYNTHESIS_S = 300.0
"""Maximum audio for one text."""
FILE_MAGICS = (b"RIFF", b"ID3", b"OggS", b"fLaC")
"""Magic numbers of audio files, which some servers send whatever format was requested."""


class OpenAiTts:
    """TTS engine on one server with OpenAI's API; it owns the connections."""

    def __init__(self, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        self._read_timeout_s = read_timeout_s
        self._client: httpx.AsyncClient | None = None
        self._loop = asyncio.Runner()
        self._model = DEFAULT_MODEL

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Create the HTTP client; the first request is sent by `say`."""
        import httpx

        assert options.upstream is not None
        (key,) = options.upstream.keys
        self._model = options.upstream.model or DEFAULT_MODEL
        (url,), context = options.upstream.urls, openai_http.trusted(options.upstream.ca)
        self._client = httpx.AsyncClient(
            **openai_http.client_options(
                CONNECT_TIMEOUT_S, self._read_timeout_s, url=url, key=key, verify=context
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
            SpeechFailed: the server did not answer, or not with audio.
        """
        assert self._client is not None
        body = {
            "model": self._model,
            "input": text,
            "voice": options.voice or DEFAULT_VOICE,
            "speed": options.speed,
            "response_format": "pcm",
        }
        response = _request(self._client, body)
        try:
            with openai_http.http_errors_as(_connection_error, _connection_error):
                chunks = iter(lambda: self._loop.run(_next_chunk(response, cancelled)), b"")
                yield from _whole_samples(chunks, cancelled)
        finally:
            self._loop.run(response.aclose())


async def _request(client: httpx.AsyncClient, body: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """Send a request; yield the body of the response."""
    try:
        async with openai_http.accepted(client, "POST", SPEECH_PATH, json=body) as response:
            kind = response.headers.get("content-type", "")
            if "json" in kind or kind.startswith("text/"):
                text = await openai_http.read_small(response)
                raise openai_http.RequestRefused(response.status_code, response.headers, text)
            async for chunk in response.aiter_bytes():
                yield chunk
    except openai_http.RequestRefused as refused:
        message = openai_http.server_message(refused.body)
        end = f": {message}" if message else ", and no sound."
        raise SpeechFailed(f"The speech server answered {refused.status}{end}") from None


async def _next_chunk(
    response: AsyncGenerator[bytes, None], cancelled: engine_interface.CancelCheck
) -> bytes:
    """Return the next piece; empty at the end, or once ``cancelled()``: that ends the request."""
    reading = asyncio.ensure_future(anext(response, b""))
    while not reading.done():
        if cancelled():
            reading.cancel()
        await asyncio.wait({reading}, timeout=CANCEL_POLL_S)
    return b"" if reading.cancelled() else reading.result()


def _whole_samples(
    chunks: Iterator[bytes], cancelled: engine_interface.CancelCheck
) -> Iterator[engine_interface.SynthesizedAudio]:
    """Yield whole samples from byte blocks of any size; an incomplete last sample is dropped."""
    rest, made = b"", 0
    for chunk in chunks:
        if cancelled():
            return
        rest += chunk
        if not made and rest.startswith(FILE_MAGICS):
            raise SpeechFailed("The speech server answered with a file, not with raw samples.")
        whole = len(rest) - len(rest) % engine_interface.PCM16_BYTES
        if whole:
            yield engine_interface.SynthesizedAudio(rest[:whole], RATE)
        made += whole
        rest = rest[whole:]
        if made > MAX_SYNTHESIS_S * RATE * engine_interface.PCM16_BYTES:
            raise SpeechFailed("The audio of the speech server exceeded the limit.")
    if not made and not cancelled():
        raise SpeechFailed("The speech server answered without audio.")


def _connection_error(error: Exception) -> SpeechFailed:
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return SpeechFailed("The speech server sent nothing in time.")
    return SpeechFailed(f"The connection to the speech server failed: {type(error).__name__}.")
