"""Recordings as recorders and people leave them: joined, cut, streamed, with lies in the header."""

import base64
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recordings import SECONDS, Studio, wav
from uploads import decoded, decoded_and_lost, probed, upload

from sidecar import errors
from sidecar.audio import ffmpeg_command, stream_links
from sidecar.audio.audio_decoder import open_audio
from sidecar.audio.audio_format import MP3

RATE = 16_000
PICTURE = (
    *("-f", "lavfi", "-i", "color=size=64x48:rate=25:duration=12"),
    *("-map", "1:v", "-map", "0:a"),
)
PLAIN_MP3 = ("-c:a", "libmp3lame", "-b:a", "64k", "-id3v2_version", "0")


@pytest.fixture
def encoded(studio: Studio) -> Callable[..., bytes]:
    """Encodes the clip by ffmpeg with these arguments to a file that ends in ``suffix``."""

    def encode(suffix: str, *args: object, before: tuple[object, ...] = ()) -> bytes:
        name = f"as-found-{abs(hash((suffix, args, before)))}.{suffix}"
        return studio.make(name, *before, "-i", studio.voice, *args).read_bytes()

    return encode


Encode = Callable[..., bytes]


def check(found: tuple[np.ndarray, bool], seconds: float, tolerance_s: float = 0.2) -> None:
    samples, truncated = found
    assert len(samples) / RATE == pytest.approx(seconds, abs=tolerance_s)
    assert not truncated


def onset_s(samples: np.ndarray) -> float:
    return float(np.argmax(np.abs(samples) > 0.05)) / RATE


def test_mp3_of_variable_rate_without_count_has_the_length_of_its_frames(encoded: Encode) -> None:
    check(decoded(encoded("mp3", "-q:a", 5, "-write_xing", 0)), SECONDS)


CENC = (
    *("-c:a", "aac", "-encryption_scheme", "cenc-aes-ctr"),
    *("-encryption_key", "00112233445566778899aabbccddeeff"),
    *("-encryption_kid", "ffeeddccbbaa99887766554433221100"),
)
FRAGMENTS = ("-movflags", "frag_keyframe+empty_moov")
IN_TRACK = b"\x6d\x80\xa5\x62\x40\xa2\x50\x35\x9f"
"""ContentEncodings, ContentEncoding, ContentEncryption, of 31 bytes."""


@pytest.mark.parametrize(
    ("suffix", "arguments", "plain", "protected"),
    [
        pytest.param("m4a", CENC, b"", b"", id="common encryption"),
        pytest.param("mp4", (*CENC, *FRAGMENTS), b"", b"", id="fragments"),
        pytest.param("m4a", (*CENC, *FRAGMENTS), b"enca", b"drms", id="Apple"),
        pytest.param("m4b", (*CENC, *FRAGMENTS), b"enca", b"aavd", id="Audible"),
        pytest.param(
            "wma",
            ("-metadata", "title=x"),
            bytes.fromhex("3326b2758e66cf11a6d900aa0062ce6c"),
            bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
            id="Windows Media",
        ),
        pytest.param(
            "webm",
            ("-metadata:s:a", f"title={'x' * 37}"),
            b"\x53\x6e\xa5" + b"x" * 6,
            IN_TRACK,
            id="WebM",
        ),
    ],
)
def test_protected_recording_is_said_to_be_encrypted_and_not_damaged(
    suffix: str, arguments: tuple[object, ...], plain: bytes, protected: bytes, encoded: Encode
) -> None:
    content = encoded(suffix, *arguments)
    assert plain in content
    for before in (b"", b"HTTP/1.0 200 OK\r\n\r\n"):
        with pytest.raises(errors.AudioUndecodable, match=r"protected \(DRM\)"):
            decoded(before + content.replace(plain, protected, 1))


def test_scrambled_recording_of_pay_tv_is_said_to_be_encrypted(encoded: Encode) -> None:
    content = bytearray(encoded("ts", "-c:a", "mp2"))
    check(decoded(bytes(content)), SECONDS)
    for at in range(0, len(content), 188):
        if content[at + 1] & 0x1F == 1:  # of the track, whose packets have the numbers from 256
            content[at + 3] |= 0x80
            begin = at + 4 + (1 + content[at + 4] if content[at + 3] & 0x20 else 0)
            rest = np.random.default_rng(at).bytes(at + 188 - begin)
            content[begin : at + 188] = rest
    with pytest.raises(errors.AudioUndecodable, match=r"protected \(DRM\)"):
        decoded(bytes(content))


def test_recording_whose_title_names_a_protection_is_none(encoded: Encode) -> None:
    check(decoded(encoded("m4a", "-metadata", "title=stsd enca drms aavd cenc")), SECONDS)


@pytest.mark.parametrize("count", [0, 1, 50, 1_000_000])
def test_mp3_with_a_false_count_has_the_length_of_its_frames(count: int, encoded: Encode) -> None:
    content = bytearray(encoded("mp3", "-q:a", 5))
    position = content.index(b"Xing") + 8
    content[position : position + 4] = count.to_bytes(4)
    check(decoded(bytes(content)), SECONDS)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(PLAIN_MP3, id="alike"),
        pytest.param(("-c:a", "libmp3lame", "-metadata", "title=x"), id="tag-between"),
        pytest.param(("-c:a", "libmp3lame", "-ar", 44_100, "-ac", 2), id="rate-and-channels"),
    ],
)
def test_joined_mp3_files_are_decoded_to_the_end(
    second: tuple[object, ...], encoded: Encode
) -> None:
    check(decoded(encoded("mp3", *PLAIN_MP3) + encoded("mp3", *second)), 2 * SECONDS, 0.3)


