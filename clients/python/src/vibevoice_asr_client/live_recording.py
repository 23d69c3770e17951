"""A recording that is sent as if it were spoken now."""

from __future__ import annotations

import asyncio
import wave
from contextlib import suppress
from pathlib import Path
from typing import Tuple, Union

from vibevoice_asr_client.async_live import AsyncLive
from vibevoice_asr_client.errors import ClientError

FRAME_S = 0.1
"""Seconds of sound in a message of `live_file`."""


def opened_wave(path: Union[str, Path], channels: int = 1) -> Tuple[wave.Wave_read, int]:
    """A recording that can be sent as it is, and its samples a second.

    Raises:
        ValueError: it is no plain wav of 16 bits with so many channels.
    """
    try:
        recording = wave.open(str(path), "rb")  # noqa: SIM115 - whoever asked closes it
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is no plain wav file: {error}.") from None
    if (recording.getnchannels(), recording.getsampwidth()) != (channels, 2):
        recording.close()
        form = "mono" if channels == 1 else "stereo"
        raise ValueError(
            f"{path} is not {form} with 16 bits: convert it, or send samples with live()."
        )
    return recording, recording.getframerate()


async def carry(live: AsyncLive, recording: wave.Wave_read, pace: float) -> None:
    """All of a recording, ``pace`` seconds of it in a second (0: as fast as it goes). Where one
    cannot be read any more it ends: what was said until there is told."""
    rate, width = recording.getframerate(), 2 * recording.getnchannels()
    frames = max(1, round(FRAME_S * rate))
    loop = asyncio.get_running_loop()
    began, sent_s = loop.time(), 0.0
    try:
        while piece := recording.readframes(frames):
            whole = len(piece) - len(piece) % width  # the file may be cut off in a sample
            if whole:
                await live.send(piece[:whole])
            sent_s += len(piece) / width / rate
            if pace:
                await asyncio.sleep(began + sent_s / pace - loop.time())
    finally:
        with suppress(ClientError):
            await live.finish()
