"""Dialect of vLLM serving VibeVoice-ASR. Pure.

The answer comes as server-sent events and is read while it comes. Where it breaks off, what is
whole stays and the next request goes on from there; where the model repeats itself it is cut off,
and goes on with a little chance, as our own engine's does (`transcripts.loop_guard`).
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.transcripts import loop_guard
from sidecar.transcripts.transcript import Segment
from sidecar.transcripts.vibevoice_output import VibeVoiceOutputParser, sort_by_time
from sidecar.upstream import upstream_dialect
from sidecar.upstream.openai_http import EventStream, loads
from sidecar.upstream.upstream_dialect import (
    FLAC,
    ChunkFailure,
    FailureStep,
    UpstreamAnswer,
    UpstreamLimits,
    UpstreamRequest,
)

MAX_SSE_LINE_BYTES = 4 << 20


def _wrong(line: bytes | None) -> ChunkFailure:
    return upstream_dialect.garbled_failure(
        "has a line without end" if line is None else "is no stream of events"
    )


class SseEventParser(EventStream):
    """Events as objects. A body that is one JSON object and no stream is one event."""

    def __init__(self) -> None:
        super().__init__(MAX_SSE_LINE_BYTES, _wrong)
        self._whole = False

    def objects(self, data: bytes) -> list[dict[str, Any]]:
        """The events that ``data`` ends.

        Raises:
            ChunkFailure: what comes is no such stream.
        """
        if self._whole or (self.rest + data).lstrip()[:1] == b"{":
            return self._one_object(data)
        return [_parse_object(value) for value in self.feed(data)]

    def _one_object(self, data: bytes) -> list[dict[str, Any]]:
        self._whole, self.rest = True, self.rest + data
        event = loads(self.rest)
        if event is None:
            if len(self.rest) > MAX_SSE_LINE_BYTES:
                raise upstream_dialect.garbled_failure("is no JSON")
            return []
        self.done, self.rest = True, b""
        return [event]


def _parse_object(value: bytes) -> dict[str, Any]:
    event = loads(value)
    if not isinstance(event, dict):
        what = "is no JSON" if event is None else "has an event that is no object"
        raise upstream_dialect.garbled_failure(what)
    return event


MIN_COMMON_CHARACTERS = 4
"""Characters that two pieces of an answer may have in common by chance."""


class VllmAnswerReader:
    """One answer while it comes, from the text that it goes on from."""

    def __init__(
        self, duration_s: float, text: str = "", kept: list[Segment] | None = None
    ) -> None:
        self.segments: list[Segment] = list(kept or ())
        self.parser = VibeVoiceOutputParser(duration_s)
        self.parser.feed(text)
        self.usage = 0
        self.length = False
        """True if it ended because there was no room for more."""
        self._guard = loop_guard.LoopGuard(duration_s, self.segments)
        self._text = text
        self._events = SseEventParser()
        self._ended = False

    @property
    def over(self) -> bool:
        """Return whether the server said that this was all."""
        return self._events.done or self._ended

    def take(self, data: bytes) -> tuple[list[Segment], loop_guard.RepetitionLoop | None]:
        """The segments that ``data`` closes, and the loop that it shows."""
        found: list[Segment] = []
        for event in () if self._ended else self._events.objects(data):
            try:
                piece = self._piece(event)
            except upstream_dialect.PARSE_ERRORS:
                raise upstream_dialect.garbled_failure("has an event that is none") from None
            if not piece:
                continue
            closed = self.parser.feed(piece)
            loop = self._guard.token(zlib.crc32(piece.encode()), self.parser.open_content)
            for segment in closed:
                if loop is None:
                    self.segments.append(segment)
                    found.append(segment)
                    loop = self._guard.segment(segment)
            if loop is not None:
                return found, loop
        return found, None

    def text_until(self, count: int) -> str:
        """The answer up to the brace that closes its ``count``-th segment."""
        return self._text[: self.parser.closed_at[count - 1]] if count else ""

    def end_here(self, count: int) -> None:
        """Take what there is up to the ``count``-th segment for the whole."""
        del self.segments[count:]
        self.parser = VibeVoiceOutputParser(None)
        self.parser.feed("[]")
        self._ended = True

    def _piece(self, event: Mapping[str, Any]) -> str:
        """New text of an event; some servers send all of it again each time."""
        if event.get("error"):
            raise upstream_dialect.failure_of_error(event["error"])
        self.usage = int((event.get("usage") or {}).get("prompt_tokens") or self.usage)
        piece = ""
        for choice in (event.get("choices") or [])[:1]:
            said = choice.get("delta") or choice.get("message") or {}
            piece = str(said.get("content") or "")
            self.length = self.length or choice.get("finish_reason") == "length"
        if len(self._text) >= MIN_COMMON_CHARACTERS and piece.startswith(self._text):
            piece = piece[len(self._text) :]
        self._text += piece
        return piece


CHAT_COMPLETIONS_PATH = "/v1/chat/completions"
VLLM_LIMITS = UpstreamLimits(3600.0, 200_000_000, 4 / 3)
"""An hour is what the model takes; the plugin's own front takes bodies of 200 MB. Newer versions of
vLLM take 25 MB or ten minutes: they say so with a 400, and get less from then on."""
VLLM_SAMPLE_RATE = 24_000
SYSTEM_PROMPT = (
    "You are a helpful assistant that transcribes audio input into text output in JSON format."
)
PROMPT_KEYS = "transcribe it with these keys: Start time, End time, Speaker ID, Content"
ANSWER_OPENING = "assistant\n["
AUDIO_PLACEHOLDER = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands in a request where the audio comes; JSON writes it as an escape."""
TOKENS_PER_S, TOKENS_BESIDE = 7.5, 128
"""Tokens of a prompt: one for 3200 samples at 24 kHz, and about 80 for its words."""
MAX_PROMPT_INFLATION = 1.5
"""A prompt that is longer than it can be by so much was taken in wrongly (seen with recordings of
half an hour): what comes of it is not to be believed."""
MAX_LOOP_RETRIES = 12
"""Requests for one piece beyond the first, because of loops; each takes the audio in anew."""


