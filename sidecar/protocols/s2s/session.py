"""Conversation over one connection."""

from __future__ import annotations

import dataclasses
import time

from sidecar import errors
from sidecar.api.http import request_headers
from sidecar.api.http.websocket_connections import Message, Socket
from sidecar.conversation.conversation_events import Cancelled, Reset, Truncated, Typed
from sidecar.conversation.conversation_loop import Talk
from sidecar.conversation.conversation_transcript import Account
from sidecar.conversation.output_queue import Client, Noticed, Out, Over, Told
from sidecar.interfaces.engine_interface import SayOptions
from sidecar.live.sessions.session import NOT_KEPT
from sidecar.protocols.s2s import messages
from sidecar.protocols.s2s.messages import Dialect, Words
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Notice
from sidecar.transcripts.transcript_formats import render, transcript_body


async def converse(service: Service, socket: Socket) -> None:
    """From the greeting to the end of the connection.

    Raises:
        Gone: the client went.
        errors.SidecarError: what ended it.
    """
    settings, options = service.settings, service.conversations.options()
    manner = SayOptions(settings.talk_voice, settings.language, rate=messages.OUT_RATE)
    async with service.conversations.open(socket.caller, options, manner) as talk:
        connection = _Connection(service, socket, talk, manner)
        await socket.send(messages.greeting(talk.greeting))
        await socket.side_by_side(
            socket.read(connection.at_once), connection.hear(), talk.run(), connection.tell()
        )
    if not connection.over:
        raise errors.ShuttingDown()  # nothing else ends one that has no error
    await socket.close()


class _Connection:
    """The tasks of one. ``manner``: how the voice speaks at first."""

    def __init__(self, service: Service, socket: Socket, talk: Talk, manner: SayOptions) -> None:
        self._service, self._socket, self._talk = service, socket, talk
        self._manner, self._model = manner, ""
        self._rate = messages.IN_RATE
        self._words: Dialect | Words = Dialect()
        self._account = Account(time.monotonic())
        self._keep = False
        self._unkept: Notice | None = None
        self.over = False
        """Whether the client has had enough, and was told all."""

    async def at_once(self, message: Message) -> bool:
        """What is typed goes ahead of sound that waits."""
        if isinstance(message, bytes) and message:  # how much sound is taken has other bounds
            return False
        self._socket.count()
        if isinstance(message, bytes):
            return True
        order = None
        try:
            order = messages.order_of(request_headers.read(message))
            await self._ordered(order)
        except ValueError:
            await self._warn(errors.RequestInvalid("This is no JSON."))
        except (errors.FieldInvalid, errors.ModelNotFound) as error:
            await self._warn(error, ours_known=isinstance(order, messages.Begin))
        return True

    async def hear(self) -> None:
        """Sound, in its turn."""
        async for raw in self._socket.inbound:
            try:
                await self._talk.hear(raw, rate=self._rate)
            except (errors.SoundInvalid, errors.ChunkTooLong) as error:
                await self._warn(error)
            except errors.SessionOver:
                continue  # the service ends: what goes on is still told, and then why

    async def tell(self) -> None:
        """What comes of it, until the client has had enough."""
        async for out in self._talk.outgoing():
            if isinstance(out, Over):
                ended = await self._ended()
                if self._unkept is not None:
                    await self._socket.send(*self._words.of(Noticed(self._unkept)))
                await self._socket.send(ended)
                self.over = True
                return
            self._noted(out)
            await self._socket.send(*self._words.of(out))

    async def _ordered(self, order: messages.Order | None) -> None:
        match order:
            case messages.Begin():
                await self._begin(order)
            case messages.Change(voice=voice, model=model):
                await self._change(voice, model)
            case messages.Played(turn=turn, seconds=seconds, cleared=True):
                self._talk.wish(Truncated, turn, seconds)
            case messages.Played(turn=turn, seconds=seconds):
                self._talk.played(turn, seconds)
            case messages.Interrupt(turn=turn, seconds=seconds):
                if turn is not None:
                    self._talk.wish(Truncated, turn, seconds)
                self._talk.wish(Cancelled)
            case messages.Text(text=text):
                self._talk.wish(Typed, text)
            case messages.Reset():
                self._socket.inbound.clear()
                self._talk.wish(Reset)
            case messages.End(keep=keep):
                self._keep = keep
                self._talk.end()

    async def _begin(self, begin: messages.Begin) -> None:
        """From here on all is told, and sound goes out as the client can take it; unless it asks
        for a model that is not there, and nothing begins."""
        await self._service.conversations.thinker(begin.model or self._model)
        self._rate = begin.rate
        self._manner = dataclasses.replace(self._manner, rate=begin.rate)
        self._talk.plays(Client(clears=begin.clears, holds=begin.holds))
        self._words = Words()
        await self._change(begin.voice, begin.model)

    async def _change(self, voice: str | None, model: str | None) -> None:
        conversations = self._service.conversations
        thinker = await conversations.thinker(self._model if model is None else model)
        self._model = self._model if model is None else model
        if voice is not None:
            usual = voice or self._service.settings.talk_voice
            self._manner = dataclasses.replace(self._manner, voice=usual)
        self._talk.thinks(thinker)
        self._talk.speaks(self._manner)
        speaks = self._service.fleet.voice_spec
        said = {
            "model": thinker.name,
            "voice": self._manner.voice,
            "speaks": speaks.name if speaks is not None else None,
            "rate": self._rate,
            "synthetic": speaks is not None,
        }
        await self._socket.send(messages.message("began", **said))

    async def _warn(self, error: errors.SidecarError, *, ours_known: bool = False) -> None:
        """``ours_known``: the client knows our words, though nothing has begun in them."""
        known = ours_known or isinstance(self._words, Words)
        told = messages.native_error_message if known else messages.s2s_error_message
        await self._socket.send(told(error))

    def _noted(self, out: Out) -> None:
        if isinstance(out, Told):
            self._account.take(out, time.monotonic())

    async def _ended(self) -> str:
        """The last message: the conversation as a transcript, which may be a job now."""
        settings, hears = self._service.settings, self._service.live.spec
        thinker = await self._service.conversations.thinker(self._model)
        transcript = self._account.transcript(
            time.monotonic(),
            engine=hears.name if hears is not None else "none",
            precision=hears.precisions[0].value if hears is not None else "none",
            language=settings.language,
            machine=f"Machine ({thinker.name})",
        )
        job = None
        if self._keep and transcript.segments:
            try:
                job = await self._service.keep_conversation(self._socket.caller, transcript)
            except errors.SidecarError as error:
                self._unkept = Notice(NOT_KEPT, f"It could not be kept: {error.detail}")
        written = {form: render(transcript, form) for form in ("text", "srt")}
        body = transcript_body(transcript)
        return messages.message("ended", transcript=body, written=written, job=job)
