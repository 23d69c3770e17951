"""`vibevoice-asr live`: words while people speak, from a microphone, a recording, or a pipe."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.cli.backends import Where
from sidecar.cli.captions import Show, captions
from sidecar.cli.ctrl_c import interrupts
from sidecar.cli.ears import Ear, ear
from sidecar.cli.recordings import write
from sidecar.cli.said import INTERRUPTED, complain, print_text, say
from sidecar.cli.sounds import Microphone, devices, look_at, loudness, of_file, of_pipe
from sidecar.interfaces.live import LIVE_RATE
from sidecar.interfaces.live_events import Summary
from sidecar.transcripts import transcript_formats
from sidecar.transcripts.transcript import Transcript

FORMATS = (*transcript_formats.FORMATS, "jsonl")
"""Those of transcripts, and every event as it comes."""
PIPE = "-"
"""The name of standard input."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asked for. ``source``: a recording, `PIPE`, or a microphone if None."""

    where: Where
    source: str | None = None
    device: str | None = None
    rate: int = LIVE_RATE
    pace: float = 1.0
    format: str = "text"
    output: Path | None = None
    language: str | None = None
    diarize: bool | None = None
    partials: bool | None = None
    words: bool | None = None
    prompt: str | None = None
    keep: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The fields of `LiveOptions` that it gives."""
        words = (
            True
            if self.words is None and self.format in transcript_formats.SUBTITLES
            else self.words
        )
        given = {
            "language": self.language,
            "diarize": self.diarize,
            "partials": self.partials,
            "words": words,
            "prompt": self.prompt,
            "keep": self.keep or None,
        }
        return {name: value for name, value in given.items() if value is not None}


def list_devices() -> int:
    """Print the microphones; the exit code."""
    try:
        found = devices()
    except errors.SidecarError as error:
        return complain(error)
    print("\n".join(found) or "There is no microphone.")
    return 0


def run(order: Order) -> int:
    """Do it; the exit code. Every failure is one line on stderr."""
    try:
        if order.format not in FORMATS:
            raise errors.FieldInvalid(
                f"There is no format '{order.format}'.", hint=f"Use one of: {', '.join(FORMATS)}."
            )
        if order.keep and order.where.server is None:
            raise errors.FieldInvalid(
                "--keep needs a service that goes on: what this command starts ends with it.",
                hint="Name one with --server.",
            )
        return asyncio.run(_run(order))
    except errors.SidecarError as error:
        return complain(error, about=order.source or "")
    except BrokenPipeError:
        # The reader has gone; what is left to flush must not find it gone once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        say(f"{error.filename or order.output}: cannot be written: {error.strerror}.")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED


async def _run(order: Order) -> int:
    rate, sound = _sound_of(order)
    name = Path(order.source).stem if order.source and order.source != PIPE else "live"
    text: list[str] = []
    write_now = text.append if order.output is not None else print_text
    ended = asyncio.Event()
    with interrupts(ended) as interrupted:
        async with aclosing(sound), ear(order.where, rate, order.options) as heard:
            with captions(order.format, write_now, shown=order.output is None) as show:
                summary = await _listen(heard, sound, show, ended)
    transcript = summary.transcript
    if order.format not in ("text", "jsonl"):
        write_now(transcript_formats.render(transcript, order.format, name))
    if order.output is not None:
        whole = (
            transcript_formats.render(transcript, "text", name) if order.format == "text" else None
        )
        write(order.output, "".join(text) if whole is None else whole)
    for notice in transcript.notices:
        say(notice.message)
    if summary.job is not None:
        say(f"It is kept as the job {summary.job}.")
    if sys.stderr is not None and sys.stderr.isatty():
        say(_summed_up(transcript))
    # A microphone has no end but this one; a recording has.
    return INTERRUPTED if interrupted() and order.source is not None else 0


def _sound_of(order: Order) -> tuple[int, Any]:
    if order.source is None:
        microphone = Microphone(order.device)
        return microphone.rate, microphone.sound()
    if order.source == PIPE:
        return order.rate, of_pipe(order.rate)
    look_at(Path(order.source))
    return LIVE_RATE, of_file(Path(order.source), order.pace)


async def _listen(
    heard: Ear, sound: AsyncIterator[bytes], show: Show, ended: asyncio.Event
) -> Summary:
    """Bring it all the sound, until ``ended``, and show what is said; the summary."""
    spawn = asyncio.get_running_loop().create_task
    bringing, telling = spawn(_bring(heard, sound, show, ended)), spawn(_tell(heard, show))
    try:
        done, _ = await asyncio.wait({bringing, telling}, return_when=asyncio.FIRST_COMPLETED)
        if bringing in done:
            bringing.result()  # where that went wrong, nothing is told any more
        return await telling
    finally:
        for task in (bringing, telling):
            task.cancel()
        await asyncio.wait({bringing, telling})


async def _bring(heard: Ear, sound: AsyncIterator[bytes], show: Show, ended: asyncio.Event) -> None:
    ending = asyncio.ensure_future(ended.wait())
    coming: asyncio.Future[bytes | None] | None = None
    try:
        while not ended.is_set():
            coming = asyncio.ensure_future(anext(sound, None))
            await asyncio.wait({coming, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done() or (piece := coming.result()) is None:
                break
            show.level(loudness(piece))
            await heard.send(piece)
    finally:
        left = {one for one in (ending, coming) if one is not None}
        for one in left:
            one.cancel()
        await asyncio.wait(left)  # who closes the sound finds nobody at it
    await heard.finish()


async def _tell(heard: Ear, show: Show) -> Summary:
    async for numbered in heard.events():
        show.event(numbered)
        if isinstance(numbered.event, Summary):
            return numbered.event
    raise errors.SessionOver("The live session ended without its summary.")


def _summed_up(transcript: Transcript) -> str:
    minutes, seconds = divmod(round(transcript.duration), 60)
    words = sum(len(segment.text.split()) for segment in transcript.segments)
    voices = f", {transcript.num_speakers} speakers" if transcript.diarized else ""
    return f"{minutes}:{seconds:02} heard, {words} words{voices}."
