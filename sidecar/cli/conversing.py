"""The word `talk` with its options, for typer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sidecar.cli.backends import Where

from sidecar.cli.said import PROGRAM

HELP = f"""
Talk with the machine: by microphone and loudspeaker, or typed.

Who speaks over an answer ends it, and so does Enter; a line that is typed is a turn, too. Ctrl-C
ends the conversation. It goes by the service that runs on this machine, or the one that is named;
where there is none, one is started for it. Headphones keep the microphone from hearing the answers.
Both devices need the extra `microphone`: pip install 'vibevoice-asr[microphone]'.

Examples:

* `{PROGRAM} talk`
* `{PROGRAM} talk --llm auto`: a language model that runs on this machine answers
* `{PROGRAM} talk --text`: typed on both sides, without any device
* `{PROGRAM} talk --devices`, then `{PROGRAM} talk --device 3 --speaker Headphones`
* `{PROGRAM} talk --file question.wav`: a recording speaks, answers are read
* `echo "How are you?" | {PROGRAM} talk --text --server http://127.0.0.1:8765`
"""


def talk(
    text: Annotated[
        bool, typer.Option("--text", help="Type instead of speaking, and read the answers.")
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A recording, played in real time, instead of the microphone."
        ),
    ] = None,
    aloud: Annotated[
        bool | None,
        typer.Option(
            "--aloud/--silent",
            help="Whether answers are heard (they are, unless --text or --file is given).",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Microphone, by number or a part of its name."),
    ] = None,
    speaker: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Loudspeaker, by number or a part of its name."),
    ] = None,
    devices: Annotated[
        bool, typer.Option("--devices", help="List microphones and loudspeakers.")
    ] = False,
    voice: Annotated[
        str | None, typer.Option(metavar="NAME", help="Voice that answers are said in.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model that answers, of the service's own.")
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Who answers, as `serve --llm` has it, in a service that is started for this.",
        ),
    ] = None,
    *,
    where: Where,
) -> None:
    """What was asked for, done."""
    from sidecar.cli.run import Order, list_devices, run

    if devices:
        raise typer.Exit(list_devices())
    if text and file is not None:
        raise typer.BadParameter("--text goes without --file.")
    if device is not None and (text or file is not None):
        raise typer.BadParameter("--device goes without --text and --file.")
    if llm is not None and where.server is not None:
        raise typer.BadParameter("--llm goes without --server: that one has its own.")
    heard = aloud if aloud is not None else not text and file is None
    if speaker is not None and not heard:
        raise typer.BadParameter("--speaker goes with answers that are heard (--aloud).")
    order = Order(
        where,
        typed=text,
        file=file,
        aloud=heard,
        device=device,
        speaker=speaker,
        voice=voice,
        model=model,
        llm=llm,
    )
    raise typer.Exit(run(order))
