"""Checks of this machine for `doctor` and for the page."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from sidecar import errors, files
from sidecar.child_processes import NO_WINDOW
from sidecar.config.settings import Settings

LOW_DISK_BYTES = 4 << 30
LOW_MEMORY_BYTES = 1 << 30
"""What the service and the embedded engine need at most with a recording."""


class CheckState(IntEnum):
    """Severity of a finding; higher is worse."""

    GOOD = 0
    ABSENT = 1
    """Not available, and not required."""
    WARNING = 2
    BAD = 3


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """Finding of one check; ``remedy`` says what to do about it."""

    topic: str
    state: CheckState
    text: str
    remedy: str = ""


def check_gpu() -> CheckFinding:
    """Check the GPU, and whether torch, if it is installed, can use it."""
    from sidecar.engines.torch_build import torch_obstacle
    from sidecar.gpu_memory.gpu_devices import VISIBLE_DEVICES_VARIABLE, read_gpu_memory
    from sidecar.gpu_memory.torch_devices import torch_is_for_rocm

    gpu = read_gpu_memory()
    if gpu is not None:
        text = f"{gpu.name}, {gpu.total_mb - gpu.used_mb} of {gpu.total_mb} MiB VRAM free"
        if obstacle := torch_obstacle(gpu.name):
            return CheckFinding("GPU", CheckState.WARNING, f"{text}; {obstacle[0]}", obstacle[1])
        return CheckFinding("GPU", CheckState.GOOD, text)
    named, lacks = os.environ.get(VISIBLE_DEVICES_VARIABLE), "no NVIDIA GPU"
    if torch_is_for_rocm():
        lacks = "no GPU that torch for ROCm finds"
    if named is not None:
        lacks = f"none that {VISIBLE_DEVICES_VARIABLE}={named!r} means"
    return CheckFinding("GPU", CheckState.ABSENT, f"{lacks}, or no driver; the CPU is used")


def check_memory() -> CheckFinding:
    """Check the memory that this process may use."""
    from sidecar.gpu_memory.host_memory import read_host_memory

    memory = read_host_memory()
    whose = "this container (or cgroup) may use" if memory.limited else "this machine has"
    text = f"{memory.free_bytes >> 20} MiB free of {memory.total_bytes >> 20} that {whose}"
    if memory.total_bytes < LOW_MEMORY_BYTES:
        remedy = f"Give it at least {LOW_MEMORY_BYTES >> 20} MiB; an engine that needs more dies."
        return CheckFinding("memory", CheckState.WARNING, text, remedy)
    return CheckFinding("memory", CheckState.GOOD, text)


def check_ffmpeg() -> CheckFinding:
    """Check ffmpeg, which decodes all formats but wav."""
    from sidecar.audio import ffmpeg_command

    try:
        path = ffmpeg_command.find_ffmpeg()
        banner = subprocess.run(
            [path, "-version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            creationflags=NO_WINDOW,
        ).stdout.split("\n")[0]
    except errors.SidecarError as error:
        return CheckFinding("ffmpeg", CheckState.WARNING, error.detail, error.hint)
    except (OSError, subprocess.SubprocessError) as problem:
        return CheckFinding(
            "ffmpeg",
            CheckState.WARNING,
            f"{path} does not run ({type(problem).__name__}); wav still works",
            "Reinstall it: pip install --force-reinstall imageio-ffmpeg",
        )
    return CheckFinding("ffmpeg", CheckState.GOOD, f"{banner.partition(' Copyright')[0]}, {path}")


def check_live_engine(settings: Settings) -> CheckFinding:
    """Check the live engine; return it with the reason of its choice."""
    from sidecar.engines.engine_selection import choose_engine, choose_live_engine

    try:
        files = choose_engine(settings)
    except errors.SidecarError as error:  # reported by the finding "engine"
        return CheckFinding("live", CheckState.WARNING, f"no engine at all: {error.detail}")
    try:
        chosen, reason = choose_live_engine(settings, files)
    except errors.SidecarError as error:
        return CheckFinding("live", CheckState.BAD, error.detail, error.hint)
    if chosen is None:
        return CheckFinding("live", CheckState.ABSENT, f"none: {reason}")
    text, state = f"{chosen.spec.name} ({settings.live_engine}): {reason}", CheckState.GOOD
    if chosen.fits:
        precision = chosen.spec.resolve_precision(settings.precision)
        text += f"; {precision}, at most {chosen.spec.sessions} sessions"
    elif chosen.footprints:
        text += f"; memory is short even for one session beside '{files.spec.name}' for files"
        state = CheckState.WARNING
    return CheckFinding("live", state, text)


def check_checkpoint(settings: Settings) -> CheckFinding | None:
    """Check the checkpoint that VibeVoice-ASR would load: the one that is set, or the cached one.
    None if there is none and none is set: another engine serves."""
    from sidecar.checkpoints import installed_checkpoints

    try:
        found = installed_checkpoints.find_checkpoint(settings.model_path)
    except errors.BadCheckpoint as error:
        if isinstance(error, errors.CheckpointNotFound) and settings.model_path is None:
            return None
        return CheckFinding("checkpoint", CheckState.WARNING, error.detail, error.hint)
    text = f"{found.folder}, {found.bytes / 1e6:,.0f} MB, commit {found.revision or 'unknown'}"
    return CheckFinding("checkpoint", CheckState.GOOD, text)


def check_spool(settings: Settings) -> CheckFinding:
    """Check the folder of uploads and its free space."""
    folder = settings.spool_dir or Path(tempfile.gettempdir())
    try:
        with files.temporary(folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        remedy = errors.SpoolUnwritable.default_hint
        return CheckFinding("uploads", CheckState.BAD, f"{folder}: {error.strerror}", remedy)
    text = f"{folder}, {free >> 30} GiB free"
    if free < LOW_DISK_BYTES:
        return CheckFinding("uploads", CheckState.WARNING, text, errors.DiskFull.default_hint)
    return CheckFinding("uploads", CheckState.GOOD, text)


def check_kept_jobs(settings: Settings) -> CheckFinding:
    """Check the folder of jobs that outlive the service."""
    from sidecar.jobs.recovery import jobs_folder
    from sidecar.storage.encryption import journal_key
    from sidecar.storage.job_journal import broken_files

    folder = jobs_folder(settings)
    try:
        journal_key(settings)
    except errors.SettingsInvalid as error:
        return CheckFinding("kept jobs", CheckState.BAD, error.detail, error.hint)
    if broken := broken_files(folder):
        text = f"{folder}, {len(broken)} broken files were set aside, the last as {broken[-1].name}"
        remedy = "Check these files, then move them away."
        return CheckFinding("kept jobs", CheckState.WARNING, text, remedy)
    return CheckFinding("kept jobs", CheckState.GOOD, str(folder))


def check_environment(settings: Settings) -> Iterator[CheckFinding]:
    """Check what a running service may lack, without loading any engine."""
    yield check_gpu()
    yield check_memory()
    yield check_ffmpeg()
    if checkpoint := check_checkpoint(settings):
        yield checkpoint
    yield check_spool(settings)
    if settings.keeps_jobs and not settings.shares_jobs:
        yield check_kept_jobs(settings)
