"""Streaming decoder of any file into mono blocks: samples of WAV files here, all else by ffmpeg.

The length in a header is only a claim until the samples have been counted: nothing is allocated by
it.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np

from sidecar import errors
from sidecar.audio import SAMPLE_RATE, Block, audio_format, ffmpeg
from sidecar.audio.audio_info import FFMPEG_DECODER, PCM_DECODER, AudioInfo
from sidecar.audio.channel_survey import ChannelSurvey
from sidecar.audio.decoder_probe import judged
from sidecar.audio.ffmpeg_output import AudioTrack, LostAudio, RecordingHeader, track_names
from sidecar.audio.loudness import PeakMeter
from sidecar.audio.protection import is_protected
from sidecar.audio.selected_channel import SelectedChannel
from sidecar.audio.signal_conditioning import ChannelMix, DcOffsetRemover
from sidecar.audio.wav_decoder import WavDecoder, readable_parts

LINK_SCAN_BUDGET_S = 0.5
"""Time limit for finding the links of a file in a probe: its disk may be slow."""
LINK_SEARCH_LIMIT_S = 60.0
"""The same before decoding: the service ends a worker that seems to wait longer for a disk."""
DURATION_SCAN_BUDGET_S = 2.0
"""Time limit for counting the samples of a file with a header above the limit."""
Reading = Callable[[], AbstractContextManager[object]]


def preload_decoders() -> None:
    """Import the decoders, so that the first file does not wait for that."""
    import ffmpeg  # noqa: F401
    import soxr  # noqa: F401


def probe_audio(
    fd: int,
    max_s: float,
    track: int | None = None,
    *,
    links_within_s: float = LINK_SCAN_BUDGET_S,
    duration_within_s: float = DURATION_SCAN_BUDGET_S,
) -> AudioInfo:
    """Return the facts of an open file, after decoding the first samples of its audio track number
    ``track``, from 1. ``links_within_s``, ``duration_within_s``: as `LINK_SCAN_BUDGET_S` and
    `DURATION_SCAN_BUDGET_S`.

    Raises:
        errors.BadAudio: it is empty, no audio, protected, undecodable, or longer than ``max_s``
            seconds.
        errors.FieldInvalid: it has no such track.
    """
    if os.fstat(fd).st_size == 0:
        raise errors.AudioEmpty()
    container = audio_format.container_at(fd, 0)
    if container is None:
        raise errors.AudioFormatUnsupported()
    if is_protected(fd, container):
        raise errors.AudioUndecodable(
            "The recording is protected (DRM): its audio is encrypted.",
            hint="Send a copy without protection.",
        )
    deadline = time.monotonic() + duration_within_s
    decoder = PCM_DECODER if readable_parts(fd, container) else FFMPEG_DECODER
    facts = AudioInfo(container.name, decoder, None)
    with (
        judged(decoder),
        open_audio(
            fd, facts, rate=SAMPLE_RATE, max_s=max_s, track=track, links_within_s=links_within_s
        ) as audio,
    ):
        _check_track(track, audio.decoder.header.tracks)
        blocks = iter(audio)
        next(blocks)
        claimed = audio.total_s
        if claimed is not None and claimed > max_s and audio.decoder.header.is_estimate:
            claimed = None  # quiet passages of a variable rate are short in bytes
        if claimed is not None and claimed > max_s:  # the header may be wrong: count
            for _ in blocks:
                if time.monotonic() > deadline:
                    raise errors.AudioTooLong()
            claimed = audio.done_s
        channels, tracks = max(1, audio.decoder.channels), tuple(audio.decoder.header.tracks)
        return AudioInfo(container.name, decoder, claimed, channels, tracks)


def _check_track(track: int | None, tracks: Sequence[AudioTrack]) -> None:
    if track is not None and track > max(1, len(tracks)):
        names = track_names(tracks) or ["1"]
        raise errors.FieldInvalid(
            f"'track' is {track}, and the audio tracks of the recording are: {', '.join(names)}.",
            hint="Send one of these numbers, or omit the field.",
        )


class Decoder(Protocol):
    """Decoder of one recording; iterate it once for its mono blocks."""

    track: int
    """Number of the track that is decoded, from 0."""
    channels: int
    """Number of channels."""

    @property
    def header(self) -> RecordingHeader:
        """Return what the header claims."""

    @property
    def lost(self) -> LostAudio | None:
        """Return what is lost of the recording, once it is decoded; None if nothing is."""

    def __iter__(self) -> Iterator[Block]: ...

    def close(self) -> None:
        """Release the file and the process."""


class DecodedAudio(AbstractContextManager["DecodedAudio"]):
    """Audio of a decoder (`interfaces.engine_interface.AudioStream`); iterate it once.

    Raises (while iterating):
        errors.AudioTooLong: there are more than ``max_s`` seconds of audio.
        errors.AudioUndecodable: there is no audio.
    """

    def __init__(
        self,
        decoder: Decoder,
        rate: int,
        max_s: float,
        mix: ChannelMix | None = None,
        reading: Reading = nullcontext,
        skip_s: float = 0.0,
    ) -> None:
        """``reading``: context of each read of the decoder. ``skip_s``: seconds at the beginning
        that are silence for whoever iterates, so that what they find has its own time."""
        self.decoder, self._mix, self._reading = decoder, mix, reading
        self._rate = rate
        self._max_samples = int(max_s * rate)
        self._samples, self._skipped_samples = 0, round(skip_s * rate)
        self._offset = DcOffsetRemover(rate)
        self.peaks = PeakMeter(rate)
        """Peak meter of the decoded audio."""

    @property
    def total_s(self) -> float | None:
        """Return the seconds that the header claims."""
        return self.decoder.header.total_s

    @property
    def done_s(self) -> float:
        """Return the seconds that are decoded so far."""
        return self._samples / self._rate

    @property
    def lost(self) -> LostAudio | None:
        """Return what is lost of the recording; None if nothing is."""
        return self.decoder.lost

    @property
    def different_speakers(self) -> bool:
        """Return whether channels that were mixed seem to have different speakers."""
        return self._mix is not None and self._mix.different_speakers

    def __iter__(self) -> Iterator[Block]:
        blocks = iter(self.decoder)
        while True:
            with self._reading():
                block = next(blocks, None)
            if block is None:
                break
            if not len(block):  # a resampler may have nothing to give yet
                continue
            self._samples += len(block)
            if self._samples > self._max_samples:
                raise errors.AudioTooLong()
            block = self._offset.remove(block)
            self.peaks.hear(block)
            if (silent := len(block) - self._samples + self._skipped_samples) > 0:
                block = np.concatenate([np.zeros_like(block[:silent]), block[silent:]])
            yield block
        self.peaks.end()
        if not self._samples:
            raise errors.AudioUndecodable()

    def __exit__(self, *_: object) -> None:
        self.decoder.close()


def open_audio(
    fd: int,
    info: AudioInfo,
    *,
    rate: int,
    max_s: float,
    track: int | None = None,
    channel: SelectedChannel | ChannelSurvey | None = None,
    links_within_s: float = LINK_SEARCH_LIMIT_S,
    reading: Reading = nullcontext,
    skip_s: float = 0.0,
) -> DecodedAudio:
    """Decode an open file that `probe_audio` described, at ``rate`` Hz, up to ``max_s`` seconds.

    ``track``: number of the audio track, from 1; None: the first that can be decoded.
    ``channel``: the only one to decode, or the survey of all; None: they are mixed.
    ``links_within_s``: time limit for finding the links of a chained file; a probe can do without.
    ``reading``: context of each read. ``skip_s``: as of `DecodedAudio`.

    Raises:
        errors.AudioUndecodable: the decoder cannot open it.
    """
    container = next(item for item in audio_format.CONTAINERS if item.name == info.container)
    mix = ChannelMix()
    decoder: Decoder | None = None
    if info.decoder != FFMPEG_DECODER and (parts := readable_parts(fd, container)):
        decoder = WavDecoder(fd, parts, rate, channel or mix)
    decoder = decoder or ffmpeg.decode_with_ffmpeg(
        fd, container, rate, max_s + 1.0, links_within_s, track, channel or mix
    )
    return DecodedAudio(decoder, rate, max_s, mix, reading, skip_s)


def equal_blocks(blocks: Iterable[Block], samples: int) -> Iterator[Block]:
    """Yield the audio in blocks of ``samples``; the last may be shorter."""
    rest: Block = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= samples:
            yield rest[:samples]
            rest = rest[samples:]
    if len(rest):
        yield rest


def decode_audio_file(path: str | os.PathLike[str], rate: int, max_s: float = 5 * 3600) -> Block:
    """Return a whole file, shape (samples,): for tools and tests, not for the service."""
    with open(path, "rb", buffering=0) as file:
        facts = probe_audio(file.fileno(), max_s)
        with open_audio(file.fileno(), facts, rate=rate, max_s=max_s) as audio:
            return np.concatenate(list(audio))
