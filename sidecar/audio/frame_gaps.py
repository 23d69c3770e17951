"""What is destroyed between the frames of a recording: decoders leave it out without a word."""

from sidecar.audio.audio_format import (
    AC3,
    ADTS,
    DTS,
    FRAME_LENGTHS,
    MP3,
    SNIFF_BYTES,
    WAV,
    AudioContainer,
    find_frames,
    read_file_at,
)
from sidecar.audio.file_layout import WavPart, read_wav_parts
from sidecar.audio.stream_links import tag_length

_MAX_STEPS = 1 << 16
_HEADER_BYTES = 32
_CODECS = {0x50: MP3, 0x55: MP3, 0x1600: ADTS, 0x2000: AC3, 0x2001: DTS}
"""Codecs in frames by the format tag of a WAV file (RFC 2361)."""
_MS_ADPCM = 2
"""No block of it is zero: its step is at least 16."""
_READ_BLOCKS = 256


def count_destroyed(fd: int, container: AudioContainer, begin: int, end: int) -> tuple[int, int]:
    """Return how many bytes of an open file, from ``begin`` to ``end``, are destroyed, and how many
    were decoded; (0, 1) if the format does not show that."""
    if container is not WAV:
        return _between_frames(fd, container, begin, end)
    part = next((one for one in read_wav_parts(fd) if one.begin == begin or not begin), None)
    if part is None:
        return 0, 1
    if codec := _CODECS.get(part.encoding):
        return _between_frames(fd, codec, part.start, part.start + part.present_bytes)
    return (_zero_blocks(fd, part), part.present_bytes) if part.encoding == _MS_ADPCM else (0, 1)


def _between_frames(fd: int, container: AudioContainer, at: int, end: int) -> tuple[int, int]:
    """Return the bytes between frames that are no tags, and those of the frames."""
    frame_length = FRAME_LENGTHS[container]
    frames = destroyed = 0
    last = at
    """End of the last frame, or of the tags behind it."""
    for _ in range(_MAX_STEPS):
        head = read_file_at(fd, at, min(SNIFF_BYTES, max(0, end - at)))
        step = 0
        while length := frame_length(head[step : step + _HEADER_BYTES]):
            step += length
        if step:
            destroyed += at - last if frames else 0
            frames += step
        else:
            step = tag_length(head[:_HEADER_BYTES])
        if step:
            at = last = at + step
        elif (found := find_frames(head, container)) is not None:
            at += found
        elif len(head) < SNIFF_BYTES:
            break
        else:
            at += len(head) // 2  # the first frames may be cut off here
    return destroyed, max(1, frames)


def _zero_blocks(fd: int, part: WavPart) -> int:
    size, count = max(1, part.frame_bytes), 0
    for at in range(part.start, part.start + part.present_bytes, size * _READ_BLOCKS):
        data = read_file_at(fd, at, size * _READ_BLOCKS)
        count += sum(not any(data[one : one + size]) for one in range(0, len(data), size))
    return count * size
