"""Client of a spoken conversation: connection, screen, loudspeaker and keyboard.

The screen is used on a terminal only.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractContextManager,
    aclosing,
    asynccontextmanager,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.cli import output
from sidecar.cli.audio_input import (
    PIECE_S,
    import_sounddevice,
    level_meter,
    loudness,
    read_stdin,
)
from sidecar.cli.output import print_error_line
from sidecar.concurrency import running

if TYPE_CHECKING:
    from rich.live import Live
    from vibevoice_asr_client import Trust
    from websockets.asyncio.client import ClientConnection


PATH = "/stream"
LONGEST_MESSAGE = 64 << 20
"""Bytes: the end message of a long conversation is large."""
CONNECT_S = 10.0
PING_S = 10.0
CLOSE_TIMEOUT_S = 2.0
Message = bytes | dict[str, Any]
"""Audio of the reply that started last, or a JSON message."""


class TalkConnection:
    """Connection of a conversation. If the service is gone, only `messages` raises; sending does
    not."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._over = False

    async def say(self, type: str, **fields: Any) -> None:
        """Send a JSON message."""
        await self.send(json.dumps({"type": type, **fields}))

    async def end(self) -> None:
        """End the conversation. `ended` is the last message, or there is none if the service stops
        too."""
        self._over = True
        await self.say("end")

    async def messages(self) -> AsyncIterator[Message]:
        """Yield all messages, up to the requested end.

        Raises:
            errors.SidecarError: the conversation ended otherwise; the error is the reason.
        """
        from websockets.exceptions import ConnectionClosed

        last: Message = {}
        with suppress(ConnectionClosed):
            async for raw in self._socket:
                last = raw if isinstance(raw, bytes) else _parsed(raw)
                yield last
                if isinstance(last, dict) and last.get("type") == "ended":
                    return
        if self._over:
            return
        if isinstance(last, dict) and last.get("type") == "error":
            raise error_of(last)
        raise errors.ServiceUnreachable("The service closed the connection of the conversation.")

    async def send(self, message: str | bytes) -> None:
        """Send a message, or the user's audio: 16-bit mono at the rate of `begin`."""
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed):
            await self._socket.send(message)


@asynccontextmanager
async def connect_talk(
    url: str, token: str | None, trust: Trust | None
) -> AsyncGenerator[TalkConnection, None]:
    """Connect to the conversations of the service at ``url``.

    Raises:
        errors.ServiceUnreachable: the service does not answer, or has no conversations.
    """
    from vibevoice_asr_client import Trust, calls
    from vibevoice_asr_client.tls import unreachable
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake

    from sidecar.cli.remote_service import translate_client_errors

    with translate_client_errors():
        context = (trust or Trust()).context(url)
    tls: dict[str, Any] = {} if context is None else {"ssl": context}
    try:
        socket = await connect(
            f"ws{url.removeprefix('http')}{PATH}",
            additional_headers=calls.authorization(token),
            proxy=None,
            compression=None,
            max_size=LONGEST_MESSAGE,
            open_timeout=CONNECT_S,
            ping_interval=PING_S,
            ping_timeout=2 * PING_S,
            close_timeout=CLOSE_TIMEOUT_S,
            **tls,
        )
    except InvalidHandshake as error:
        raise errors.ServiceUnreachable(f"{url} has no conversations: {error}.") from None
    except (OSError, TimeoutError) as error:
        raise errors.ServiceUnreachable(unreachable(url, error).detail) from None
    async with socket:
        yield TalkConnection(socket)


