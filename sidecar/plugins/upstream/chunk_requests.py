"""Requests for chunks: sent to the upstreams, split, and repeated elsewhere."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

import httpx

from sidecar import errors, openai_http
from sidecar.audio import SAMPLE_RATE
from sidecar.concurrency import running
from sidecar.interfaces.engine_interface import TranscribeOptions, UpstreamOptions
from sidecar.plugins.upstream import load_balancer, upstream_dialect
from sidecar.plugins.upstream.audio_chunks import (
    AudioChunk,
    ChunkResult,
    shift_segments,
    time_words,
)
from sidecar.plugins.upstream.errors import UpstreamGarbled
from sidecar.plugins.upstream.upstream_client import SegmentsCallback, UpstreamClient
from sidecar.transcripts.transcript import Segment

Result = TypeVar("Result")
log = logging.getLogger(__name__)

MIN_SPLIT_CHUNK_S = 5.0
"""A chunk shorter than twice this is not split: its length is not the problem."""


class ChunkRequests:
    """Requests for chunks to all upstreams, on an event loop in a thread of its own. They end with
    the process.

    A blocking request cannot be cancelled from outside; a task of an event loop can, at any await.
    """

    def __init__(
        self,
        options: UpstreamOptions,
        limits: load_balancer.FailoverLimits = load_balancer.DEFAULT_LIMITS,
    ) -> None:
        self._options, self.limits = options, limits
        self.cuts = not options.piece_s
        """Whether the length of chunks is not set."""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="upstreams", daemon=True).start()
        certificates = openai_http.trusted(options.ca)
        arguments = openai_http.client_options(limits.probe_timeout_s, verify=certificates)
        self._client = httpx.AsyncClient(**arguments)
        keys = options.keys or ("",) * len(options.urls)
        self.upstreams = [
            UpstreamClient(self._client, url, key, options, limits)
            for url, key in zip(options.urls, keys, strict=True)
        ]
        self._balancer = load_balancer.UpstreamBalancer(len(self.upstreams), random.random, limits)
        self._silent = [0 for _ in self.upstreams]
        self._lost = [asyncio.Event() for _ in self.upstreams]
        self._at_work = 0
        self._watching: asyncio.Task[None] | None = None

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

        async def check(
            upstream: UpstreamClient,
        ) -> tuple[UpstreamClient, errors.SidecarError | None]:
            try:
                await upstream.check_health()
            except upstream_dialect.ChunkFailure as failure:
                return upstream, upstream_dialect.with_server_name(failure.error, upstream.name)
            return upstream, None

        return list(await asyncio.gather(*map(check, self.upstreams)))

    @property
    def rate(self) -> int:
        """Return the sample rate in Hz of recordings sent: the highest that a known server uses."""
        return max((one.dialect.rate for one in self.upstreams if one.dialect), default=SAMPLE_RATE)

    @property
    def longest_s(self) -> float:
        """Return the seconds of audio that every server takes in one request, as far as is
        known."""
        known = [one.dialect.limits.longest_s(self.rate) for one in self.upstreams if one.dialect]
        return min([*known, *(one.longest_s for one in self.upstreams), 3600.0])

    @property
    def diarize(self) -> bool:
        """Return whether all servers diarize, as far as is known."""
        return all(one.dialect is not None and one.dialect.diarizes for one in self.upstreams)

    @property
    def by_voices(self) -> bool:
        """Return whether all servers diarize as this service does, as far as is known."""
        return all(one.dialect is not None and one.dialect.by_voices for one in self.upstreams)

    async def transcribe(
        self, chunk: AudioChunk, options: TranscribeOptions, on_segments: SegmentsCallback
    ) -> list[ChunkResult]:
        """Return the results of a chunk; if it was too large, one for each of its parts.

        Raises:
            errors.SidecarError: no server could transcribe it.
        """
        if len(self.upstreams) > 1 and (self._watching is None or self._watching.done()):
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        self._at_work += 1
        try:
            return await self._transcribe(_ChunkWork(chunk, options, on_segments))
        finally:
            self._at_work -= 1

    async def _transcribe(self, work: _ChunkWork) -> list[ChunkResult]:
        flac = await asyncio.to_thread(work.chunk.flac)
        timeout_s = self.limits.extra_timeout_s + self._options.timeout * work.chunk.duration_s
        now = time.monotonic()
        attempts = load_balancer.ChunkAttempts(now, now + 2 * timeout_s, self.limits)
        while True:
            index = await self._next_candidate(attempts)
            attempts.tried.add(index)
            upstream = self.upstreams[index]
            try:
                answer = await self._request_answer(index, work, flac, timeout_s)
            except upstream_dialect.ChunkFailure as failure:
                failure.error = upstream_dialect.with_server_name(failure.error, upstream.name)
                step = attempts.after(index, failure)
                message = "upstream %s failed: %s; next step: %s"
                log.info(message, upstream.name, failure.error.code, step.name.lower())
                if failure.step in (
                    upstream_dialect.FailureStep.AGAIN,
                    upstream_dialect.FailureStep.LATER,
                ):
                    self._balancer.failed(index, time.monotonic(), failure.retry_after)
                if step is upstream_dialect.FailureStep.NEVER:
                    raise attempts.error from None
                if step is not upstream_dialect.FailureStep.SMALLER:
                    continue
                self._balancer.succeeded(index)  # it answered, and is free for the halves
            else:
                self._balancer.succeeded(index)
                answer = await asyncio.to_thread(time_words, work.chunk, answer)
                return [ChunkResult(work.chunk, answer, upstream.name)]
            finally:
                self._balancer.release(index)
            return await self._transcribe_halves(work, upstream, attempts)

    async def _next_candidate(self, attempts: load_balancer.ChunkAttempts) -> int:
        """Return the server to try next, after waiting until one is free.

        Raises:
            errors.SidecarError: none is left.
        """
        while True:
            index, wait_s = self._balancer.choose(time.monotonic(), attempts)
            if index is not None:
                return index
            if wait_s is None:
                raise attempts.error
            await asyncio.sleep(wait_s)

    async def _request_answer(
        self, index: int, work: _ChunkWork, flac: bytes, timeout_s: float
    ) -> upstream_dialect.UpstreamAnswer:
        """Return one server's answer; check the health of one that failed before it gets a
        recording."""
        upstream = self.upstreams[index]
        if self._balancer.upstreams[index].failures:
            self._note_health(index, await upstream.check_health())
        chunk_request = work.request(await upstream.ready(), upstream.name)
        answer = upstream.transcribe(chunk_request, flac, work.on_segments, timeout_s)
        return await self._unless_lost(index, answer)

    async def _transcribe_halves(
        self, work: _ChunkWork, upstream: UpstreamClient, attempts: load_balancer.ChunkAttempts
    ) -> list[ChunkResult]:
        """Send the chunk in two halves. A server that refused the whole and answers these gets no
        longer ones from now on."""
        chunk = work.chunk
        if chunk.duration_s < 2 * MIN_SPLIT_CHUNK_S:
            raise attempts.error from None
        results: list[ChunkResult] = []
        for half in chunk.halves():

            def on_segments(
                segments: Sequence[Segment], shift_s: float = half.start_s - chunk.start_s
            ) -> None:
                work.on_segments(shift_segments(segments, shift_s))

            results += await self._transcribe(_ChunkWork(half, work.options, on_segments))
        taken = [one.chunk.duration_s for one in results if one.server == upstream.name]
        if taken and not isinstance(attempts.last, UpstreamGarbled):  # which is of this recording
            upstream.longest_s = min(upstream.longest_s, max(taken))
        return results

    async def _watch(self) -> None:
        """Check the health of all servers, from the first chunk until none is in progress."""
        while True:
            await asyncio.gather(*map(self._check_health, range(len(self.upstreams))))
            await asyncio.sleep(self.limits.health_poll_s)
            if not self._at_work:
                return

    async def _check_health(self, index: int) -> None:
        upstream = self.upstreams[index]
        try:
            self._note_health(index, await upstream.check_health())
        except upstream_dialect.ChunkFailure:
            self._balancer.failed(index, time.monotonic())
            self._silent[index] += 1
            prompt = upstream.dialect is not None and upstream.dialect.prompt
            if prompt and self._silent[index] >= self.limits.lost_after_polls:
                self._lost[index].set()

    def _note_health(self, index: int, waiting: int) -> None:
        self._balancer.note_health(index, waiting)
        self._silent[index] = 0
        self._lost[index].clear()

    async def _unless_lost(
        self, index: int, answer: Coroutine[None, None, upstream_dialect.UpstreamAnswer]
    ) -> upstream_dialect.UpstreamAnswer:
        """Return the answer; fail if its server is found to be lost meanwhile."""
        async with running(answer, self._lost[index].wait()) as (answered, lost):
            await asyncio.wait({answered, lost}, return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                result: upstream_dialect.UpstreamAnswer = answered.result()
                return result
            raise upstream_dialect.connection_lost_failure("fell silent")


class _ChunkWork:
    """Chunk on its way to upstreams, with its requests; each is made once."""

    def __init__(
        self, chunk: AudioChunk, options: TranscribeOptions, on_segments: SegmentsCallback
    ) -> None:
        self.chunk, self.options, self.on_segments = chunk, options, on_segments
        self._requests: dict[str, upstream_dialect.ChunkRequest] = {}

    def request(
        self, dialect: upstream_dialect.UpstreamDialect, server: str
    ) -> upstream_dialect.ChunkRequest:
        """Return the request to a server, or to those that can go on from each other's answers."""
        name = dialect.alike or server
        if name not in self._requests:
            self._requests[name] = dialect.chunk_request(self.chunk.duration_s, self.options)
        return self._requests[name]
