"""`vibevoice-asr transcribe`: files in, transcripts out, with a server or without."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar import errors
from sidecar.cli import standard_input, watch_folder
from sidecar.cli.backends import Transcribe, Where, backend
from sidecar.cli.bars import Bar, bars
from sidecar.cli.recordings import (
    Opens,
    check_name,
    is_of_its_name,
    is_written,
    output_names,
    spread,
    write,
)
from sidecar.cli.said import INTERRUPTED, complain, print_text, say, shown
from sidecar.transcripts import transcript_formats
from sidecar.transcripts.transcript import Transcript

if TYPE_CHECKING:
    from vibevoice_asr_client import Trust

AT_ONCE = 4
"""Recordings that are with a service at once: the next is uploaded while one is worked on. A
service that takes fewer says so, and then it is waited."""


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
    at_once: int = AT_ONCE
    watch: Path | None = None
    resume: bool = False
    precision: str | None = None
    language: str | None = None
    diarize: bool | None = None
    diarization: str | None = None
    hotwords: str | None = None
    prompt: str | None = None
    num_speakers: int | None = None
    windows: str | None = None
    words: bool | None = None

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
            "words": self._words,
            # Of one's own recordings those of a pile go last, and only a service has others.
            "priority": "batch" if self.server is not None and self.many else None,
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def _words(self) -> str | None:
        """Subtitles are cut by the times of words: there they are asked for unasked."""
        if self.words is None:
            return "true" if self.format in transcript_formats.SUBTITLES else None
        return str(self.words).lower()

    @property
    def many(self) -> bool:
        """Whether nobody waits for the one that comes next."""
        return self.watch is not None or len(self.files) > 1 or any(map(Path.is_dir, self.files))

    @property
    def where(self) -> Where:
        """Who transcribes."""
        leave = self.resume or self.watch is not None
        return Where(self.server, self.token, self.trust, leave)


def run(order: Order) -> int:
    """Do it; the exit code. Every failure is one line on stderr."""
    try:
        transcript_formats.format_of(order.format)
        if order.resume and order.output is None:
            raise errors.SettingsInvalid(
                "--resume goes by what is written already, and nothing is.",
                hint="Name the folder with --output.",
            )
        if order.watch is not None and not order.watch.is_dir():
            raise errors.SettingsInvalid(
                f"There is no folder {order.watch}.", hint="Make it, or name another with --watch."
            )
        if order.output is not None:
            order.output.mkdir(parents=True, exist_ok=True)
        if order.watch is not None:
            return asyncio.run(_watch(order, order.watch))
        order = replace(order, files=standard_input.named(order.files))
        with standard_input.kept(order.files) as opens:  # before the loop: there Ctrl-C ends it
            return asyncio.run(_run(order, opens))
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


async def _watch(order: Order, folder: Path) -> int:
    async with backend(order.where, order.options) as transcribe:
        to = order.output or folder
        return await watch_folder.run(folder, to, order.format, transcribe, _at_once(order))


async def _run(order: Order, opens: Opens) -> int:
    files = spread(order.files)
    names = output_names(files, transcript_formats.extension(order.format))
    pairs = list(zip(files, names, strict=True))
    if order.resume and order.output is not None:
        to = order.output
        pairs = [(path, name) for path, name in pairs if not is_written(to / name, path)]
        if not pairs:
            return 0
    with bars() as bar:
        async with backend(order.where, order.options, opens) as transcribe:
            return await _Pile(order, transcribe, bar).run(pairs)


def _at_once(order: Order) -> int:
    return order.at_once if order.server is not None else 1


class _Pile:
    """Many recordings: some at once, and what comes of them in the order they were named in."""

    def __init__(self, order: Order, transcribe: Transcribe, bar: Bar) -> None:
        self._order = order
        self._transcribe = transcribe
        self._bar = bar
        self._places = asyncio.Semaphore(_at_once(order))

    async def run(self, pairs: Sequence[tuple[Path, str]]) -> int:
        """All of them; 1 if one failed."""
        failed = False
        spawn = asyncio.get_running_loop().create_task
        tasks = [
            spawn(self._one(path, name, _label(path, number, len(pairs))))
            for number, (path, name) in enumerate(pairs, 1)
        ]
        try:
            for (path, _), task in zip(pairs, tasks, strict=True):
                try:
                    transcript = await task
                except errors.SidecarError as error:
                    complain(error, about=str(path))
                    failed = True
                    continue
                except OSError as error:
                    if not is_of_its_name(error):
                        raise
                    say(f"{path}: its output cannot be written: {error.strerror}.")
                    failed = True
                    continue
                for notice in transcript.notices:
                    say(f"{path}: {notice.message}")
                if self._order.output is None:
                    text = transcript_formats.render(
                        transcript, self._order.format, shown(path.stem)
                    )
                    head = len(pairs) > 1 and self._order.format == "text"
                    print_text(f"# {shown(path.name)}\n{text}" if head else text)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return int(failed)

    async def _one(self, path: Path, name: str, label: str) -> Transcript:
        async with self._places:
            if self._order.output is not None:
                check_name(self._order.output / name)
            with self._bar(label) as told:
                transcript = await self._transcribe(path, told)
        if self._order.output is not None:
            text = transcript_formats.render(transcript, self._order.format, path.stem)
            write(self._order.output / name, text)
        return transcript


def _label(path: Path, number: int, many: int) -> str:
    name = shown(path.name)
    return name if many == 1 else f"{number}/{many} {name}"
