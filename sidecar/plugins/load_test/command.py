"""Command `bench`: load tests of live sessions and recordings."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vibevoice_asr_load_test import LoadTestInvalid, run, speech, target
from vibevoice_asr_load_test.statistics import FORMATS, WHAT, format_of, parse_bound

from sidecar import errors
from sidecar.cli.audio_input import LONGEST_S, check_recording, expand_folders
from sidecar.cli.backends import ServiceTarget, started_for
from sidecar.cli.common_options import argument, command, option
from sidecar.cli.open import sample
from sidecar.cli.output import named_file, print_error_line, print_text, write_atomically
from sidecar.concurrency import usable_cpu_cores
from sidecar.installation import needed_for
from sidecar.limit_overrides import limit

if TYPE_CHECKING:
    from sidecar.audio import Block

HELP = "Load-test a running service with many clients at once (docs/bench.md)."
_SERVER = "Address of a running service, also grpc://HOST:PORT. Default: from the settings."
BROKEN = 1
"""Exit code if a bound is exceeded, or if no session succeeded."""
RampStepsOption = Annotated[
    int, typer.Option(metavar="N", min=1, help="Start clients in N groups.")
]
RampIntervalOption = Annotated[
    float,
    typer.Option(
        "--ramp-interval",
        "--ramp-interval-sec",
        metavar="S",
        min=0,
        help="Start a group every S seconds.",
    ),
]
SessionsOption = Annotated[
    str, typer.Option(metavar="N,N", help="Run these numbers of clients, one after another.")
]
Wire = target.LoadTestLiveWire | target.LoadTestFileWire


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of both commands."""

    start: bool = option(False, "Start a service for the test, with the current settings.")
    against: str | None = option(None, "Compare with another service or wire.", metavar="URL|WIRE")
    warm_up: int = option(1, "Run N sessions first that are not measured.", metavar="N", min=0)
    ramp_steps: RampStepsOption = 5
    ramp_interval: RampIntervalOption = 0.5
    format: str = option(
        "markdown", "Print the result in this format", "--format", "-f", choices=FORMATS
    )
    log: Path | None = option(
        None,
        "Write a line for each session to this file; - prints.",
        "--session-log-path",
        metavar="FILE",
    )
    log_format: str | None = option(
        None,
        "Write those lines in this format. Default: by the file's suffix.",
        "--session-log-format",
        metavar="NAME",
    )
    most_logs: int = option(
        0,
        "Write at most N lines for each number of sessions; 0: all.",
        "--max-session-logs",
        metavar="N",
        min=0,
    )
    fail_if: list[str] | None = option(
        None, "Exit with 1 if this bound is exceeded; repeatable.", metavar="BOUND"
    )


@dataclass(frozen=True, slots=True)
class FilesBenchOptions(BenchOptions):
    """The same options for `bench files`: by default all clients start at once."""

    ramp_steps: RampStepsOption = 1
    ramp_interval: RampIntervalOption = 0.0


@dataclass(frozen=True, slots=True)
class LiveBenchCommand:
    """Options of `bench live`."""

    wire: target.LoadTestLiveWire = option(
        target.LoadTestLiveWire.LIVE, "Use this wire: /v1/live, /api/asr-streaming, gRPC."
    )
    mode: speech.LoadTestMode = option(
        speech.LoadTestMode.TALK, "Speak all the time, in turns, or not at all."
    )
    sessions: SessionsOption = "8,32,64,100"
    seconds: float = option(20.0, "Run each session for at least S seconds.", metavar="S", min=0.1)
    talk: float = option(3.0, "Use utterances of at most S seconds.", metavar="S", min=0.2)
    pause: float = option(
        4.0, "Pause for S seconds between two utterances of a conversation.", metavar="S", min=0.6
    )
    audio: Path | None = option(
        None, "Speak this recording. Default: the included sample.", metavar="FILE"
    )
    chunk_ms: int = option(
        100, "Send MS milliseconds of audio in a message.", metavar="MS", min=10, max=2000
    )
    pace: float = option(
        1.0, "Send at N times real time; 0: as fast as possible.", metavar="N", min=0
    )
    _: KW_ONLY
    service_target: ServiceTarget
    options: BenchOptions

    def work(self) -> run.LoadTestWork:
        """Return sessions with utterances that are cut from the recording.

        Raises:
            errors.SidecarError: the recording cannot be used.
        """
        from vibevoice_asr_load_test.clients import open_live_client

        idle = self.mode is speech.LoadTestMode.IDLE
        clips = [] if idle else _clips(self.audio or sample(), self.talk)
        tempo = run.LoadTestTempo(self.chunk_ms / 1000, self.pace)
        return run.LoadTestWork(
            lambda number: speech.script_of(self.mode, clips, self.seconds, self.pause, number),
            speech.script_of(self.mode, clips, 0.0, self.pause, 0),
            lambda side: open_live_client(side, tempo),
            tempo.chunk_s,
        )


