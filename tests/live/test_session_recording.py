"""The recording of a session, while its clients come and go and the disk takes its time."""

import asyncio
import math
import threading
from array import array

import pytest
from service_process import PATIENCE_S, until

from sidecar import errors
from sidecar.audio.audio_format import WAV_HEAD_BYTES, read_file_at
from sidecar.audio.loudness import MAX_PEAK
from sidecar.audio.upload_spool import UploadSpool
from sidecar.concurrency import ThreadLimiter
from sidecar.interfaces.live_options import SampleEncoding
from sidecar.live.sessions.session_recording import MAX_UNWRITTEN_BYTES, SessionRecording

PIECE = bytes(range(256)) * (UploadSpool.MEMORY_BYTES // 256)
"""After as much as this the disk is asked."""


class SlowSpool(UploadSpool):
    """Writes when it is allowed to."""

    def __init__(self) -> None:
        super().__init__(None)
        self.asked, self.may = threading.Event(), threading.Event()
        self.fails: errors.SidecarError | None = None

    def _spill(self) -> None:
        self.asked.set()
        assert self.may.wait(PATIENCE_S)
        if self.fails is not None:
            raise self.fails
        super()._spill()


@pytest.fixture
def spool() -> SlowSpool:
    return SlowSpool()


@pytest.fixture
def tape(spool: SlowSpool) -> SessionRecording:
    return SessionRecording(spool, ThreadLimiter("disk", 1), 1 << 30)


async def in_the_middle(tape: SessionRecording, spool: SlowSpool) -> asyncio.Task[None]:
    """Somebody who sends, and waits for the disk."""
    sending = asyncio.ensure_future(tape.add(PIECE, SampleEncoding.PCM16, 16_000))
    await until(spool.asked.is_set)
    return sending


async def test_cancelled_write_loses_no_audio(tape: SessionRecording, spool: SlowSpool) -> None:
    sending = await in_the_middle(tape, spool)
    sending.cancel()
    await asyncio.wait({sending})
    again = asyncio.ensure_future(tape.add(b"more", SampleEncoding.PCM16, 16_000))
    await asyncio.sleep(0)
    assert not again.done(), "it is written in order"
    spool.may.set()
    await again
    with await tape.recording() as kept:  # type: ignore[union-attr]
        found = read_file_at(kept.fd, WAV_HEAD_BYTES, 1 << 30)
    assert found == PIECE + b"more"


async def test_connections_cancelled_one_after_another_during_a_write_lose_no_audio(
    tape: SessionRecording, spool: SlowSpool
) -> None:
    for sending in (
        await in_the_middle(tape, spool),
        asyncio.ensure_future(tape.add(b"second", SampleEncoding.PCM16, 16_000)),
    ):
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait({sending})
    spool.may.set()
    await tape.add(b"third", SampleEncoding.PCM16, 16_000)
    with await tape.recording() as kept:  # type: ignore[union-attr]
        found = read_file_at(kept.fd, WAV_HEAD_BYTES, 1 << 30)
    assert found == PIECE + b"secondthird"


async def test_unwritten_audio_over_its_limit_during_a_write_discards_the_recording(
    tape: SessionRecording, spool: SlowSpool
) -> None:
    sending = await in_the_middle(tape, spool)
    for _ in range(MAX_UNWRITTEN_BYTES // len(PIECE) + 1):
        more = asyncio.ensure_future(tape.add(PIECE, SampleEncoding.PCM16, 16_000))
        await asyncio.sleep(0)
        more.cancel()
        await asyncio.wait({more})
    spool.may.set()
    await sending
    assert await tape.recording() is None


async def test_nan_sample_does_not_hide_the_peak_of_others_and_an_infinite_one_is_the_highest() -> (
    None
):
    tape = SessionRecording(UploadSpool(None), ThreadLimiter("disk", 1), 1 << 30)
    tenth = 1600
    for odd in (math.nan, math.inf):
        samples = array("f", [odd, 0.5, *[0.0] * (tenth - 2)])
        await tape.add(samples.tobytes(), SampleEncoding.FLOAT32, 16_000)
    assert [*tape.peaks] == [MAX_PEAK // 2 + 1, MAX_PEAK]
    tape.close()


async def test_recording_closed_during_a_write_frees_its_memory_after_that_write(
    tape: SessionRecording, spool: SlowSpool
) -> None:
    sending = await in_the_middle(tape, spool)
    tape.close()
    assert spool.pending == len(PIECE) + WAV_HEAD_BYTES
    spool.may.set()
    await sending
    await until(lambda: spool.pending == 0)
    assert await tape.recording() is None


async def test_full_disk_discards_the_recording_without_an_error_for_the_sender(
    tape: SessionRecording, spool: SlowSpool
) -> None:
    sending = await in_the_middle(tape, spool)
    spool.fails = errors.DiskFull()
    spool.may.set()
    await sending
    await tape.add(b"more", SampleEncoding.PCM16, 16_000)
    assert await tape.recording() is None


async def test_recording_whose_last_write_fails_is_discarded_and_frees_its_memory(
    tape: SessionRecording, spool: SlowSpool
) -> None:
    spool.may.set()
    await tape.add(PIECE, SampleEncoding.PCM16, 16_000)
    spool.fails = errors.DiskFull()
    await tape.add(b"more", SampleEncoding.PCM16, 16_000)
    assert await tape.recording() is None
    await until(lambda: spool.pending == 0)
