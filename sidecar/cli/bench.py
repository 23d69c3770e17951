"""Command `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidecar.cli.common_options import addressed
from sidecar.cli.load_statistics import FORMATS, WHAT
from sidecar.cli.load_target import FileWire, LiveWire, Mode

if TYPE_CHECKING:
    from sidecar.cli.backends import Where
from sidecar.cli.output import PROGRAM

HELP = "Measure how a running service bears many clients at once (docs/bench.md)."
LIVE_HELP = """
Talk to a service in many live sessions at once, more and more of them, and measure.

With --against the two sides have each number of sessions in turns, and the table has their ratio.
--fail-if makes the exit code 1: 'final_p95>0.8' by a figure of the first side, 'final_p95>1.2x' by
its ratio to the other. `first`, `final` and `rtf` have `_p50`, `_p95` and `_p99`.

Figures:

{figures}

Examples:

* `{program} bench live`: 8, 32, 64 and 100 sessions on the service of this machine
* `{program} bench live --start --sessions 8 --seconds 30 --session-log-path sessions.csv`
* `{program} bench live --mode conversation --wire streaming --server http://10.0.0.5:8765`
* `{program} bench live --wire grpc --against live --fail-if 'service_cpu>1.3x'`
* `{program} bench live --against http://127.0.0.1:8766 --fail-if 'final_p95>1.2x'`
"""
FILES_HELP = f"""
Send recordings to a service from many clients at once, more and more of them, and measure.

Folders stand for the recordings in them; without FILE it is the sample that came along. Figures and
--fail-if are as of '{PROGRAM} bench live'.

Examples:

* `{PROGRAM} bench files talk.m4a --sessions 1,4`
* `{PROGRAM} bench files recordings --wire openai --against jobs`
* `{PROGRAM} bench files talk.m4a --against http://127.0.0.1:8766 --fail-if 'audio_per_s<0.9x'`
"""


def _counts(text: str) -> list[int]:
    try:
        counts = [int(one) for one in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise typer.BadParameter(f"'{text}' is no list of numbers, such as 8,32.")
    return counts


_SERVER = "Address of a running service; without it: where the settings say. Also grpc://HOST:PORT."
StartOption = Annotated[
    bool, typer.Option("--start", help="Start a service of its own, with the settings as they are.")
]
AgainstOption = Annotated[
    str | None,
    typer.Option(metavar="URL|WIRE", help="What it is compared with: another service, or wire."),
]
SessionsOption = Annotated[str, typer.Option(metavar="N,N", help="How many at once.")]
WarmUpOption = Annotated[int, typer.Option(metavar="N", min=0, help="Sessions that do not count.")]
RampStepsOption = Annotated[
    int, typer.Option(metavar="N", min=1, help="In how many groups they begin.")
]
RampIntervalOption = Annotated[
    float,
    typer.Option("--ramp-interval", "--ramp-interval-sec", metavar="S", min=0, help="Between two."),
]
FormatOption = Annotated[
    str,
    typer.Option("--format", "-f", metavar="NAME", help=f"Of the result: {', '.join(FORMATS)}."),
]
LogOption = Annotated[
    Path | None,
    typer.Option("--session-log-path", metavar="FILE", help="A line for each session; - prints."),
]
LogFormatOption = Annotated[
    str | None,
    typer.Option(
        "--session-log-format", metavar="NAME", help="Of those lines, else by the file's ending."
    ),
]
MostLogsOption = Annotated[
    int,
    typer.Option("--max-session-logs", metavar="N", min=0, help="Of each number; 0: of all."),
]
FailIfOption = Annotated[
    list[str] | None,
    typer.Option(metavar="BOUND", help="What makes the exit code 1; may be given again."),
]


def build() -> typer.Typer:
    """The word `bench` and the words after it."""
    app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    figures = "\n".join(f"* {name}: {what}" for name, what in WHAT.items())
    app.command("live", help=LIVE_HELP.format(figures=figures, program=PROGRAM))(
        addressed(_live, _SERVER)
    )
    app.command("files", help=FILES_HELP)(addressed(_files, _SERVER))
    return app


def _live(
    wire: Annotated[
        LiveWire, typer.Option(help="How they talk: /v1/live, /api/asr-streaming, gRPC.")
    ] = LiveWire.LIVE,
    mode: Annotated[
        Mode, typer.Option(help="Talk all the time, talk by turns, or say nothing.")
    ] = Mode.TALK,
    sessions: SessionsOption = "8,32,64,100",
    seconds: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="How long a session lasts, at least.")
    ] = 20.0,
    talk: Annotated[
        float, typer.Option(metavar="S", min=0.2, help="How long an utterance is, at most.")
    ] = 3.0,
    pause: Annotated[
        float, typer.Option(metavar="S", min=0.6, help="Of a conversation, between two.")
    ] = 4.0,
    audio: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What is said; a sample without it.")
    ] = None,
    chunk_ms: Annotated[
        int, typer.Option(metavar="MS", min=10, max=2000, help="Sound in one message.")
    ] = 100,
    pace: Annotated[
        float,
        typer.Option(metavar="N", min=0, help="Times real time; 0: as fast as it is taken."),
    ] = 1.0,
    *,
    where: Where,
    start: StartOption = False,
    against: AgainstOption = None,
    warm_up: WarmUpOption = 1,
    ramp_steps: RampStepsOption = 5,
    ramp_interval: RampIntervalOption = 0.5,
    format: FormatOption = "markdown",
    log: LogOption = None,
    log_format: LogFormatOption = None,
    most_logs: MostLogsOption = 0,
    fail_if: FailIfOption = None,
) -> None:
    from sidecar.cli.load_run import LiveWork
    from sidecar.cli.load_target import Tempo

    tempo = Tempo(chunk_ms / 1000, pace)
    _measure(
        LiveWork(audio, mode, seconds, talk, pause, tempo),
        wire,
        where,
        start=start,
        against=against,
        sessions=_counts(sessions),
        warm_up=warm_up,
        ramp_steps=ramp_steps,
        ramp_interval_s=ramp_interval,
        format=format,
        log=log,
        log_format=log_format,
        most_logs=most_logs,
        fail_if=fail_if or (),
    )


def _files(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Recordings, or folders of them.")
    ] = None,
    wire: Annotated[FileWire, typer.Option(help="How they are sent.")] = FileWire.TRANSCRIBE,
    sessions: SessionsOption = "1,4,8",
    repeat: Annotated[int, typer.Option(metavar="N", min=1, help="Recordings of each client.")] = 2,
    *,
    where: Where,
    start: StartOption = False,
    against: AgainstOption = None,
    warm_up: WarmUpOption = 1,
    ramp_steps: RampStepsOption = 1,
    ramp_interval: RampIntervalOption = 0.0,
    format: FormatOption = "markdown",
    log: LogOption = None,
    log_format: LogFormatOption = None,
    most_logs: MostLogsOption = 0,
    fail_if: FailIfOption = None,
) -> None:
    from sidecar.cli.load_run import FileWork

    _measure(
        FileWork(files or (), repeat),
        wire,
        where,
        start=start,
        against=against,
        sessions=_counts(sessions),
        warm_up=warm_up,
        ramp_steps=ramp_steps,
        ramp_interval_s=ramp_interval,
        format=format,
        log=log,
        log_format=log_format,
        most_logs=most_logs,
        fail_if=fail_if or (),
    )


def _measure(work: Any, wire: Any, where: Where, **how: Any) -> None:
    from sidecar.cli.load_run import Order, run

    if how["start"] and where.server is not None:
        raise typer.BadParameter("--start goes without --server.")
    raise typer.Exit(run(Order(work, where, wire, **how)))
