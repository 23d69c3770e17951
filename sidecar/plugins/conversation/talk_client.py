"""Client of a spoken conversation over the Realtime API: connection, screen, loudspeaker, keyboard.

The screen is used on a terminal only.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import typer

from sidecar import errors
from sidecar.cli import audio_input, output
from sidecar.concurrency import running
from sidecar.openai_http import loads
from sidecar.plugins.conversation.errors import LoudspeakerUnavailable, ResponseNotActive

if TYPE_CHECKING:
    from vibevoice_asr_client import Trust
    from websockets.asyncio.client import ClientConnection


PATH = "/v1/realtime"
OUT_RATE = 24_000
"""Sample rate of answers in Hz."""
CLOSE_TIMEOUT_S = 2.0
PLAYBACK_POLL_S = 0.05
"""Interval in which the end of playback is noticed."""
SETTLED_S = 2.0
"""Seconds of silence after a recording, without an answer, until the conversation ends."""
SILENCE_INTERVAL_S = 20.0
"""Interval of silence from a client without audio, so that the service keeps the session."""
NOT_ENDED = "The service did not end the conversation: words of its end may be missing."
ANSWER_REQUEST = "turn"
"""Id of the events that request an answer."""
LONGEST = 1 << 16
Event = dict[str, Any]
YOU, MACHINE = "You", "Machine"
STYLES = {YOU: "cyan", MACHINE: "magenta"}


@asynccontextmanager
async def connect_talk(
    url: str, token: str | None, trust: Trust | None
) -> AsyncGenerator[ClientConnection, None]:
    """Connect to the conversations of the service at ``url``.

    Raises:
        errors.ServiceUnreachable: the service does not answer, or has no conversations.
        typer.Exit: it refuses; its error was printed.
    """
    from vibevoice_asr_client import Trust, calls
    from vibevoice_asr_client.tls import unreachable
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, InvalidStatus

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
            close_timeout=CLOSE_TIMEOUT_S,
            **tls,
        )
    except InvalidHandshake as error:
        if isinstance(error, InvalidStatus):
            with suppress(ValueError, KeyError, TypeError):
                output.print_error_line(json.loads(error.response.body)["error"]["message"])
                raise typer.Exit(1) from None
        raise errors.ServiceUnreachable(f"{url} has no conversations: {error}.") from None
    except (OSError, TimeoutError) as error:
        raise errors.ServiceUnreachable(unreachable(url, error).detail) from None
    async with socket:
        yield socket


class TalkSession:
    """Conversation over a connection; ``rate``: sample rate of the user's audio in Hz.
    ``loudspeaker`` is `None` if answers are read."""

    ending_s = 60.0
    """Seconds for the last words: the service recognizes a turn within `live_timeout`, 20 s, or not
    at all, and an engine may be behind by some turns."""

    def __init__(
        self,
        socket: ClientConnection,
        loudspeaker: Loudspeaker | None,
        display: TalkDisplay,
        *,
        rate: int,
    ) -> None:
        self._socket, self._rate = socket, rate
        self._loudspeaker, self._display = loudspeaker, display
        self._silence = bytes(2 * round(audio_input.PIECE_S * rate))
        self._speaking = False
        self._pending = self._replies = 0
        """Answers that are made or heard, and those that have ended."""
        self._changed_at = asyncio.get_running_loop().time()
        self._sent: Event | None = None
        """The response of which all was sent and not all was heard yet."""
        self._truncated_item = ""
        self._last_error = self._unfinished = ""
        self.failed = False
        """True if an answer failed."""
        self._begun = asyncio.Event()
        self._changes = asyncio.Condition()

    async def begin(self, voice: str | None, model: str | None) -> None:
        """Agree on the conversation; `None`: the default one."""
        session: Event = {
            "type": "realtime",
            "output_modalities": ["text" if self._loudspeaker is None else "audio"],
            "audio": {
                "input": {"format": {"type": "audio/pcm", "rate": self._rate}},
                "output": {} if voice is None else {"voice": voice},
            },
        }
        session |= {} if model is None else {"model": model}
        await self._send("session.update", session=session)

    async def run(self, audio: AsyncGenerator[bytes, None] | None, ended: asyncio.Event) -> None:
        """Hold the conversation until ``ended``, with which ``audio`` ends, or until the end of
        ``audio``, or of typed input if ``audio`` is `None`. All that was said is recognized; what
        is not, as the conversation broke off, is shown as it was heard so far.

        Raises:
            errors.ServiceUnreachable: the connection broke, or the service does not end the
                conversation within `ending_s`.
            errors.MicrophoneUnavailable: it has gone; what it heard before is recognized.
            typer.Exit: an error ended it, and was printed.
        """
        first = self._send_lines(alone=True) if audio is None else self._send_audio(audio, ended)
        second = self._send_silence() if audio is None else self._send_lines(alone=False)
        try:
            async with running(
                self._read(), ended.wait(), first, self._watch_playback(), second
            ) as tasks:
                await asyncio.wait(tasks[:3], return_when=asyncio.FIRST_COMPLETED)
                reading, _, sending = tasks[:3]
                broken = sending.done() and sending.exception() is not None
                if audio is not None and self._begun.is_set() and (ended.is_set() or broken):
                    try:
                        async with asyncio.timeout(self.ending_s):
                            await self._end(reading, sending)
                    except TimeoutError:
                        raise errors.ServiceUnreachable(NOT_ENDED) from None
                for task in tasks[:3]:
                    if task.done():
                        task.result()
        finally:
            if self._unfinished:
                self._display.line(YOU, self._unfinished)

    async def _end(self, reading: asyncio.Task[None], sending: asyncio.Task[None]) -> None:
        """Let all audio be sent, and what was said be recognized."""
        await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_COMPLETED)
        await self._send("session.end")
        await asyncio.wait({reading})

    async def _send(self, type: str, **fields: Any) -> None:
        """Send an event. If the service is gone, only reading raises."""
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed):
            await self._socket.send(json.dumps({"type": type, **fields}))

    async def _send_pcm(self, pcm: bytes) -> None:
        audio = base64.b64encode(pcm).decode()
        await self._send("input_audio_buffer.append", audio=audio)

    async def _read(self) -> None:
        from websockets.exceptions import ConnectionClosed

        event: Event = {}
        with suppress(ConnectionClosed):
            async for raw in self._socket:
                event = parse_event(raw)
                if event.get("type") == "session.ended":
                    return
                await self._handle(event)
        if event.get("type") == "error":
            raise typer.Exit(1)
        raise errors.ServiceUnreachable("The service closed the connection of the conversation.")

    async def _handle(self, event: Event) -> None:
        match event:
            case {"type": "error", "error": error}:
                await self._refused(error)
            case {"type": "session.updated", "session": session}:
                self._show_session(session)
            case {"type": "input_audio_buffer.speech_started"}:
                self._speaking = True
            case {"type": "input_audio_buffer.speech_stopped"}:
                self._speaking = False
                self._display.drop()
                await self._notify()
            case {"type": "conversation.item.input_audio_transcription.delta", "delta": delta}:
                self._unfinished += delta
                self._display.grow(delta)
            case {
                "type": "response.output_audio_transcript.delta" | "response.output_text.delta",
                "delta": delta,
            }:
                self._display.grow(delta)
            case {
                "type": "conversation.item.input_audio_transcription.completed",
                "transcript": text,
            }:
                self._unfinished = ""
                if text:
                    self._display.line(YOU, text)
            case {
                "type": "conversation.item.done",
                "item": {"role": "user", "content": [{"type": "input_text", "text": text}]},
            } if not self._display.on_terminal:  # where it stands already
                self._display.line(YOU, text)
            case {"type": "response.created"}:
                if self._sent is not None and self._loudspeaker is not None:
                    self._loudspeaker.clear()  # by the service's clock it was heard
                await self._end_sent_reply()
                self._pending += 1
            case {"type": "response.output_audio.delta", "item_id": item, "delta": audio}:
                if self._loudspeaker is not None:
                    self._loudspeaker.add(item, base64.b64decode(audio))
            case {"type": "output_audio_buffer.cleared"}:
                await self._truncate_reply()
            case {"type": "response.done", "response": response}:
                await self._response_done(response)
            case {"type": "conversation.item.truncated", "item_id": item}:
                await self._send("conversation.item.retrieve", item_id=item)
            case {"type": "conversation.item.retrieved", "item": item}:
                self._truncated_item = ""
                await self._answered(_text_of([item]) or "…")

    async def _response_done(self, response: Event) -> None:
        """Handle that all of an answer was sent, or no more comes of it."""
        items = [item for item in response["output"] if item["type"] == "message"]
        if response["status"] == "failed":
            self.failed = True
            self._print_error(response["status_details"]["error"]["message"])
            self._last_error = ""
        if response["status"] != "cancelled":
            self._sent = response
        elif not items:
            await self._answered("…")
        elif items[0]["id"] != self._truncated_item:
            await self._send("conversation.item.retrieve", item_id=items[0]["id"])

    async def _end_sent_reply(self) -> None:
        """End the answer that was sent: all of it was heard."""
        response, self._sent = self._sent, None
        if response is not None:
            await self._answered(_text_of(response["output"]))

    async def _answered(self, text: str) -> None:
        if text:  # else its error was printed
            self._display.line(MACHINE, text)
        self._pending -= 1
        await self._count_reply()

    async def _count_reply(self) -> None:
        self._replies += 1
        self._display.prompt()
        await self._notify()

    async def _refused(self, error: Event) -> None:
        if error["code"] == ResponseNotActive.code:  # it has ended by itself
            return
        self._print_error(error["message"])
        if error["event_id"] == ANSWER_REQUEST:  # there will be no answer
            self.failed = True
            await self._count_reply()

    def _print_error(self, message: str) -> None:
        """Print an error; not again if the warning before the first answer said the same."""
        if message != self._last_error:
            output.print_error_line(message)
        self._last_error = message

    def _show_session(self, session: Event) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            spoken = session["output_modalities"] == ["audio"]
            aloud = "a machine's voice says it" if spoken else "nobody says it aloud"
            how = "Enter interrupts, Ctrl-C ends."
            output.print_error_line(f"{session['model']} answers, {aloud}. {how}")
        self._display.prompt()
        self._begun.set()

    async def _notify(self) -> None:
        self._changed_at = asyncio.get_running_loop().time()
        async with self._changes:
            self._changes.notify_all()

    async def _truncate_reply(self) -> bool:
        """Drop what was not heard of an answer, and report how much was; return whether there was
        any."""
        item, heard_ms = ("", 0) if self._loudspeaker is None else self._loudspeaker.clear()
        if item:
            self._truncated_item, self._sent = item, None
            position = {"item_id": item, "content_index": 0, "audio_end_ms": heard_ms}
            await self._send("conversation.item.truncate", **position)
        return bool(item)

    async def _watch_playback(self) -> None:
        """Notice that an answer was heard to its end."""
        while True:
            await asyncio.sleep(PLAYBACK_POLL_S)
            if self._loudspeaker is None or self._loudspeaker.finished():
                await self._end_sent_reply()

    async def _send_audio(self, audio: AsyncGenerator[bytes, None], ended: asyncio.Event) -> None:
        """Send all audio, and then, unless ``ended``, silence until nothing was said for
        `SETTLED_S`."""
        await self._begun.wait()
        async with aclosing(audio):
            async for chunk in audio:
                self._display.level(audio_input.loudness(chunk))
                await self._send_pcm(chunk)
        loop = asyncio.get_running_loop()
        last = loop.time()
        while not ended.is_set() and (
            self._speaking or self._pending or loop.time() - max(last, self._changed_at) < SETTLED_S
        ):
            await self._send_pcm(self._silence)
            await asyncio.sleep(audio_input.PIECE_S)

    async def _send_silence(self) -> None:
        await self._begun.wait()
        while True:
            await self._send_pcm(self._silence)
            await asyncio.sleep(SILENCE_INTERVAL_S)

    async def _send_lines(self, *, alone: bool) -> None:
        """Send each typed line as a turn; an empty one interrupts. Without a terminal each line
        waits for the answer to the one before."""
        await self._begun.wait()
        at_once = sys.stdin is not None and sys.stdin.isatty()
        async for line in read_stdin_lines():
            await self._interrupt()
            if not line:
                continue
            before, part = self._replies, {"type": "input_text", "text": line}
            item = {"type": "message", "role": "user", "content": [part]}
            await self._send("conversation.item.create", event_id=ANSWER_REQUEST, item=item)
            await self._send("response.create", event_id=ANSWER_REQUEST)
            if not at_once:
                await self._wait_until(lambda before=before: self._replies > before)  # type: ignore[misc]
        if alone:
            await self._wait_until(lambda: not self._pending)

    async def _interrupt(self) -> None:
        if await self._truncate_reply():
            return
        if self._pending:
            await self._send("output_audio_buffer.clear")
        else:
            self._display.prompt()

    async def _wait_until(self, reached: Callable[[], bool]) -> None:
        async with self._changes:
            await self._changes.wait_for(reached)


def parse_event(text: str | bytes) -> Event:
    """Return an event of the service.

    Raises:
        errors.ServiceUnreachable: it is none.
    """
    event = loads(text)
    if not isinstance(event, dict):
        raise errors.ServiceUnreachable(f"What answers at {PATH} is not this service.")
    return event


def _text_of(items: list[Event]) -> str:
    """Return the text of an answer's items."""
    parts = [part for item in items for part in item.get("content", ())]
    return " ".join(part.get("transcript") or part.get("text") or "" for part in parts).strip()


