"""Replay of a captured live session, events compared: ``python -m bench.replay CAPTURE``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.capture_reader import Captured, CaptureReader
from sidecar import errors
from sidecar.cli.backends import LiveBackend, ServiceTarget, open_live_backend
from sidecar.cli.common_options import command
from sidecar.cli.output import INTERRUPTED, print_error_line, printable, report_error
from sidecar.config.settings import load_settings
from sidecar.interfaces.live_events import Final, LiveEvent, Partial
from sidecar.storage.encryption import journal_key

HELP = """
Send a captured live session (--capture) through a service again, and compare what is told.

It is sent at the pace at which it came, to the service that --server names or to one of this
command's own. Finals are compared by text and time, partials are counted. The exit code is 0 where
all finals are the same, 1 where some differ. In the list `-` was told then only, `+` now only, `~`
at another time, `>` after the client of then had gone.

Examples:

* `python -m bench.replay 20261121T104641_talk.wav.sealed`
* `python -m bench.replay 20261121T104641_talk.wav.sealed --server http://127.0.0.1:8765 --pace 0`
* `python -m bench.replay 20261121T104641_talk.wav.sealed --save plain`
"""
UNSENT = ("client", "patience_s", "wait_s", "known_voices", "voiceprints")
"""Options that are not a client's."""


def replay(
    capture: Annotated[
        Path, typer.Argument(metavar="CAPTURE", help="One of the two files of a capture.")
    ],
    pace: Annotated[
        float,
        typer.Option(
            metavar="N", min=0.0, help="Times as fast as it came; 0: as fast as it is taken."
        ),
    ] = 1.0,
    tolerance: Annotated[
        float, typer.Option(metavar="S", min=0.0, help="Seconds that times may differ by.")
    ] = 0.1,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write it there as plain files instead: WAV and JSONL."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option("--journal-key-file", metavar="FILE", help="Its key, if not ours."),
    ] = None,
    *,
    where: ServiceTarget,
) -> None:
    """What was asked for, done."""
    raise typer.Exit(run(capture, where, pace, tolerance, save, key_file))


def run(
    capture: Path,
    where: ServiceTarget,
    pace: float = 1.0,
    tolerance_s: float = 0.1,
    save: Path | None = None,
    key_file: Path | None = None,
) -> int:
    """Do it; the exit code."""
    try:
        given: dict[str, Any] = {"journal_key": f"@{key_file}"} if key_file else {}
        reader = CaptureReader(capture, journal_key(load_settings(**given)))
        if save is not None:
            for path in reader.save(save):
                print(printable(str(path)))
            return 0
        return _compared(reader, reader.read(), where, pace, tolerance_s)
    except errors.SidecarError as error:
        return report_error(error, about=capture.name)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED


def _compared(
    reader: CaptureReader, captured: Captured, where: ServiceTarget, pace: float, tolerance_s: float
) -> int:

    if not captured.whole:
        print_error_line("the capture breaks off: the service died in it, or it is damaged.")
    if captured.left_out:
        print_error_line(f"{captured.left_out} chunks of its sound were left out, and are silence.")
    now = asyncio.run(_again(reader, captured, where, pace))
    finished = captured.finished and captured.whole
    found = likeness(captured.told, now, tolerance_s, finished=finished)
    print("\n".join(found.lines))
    before, after = found.partials
    print(f"{found.same} of {found.pieces} finals the same; partials: {before} then, {after} now.")
    return 0 if found.alike else 1


async def _again(
    reader: CaptureReader, captured: Captured, where: ServiceTarget, pace: float
) -> list[LiveEvent]:
    """What is told now."""
    options = _wishes(captured.options.to_wire())
    spawn = asyncio.get_running_loop().create_task
    async with open_live_backend(where, captured.rate, options, captured.encoding) as heard:
        sending, telling = spawn(_send(reader, captured, heard, pace)), spawn(_told(heard))
        try:
            done, _ = await asyncio.wait({sending, telling}, return_when=asyncio.FIRST_COMPLETED)
            if sending in done:
                sending.result()  # where that went wrong, nothing is told any more
            return await telling
        finally:
            for task in (sending, telling):
                task.cancel()
            await asyncio.wait({sending, telling})


