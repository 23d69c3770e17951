"""Requests for chunks: sent to the upstreams, split, and repeated elsewhere."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import TypeVar

import httpx

from sidecar import errors, openai_http
from sidecar.audio import SAMPLE_RATE
from sidecar.concurrency import running
from sidecar.interfaces.engine_interface import TranscribeOptions, UpstreamOptions
from sidecar.plugins.upstream import load_balancer, upstream_dialect
from sidecar.plugins.upstream.audio_chunks import AudioChunk, ChunkResult, shift_segments
from sidecar.plugins.upstream.upstream_client import SegmentsCallback, UpstreamClient
from sidecar.transcripts.transcript import Segment

Result = TypeVar("Result")
log = logging.getLogger(__name__)

MIN_SPLIT_CHUNK_S = 5.0
"""A chunk shorter than twice this is not split: its length is not the problem."""
MAX_REQUESTS_PER_CHUNK = 32
"""Maximum requests for one chunk to one server; each dialect has lower limits of its own."""


class ChunkRequests:
    """Requests for chunks to all upstreams, on an event loop in a thread of its own. They end with
    the process.

    A blocking request cannot be cancelled from outside; a task of an event loop can, at any await.
    """

    def __init__(
        self,
        options: UpstreamOptions,
        limits: load_balancer.FailoverLimits = load_balancer.USUAL_LIMITS,
    ) -> None:
        self._options, self._limits = options, limits
        self.cuts = not options.piece_s
        """Whether the length of chunks is not set."""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="upstreams", daemon=True).start()
        certificates = openai_http.trusted(options.ca)
        arguments = openai_http.client_options(limits.probe_timeout_s, verify=certificates)
        self._client = httpx.AsyncClient(**arguments)
        keys = options.keys or ("",) * len(options.urls)
        self.servers = [
            UpstreamClient(self._client, url, key, options, limits)
            for url, key in zip(options.urls, keys, strict=True)
        ]
        self._pool = load_balancer.UpstreamBalancer(len(self.servers), random.random, limits)
        self._silent = [0 for _ in self.servers]
        self._lost = [asyncio.Event() for _ in self.servers]
        self._at_work = 0
        self._watching: asyncio.Task[None] | None = None

    def run(self, work: Coroutine[None, None, Result]) -> Future[Result]:
        """Start ``work``; cancelling the future cancels it and closes its connection."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def meet(self) -> None:
        """Detect the kind of each server; one that does not answer is tried again when it is
        needed."""
        await asyncio.gather(*(one.known() for one in self.servers), return_exceptions=True)

    async def visit(self) -> list[tuple[UpstreamClient, errors.SidecarError | None]]:
        """Return each server with its current error, or None if it is healthy."""

        async def one(server: UpstreamClient) -> tuple[UpstreamClient, errors.SidecarError | None]:
            try:
                await server.look()
            except upstream_dialect.ChunkFailure as found:
                return server, upstream_dialect.with_server_name(found.error, server.name)
            return server, None

        return list(await asyncio.gather(*map(one, self.servers)))

    @property
    def rate(self) -> int:
        """Return the sample rate in Hz of recordings sent: the highest that a known server uses."""
        return max((one.dialect.rate for one in self.servers if one.dialect), default=SAMPLE_RATE)

    @property
    def longest_s(self) -> float:
        """Return the seconds of audio that every server takes in one request, as far as is
        known."""
        known = [one.dialect.limits.longest_s(self.rate) for one in self.servers if one.dialect]
        return min([*known, *(one.longest_s for one in self.servers), 3600.0])

    @property
    def diarize(self) -> bool:
        """Return whether all servers diarize, as far as is known."""
        return all(one.dialect is not None and one.dialect.diarizes for one in self.servers)

    @property
    def timed(self) -> bool:
        """Return whether all servers give times, as far as is known."""
        return all(one.dialect is None or one.dialect.timed for one in self.servers)

    @property
    def surely_timed(self) -> bool:
        """Return whether all servers give times, before the first answer."""
        return all(one.dialect is not None and one.dialect.surely_timed for one in self.servers)

    @property
    def by_voices(self) -> bool:
        """Return whether all servers diarize as this service does, as far as is known."""
        return all(one.dialect is not None and one.dialect.by_voices for one in self.servers)

    async def hear(
        self, piece: AudioChunk, options: TranscribeOptions, told: SegmentsCallback
    ) -> list[ChunkResult]:
        """Return the results of a chunk; if it was too large, one for each of its parts.

        Raises:
            errors.SidecarError: no server could transcribe it.
        """
        if len(self.servers) > 1 and (self._watching is None or self._watching.done()):
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        self._at_work += 1
        try:
            return await self._hear(_ChunkWork(piece, options, told))
        finally:
            self._at_work -= 1

    async def _hear(self, work: _ChunkWork) -> list[ChunkResult]:
        sound = await asyncio.to_thread(work.piece.flac)
        within_s = self._limits.extra_timeout_s + self._options.timeout * work.piece.duration_s
        now = time.monotonic()
        patience = load_balancer.ChunkAttempts(now, now + 2 * within_s, self._limits)
        while True:
            index = await self._next_candidate(patience)
            patience.asked.add(index)
            server = self.servers[index]
            try:
                answer = await self._ask(index, work, sound, within_s)
            except upstream_dialect.ChunkFailure as found:
                found.error = upstream_dialect.with_server_name(found.error, server.name)
                step = patience.after(index, found)
                said = "upstream %s failed: %s; next step: %s"
                log.info(said, server.name, found.error.code, step.name.lower())
                if found.step in (
                    upstream_dialect.FailureStep.AGAIN,
                    upstream_dialect.FailureStep.LATER,
                ):
                    self._pool.failed(index, time.monotonic(), found.retry_after)
                if step is upstream_dialect.FailureStep.NEVER:
                    raise patience.error from None
                if step is not upstream_dialect.FailureStep.SMALLER:
                    continue
                self._pool.well(index)  # it answered, and is free for the halves
            else:
                self._pool.well(index)
                return [ChunkResult(work.piece, answer, server.name)]
            finally:
                self._pool.left(index)
            return await self._smaller(work, server, patience)

    async def _next_candidate(self, patience: load_balancer.ChunkAttempts) -> int:
        """Return the server to try next, after waiting until one is free.

        Raises:
            errors.SidecarError: none is left.
        """
        while True:
            index, wait_s = self._pool.choose(time.monotonic(), patience)
            if index is not None:
                return index
            if wait_s is None:
                raise patience.error
            await asyncio.sleep(wait_s)

    async def _ask(
        self, index: int, work: _ChunkWork, sound: bytes, within_s: float
    ) -> upstream_dialect.UpstreamAnswer:
        """Return one server's answer; check the health of one that failed before it gets a
        recording."""
        server = self.servers[index]
        dialect = await server.known()
        if self._pool.servers[index].failures:
            self._seen(index, await server.look())
        hearing = work.request(dialect, server.name)
        for _ in range(MAX_REQUESTS_PER_CHUNK):
            try:
                asking = server.ask(hearing, sound, work.told, within_s)
                return await self._unless_lost(index, asking)
            except upstream_dialect.ChunkFailure as found:
                if found.step is not upstream_dialect.FailureStep.ANEW:
                    raise
                last = found.error
        raise upstream_dialect.ChunkFailure(upstream_dialect.FailureStep.ELSEWHERE, last)

    async def _smaller(
        self, work: _ChunkWork, server: UpstreamClient, patience: load_balancer.ChunkAttempts
    ) -> list[ChunkResult]:
        """Send the chunk in two halves, and limit the server to that length from now on."""
        piece = work.piece
        if piece.duration_s < 2 * MIN_SPLIT_CHUNK_S:
            raise patience.error from None
        server.longest_s = min(server.longest_s, piece.duration_s / 2)
        found: list[ChunkResult] = []
        for part in piece.halves():

            def of_part(segments: Sequence[Segment], part: AudioChunk = part) -> None:
                work.told(shift_segments(segments, part.start_s - piece.start_s))

            found += await self._hear(_ChunkWork(part, work.options, of_part))
        return found

    async def _watch(self) -> None:
        """Check the health of all servers, from the first chunk until none is in progress."""
        while True:
            await asyncio.gather(*map(self._look, range(len(self.servers))))
            await asyncio.sleep(self._limits.health_poll_s)
            if not self._at_work:
                return

    async def _look(self, index: int) -> None:
        server = self.servers[index]
        try:
            self._seen(index, await server.look())
        except upstream_dialect.ChunkFailure:
            self._pool.failed(index, time.monotonic())
            self._silent[index] += 1
            prompt = server.dialect is not None and server.dialect.prompt
            if prompt and self._silent[index] >= self._limits.lost_after_polls:
                self._lost[index].set()

    def _seen(self, index: int, waiting: int) -> None:
        self._pool.seen(index, waiting)
        self._silent[index] = 0
        self._lost[index].clear()

    async def _unless_lost(
        self, index: int, asking: Coroutine[None, None, upstream_dialect.UpstreamAnswer]
    ) -> upstream_dialect.UpstreamAnswer:
        """Return the answer; fail if its server is found to be lost meanwhile."""
        async with running(asking, self._lost[index].wait()) as (answer, lost):
            await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                found: upstream_dialect.UpstreamAnswer = answer.result()
                return found
            raise upstream_dialect.connection_lost_failure("fell silent")


class _ChunkWork:
    """Chunk on its way to upstreams, with its requests; each is made once."""

    def __init__(
        self, piece: AudioChunk, options: TranscribeOptions, told: SegmentsCallback
    ) -> None:
        self.piece, self.options, self.told = piece, options, told
        self._requests: dict[str, upstream_dialect.ChunkRequest] = {}

    def request(
        self, dialect: upstream_dialect.UpstreamDialect, server: str
    ) -> upstream_dialect.ChunkRequest:
        """Return the request to a server, or to those that can go on from each other's answers."""
        name = dialect.alike or server
        if name not in self._requests:
            self._requests[name] = dialect.hearing(self.piece.duration_s, self.options)
        return self._requests[name]