class TalkDisplay:
    """Lines of both sides on standard output, each once it is final. On a terminal also the level
    of the microphone, if the user speaks (``spoken``), and the text in progress."""

    def __init__(self, *, spoken: bool) -> None:
        self._spoken, self._loud, self._text = spoken, 0.0, ""
        self.on_terminal = sys.stdout.isatty()
        if self.on_terminal:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(), auto_refresh=False, transient=True)

    def prompt(self) -> None:
        """Show that it is the user's turn."""
        if self.on_terminal and not self._spoken:
            self._live.stop()
            self._live.console.print("> ", end="")

    def level(self, loud: float) -> None:
        """Show the level of the user's audio, 0 to 1."""
        self._loud = max(loud, self._loud * 0.7)
        self.grow("")

    def drop(self) -> None:
        """Drop the text in progress."""
        self._text = ""
        self.grow("")

    def grow(self, more: str) -> None:
        """Add to the text in progress."""
        self._text += more
        if not self.on_terminal:
            return
        from rich.text import Text

        if not self._live.is_started:
            self._live.start()
        text = Text(output.printable(self._text), style="dim")
        if self._spoken:
            text = Text.assemble((f"{audio_input.level_meter(self._loud)} ", "green"), text)
        self._live.update(text, refresh=True)

    def line(self, who: str, text: str) -> None:
        """Show a final text."""
        self.drop()
        if not self.on_terminal:
            output.print_text(f"{who}: {output.printable(' '.join(text.split()))}\n")
            return
        from rich.text import Text

        line = Text.assemble((f"{who}: ", "bold"), (output.printable(text), STYLES[who]))
        self._live.console.print(line)

    def close(self) -> None:
        """Stop the display."""
        if self.on_terminal:
            self._live.stop()