@dataclass(frozen=True, slots=True)
class FilesBenchCommand:
    """Options of `bench files`."""

    files: list[Path] | None = argument(None, "Recordings, or folders of them.", metavar="FILE")
    wire: target.LoadTestFileWire = option(
        target.LoadTestFileWire.TRANSCRIBE, "Send recordings by this protocol."
    )
    sessions: SessionsOption = "1,4,8"
    repeat: int = option(2, "Send N recordings from each client.", metavar="N", min=1)
    _: KW_ONLY
    service_target: ServiceTarget
    options: FilesBenchOptions

    def work(self) -> run.LoadTestWork:
        """Return clients that send the recordings one after another.

        Raises:
            errors.SidecarError: one of the recordings cannot be used.
        """
        from vibevoice_asr_load_test.clients import open_file_client

        recordings = [
            speech.LoadTestRecording(path, len(_decoded(path)) / speech.LIVE_RATE)
            for path in expand_folders(self.files or ()) or [sample()]
        ]
        return run.LoadTestWork(
            lambda _: speech.LoadTestScript(),
            speech.LoadTestScript(),
            lambda side: open_file_client(side, recordings, self.repeat),
        )


BenchCommand = LiveBenchCommand | FilesBenchCommand


def build() -> typer.Typer:
    """Return the command group `bench`."""
    app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    figures = "\n".join(f"* {name}: {what}" for name, what in WHAT.items())
    help = f"{inspect.getdoc(run_live)}\n\nFigures:\n\n{figures}"
    app.command("live", help=help)(command(run_live, _SERVER))
    app.command("files")(command(run_files, _SERVER))
    return app


def run_live(bench: LiveBenchCommand) -> int:
    """Load-test a service with increasing numbers of live sessions.

    With --against each number of sessions runs on both services in turn, and the table has their
    ratio. --fail-if exits with 1: 'final_p95>0.8' by a figure of the first service,
    'final_p95>1.2x' by its ratio. `first`, `final` and `rtf` have `_p50`, `_p95` and `_p99`.

    Examples:

    * `vibevoice-asr bench live`: 8, 32, 64 and 100 sessions on the service of this machine
    * `vibevoice-asr bench live --start --sessions 8 --seconds 30 --session-log-path sessions.csv`
    * `vibevoice-asr bench live --mode conversation --wire streaming --server http://10.0.0.5:8765`
    * `vibevoice-asr bench live --wire grpc --against live --fail-if 'service_cpu>1.3x'`
    * `vibevoice-asr bench live --against http://gpu:8766 --fail-if 'final_p95>1.2x'`
    """
    return _run(bench)


def run_files(bench: FilesBenchCommand) -> int:
    """Load-test a service with increasing numbers of clients that send recordings.

    Folders stand for their recordings; without FILE, the included sample is sent. Figures and
    --fail-if are those of 'vibevoice-asr bench live'.

    Examples:

    * `vibevoice-asr bench files talk.m4a --sessions 1,4`
    * `vibevoice-asr bench files recordings --wire openai --against jobs`
    * `vibevoice-asr bench files talk.m4a --against http://gpu:8766 --fail-if 'audio_per_s<0.9x'`
    """
    return _run(bench)


def _clips(path: Path, talk_s: float) -> list[bytes]:
    """Return utterances of at most ``talk_s`` seconds from a recording, each of which begins and
    ends with speech.

    Raises:
        errors.SidecarError: it is no recording, does not exist, or has no speech.
    """
    clips = speech.utterances(_decoded(path), talk_s)
    if not clips:
        raise errors.FieldInvalid(
            f"{path} has no {talk_s:g} s of speech.",
            hint="Use a recording with speech, or a shorter --talk.",
        )
    return clips


def _decoded(path: Path) -> Block:
    from sidecar.audio.audio_decoder import decode_audio_file

    try:
        check_recording(path)
        return decode_audio_file(path, speech.LIVE_RATE, LONGEST_S)
    except errors.SidecarError as error:  # names the file, as there may be many
        raise type(error)(f"{path}: {error.detail}", hint=error.hint) from None


def _stt_messages() -> Any:
    """Return the messages of the gRPC package `stt`.

    Raises:
        errors.SettingsInvalid: the extra `grpc` is missing.
    """
    with needed_for("Measurements over gRPC", "grpc"):
        import grpc  # noqa: F401

        from sidecar.plugins.grpc_stt import stt_pb2
    return stt_pb2


def _run(bench: BenchCommand) -> int:
    """Measure, print, and check the bounds; return the exit code."""
    try:
        return _measured(bench)
    except LoadTestInvalid as error:
        raise errors.FieldInvalid(error.detail, hint=error.hint) from None


