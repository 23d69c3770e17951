"""Screen, loudspeaker and keyboard of a conversation.

The screen is used on a terminal only.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.cli import output
from sidecar.cli.audio_input import import_sounddevice, run_in_thread

if TYPE_CHECKING:
    from rich.live import Live


YOU, MACHINE = "You", "Machine"
METER = 10
"""Characters of the level meter."""


class TalkDisplay:
    """Output for programs: whole lines, each once it is final."""

    def ready(self) -> None:
        """Show that it is the user's turn."""

    def level(self, loud: float) -> None:
        """Show the level of the user's audio, 0 to 1."""

    def saying(self, text: str) -> None:
        """Show the user's text so far."""

    def said(self, text: str, *, typed: bool) -> None:
        """Show the user's final text."""
        self._print(YOU, text, "cyan")

    def writing(self, text: str) -> None:
        """Show more of the answer."""

    def answered(self, text: str) -> None:
        """Show the answer as far as it was played."""
        self._print(MACHINE, text, "magenta")

    def close(self) -> None:
        """Stop the display."""

    def _print(self, who: str, text: str, style: str) -> None:
        output.print_text(f"{who}: {output.printable(' '.join(text.split()))}\n")


@contextmanager
def open_talk_display(*, spoken: bool) -> Iterator[TalkDisplay]:
    """Open the display on standard output; ``spoken``: show a level meter, else the user types."""
    if not sys.stdout.isatty():
        yield TalkDisplay()
        return
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(), auto_refresh=False, transient=True)
    screen = _TalkScreenDisplay(live, spoken=spoken)
    try:
        yield screen
    finally:
        screen.close()


class _TalkScreenDisplay(TalkDisplay):
    """Display for people: final lines, and below them the level and the text in progress."""

    def __init__(self, live: Live, *, spoken: bool) -> None:
        self._live, self._spoken = live, spoken
        self._loud, self._saying, self._writing = 0.0, "", ""

    def ready(self) -> None:
        if not self._spoken:
            self.close()
            self._live.console.print("> ", end="")

    def level(self, loud: float) -> None:
        self._loud = max(loud, self._loud * 0.7)
        self._draw()

    def saying(self, text: str) -> None:
        self._saying = text
        self._draw()

    def said(self, text: str, *, typed: bool) -> None:
        self._saying = ""
        if not typed:  # it is on the screen already
            super().said(text, typed=typed)

    def writing(self, text: str) -> None:
        self._writing += text
        self._draw()

    def answered(self, text: str) -> None:
        self._writing = ""
        super().answered(text)

    def close(self) -> None:
        self._live.stop()

    def _print(self, who: str, text: str, style: str) -> None:
        from rich.text import Text

        self._draw()  # remove the text in progress first
        self._live.console.print(
            Text.assemble((f"{who}: ", "bold"), (output.printable(text), style))
        )

    def _draw(self) -> None:
        from rich.text import Text

        if not self._live.is_started:
            self._live.start()
        parts = []
        if self._spoken:
            filled = round(min(1.0, self._loud**0.5) * METER)
            parts.append(Text("█" * filled + "·" * (METER - filled) + " ", style="green"))
        parts.append(Text(output.printable(self._writing or self._saying), style="dim"))
        self._live.update(Text.assemble(*parts), refresh=True)


class PlaybackDevice:
    """Playback of the answer of one turn at a time. This one shows text only, so all audio counts
    as heard."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._turn = self._given = 0

    def playing(self) -> AbstractContextManager[object]:
        """Return a context manager that holds the device."""
        return nullcontext()

    def begin(self, turn: int) -> None:
        """Begin the audio of a turn, and drop that of another."""
        self._turn, self._given = turn, 0

    def add(self, pcm: bytes) -> None:
        """Add audio of the turn: 16-bit mono."""
        self._given += len(pcm) // 2

    def hold(self, *, held: bool) -> None:
        """Pause playback and keep the rest, or resume it."""

    def clear(self) -> None:
        """Drop the audio that was not played."""

    def heard(self) -> tuple[int, float]:
        """Return the turn whose audio plays, and how many seconds of it were heard."""
        return self._turn, self._given / self._rate


class Loudspeaker(PlaybackDevice):
    """Output device of this machine, by its number or a part of its name; `None`: the system's
    default. Its own thread fetches the audio; audio that was not played yet does not count as
    heard.

    Raises:
        errors.LoudspeakerUnavailable: there is no such device, or it does not support the sample
            rate.
        errors.MicrophoneUnavailable: the library for both is missing.
    """

    def __init__(self, device: str | None, rate: int) -> None:
        super().__init__(rate)
        sound = import_sounddevice()
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._held = False
        try:
            self._stream = sound.RawOutputStream(
                samplerate=rate,
                device=int(device) if device is not None and device.isdecimal() else device,
                channels=1,
                dtype="int16",
                latency="low",
                callback=self._fill,
            )
        except (ValueError, sound.PortAudioError) as error:
            raise errors.LoudspeakerUnavailable(
                f"The loudspeaker cannot be used: {error}."
            ) from None

    def playing(self) -> AbstractContextManager[object]:
        """Return the stream, a context manager that holds the device."""
        stream: AbstractContextManager[object] = self._stream
        return stream

    def begin(self, turn: int) -> None:
        """Begin the audio of a turn; drop the rest of the last one."""
        with self._lock:
            super().begin(turn)
            self._waiting.clear()
            self._held = False

    def add(self, pcm: bytes) -> None:
        """Queue audio of the turn: 16-bit mono."""
        with self._lock:
            self._waiting += pcm

    def hold(self, *, held: bool) -> None:
        """Play silence while ``held``, and then the rest."""
        with self._lock:
            self._held = held

    def clear(self) -> None:
        """Drop all waiting audio."""
        with self._lock:
            self._waiting.clear()
            self._held = False

    def heard(self) -> tuple[int, float]:
        """Return the turn and its seconds that were heard: played, less the latency of the
        device."""
        with self._lock:
            late = self._stream.latency if self._waiting else 0.0
            return self._turn, max(0.0, self._given / self._rate - late)

    def _fill(self, out: Any, frames: int, *_: Any) -> None:
        with self._lock:
            size = 0 if self._held else min(2 * frames, len(self._waiting))
            out[:size] = bytes(self._waiting[:size])
            out[size : 2 * frames] = bytes(2 * frames - size)
            del self._waiting[:size]
            self._given += size // 2


LONGEST = 1 << 16


async def read_stdin_lines() -> AsyncIterator[str]:
    """Yield each line of standard input as it arrives, stripped."""
    if sys.stdin is None:
        return
    # Without sys.stdin: a thread that blocks on it would hold its lock until the end of the
    # process.
    source, rest = sys.stdin.fileno(), b""
    while raw := await run_in_thread(lambda: os.read(source, LONGEST)):
        *whole, rest = (rest + raw).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").strip()
    if rest:
        yield rest.decode("utf-8", "replace").strip()
