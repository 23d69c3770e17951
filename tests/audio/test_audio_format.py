"""What a file is, by its bytes."""

import io
import os
import random
import wave

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import FORMATS, Studio, mp4_join, wav
from uploads import upload

from sidecar.audio.audio_format import (
    CONTAINERS,
    FLAC,
    MP4,
    OGG,
    SNIFF_BYTES,
    WAV_HEAD_BYTES,
    AudioContainer,
    adts_frame_length,
    detect_container,
    media_type_of,
    mpeg_frame_length,
    wav_head,
)
from sidecar.audio.stream_links import is_truncated

CONTAINER_OF = {
    "mp2": "mp3",
    "ts": "mpegts",
    "m2ts": "mpegts",
    "mpg": "mpeg",
    "rf64": "rf64",
    "mov": "mp4",
    "wma": "asf",
}
BY_SUFFIX = {"m4a": "mp4", "mkv": "matroska", "webm": "matroska"}


@pytest.mark.parametrize("name", FORMATS)
def test_container_of_a_file_of_every_format_is_detected_by_its_first_bytes(
    name: str, studio: Studio
) -> None:
    suffix = FORMATS[name][0]
    expected = CONTAINER_OF.get(name) or BY_SUFFIX.get(suffix, suffix)
    container = detect_container(studio.bytes(name)[:SNIFF_BYTES])
    assert container is not None
    assert container.name == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", None),
        (b"RIFF\x00\x00\x00\x00AVI ", "avi"),
        (b"RIFF\x00\x00\x00\x00ACON", None),
        (b"RIFF\x00\x00\x00\x00WAVE", "wav"),
        (b"RIFX\x00\x00\x00\x00WAVE", "wav"),
        (bytes(100) + b"RIFF\x00\x00\x00\x00WAVE", "wav"),
        (b"BW64\xff\xff\xff\xffWAVE", "rf64"),
        (b"FORM\x00\x00\x00\x00AIFC", "aiff"),
        (b"FORM\x00\x00\x00\x00ILBM", None),
        (b"\x00\x00\x00\x08moov", "mp4"),
        (b"ID3\x04\x00\x00\x00\x00\x00\x02..fLaC", "flac"),
        (b"ID3\x04\x00\x00\x00\x00\x7f\x7f" + bytes(100), "mp3"),
        (b"\xff\xfb\x90\x00" + bytes(1000), None),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(1000), None),
        (b"\xff\xfe\x00\x01", None),
        (b"\xff\xff\xff\xff" * 100, None),
        (b"#EXTM3U\n", None),
        (b"FLV\x01\x05", "flv"),
        ((b"G" + bytes(187)) * 6, "mpegts"),
        (bytes(40) + (b"G" + bytes(191)) * 6, "mpegts"),
        (b"G" * 4, None),
        (bytes(300) + b"\x00\x00\x01\xba", "mpeg"),
        (b"\x0b\x77\x00\x00\x14\x40", "ac3"),
        (b"\x0b\x77\x00\xff\x14\x80", "eac3"),
    ],
)  # fmt: skip
def test_container_is_detected_from_the_first_bytes_or_is_none(
    head: bytes, expected: str | None
) -> None:
    container = detect_container(head)
    assert (container.name if container else None) == expected


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"#!AMR\n", ("audio/amr", "amr")),
        (b"#!AMR-WB\n", ("audio/amr-wb", "awb")),
        (b"\x1aE\xdf\xa3 webm", ("audio/webm", "webm")),
        (b"none", ("application/octet-stream", "bin")),
    ],
)
def test_media_type_and_file_suffix_of_a_recording_follow_its_first_bytes(
    head: bytes, kind: tuple[str, str]
) -> None:
    assert media_type_of(head) == kind


@settings(database=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda b: b"\xff\xfb" + b)))
def test_random_bytes_give_a_known_container_or_none_and_frame_lengths_up_to_8191(
    head: bytes,
) -> None:
    assert detect_container(head) in (*CONTAINERS, None)
    for length in (adts_frame_length(head), mpeg_frame_length(head)):
        assert 0 <= length <= 8191


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ("fffb9000", 417),  # MPEG-1 layer 3, 128 kbit/s, 44.1 kHz
        ("fffb9200", 418),  # the same, padded
        ("fff34800", 144),  # MPEG-2 layer 3, 32 kbit/s, 16 kHz
        ("ffe34800", 288),  # MPEG-2.5 layer 3, 32 kbit/s, 8 kHz
        ("fffd8400", 384),  # MPEG-1 layer 2, 128 kbit/s, 48 kHz
        ("ffff1400", 32),  # MPEG-1 layer 1, 32 kbit/s, 48 kHz
        ("fffbf000", 0),  # no such bit rate
        ("fffb9c00", 0),  # no such sampling rate
        ("ffeb9000", 0),  # no such version
        ("fff99000", 0),  # no such layer
        ("fefb9000", 0),  # no sync word
    ],
)
def test_mpeg_frame_length_is_that_of_the_standard_and_0_for_an_invalid_header(
    header: str, length: int
) -> None:
    assert mpeg_frame_length(bytes.fromhex(header)) == length


