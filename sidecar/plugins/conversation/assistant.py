"""Assistant's side of a conversation. Pure."""

from collections.abc import Callable
from dataclasses import replace

from sidecar.errors import SidecarError
from sidecar.plugins.conversation import conversation_events as events
from sidecar.plugins.conversation.assistant_turn import AssistantTurn
from sidecar.plugins.conversation.barge_in import MAX_ECHO_LAG_S
from sidecar.plugins.conversation.chat_completions import ChatMessage
from sidecar.plugins.conversation.chat_history import ChatHistory
from sidecar.plugins.conversation.conversation_events import ConversationOptions
from sidecar.plugins.conversation.errors import ReplyEmpty


class Assistant:
    """Replies of the assistant, one numbered turn after the other. ``emit_command`` takes the
    commands in order.

    A *speculative* turn answers text that may be the whole user turn; no client knows of it. A
    *confirmed* turn is sent to the client.
    """

    def __init__(
        self,
        options: ConversationOptions,
        emit_command: Callable[[events.ConversationCommand], None],
    ) -> None:
        self.options = options
        """Options from the next turn on."""
        self.history = ChatHistory(options.most_messages, options.most_bytes)
        self.number = 1
        self.turn: AssistantTurn | None = None
        self._emit_command = emit_command
        self._last_text, self._last_text_until = "", float("-inf")
        self.last_made_s = 0.0
        """Seconds of audio of the previous reply."""

    @property
    def confirmed_turn(self) -> AssistantTurn | None:
        """Return the turn whose reply is sent to the client; `None` if there is none."""
        return self.turn if self.turn is not None and self.turn.confirmed else None

    @property
    def sounding(self) -> bool:
        """Return whether audio of a reply was sent that may still be heard."""
        return self.turn is not None and self.turn.sounding

    # Start of a turn

    def speculate(self, user_text: str, now: float) -> None:
        """Start a speculative reply to the history and ``user_text``, unless it has begun."""
        if self.turn is not None and self.turn.user_text == user_text:
            return
        self.discard_speculative()
        self._begin(user_text, now).think(self._messages(user_text), now)

    def answer(
        self,
        text: str,
        latency: events.ReplyLatency,
        now: float,
        options: ConversationOptions | None = None,
    ) -> None:
        """Answer ``text``, which is in the history already.

        A speculative reply to the same text is used, unless ``options`` are given for this reply
        alone.
        """
        if self.turn is None or self.turn.user_text != text or options is not None:
            self.discard_speculative()
            turn = self._begin(text, now, options)
            turn.think(self._messages(options=options), now)
        self._confirm(latency, now)

    def answer_history(
        self, now: float, options: ConversationOptions | None = None, name: str = ""
    ) -> None:
        """Answer the history. ``name`` is the client's name for its request."""
        self.discard_speculative()
        if self._messages(options=options):
            self.answer("", events.ReplyLatency(0, total=now), now, options)
        else:
            error = ReplyEmpty(
                "There are neither items nor instructions to answer.",
                hint="Send an item or instructions first.",
            )
            self._emit_command(events.ConversationError(0, error, name))

    def answer_error(self, error: SidecarError, since: float, now: float) -> None:
        """Report an error that came before there was text to answer."""
        self.discard_speculative()
        self._begin("", now).fail(error, now)
        self._confirm(events.ReplyLatency(0, total=since), now)

    def _begin(
        self, user_text: str, now: float, options: ConversationOptions | None = None
    ) -> AssistantTurn:
        is_call_id_taken = self.history.knows
        options = options or self.options
        self.turn = AssistantTurn(
            self.number, user_text, options, self._emit_turn_command, now, is_call_id_taken
        )
        return self.turn

    def _emit_turn_command(self, command: events.ConversationCommand) -> None:
        """Pass on a command of a turn. A complete tool call enters the history first, because its
        result may come before the turn has ended."""
        if isinstance(command, events.ToolCallEnded):
            entry = self.history.add_call(command.turn, command.call)
            command = replace(command, entry=entry.number)
        self._emit_command(command)

    def _confirm(self, latency: events.ReplyLatency, now: float) -> None:
        assert self.turn is not None
        entry = self.history.begin(self.turn.number, self.turn.reply)
        self.turn.confirm(now, latency, entry.number)

    def _messages(
        self, user_text: str = "", options: ConversationOptions | None = None
    ) -> tuple[ChatMessage, ...]:
        return self.history.messages((options or self.options).instructions, user_text)

    # Progress of a turn

    def report(self, event: events.ReplyEvent, now: float) -> None:
        """Handle an event of a stage or of the player. An event of another turn is too late and is
        dropped."""
        turn = self.turn
        if turn is None or event.turn != turn.number:
            return
        match event:
            case events.LlmToken() | events.LlmToolCallDelta():
                turn.written(event)
            case events.TtsAudio():
                turn.voiced(event)
            case events.StageEnded():
                turn.ended(event)
            case events.StageFailed():
                turn.failed(event)
            case events.PlaybackReported():
                turn.record_playback(event.seconds, now)

    def echoable_text(self, began: float) -> str:
        """Return the text of the reply that may have been heard by a user who began to speak at
        ``began``."""
        if self.turn is not None and self.turn.sounding:
            return self.turn.reply.around(self.turn.played)
        return self._last_text if began <= self._last_text_until + MAX_ECHO_LAG_S else ""

    # End of a turn

    def discard_speculative(self) -> None:
        """Drop the speculative reply, of which the user has heard nothing."""
        if self.turn is not None and not self.turn.confirmed:
            turn, self.turn = self.turn, None
            self.number += 1
            turn.stop()

    def end_reply(self, ending: events.ReplyEnding, now: float) -> None:
        """Interrupt the reply: drop its audio, begin the next turn number, stop the stages, update
        the history, notify the client."""
        self.discard_speculative()
        turn = self.turn
        if turn is None:
            return
        self._emit_command(events.DropReplyAudio(turn.number))
        self.number += 1
        turn.stop()
        turn.mark_limited()
        self._record(turn, turn.reply.heard_text(turn.played), ending, now)

    def finish(self, now: float) -> bool:
        """End the turn if all of it was made and played; return whether it has ended."""
        turn = self.turn
        if turn is None or not turn.done:
            return False
        self.number += 1
        turn.stop()
        self._record(turn, turn.reply.heard_text(turn.reply.made_s), turn.ending, now)
        return True

    def stalled(self, now: float) -> bool:
        """Handle a stage that timed out; return whether that has ended the turn."""
        turn = self.turn
        assert turn is not None
        if turn.stall(now):
            return self.finish(now)
        self.end_reply(turn.ending, now)
        return True

    def _record(
        self, turn: AssistantTurn, heard: str, ending: events.ReplyEnding, now: float
    ) -> None:
        self.turn = None
        text = self.history.replied(turn.number, heard)
        if turn.sounding:
            self._last_text, self._last_text_until = turn.reply.around(turn.played), now
        self.last_made_s = made = turn.reply.made_s
        self._emit_command(events.ReplyEnded(turn.number, ending, text, made))

    def clear(self) -> None:
        """Clear the history."""
        self.history.clear()
        self._last_text = ""