@pytest.mark.parametrize("skipped", [1, 700, 1500])
def test_mp3_that_begins_inside_a_frame_is_decoded_from_the_next(
    skipped: int, encoded: Encode
) -> None:
    check(decoded(encoded("mp3", *PLAIN_MP3)[skipped:]), SECONDS, 0.3)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("ac3", "ac3"), ("eac3", "eac3"), ("dts", "dca"), ("aac", "aac")]
)
def test_stream_that_begins_inside_a_frame_or_behind_garbage_is_decoded(
    suffix: str, codec: str, encoded: Encode
) -> None:
    content = encoded(suffix, "-c:a", codec, "-ar", 44_100, "-strict", -2, "-ac", 2)
    for piece in (content[777:], np.random.default_rng(1).bytes(20_000) + content):
        check(decoded(piece), SECONDS, 0.3)


@pytest.mark.slow_except("wav-", "webm-")
@pytest.mark.parametrize(
    "before", [b"HTTP/1.0 200 OK\r\n\r\n", b"ID3\4\0\0\0\0\0\2ab", bytes(9999)]
)
@pytest.mark.parametrize("suffix", ["wav", "m4a", "aiff", "ogg", "webm"])
def test_recording_behind_a_tag_zeros_or_http_headers_is_decoded(
    suffix: str, before: bytes, encoded: Encode
) -> None:
    check(decoded(before + encoded(suffix)), SECONDS)


JOINED = {
    **dict.fromkeys(("aiff", "caf", "w64", "tta", "voc", "au", "wv", "flac", "m4a"), ()),
    "amr": ("-c:a", "libopencore_amrnb", "-ar", 8000),
    "wav": ("-c:a", "adpcm_ms"),
}


@pytest.mark.slow_except("flac", "m4a", "wav", "aiff")
@pytest.mark.parametrize("suffix", JOINED)
def test_joined_files_of_any_format_are_decoded_to_the_end(suffix: str, encoded: Encode) -> None:
    one = encoded(suffix, *JOINED[suffix])
    check(decoded(one + one), 2 * SECONDS, 0.3)
    check(decoded(one + encoded("webm", "-c:a", "libopus")), 2 * SECONDS, 0.3)


FILMS: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("mkv", "avi", "ts", "m2ts", "wma", "mp4"), ()),
    "flv": ("-ar", 22_050),
    "mpg": ("-c:a", "mp2"),
    "webm": ("-live", 1),
    "ogv": PICTURE,
}


@pytest.mark.slow_except(
    *("wav-mp3", "[m4a-aac", "[aac-ogg", "mkv-m4a", "avi-mp3", "[ts-aac", "m2ts-ogg", "wma-m4a"),
    *("mp4-mp3", "flv-aac", "mpg-ogg", "webm-m4a", "ogv-mp3"),
)
@pytest.mark.parametrize("second", ["mp3", "aac", "ogg", "m4a"])
@pytest.mark.parametrize("first", ["wav", "m4a", "aac", *FILMS])
def test_joined_files_of_different_formats_are_decoded_to_the_end(
    first: str, second: str, encoded: Encode
) -> None:
    film = encoded(first, *FILMS.get(first, ()))
    check(decoded(film + encoded(second)), 2 * SECONDS, 0.3)
    check(decoded(film * 2 + encoded(second)), 3 * SECONDS, 0.5)


TAGS = {
    "frame": b"",
    "id3v1": b"TAG" + bytes(125),
    "extended": b"TAG+" + bytes(223) + b"TAG" + bytes(125),
    "ape": b"APETAGEX"
    + b"".join(n.to_bytes(4, "little") for n in (2000, 40, 0, 5 << 29))
    + bytes(8 + 8)
    + b"APETAGEX"
    + bytes(24),
    "id3_with_footer": b"ID3\4\0\x10\0\0\0\5" + bytes(5) + b"3DI\4\0\x10\0\0\0\5",
}


@pytest.mark.slow_except("frame-", "-aac")
@pytest.mark.parametrize("second", ["ts", "m2ts", "mpg", "aac"])
@pytest.mark.parametrize("last", TAGS.values(), ids=TAGS)
def test_stream_without_magic_number_joined_behind_an_mp3_and_its_tags_is_decoded(
    second: str, last: bytes, encoded: Encode
) -> None:
    follows = encoded(second, *FILMS.get(second, ()))
    check(decoded(encoded("mp3") + last + follows), 2 * SECONDS, 0.3)


