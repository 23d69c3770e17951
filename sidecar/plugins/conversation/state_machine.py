"""State machine of a conversation: events in, commands out. Pure.

Late events of an old turn are dropped, so that nothing depends on how fast a stage stops. The order
of an interruption is: drop the audio, begin the next turn number, stop TTS and then the LLM, update
the history, notify the client (`assistant`). `turn_taking` decides whose turn it is.
"""

from collections.abc import Callable

from sidecar.plugins.conversation import conversation_events as events
from sidecar.plugins.conversation.assistant import Assistant
from sidecar.plugins.conversation.barge_in import GUARDED_THRESHOLD
from sidecar.plugins.conversation.chat_completions import ChatRole, ToolCall
from sidecar.plugins.conversation.chat_history import ChatEntry
from sidecar.plugins.conversation.conversation_events import ConversationOptions, ConversationPhase
from sidecar.plugins.conversation.errors import CallUnknown
from sidecar.plugins.conversation.turn_taking import TurnTaking

DEFAULT_OPTIONS = ConversationOptions()
_MOST_AT_ONCE = 64
"""Maximum number of timers that one event may fire: more would be an endless loop."""


class ConversationStateMachine:
    """State machine of one conversation. Feed it with `take`, from one thread."""

    def __init__(self, options: ConversationOptions = DEFAULT_OPTIONS) -> None:
        self._commands: list[events.ConversationCommand] = []
        self._assistant = Assistant(options, self._emit_command)
        self.history = self._assistant.history
        self.turn_taking = TurnTaking(self._assistant, self._emit_command)
        self._threshold = 0.0
        self._due: float | None = None

    @property
    def options(self) -> ConversationOptions:
        """Return the options, which take effect from the next turn on."""
        return self._assistant.options

    @property
    def turn(self) -> int:
        """Return the number of the turn that is answered, or of the next."""
        return self._assistant.number

    @property
    def phase(self) -> ConversationPhase:
        """Return the current phase."""
        user_turn, assistant_turn = self.turn_taking.user_turn, self._assistant.confirmed_turn
        if user_turn is not None and user_turn.announced and user_turn.speaking:
            return ConversationPhase.LISTENING
        if assistant_turn is not None:
            if assistant_turn.sounding:
                return ConversationPhase.SPEAKING
            if assistant_turn.synthesizing:
                return ConversationPhase.SYNTHESIZING
            return ConversationPhase.GENERATING
        return ConversationPhase.TRANSCRIBING if user_turn is not None else ConversationPhase.IDLE

    @property
    def replying(self) -> int:
        """Return the number of the reply in progress, 0 if there is none."""
        assistant_turn = self._assistant.confirmed_turn
        return 0 if assistant_turn is None else assistant_turn.number

    @property
    def made(self) -> events.ReplyEnding | None:
        """Return how the reply in progress will end, if nothing more comes of it; some of it may
        still have to be played."""
        assistant_turn = self._assistant.confirmed_turn
        return assistant_turn.ending if assistant_turn is not None and assistant_turn.made else None

    def take(self, event: events.ConversationEvent) -> list[events.ConversationCommand]:
        """Return the commands for ``event``, in order."""
        self._fire_due_timers(event.at)
        self.turn_taking.at = max(self.turn_taking.at, event.at)
        self._handle(event)
        self._fire_due_timers(self.turn_taking.at)
        self._emit_changes()
        commands, self._commands = self._commands, []
        return commands

    def _emit_command(self, command: events.ConversationCommand) -> None:
        self._commands.append(command)

    # Events

    def _handle(self, event: events.ConversationEvent) -> None:
        match event:
            case events.UserSpeechStarted():
                self.turn_taking.started(event.utterance, min(event.began, self.turn_taking.at))
            case events.UserSpeechStopped():
                self.turn_taking.stopped(event.utterance, min(event.ended, self.turn_taking.at))
            case events.RecognizedWords():
                self.turn_taking.words(event.utterance, event.text, event.upto)
            case events.EchoSimilarity():
                self.turn_taking.set_echo_similarity(event.utterance, event.likeness)
            case events.StageFailed(stage=events.ConversationStage.RECOGNIZER):
                self.turn_taking.recognizer_failed(event.turn, event.error)
            case events.ReplyEvent():
                self._assistant.report(event, self.turn_taking.at)
                self.turn_taking.continue_turn_if_done()
            case events.TextTyped():
                self._typed(event.text)
            case events.HistoryEntryAdded(call=ToolCall() as call):
                self._recorded(self.history.add_call(0, call, event.after), event.name)
            case events.HistoryEntryAdded():
                self._recorded(self.history.add(event.role, event.text, event.after), event.name)
            case events.ToolResultAdded():
                entry = self.history.add_result(event.call, event.output, event.after)
                self._recorded(entry, event.name)
            case events.HistoryEntryDeleted():
                self.history.delete(event.entry)
            case events.ResponseRequested():
                self._response_requested(event)
            case events.TurnCommitted():
                self.turn_taking.commit()
                self._emit_command(events.CommitAcknowledged())
            case events.UserAudioEnded():
                self.turn_taking.record_spoken()
            case events.TurnDiscarded():
                self.turn_taking.discard()
                self._emit_command(events.DiscardAcknowledged())
            case events.ResponseCancelled():
                self._cancel()
            case events.PlaybackTruncated():
                self._truncated(event.turn, event.seconds)
            case events.ConversationReset():
                self.turn_taking.end_reply(events.ReplyEnding.CANCELLED)
                self.turn_taking.user_turn = None
                self._assistant.clear()
                self._emit_command(events.ConversationStarted())
            case events.OptionsChanged():
                self._assistant.options = event.options

    # Requests of the client

    def _typed(self, text: str) -> None:
        text = text.strip()
        if not text:
            return
        self.turn_taking.end_reply(events.ReplyEnding.INTERRUPTED)
        self.turn_taking.record_spoken()
        entry = self.history.add(ChatRole.USER, text)
        self._emit_command(events.UserTurnFinal(entry.text, entry=entry.number))
        self._assistant.answer_history(self.turn_taking.at)

    def _recorded(self, entry: ChatEntry | None, name: str) -> None:
        if entry is None:
            self._emit_command(events.ConversationError(0, CallUnknown()))
        else:
            self._emit_command(
                events.HistoryEntryRecorded(entry.number, entry.role, entry.text, name)
            )

    def _response_requested(self, requested: events.ResponseRequested) -> None:
        user_turn = self.turn_taking.user_turn
        if user_turn is not None and user_turn.committed:
            user_turn.answer = True
            user_turn.answer_by = requested.options
            user_turn.answer_name = requested.name
            return
        self.turn_taking.end_reply(events.ReplyEnding.INTERRUPTED)
        self._assistant.answer_history(self.turn_taking.at, requested.options, requested.name)

    def _cancel(self) -> None:
        if self._assistant.confirmed_turn is not None:
            self.turn_taking.end_reply(events.ReplyEnding.CANCELLED)
            self.turn_taking.continue_turn()

    def _truncated(self, number: int, seconds: float) -> None:
        assistant_turn = self._assistant.confirmed_turn
        if assistant_turn is not None and assistant_turn.number == number:
            assistant_turn.cut(seconds)
            self._cancel()
        seconds = min(seconds, self.history.made_s(number))
        text = self.history.truncate(number, seconds)
        self._emit_command(events.ReplyTruncated(number, seconds, text or ""))

    # Time

    def _fire_due_timers(self, at: float) -> None:
        """Fire all timers that are due at ``at``, before the event of that time is handled."""
        for _ in range(_MOST_AT_ONCE):
            timer = min(self._timers(), key=lambda timer: timer[0], default=None)
            if timer is None or timer[0] > at:
                return
            self.turn_taking.at = max(self.turn_taking.at, timer[0])
            timer[1]()
        raise AssertionError("a timer does not go off")

    def _timers(self) -> list[tuple[float, Callable[[], None]]]:
        """Return actions that are due at times, if nothing happens before."""
        timers: list[tuple[float, Callable[[], None]]] = []
        if self._assistant.turn is not None:
            timers.append((self._assistant.turn.stalled_at, self._stalled))
        timers += self.turn_taking.timers()
        return [timer for timer in timers if timer[0] < float("inf")]

    def _stalled(self) -> None:
        if self._assistant.stalled(self.turn_taking.at):
            self.turn_taking.continue_turn()

    def _emit_changes(self) -> None:
        """Emit the changes of speech detection and timer that follow from an event."""
        guarded = self._assistant.sounding and self.turn_taking.guarded
        threshold = GUARDED_THRESHOLD if guarded else 0.0
        if threshold != self._threshold:
            self._threshold = threshold
            self._emit_command(events.SetSpeechDetection(threshold))
        due = min((at for at, _ in self._timers()), default=None)
        if due != self._due:
            self._due = due
            self._emit_command(events.SetTimer(due))
