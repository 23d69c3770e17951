"""Links of chained files, by the bytes with which each begins."""

from types import SimpleNamespace

import pytest
from recordings import Studio
from uploads import upload

from sidecar.audio import stream_links
from sidecar.audio.audio_decoder import FFMPEG_DECODER, AudioInfo, open_audio
from sidecar.audio.audio_format import (
    AVI,
    FLAC,
    MATROSKA,
    MP3,
    MPEG_TS,
    OGG,
    AudioContainer,
    read_file_at,
)
from sidecar.audio.stream_links import find_links
from sidecar.workers.worker_process import READ_TIMEOUT_S


def links_of(content: bytes, container: AudioContainer, within_s: float = 60.0) -> list[int]:
    with upload(content) as source:
        links = find_links(source.fd, container, within_s)
        assert links[-1].end == len(content)
        return [link.begin for link in links]


@pytest.mark.parametrize(("name", "container"), [("ogg-opus", OGG), ("flac", FLAC)], ids=str)
def test_each_joined_ogg_or_flac_file_begins_a_link_except_in_an_mpegts_film(
    name: str, container: AudioContainer, studio: Studio
) -> None:
    one = studio.bytes(name)
    assert links_of(one * 3, container) == [0, len(one), 2 * len(one)]
    assert links_of(b"a tag" + one, container) == [5]
    assert links_of(one * 3, MP3) == [0, len(one), 2 * len(one)], "whatever is before them"
    assert links_of(one * 3, MPEG_TS) == [0], "a film may have anything in it"


def test_link_whose_header_lies_across_two_reads_is_found(studio: Studio) -> None:
    one = studio.bytes("flac")
    for more in range(9):
        filled = one + bytes((1 << 20) - len(one) - more)
        assert links_of(filled + one, FLAC) == [0, len(filled)]


def test_parallel_streams_of_a_film_are_one_link(studio: Studio) -> None:
    film = studio.make(
        "film.ogv",
        *("-i", studio.voice, "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10", "-shortest"),
        *("-c:v", "libtheora", "-c:a", "libvorbis"),
    ).read_bytes()
    assert links_of(film, OGG) == [0]
    assert links_of(film * 2, OGG) == [0, len(film)]


def test_matroska_element_of_impossible_size_is_no_end_of_a_link() -> None:
    assert links_of(b"\x1aE\xdf\xa3\0" + b"\xff" * 7 + b"\xfe" + bytes(100), MATROSKA) == [0]


def test_link_search_finds_at_most_64_links_and_only_one_once_its_time_is_up(
    studio: Studio,
) -> None:
    one = studio.bytes("ogg-opus")
    assert len(links_of(one * 100, OGG)) == 64
    assert len(links_of(one + bytes(1 << 20) + one, OGG, within_s=-1.0)) == 1


def test_link_search_on_a_slow_disk_ends_within_the_read_timeout(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_s = 0.0

    def read_slowly(fd: int, position: int, count: int) -> bytes:
        nonlocal passed_s
        passed_s += 20.0
        return read_file_at(fd, position, count)

    monkeypatch.setattr(stream_links, "read_file_at", read_slowly)
    monkeypatch.setattr(stream_links, "time", SimpleNamespace(monotonic=lambda: passed_s))
    facts = AudioInfo(FLAC.name, FFMPEG_DECODER, None)
    with (
        upload(studio.bytes("flac") + bytes(10 << 20)) as source,
        open_audio(source.fd, facts, rate=16_000, max_s=60.0),
    ):
        assert passed_s < READ_TIMEOUT_S


def test_mpegts_film_with_lost_bytes_is_one_link(studio: Studio) -> None:
    film = studio.make("film.ts", "-i", studio.voice, "-c:a", "aac").read_bytes()
    half = len(film) // 2
    assert links_of(film[:half] + film[half + 3000 :], MPEG_TS) == [0]


def test_big_endian_wav_behind_a_film_is_found_without_an_endless_loop(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = studio.make("film.avi", "-i", studio.voice).read_bytes()
    other = b"RIFX" + (2036).to_bytes(4) + b"WAVEfmt \0\0\0\x10" + bytes(2020)
    reads: list[int] = []

    def counted(fd: int, position: int, count: int) -> bytes:
        reads.append(position)
        assert len(reads) < 10_000, "the same place again and again"
        return read_file_at(fd, position, count)

    monkeypatch.setattr(stream_links, "read_file_at", counted)
    assert links_of(film + other, AVI) == [0, len(film)]
