"""Broken, lying and hostile files: each gets its answer, none brings anything down."""

import ctypes
import gzip
import io
import os
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from module_services import service_of_module
from recordings import FORMATS, SECONDS, Studio, mov_that_names, mp4_boxes, mp4_join, wav
from service_process import MB, Peak, Server, check_problem, counting_listener, new_file, wait_until
from systems import IN_WINDOWS

UNSUPPORTED = (415, "audio_format_unsupported")
UNDECODABLE = (422, "audio_undecodable")
TOO_LONG = (413, "audio_too_long")
NOISE = random.Random(1).randbytes(20_000)
PCM = struct.pack("<h", 1000) * 16_000
MEMORY_ALLOWED = 150 * MB
"""Bytes: the samples of six hours would take 1,400 MB. A worker that begins meanwhile has 100."""


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("recording.wav", content)
    return buffer.getvalue()


def picture(studio: Studio, suffix: str) -> bytes:
    """A second of film without sound."""
    scene = ("-f", "lavfi", "-t", 1, "-i", "testsrc=size=64x48", "-c:v", "mpeg4")
    return studio.make(f"mute.{suffix}", *scene).read_bytes()


def mp4_without(studio: Studio, *kinds: bytes) -> bytes:
    return mp4_join([box for box in mp4_boxes(studio.bytes("m4a")) if box[0] not in kinds])


NOT_AUDIO: dict[str, bytes] = {
    "text": b"This is no audio at all, only words.\n" * 20,
    "one-byte": b"R",
    "zeros": bytes(10_000),
    "noise": NOISE,
    "zip": zipped(wav(PCM)),
    "gzip": gzip.compress(wav(PCM)),
    "gzip-bomb": gzip.compress(bytes(20 * MB)),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "png": b"\x89PNG\r\n\x1a\n" + NOISE,
    "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF" + NOISE,
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< >>\nendobj\n",
    "elf": b"\x7fELF\x02\x01\x01" + NOISE,
    "midi": b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60" + NOISE,
    "html": b"<!doctype html><audio src='http://127.0.0.1/'></audio>",
    "json": b'{"audio_path": "/etc/passwd"}',
}

BROKEN: dict[str, Callable[[Studio], bytes]] = {
    "wav-header-only": lambda studio: studio.voice.read_bytes()[:20],
    "wav-only-riff": lambda studio: b"RIFF\xff\xff\xff\xffWAVE",
    "wav-no-data-chunk": lambda studio: wav(b"")[:36],
    "wav-no-samples": lambda studio: wav(b""),
    "wav-0-channels": lambda studio: wav(PCM, channels=0),
    "wav-0-Hz": lambda studio: wav(PCM, rate=0),
    "wav-0-bits": lambda studio: wav(PCM, bits=0),
    "wav-65535-channels": lambda studio: wav(PCM, channels=65_535),
    "wav-1-Hz": lambda studio: wav(PCM, rate=1),
    "wav-4-GHz": lambda studio: wav(PCM, rate=0xFFFFFFFF),
    "wav-tag-of-no-codec": lambda studio: wav(PCM, tag=0x7A7A),
    "wav-claims-data-has-none": lambda studio: wav(b"", claimed=1 << 31),
    "mp3-id3-only": lambda studio: b"ID3\x03\x00\x00\x00\x00\x0f\x76" + bytes(2038),
    "mp4-without-index": lambda studio: mp4_without(studio, b"moov"),
    "mp4-without-data": lambda studio: mp4_without(studio, b"mdat"),
    "mp4-ftyp-only": lambda studio: mp4_without(studio, b"moov", b"mdat", b"free"),
    "mp4-without-sound": lambda studio: picture(studio, "mp4"),
    "mkv-without-sound": lambda studio: picture(studio, "mkv"),
    "amr-magic-only": lambda studio: b"#!AMR\n",
    "avi-of-noise": lambda studio: b"RIFF\x00\x10\x00\x00AVI LIST" + NOISE,
    "ts-of-nothing": lambda studio: (b"G" + bytes(187)) * 100,
}
CUT = {
    "flac-header-only": ("flac", 42),
    "flac-streaminfo-cut": ("flac", 20),
    "ogg-header-only": ("ogg-vorbis", 58),
    "opus-headers-only": ("ogg-opus", 47),
    "mp4-cut-before-its-index": ("m4a", 3000),
    "webm-header-only": ("webm-opus", 64),
    "wma-header-only": ("wma", 64),
    "aiff-header-only": ("aiff", 30),
    "au-header-only": ("au", 24),
    "caf-header-only": ("caf", 40),
    "flv-header-only": ("flv", 40),
    "mpg-header-only": ("mpg", 30),
}
"""Name -> the format of a recording, and how many bytes there are of it."""
BROKEN |= {
    name: lambda studio, kind=kind, size=size: studio.bytes(kind)[:size]  # type: ignore[misc]
    for name, (kind, size) in CUT.items()
}


