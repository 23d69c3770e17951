"""The word `live` with its options, for typer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidecar.cli.said import PROGRAM

if TYPE_CHECKING:
    from sidecar.cli.backends import Where
from sidecar.transcripts import transcript_formats

HELP = f"""
Show what is said while it is said: into a microphone, or in a recording played in real time.

On a terminal speakers have colours, and what may still change is grey on the last line. Ctrl-C ends
the session with all that was said; once more ends it at once. Microphones need the extra
`microphone`: pip install 'vibevoice-asr[microphone]'.

Examples:

* `{PROGRAM} live`
* `{PROGRAM} live --devices`
* `{PROGRAM} live --device 3 --language en --format srt --output talk.srt`
* `{PROGRAM} live recording.wav --format jsonl --server http://127.0.0.1:8765`
* `arecord -q -t raw -f S16_LE -r 16000 -c 1 | {PROGRAM} live -`
"""
_FORMATS = (*transcript_formats.FORMATS, "jsonl")


def live(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="A recording, played in real time; '-': raw pcm16 on standard input; the "
            "microphone without it.",
        ),
    ] = None,
    fmt: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            help=f"What to write: {', '.join(_FORMATS)} (every event as it comes).",
            autocompletion=lambda: list(_FORMATS),
        ),
    ] = "text",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where it goes, instead of stdout."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Microphone, by number or a part of its name."),
    ] = None,
    devices: Annotated[bool, typer.Option("--devices", help="List the microphones.")] = False,
    rate: Annotated[
        int,
        typer.Option(
            metavar="HZ", min=8_000, max=192_000, help="Samples a second on standard input."
        ),
    ] = 16_000,
    pace: Annotated[
        float,
        typer.Option(
            metavar="N", min=0.0, help="Seconds of a recording in a second; 0: as fast as it goes."
        ),
    ] = 1.0,
    language: Annotated[
        str | None, typer.Option(metavar="TAG", help="Language spoken, such as 'en'; or 'auto'.")
    ] = None,
    diarize: Annotated[
        bool | None,
        typer.Option("--diarize/--no-diarize", help="Whether to tell speakers apart (it does)."),
    ] = None,
    partials: Annotated[
        bool | None,
        typer.Option("--partials/--no-partials", help="Words while somebody speaks (it does)."),
    ] = None,
    words: Annotated[
        bool | None,
        typer.Option("--words/--no-words", help="Times of words (unasked for srt and vtt)."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What it is about: names, terms.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="It becomes a job of the service, done; with --server.")
    ] = False,
    *,
    where: Where,
) -> None:
    """What was asked for, done."""
    from sidecar.cli.live import Order, list_devices, run

    if devices:
        raise typer.Exit(list_devices())
    if source is not None and device is not None:
        raise typer.BadParameter("--device goes without FILE.")
    order = Order(
        where,
        source=source,
        device=device,
        rate=rate,
        pace=pace,
        format=fmt,
        output=output,
        language=language,
        diarize=diarize,
        partials=partials,
        words=words,
        prompt=prompt,
        keep=keep,
    )
    raise typer.Exit(run(order))