def test_many_joined_mp3_and_aac_files_are_found_without_reading_the_file_for_each(
    encoded: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "joined"
    file.write_bytes((encoded("mp3") + encoded("aac")) * 20)
    read: list[int] = []
    real = stream_links.read_file_at

    def counted(fd: int, at: int, size: int) -> bytes:
        found = real(fd, at, size)
        read.append(len(found))
        return found

    monkeypatch.setattr(stream_links, "read_file_at", counted)
    with file.open("rb") as opened:
        assert len(stream_links.find_links(opened.fileno(), MP3, 60.0)) == 40
    assert sum(read) < 20 * file.stat().st_size, "else it is 32 times"


@pytest.mark.slow_except("mkv", "[ts", "mp4")
@pytest.mark.parametrize("first", FILMS)
def test_recordings_joined_behind_two_films_are_decoded(first: str, encoded: Encode) -> None:
    second = [*FILMS, *FILMS][[*FILMS].index(first) + 1]
    joined = [encoded(one, *FILMS.get(one, ())) for one in (first, second, "wav", "wav", "mp3")]
    check(decoded(b"".join(joined)), 5 * SECONDS, 0.7)


@pytest.mark.parametrize("second", ["m4a", "flv", "mkv"])
def test_two_equal_recordings_joined_behind_a_film_are_decoded(
    second: str, encoded: Encode
) -> None:
    follows = encoded(second, *FILMS.get(second, ()))
    check(decoded(encoded("avi") + follows * 2), 3 * SECONDS, 0.3)


@pytest.mark.parametrize("film", ["mkv", "avi"])
def test_recordings_of_another_format_joined_between_films_are_decoded(
    film: str, encoded: Encode
) -> None:
    check(decoded((encoded(film) + encoded("mp3")) * 2), 4 * SECONDS, 0.5)


def test_second_audio_track_of_joined_films_is_decoded_to_the_end(studio: Studio) -> None:
    tracks = ("-map", "0:a", "-map", "0:a", "-c:a", "aac")
    film = studio.make("two-tracks.mp4", "-i", studio.voice, *tracks).read_bytes()
    with upload(film * 2) as source:
        facts = probed(source.fd, 2)
        with open_audio(source.fd, facts, rate=RATE, max_s=3600.0, track=2) as audio:
            assert len(np.concatenate(list(audio))) / RATE == pytest.approx(2 * SECONDS, abs=0.2)
            assert (audio.decoder.track, len(audio.decoder.header.tracks)) == (1, 2)


@pytest.mark.parametrize(
    "suffix", ["flac", "ogg", "mp3", "webm", "au"]
)  # those that a pipe can take
def test_recording_that_was_written_to_a_pipe_is_decoded_whole(
    suffix: str, encoded: Encode, studio: Studio
) -> None:
    content = encoded(suffix, "-seekable", 0)
    check(decoded(content), SECONDS)


@pytest.mark.parametrize("count", [0, 1000, 20_000, (1 << 36) - 1])
def test_flac_with_a_false_count_is_decoded_whole_and_truncated_only_if_it_claims_more(
    count: int, encoded: Encode
) -> None:
    content = bytearray(encoded("flac"))
    content[18:26] = (int.from_bytes(content[18:26]) >> 36 << 36 | count).to_bytes(8)
    samples, truncated = decoded(bytes(content))
    assert len(samples) / RATE == pytest.approx(SECONDS, abs=0.2)
    assert truncated is (count > 20_000), "with more it claims that its end is missing"


@pytest.mark.parametrize("suffix", ["flac", "mp3", "aac", "m4a"])
def test_tag_behind_a_recording_is_no_truncation(suffix: str, encoded: Encode) -> None:
    check(decoded(encoded(suffix) + b"TAG" + bytes(125)), SECONDS)


@pytest.mark.slow_except("alike-libopus", "channels-libvorbis", "rate-flac")
@pytest.mark.parametrize("codec", ["libopus", "libvorbis", "flac"])
@pytest.mark.parametrize(
    "second", [(), ("-ac", 2), ("-ar", 48_000)], ids=["alike", "channels", "rate"]
)
def test_all_links_of_a_chained_ogg_are_decoded(
    codec: str, second: tuple[object, ...], encoded: Encode
) -> None:
    first = encoded("ogg", "-c:a", codec)
    check(decoded(first * 2 + encoded("ogg", "-c:a", codec, *second)), 3 * SECONDS)


def test_ogg_links_of_different_codecs_and_joined_flac_files_are_decoded(encoded: Encode) -> None:
    opus, vorbis = encoded("ogg", "-c:a", "libopus"), encoded("ogg", "-c:a", "libvorbis")
    check(decoded(opus + vorbis), 2 * SECONDS)
    check(decoded(encoded("flac") + encoded("flac", "-ar", 44_100)), 2 * SECONDS)


@pytest.mark.parametrize("codec", ["libopus", "flac"])
def test_chained_ogg_whose_first_link_has_no_audio_is_decoded_with_the_nexts_channels(
    codec: str, encoded: Encode, tmp_path: Path
) -> None:
    mono, stereo = (encoded("ogg", "-c:a", codec, "-ac", count) for count in (1, 2))
    headers = mono[: [page.start() for page in re.finditer(b"OggS", mono)][2]]
    path = tmp_path / "chained.ogg"
    path.write_bytes(headers + stereo)
    with path.open("rb", buffering=0) as file:
        facts = probed(file.fileno())
        with open_audio(file.fileno(), facts, rate=RATE, max_s=60.0) as audio:
            samples = sum(map(len, audio))
            assert (facts.channels, audio.decoder.channels) == (2, 2)
    assert samples / RATE == pytest.approx(SECONDS, abs=0.2)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("ogg", "libopus"), ("ogg", "libvorbis"), ("ogg", "flac"), ("flac", "flac")],
)
def test_joined_recordings_have_the_channels_of_the_one_with_the_most(
    suffix: str, codec: str, encoded: Encode
) -> None:
    mono, stereo = (encoded(suffix, "-c:a", codec, "-ac", count) for count in (1, 2))
    for content, channels in ((mono + stereo, 2), (stereo + mono, 2), (mono + mono, 1)):
        with upload(content) as source:
            assert probed(source.fd).channels == channels


