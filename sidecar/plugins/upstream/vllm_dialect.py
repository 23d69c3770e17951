"""Dialect of vLLM serving VibeVoice-ASR. Pure.

The answer is a stream of server-sent events. If it breaks off, its complete segments stay and the
next request goes on from them. If the model loops, the request is cancelled and goes on with a
higher temperature, as in the local engine (`transcripts.loop_guard`).
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Sequence
from typing import Any

from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.openai_http import DONE, EVENT_STREAM, loads
from sidecar.plugins.upstream import upstream_dialect
from sidecar.plugins.upstream.errors import UpstreamFailed
from sidecar.plugins.upstream.upstream_dialect import (
    FLAC,
    SPEAKERS,
    AskAgain,
    ChunkRequest,
    ChunkTooLarge,
    UpstreamAnswer,
    UpstreamDialect,
    UpstreamRequest,
)
from sidecar.transcripts import loop_guard
from sidecar.transcripts.transcript import Segment, unreported_segments
from sidecar.transcripts.vibevoice_output import sort_by_time

MIN_COMMON_CHARACTERS = 4
"""Characters that an event and the text before it may share by chance."""

CHAT_COMPLETIONS_PATH = "/v1/chat/completions"
LONGEST_S = 3000.0
"""An hour is what the model takes, but the plugin's own front takes bodies of 200 MB, in base64.
Newer versions of vLLM take 25 MB or ten minutes: they answer 400, and get less from then on."""
SYSTEM_PROMPT = (
    "You are a helpful assistant that transcribes audio input into text output in JSON format."
)
PROMPT_KEYS = "transcribe it with these keys: Start time, End time, Speaker ID, Content"
AUDIO_PLACEHOLDER = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Placeholder of the audio in a request; JSON writes it as an escape."""
TOKENS_PER_S, TOKENS_BESIDE = 7.5, 128
"""Tokens of a prompt: one for 3200 samples at 24 kHz, and about 80 for its words."""
MAX_PROMPT_INFLATION = 1.5
"""A prompt that is longer than its maximum by this factor was processed wrongly (seen with
recordings of half an hour): its answer is rejected."""
MAX_LOOP_RETRIES = 12
"""Maximum retries of one chunk because of loops; each processes the audio again."""


class VllmAnswerReader(loop_guard.GuardedAnswer):
    """Reader of one streamed answer, which may continue the text of an earlier one."""

    def __init__(self, duration_s: float, text: str = "", segments: Sequence[Segment] = ()) -> None:
        super().__init__(duration_s, text, list(segments))
        self.usage = 0
        self.length = False
        """True if the model reached its token limit."""
        self.over = False
        """True once the server has sent the end of the answer, or `end_here` ended it."""

    def read(self, data: bytes) -> tuple[list[Segment], loop_guard.RepetitionLoop | None]:
        """Return the segments that an event completes, and the loop that it reveals."""
        self.over = self.over or data.strip() == DONE
        if self.over:
            return [], None
        try:
            text = self._new_text(loads(data))
        except upstream_dialect.PARSE_ERRORS:
            raise upstream_dialect.garbled("has an event that is none") from None
        digest = zlib.crc32(text.encode("utf-8", "surrogatepass"))  # half a pair, in JSON's escape
        return self.take(digest, text) if text else ([], None)

    def end_here(self) -> None:
        """End the answer after its segments."""
        self.parser.feed("]" if self.segments else "[]")
        self.over = True

    def _new_text(self, event: Any) -> str:
        """Return the new text of an event; some servers resend the whole text each time."""
        if event.get("error"):
            raise upstream_dialect.error_of_message(event["error"])
        self.usage = int((event.get("usage") or {}).get("prompt_tokens") or self.usage)
        text = ""
        for choice in (event.get("choices") or [])[:1]:
            text = str((choice.get("delta") or {}).get("content") or "")
            self.length = self.length or choice.get("finish_reason") == "length"
        if len(self.text) >= MIN_COMMON_CHARACTERS:
            text = text.removeprefix(self.text)
        return text


def vllm_dialect(model: str) -> UpstreamDialect:
    """Return the dialect of vLLM."""
    return UpstreamDialect(
        *("vllm", "/health", VIBEVOICE_SAMPLE_RATE, LONGEST_S, VllmChunkRequest, model, SPEAKERS),
        resumes=True,
    )


