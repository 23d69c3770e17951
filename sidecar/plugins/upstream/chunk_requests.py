"""Requests for chunks: sent to the upstreams, split, and repeated elsewhere."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TypeVar

import httpx

from sidecar import errors, openai_http
from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.engines.vibevoice.vibevoice_coverage import MAX_AGAIN_S
from sidecar.interfaces.engine_interface import TranscribeOptions, UpstreamOptions
from sidecar.plugins.upstream.audio_chunks import AudioChunk, ChunkResult
from sidecar.plugins.upstream.errors import UpstreamError, UpstreamGarbled
from sidecar.plugins.upstream.load_balancer import DEFAULT_LIMITS, ChunkAttempts, FailoverLimits
from sidecar.plugins.upstream.missed_by_upstream import (
    blames_chunk,
    result_and_rest,
    untranscribed_result,
)
from sidecar.plugins.upstream.openai_dialect import UNTIMED_S
from sidecar.plugins.upstream.upstream_client import UpstreamClient
from sidecar.plugins.upstream.upstream_dialect import (
    ChunkRequest,
    ChunkTooLarge,
    UpstreamDialect,
    options_without,
    with_server_name,
)
from sidecar.transcripts.transcript import Segment

Result = TypeVar("Result")
log = logging.getLogger(__name__)

LONGEST_CHUNK_S = 3600.0
"""An hour limits memory here to 115 MB."""
MIN_SPLIT_CHUNK_S = 5.0
"""A chunk shorter than twice this is not split: its length is not the problem."""

SegmentsCallback = Callable[[AudioChunk, Sequence[Segment], Sequence[Segment]], None]
"""Callback for segments of a chunk as they arrive, in seconds from its start, after the list of
those that its answer had before."""


class ChunkRequests:
    """Requests for chunks to all upstreams, on an event loop in a thread of its own. They end with
    the process.

    A blocking request cannot be cancelled from outside; a task of an event loop can, at any await.
    """

    def __init__(self, options: UpstreamOptions, limits: FailoverLimits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.cuts = not options.piece_s
        """Whether the length of chunks is not set."""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="upstreams", daemon=True).start()
        self.certificates = openai_http.trusted(options.ca)
        arguments = openai_http.client_options(limits.probe_timeout_s, verify=self.certificates)
        client = httpx.AsyncClient(**arguments)
        keys = options.keys or ("",) * len(options.urls)
        self.upstreams = [
            UpstreamClient(client, url, key, options, limits)
            for url, key in zip(options.urls, keys, strict=True)
        ]

    def run(self, work: Coroutine[None, None, Result]) -> Future[Result]:
        """Start ``work``; cancelling the future cancels it and closes its connection."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def get_ready(self, limit_s: float | None = None) -> None:
        """Find out what each server is and can, in ``limit_s`` seconds at most; one that does not
        answer is asked again when it is needed."""
        servers = (one.ready() for one in self.upstreams)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*servers, return_exceptions=True), limit_s)

    async def check_upstreams(self) -> list[tuple[UpstreamClient, errors.SidecarError | None]]:
        """Return each server with its current error, or None if it is healthy."""
        found = await asyncio.gather(*map(self._health_error, self.upstreams))
        return [*zip(self.upstreams, found, strict=True)]

    async def _health_error(self, upstream: UpstreamClient) -> errors.SidecarError | None:
        try:
            await upstream.check_health()
        except UpstreamError as error:
            return self.failed(upstream, error)
        return None

    def failed(self, upstream: UpstreamClient, error: UpstreamError) -> UpstreamError:
        """Put a server in back-off after an error; return that with the server's name."""
        upstream.load.failed(error, time.monotonic(), random.random, self.limits)
        return with_server_name(error, upstream.name)

    async def _prove(self, upstream: UpstreamClient) -> None:
        """Raise what a server that failed on a chunk meets on a second of speech, too."""
        try:
            await upstream.probe(await upstream.ready())
        except UpstreamError as error:
            raise self.failed(upstream, error) from None

    @property
    def rate(self) -> int:
        """Return the sample rate in Hz of recordings sent: the highest that a server uses, and that
        of VibeVoice if one is not known yet."""
        dialects = (one.dialect for one in self.upstreams)
        return max(one.rate if one else VIBEVOICE_SAMPLE_RATE for one in dialects)

    @property
    def longest_s(self) -> float:
        """Return the seconds of audio that every server takes in one request, as far as is
        known."""
        known = [one.dialect.longest_s for one in self.upstreams if one.dialect]
        return min([*known, *(one.longest_s for one in self.upstreams), LONGEST_CHUNK_S])

    @property
    def diarize(self) -> bool:
        """Return whether all servers diarize, as far as is known."""
        return all(one.dialect is not None and one.dialect.diarizes for one in self.upstreams)

    @property
    def by_voices(self) -> bool:
        """Return whether all servers diarize as this service does, as far as is known."""
        return all(one.dialect is not None and one.dialect.by_voices for one in self.upstreams)

    async def transcribe(
        self,
        chunk: AudioChunk,
        options: TranscribeOptions,
        left_out: defaultdict[UpstreamClient, set[str]],
        on_segments: SegmentsCallback,
    ) -> list[ChunkResult]:
        """Return the results of a chunk; if it was too large, or not all of it was heard, one for
        each of its parts.

        ``left_out``: options that each server refused of this recording, and answered without.

        Raises:
            errors.SidecarError: no server could transcribe it.
        """
        flac = await asyncio.to_thread(chunk.flac)
        timeout_s = self.upstreams[0].timeout_s(chunk.duration_s)
        now = time.monotonic()
        attempts = ChunkAttempts(now, now + 2 * timeout_s, self.limits)
        requests: dict[tuple[UpstreamDialect, UpstreamClient | None], ChunkRequest] = {}
        while True:
            upstream, learns = await self._next_server(attempts), False
            kept, smaller = list[ChunkResult](), tuple[AudioChunk, ...]()
            index = self.upstreams.index(upstream)
            try:
                if upstream.load.failures:
                    await upstream.check_health()  # before it gets a recording
                dialect = await upstream.ready()
                longest_s = min(dialect.longest_s, upstream.longest_s)
                if chunk.duration_s <= max(longest_s, 2 * MIN_SPLIT_CHUNK_S):
                    key = dialect, None if dialect.resumes else upstream
                    if key not in requests:
                        taken = options_without(options, left_out[upstream])
                        requests[key] = dialect.chunk_request(taken, chunk.duration_s, flac)
                    answer = await upstream.transcribe(requests[key], partial(on_segments, chunk))
                    upstream.load.succeeded()
                    left_out[upstream].update(answer.ignored)
                    whole = dialect.complete or options.max_tokens is not None
                    again_s = MAX_AGAIN_S if dialect.diarizes else UNTIMED_S
                    result, rest = await asyncio.to_thread(
                        result_and_rest, *(chunk, answer, upstream.name), None if whole else again_s
                    )
                    kept, smaller = [result], rest
                else:
                    smaller = chunk.halves()
            except ChunkTooLarge as found:
                upstream.load.succeeded()  # it answered, and is free for the halves
                if chunk.duration_s < 2 * MIN_SPLIT_CHUNK_S:
                    attempts.refuse(index, with_server_name(found.error, upstream.name))
                    continue
                learns = not isinstance(found.error, UpstreamGarbled)  # which is of this recording
                smaller = chunk.halves()
            except UpstreamError as error:
                log.info("upstream %s failed: %s", upstream.name, error.code)
                attempts.failed(index, self.failed(upstream, error))
                continue
            except errors.SidecarError as error:
                upstream.load.succeeded()  # another may have more memory, or this language
                attempts.refuse(index, error)
                continue
            finally:
                upstream.load.running -= 1
            results = [*kept]
            for part in smaller:
                try:
                    results += await self.transcribe(part, options, left_out, on_segments)
                except errors.SidecarError as error:
                    if not kept or not blames_chunk(error):
                        raise
                    await self._prove(upstream)
                    log.info("no upstream has words at %.1f s: %s", part.start_s, error.code)
                    results.append(untranscribed_result(part, kept[0]))
            lengths = [one.end_s - one.start_s for one in results if one.server == upstream.name]
            if lengths and learns:
                upstream.longest_s = min(upstream.longest_s, max(lengths))
            return results

    async def _next_server(self, attempts: ChunkAttempts) -> UpstreamClient:
        """Return the server to try next, after waiting until one is free.

        Raises:
            errors.SidecarError: none is left.
        """
        now, loads = time.monotonic(), [one.load for one in self.upstreams]
        if len(loads) > 1:  # they may be busy with the recordings of others
            free = [one for one in self.upstreams if one.load.wait_s(now) <= 0]
            prompt = [one for one in free if one.dialect is not None and one.dialect.prompt]
            await asyncio.gather(*map(self._health_error, prompt))
        while True:
            index, wait_s = attempts.choose(loads, time.monotonic())
            if index is not None:
                return self.upstreams[index]
            await asyncio.sleep(wait_s)