@pytest.mark.parametrize(
    ("suffix", "codec"), [("ogg", "libopus"), ("ogg", "libvorbis"), ("flac", "flac")]
)
def test_stereo_header_without_audio_behind_a_mono_recording_leaves_it_mono(
    suffix: str, codec: str, encoded: Encode
) -> None:
    mono, stereo = (encoded(suffix, "-c:a", codec, "-ac", count) for count in (1, 2))
    header = stereo.replace(b"OpusHead\1\2", b"OpusHead\1\xff")
    pages = [page.start() for page in re.finditer(b"OggS", header)]
    for length in (64, pages[2] + 10 if pages else 42):
        with upload(mono + header[:length]) as source:
            assert probed(source.fd).channels == 1


def test_chained_ogg_without_audio_is_undecodable(encoded: Encode) -> None:
    headers = encoded("ogg", "-c:a", "libopus")[:200]
    with pytest.raises(errors.AudioUndecodable):
        decoded(headers + headers)


def test_chained_ogg_whose_last_link_is_cut_off_is_truncated(encoded: Encode) -> None:
    opus = encoded("ogg", "-c:a", "libopus")
    samples, truncated = decoded(opus + opus[: len(opus) // 2])
    assert SECONDS < len(samples) / RATE < 2 * SECONDS
    assert truncated


@pytest.mark.parametrize(
    "codec", ["pcm_s24le", "pcm_f32le", "pcm_u8", "pcm_mulaw", "adpcm_ima_wav"]
)
def test_wav_whose_header_counts_only_its_first_block_is_decoded_to_the_end(
    codec: str, encoded: Encode
) -> None:
    content = bytearray(encoded("wav", "-c:a", codec))
    position = content.index(b"data") + 4
    content[position : position + 4] = (6144).to_bytes(4, "little")
    check(decoded(bytes(content)), SECONDS)


@pytest.mark.parametrize("missing", [1, 37, 200])
def test_adpcm_wav_that_ends_within_a_block_is_whole_and_one_cut_in_half_is_truncated(
    missing: int, encoded: Encode
) -> None:
    content = encoded("wav", "-c:a", "adpcm_ima_wav")
    at = content.index(b"data") + 4
    size = int.from_bytes(content[at : at + 4], "little") - missing
    whole = content[:at] + size.to_bytes(4, "little") + content[at + 4 : at + 4 + size]
    check(decoded(whole), SECONDS)
    assert decoded(whole[: len(whole) // 2])[1], "truncated"


OPEN_ENDED = {  # sign of the samples, bytes to the size behind it, format of the size
    "aiff": (b"SSND", 4, ">I"),
    "caf": (b"data", 4, ">Q"),
    "w64": (b"data\xf3\xac\xd3\x11", 16, "<Q"),
    "rf64": (b"ds64", 16, "<Q"),
}


@pytest.mark.slow_except("pcm_s24-", "-6168-aiff")
@pytest.mark.parametrize("suffix", OPEN_ENDED)
@pytest.mark.parametrize("claimed", [0, 6168, -1])
@pytest.mark.parametrize(
    "codec", ["pcm_s16", "pcm_s24", "pcm_s32", "pcm_f32", "pcm_f64", "pcm_alaw", "pcm_mulaw"]
)
def test_audio_whose_header_counts_none_or_only_the_first_block_is_decoded_to_the_end(
    suffix: str, claimed: int, codec: str, encoded: Encode
) -> None:
    sign, after, kind = OPEN_ENDED[suffix]
    order = "" if codec.endswith("law") else "be" if suffix in {"aiff", "caf"} else "le"
    more = ("-rf64", "always") if suffix == "rf64" else ()
    sound = ("-ac", 2, "-ar", 44_100, "-c:a", codec + order)
    content = bytearray(encoded("wav" if more else suffix, *sound, *more))
    whole, _ = decoded(bytes(content))
    position, size = content.index(sign) + after, struct.calcsize(kind)
    content[position : position + size] = struct.pack(kind, claimed % (1 << 8 * size))
    found = decoded(bytes(content))
    check(found, SECONDS)
    assert np.allclose(found[0][:RATE], whole[:RATE], atol=1e-3), "the same channels and rate"


@pytest.mark.parametrize("suffix", ["aiff", "caf", "w64", "au"])
def test_garbage_behind_the_samples_that_a_header_counts_is_no_audio_and_no_truncation(
    suffix: str, encoded: Encode
) -> None:
    content = encoded(suffix)
    whole, _ = decoded(content)
    found, truncated = decoded(content + np.random.default_rng(1).bytes(20_000))
    assert (len(found), truncated) == (len(whole), False)


@pytest.mark.parametrize(
    ("suffix", "head"),
    [
        ("wav", struct.pack("<4sI", b"id3 ", 300_000)),
        ("aiff", struct.pack(">4sI", b"ID3 ", 300_000)),
        ("caf", struct.pack(">4sQ", b"info", 300_000)),
        ("w64", struct.pack("<4s12sQ", b"list", bytes(12), 300_000)),
    ],
)
def test_chunk_with_a_picture_whose_end_is_missing_is_neither_audio_nor_truncation(
    suffix: str, head: bytes, encoded: Encode
) -> None:
    content = encoded(suffix)
    whole, _ = decoded(content)
    found, truncated = decoded(content + head + np.random.default_rng(1).bytes(290_000))
    assert (len(found), truncated) == (len(whole), False)


@pytest.mark.parametrize("suffix", ["aiff", "caf", "w64", "au"])
def test_samples_that_a_recorder_had_not_counted_yet_are_decoded(
    suffix: str, encoded: Encode
) -> None:
    """It counts now and then, and died in between."""
    content = encoded(suffix)
    whole, _ = decoded(content)
    found, _ = decoded(content + bytes(200_000))
    assert len(found) > len(whole) + RATE


def test_joined_wav_files_of_different_rates_are_decoded_to_the_end(encoded: Encode) -> None:
    first, second = encoded("wav"), encoded("wav", "-ar", 44_100, "-ac", 2, "-c:a", "pcm_s24le")
    check(decoded(first + second), 2 * SECONDS)
    check(decoded(first + encoded("wav", "-c:a", "adpcm_ms")), 2 * SECONDS)


def test_many_joined_wav_files_are_decoded_to_the_end() -> None:
    check(decoded(wav(bytes(3200)) * 600), 60.0)


def test_wav_behind_thousands_of_chunks_is_not_decoded_and_the_recording_is_truncated() -> None:
    part = wav(bytes(3200))
    samples, truncated = decoded(part + b"junk\0\0\0\0" * 2000 + part)
    assert (len(samples), truncated) == (1600, True)


def test_big_endian_wav_is_decoded_to_the_same_samples() -> None:
    tone = (8000 * np.sin(np.arange(RATE) / 5)).astype(">i2")
    little = wav(tone.tobytes())
    fields = (4, 16, 20, 22, 24, 28, 32, 34, 40)
    widths = (4, 4, 2, 2, 4, 4, 2, 2, 4)
    big = bytearray(b"RIFX" + little[4:])
    for at, width in zip(fields, widths, strict=True):
        big[at : at + width] = little[at : at + width][::-1]
    samples, _ = decoded(bytes(big))
    assert np.allclose(samples, tone / 32768, atol=1e-6)


@pytest.mark.slow_except("mkv", "ts")
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts", "mpg", "flv"])
def test_late_start_and_hole_of_a_films_audio_track_keep_their_times(
    suffix: str, encoded: Encode, studio: Studio
) -> None:
    codecs = {"flv": "flv1", "ts": "mpeg2video", "mpg": "mpeg2video"}
    video = ("-c:v", codecs.get(suffix, "mpeg4"))
    sound = ("-c:a", "mp2" if suffix == "mpg" else "aac", "-ar", 44_100)
    plain = onset_s(decoded(encoded(suffix, *PICTURE, *video, *sound))[0])
    late = studio.make(
        f"late.{suffix}",
        *("-itsoffset", 4, "-i", studio.voice, *PICTURE, *video, *sound),
    )  # fmt: skip
    found = decoded(late.read_bytes())
    check(found, SECONDS + 4)
    assert onset_s(found[0]) == pytest.approx(plain + 4, abs=0.1)
    hole = ("-af", "asetpts=PTS+gte(T\\,1.5)*6/TB")
    check(decoded(encoded(suffix, *PICTURE, *video, *sound, *hole)), SECONDS + 6)


@pytest.mark.slow_except("mkv", "webm")
@pytest.mark.parametrize("suffix", ["mkv", "webm", "mp4", "mov", "ts", "flv"])
def test_late_start_and_hole_of_more_than_ten_minutes_keep_their_times(
    suffix: str, encoded: Encode, studio: Studio
) -> None:
    sound = ("-c:a", "libopus" if suffix == "webm" else "aac", "-ar", 48_000)
    holes = ("-af", "asetpts=PTS+(gte(T\\,1)+gte(T\\,2))*900/TB")
    check(decoded(encoded(suffix, *sound, *holes)), SECONDS + 1800)
    if suffix in {"mkv", "mp4"}:
        late = ("-itsoffset", 1800, "-i", studio.voice, *PICTURE, "-c:v", "mpeg4", *sound)
        samples, _ = decoded(studio.make(f"very-late.{suffix}", *late).read_bytes())
        assert 1800 < onset_s(samples) < 1802


def test_audio_only_file_with_a_late_start_begins_with_its_first_sample(encoded: Encode) -> None:
    content = encoded("webm", "-c:a", "libopus", before=("-itsoffset", 5))
    check(decoded(content), SECONDS)


def test_timestamps_that_go_back_cost_no_samples(encoded: Encode) -> None:
    film = encoded("ts", "-c:a", "aac", "-ar", 44_100)
    samples, _ = decoded(film + film)
    assert len(samples) / RATE == pytest.approx(2 * SECONDS, abs=0.3)


def test_vorbis_frames_with_uneven_timestamps_leave_no_hole(encoded: Encode) -> None:
    check(decoded(encoded("ogg", "-c:a", "libvorbis", "-ar", 48_000, "-ac", 2)), SECONDS, 0.05)


def test_second_audio_track_is_decoded_if_the_first_cannot_be(studio: Studio) -> None:
    content = studio.make(
        "undecodable-first.mkv",
        *("-i", studio.voice, "-map", "0:a", "-map", "0:a", "-c:a:0", "real_144"),
        *("-ar:a:0", 8000, "-c:a:1", "libopus"),
    ).read_bytes()
    check(decoded(content), SECONDS)


def test_mp4_with_its_index_at_the_end_is_decoded_through_ffmpegs_fd_protocol(
    studio: Studio,
) -> None:
    """As on Windows, where a pipe cannot seek."""
    import subprocess

    from sidecar.audio.audio_format import MP4

    size = studio.path("m4a").stat().st_size
    for parts in ((), [(0, size)]):
        source = ffmpeg_command.input_source(windows=True, parts=parts)
        command = ffmpeg_command.decode_command(
            ffmpeg_command.find_ffmpeg(), source, MP4, RATE, 60.0
        )
        with studio.path("m4a").open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, check=True)
        assert len(done.stdout) > 4 * RATE * (SECONDS - 0.2)
        assert os.fsencode(source["protocol_whitelist"]) in (b"fd", b"subfile,fd")


NOISE = np.random.default_rng(2).bytes(8000)


@pytest.mark.parametrize(
    ("content", "seconds"),
    [
        pytest.param(wav(NOISE, tag=0x17, rate=8000, bits=4), 2.0, id="OKI"),
        pytest.param(wav(NOISE, tag=0x10, rate=8000, bits=4), 2.0, id="OKI-of-Dialogic"),
        pytest.param(wav(NOISE, tag=0x200, rate=8000, bits=4), 2.0, id="Creative"),
        pytest.param(
            b"Creative Voice File\x1a\x1a\0\x0a\x01\x29\x11"
            + (b"\x01" + (8002).to_bytes(3, "little") + b"\x83\x01" + NOISE + b"\0"),
            2.0,
            id="Sound-Blaster",
        ),
    ],
)
def test_adpcm_of_telephones_and_sound_cards_is_decoded(content: bytes, seconds: float) -> None:
    check(decoded(content), seconds)


def test_recording_of_a_codec_without_decoder_is_refused_with_the_codecs_name() -> None:
    with pytest.raises(errors.AudioFormatUnsupported, match=r"codec.*\(g729\)"):
        decoded(wav(bytes(8000), tag=0x83, rate=8000, bits=8))


@pytest.mark.parametrize(
    ("bits", "kind", "scale"), [(24, "<i4", 2**31), (24, "<f4", 2**23), (16, "<f4", 2**15)]
)
def test_wav_of_16_or_24_bits_in_four_bytes_is_decoded_as_integers_or_as_floats(
    bits: int, kind: str, scale: int
) -> None:
    """The tone has values next to 0, which are tiny as floats."""
    tone = 0.3 * np.sin(np.arange(RATE) * np.pi / 20)
    content = bytearray(wav((tone * scale).astype(kind).tobytes(), bits=32))
    content[34:36] = bits.to_bytes(2, "little")
    samples, truncated = decoded(bytes(content))
    assert np.allclose(samples, tone, atol=1e-3)
    assert not truncated


def test_wav_of_24_bits_whose_header_says_0_channels_is_refused_as_bad_audio() -> None:
    with pytest.raises(errors.BadAudio):
        decoded(wav(bytes(800), channels=0, bits=24))


def test_float_wav_in_the_range_of_16_bit_integers_is_decoded_at_the_right_level() -> None:
    tone = (0.5 * np.sin(np.arange(3 * RATE) / 5)).astype("<f4")
    tone[: 2 * RATE] *= 0.001
    for scale in (1, 32768):
        samples, _ = decoded(wav((tone * scale).astype("<f4").tobytes(), tag=3, bits=32))
        assert np.allclose(samples, tone, atol=1e-6)


@pytest.mark.parametrize("seconds", [0.5, 3])
def test_one_outlier_in_a_float_wav_does_not_rescale_the_other_samples(seconds: float) -> None:
    tone = (0.1 * np.sin(np.arange(int(seconds * RATE)) / 5)).astype("<f4")
    broken = tone.copy()
    broken[500] = 500.0
    samples, _ = decoded(wav(broken.tobytes(), tag=3, bits=32))
    assert np.allclose(samples[1000:], tone[1000:], atol=1e-6)


FILM = ("-f", "lavfi", "-i", "testsrc=s=64x64:r=25")
DESTROYED: dict[str, tuple[str, tuple[object, ...]]] = {
    "mp3": ("mp3", PLAIN_MP3),
    "mp3-vbr": ("mp3", ("-q:a", 5)),
    "mp2": ("mp2", ("-ar", 44_100)),
    "aac": ("aac", ()),
    "ac3": ("ac3", ("-ar", 48_000)),
    "eac3": ("eac3", ("-ar", 48_000)),
    "dts": ("dts", ("-c:a", "dca", "-strict", -2, "-ar", 48_000, "-ac", 2)),
    "wav-mp3": ("wav", ("-c:a", "libmp3lame", "-b:a", "64k")),
    "wav-ac3": ("wav", ("-c:a", "ac3", "-ar", 48_000)),
    "wav-ms-adpcm": ("wav", ("-c:a", "adpcm_ms")),
    "wav-ima-adpcm": ("wav", ("-c:a", "adpcm_ima_wav")),
    "wav-g726": ("wav", ("-c:a", "adpcm_g726", "-ar", 8000)),
    "flac": ("flac", ()),
    "ogg": ("ogg", ("-c:a", "libopus", "-b:a", "16k")),
    "ogg-short-pages": ("ogg", ("-c:a", "libopus", "-b:a", "16k", "-page_duration", 20_000)),
    "avi": ("avi", ("-c:a", "libmp3lame", "-b:a", "64k")),
    "mpg": ("mpg", (*FILM, "-c:v", "mpeg1video", "-c:a", "mp2", "-ar", 44_100, "-shortest")),
    "ts": ("ts", (*FILM, "-c:v", "mpeg2video", "-c:a", "aac", "-shortest")),
    "m4a": ("m4a", ()),
    "mkv": ("mkv", ("-c:a", "ac3", "-ar", 48_000)),
}


@pytest.mark.slow_except("zeros")
@pytest.mark.parametrize("how", ["zeros", "rubbish"])
@pytest.mark.parametrize("name", DESTROYED)
def test_seconds_of_a_destroyed_middle_are_told(name: str, how: str, studio: Studio) -> None:
    suffix, arguments = DESTROYED[name]
    long = studio.make("long.wav", "-stream_loop", 9, "-i", studio.voice)
    content = studio.make(f"destroyed-{name}.{suffix}", "-i", long, *arguments).read_bytes()
    seconds, share = 10 * SECONDS, 0.25
    whole, nothing = decoded_and_lost(content)
    assert len(whole) / RATE == pytest.approx(seconds, abs=0.5)
    assert nothing is None
    if how == "rubbish" and name in ("wav-ima-adpcm", "wav-g726"):
        pytest.skip("it is decoded")
    count = int(share * len(content))
    wrong = np.random.default_rng(1).bytes(count) if how == "rubbish" else bytes(count)
    at = int(0.425 * len(content))  # in a word: what begins in silence may be silence
    found, lost = decoded_and_lost(content[:at] + wrong + content[at + count :])
    assert lost is not None
    tolerance_s = 5.0 if name in ("ogg", "mkv") else 1.5  # with the rest of a page or a cluster
    assert lost.seconds == pytest.approx(share * seconds, abs=tolerance_s)
    assert lost.early is (len(found) / RATE < seconds - 1)


@pytest.mark.parametrize("how", ["zeros", "rubbish"])
def test_early_end_of_a_voc_file_whose_middle_is_destroyed_is_told(
    how: str, studio: Studio
) -> None:
    """It has no length, and ffmpeg ends where no block begins."""
    long = studio.make("long.wav", "-stream_loop", 9, "-i", studio.voice)
    content = studio.make("long.voc", "-i", long, "-c:a", "pcm_u8").read_bytes()
    assert decoded_and_lost(content)[1] is None
    at, count = len(content) // 2, len(content) // 4
    wrong = np.random.default_rng(1).bytes(count) if how == "rubbish" else bytes(count)
    _, lost = decoded_and_lost(content[:at] + wrong + content[at + count :])
    assert lost is not None
    assert lost.early


@pytest.mark.parametrize("codec", ["adpcm_ima_wav", "adpcm_ms", "adpcm_g726"])
@pytest.mark.parametrize("pause_s", [0.0, 2.0, 2.01])
def test_digital_silence_in_adpcm_is_no_destroyed_part(
    codec: str, pause_s: float, studio: Studio
) -> None:
    """Of a call that was muted: it may be zeros in the file, too."""
    mute = f"volume=0:enable='between(t,{pause_s},{pause_s}+20)'"
    long = studio.make("long.wav", "-stream_loop", 9, "-i", studio.voice)
    how = ("-i", long, "-af", mute, "-ar", 8000, "-c:a", codec)
    _, lost = decoded_and_lost(studio.make(f"mute-{codec}-{pause_s}.wav", *how).read_bytes())
    assert lost is None


@pytest.mark.parametrize(
    "windows", [True, pytest.param(False, marks=pytest.mark.posix("file descriptors by number"))]
)
@pytest.mark.parametrize(("suffix", "codec"), [("ogg", "flac"), ("wv", "wavpack")])
def test_rest_behind_more_zeros_than_a_page_or_a_block_has_is_decoded(
    suffix: str, codec: str, windows: bool, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = studio.make("long.wav", "-stream_loop", 9, "-i", studio.voice)
    content = bytearray(studio.make(f"long.{suffix}", "-i", long, "-c:a", codec).read_bytes())
    whole, _ = decoded(bytes(content))
    source_of = ffmpeg_command.input_source
    monkeypatch.setattr(ffmpeg_command, "input_source", lambda _, parts: source_of(windows, parts))
    middle = len(content) // 2
    content[middle - 50_000 : middle + 50_000] = bytes(100_000)
    found, lost = decoded_and_lost(bytes(content))
    assert lost is not None
    assert 2.0 < lost.seconds < 8.0
    assert len(found) / RATE + lost.early * lost.seconds == pytest.approx(10 * SECONDS, abs=0.1)
    assert np.allclose(found[-RATE:], whole[-RATE:], atol=1e-3)


def test_seconds_that_are_missing_at_the_end_are_told(encoded: Encode) -> None:
    for suffix in ("wav", "flac"):
        content = encoded(suffix)
        _, lost = decoded_and_lost(content[: len(content) // 2])
        assert lost is not None
        assert lost.seconds == pytest.approx(SECONDS / 2, abs=0.5)


@pytest.mark.parametrize(
    ("suffix", "layout", "arguments"),
    [
        ("ac3", "5.1(side)", ()),
        ("eac3", "5.1", ()),
        ("flac", "7.1", ()),
        ("m4a", "5.1", ()),
        ("mkv", "5.1", ("-c:a", "libopus", "-mapping_family", 1)),
        ("wav", "7.1", ()),
        ("wav", "5.1(side)", ("-c:a", "pcm_s24le")),
    ],
)
def test_dialogue_of_a_film_in_surround_is_louder_than_its_music(
    suffix: str, layout: str, arguments: tuple[object, ...], studio: Studio
) -> None:
    count = 8 if layout == "7.1" else 6
    voice, _ = decoded(studio.voice.read_bytes())
    level = float(voice.std())
    channels = level * np.random.default_rng(1).standard_normal((len(voice), count))
    channels[:, 2] = voice
    channels[:, 3] = level * np.sin(2 * np.pi * 45 * np.arange(len(voice)) / RATE)
    raw = studio.folder / f"film-{count}.s16"
    raw.write_bytes((np.clip(channels / 2, -1, 1) * 32767).astype("<i2").tobytes())
    film = studio.make(
        f"film-{layout}.{suffix}",
        *("-f", "s16le", "-ar", RATE, "-ac", count, "-channel_layout", layout, "-i", raw),
        *("-ar", 48_000, *arguments),
    )
    found, _ = decoded(film.read_bytes())
    begin, end = RATE // 2, RATE
    said = voice[begin:end]
    delays = np.correlate(found[begin - 400 : end + 400], said, "valid")  # those of codecs
    heard = found[begin - 400 + int(delays.argmax()) :][: end - begin]
    assert np.corrcoef(heard, said)[0, 1] ** 2 > 0.6, "by the mean it is drowned"


def id3(picture: bytes) -> bytes:
    frame = b"\0image/heic\0\3\0" + picture
    body = b"APIC" + len(frame).to_bytes(4) + b"\0\0" + frame
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + body


def ape(picture: bytes) -> bytes:
    item = len(picture).to_bytes(4, "little") + b"\2\0\0\0Cover Art (Front)\0" + picture
    ends = [
        struct.pack("<8sIIII8x", b"APETAGEX", 2000, len(item) + 32, 1, flags)
        for flags in (0xA0000000, 0x80000000)
    ]
    return ends[0] + item + ends[1]


def flac_with(picture: bytes, content: bytes) -> bytes:
    block = struct.pack(">II10sIIIIII", 3, 10, b"image/heic", 0, 0, 0, 0, 0, len(picture)) + picture
    return content[:42] + b"\6" + len(block).to_bytes(3) + block + content[42:]


def m4a_with(picture: bytes, content: bytes) -> bytes:
    """Its index is at its end; what is put behind it there moves nothing."""
    for name in (b"covr", b"ilst", b"udta"):
        picture = (len(picture) + 8).to_bytes(4) + name + picture
    at = content.index(b"moov") - 4
    size = int.from_bytes(content[at : at + 4])
    assert at + size == len(content)
    return content[:at] + (size + len(picture)).to_bytes(4) + content[at + 4 :] + picture


def aiff_with(picture: bytes, content: bytes) -> bytes:
    tag = id3(picture)
    at = content.index(b"SSND")
    chunk = b"ID3 " + len(tag).to_bytes(4) + tag + bytes(len(tag) % 2)
    return (
        b"FORM" + (len(content) + len(chunk) - 8).to_bytes(4) + content[8:at] + chunk + content[at:]
    )


COVERED: dict[str, tuple[str, tuple[object, ...], Callable[[bytes, bytes], bytes]]] = {
    "mp3": ("mp3", PLAIN_MP3, lambda picture, content: id3(picture) + content),
    "mp3-two-tags": ("mp3", PLAIN_MP3, lambda picture, content: 2 * id3(picture) + content),
    "mp3-behind": ("mp3", PLAIN_MP3, lambda picture, content: content + id3(picture)),
    "mp3-ape": ("mp3", PLAIN_MP3, lambda picture, content: content + ape(picture)),
    "aac": ("aac", (), lambda picture, content: 2 * id3(picture) + content),
    "flac": ("flac", (), flac_with),
    "flac-id3": ("flac", (), lambda picture, content: 2 * id3(picture) + content),
    "m4a": ("m4a", (), m4a_with),
    "aiff": ("aiff", (), aiff_with),
    "wavpack": ("wv", (), lambda picture, content: content + ape(picture)),
}


@pytest.fixture(scope="module")
def pictures(studio: Studio) -> dict[str, bytes]:
    """A phone's: a picture with a film behind it, and two in the container of films."""
    still = studio.make("still.jpg", *PICTURE[:4], "-frames:v", 1).read_bytes()
    sound = ("-c:a", "aac", "-brand", "mp42")
    moving = studio.make("moving.mp4", "-i", studio.voice, *sound).read_bytes()
    noise = np.random.default_rng(7).bytes(90_000)
    boxes = b"\0\0\0\x48meta" + bytes(64) + (len(noise) + 8).to_bytes(4) + b"mdat" + noise
    containers = {
        name: b"\0\0\0\x18ftyp" + name.encode() + bytes(4) + b"mif1" + name.encode() + boxes
        for name in ("heic", "avif")
    }
    return {"moving": still + moving, **containers}


@pytest.mark.parametrize("picture", ["moving", "heic", "avif"])
@pytest.mark.parametrize("name", COVERED)
def test_recording_with_a_picture_of_a_phone_as_cover_is_decoded_alone(
    name: str, picture: str, encoded: Encode, pictures: dict[str, bytes]
) -> None:
    suffix, arguments, covered = COVERED[name]
    content = encoded(suffix, *arguments)
    whole, _ = decoded(content)
    found = decoded(covered(pictures[picture], content))
    check(found, SECONDS)
    assert np.allclose(found[0][: 2 * RATE], whole[: 2 * RATE], atol=1e-3)
    # And the next one, with a cover of its own, begins where it does.
    twice = decoded(2 * covered(pictures[picture], content))
    check(twice, 2 * SECONDS, 0.3)


def test_ogg_with_a_picture_of_a_phone_as_cover_is_decoded_alone(
    encoded: Encode, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    block = struct.pack(">II10sIIIIII", 3, 10, b"image/heic", 0, 0, 0, 0, 0, 60_000)
    comment = base64.b64encode(block + pictures["heic"][:60_000]).decode()
    named = tmp_path / "metadata"  # a command line of Windows has 32,767 characters at most
    text = f";FFMETADATA1\nMETADATA_BLOCK_PICTURE={comment.replace('=', chr(92) + '=')}\n"
    named.write_text(text, "utf-8")
    cover = ("-i", named, "-map_metadata", "1")
    for codec in ("libopus", "libvorbis"):
        check(decoded(encoded("ogg", "-c:a", codec, *cover)), SECONDS)
