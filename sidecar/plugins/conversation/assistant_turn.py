"""Assistant turn: LLM output, tool calls, speech. Pure.

It begins when the user's turn may have ended. Until that is certain (`confirm`) the LLM and the TTS
engine work already, and their output is held back.

A tool call is streamed while the LLM writes it, and is executed only once it is complete. An
interruption drops an incomplete call.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

from sidecar.errors import SidecarError
from sidecar.interfaces.tts_text import SentenceSplitter, TtsPhrase
from sidecar.plugins.conversation import chat_completions
from sidecar.plugins.conversation import conversation_events as events
from sidecar.plugins.conversation.chat_history import ReplyText
from sidecar.plugins.conversation.conversation_events import ConversationOptions
from sidecar.plugins.conversation.errors import LlmGarbled, ReplyEmpty, StageSilent

TTS_AHEAD_PHRASES = 2
"""Phrases that the TTS engine has at once: the one that it synthesizes, and the next."""
APOLOGY = "Sorry, something went wrong. Please try again."
"""What is spoken if there is nothing else to speak."""
STAGE_TIMEOUT_S = 30.0
"""Seconds without an event after which a stage, or the client's playback, has failed."""
_SLACK_S = 0.002


class ToolCallCollector:
    """Tool calls of turn ``number``. ``is_call_id_taken`` returns whether another call has an id
    already."""

    def __init__(self, number: int, is_call_id_taken: Callable[[str], bool]) -> None:
        self._number, self._is_call_id_taken = number, is_call_id_taken
        self._calls: dict[int, chat_completions.ToolCall] = {}
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def feed(
        self, delta: chat_completions.ToolCallDelta
    ) -> Iterator[events.ToolCallStarted | events.ToolCallArgumentsDelta]:
        """Add a fragment of a call; yield the events for the client.

        Raises:
            LlmGarbled: the call has no name, or there are too many calls or arguments.
        """
        call = self._calls.get(delta.index)
        if call is None:
            if not delta.name or len(self._calls) == chat_completions.MAX_TOOL_CALLS:
                raise LlmGarbled(
                    "The language model calls a tool without a name, or too many tools."
                )
            call = chat_completions.ToolCall(self._new_id(delta.id), delta.name, "")
            self._calls[delta.index] = call
            yield events.ToolCallStarted(self._number, call.id, call.name)
        if delta.arguments:
            self._size += len(delta.arguments)
            if self._size > chat_completions.MAX_ARGUMENT_CHARACTERS:
                raise LlmGarbled("The arguments of a tool call of the language model are too long.")
            arguments = call.arguments + delta.arguments
            self._calls[delta.index] = replace(call, arguments=arguments)
            yield events.ToolCallArgumentsDelta(self._number, call.id, delta.arguments)

    def end(self) -> Iterator[events.ToolCallArgumentsDelta | events.ToolCallEnded]:
        """Check and complete all calls at the end of the LLM's output; yield the events.

        Raises:
            LlmGarbled: the arguments of a call are not JSON.
        """
        for index, call in self._calls.items():
            if not call.arguments.strip():  # some models write nothing if a call has no arguments
                self._calls[index] = call = replace(call, arguments=call.arguments + "{}")
                yield events.ToolCallArgumentsDelta(self._number, call.id, "{}")
            if not _is_object(call.arguments):
                raise LlmGarbled(
                    f"The language model calls '{call.name[:80]}' with arguments that are "
                    "not JSON.",
                    hint="They may be cut off: a whole answer is limited to a minute of speech.",
                )
        for call in self._calls.values():
            yield events.ToolCallEnded(self._number, call)

    def _new_id(self, server_id: str) -> str:
        """Return the server's own id, because the server gets it back, or a new one if it is
        taken."""
        used = {call.id for call in self._calls.values()}
        name = server_id[:64] or f"call_{self._number}_{len(used)}"
        while name in used or self._is_call_id_taken(name):
            name = f"call_{self._number}_{len(used)}" if name == server_id[:64] else f"{name}_"
        return name


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