class Loudspeaker:
    """Output device of this machine, by its number or a part of its name; `None`: the system's
    default. It plays the answer of one item at a time. Its own thread fetches the audio; audio that
    was not played yet does not count as heard.

    Raises:
        LoudspeakerUnavailable: there is no such device, or it does not support the sample
            rate.
        errors.MicrophoneUnavailable: the library for both is missing.
    """

    def __init__(self, device: str | None) -> None:
        sounddevice = audio_input.import_sounddevice()
        self._lock = threading.Lock()
        self._item, self._given = "", 0
        self._waiting = bytearray()
        try:
            self.stream = sounddevice.RawOutputStream(
                samplerate=OUT_RATE,
                device=audio_input.device_key(device),
                latency="low",
                callback=self._fill,
                **audio_input.MONO_16_BIT,
            )
        except (ValueError, sounddevice.PortAudioError) as error:
            detail = f"The loudspeaker cannot be used: {error}."
            raise LoudspeakerUnavailable(detail) from None

    def add(self, item: str, pcm: bytes) -> None:
        """Queue audio of an item: 16-bit mono. Drop the rest of another."""
        with self._lock:
            if item != self._item:
                self._item, self._given = item, 0
                self._waiting.clear()
            self._waiting += pcm

    def finished(self) -> bool:
        """Return whether all audio was played."""
        with self._lock:
            return not self._waiting

    def clear(self) -> tuple[str, int]:
        """Drop all waiting audio. Return the item, '' if all was played, and how many milliseconds
        of it were heard: played, less the latency of the device."""
        with self._lock:
            item = self._item if self._waiting else ""
            self._waiting.clear()
            heard_s = self._given / OUT_RATE - self.stream.latency
            return item, max(0, round(1000 * heard_s))

    def _fill(self, out: Any, frames: int, *_: Any) -> None:
        with self._lock:
            size = min(2 * frames, len(self._waiting))
            out[:size] = bytes(self._waiting[:size])
            out[size : 2 * frames] = bytes(2 * frames - size)
            del self._waiting[:size]
            self._given += size // 2


async def read_stdin_lines() -> AsyncIterator[str]:
    """Yield each line of standard input as it arrives, stripped."""
    if sys.stdin is None:
        return
    rest = b""
    with suppress(OSError):  # the same as its end
        async for raw in audio_input.read_stdin(LONGEST):
            *whole, rest = (rest + raw).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace").strip()
    if rest:
        yield rest.decode("utf-8", "replace").strip()
