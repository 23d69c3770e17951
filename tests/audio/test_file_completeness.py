"""Whether a file ends where its own structure says."""

from __future__ import annotations

import os
import tempfile

import pytest
from recordings import Studio, mp4_join, wav

from sidecar.audio.audio_format import FLAC, MP4, OGG, WAV, AudioContainer, is_truncated


def truncated(content: bytes, container: AudioContainer) -> bool:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return is_truncated(file.fileno(), container)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(wav(bytes(100)), False, id="whole"),
        pytest.param(wav(bytes(100)) + b"LIST\x04\x00\x00\x00abcd", False, id="chunk-behind"),
        pytest.param(wav(bytes(100), claimed=101), True, id="a-byte-short"),
        pytest.param(wav(bytes(100), claimed=1 << 31), True, id="2-GB-claimed"),
        pytest.param(wav(bytes(100), claimed=0xFFFFFFFF), False, id="streamed"),
        pytest.param(wav(bytes(100), claimed=0), False, id="never-corrected"),
        pytest.param(wav(bytes(100))[:40], False, id="no-data-chunk"),
        pytest.param(b"RIFF\x00\x00\x00\x00WAVE", False, id="no-chunks"),
        pytest.param(
            b"RIFF\x00\x00\x00\x00WAVE" + b"junk\x00\x00\x00\x00" * 1000, False, id="many-chunks"
        ),
        pytest.param(
            b"RIFF\x00\x00\x00\x00WAVEjunk\x03\x00\x00\x00abc\0data\x04\x00\x00\x00ab",
            True,
            id="odd-chunk",
        ),
    ],
)
def test_a_wav_is_measured_by_its_data_chunk(content: bytes, expected: bool) -> None:
    assert truncated(content, WAV) is expected


@pytest.mark.parametrize("name", ["ogg-vorbis", "ogg-opus", "ogg-flac"])
def test_an_ogg_ends_with_a_page_that_says_so(name: str, studio: Studio) -> None:
    content = studio.bytes(name)
    assert not truncated(content, OGG)
    for length in (*range(0, len(content), len(content) // 50), len(content) - 1):
        assert truncated(content[:length], OGG)
    assert truncated(b"OggS", OGG)
    assert truncated(b"", OGG)


@pytest.mark.parametrize("name", ["m4a", "m4a-moov-at-the-start", "m4a-fragmented", "mov"])
def test_an_mp4_is_measured_by_its_boxes(name: str, studio: Studio) -> None:
    content = studio.bytes(name)
    assert not truncated(content, MP4)
    assert truncated(content[:-1], MP4)
    assert truncated(content[: len(content) * 9 // 10], MP4)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", False, id="empty"),
        pytest.param(b"\0\0\0\x08", False, id="half-a-header"),
        pytest.param(b"\0\0\0\x08free" * 10_000, False, id="many-boxes"),
        pytest.param(b"\0\0\0\x00mdat" + bytes(9), False, id="up-to-the-end"),
        pytest.param(b"\0\0\0\x01mdat" + (26).to_bytes(8) + bytes(9), True, id="64-bit-short"),
        pytest.param(b"\0\0\0\x01mdat" + (25).to_bytes(8) + bytes(9), False, id="64-bit-whole"),
        pytest.param(b"\0\0\0\x03mdat" + bytes(9), False, id="smaller-than-its-header"),
        pytest.param(mp4_join([(b"free", bytes(5))])[:-1], True, id="a-byte-short"),
        pytest.param(b"\xff\xff\xff\xffmdat", True, id="4-GB"),
    ],
)
def test_boxes_of_any_size_are_counted(content: bytes, expected: bool) -> None:
    assert truncated(content, MP4) is expected


def test_where_the_format_does_not_tell_nothing_is_claimed(studio: Studio) -> None:
    assert not truncated(studio.bytes("flac")[:1000], FLAC)


@pytest.mark.skipif(not hasattr(os, "pread"), reason="this system cannot read without moving")
@pytest.mark.parametrize(
    ("name", "container"), [("wav-s16", WAV), ("ogg-opus", OGG), ("m4a", MP4)], ids=str
)
def test_looking_does_not_move_the_reader(
    name: str, container: AudioContainer, studio: Studio
) -> None:
    with studio.path(name).open("rb", buffering=0) as file:
        file.seek(7)
        assert not is_truncated(file.fileno(), container)
        assert file.tell() == 7
