"""The small ffmpeg of the executable: its recipe, and once it is built (`make ffmpeg`) that it
decodes what the full one does, to the same samples."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from not_tested import missing
from recordings import FORMATS, Studio

from sidecar.audio import Block, ffmpeg_command
from sidecar.audio.audio_format import CONTAINERS, container_at
from sidecar.audio.ffmpeg import FfmpegProcess

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "packaging"))

import flavours  # noqa: E402
import inside  # noqa: E402
import small_ffmpeg  # noqa: E402

SMALL = small_ffmpeg.built_ffmpeg()
built = pytest.mark.skipif(SMALL is None, reason=missing("a small ffmpeg", "ffmpeg", "make"))
RATE = 16_000
PICTURE = ("-f", "lavfi", "-t", 7, "-i", "testsrc=size=64x48:rate=25")
FILMS = {
    "mpg": ("-c:v", "mpeg2video", "-c:a", "mp2", "-ar", 44_100),
    "ts": ("-c:v", "libx264", "-c:a", "aac"),
    "mkv": ("-c:v", "libx265", "-c:a", "libopus"),
    "flv": ("-c:v", "flv1", "-c:a", "aac", "-ar", 44_100),
    "avi": ("-c:v", "mpeg4", "-c:a", "libmp3lame", "-ar", 44_100),
}
SAYS = "#!/bin/sh\necho 'ffmpeg version 9.0.2 Copyright'\necho 'configuration: {}'\n"


def listed(kind: str) -> set[str]:
    """What the small ffmpeg lists: `demuxers` or `decoders`."""
    assert SMALL is not None
    said = subprocess.run([SMALL, f"-{kind}"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in said.partition("--\n")[2].splitlines()]
    return {name for row in rows if len(row) > 1 for name in row[1].split(",")}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("studio"))


def decoded(path: Path, ffmpeg: Path, monkeypatch: pytest.MonkeyPatch) -> Block:
    """The samples of a recording, by one ffmpeg."""
    monkeypatch.setattr(ffmpeg_command, "find_ffmpeg", lambda: str(ffmpeg))
    fd = os.open(path, os.O_RDONLY)
    try:
        container = container_at(fd, 0)
        assert container is not None
        process = FfmpegProcess(fd, container, RATE, 60.0)
        try:
            return np.concatenate([*process])
        finally:
            process.close()
    finally:
        os.close(fd)


def test_ffmpeg_source_archive_with_wrong_sha256_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "ffmpeg.tar.xz"
    archive.write_bytes(b"another")
    with pytest.raises(SystemExit, match="SHA-256"):
        small_ffmpeg.check(archive)


def test_configuration_of_small_ffmpeg_has_no_gpl_part_no_network_and_only_library_zlib() -> None:
    options = small_ffmpeg.configuration()
    assert {"--disable-everything", "--disable-autodetect", "--disable-network"} <= {*options}
    assert not [one for one in options if "gpl" in one or "nonfree" in one or "version3" in one]
    assert [one for one in options if "lib" in one] == ["--enable-zlib"]


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("parts", [[], [(1, 9)], [(0, 4), (5, 9)]])
def test_small_ffmpeg_has_each_protocol_that_input_of_the_service_needs(
    windows: bool, parts: list[tuple[int, int]]
) -> None:
    source = ffmpeg_command.input_source(windows, parts)
    (enabled,) = (
        one.partition("=")[2].split(",")
        for one in small_ffmpeg.configuration()
        if one.startswith("--enable-protocol=")
    )
    assert {*source["protocol_whitelist"].split(","), "pipe"} <= {*enabled}


def test_ffmpeg_for_windows_is_built_by_its_compiler_with_all_libraries_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "libz.a")

    monkeypatch.setattr(small_ffmpeg, "CROSS", "x86_64-w64-mingw32-")
    monkeypatch.setattr(small_ffmpeg.subprocess, "run", run)
    small_ffmpeg.build(tmp_path)
    (configure,) = (command for command in commands if command[0] == "./configure")
    asked = {"--cross-prefix=x86_64-w64-mingw32-", "--target-os=mingw32", "--extra-ldflags=-static"}
    assert asked <= {*configure}


def test_named_ffmpeg_that_is_missing_is_an_error_and_without_name_bundled_one_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(small_ffmpeg.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="none"):
        flavours.ffmpeg()
    monkeypatch.delenv(small_ffmpeg.VARIABLE)
    assert flavours.ffmpeg(tmp_path) == flavours.bundled_ffmpeg()


@pytest.mark.system
@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("options", "licence"),
    [("--enable-zlib", "LGPL-2.1-or-later"), ("--enable-gpl --enable-x", "GPL-3.0-or-later")],
)
def test_ffmpeg_configured_with_gpl_is_listed_under_gpl_and_otherwise_under_lgpl(
    options: str, licence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ffmpeg"
    path.write_text(SAYS.format(options), "utf-8")
    path.chmod(0o755)
    monkeypatch.setenv(small_ffmpeg.VARIABLE, str(path))
    assert inside.parts_of("imageio-ffmpeg")[0].licence == licence
    assert inside.version_within("ffmpeg") == "9.0.2"


@built
def test_small_ffmpeg_has_all_demuxers_and_decoders_of_service() -> None:
    decoders = ffmpeg_command.AUDIO_DECODERS.split(",")
    own = {name for name in decoders if not name.startswith("lib")}
    other_names = {"g722", "g726", "g726le", "adpcm_g722", "adpcm_g726"}
    assert own - listed("decoders") <= other_names
    assert {one.demuxer for one in CONTAINERS} <= listed("demuxers")


@built
@pytest.mark.parametrize("name", FORMATS)
def test_small_ffmpeg_decodes_each_format_to_same_samples_as_full_one(
    name: str, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(studio.path(name), monkeypatch)


@built
@pytest.mark.parametrize("suffix", FILMS)
def test_small_ffmpeg_decodes_late_audio_track_of_video_to_same_samples_as_full_one(
    suffix: str, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = ("-itsoffset", 4, "-i", studio.voice)
    compare(studio.make(f"late.{suffix}", *late, *PICTURE, *FILMS[suffix]), monkeypatch)


@built
@pytest.mark.parametrize(("suffix", "codec"), [("ogg", "flac"), ("wv", "wavpack")])
def test_small_ffmpeg_decodes_what_follows_a_hole_to_same_samples_as_full_one(
    suffix: str, codec: str, studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = studio.make("long.wav", "-stream_loop", 9, "-i", studio.voice)
    content = bytearray(studio.make(f"long.{suffix}", "-i", long, "-c:a", codec).read_bytes())
    middle = len(content) // 2
    content[middle - 50_000 : middle + 50_000] = bytes(100_000)
    path = tmp_path / f"hole.{suffix}"
    path.write_bytes(content)
    compare(path, monkeypatch)


def compare(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode a recording with both."""
    assert SMALL is not None
    full = decoded(path, flavours.bundled_ffmpeg(), monkeypatch)
    small = decoded(path, SMALL, monkeypatch)
    assert len(small) == len(full)
    # Float decoders differ in their last digits by the compiler and the processor.
    assert small == pytest.approx(full, abs=2e-3)
