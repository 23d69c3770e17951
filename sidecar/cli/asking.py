"""The word `transcribe` with its options, for typer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidecar.cli.said import PROGRAM
from sidecar.interfaces.engine import Diarization, Precision, Windowing
from sidecar.transcripts import transcript_formats

if TYPE_CHECKING:
    from sidecar.cli.backends import Where

HELP = f"""
Write down recordings: who said what, and when. Works with a running service or without one.

A folder stands for the recordings in it, and - for one on standard input, of up to
VIBEVOICE_MAX_UPLOAD_MB. With --watch it goes on until it is ended: what arrives is
written beside it (or to --output), what cannot be transcribed goes to the folder `failed`
with its reason. What was interrupted (--watch, --resume) goes on where it was.

Examples:

* `{PROGRAM} transcribe interview.mp3`
* `{PROGRAM} transcribe a.wav b.wav --format vtt --output subtitles`
* `{PROGRAM} transcribe recordings --output transcripts --resume`
* `{PROGRAM} transcribe --watch inbox --format srt`
* `curl -s https://example.org/talk.mp3 | {PROGRAM} transcribe -`
* `{PROGRAM} transcribe call.ogg --format json --server http://127.0.0.1:8765`
* `{PROGRAM} transcribe play.wav --hotwords "Nagg, Nell" --prompt "Beckett, Endgame" --speakers 2`
"""
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Precision of the weights: {', '.join(Precision)}.",
        autocompletion=lambda: list(Precision),
    ),
]


def transcribe(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE", help="Recordings, folders of them, or - for standard input."
        ),
    ] = None,
    fmt: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            help=f"What to write: {', '.join(transcript_formats.FORMATS)}.",
            autocompletion=lambda: list(transcript_formats.FORMATS),
        ),
    ] = "text",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for a file per recording, instead of all to stdout.",
        ),
    ] = None,
    watch: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Transcribe what arrives in this folder, until ended."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Leave out what --output has; go on with what was sent."),
    ] = False,
    at_once: Annotated[
        int, typer.Option(metavar="N", min=1, help="Recordings with the service at once.")
    ] = 4,
    *,
    where: Where,
    language: Annotated[
        str | None, typer.Option(metavar="TAG", help="Language spoken, such as 'en'; or 'auto'.")
    ] = None,
    precision: PrecisionOption = None,
    diarize: Annotated[
        bool | None,
        typer.Option("--diarize/--no-diarize", help="Whether to tell speakers apart (it does)."),
    ] = None,
    diarization: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Effort to tell them apart: {', '.join(Diarization)}.",
            autocompletion=lambda: list(Diarization),
        ),
    ] = None,
    hotwords: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Names and terms that may be said.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the recordings are about.")
    ] = None,
    speakers: Annotated[
        int | None, typer.Option(metavar="N", help="How many people speak, as a hint.")
    ] = None,
    windows: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="'parallel': long recordings in several windows at once, faster on a big card.",
            autocompletion=lambda: list(Windowing),
        ),
    ] = None,
    words: Annotated[
        bool | None,
        typer.Option("--words/--no-words", help="Times of words (unasked for srt and vtt)."),
    ] = None,
) -> None:
    """What was asked for, done."""
    from sidecar.cli.transcribe import Order, run

    if bool(files) == (watch is not None):
        said = "Missing argument 'FILE'." if watch is None else "--watch goes without FILE."
        raise typer.BadParameter(said)
    order = Order(
        files=files or (),
        format=fmt,
        output=output,
        server=where.server,
        token=where.token,
        trust=where.trust,
        at_once=at_once,
        watch=watch,
        resume=resume,
        precision=precision,
        language=language,
        diarize=diarize,
        diarization=diarization,
        hotwords=hotwords,
        prompt=prompt,
        num_speakers=speakers,
        windows=windows,
        words=words,
    )
    raise typer.Exit(run(order))
