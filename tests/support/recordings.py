"""Recordings made on the spot: a few seconds of the wheel's clip, encoded by the real ffmpeg."""

import struct
import subprocess
from pathlib import Path

import imageio_ffmpeg
import moonshine_voice

SECONDS = 3.0

_VIDEO = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10"]
FORMATS: dict[str, tuple[str, list[str]]] = {
    **{
        f"wav-{name}": ("wav", ["-c:a", codec])
        for name, codec in {
            "u8": "pcm_u8",
            "s16": "pcm_s16le",
            "s24": "pcm_s24le",
            "s32": "pcm_s32le",
            "f32": "pcm_f32le",
            "f64": "pcm_f64le",
            "alaw": "pcm_alaw",
            "mulaw": "pcm_mulaw",
            "adpcm": "adpcm_ima_wav",
        }.items()
    },
    **{
        f"wav-{rate // 1000}kHz": ("wav", ["-ar", str(rate)])
        for rate in (8000, 11025, 22050, 44100, 48000, 96000)
    },
    **{name: (name, []) for name in ("w64", "flac", "aiff", "au", "caf")},
    "wav-stereo": ("wav", ["-ac", "2"]),
    "wav-6-channels": ("wav", ["-ac", "6", "-ar", "48000"]),
    "rf64": ("wav", ["-rf64", "always"]),
    "flac-24-bit-stereo": ("flac", ["-ac", "2", "-sample_fmt", "s32"]),
    "mp3-cbr": ("mp3", ["-b:a", "64k"]),
    "mp3-vbr": ("mp3", ["-q:a", "4"]),
    "mp3-without-header": ("mp3", ["-b:a", "64k", "-write_xing", "0", "-id3v2_version", "0"]),
    "mp3-id3": (
        "mp3",
        ["-b:a", "64k", "-id3v2_version", "3", "-metadata", "title=" + "long " * 2000],
    ),
    "ogg-vorbis": ("ogg", ["-c:a", "libvorbis"]),
    "ogg-opus": ("ogg", ["-c:a", "libopus", "-b:a", "24k"]),
    "ogg-flac": ("ogg", ["-c:a", "flac"]),
    "m4a": ("m4a", ["-c:a", "aac"]),
    "m4a-moov-at-the-start": ("m4a", ["-c:a", "aac", "-movflags", "+faststart"]),
    "m4a-fragmented": ("mp4", ["-c:a", "aac", "-movflags", "+frag_keyframe+empty_moov"]),
    "m4a-alac": ("m4a", ["-c:a", "alac"]),
    "aac": ("aac", ["-c:a", "aac"]),
    "webm-opus": ("webm", ["-c:a", "libopus"]),
    "wma": ("wma", ["-c:a", "wmav2"]),
    "mp4-with-video": ("mp4", [*_VIDEO, "-c:v", "mpeg4", "-c:a", "aac", "-shortest"]),
    "mp4-with-h264": ("mp4", [*_VIDEO, "-c:v", "libx264", "-c:a", "aac", "-shortest"]),
    "m4a-with-cover": (
        "m4a",
        [
            *("-f", "lavfi", "-t", "0.1", "-i", "testsrc=size=64x48:rate=10", "-map", "0:a"),
            *("-map", "1:v", "-c:v", "mjpeg", "-disposition:v", "attached_pic", "-c:a", "aac"),
        ],
    ),
    "webm-with-video": ("webm", [*_VIDEO, "-c:v", "libvpx", "-c:a", "libvorbis", "-shortest"]),
    "mkv-with-video": ("mkv", [*_VIDEO, "-c:v", "mpeg4", "-c:a", "ac3", "-shortest"]),
    "mov": ("mov", ["-c:a", "pcm_s16le"]),
    "ts": ("ts", [*_VIDEO, "-c:v", "mpeg2video", "-r", "25", "-c:a", "aac", "-shortest"]),
    "m2ts": ("m2ts", ["-c:a", "ac3", "-ar", "48000"]),
    "mpg": ("mpg", ["-c:a", "mp2", "-ar", "48000"]),
    "avi": ("avi", [*_VIDEO, "-c:v", "mpeg4", "-c:a", "libmp3lame", "-ar", "44100", "-shortest"]),
    "flv": ("flv", ["-c:a", "aac", "-ar", "44100"]),
    "mp2": ("mp2", ["-c:a", "mp2", "-ar", "44100"]),
    "ac3": ("ac3", ["-c:a", "ac3", "-ar", "48000"]),
    "amr-nb": ("amr", ["-c:a", "libopencore_amrnb", "-ar", "8000", "-ac", "1"]),
}
"""Name -> (suffix, what ffmpeg is told besides the input)."""


