"""Where the samples of WAV files are, whatever their headers claim."""

import struct

import pytest
from recordings import wav
from uploads import upload

from sidecar.audio.file_layout import WavPart, read_wav_parts

SAMPLES = struct.pack("<h", 1000) * 500
LIST = b"LIST\x04\x00\x00\x00abcd"


def parts_of(content: bytes) -> list[WavPart]:
    with upload(content) as source:
        return read_wav_parts(source.fd)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(wav(bytes(100)), False, id="whole"),
        pytest.param(wav(bytes(100)) + LIST, False, id="chunk-behind"),
        pytest.param(wav(bytes(100), claimed=101), True, id="a-byte-short"),
        pytest.param(wav(bytes(100), claimed=1 << 30), True, id="1-GB-claimed"),
        pytest.param(wav(bytes(100), claimed=0xFFFFFFFF), False, id="streamed"),
        pytest.param(wav(bytes(100), claimed=0x80000000), False, id="arecord"),
        pytest.param(wav(bytes(100), claimed=0x7FFFFFFF - 36), False, id="2-GB-less-a-header"),
        pytest.param(wav(bytes(100), claimed=0), False, id="never-corrected"),
        pytest.param(
            b"RIFF\x00\x00\x00\x00WAVEjunk\x03\x00\x00\x00abc\0data\x04\x00\x00\x00ab",
            True,
            id="odd-chunk",
        ),
    ],
)
def test_wav_is_truncated_if_its_data_chunk_claims_more_bytes_but_for_placeholders(
    content: bytes, expected: bool
) -> None:
    (part,) = parts_of(content)
    assert part.is_short is expected


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(wav(bytes(100))[:40], id="no-data-chunk"),
        pytest.param(b"RIFF\x00\x00\x00\x00WAVE", id="no-chunks"),
        pytest.param(b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 2000, id="many-chunks"),
        pytest.param(b"", id="empty"),
    ],
)
def test_wav_without_samples_has_no_part(content: bytes) -> None:
    assert parts_of(content) == []


@pytest.mark.parametrize("claimed", [0, 8, 200, 900, 1000, 1 << 20, 0x7FFFF000, 0xFFFFFFFF])
def test_wav_samples_reach_to_the_end_of_the_file_whatever_size_the_header_claims(
    claimed: int,
) -> None:
    (part,) = parts_of(wav(SAMPLES, claimed=claimed))
    assert (part.frames, part.is_continued) == (500, claimed < 1000)


@pytest.mark.parametrize(
    "behind", [LIST, LIST + b"cue \x02\x00\x00\x00ab", b"junk\1\0\0\0a\0", b"ID3 \1\0\0\0a\0"]
)
def test_wav_chunks_behind_the_samples_are_no_samples(behind: bytes) -> None:
    (part,) = parts_of(wav(SAMPLES) + behind)
    assert part.frames == 500


@pytest.mark.parametrize("lost", [1, 2, 5000])
@pytest.mark.parametrize("name", [b"id3 ", b"LIST", b"ID3 ", b"iXML", b"bext"])
def test_chunk_behind_the_samples_whose_end_is_missing_is_no_samples(
    name: bytes, lost: int
) -> None:
    cut = name + struct.pack("<I", 9000) + b"\xd8\x7f" * 4500
    (part,) = parts_of(wav(SAMPLES) + LIST + cut[:-lost])
    assert (part.frames, part.is_continued, part.is_short) == (500, False, False)


@pytest.mark.parametrize("present", [0, 101, 5000, (1 << 16) - 6, 1 << 20])
def test_wav_behind_a_chunk_whose_end_is_missing_is_a_part(present: int) -> None:
    cut = b"id3 " + struct.pack("<I", 1 << 24) + b"\xd8" * present
    first, second, third = parts_of(
        wav(SAMPLES) + LIST + cut + wav(SAMPLES, rate=8000) + cut + wav(SAMPLES)
    )
    assert [part.frames for part in (first, second, third)] == [500] * 3
    assert [part.rate for part in (first, second, third)] == [16_000, 8000, 16_000]