def test_computed_frame_lengths_lead_from_frame_to_frame_of_real_aac_and_mp3_files(
    studio: Studio,
) -> None:
    for name, frame_length in (
        ("aac", adts_frame_length),
        ("mp3-without-header", mpeg_frame_length),
    ):
        audio, position, frames = studio.bytes(name), 0, 0
        while position < len(audio):
            length = frame_length(audio[position : position + 16])
            assert length, f"{name}: no frame at {position}"
            position, frames = position + length, frames + 1
        assert frames > 20


def test_written_wav_header_has_the_given_channels_width_rate_and_frames() -> None:
    with wave.open(io.BytesIO(wav_head(22_050, 3, 6 * 100, channels=2) + bytes(600))) as read:
        assert read.getparams()[:4] == (2, 3, 22_050, 100)
    assert wav_head(8000, 4, 100, floats=True) == wav(bytes(100), tag=3, rate=8000, bits=32)[:44]


@pytest.mark.parametrize("size", [None, (1 << 32) - 1, 1 << 40])
def test_written_wav_header_has_ffffffff_for_an_unknown_or_too_large_size(size: int | None) -> None:
    head = wav_head(16_000, 2, size)
    assert len(head) == WAV_HEAD_BYTES
    assert head[4:8] == head[-4:] == b"\xff\xff\xff\xff"


def truncated(content: bytes, container: AudioContainer) -> bool:
    with upload(content) as source:
        return is_truncated(source.fd, container, len(content))


@pytest.mark.parametrize("skipped", [1, 100, 417, 1500, 8000])
@pytest.mark.parametrize(
    ("name", "container"), [("mp3-cbr", "mp3"), ("mp2", "mp3"), ("aac", "aac"), ("ac3", "ac3")]
)
def test_container_of_a_stream_cut_inside_a_frame_is_detected_by_the_next_frames(
    name: str, container: str, skipped: int, studio: Studio
) -> None:
    found = detect_container(studio.bytes(name)[skipped : skipped + SNIFF_BYTES])
    assert found is not None
    assert found.name == container


def test_random_noise_is_detected_as_no_container() -> None:
    noise = random.Random(1)
    assert not any(detect_container(noise.randbytes(SNIFF_BYTES)) for _ in range(100))


@pytest.mark.parametrize("name", ["ogg-vorbis", "ogg-opus", "ogg-flac"])
def test_ogg_that_is_empty_or_cut_anywhere_is_truncated_and_a_whole_one_is_not(
    name: str, studio: Studio
) -> None:
    content = studio.bytes(name)
    assert not truncated(content, OGG)
    for length in (*range(0, len(content), len(content) // 50), len(content) - 1):
        assert truncated(content[:length], OGG)
    assert truncated(b"OggS", OGG)
    assert truncated(b"", OGG)


@pytest.mark.parametrize("name", ["m4a", "m4a-moov-at-the-start", "m4a-fragmented", "mov"])
def test_mp4_without_its_last_byte_or_tenth_is_truncated_and_a_whole_one_is_not(
    name: str, studio: Studio
) -> None:
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
        pytest.param(mp4_join([(b"mdat", bytes(5))]) + b"TAGtitle", False, id="tag-behind"),
    ],
)
def test_mp4_is_truncated_if_a_box_claims_more_bytes_than_there_are(
    content: bytes, expected: bool
) -> None:
    assert truncated(content, MP4) is expected


def test_cut_file_of_a_container_without_a_length_is_not_called_truncated(studio: Studio) -> None:
    assert not truncated(studio.bytes("flac")[:1000], FLAC)


@pytest.mark.skipif(not hasattr(os, "pread"), reason="this system cannot read without moving")
@pytest.mark.parametrize(("name", "container"), [("ogg-opus", OGG), ("m4a", MP4)], ids=str)
def test_truncation_check_does_not_move_the_file_position(
    name: str, container: AudioContainer, studio: Studio
) -> None:
    with studio.path(name).open("rb", buffering=0) as file:
        file.seek(7)
        assert not is_truncated(file.fileno(), container, os.fstat(file.fileno()).st_size)
        assert file.tell() == 7