def run_ffmpeg(*args: object) -> None:
    """Run the wheel's ffmpeg; raises with its words when it fails."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-y"]
    done = subprocess.run([*command, *map(str, args)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def silence(seconds: int) -> bytes:
    """A wav of nothing, 8 bit at 8 kHz."""
    return wav(b"\x80" * 8000 * seconds, rate=8000, bits=8)


class Studio:
    """Makes each recording once and keeps it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clip = Path(moonshine_voice.get_assets_path()) / "beckett.wav"
        self.voice = folder / "voice.wav"
        run_ffmpeg("-i", clip, "-t", SECONDS, "-ar", 16_000, "-ac", 1, self.voice)

    def path(self, name: str) -> Path:
        """The recording of `FORMATS` with this name."""
        suffix, args = FORMATS[name]
        return self.make(f"{name}.{suffix}", "-i", self.voice, *args)

    def bytes(self, name: str) -> bytes:
        """Its content."""
        return self.path(name).read_bytes()

    def make(self, file_name: str, *args: object) -> Path:
        """A file of this name as ffmpeg writes it with ``args``."""
        path = self.folder / file_name
        if not path.exists():
            run_ffmpeg(*args, path)
        return path


def wav(
    data: bytes,
    *,
    tag: int = 1,
    channels: int = 1,
    rate: int = 16_000,
    bits: int = 16,
    claimed: int | None = None,
) -> bytes:
    """A RIFF file with just these values in its header, lawful or not."""
    frame = channels * bits // 8
    header = struct.pack(
        "<HHIIHH", tag, channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits
    )
    size = len(data) if claimed is None else claimed
    chunks = b"fmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) & 0xFFFFFFFF) + b"WAVE" + chunks


def long(seconds: int) -> bytes:
    """A recording for a job that is to take its time, at 2 kB a second."""
    return wav(b"\x80" * 2000 * seconds, rate=2000, bits=8)


def mp4_boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """The boxes of an MP4 file or of a box's body: (type, body)."""
    boxes, position = [], 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4])
        boxes.append((data[position + 4 : position + 8], data[position + 8 : position + size]))
        position += size
    return boxes


def mp4_join(boxes: list[tuple[bytes, bytes]]) -> bytes:
    """The reverse of `mp4_boxes`."""
    return b"".join(struct.pack(">I4s", len(body) + 8, kind) + body for kind, body in boxes)


def mov_that_names(data: bytes, target: Path) -> bytes:
    """A MOV whose sound lies in another file: its data reference replaced by a QuickTime alias."""
    name = str(target).encode()
    alias = bytes(10) + bytes([1]) + b"/".ljust(27, b"\0") + bytes(12)
    leaf = target.name.encode()
    alias += bytes([len(leaf)]) + leaf.ljust(63, b"\0") + bytes(16)
    alias += struct.pack(">hh", 1, len(target.parts)) + bytes(16)
    padded = name + b"\0" * (len(name) % 2)
    alias += struct.pack(">hh", 2, len(name)) + padded + struct.pack(">hh", -1, 0)
    reference = bytes(4) + struct.pack(">I", 1) + mp4_join([(b"alis", bytes(4) + alias)])
    deep = (b"moov", b"trak", b"mdia", b"minf", b"dinf")

    def rewrite(kind: bytes, body: bytes) -> bytes:
        if kind == b"dref":
            return reference
        if kind not in deep:
            return body
        return mp4_join([(child, rewrite(child, inner)) for child, inner in mp4_boxes(body)])

    return mp4_join(
        [
            (kind, bytes(len(body)) if kind == b"mdat" else rewrite(kind, body))
            for kind, body in mp4_boxes(data)
        ]
    )