async def _told(heard: LiveBackend) -> list[LiveEvent]:
    return [numbered.event async for numbered in heard.events()]


async def _send(reader: CaptureReader, captured: Captured, heard: LiveBackend, pace: float) -> None:
    """All that its client did, each when it did it."""
    loop = asyncio.get_running_loop()
    began, samples = loop.time(), _Samples(reader.sound())
    second = captured.rate * captured.encoding.width
    try:
        for one in captured.sent:
            if pace:
                await asyncio.sleep(began + one.at / pace - loop.time())
            for at in range(0, one.sound, second):
                await heard.send(samples.take(min(second, one.sound - at)))
            if one.order is not None:
                await _order(heard, one.order)
        await heard.finish()
    except errors.SessionOver:
        pass  # it has told all that it will


async def _order(heard: LiveBackend, order: Mapping[str, Any]) -> None:
    if "commit" in order:
        await heard.commit()
    elif "forget" in order:
        await heard.cancel()
    elif "change" in order:
        await heard.change(**_wishes(order["change"]))


def _wishes(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in options.items() if name not in UNSENT and value is not None
    }


class _Samples:
    """Bytes from pieces of other lengths."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._waiting = pieces, bytearray()

    def take(self, size: int) -> bytes:
        """The next ``size``; fewer at the end."""
        while len(self._waiting) < size and (piece := next(self._pieces, None)) is not None:
            self._waiting += piece
        taken = bytes(self._waiting[:size])
        del self._waiting[:size]
        return taken


@dataclass(frozen=True, slots=True)
class Piece:
    """A final: seconds on the session's clock, and its text."""

    start: float
    end: float
    text: str

    def near(self, other: Piece, tolerance_s: float) -> bool:
        """Whether it was at the same time."""
        return max(abs(self.start - other.start), abs(self.end - other.end)) <= tolerance_s

    def __str__(self) -> str:
        return f"{self.start:.2f}–{self.end:.2f}  {self.text}"


@dataclass(frozen=True, slots=True)
class Likeness:
    """``lines``: both in one list, what differs marked; ``same`` of ``pieces`` finals are the same
    in text and time, and ``partials`` were so many then and now."""

    lines: Sequence[str]
    same: int
    pieces: int
    partials: tuple[int, int]

    @property
    def alike(self) -> bool:
        """Whether nothing differs; partials may."""
        return self.same == self.pieces


def pieces_of(told: Iterable[LiveEvent]) -> list[Piece]:
    """The finals, in the order of the sound."""
    finals = [event.segment for event in told if isinstance(event, Final)]
    pieces = [Piece(one.start, one.end, one.text) for one in finals]
    return sorted(pieces, key=lambda piece: (piece.start, piece.end))


def likeness(
    then: Sequence[LiveEvent],
    now: Sequence[LiveEvent],
    tolerance_s: float,
    *,
    finished: bool = True,
) -> Likeness:
    """Of what was told ``then`` and ``now``. Where the client of then had not ``finished``, it did
    not hear what was said last: what is told behind it now is no difference."""
    before, after = pieces_of(then), pieces_of(now)
    matcher = SequenceMatcher(
        None, [one.text for one in before], [one.text for one in after], autojunk=False
    )
    lines: list[str] = []
    same = pieces = 0
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            pairs = list(zip(before[a:b], after[c:d], strict=True))
            same += sum(old.near(new, tolerance_s) for old, new in pairs)
            pieces += len(pairs)
            lines += [line for old, new in pairs for line in _pair(old, new, tolerance_s)]
            continue
        unheard = not finished and a == len(before)
        lines += [f"- {old}" for old in before[a:b]]
        lines += [f"{'>' if unheard else '+'} {new}" for new in after[c:d]]
        pieces += 0 if unheard else max(b - a, d - c)
    partials = [sum(isinstance(event, Partial) for event in told) for told in (then, now)]
    return Likeness(lines, same, pieces, (partials[0], partials[1]))


def _pair(old: Piece, new: Piece, tolerance_s: float) -> Iterator[str]:
    if old.near(new, tolerance_s):
        yield f"  {old}"
    else:
        yield f"~ {old.start:.2f}–{old.end:.2f} → {new}"


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command(help=HELP)(command(replay))
    app()
