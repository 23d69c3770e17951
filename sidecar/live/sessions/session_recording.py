"""WAV recording of a session that becomes a job.

It is written only if recordings are stored.
"""

import asyncio
import logging
from array import array
from collections import deque

from sidecar import errors
from sidecar.audio.audio_format import WAV_HEAD_BYTES, wav_head
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.loudness import MAX_PEAK, PEAKS_PER_SECOND
from sidecar.audio.upload_spool import UploadSpool
from sidecar.concurrency import ThreadLimiter
from sidecar.interfaces.live_options import SampleEncoding

log = logging.getLogger(__name__)
MAX_UNWRITTEN_BYTES = 4 * UploadSpool.MEMORY_BYTES
"""Bytes that connections may bring, one after another, while the disk does not answer."""
UNWRITTEN = "a live session has no recording, as it cannot be written: %s"


class SessionRecording:
    """Recording of audio of one encoding at one rate. If another one arrives, or more than ``most``
    bytes, there is no recording. ``disk_limiter``: threads that may block on a disk; ``channels``:
    those of the samples."""

    def __init__(
        self, spool: UploadSpool, disk_limiter: ThreadLimiter, most: int, channels: int = 1
    ) -> None:
        self._spool: UploadSpool | None = spool
        self._disk_limiter, self._most, self._channels = disk_limiter, most, channels
        self._spilling: asyncio.Task[None] | None = None
        self._unwritten = deque[tuple[bytes, SampleEncoding, int]]()
        self._encoding, self._rate = SampleEncoding.PCM16, 0
        self._rest = b""
        self._levels = bytearray()

    @property
    def peaks(self) -> bytes:
        """Return the peaks of each tenth of a second, 0 to 255."""
        return bytes(self._levels) if self._spool is not None else b""

    async def add(self, raw: bytes, encoding: SampleEncoding, rate: int) -> None:
        """Add audio of whole samples. A caller that is cancelled loses none of it. If a write
        fails, there is no recording."""
        if self._spool is None:
            return
        self._unwritten.append((raw, encoding, rate))
        if sum(len(chunk) for chunk, *_ in self._unwritten) > MAX_UNWRITTEN_BYTES:
            log.warning(UNWRITTEN, "the disk does not answer")
            self.close()
            return
        await self._spilled()
        self._add_unwritten()
        if self._spool is not None and self._spool.pending >= UploadSpool.MEMORY_BYTES:
            self._spilling = asyncio.ensure_future(self._disk_limiter.run(self._spool.spill))
            await self._spilled()

    def _add_unwritten(self) -> None:
        """Add what came while the disk was waited for, also from callers that were cancelled."""
        while self._unwritten and (spool := self._spool) is not None:
            raw, encoding, rate = self._unwritten.popleft()
            if not self._rate:
                self._encoding, self._rate = encoding, rate
                spool.add(bytes(WAV_HEAD_BYTES))
            if (encoding, rate) != (self._encoding, self._rate) or spool.size > self._most:
                self.close()
                return
            spool.add(raw)
            self._measure(raw)

    async def recording(self) -> AudioSource | None:
        """Return the recording, which the caller closes; None if it is empty, or a write failed:
        the transcript is worth more than its audio."""
        await self._spilled()
        self._add_unwritten()
        spool, self._spool = self._spool, None
        if spool is None:
            return None
        if not self._rate:
            spool.close()
            return None
        floats, width = self._encoding is SampleEncoding.FLOAT32, self._encoding.width
        size = spool.size - WAV_HEAD_BYTES
        head = wav_head(self._rate, width, size, channels=self._channels, floats=floats)
        try:
            return await self._disk_limiter.run(spool.finish, head)
        except (errors.SidecarError, RuntimeError) as error:  # or no thread could start
            log.warning(UNWRITTEN, error)
            spool.close()
            return None

    def close(self) -> None:
        """Discard the recording."""
        self._unwritten.clear()
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    async def _spilled(self) -> None:
        """Wait for the disk; if the caller is cancelled the write goes on."""
        while (spilling := self._spilling) is not None:
            try:
                await asyncio.shield(spilling)
            except (errors.SidecarError, RuntimeError) as error:
                log.warning(UNWRITTEN, error)
                self.close()
            if self._spilling is spilling:
                self._spilling = None

    def _measure(self, raw: bytes) -> None:
        step = self._rate // PEAKS_PER_SECOND * self._channels
        each = step * self._encoding.width
        raw = self._rest + raw
        whole = len(raw) // each * each
        kind, full = ("h", 32768) if self._encoding is SampleEncoding.PCM16 else ("f", 1.0)
        samples, zero = array(kind, raw[:whole]), array(kind, [0])
        for at in range(0, len(samples), step):
            part = zero + samples[at : at + step]  # NaN counts only as the first in a comparison
            loud = max(max(part), -min(part)) / full
            self._levels.append(round(min(loud, 1.0) * MAX_PEAK))
        self._rest = raw[whole:]