REASONS = {
    **dict.fromkeys(("mp4-without-index", "mp4-cut-before-its-index"), "has no index"),
    **dict.fromkeys(("mp4-without-sound", "mkv-without-sound"), "has no audio track"),
}


@pytest.fixture(scope="module", autouse=True)
def _warm(server: Server, studio: Studio) -> None:
    """Its processes are there: what is in time, and in how much memory, is the file's work. A plain
    wav would need no process that looks at it."""
    assert server.post(studio.bytes("flac")).status_code == 200


def post_cleanly(server: Server, audio: bytes, name: str = "recording.wav") -> httpx.Response:
    """The answer, after which nothing of the upload is left."""
    response = server.post(audio, name)
    assert not server.leftovers()
    return response


@pytest.mark.parametrize("name", NOT_AUDIO)
def test_content_that_is_no_audio_under_an_audio_name_is_refused_and_leaves_no_file(
    name: str, server: Server
) -> None:
    check_problem(post_cleanly(server, NOT_AUDIO[name], "recording.mp3"), *UNSUPPORTED)


@pytest.mark.parametrize("name", BROKEN)
def test_file_without_samples_is_undecodable_with_the_reason(
    name: str, server: Server, studio: Studio
) -> None:
    response = post_cleanly(server, BROKEN[name](studio))
    check_problem(response, *UNDECODABLE)
    assert REASONS.get(name, "") in response.json()["detail"]


@pytest.mark.parametrize(
    ("claimed", "tag", "bits"),
    [(0xFFFFFFFF, 1, 16), (0xFFFFFF00, 1, 16), (0x7FFFFFFF, 1, 16), (0xFFFFFFF0, 3, 32)],
    ids=["4GB-streamed", "4GB", "2GB", "4GB-of-floats"],
)
def test_wav_that_claims_gigabytes_has_the_length_of_its_samples_and_takes_bounded_memory(
    claimed: int, tag: int, bits: int, server: Server
) -> None:
    data = PCM if tag == 1 else struct.pack("<f", 0.25) * 16_000
    with Peak(server) as peak:
        response = post_cleanly(server, wav(data, tag=tag, bits=bits, claimed=claimed))
    assert response.status_code == 200, response.text[:500]
    assert response.json()["metadata"]["duration"] == pytest.approx(1.0, abs=0.01)
    assert peak.rss <= MEMORY_ALLOWED


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 1e30], ids=["nan", "inf", "-inf", "1e30"]
)
def test_samples_nan_infinite_or_huge_are_transcribed_to_strict_json(
    value: float, server: Server
) -> None:
    response = post_cleanly(server, wav(struct.pack("<f", value) * 16_000, tag=3, bits=32))
    assert response.status_code == 200, response.text[:500]
    assert response.json()["metadata"]["duration"] == pytest.approx(1.0, abs=0.01)
    assert "NaN" not in response.text
    assert "Infinity" not in response.text


@pytest.mark.parametrize(("channels", "rate"), [(96, 8_000), (1, 768_000), (2, 192_000)], ids=str)
def test_many_channels_and_high_rates_are_transcribed(
    channels: int, rate: int, server: Server
) -> None:
    frames = rate // 2
    response = post_cleanly(server, wav(bytes(2 * channels * frames), channels=channels, rate=rate))
    assert response.status_code == 200, response.text[:500]
    assert response.json()["metadata"]["duration"] == pytest.approx(0.5, abs=0.05)


CLAIM_THEIR_LENGTH = (
    *("wav-s16", "wav-f32", "flac", "ogg-vorbis", "ogg-opus"),
    *("m4a-moov-at-the-start", "m4a-fragmented", "webm-opus"),
)
"""Formats that can tell that their end is missing."""
MERELY_END = (*("mp3-cbr", "mp3-vbr", "aac", "wma", "aiff", "au", "caf", "w64", "rf64", "amr-nb"),)


