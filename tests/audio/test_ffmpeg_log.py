"""What is read from ffmpeg's log."""

from __future__ import annotations

import pytest

from sidecar.audio.ffmpeg_log import AudioTrack, FfmpegLog

HEADER = """\
[info] Input #0, mpegts, from 'file:/dev/fd/0':
[info]   Duration: 01:00:30.50, start: 1.440000, bitrate: 87 kb/s
[info]   Stream #0:0[0x100]: Video: mpeg2video (Main), none, 64x48, 25 fps, start 1.440000
[info]   Stream #0:1[0x101](ger): Audio: aac (LC), 16000 Hz, mono, fltp, start 5.376000 (default)
[info]   Stream #0:2(und): Audio: mp2, 48000 Hz, stereo, s16p
[info] Stream mapping:
[info]   Stream #0:0: Audio: pcm_f32be, 16000 Hz, mono, flt, 512 kb/s
"""


def log_of(text: str) -> FfmpegLog:
    log = FfmpegLog()
    for line in text.splitlines():
        log.read(line)
    return log


def test_length_start_and_tracks_are_those_of_the_input() -> None:
    log = log_of(HEADER)
    assert (log.total_s, log.start_s, log.is_estimate) == (3630.5, 1.44, False)
    assert log.tracks == [AudioTrack("ger", True, 5.376), AudioTrack(None, False, 0.0)]
    assert (log.described, log.complaints) == (True, 0)


def test_length_by_bit_rate_is_an_estimate() -> None:
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
def test_error_names_the_reason(line: str, reason: str) -> None:
    log = log_of(line)
    assert log.complaints == 1
    assert reason in log.error.detail


def test_decoders_excluded_on_purpose_are_no_complaint() -> None:
    assert log_of("[h264 @ 0x1] [error] Codec (h264) not on whitelist 'aac'").complaints == 0
