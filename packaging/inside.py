"""What is inside a build: which packages its files came from, and what wheels carry."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

import flavours
from wanted import OURSELVES, normal


@dataclass(frozen=True, slots=True)
class Within:
    """What a wheel carries that no metadata of its own speaks of; ``text`` is in `TEXTS`."""

    name: str
    licence: str
    text: str = ""


WITHIN: dict[str, tuple[Within, ...]] = {
    "cryptography": (Within("openssl", "Apache-2.0"),),
    "ctranslate2": (
        Within("onednn", "Apache-2.0", "Apache-2.0.txt"),
        Within("intel-mkl", "LicenseRef-Intel-Simplified", "Intel-Simplified.txt"),
        Within("intel-openmp", "LicenseRef-Intel-Simplified", "Intel-Simplified.txt")
        if sys.platform == "win32"
        else Within("libgomp", "GPL-3.0-or-later WITH GCC-exception-3.1", "GPL-3.0.txt"),
    ),
    "fastapi-offline": (Within("swagger-ui", "Apache-2.0", "Apache-2.0.txt"),),
    "imageio-ffmpeg": (Within("ffmpeg", "GPL-3.0-or-later", "GPL-3.0.txt"),),
    "moonshine-voice": (
        Within("onnxruntime", "MIT"),
        Within("silero-vad", "MIT"),
        Within("moonshine-tiny-en", "MIT"),
        Within("pyannote-community-1", "CC-BY-4.0"),
    ),
    "soundfile": (
        Within("libsndfile", "LGPL-2.1-or-later", "LGPL-2.1.txt"),
        Within("mpg123", "LGPL-2.1-only", "LGPL-2.1.txt"),
        Within("libogg-libvorbis-opus-flac", "BSD-3-Clause"),
    ),
    "soxr": (Within("libsoxr", "LGPL-2.1-or-later", "LGPL-2.1.txt"),),
    "numpy": (Within("openblas", "BSD-3-Clause"),),
}

SMALL_FFMPEG = (Within("ffmpeg", "LGPL-2.1-or-later", "LGPL-2.1.txt"), Within("zlib", "Zlib"))
"""The same for an ffmpeg without parts under the GPL (`small_ffmpeg.py`)."""

STATED = {
    "msvc-runtime": "LicenseRef-Microsoft-Visual-C-Runtime",
    "pyinstaller": "GPL-2.0-or-later WITH Bootloader-exception",  # from its COPYING.txt
}
"""Licences (SPDX) of packages whose metadata name none or another one."""


def parts_of(package: str) -> tuple[Within, ...]:
    """What a distribution of this name carries into this build."""
    if package == "imageio-ffmpeg" and "--enable-gpl" not in _ffmpeg_says():
        return SMALL_FFMPEG
    return WITHIN.get(package, ())


def _ffmpeg_says() -> str:
    """Version and configuration of the ffmpeg of this build."""
    command = [flavours.ffmpeg(), "-version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def owners(sources: Iterable[Path]) -> tuple[list[Distribution], list[Path]]:
    """The distributions that files came from, by name; and the files that came from none."""
    sources = [*sources]
    names = {source.name for source in sources}  # to resolve the paths of all files takes minutes
    owner: dict[Path, Distribution] = {}
    for distribution in distributions():
        if normal(distribution.metadata["Name"]) == OURSELVES:
            continue
        for file in distribution.files or ():
            if file.name in names:
                owner[Path(str(distribution.locate_file(file))).resolve()] = distribution
    found: dict[str, Distribution] = {}
    rest = []
    for source in sources:
        if any(part.endswith(".dist-info") for part in source.parts):
            continue  # metadata is looked at by others; it is not the package
        path = source if source.is_absolute() else flavours.ROOT / source
        if (distribution := owner.get(path.resolve())) is not None:
            found[normal(distribution.metadata["Name"])] = distribution
        elif path.is_file():
            rest.append(path)
    for distribution in distributions():  # its boot loader is the executable itself
        if normal(distribution.metadata["Name"]) == "pyinstaller":
            found["pyinstaller"] = distribution
    return [found[name] for name in sorted(found)], rest


def version_within(name: str) -> str:
    """The version of a part that a wheel carries, where it says so; else ''."""
    match name:
        case "ffmpeg":
            # "n9.0.2-17-g2a571b6068-20260930": 17 commits after 9.0.2, at 2a571b6068, and a date.
            # The file's name has the release alone, which is not the source of these bytes.
            return re.sub(r"-\d{8}$", "", _ffmpeg_says().split()[2]).removeprefix("n")
        case "openssl":
            from cryptography.hazmat.backends.openssl import backend

            return backend.openssl_version_text().split()[1]
        case "libsndfile":
            import soundfile

            return str(soundfile.__libsndfile_version__)
        case "libsoxr":
            import soxr

            return str(soxr.__libsoxr_version__).removeprefix("libsoxr-")
    return ""


def debian_package(path: Path) -> tuple[str, str]:
    """The Debian package that a file belongs to, and its version; ('', '') elsewhere."""
    if shutil.which("dpkg-query") is None:
        return "", ""
    for name in (path, path.resolve(), Path("/usr") / path.resolve().relative_to("/")):
        found = subprocess.run(
            ["dpkg-query", "--search", str(name)], capture_output=True, text=True, check=False
        )
        if found.returncode == 0:
            package = found.stdout.split(":")[0]
            version = subprocess.run(
                ["dpkg-query", "--show", "--showformat=${Version}\n", package],
                capture_output=True,
                text=True,
                check=False,
            ).stdout.split("\n")[0]
            return package, version
    return "", ""