@pytest.mark.parametrize("name", CLAIM_THEIR_LENGTH + MERELY_END)
def test_truncated_recording_is_transcribed_and_warned_of_if_its_format_tells_the_length(
    name: str, server: Server, studio: Studio
) -> None:
    audio = studio.bytes(name)
    response = post_cleanly(server, audio[: len(audio) * 6 // 10])
    assert response.status_code == 200, response.text[:500]
    metadata = response.json()["metadata"]
    assert 0.8 < metadata["duration"] < SECONDS - 0.5
    if name in CLAIM_THEIR_LENGTH:
        assert [warning["code"] for warning in metadata["warnings"]] == ["audio_truncated"]


# Bombs.


def check_bomb(server: Server, audio: bytes) -> None:
    with Peak(server) as peak:
        response = server.post(audio)
    check_problem(response, *TOO_LONG)
    assert "VIBEVOICE_MAX_AUDIO_HOURS" in response.json()["hint"]
    assert peak.samples >= 2
    assert peak.rss <= MEMORY_ALLOWED
    assert peak.disk <= 10 * MB + len(audio)
    assert not server.leftovers()


@pytest.mark.slow
def test_tiny_flac_of_twelve_hours_is_refused_with_bounded_memory_and_disk(
    server: Server, studio: Studio
) -> None:
    silence = ["-f", "lavfi", "-t", 12 * 3600, "-i", "anullsrc=r=8000:cl=mono:n=65535"]
    bomb = studio.make("bomb.flac", *silence, "-compression_level", 0, "-frame_size", 65_535)
    assert bomb.stat().st_size < 100_000
    check_bomb(server, bomb.read_bytes())


# A webm is a mkv.
@pytest.mark.slow_except("mp4")
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_container_longer_than_the_limit_is_refused_with_bounded_memory_and_disk(
    suffix: str, server: Server, studio: Studio
) -> None:
    """Six hours: ten minutes of silence, its packets copied again and again."""
    codec = {"mp4": "aac", "webm": "libopus"}[suffix]
    options = {"webm": ["-frame_duration", 60, "-b:a", 500, "-vbr", "on"]}.get(suffix, [])
    short = studio.make(
        f"ten-minutes.{suffix}",
        *("-f", "lavfi", "-t", 600, "-i", "anullsrc=r=8000:cl=mono"),
        *("-c:a", codec, *options),
    )
    long = studio.make(f"six-hours.{suffix}", "-stream_loop", 35, "-i", short, "-c", "copy")
    check_bomb(server, long.read_bytes())


@pytest.mark.parametrize(
    "name", ["ogg-opus", "ogg-vorbis", "wav-s16", "mp3-without-header", "aac", "m4a", "webm-opus"]
)
def test_recording_over_the_length_limit_is_refused_in_every_format(
    name: str, studio: Studio, strict_server: Server
) -> None:
    long = studio.make(f"long-{name}.{studio.path(name).suffix}", *twice_the_limit(studio, name))
    check_problem(strict_server.post(long.read_bytes()), *TOO_LONG)
    assert strict_server.post(studio.bytes(name)).status_code == 200
    assert not strict_server.leftovers()


def twice_the_limit(studio: Studio, name: str) -> list[object]:
    return ["-stream_loop", 2, "-i", studio.voice, *FORMATS[name][1]]


strict_server = service_of_module(max_audio_hours=5 / 3600)
"""Takes five seconds at most."""


# Files that name other files.


@contextmanager
def watched(path: Path) -> Iterator[Callable[[], int]]:
    """Counts how often a file is opened (inotify); none on Windows, which tells nobody: there a
    refusal and no connection are what is seen."""
    if IN_WINDOWS:
        yield lambda: 0
        return
    libc = ctypes.CDLL(None, use_errno=True)
    in_open, in_nonblock = 0x20, os.O_NONBLOCK
    fd = libc.inotify_init1(in_nonblock)
    assert fd >= 0
    assert libc.inotify_add_watch(fd, os.fsencode(path), in_open) >= 0

    def opens() -> int:
        try:
            return len(os.read(fd, 65_536)) // 16
        except BlockingIOError:
            return 0

    try:
        yield opens
    finally:
        os.close(fd)


PLAYLISTS: dict[str, str] = {
    "hls-file": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{path}\n#EXT-X-ENDLIST\n",
    "hls-file-url": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{path}\n#EXT-X-ENDLIST\n",
    "hls-http": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{url}\n#EXT-X-ENDLIST\n",
    "hls-master": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}\n",
    "hls-key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:3,\n{path}\n',
    "hls-concat": "#EXTM3U\n#EXTINF:3,\nconcat:{url}|{path}\n#EXT-X-ENDLIST\n",
    "hls-subfile": "#EXTM3U\n#EXTINF:3,\nsubfile,,start,0,end,9999,,:{path}\n",
    "ffconcat": "ffconcat version 1.0\nfile '{path}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} TCP 0\n",
    "pls": "[playlist]\nFile1={url}\nFile2={path}\nNumberOfEntries=2\nVersion=2\n",
    "m3u": "{path}\n{url}\n",
    "xspf": '<?xml version="1.0"?><playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList>'
    "<track><location>{url}</location></track></trackList></playlist>",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    "<Period><AdaptationSet><Representation><BaseURL>{url}</BaseURL></Representation>"
    "</AdaptationSet></Period></MPD>",
    "asx": '<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
    "smil": '<smil><body><audio src="{url}"/></body></smil>',
    "rtsp-text": "RTSPtextrtsp://127.0.0.1:{port}/x\n",
    "hls-behind-id3": "ID3\x03\x00\x00\x00\x00\x00\x00#EXTM3U\n#EXTINF:3,\n{url}\n{path}\n",
    "hls-behind-wav": "RIFF\x24\x00\x00\x00WAVE\n#EXTM3U\n#EXTINF:3,\n{url}\n{path}\n",
    "hls-behind-mp4": "\x00\x00\x00\x08free\n#EXTM3U\n#EXTINF:3,\n{url}\n{path}\n",
    "hls-behind-avi": "RIFF\x24\x00\x00\x00AVI LIST\n#EXTM3U\n#EXTINF:3,\n{url}\n{path}\n",
    "hls-behind-flv": "FLV\x01\x05\x00\x00\x00\x09\n#EXTM3U\n#EXTINF:3,\n{url}\n{path}\n",
    "hls-behind-mpg": "\x00\x00\x01\xba\n#EXTM3U\n#EXTINF:3,\n{url}\n{path}\n",
    "hls-behind-amr": "#!AMR\n\n#EXTM3U\n#EXTINF:3,\n{url}\n{path}\n",
}

RAW = {"hls-behind-amr"}
"""AMR frames are whatever follows its magic number: some noise, and no file or connection."""


@pytest.mark.parametrize("by", ["upload", "path"])
@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlist_is_refused_and_opens_no_file_and_no_connection(
    name: str, by: str, server: Server, voice: bytes, tmp_path: Path
) -> None:
    canary = new_file(tmp_path / "canary.wav", voice)
    with counting_listener() as (port, visits), watched(canary) as opens:
        url = f"http://127.0.0.1:{port}/canary.wav"
        playlist = PLAYLISTS[name].format(path=canary, url=url, port=port).encode("latin-1")
        if by == "upload":
            response = server.post(playlist, "recording.m3u8")
        else:
            (tmp_path / "recording.m3u8").write_bytes(playlist)
            response = server.post_path(str(tmp_path / "recording.m3u8"))
        assert opens() == 0
        assert visits == []
        if name not in RAW or response.status_code != 200:
            check_problem(response, {415, 422}, {UNSUPPORTED[1], UNDECODABLE[1]})
        canary.read_bytes()
        assert IN_WINDOWS or opens() == 1, "the watch itself does not work"


def test_movie_with_audio_in_another_file_is_refused_and_does_not_open_it(
    server: Server, studio: Studio, tmp_path: Path
) -> None:
    canary = new_file(tmp_path / "canary.raw", studio.bytes("mov"))
    movie = mov_that_names(studio.bytes("mov"), canary)
    assert b"alis" in movie
    with watched(canary) as opens:
        response = server.post(movie)
        assert opens() == 0
    check_problem(response, *UNDECODABLE)


def test_service_has_not_restarted_and_transcribes_after_all_malformed_files(
    server: Server, voice: bytes
) -> None:
    assert server.health()["pid"] == server.process.pid
    assert server.post(voice).status_code == 200
    wait_until(lambda: server.health()["jobs_waiting"] == 0, "an empty queue")
