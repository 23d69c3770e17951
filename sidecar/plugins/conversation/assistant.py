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
    """Replies of the assistant, one numbered turn after the other. ``do`` takes the commands in
    order.

    An *attempted* turn answers text that may be the whole user turn; no client knows of it. A
    *given* turn is sent to the client.
    """

    def __init__(
        self, options: ConversationOptions, do: Callable[[events.ConversationCommand], None]
    ) -> None:
        self.options = options
        """Options from the next turn on."""
        self.history = ChatHistory(options.most_messages, options.most_bytes)
        self.number = 1
        self.turn: AssistantTurn | None = None
        self._do = do
        self._last_said, self._last_said_until = "", float("-inf")
        self.last_made_s = 0.0
        """Seconds of audio of the previous reply."""

    @property
    def given(self) -> AssistantTurn | None:
        """Return the reply that is being given; `None` if there is none."""
        return self.turn if self.turn is not None and self.turn.confirmed else None

    @property
    def sounding(self) -> bool:
        """Return whether audio of a reply was sent that may still be heard."""
        return self.turn is not None and self.turn.sounding

    # Start of a turn

    def attempt(self, said: str, now: float) -> None:
        """Start a speculative reply to the history and ``said``, unless it has begun."""
        if self.turn is not None and self.turn.said == said:
            return
        self.discard()
        self._begin(said, now).think(self._messages(said), now)

    def give(
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
        if self.turn is None or self.turn.said != text or options is not None:
            self.discard()
            turn = self._begin(text, now, options)
            turn.think(self._messages(options=options), now)
        self._confirm(latency, now)

    def give_any(
        self, now: float, options: ConversationOptions | None = None, name: str = ""
    ) -> None:
        """Answer the history. ``name`` is the client's name for its request."""
        self.discard()
        if self._messages(options=options):
            self.give("", events.ReplyLatency(0, total=now), now, options)
        else:
            error = ReplyEmpty(
                "There are neither items nor instructions to answer.",
                hint="Send an item or instructions first.",
            )
            self._do(events.ConversationError(0, error, name))

    def give_up(self, error: SidecarError, since: float, now: float) -> None:
        """Report an error that came before there was text to answer."""
        self.discard()
        self._begin("", now).fail(error, now)
        self._confirm(events.ReplyLatency(0, total=since), now)

    def _begin(
        self, said: str, now: float, options: ConversationOptions | None = None
    ) -> AssistantTurn:
        taken = self.history.knows
        options = options or self.options
        self.turn = AssistantTurn(self.number, said, options, self._wanted, now, taken)
        return self.turn

    def _wanted(self, command: events.ConversationCommand) -> None:
        """Pass on a command of a turn. A complete tool call enters the history first, because its
        result may come before the turn has ended."""
        if isinstance(command, events.ToolCallEnded):
            entry = self.history.called(command.turn, command.call)
            command = replace(command, entry=entry.number)
        self._do(command)

    def _confirm(self, latency: events.ReplyLatency, now: float) -> None:
        assert self.turn is not None
        entry = self.history.begin(self.turn.number, self.turn.reply)
        self.turn.confirm(now, latency, entry.number)

    def _messages(
        self, said: str = "", options: ConversationOptions | None = None
    ) -> tuple[ChatMessage, ...]:
        return self.history.messages((options or self.options).instructions, said)

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
                turn.heard(event.seconds, now)

    def saying(self, began: float) -> str:
        """Return the text of the reply that may have been heard by a user who began to speak at
        ``began``."""
        if self.turn is not None and self.turn.sounding:
            return self.turn.reply.around(self.turn.played)
        return self._last_said if began <= self._last_said_until + MAX_ECHO_LAG_S else ""

    # End of a turn

    def discard(self) -> None:
        """Drop the speculative reply, of which the user has heard nothing."""
        if self.turn is not None and not self.turn.confirmed:
            turn, self.turn = self.turn, None
            self.number += 1
            turn.stop()

    def abandon(self, ending: events.ReplyEnding, now: float) -> None:
        """Interrupt the reply: drop its audio, begin the next turn number, stop the stages, update
        the history, notify the client."""
        self.discard()
        turn = self.turn
        if turn is None:
            return
        self._do(events.DropReplyAudio(turn.number))
        self.number += 1
        turn.stop()
        turn.break_off()
        self._record(turn, turn.reply.heard(turn.played), ending, now)

    def finish(self, now: float) -> bool:
        """End the turn if all of it was made and played; return whether it has ended."""
        turn = self.turn
        if turn is None or not turn.done:
            return False
        self.number += 1
        turn.stop()
        self._record(turn, turn.reply.heard(turn.reply.made_s), turn.ending, now)
        return True

    def stalled(self, now: float) -> bool:
        """Handle a stage that timed out; return whether that has ended the turn."""
        turn = self.turn
        assert turn is not None
        if turn.stall(now):
            return self.finish(now)
        self.abandon(turn.ending, now)
        return True

    def _record(
        self, turn: AssistantTurn, heard: str, ending: events.ReplyEnding, now: float
    ) -> None:
        self.turn = None
        text = self.history.replied(turn.number, heard)
        if turn.sounding:
            self._last_said, self._last_said_until = turn.reply.around(turn.played), now
        self.last_made_s = made = turn.reply.made_s
        self._do(events.ReplyEnded(turn.number, ending, text, made))

    def forget(self) -> None:
        """Clear the history."""
        self.history.clear()
        self._last_said = ""