def _measured(bench: BenchCommand) -> int:
    options, counts = bench.options, _counts(bench.sessions)
    if options.start and bench.service_target.server is not None:
        raise typer.BadParameter("--start goes without --server.")
    bounds = [
        parse_bound(one, compared=options.against is not None) for one in options.fail_if or ()
    ]
    work = bench.work()
    format = format_of(options.format, None)
    log_format = format_of(options.log_format, options.log)
    with _service(bench, counts) as service_target:
        if service_target is None:
            return BROKEN
        results = asyncio.run(_measure(bench, service_target, work, counts))
    print_text(run.render_results(results, format))
    if options.log is not None:
        _log(options.log, run.render_session_logs(results, options.most_logs, log_format))
    print_error_line(run.most_held([rows[0] for rows in results], usable_cpu_cores()))
    failures = run.broken_bounds(results, bounds)
    if not any(row.figures["held"] for rows in results for row in rows[:1]):
        failures.append("no session went well.")
    for line in failures:
        print_error_line(f"failed: {line}")
    return BROKEN if failures else 0


def _counts(text: str) -> list[int]:
    try:
        counts = [int(one) for one in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise typer.BadParameter(f"'{text}' is no list of numbers, such as 8,32.")
    return counts


def _log(path: Path, text: str) -> None:
    if named_file(path) is None:
        print_text(text)
    else:
        write_atomically(path, text)


def _service(
    bench: BenchCommand, counts: list[int]
) -> AbstractContextManager[ServiceTarget | None]:
    """Return the service under test: a child service if one is requested, `None` if it does not
    start."""
    if not bench.options.start:
        return nullcontext(bench.service_target.or_ours())
    given: dict[str, object] = {"port": 0, "live_sessions": max(*counts, 100)}
    if target.LoadTestLiveWire.GRPC in (bench.wire, bench.options.against):
        given["grpc_port"] = 0
    return started_for(bench.service_target, given)


async def _measure(
    bench: BenchCommand, service_target: ServiceTarget, work: run.LoadTestWork, counts: list[int]
) -> list[list[run.LoadTestRow]]:
    from sidecar.cli.remote_service import translate_client_errors, warn_of_insecure_trust

    warn_of_insecure_trust(service_target.trust)
    service_target = service_target.with_token()
    options = bench.options

    def begin(count: int) -> list[float]:
        return speech.starts(count, options.ramp_steps, options.ramp_interval, work.spread_s)

    async with AsyncExitStack() as stack:
        stack.enter_context(translate_client_errors())
        sides = []
        for side in await _sides(bench, service_target):
            sides.append((side, await stack.enter_async_context(work.opens(side))))
        return await run.sweep(
            work,
            sides,
            counts,
            begin,
            lambda row: print_error_line(row_summary(row)),
            options.warm_up,
            limit("bench_settle", run.SETTLE_S),
        )


async def _sides(bench: BenchCommand, service_target: ServiceTarget) -> list[target.LoadTestTarget]:
    async def described(service_target: ServiceTarget, wire: Wire) -> target.LoadTestTarget:
        side = await target.describe_target(
            service_target.server or "", service_target.token, service_target.trust, wire
        )
        side = replace(
            side,
            ready_s=limit("bench_ready", target.READY_S),
            answer_s=limit("bench_answer", target.ANSWER_TIMEOUT_S),
        )
        return replace(side, messages=_stt_messages()) if wire == target.GRPC else side

    sides = [await described(service_target, bench.wire)]
    against = bench.options.against
    if against is None:
        return sides
    wires = type(bench.wire)
    if against in tuple(wires):
        sides.append(await described(service_target, wires(against)))
    else:
        # Options for a certificate do not apply to an unencrypted service.
        plain = against.startswith(("http://", "grpc://"))
        other = (
            ServiceTarget(against, service_target.token)
            if plain
            else replace(service_target, server=against)
        )
        sides.append(await described(other, bench.wire))
    if sides[0].name == sides[1].name:  # the same twice, to measure the noise
        sides[1] = replace(sides[1], name=f"{sides[1].name} (again)")
    return sides


def row_summary(row: run.LoadTestRow) -> str:
    """Return a row as one line, to show while the rest runs."""
    figures = row.figures
    spread = ", ".join(
        f"{name} {figures[f'{name}_p50']:.3f}/{figures[f'{name}_p95']:.3f} s"
        for name in ("first", "final")
        if figures[f"{name}_p50"] is not None
    )
    codes = sorted({one.error_code for one in row.visits if one.error_code})
    wrong = f"; {figures['errors']:g} failed ({', '.join(codes)})" if codes else ""
    latencies = f"{spread} (p50/p95)" if spread else f"{figures['held']:g} held"
    return f"{row.sessions} x {row.side.name}: {latencies}{wrong}"