def _parsed(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise errors.ServiceUnreachable(f"What answers at {PATH} is not this service.")
    return message


def error_of(message: dict[str, Any]) -> errors.SidecarError:
    """Return the error in a message. Before `begin` is processed, the code is in parentheses after
    the text."""
    text = str(message.get("message", ""))
    if "hint" not in message and (found := re.fullmatch(r"(.*) \((\w+)\)", text, re.DOTALL)):
        return errors.from_wire({"detail": found[1], "code": found[2]})
    return errors.from_wire({**message, "detail": text})


REPORTS_S = 0.1
"""Interval of reports of what was played."""
IDLE = "idle"
SETTLED_S = 2.0
"""Seconds of silence after a recording, without an answer, until the conversation ends."""
STAYS_S = 20.0
"""Interval of the silence that a client without audio sends; a service ends a session without
audio."""
FAREWELL_S = 3.0
"""Time for the last messages of the service after `end`."""


class TalkSession:
    """Tasks of a `TalkConnection`; ``rate``: sample rate of the user's audio in Hz."""

    def __init__(
        self, wire: TalkConnection, player: PlaybackDevice, show: TalkDisplay, *, rate: int
    ) -> None:
        self._wire, self._player, self._show = wire, player, show
        self._silence = bytes(2 * round(PIECE_S * rate))
        self._phase, self._since = IDLE, asyncio.get_running_loop().time()
        self._replies = 0
        self._warned = ""
        self.failed = False
        """True if an answer failed."""
        self._begun = asyncio.Event()
        self._news = asyncio.Condition()

    async def go_on(self, sound: AsyncGenerator[bytes, None] | None, ended: asyncio.Event) -> None:
        """Hold the conversation until ``ended``, or until the end of ``sound``, or of typed input
        if ``sound`` is `None`.

        Raises:
            errors.SidecarError: the error that ended it.
        """
        brought = self._typing(alone=True) if sound is None else self._bring(sound)
        beside = self._stay() if sound is None else self._typing(alone=False)
        async with running(self._read(), ended.wait(), brought, self._report(), beside) as tasks:
            reading, stop, bringing, *_ = tasks
            await asyncio.wait({reading, stop, bringing}, return_when=asyncio.FIRST_COMPLETED)
            if bringing.done():
                bringing.result()
            if not reading.done():
                await self._wire.end()
                await asyncio.wait({reading}, timeout=FAREWELL_S)
            if reading.done():
                reading.result()

    async def _read(self) -> None:
        async for message in self._wire.messages():
            if isinstance(message, bytes):
                self._player.add(message)
            else:
                await self._told(message)

    async def _told(self, message: dict[str, Any]) -> None:
        match message:
            case {"type": "person_saying", "text": text}:
                self._show.saying(text)
            case {"type": "person_said", "text": text, "typed": typed}:
                self._show.said(text, typed=typed)
            case {"type": "nothing_said"}:
                self._show.saying("")
            case {"type": "reply_started", "turn": turn}:
                self._player.begin(turn)
            case {"type": "reply_written", "text": text}:
                self._show.writing(text)
            case {"type": "hold" | "release" as what}:
                self._player.hold(held=what == "hold")
            case {"type": "clear"}:
                await self._cleared()
            case {"type": "reply_ended", "text": text, "ending": ending}:
                self.failed = self.failed or ending == "failed"
                if text or ending != "failed":  # else its error was printed
                    self._show.answered(text or "…")
                self._replies += 1
                self._show.ready()
                await self._changed()
            case {"type": "phase", "phase": phase}:
                self._phase, self._since = phase, asyncio.get_running_loop().time()
                await self._changed()
            case {"type": "error", "code": errors.ModelNotFound.code | errors.FieldInvalid.code}:
                raise error_of(message)
            case {"type": "error", "hint": _}:  # without a hint it is the last message, and raised
                self._complain(message)
            case {"type": "began"}:
                self._began(message)

    def _complain(self, message: dict[str, Any]) -> None:
        """Print an error; not again if the warning before the first answer said the same."""
        line = f"{message.get('message', '')} {message.get('hint', '')}"
        if line != self._warned:
            print_error_line(line)
        self._warned = "" if message.get("turn") else line

    def _began(self, message: dict[str, Any]) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            speaks = message["speaks"]
            aloud = f"a machine's voice ({speaks}) says it" if speaks else "nobody says it aloud"
            how = "Enter interrupts, Ctrl-C ends."
            print_error_line(f"{message['model']} answers, {aloud}. {how}")
        self._show.ready()
        self._begun.set()

    async def _changed(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _cleared(self) -> None:
        turn, seconds = self._player.heard()
        self._player.clear()
        if turn:
            await self._wire.say("played", turn=turn, seconds=round(seconds, 3), cleared=True)

    async def _report(self) -> None:
        before = (0, 0.0)
        while True:
            await asyncio.sleep(REPORTS_S)
            if (heard := self._player.heard()) != before and heard[0]:
                before = heard
                await self._wire.say("played", turn=heard[0], seconds=round(heard[1], 3))

    async def _bring(self, sound: AsyncGenerator[bytes, None]) -> None:
        """Send all audio, and then silence until the conversation has been idle for `SETTLED_S`."""
        await self._begun.wait()
        async with aclosing(sound):
            async for piece in sound:
                self._show.level(loudness(piece))
                await self._wire.send(piece)
        loop = asyncio.get_running_loop()
        ended = loop.time()
        while self._phase != IDLE or loop.time() - max(ended, self._since) < SETTLED_S:
            await self._wire.send(self._silence)
            await asyncio.sleep(PIECE_S)

    async def _stay(self) -> None:
        await self._begun.wait()
        while True:
            await self._wire.send(self._silence)
            await asyncio.sleep(STAYS_S)

    async def _typing(self, *, alone: bool) -> None:
        """Send each typed line as a turn; an empty one interrupts. Without a terminal each line
        waits for the answer to the one before."""
        await self._begun.wait()
        at_once = sys.stdin is not None and sys.stdin.isatty()
        async for line in read_stdin_lines():
            if not line:
                await self._interrupt()
                continue
            await self._wire.say("text", text=line)
            if not at_once:
                await self._answered(self._replies)
        if alone:
            await self._until(lambda: self._phase == IDLE)

    async def _interrupt(self) -> None:
        turn, seconds = self._player.heard()
        self._player.clear()
        if self._phase == IDLE:
            self._show.ready()
        elif turn:
            await self._wire.say("interrupt", turn=turn, seconds=round(seconds, 3))
        else:
            await self._wire.say("interrupt")

    async def _answered(self, before: int) -> None:
        await self._until(lambda: self._replies > before)

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with self._news:
            await self._news.wait_for(reached)


YOU, MACHINE = "You", "Machine"


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
    with closing(_TalkScreenDisplay(live, spoken=spoken)) as screen:
        yield screen


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
        """Stop the display."""
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
            parts.append(Text(f"{level_meter(self._loud)} ", style="green"))
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
    rest = b""
    async for raw in read_stdin(LONGEST):
        *whole, rest = (rest + raw).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").strip()
    if rest:
        yield rest.decode("utf-8", "replace").strip()
