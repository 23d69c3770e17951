"""`vibevoice-asr doctor`: what is here, what is missing, and the one thing to do next."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from sidecar import __version__, errors
from sidecar.cli.said import INTERRUPTED
from sidecar.host import neighbour
from sidecar.settings import Settings, config_file, load_settings
from sidecar.speech.engine import AUTO, EngineSpec, LoadOptions, few

LOAD_TIMEOUT_S = 60.0
LIGHT_ENGINES = frozenset({"moonshine"})
"""Loaded for a moment, because only that finds a broken library; the others weigh gigabytes."""
LOW_DISK_BYTES = 4 << 30
READY = "Nothing. Transcribe with: vibevoice-asr transcribe FILE"


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


def run(report: bool = False, file: Path | None = None) -> int:
    """Look at everything and print it; the exit code is 1 when something keeps it from working.

    With ``report`` it goes into a file for a bug report, together with logs and notes of crashes.
    """
    try:
        findings = list(examine())
    except KeyboardInterrupt:
        return INTERRUPTED
    if report:
        from sidecar.cli import report as reports

        words = [f"{finding.state.name:<8} {finding.topic}: {finding.text}" for finding in findings]
        return reports.write(file, "\n".join(words) + "\n", _settings()[0])
    _print(findings, next_step(findings))
    return int(any(finding.state is State.BAD for finding in findings))


def next_step(findings: Sequence[Finding]) -> str:
    """The one thing to do next: the remedy of the worst finding, the first among equals."""
    wrong = [finding for finding in findings if finding.remedy and finding.state >= State.WARNING]
    return max(wrong, key=lambda finding: finding.state).remedy if wrong else READY


def examine() -> Iterator[Finding]:
    """Everything there is to find out, in the order it is read."""
    yield Finding(
        "version",
        State.GOOD,
        f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}",
    )
    settings, finding = _settings()
    yield finding
    yield from _engines(settings)
    yield from _upstreams(settings)
    yield _gpu()
    yield _ffmpeg()
    yield _checkpoint(settings)
    yield _port(settings)
    yield _spool(settings)
    if settings.keep_jobs:
        yield _kept(settings)


def _settings() -> tuple[Settings, Finding]:
    """The settings, or the defaults where they are not possible; and which it is."""
    try:
        settings = load_settings()
    except errors.SettingsInvalid as error:
        wrong = Finding("settings", State.BAD, error.detail, error.hint)
        return Settings.model_construct(), wrong
    file = config_file()
    text = f"{file}{'' if file.exists() else ' (not there)'}"
    return settings, Finding("settings", State.GOOD, text)


def _engines(settings: Settings) -> Iterator[Finding]:
    from sidecar import engines
    from sidecar.engines import choice

    facts = choice.look(settings.model_copy(update={"engine": AUTO}))
    try:
        serves, reason = choice.decide(settings.engine, facts)
    except (errors.EngineUnavailable, errors.BadCheckpoint) as error:
        serves = ""
        yield Finding("engine", State.BAD, error.detail, error.hint)
    else:
        yield Finding("serves", State.GOOD, f"{serves} ({settings.engine}): {reason}")
    for spec in engines.ENGINES:
        title = f"{spec.name}{' (serves)' if spec.name == serves else ''}: {spec.title}"
        # What is not asked for may lack what it needs.
        bad = State.BAD if spec.name == serves else State.ABSENT
        if lacking := engines.missing(spec):
            packages = ", ".join(lacking)
            yield Finding(
                "engine",
                bad,
                f"{title}; not usable, without {packages}",
                choice.remedy(spec.name),
            )
        elif spec.name == choice.VIBEVOICE and isinstance(facts.checkpoint, errors.BadCheckpoint):
            wrong = facts.checkpoint
            yield Finding("engine", bad, f"{title}; not usable: {wrong.detail}", wrong.hint)
        elif spec.name == choice.WHISPER and (lacks := choice.without_whisper(settings)):
            yield Finding("engine", bad, f"{title}; not usable: {lacks.detail}", lacks.hint)
        elif spec.name in LIGHT_ENGINES and (broken := asyncio.run(_load(spec))):
            yield Finding("engine", bad, f"{title}; not usable: {broken.detail}", broken.hint)
        else:
            languages = few(spec.languages) or "any language"
            precisions = ", ".join(spec.precisions)
            yield Finding("engine", State.GOOD, f"{title}; {languages}; {precisions}")
            if spec.name in LIGHT_ENGINES:
                yield from _models()


def _models() -> Iterator[Finding]:
    """What runs the embedded engine's models; it loads, so to try them here is safe."""
    from sidecar.engines.moonshine.recognizer import why_not_onnx
    from sidecar.voices.models import why_unavailable

    for topic, reason, cost in (
        ("recognizer", why_not_onnx(), "four"),
        ("speakers", why_unavailable(), "twenty"),
    ):
        if not reason:
            yield Finding(topic, State.GOOD, "by onnxruntime")
            continue
        text = f"by the moonshine-voice library, at {cost} times the processor time: {reason}"
        remedy = "Reinstall it: pip install --force-reinstall onnxruntime moonshine-voice==0.0.73"
        yield Finding(topic, State.WARNING, text, remedy)


