"""`vibevoice-asr transcribe`: files in, transcripts out, with a server or without."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sidecar import errors
from sidecar.audio.source import AudioSource, open_path
from sidecar.cli.said import INTERRUPTED, complain, keep_quiet, say
from sidecar.cli.trust import Trust
from sidecar.speech import formats
from sidecar.speech.transcript import Finished, Progress, Transcript

Transcribe = Callable[[AudioSource], AsyncGenerator[Progress | Finished, None]]
"""Takes a recording over: `Progress` as it comes, `Finished` at last, or an error."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asked for; None where it said nothing."""

    files: Sequence[Path]
    format: str = "text"
    output: Path | None = None
    server: str | None = None
    token: str | None = None
    """What the server wants to see; the settings' own if unset."""
    trust: Trust | None = None
    """Which certificate of the server is believed; one that the system vouches for if unset."""
    precision: str | None = None
    language: str | None = None
    diarize: bool | None = None
    diarization: str | None = None
    hotwords: str | None = None
    prompt: str | None = None
    num_speakers: int | None = None
    windows: str | None = None

    @property
    def options(self) -> dict[str, str]:
        """The fields of a request that it gives."""
        given = {
            "precision": self.precision,
            "language": self.language,
            "diarize": None if self.diarize is None else str(self.diarize).lower(),
            "diarization": self.diarization,
            "hotwords": self.hotwords,
            "prompt": self.prompt,
            "num_speakers": None if self.num_speakers is None else str(self.num_speakers),
            "windows": self.windows,
        }
        return {name: value for name, value in given.items() if value is not None}


def run(order: Order) -> int:
    """Do it; the exit code. Every failure is one line on stderr."""
    try:
        formats.format_of(order.format)
        if order.output is not None:
            order.output.mkdir(parents=True, exist_ok=True)
        return asyncio.run(_run(order))
    except errors.SidecarError as error:
        return complain(error)
    except BrokenPipeError:
        # The reader has gone; what is left to flush must not find it gone once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        say(f"{error.filename or order.output}: cannot be written: {error.strerror}.")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


async def _run(order: Order) -> int:
    failed = False
    names = output_names(order.files, formats.extension(order.format))
    async with _backend(order) as transcribe:
        for number, (path, name) in enumerate(zip(order.files, names, strict=True), 1):
            label = path.name if len(names) == 1 else f"{number}/{len(names)} {path.name}"
            try:
                transcript = await _one(transcribe, open_file(path), label)
            except errors.SidecarError as error:
                complain(error, about=str(path))
                failed = True
                continue
            for notice in transcript.notices:
                say(f"{path}: {notice.message}")
            text = formats.render(transcript, order.format, path.stem)
            if order.output is not None:
                _write(order.output / name, text)
            else:
                head = f"# {path.name}\n" if len(names) > 1 and order.format == "text" else ""
                _print(head + text)
    return int(failed)


async def _one(transcribe: Transcribe, source: AudioSource, label: str) -> Transcript:
    transcript = None
    with _progress_bar(label) as show:
        async with aclosing(transcribe(source)) as events:
            async for event in events:
                match event:
                    case Progress():
                        show(event)
                    case Finished():
                        transcript = event.transcript
    if transcript is None:
        raise errors.EngineFailed("The transcription ended without a transcript.")
    return transcript


def _backend(order: Order) -> AbstractAsyncContextManager[Transcribe]:
    return _with_server(order, order.server) if order.server else _without_server(order)


@asynccontextmanager
async def _with_server(order: Order, url: str) -> AsyncGenerator[Transcribe, None]:
    from sidecar.access.credentials import for_clients
    from sidecar.cli.client import ServiceClient
    from sidecar.settings import load_settings

    token = order.token or for_clients(load_settings())
    async with ServiceClient(url, token, order.trust) as client:
        await client.health()  # nobody there is one line, not one per file
        yield lambda source: client.transcribe(source, order.options)


@asynccontextmanager
async def _without_server(order: Order) -> AsyncGenerator[Transcribe, None]:
    from sidecar.access.identity import EVERYBODY
    from sidecar.app import create_service
    from sidecar.settings import load_settings
    from sidecar.speech.engine import parse_precision

    # The engine is loaded for this command alone, so at the precision that it asks for.
    wanted = {"precision": parse_precision(order.precision)} if order.precision else {}
    settings = load_settings(**wanted)
    # An error is said in one line of ours. Who wants the log asks for it.
    keep_quiet(settings)
    service = create_service(settings)
    options = service.options(order.options)

    async def transcribe(source: AudioSource) -> AsyncGenerator[Progress | Finished, None]:
        job = await service.submit(EVERYBODY, source, options)
        try:
            async for record in job.changes():
                yield record.progress
            transcript = await job.result()
        finally:
            service.cancel(EVERYBODY, job.record)  # one that has ended stays as it is
        yield Finished(service.noted(transcript, options))

    await service.open()
    try:
        yield transcribe
    finally:
        await service.close()


def open_file(path: Path) -> AudioSource:
    """Open a recording that somebody named.

    The errors of a path speak of the wire's field; here they speak of a file.

    Raises:
        errors.BadRequest: it is not there, not readable, or no regular file.
    """
    try:
        return open_path(os.path.abspath(path))
    except errors.AudioPathNotFound:
        raise errors.AudioPathNotFound("There is no such file.", hint="Check the path.") from None
    except errors.AudioPathNotAFile:
        raise errors.AudioPathNotAFile(
            "This is not a regular file.", hint="Give recordings, not folders or devices."
        ) from None
    except errors.AudioPathForbidden:
        raise errors.AudioPathForbidden(
            "This file may not be read.", hint="Check its permissions."
        ) from None
    except errors.AudioPathInvalid:
        raise errors.AudioPathInvalid(
            "This is not the path of a file.", hint="Check the path."
        ) from None


def output_names(files: Sequence[Path], ending: str) -> list[str]:
    """A file name for each input: its stem and ``ending``; a number where that would be a second.

    Case does not tell names apart: on some disks it does not either.
    """
    taken: set[str] = set()
    names = []
    for path in files:
        name, number = f"{path.stem}.{ending}", 2
        while name.casefold() in taken:
            name, number = f"{path.stem}-{number}.{ending}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write(text)


def _print(text: str) -> None:
    """To stdout, in UTF-8 whatever the console's habits are."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def _progress_bar(label: str) -> Iterator[Callable[[Progress], None]]:
    """A bar with the time left while somebody looks on, and nothing at all in a pipe."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich import progress as bars
    from rich.console import Console

    with bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(label, total=None)
        yield lambda progress: bar.update(
            task, completed=progress.audio_s_done, total=progress.audio_s_total
        )