class VllmChunkRequest(ChunkRequest):
    """Request of one chunk, in one answer or in several that continue each other."""

    def __post_init__(self) -> None:
        self._prompt, self._goes_on = self.options.prompt_lines, True
        self._sampling: loop_guard.SamplingOptions | None = None
        self._loop_start, self._retries, self._recoveries, self._loops = -1, 0, 0, 0
        self._begin("", [])

    def _begin(self, prefix: str, segments: Sequence[Segment]) -> None:
        """Begin an answer that continues these segments, whose text is ``prefix``."""
        self._prefix = prefix
        self._reader = VllmAnswerReader(self.duration_s, prefix, segments)

    def _keep(self, count: int) -> None:
        """Begin an answer that continues the last up to its ``count``-th segment."""
        self._begin(self._reader.text_until(count), self._reader.segments[:count])

    def next_request(self) -> UpstreamRequest:
        """Return the chat with the audio, and the complete segments of the last answer."""
        if not self._goes_on:
            self.streamed = []
        self._keep(len(self._reader.segments) if self._goes_on else 0)
        return UpstreamRequest(CHAT_COMPLETIONS_PATH, {"content": self._body()}, EVENT_STREAM)

    def _body(self) -> bytes:
        instruction = (
            f"with extra info: {self._prompt}\n\nPlease {PROMPT_KEYS}"
            if self._prompt
            else f"please {PROMPT_KEYS}"
        )
        text = f"This is a {self.duration_s:.2f} seconds audio, {instruction}"
        audio = {"url": f"data:{FLAC};base64,{AUDIO_PLACEHOLDER}"}
        content = [{"type": "audio_url", "audio_url": audio}, {"type": "text", "text": text}]
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": content},
        ]
        sampling = self._sampling or loop_guard.SamplingOptions(self.options.temperature, 0.95)
        greedy = not sampling.temperature
        body: dict[str, Any] = {
            "model": self.dialect.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": sampling.temperature,
            "top_p": 1.0 if greedy else sampling.top_p,
            "messages": messages,
        }
        if self.options.max_tokens is not None:  # else as many as fit
            body["max_tokens"] = self.options.max_tokens
        if self._prefix:
            begun = self._prefix.removeprefix("assistant").lstrip()  # the template adds the role
            messages.append({"role": "assistant", "content": begun})
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        placeholder = json.dumps(AUDIO_PLACEHOLDER).strip('"').encode()
        before, after = json.dumps(body).encode().split(placeholder, 1)
        return b"".join((before, base64.b64encode(self.flac), after))  # avoids copies of 100 MB

    def feed(self, data: bytes) -> list[Segment]:
        """Add an event and return the segments that it completes."""
        segments, loop = self._reader.read(data)
        if len(self._reader.segments) > self._loop_start:
            self._sampling = None
        if loop is not None:
            self._recover(loop)
        return segments

    def finish(self) -> UpstreamAnswer:
        """Return all segments; if the answer broke off, fail so that the next request continues
        it."""
        reader = self._reader
        if not reader.over:
            raise UpstreamFailed("The upstream broke off its answer.")
        segments = reader.segments + reader.parser.finish()
        if reader.usage > MAX_PROMPT_INFLATION * self._prompt_tokens() and not self._prefix:
            raise ChunkTooLarge(upstream_dialect.garbled("took in more than was sent"))
        cut = reader.length and self.options.max_tokens is None
        if cut and self.duration_s > 60.0:
            raise ChunkTooLarge(upstream_dialect.garbled("ran out of tokens"))
        if not segments and not reader.parser.ended:
            raise upstream_dialect.garbled("is no list of segments")
        truncated = reader.parser.truncated
        left_out = ("prompt",) if self._prompt != self.options.prompt_lines else ()
        return UpstreamAnswer(
            tuple(sort_by_time(segments)),
            diarized=True,
            notices=loop_guard.loop_notices(segments, self._loops, truncated=truncated),
            ignored=(*self.options.speaker_counts, *left_out),
            late=tuple(unreported_segments(self.streamed, segments)),
        )

    def simplify(self, said: str, *, too_large: bool) -> bool:
        """Start anew if the server may not continue an answer, or not take the prompt."""
        if self._prefix and not too_large:
            self._goes_on = False
        elif self._prompt:
            self._prompt = ""
        else:
            return False
        return True

    def _prompt_tokens(self) -> float:
        audio_tokens = math.ceil(self.duration_s * TOKENS_PER_S)
        return audio_tokens + TOKENS_BESIDE + len(self._prompt)

    def _recover(self, loop: loop_guard.RepetitionLoop) -> None:
        """End a request that loops; raise `AskAgain` to retry before the loop, or skip its
        audio."""
        self._loops += 1
        self._recoveries += 1
        segments = self._reader.segments
        count = len(segments) - loop.cut
        if count > self._loop_start:
            self._retries = 0
        self._loop_start = count
        sampling = loop_guard.retry_sampling(self._retries)
        if self._recoveries > MAX_LOOP_RETRIES:
            raise ChunkTooLarge(upstream_dialect.garbled("repeats itself"))
        content = self._reader.parser.open_content
        self._keep(count)
        self._sampling = sampling
        if sampling is not None:
            self._retries += 1
            raise AskAgain
        skip = loop_guard.next_skipped_audio(
            segments[count - 1].end if count else 0.0,
            self.duration_s,
            claimed_end_s=content.end if content else None,
        )
        if skip is None:
            self._reader.end_here()
            return
        lost = skip.segment()
        self._begin(loop_guard.with_item(self._prefix, lost), [*segments[:count], lost])
        self._loop_start, self._retries = count + 1, 0
        raise AskAgain