class VllmDialect(upstream_dialect.UpstreamDialect):
    """A dialect; ``goes_on``: whether it takes an answer that it is to go on from."""

    name = "vllm"
    health = "/health"
    rate = VLLM_SAMPLE_RATE
    limits = VLLM_LIMITS
    surely_timed = True

    def __init__(self, model: str) -> None:
        self.model = model
        self.alike = f"{self.name} {model}"
        self.goes_on = True

    def hearing(self, duration_s: float, options: TranscribeOptions) -> VllmChunkRequest:
        """A piece that is to be heard."""
        return VllmChunkRequest(self, duration_s, options)


class VllmChunkRequest:
    """Request of one chunk, in one response or in several that go on from each other."""

    def __init__(self, dialect: VllmDialect, duration_s: float, options: TranscribeOptions) -> None:
        self._dialect = dialect
        self._duration_s = duration_s
        self._options = options
        self._kept: list[Segment] = []
        self._prefix = ""
        self._sampling: loop_guard.SamplingOptions | None = None
        self._place, self._tried, self._helps, self._loops = -1, 0, 0, 0
        self._reading = VllmAnswerReader(duration_s)

    def call(self, sound: bytes) -> UpstreamRequest:
        """The chat around the audio, with what is whole of the answer before."""
        self._keep(len(self._reading.segments))
        if not self._dialect.goes_on:
            self._kept, self._prefix = [], ""
        self._reading = VllmAnswerReader(self._duration_s, self._prefix, self._kept)
        return UpstreamRequest(CHAT_COMPLETIONS_PATH, body=self._body(sound), streams=True)

    def _body(self, sound: bytes) -> bytes:
        said = self._options.prompt
        asked = (
            f"with extra info: {said}\n\nPlease {PROMPT_KEYS}" if said else f"please {PROMPT_KEYS}"
        )
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": SYSTEM_PROMPT},
            {
                "role": "user",
                "content": [
                    {
                        "type": "audio_url",
                        "audio_url": {"url": f"data:{FLAC};base64,{AUDIO_PLACEHOLDER}"},
                    },
                    {
                        "type": "text",
                        "text": f"This is a {self._duration_s:.2f} seconds audio, {asked}",
                    },
                ],
            },
        ]
        sampling = self._sampling or loop_guard.SamplingOptions(self._options.temperature, 0.95)
        greedy = not sampling.temperature
        body: dict[str, Any] = {
            "model": self._dialect.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": sampling.temperature,
            "top_p": 1.0 if greedy else sampling.top_p,
            "messages": messages,
        }
        if self._options.max_tokens is not None:  # else as many as there is room for
            body["max_tokens"] = self._options.max_tokens
        if self._prefix:
            begun = self._prefix.removeprefix("assistant").lstrip()  # the template says who speaks
            messages.append({"role": "assistant", "content": begun})
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        before, after = (
            json.dumps(body).encode().split(json.dumps(AUDIO_PLACEHOLDER).strip('"').encode(), 1)
        )
        return b"".join((before, base64.b64encode(sound), after))  # 100 MB are not copied thrice

    def feed(self, data: bytes) -> list[Segment]:
        """More of the stream; the segments that it closes."""
        found, loop = self._reading.take(data)
        if len(self._reading.segments) > self._place:
            self._sampling = None
        if loop is not None:
            self._help(loop)
        return found

    def finish(self) -> UpstreamAnswer:
        """The whole list; where it broke off, the next request goes on from its last segment."""
        reading = self._reading
        if not reading.over:
            raise upstream_dialect.connection_lost_failure("broke off its answer")
        segments = reading.segments + reading.parser.finish()
        if reading.usage > MAX_PROMPT_INFLATION * self._prompt_tokens() and not self._prefix:
            raise upstream_dialect.garbled_failure(
                "took in more than was sent", FailureStep.SMALLER
            )
        cut = reading.length and self._options.max_tokens is None
        if cut and self._duration_s > 60.0:
            raise upstream_dialect.garbled_failure("ran out of tokens", FailureStep.SMALLER)
        if not segments and not reading.parser.ended:
            raise upstream_dialect.garbled_failure("is no list of segments")
        return UpstreamAnswer(
            tuple(sort_by_time(segments)),
            diarized=True,
            notices=loop_guard.loop_notices(
                segments, self._loops, truncated=reading.parser.truncated
            ),
            ignored=("num_speakers",) if self._options.num_speakers is not None else (),
        )

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ChunkFailure:
        """As of any server; one that does not go on from an answer begins anew."""
        found = upstream_dialect.failure_of_status(status, headers, body)
        if self._prefix and status in (400, 422) and found.step is FailureStep.ELSEWHERE:
            self._dialect.goes_on = False
            return ChunkFailure(FailureStep.ANEW, found.error)
        return found

    def _prompt_tokens(self) -> float:
        heard = math.ceil(self._duration_s * TOKENS_PER_S)
        return heard + TOKENS_BESIDE + len(self._options.prompt)

    def _keep(self, count: int) -> None:
        """The answer up to its ``count``-th segment is what the next one goes on from."""
        self._prefix = self._reading.text_until(count)
        self._kept = self._reading.segments[:count]

    def _help(self, loop: loop_guard.RepetitionLoop) -> None:
        """The model is stuck: hang up, and ask again from before that; raises `ChunkFailure`."""
        self._loops += 1
        self._helps += 1
        segments = self._reading.segments
        count = len(segments) - loop.cut
        if count > self._place:
            self._tried = 0
        self._place = count
        sampling = loop_guard.retry_sampling(self._tried)
        if self._helps > MAX_LOOP_RETRIES:
            raise upstream_dialect.garbled_failure("repeats itself", FailureStep.SMALLER)
        stuck = upstream_dialect.garbled_failure("repeats itself", FailureStep.ANEW)
        content = self._reading.parser.open_content
        self._keep(count)
        self._sampling = sampling
        if sampling is not None:
            self._tried += 1
            self._reading = VllmAnswerReader(self._duration_s, self._prefix, self._kept)
            raise stuck
        skip = loop_guard.next_skipped_audio(
            self._kept[-1].end if self._kept else 0.0,
            self._duration_s,
            claimed_end_s=content.end if content else None,
        )
        if skip is None:
            self._reading.end_here(count)
            return
        self._prefix = f"{self._prefix},{skip.text}" if self._prefix else ANSWER_OPENING + skip.text
        self._kept = [*self._kept, skip.segment()]
        self._place, self._tried = len(self._kept), 0
        self._reading = VllmAnswerReader(self._duration_s, self._prefix, self._kept)
        raise stuck
