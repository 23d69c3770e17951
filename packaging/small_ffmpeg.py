"""A small ffmpeg for the executable: `python packaging/small_ffmpeg.py [SOURCE.tar.xz]`.

Of 173 MB of the one in imageio-ffmpeg's wheel the service uses what `sidecar.audio` names: demuxers
of its containers, audio decoders, one resampler. This builds that and nothing else from ffmpeg's
own source of the same release, without any library but zlib: 5 MB under the LGPL. It needs a C
compiler and make, and uses nasm if it is there. Without SOURCE the archive is downloaded. The
result is build/ffmpeg/ffmpeg, with its licence. With CROSS, the prefix of a compiler for Windows
(`x86_64-w64-mingw32-`), it is build/ffmpeg/ffmpeg.exe.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from sidecar.audio.audio_format import CONTAINERS
from sidecar.audio.ffmpeg_command import AUDIO_DECODERS

RELEASE = "9.0.2"
SHA256 = "8c3850283eb25fa026482078a04051e0be17347b09ef81a0849bec15a96e002e"
"""Of the release's archive, whose signature by ffmpeg's key Debian checks as well."""
URL = f"https://ffmpeg.org/releases/ffmpeg-{RELEASE}.tar.xz"
ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "ffmpeg"
VARIABLE = "FFMPEG"
"""Names another ffmpeg to pack, in the environment."""
CROSS = os.environ.get("CROSS", "")
FOR_WINDOWS = ("--arch=x86_64", "--target-os=mingw32", "--extra-ldflags=-static")
"""Further options with `CROSS`; the compiler's own libraries are inside, too."""
_SUFFIX = ".exe" if os.name == "nt" or CROSS else ""

CONFIGURE_NAMES = {"mpeg": "mpegps"} | {
    name: f"adpcm_{name}" for name in ("g722", "g726", "g726le")
}
"""Where configure has another name than the command line."""
PROBED = (
    "av1", "dvbsub", "dvbtxt", "evc", "h264", "hevc", "loas", "m4v", "mjpeg_2000", "mpegvideo",
    "truehd", "vvc",
)  # fmt: skip
"""Formats that tell the tracks of MPEG-PS and MPEG-TS apart where those do not name them; otherwise
a picture is taken for sound."""
FIXED = (
    "--disable-everything",
    "--disable-autodetect",
    "--disable-doc",
    "--disable-network",
    "--disable-debug",
    "--disable-ffplay",
    "--disable-ffprobe",
    "--disable-avdevice",
    "--disable-swscale",
    "--enable-small",
    "--enable-zlib",  # compressed headers of MP4 and Matroska
    "--enable-parsers",  # times of films are those that the full one tells
    "--enable-protocol=concat,file,fd,pipe,subfile",
    "--enable-muxer=matroska",
    "--enable-encoder=pcm_f32le",
    "--enable-filter=aresample,aformat,anull,atrim",
)


def main() -> int:
    """Build it, unless it is there."""
    if built_ffmpeg() is not None:
        print(f"{built_ffmpeg()} is there already.")
        return 0
    with tempfile.TemporaryDirectory(prefix="small-ffmpeg-") as name:
        folder = Path(name)
        archive = Path(sys.argv[1]) if len(sys.argv) > 1 else download(folder)
        check(archive)
        with tarfile.open(archive) as packed:
            packed.extractall(folder)  # checked: no filter, which Python 3.11.4 brought
        source = folder / f"ffmpeg-{RELEASE}"
        build(source)
        FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "COPYING.LGPLv2.1", FOLDER)
        shutil.copy(source / f"ffmpeg{_SUFFIX}", FOLDER)
    print(f"{built_ffmpeg()}: {(FOLDER / f'ffmpeg{_SUFFIX}').stat().st_size:,} bytes")
    return 0


def built_ffmpeg(folder: Path = FOLDER) -> Path | None:
    """Return the small ffmpeg if ``folder`` has it, or the one that the environment names.

    Raises:
        FileNotFoundError: the environment names none.
    """
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_file():
            raise FileNotFoundError(f"{VARIABLE}={named} is no file")
        return Path(named)
    path = folder / f"ffmpeg{_SUFFIX}"
    return path if path.is_file() else None


def download(folder: Path) -> Path:
    """Download the archive of the source.

    Raises:
        OSError: it cannot be reached.
    """
    path = folder / URL.rpartition("/")[2]
    with urllib.request.urlopen(URL, timeout=60) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file)
    return path


def check(archive: Path) -> None:
    """Compare the archive with `SHA256`.

    Raises:
        SystemExit: it is another one.
    """
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise SystemExit(f"{archive}: SHA-256 is {found}, and not that of ffmpeg {RELEASE}.")


def configuration() -> list[str]:
    """Return the options of configure."""
    demuxers = (one.demuxer for one in CONTAINERS)
    return [
        *FIXED,
        f"--enable-demuxer={','.join(_named({*PROBED, *demuxers}))}",
        f"--enable-decoder={','.join(_named(AUDIO_DECODERS.split(',')))}",
    ]


def _named(names: Iterable[str]) -> list[str]:
    """Return the names that configure has for these, without those of other libraries."""
    own = (name for name in names if not name.startswith("lib"))
    return sorted({CONFIGURE_NAMES.get(name, name) for name in own})


def build(source: Path) -> None:
    """Configure and compile.

    Raises:
        subprocess.CalledProcessError: it fails; its words are on standard error.
    """
    options = configuration()
    if shutil.which("nasm") is None:
        options.append("--disable-x86asm")
    if (static := _static_zlib()) is not None:
        held = source / "static"
        held.mkdir()
        shutil.copy(static, held)
        options.append(f"--extra-ldflags=-L{held}")
    if CROSS:
        options += (f"--cross-prefix={CROSS}", *FOR_WINDOWS)
    processes = os.environ.get("PROCESSES") or str(os.cpu_count() or 1)
    for command in (["./configure", *options], ["make", f"-j{processes}", f"ffmpeg{_SUFFIX}"]):
        subprocess.run(command, cwd=source, check=True)


def _static_zlib() -> Path | None:
    """Return zlib's archive, which needs no library where the program runs; `None` without one."""
    compiler = shutil.which(f"{CROSS}gcc" if CROSS else "cc")
    if compiler is None or sys.platform != "linux":
        return None
    said = subprocess.run(
        [compiler, "-print-file-name=libz.a"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return Path(said) if Path(said).is_absolute() else None


if __name__ == "__main__":
    sys.exit(main())
