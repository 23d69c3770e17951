"""Plain wav is judged by its header alone; whatever is not plain goes to a decoder."""

import tempfile

import pytest
from recordings import Studio, wav

from sidecar.audio.audio_info import AudioInfo, probe_plain_wav

SECOND = bytes(32_000)


def glanced(content: bytes, max_s: float = 10.0) -> AudioInfo | None:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return probe_plain_wav(file.fileno(), max_s)


@pytest.mark.parametrize("claimed", [None, 0, 1000, 1 << 30, 0x80000000, 0xFFFFFFFF])
def test_duration_of_plain_wav_is_that_of_its_data_whatever_the_header_claims(
    claimed: int | None,
) -> None:
    assert glanced(wav(SECOND, claimed=claimed)) == AudioInfo("wav", "pcm", 1.0)


@pytest.mark.parametrize(
    "content",
    [
        wav(b""),
        wav(SECOND * 11),
        wav(SECOND)[:40],
        b"",
        b"RIFF",
        b"not audio at all",
        wav(bytes(2)) * 200,
    ],
    ids=["no samples", "too long", "no data chunk", "empty", "four bytes", "text", "many parts"],
)
def test_file_that_is_no_plain_wav_or_too_long_is_left_to_decoder(content: bytes) -> None:
    assert glanced(content) is None


@pytest.mark.parametrize("name", ["flac", "ogg-opus", "m4a"])
def test_flac_opus_and_m4a_are_left_to_decoder(name: str, studio: Studio) -> None:
    assert glanced(studio.bytes(name)) is None
