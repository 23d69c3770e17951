"""What is destroyed between the frames of a recording: decoders leave it out without a word."""

from sidecar.audio.audio_format import (
    AC3,
    ADTS,
    DTS,
    FRAME_LENGTHS,
    MP3,
    OGG,
    SNIFF_BYTES,
    WAV,
    WAVPACK,
    AudioContainer,
    find_frames,
    read_file_at,
)
from sidecar.audio.file_layout import WavPart, read_wav_parts
from sidecar.audio.stream_links import ogg_step, tag_length

_MAX_STEPS = 1 << 16
_STEP_BYTES = 27 + 255
"""Head of a page of Ogg with the greatest number of segments."""
_SIGNS = {OGG: (b"OggS", 65_307), WAVPACK: (b"wvpk", 0)}
"""First bytes of a page or a block, and the longest hole behind which ffmpeg goes on."""
_HEADER_BYTES = 32
_CODECS = {0x50: MP3, 0x55: MP3, 0x1600: ADTS, 0x2000: AC3, 0x2001: DTS}
"""Codecs in frames by the format tag of a WAV file (RFC 2361)."""
_IMA_ADPCM, _OTHER_ADPCM = 0x11, {0x02, 0x14, 0x40, 0x45, 0x64}
"""IMA's has zeros in silence; the others (Microsoft's, G.721 to G.726) have none anywhere."""
_IMA_CHANGES, _MAX_IMA_STEP = (-1, -1, -1, -1, 2, 4, 6, 8), 88
_MAX_SILENT_STEP = 16
"""Greatest number of a step of IMA's ADPCM in which silence begins; that of speech is 20 to 60."""
_MIN_BLOCK_BYTES, _READ_BLOCKS = 256, 1024


def intact_parts(fd: int, container: AudioContainer, begin: int, end: int) -> list[tuple[int, int]]:
    """Return begin and end of the parts of a recording between holes behind which ffmpeg does not
    look for the next page, or block; one part for other formats."""
    parts, at = [], begin
    sign, longest = _SIGNS.get(container, (b"", 0))
    for _ in range(_MAX_STEPS if sign else 0):
        head = read_file_at(fd, at, _STEP_BYTES)
        length = ogg_step(head) if container is OGG else _wavpack_step(head)
        if length and at < end:
            at += length
            continue
        following = _find_sign(fd, sign, at, end)
        if following is None:  # also behind the end
            break
        if following - at > longest:
            parts.append((begin, at))
            begin = following
        at = following
    return [*parts, (begin, end)]


def _wavpack_step(head: bytes) -> int:
    return 8 + int.from_bytes(head[4:8], "little") if head[:4] == b"wvpk" else 0


def _find_sign(fd: int, sign: bytes, at: int, end: int) -> int | None:
    while at < end:
        data = read_file_at(fd, at, min(SNIFF_BYTES, end - at))
        if (found := data.find(sign)) >= 0:
            return at + found
        at += max(1, len(data) - len(sign) + 1)
    return None


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
    if part.encoding in (_IMA_ADPCM, *_OTHER_ADPCM):
        return _zero_blocks(fd, part), max(1, part.present_bytes)
    return 0, 1


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
    """Return the bytes of the blocks of zeros that do not begin in silence."""
    size, count = max(part.frame_bytes, _MIN_BLOCK_BYTES), 0
    before, silent = b"", True
    for begin in range(part.start, part.start + part.present_bytes, size * _READ_BLOCKS):
        data = read_file_at(fd, begin, size * _READ_BLOCKS)
        for at in range(0, len(data), size):
            block = data[at : at + size]
            if any(block):
                before = block
                continue
            if before:
                silent = part.encoding == _IMA_ADPCM and _ends_in_silence(before, part.channels)
                before = b""
            count += 0 if silent else size
    return count


def _ends_in_silence(block: bytes, channels: int) -> bool:
    """Return whether the first channel of a block of IMA's ADPCM is silent where its zeros begin:
    its step has become small, by nibbles that are not all zero."""
    words = range(4 * channels, len(block), 4 * channels)
    step = int.from_bytes(block[2:3])
    for byte in b"".join(block[at : at + 4] for at in words).rstrip(b"\0"):
        for nibble in (byte, byte >> 4):
            step = min(max(step + _IMA_CHANGES[nibble & 7], 0), _MAX_IMA_STEP)
    return step <= _MAX_SILENT_STEP