class AssistantTurn:
    """Turn ``number``, which answers ``user_text``. ``emit_command`` takes its commands in order;
    ``is_call_id_taken`` as in `ToolCallCollector`."""

    def __init__(
        self,
        number: int,
        user_text: str,
        options: ConversationOptions,
        emit_command: Callable[[events.ConversationCommand], None],
        now: float,
        is_call_id_taken: Callable[[str], bool],
    ) -> None:
        self.number, self.user_text, self._options = number, user_text, options
        self._emit_command = emit_command
        self._held: list[events.ConversationCommand] | None = []
        self._sentences = SentenceSplitter()
        self._calls = ToolCallCollector(number, is_call_id_taken)
        self.reply = ReplyText()
        self._written = ""
        self._thinking = False
        self._text_only = not options.voiced
        self._next = self._current = 0
        self.played = 0.0
        self.paused = False
        self.ending = events.ReplyEnding.COMPLETED
        self.progress = now
        self._first: dict[str, float] = {}
        self._latency: events.ReplyLatency | None = None
        self.sounding = False

    # Commands

    def think(self, messages: tuple[chat_completions.ChatMessage, ...], now: float) -> None:
        """Send ``messages`` to the LLM."""
        self._thinking = True
        self._first["think"] = now
        self._emit_command(events.GenerateReply(self.number, messages, self._options.tools))

    def fail(self, error: SidecarError, now: float) -> None:
        """End with an error, as there is nothing to send to the LLM."""
        self._failed(error)
        self._apologise(now)

    def confirm(self, now: float, latency: events.ReplyLatency, entry: int) -> None:
        """Confirm that the user's turn has ended: send the output that was held back.

        ``latency`` contains ``endpoint`` and ``recognized``; its ``total`` is the time at which the
        user was last heard. ``entry`` is the number of the reply in the history.
        """
        self._latency = latency
        held, self._held = self._held or [], None
        self._emit_command(events.ReplyStarted(self.number, self._options.voiced, entry))
        for command in held:
            self._emit_when_confirmed(command, now)
        self._advance(now)

    def pause(self) -> None:
        """Pause the audio of the reply."""
        if not self.paused:
            self.paused = True
            self._emit_command(events.PauseReplyAudio(self.number))

    def resume(self, now: float) -> None:
        """Resume the audio of the reply."""
        if self.paused:
            self.paused, self.progress = False, now
            self._emit_command(events.ResumeReplyAudio(self.number))

    def stop(self) -> None:
        """Stop its stages: TTS, then the LLM."""
        self._emit_command(events.StopStage(self.number, events.ConversationStage.TTS))
        self._emit_command(events.StopStage(self.number, events.ConversationStage.LLM))

    def mark_limited(self) -> None:
        """Break off the reply: mark that text is missing at its end."""
        if self._thinking:
            self._thinking = False
            self.reply.limited = True
            for phrase in self._sentences.flush():
                self.reply.add(phrase, silent=self._text_only)

    # State

    @property
    def confirmed(self) -> bool:
        """Return whether the user's turn has ended, as far as can be known."""
        return self._held is None

    @property
    def audible(self) -> bool:
        """Return whether some of it was played, or shown if there is no TTS."""
        return self.played > 0 or (
            self._text_only and self.confirmed and bool(self._written.strip())
        )

    @property
    def synthesizing(self) -> bool:
        """Return whether the TTS engine has, or had, text of the turn to synthesize."""
        return "say" in self._first

    @property
    def made(self) -> bool:
        """Return whether all output of the turn was made."""
        return self.confirmed and not (self._thinking or self._tts_busy)

    @property
    def done(self) -> bool:
        """Return whether all output of the turn was made and played."""
        return self.made and self.played >= self.reply.made_s - _SLACK_S

    @property
    def stalled_at(self) -> float:
        """Return the deadline for the next event."""
        if not (self.confirmed or self._thinking or self._tts_busy):
            return float("inf")
        return self.progress + STAGE_TIMEOUT_S

    @property
    def _tts_busy(self) -> bool:
        """Return whether TTS works for the turn, or will."""
        parts = self.reply.parts[self._current :]
        return not self._text_only and any(part.awaits_audio for part in parts)

    # Events

    def written(self, event: events.LlmToken | events.LlmToolCallDelta) -> None:
        """Add text or a fragment of a tool call of the LLM."""
        if not self._thinking:
            return
        self.progress = event.at
        self._first.setdefault("token", event.at)
        if isinstance(event, events.LlmToken):
            self._text(event)
            return
        try:
            for client_event in self._calls.feed(event.delta):
                self._emit_when_confirmed(client_event, event.at)
        except LlmGarbled as error:
            self._end_stage(events.ConversationStage.LLM, error, event.at)

    def _text(self, token: events.LlmToken) -> None:
        room = self._options.most_bytes - len(self._written.encode(errors="replace"))
        text = token.text.encode(errors="replace")[:room].decode(errors="ignore")
        self._write(text, self._sentences.feed(text), token.at)
        if len(text) < len(token.text):
            self._limit(token.at, events.ConversationStage.LLM)

    def voiced(self, audio_event: events.TtsAudio) -> None:
        """Add audio of a phrase."""
        if self._text_only or not self._current <= audio_event.phrase < self._next:
            return
        parts = self.reply.parts
        if not parts[audio_event.phrase].awaits_audio:
            return
        self.progress = audio_event.at
        for earlier in range(self._current, audio_event.phrase):  # a TTS engine may not report ends
            self.reply.end_audio(earlier)
        self._current = audio_event.phrase
        if self.reply.made_s + audio_event.audio.seconds > self._options.longest_reply_s:
            self._limit(audio_event.at, events.ConversationStage.TTS)
            return
        self._first.setdefault("voiced", audio_event.at)
        self.reply.sounded(audio_event.phrase, audio_event.audio)
        self._emit_when_confirmed(
            events.SendReplyAudio(self.number, audio_event.phrase, audio_event.audio),
            audio_event.at,
        )

    def ended(self, stage_ended: events.StageEnded) -> None:
        """Handle the end of a stage's work."""
        self.progress = stage_ended.at
        if stage_ended.stage is events.ConversationStage.LLM and self._thinking:
            self._llm_ended(stage_ended.at)
        elif stage_ended.stage is events.ConversationStage.TTS and stage_ended.phrase < self._next:
            for phrase in range(self._current, stage_ended.phrase + 1):
                self.reply.end_audio(phrase)
            self._advance(stage_ended.at)

    def failed(self, stage_failed: events.StageFailed) -> None:
        """Handle the failure of a stage."""
        self.progress = stage_failed.at
        if stage_failed.stage is events.ConversationStage.LLM and self._thinking:
            self._failed(stage_failed.error)
            self._llm_ended(stage_failed.at)
        elif stage_failed.stage is events.ConversationStage.TTS and self._tts_busy:
            self._failed(stage_failed.error)
            self._turn_tts_off(stage_failed.at)

    def record_playback(self, seconds: float, now: float) -> None:
        """Record how much of its audio was played by now, in all."""
        seconds = min(seconds, self.reply.made_s)
        if seconds > self.played:
            self.played, self.progress = seconds, now

    def cut(self, seconds: float) -> None:
        """Record how much was played, even if more was reported before."""
        self.played = min(seconds, self.reply.made_s)

    def stall(self, now: float) -> bool:
        """Handle a timeout; return whether another stage can still do something about it."""
        self.progress = now
        if self._thinking:
            self._end_stage(events.ConversationStage.LLM, StageSilent(), now)
        elif self._tts_busy:
            self._end_stage(events.ConversationStage.TTS, StageSilent(), now)
        else:
            self._failed(StageSilent("The client does not play the speech."))
            return False
        return True

    # Implementation

    def _end_stage(self, stage: events.ConversationStage, error: SidecarError, now: float) -> None:
        """Stop a stage that fails by what it did or did not do."""
        self._emit_command(events.StopStage(self.number, stage))
        self.failed(events.StageFailed(now, self.number, stage, error))

    def _emit_when_confirmed(self, command: events.ConversationCommand, now: float) -> None:
        """Carry out a command that the client notices; hold it back until the turn is confirmed."""
        if self._held is not None:
            self._held.append(command)
            return
        self._emit_command(command)
        first = isinstance(command, events.SendReplyAudio)
        self.sounding = self.sounding or first
        first = first or (self._text_only and isinstance(command, events.ReplyTextDelta))
        if self._latency is not None and first:
            self._measure(self._latency, now)

    def _measure(self, latency: events.ReplyLatency, now: float) -> None:
        first = self._first
        self._latency = None
        thought = first.get("token", now) - first["think"] if "think" in first else 0.0
        voiced = first["voiced"] - first["say"] if "voiced" in first else 0.0
        latency = replace(latency, turn=self.number, thought=thought, voiced=voiced)
        self._emit_command(replace(latency, total=now - latency.total))

    def _write(self, text: str, phrases: list[TtsPhrase], now: float) -> None:
        """Add text that is shown, and the phrases that it completes."""
        self._written += text
        if text:
            self._emit_when_confirmed(events.ReplyTextDelta(self.number, text), now)
        for phrase in phrases:
            self.reply.add(phrase, silent=self._text_only)
        self._advance(now)

    def _advance(self, now: float) -> None:
        """Send the next phrases to TTS: one until the turn is confirmed, then
        `TTS_AHEAD_PHRASES`."""
        parts = self.reply.parts
        while self._current < len(parts) and not parts[self._current].awaits_audio:
            self._current += 1
        self._next = max(self._next, self._current)
        while self._next < len(parts) and not self._text_only:
            waiting = parts[self._current : self._next]
            ahead = sum(part.awaits_audio for part in waiting)
            if ahead >= (TTS_AHEAD_PHRASES if self.confirmed else 1):
                return
            part = parts[self._next]
            if not self.confirmed and "say" in self._first and not part.silent:
                return
            if not part.silent:
                self._first.setdefault("say", now)
                self._emit_command(events.SynthesizeText(self.number, self._next, part.phrase.text))
            self._next += 1

    def _llm_ended(self, now: float) -> None:
        """Handle the end of the LLM's output."""
        self._thinking = False
        self._write("", self._sentences.flush(), now)
        try:
            if self.ending is not events.ReplyEnding.FAILED:
                for event in list(self._calls.end()):  # all of its tool calls or none
                    self._emit_when_confirmed(event, now)
        except LlmGarbled as error:
            self._failed(error)
        if self._written.strip() or (self._calls and self.ending is not events.ReplyEnding.FAILED):
            return
        if self.ending is not events.ReplyEnding.FAILED:
            self._failed(ReplyEmpty())
        self._apologise(now)

    def _apologise(self, now: float) -> None:
        """Speak the apology. It is not part of the history; clients show the error."""
        if not self._text_only:
            self._write("", [TtsPhrase("", APOLOGY)], now)

    def _failed(self, error: SidecarError) -> None:
        self.ending = events.ReplyEnding.FAILED
        self._emit_when_confirmed(events.ConversationError(self.number, error), self.progress)

    def _turn_tts_off(self, now: float) -> None:
        """Turn TTS off: the rest is text only."""
        self._emit_command(events.StopStage(self.number, events.ConversationStage.TTS))
        self._text_only = True
        self.reply.mute()
        self._advance(now)

    def _limit(self, now: float, stage: events.ConversationStage) -> None:
        """End the reply at its limit of text (``stage`` is the LLM) or audio (``stage`` is TTS)."""
        self.ending = events.ReplyEnding.LIMITED
        if self._thinking:
            self._thinking = False
            self._emit_command(events.StopStage(self.number, events.ConversationStage.LLM))
        if stage is events.ConversationStage.LLM:
            self._write("", self._sentences.flush(), now)
        else:
            self._emit_command(events.StopStage(self.number, events.ConversationStage.TTS))
            self.reply.limit(self._current)
            self._next = min(self._next, len(self.reply.parts))
            self._advance(now)
