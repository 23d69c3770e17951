"""What is read from ffmpeg's log and pipe: blocks of a Matroska stream, holes between them."""

import io

import pytest

from sidecar.audio.ffmpeg_output import AudioTrack, FfmpegLog, HoleFinder, TimedOutput
from sidecar.errors import AudioFormatUnsupported

HEADER = """\
[info] Input #0, mpegts, from 'file:/dev/fd/0':
[info]   Duration: 01:00:30.50, start: 1.440000, bitrate: 87 kb/s
[info]   Stream #0:0[0x100]: Video: mpeg2video (Main), none, 64x48, 25 fps, start 1.440000
[info]   Stream #0:1[0x101](ger): Audio: aac (LC), 16000 Hz, mono, fltp, start 5.376000 (default)
[info]     Metadata:
[info]       title           : Director: a comment
[info]   Stream #0:2(und): Audio: ac3, 48000 Hz, 5.1(side), s16p
[info]   Stream #0:3(und): Video: mpeg2video (Main), none, 64x48, 25 fps
[info]     Metadata:
[info]       title           : The picture
[info] Stream mapping:
[info]   Stream #0:0: Audio: pcm_f32be, 16000 Hz, mono, flt, 512 kb/s
"""


def log_of(text: str) -> FfmpegLog:
    log = FfmpegLog()
    for line in text.splitlines():
        log.read(line)
    return log


def test_length_start_and_tracks_of_a_file_are_read_from_ffmpegs_log() -> None:
    log = log_of(HEADER)
    assert (log.total_s, log.start_s, log.is_estimate) == (3630.5, 1.44, False)
    assert log.tracks == [
        AudioTrack("ger", True, 5.376, 1, "Director: a comment"),
        AudioTrack(None, False, 0.0, 6),
    ]
    assert (log.described, log.complaints) == (True, 0)


def test_length_that_ffmpeg_estimates_by_the_bit_rate_is_marked_as_an_estimate() -> None:
    warning = "[mp3 @ 0x1] [warning] Estimating duration from bitrate, this may be inaccurate\n"
    assert log_of(warning + HEADER).is_estimate


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[mov @ 0x1] [error] moov atom not found", "no index"),
        ("[fatal] Stream map '0:a:0' matches no streams.", "no audio track"),
        ("[error] Invalid data found when processing input", "damaged"),
    ],
)
def test_error_line_of_ffmpeg_gives_the_reason_in_the_error_detail(line: str, reason: str) -> None:
    log = log_of(line)
    assert log.complaints == 1
    assert reason in log.error.detail


def test_codec_outside_our_whitelist_is_not_counted_as_an_ffmpeg_error() -> None:
    assert log_of("[h264 @ 0x1] [error] Codec (h264) not on whitelist 'aac'").complaints == 0


def test_codec_whose_decoder_has_another_name_is_called_unsupported() -> None:
    log = log_of(
        "[real_144 @ 0x1] [error] Codec (real_144) not on whitelist 'aac'\n"
        "[info]   Stream #0:0: Audio: ra_144 (real_144), 8000 Hz, mono\n"
        "[fatal] Error opening output files: Invalid argument"
    )
    assert isinstance(log.error, AudioFormatUnsupported)
    assert "real_144" in log.error.detail


RATE = 16_000


def element(name: str, body: bytes, size_bytes: int = 4) -> bytes:
    size = len(body) | 1 << 7 * size_bytes
    return bytes.fromhex(name) + size.to_bytes(size_bytes) + body


def stream(*clusters: tuple[int, list[tuple[int, bytes]]]) -> bytes:
    """Times of clusters, and of blocks after them, in milliseconds."""
    track = element("ae", element("d7", b"\1", 1) + element("e1", element("9f", b"\2", 8)))
    found = element("1654ae6b", element("ec", bytes(9)) + track)
    for time, blocks in clusters:
        inside = element("e7", time.to_bytes(3), 1)
        for number, (after, data) in enumerate(blocks):
            block = b"\x81" + after.to_bytes(2, signed=True) + b"\x80" + data
            plain = element("a3", block, 3)
            inside += plain if number % 2 else element("a0", element("a1", block))
        found += element("1f43b675", inside)
    return element("1a45dfa3", bytes(20)) + bytes.fromhex("18538067") + b"\xff" + found


CONTENT = stream((0, [(0, b"ab"), (20, b"cd")]), (900_000, [(-5, b"ef"), (40, b"")]))


def test_matroska_blocks_are_read_with_their_times() -> None:
    output = TimedOutput(io.BytesIO(CONTENT).read)
    assert output.channels == 2
    assert list(output.blocks()) == [(0.0, b"ab"), (0.02, b"cd"), (899.995, b"ef"), (900.04, b"")]


@pytest.mark.parametrize("length", range(len(CONTENT)))
def test_matroska_stream_cut_at_any_byte_is_read_up_to_the_cut(length: int) -> None:
    output = TimedOutput(io.BytesIO(CONTENT[:length]).read)
    whole = list(TimedOutput(io.BytesIO(CONTENT).read).blocks())
    found = list(output.blocks())
    assert found[:-1] == whole[: max(0, len(found) - 1)]


@pytest.mark.parametrize(
    ("times", "holes"),
    [
        pytest.param([0.0, 1.0, 2.0], [0, 0, 0], id="none"),
        pytest.param([4.0, 5.0, 9.5], [4.0, 0, 3.5], id="late-start-and-hole"),
        pytest.param([0.0, 1.05, 1.95, 3.09], [0, 0, 0, 0], id="jitter"),
        pytest.param([0.0, 2000.0, 2001.0], [0, 1999.0, 0], id="long"),
        pytest.param([0.0, 1.0, 9000.0, 9003.0], [0, 0, 0, 2.0], id="clock-set-forward"),
        pytest.param([100.0, 101.0, 0.0, 3.0], [100.0, 0, 0, 2.0], id="clock-set-back"),
    ],
)
def test_hole_between_blocks_has_its_length_unless_the_clock_was_set(
    times: list[float], holes: list[float]
) -> None:
    finder = HoleFinder(RATE, 3600)
    assert [finder.before(time, RATE) / RATE for time in times] == holes
