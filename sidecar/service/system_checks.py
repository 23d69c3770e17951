"""Checks of this machine behind `doctor` and the page.

For the doctor, who prints it, and for the page, which shows it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from sidecar import errors
from sidecar.config import remote_server
from sidecar.config.settings import Settings

LOW_DISK_BYTES = 4 << 30


class State(IntEnum):
    """How bad it is; the worst comes first when it is asked what to do."""

    GOOD = 0
    ABSENT = 1
    """Not here, and it works without."""
    WARNING = 2
    BAD = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; ``remedy`` is what to do about it."""

    topic: str
    state: State
    text: str
    remedy: str = ""


def gpu() -> Finding:
    """What there is of a GPU."""
    from sidecar.gpu_memory.gpu_devices import VISIBLE, gpu_memory

    gpu = gpu_memory()
    if gpu is None and (named := os.environ.get(VISIBLE)) is not None:
        text = f"none that {VISIBLE}={named!r} means, or no driver; the CPU does it"
        return Finding("GPU", State.ABSENT, text)
    if gpu is None:
        return Finding("GPU", State.ABSENT, "no NVIDIA GPU, or no driver; the CPU does it")
    free = gpu.total_mb - gpu.used_mb
    return Finding("GPU", State.GOOD, f"{gpu.name}, {free} of {gpu.total_mb} MiB VRAM free")


def ffmpeg() -> Finding:
    """What reads the formats that libsndfile does not."""
    from sidecar.audio import ffmpeg as audio_ffmpeg

    try:
        path = audio_ffmpeg.executable()
        banner = subprocess.run(
            [path, "-version"], capture_output=True, text=True, timeout=20, check=True
        ).stdout.split("\n")[0]
    except errors.SidecarError as error:
        return Finding("ffmpeg", State.WARNING, error.detail, error.hint)
    except (OSError, subprocess.SubprocessError) as problem:
        return Finding(
            "ffmpeg",
            State.WARNING,
            f"{path} does not run ({type(problem).__name__}); wav, flac, ogg and mp3 still work",
            "Reinstall it: pip install --force-reinstall imageio-ffmpeg",
        )
    return Finding("ffmpeg", State.GOOD, f"{banner.partition(' Copyright')[0]}, {path}")


def live(settings: Settings) -> Finding:
    """Which engine hears live audio, and why that one."""
    from sidecar.engines.engine_selection import choose, choose_live

    try:
        files = choose(settings)
    except errors.SidecarError as error:  # which is said of that engine
        return Finding("live", State.ABSENT, f"no engine at all: {error.detail}")
    try:
        chosen, reason = choose_live(settings, files)
    except errors.SidecarError as error:
        return Finding("live", State.BAD, error.detail, error.hint)
    if chosen is None:
        return Finding("live", State.ABSENT, f"none: {reason}")
    return Finding("live", State.GOOD, f"{chosen.spec.name} ({settings.live_engine}): {reason}")


def voice(settings: Settings) -> Finding:
    """Which engine speaks in conversations, and why that one; what a better one lacks."""
    from sidecar.engines.engine_selection import choose
    from sidecar.tts.voice_selection import choose_voice, way_to_better

    files = None
    with contextlib.suppress(errors.SidecarError):  # which is said of that engine
        files = choose(settings)
    try:
        chosen, reason = choose_voice(settings, files)
    except errors.SidecarError as error:
        return Finding("voice", State.BAD, error.detail, error.hint)
    better = way_to_better(settings, chosen)
    more = f"; a better one: {better}" if better else ""
    if chosen is None:
        text = f"none ({settings.voice_engine}), answers can only be read: {reason}{more}"
        return Finding("voice", State.ABSENT, text)
    text = f"{chosen.spec.name} ({settings.voice_engine}): {reason}{more}"
    return Finding("voice", State.GOOD, text)


def thinker(settings: Settings) -> Finding:
    """Who finds the answers in conversations; nobody is asked."""
    from sidecar.conversation.llm.llm_client import KNOWN, meant_by

    try:
        meant = meant_by(settings)
    except errors.SidecarError as error:
        return Finding("answers", State.BAD, error.detail, error.hint)
    if meant.address is None:
        return Finding("answers", State.ABSENT, "no language model (llm): what is said is repeated")
    if meant.looked_for:
        return Finding("answers", State.GOOD, f"by whichever answers here: {', '.join(KNOWN)}")
    return Finding(
        "answers", State.GOOD, f"by the model at {remote_server.host_of(meant.address.url)}"
    )


def checkpoint(settings: Settings) -> Finding:
    """The checkpoint that VibeVoice-ASR would load: the one that is set, or the cache's."""
    from sidecar.checkpoints import checkpoint as checkpoints_checkpoint
    from sidecar.checkpoints import installed_checkpoints

    try:
        found = installed_checkpoints.find_checkpoint(settings.model_path)
    except errors.CheckpointNotFound as error:
        if settings.model_path is None:
            text = f"none in {checkpoints_checkpoint.cache_root()}; the embedded engine needs none"
            return Finding("checkpoint", State.ABSENT, text)
        return Finding("checkpoint", State.WARNING, error.detail, error.hint)
    except errors.BadCheckpoint as error:
        return Finding("checkpoint", State.WARNING, error.detail, error.hint)
    text = f"{found.folder}, {found.bytes / 1e6:,.0f} MB, commit {found.revision or 'unknown'}"
    return Finding("checkpoint", State.GOOD, text)


def spool(settings: Settings) -> Finding:
    """Where uploads go, and how much room there is."""
    folder = settings.spool_dir or Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        remedy = errors.SpoolUnwritable.default_hint
        return Finding("uploads", State.BAD, f"{folder}: {error.strerror}", remedy)
    text = f"{folder}, {free >> 30} GiB free"
    if free < LOW_DISK_BYTES:
        return Finding("uploads", State.WARNING, text, errors.DiskFull.default_hint)
    return Finding("uploads", State.GOOD, text)


def kept(settings: Settings) -> Finding:
    """The jobs that outlive the service."""
    from sidecar.jobs.recovery import jobs_folder
    from sidecar.storage.encryption import journal_key
    from sidecar.storage.job_journal import broken_files
    from sidecar.storage.postgres_database import look
    from sidecar.storage.postgres_settings import journal_address
    from sidecar.storage.storage_selection import check, described, storage_of

    folder = jobs_folder(settings)
    try:
        journal_key(settings)
        if (address := journal_address(settings)) is not None:
            text = look(address)
            check(storage_of(settings, folder), patience_s=0.0)
            text = f"{text}; recordings in {described(settings, folder)}"
            return Finding("kept jobs", State.GOOD, text)
    except errors.SettingsInvalid as error:
        return Finding("kept jobs", State.BAD, error.detail, error.hint)
    if broken := broken_files(folder):
        text = f"{folder}, {len(broken)} broken files were set aside, the last as {broken[-1].name}"
        return Finding("kept jobs", State.WARNING, text, "Look at them, then move them away.")
    return Finding("kept jobs", State.GOOD, str(folder))


def around(settings: Settings) -> Iterator[Finding]:
    """What a service that runs may lack: looked at, with nothing loaded for it."""
    yield gpu()
    yield ffmpeg()
    yield checkpoint(settings)
    yield spool(settings)
    if settings.keeps_jobs:
        yield kept(settings)