def _upstreams(settings: Settings) -> Iterator[Finding]:
    """Who hears for the engine 'upstream'; nobody is asked where that is not set."""
    from sidecar.engines.choice import UPSTREAM

    if settings.engine != UPSTREAM:
        return
    from sidecar.engines.upstream.address import upstream_of
    from sidecar.engines.upstream.upstreams import Upstreams

    try:
        upstreams = Upstreams(upstream_of(settings))
    except errors.SettingsInvalid as error:
        yield Finding("upstream", State.BAD, error.detail, error.hint)
        return
    for server, wrong in upstreams.run(upstreams.visit()).result():
        if wrong is not None:
            yield Finding("upstream", State.WARNING, wrong.detail, wrong.hint)
        elif server.dialect is not None:
            own = "" if server.dialect.diarizes else "; speakers are told apart here"
            text = f"{server.name} answers ({server.dialect.name}){own}"
            yield Finding("upstream", State.GOOD, text)


async def _load(spec: EngineSpec) -> errors.SidecarError | None:
    """Load an engine in a process of its own, and let it go; why it does not load."""
    from sidecar.workers.worker import Worker, WorkerDied

    worker = Worker(spec.name)
    try:
        async with asyncio.timeout(LOAD_TIMEOUT_S):
            await worker.ask("load", engine=spec.name, options=LoadOptions().to_wire())
    except errors.SidecarError as error:
        return error
    except (WorkerDied, TimeoutError):
        return errors.ModelLoadFailed(
            "its process died while it loaded.", hint="Reinstall vibevoice-asr."
        )
    finally:
        await worker.close()
    return None


def _gpu() -> Finding:
    from sidecar.memory.devices import gpu_memory
    from sidecar.memory.visible import VISIBLE

    gpu = gpu_memory()
    if gpu is None and (named := os.environ.get(VISIBLE)) is not None:
        text = f"none that {VISIBLE}={named!r} means, or no driver; the CPU does it"
        return Finding("GPU", State.ABSENT, text)
    if gpu is None:
        return Finding("GPU", State.ABSENT, "no NVIDIA GPU, or no driver; the CPU does it")
    free = gpu.total_mb - gpu.used_mb
    return Finding("GPU", State.GOOD, f"{gpu.name}, {free} of {gpu.total_mb} MiB VRAM free")


def _ffmpeg() -> Finding:
    from sidecar.audio import ffmpeg

    try:
        path = ffmpeg.executable()
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


def _checkpoint(settings: Settings) -> Finding:
    """The checkpoint that VibeVoice-ASR would load: the one that is set, or the cache's."""
    from sidecar.checkpoints import weights

    try:
        found = weights.find_checkpoint(settings.model_path)
    except errors.CheckpointNotFound as error:
        if settings.model_path is None:
            text = f"none in {weights.cache_root()}; the embedded engine needs none"
            return Finding("checkpoint", State.ABSENT, text)
        return Finding("checkpoint", State.WARNING, error.detail, error.hint)
    except errors.BadCheckpoint as error:
        return Finding("checkpoint", State.WARNING, error.detail, error.hint)
    return Finding("checkpoint", State.GOOD, f"{found.folder}, {found.bytes / 1e6:,.0f} MB")


def _port(settings: Settings) -> Finding:
    from sidecar.host.process import bind

    if not settings.port:
        return Finding("port", State.GOOD, "any free one")
    try:
        bind(settings.host, settings.port).close()
    except errors.PortInUse as error:
        if other := neighbour.at(settings.host, settings.port):
            text = f"{settings.port}: vibevoice-asr {other.version} runs, pid {other.pid}"
            return Finding("port", State.GOOD, text)
        return Finding("port", State.WARNING, error.detail, error.hint)
    except errors.SidecarError as error:
        return Finding("port", State.BAD, error.detail, error.hint)
    return Finding("port", State.GOOD, f"{settings.port} on {settings.host} is free")


def _spool(settings: Settings) -> Finding:
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


def _kept(settings: Settings) -> Finding:
    from sidecar.jobs.journal import broken_files
    from sidecar.jobs.keeping import jobs_folder
    from sidecar.vault.key import journal_key

    folder = jobs_folder(settings)
    try:
        journal_key(settings)
    except errors.SettingsInvalid as error:
        return Finding("kept jobs", State.BAD, error.detail, error.hint)
    if broken := broken_files(folder):
        text = f"{folder}, {len(broken)} broken files were set aside, the last as {broken[-1].name}"
        return Finding("kept jobs", State.WARNING, text, "Look at them, then move them away.")
    return Finding("kept jobs", State.GOOD, str(folder))


def _print(findings: Sequence[Finding], step: str) -> None:
    from rich.console import Console
    from rich.text import Text

    marks = {
        State.GOOD: ("ok", "green"),
        State.ABSENT: ("--", "dim"),
        State.WARNING: ("! ", "yellow"),
        State.BAD: ("X ", "red"),
    }
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        mark, style = marks[finding.state]
        console.print(Text.assemble((mark, style), f"  {finding.topic:<11}{finding.text}"))
    console.print(Text.assemble("\n", ("Next: ", "bold"), step))