def test_ogg_behind_a_wav_chunk_whose_end_is_missing_is_a_part_without_channels() -> None:
    ogg = b"OggS\0\2" + bytes(100)
    _, rest = parts_of(wav(SAMPLES) + b"LIST\xff\xff\0\0" + b"a" * 10 + ogg)
    assert (rest.channels, rest.claimed_bytes) == (0, len(ogg))


def test_wav_chunk_of_any_name_without_its_last_byte_is_no_samples_and_hides_no_wav() -> None:
    for behind in (b"what\x04\0\0\0abc", b"what\x04\0\0\0abc" + wav(SAMPLES)):
        parts = parts_of(wav(SAMPLES) + behind)
        assert [part.frames for part in parts] == [500] * behind.count(b"RIFF") + [500]


def test_samples_that_look_like_a_chunk_with_a_length_beyond_the_end_are_samples() -> None:
    (part,) = parts_of(wav(SAMPLES + b"what\xff\0\0\0" + SAMPLES, claimed=1000))
    assert part.frames == 1004


def test_wav_files_joined_are_parts_with_their_own_headers() -> None:
    first, second, third = parts_of(
        wav(SAMPLES) + wav(SAMPLES, rate=8000) + LIST + wav(SAMPLES * 2, channels=2)
    )
    assert [part.frames for part in (first, second, third)] == [500] * 3
    assert [part.rate for part in (first, second, third)] == [16_000, 8000, 16_000]
    assert third.channels == 2


def test_each_of_many_joined_wav_files_is_a_part() -> None:
    parts = parts_of((wav(SAMPLES) + LIST) * 1500)
    assert [part.frames for part in parts] == [500] * 1500


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(wav(bytes(2)) * 5000, id="parts"),
        pytest.param((wav(bytes(2)) + b"junk\0\0\0\0" * 40) * 200, id="chunks-of-parts"),
        pytest.param(wav(bytes(2)) + b"junk\0\0\0\0" * 2000 + wav(SAMPLES), id="chunks"),
        pytest.param(wav(SAMPLES) + wav(SAMPLES)[:40], id="header-cut-off"),
        pytest.param(wav(SAMPLES) + b"id3 \0\0\0\x04" + bytes(33 << 20), id="chunk-cut-off"),
    ],
)
def test_rest_of_a_wav_beyond_the_parsing_limits_is_a_part_without_channels(content: bytes) -> None:
    parts = parts_of(content)
    assert len(parts) < 4100
    assert [part.channels for part in parts] == [1] * (len(parts) - 1) + [0]


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(b"LIST\x03\x00\x00\x00abc\x00", id="padded"),
        pytest.param(b"LIST\x03\x00\x00\x00abc", id="not-padded"),
    ],
)
def test_odd_chunk_is_skipped_with_and_without_its_pad_byte(before: bytes) -> None:
    plain = wav(SAMPLES)
    (part,) = parts_of(plain[:12] + before + plain[12:])
    assert (part.frames, part.rate) == (500, 16_000)


def test_extensible_header_has_the_encoding_of_its_subformat() -> None:
    plain = wav(SAMPLES)
    subformat = struct.pack("<HHIH14x", 22, 16, 0, 1)
    layout = struct.pack("<H", 0xFFFE) + plain[22:36] + subformat
    (part,) = parts_of(plain[:16] + struct.pack("<I", len(layout)) + layout + plain[36:])
    assert (part.is_plain, part.frames, part.rate) == (True, 500, 16_000)


def test_rf64_has_the_size_of_its_ds64_chunk_or_all_samples() -> None:
    plain = b"RF64" + wav(SAMPLES, claimed=0xFFFFFFFF)[4:]
    (part,) = parts_of(plain)
    assert part.frames == 500
    sizes = b"ds64" + struct.pack("<IQQQI", 28, 2000, 600, 300, 0)
    (part,) = parts_of(plain[:12] + sizes + plain[12:] + LIST)
    assert part.claimed_bytes == 600


def test_wav_header_is_found_behind_zeros_or_an_id3_tag() -> None:
    for before in (bytes(1000), b"ID3\x04\x00\x00\x00\x00\x00\x02ab"):
        (part,) = parts_of(before + wav(SAMPLES))
        assert part.frames == 500
