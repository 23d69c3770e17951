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
        self._answering = Assistant(options, self._do)
        self.history = self._answering.history
        self.turn_taking = TurnTaking(self._answering, self._do)
        self._threshold = 0.0
        self._due: float | None = None

    @property
    def options(self) -> ConversationOptions:
        """Return the options, which take effect from the next turn on."""
        return self._answering.options

    @property
    def turn(self) -> int:
        """Return the number of the turn that is answered, or of the next."""
        return self._answering.number

    @property
    def phase(self) -> ConversationPhase:
        """Return the current phase."""
        person, reply = self.turn_taking.person, self._answering.given
        if person is not None and person.told and person.speaking:
            return ConversationPhase.LISTENING
        if reply is not None:
            if reply.sounding:
                return ConversationPhase.SPEAKING
            return ConversationPhase.SYNTHESIZING if reply.saying else ConversationPhase.GENERATING
        return ConversationPhase.TRANSCRIBING if person is not None else ConversationPhase.IDLE

    @property
    def replying(self) -> int:
        """Return the number of the reply in progress, 0 if there is none."""
        return self._answering.given.number if self._answering.given is not None else 0

    @property
    def made(self) -> events.ReplyEnding | None:
        """Return how the reply in progress will end, if nothing more comes of it; some of it may
        still have to be played."""
        reply = self._answering.given
        return reply.ending if reply is not None and reply.made else None

    def take(self, event: events.ConversationEvent) -> list[events.ConversationCommand]:
        """Return the commands for ``event``, in order."""
        self._late_first(event.at)
        self.turn_taking.at = max(self.turn_taking.at, event.at)
        self._happened(event)
        self._late_first(self.turn_taking.at)
        self._settle_up()
        commands, self._commands = self._commands, []
        return commands

    def _do(self, command: events.ConversationCommand) -> None:
        self._commands.append(command)

    # Events

    def _happened(self, event: events.ConversationEvent) -> None:
        match event:
            case events.UserSpeechStarted():
                self.turn_taking.started(event.utterance, min(event.began, self.turn_taking.at))
            case events.UserSpeechStopped():
                self.turn_taking.stopped(event.utterance, min(event.ended, self.turn_taking.at))
            case events.RecognizedWords():
                self.turn_taking.words(event.utterance, event.text, event.upto)
            case events.EchoSimilarity():
                self.turn_taking.alike(event.utterance, event.likeness)
            case events.StageFailed(stage=events.ConversationStage.RECOGNISER):
                self.turn_taking.recognizer_failed(event.turn, event.error)
            case events.ReplyEvent():
                self._answering.report(event, self.turn_taking.at)
                self.turn_taking.leave_if_done()
            case events.TextTyped():
                self._typed(event.text)
            case events.HistoryEntryAdded(call=ToolCall() as call):
                self._recorded(self.history.called(0, call, event.after), event.name)
            case events.HistoryEntryAdded():
                self._recorded(self.history.add(event.role, event.text, event.after), event.name)
            case events.ToolResultAdded():
                entry = self.history.returned(event.call, event.output, event.after)
                self._recorded(entry, event.name)
            case events.HistoryEntryDeleted():
                self.history.drop(event.entry)
            case events.ResponseRequested():
                self._asked(event)
            case events.TurnCommitted():
                self.turn_taking.commit()
                self._do(events.CommitAcknowledged())
            case events.TurnDiscarded():
                self.turn_taking.forget()
                self._do(events.DiscardAcknowledged())
            case events.ResponseCancelled():
                self._cancel()
            case events.PlaybackTruncated():
                self._truncated(event.turn, event.seconds)
            case events.ConversationReset():
                self.turn_taking.abandon(events.ReplyEnding.CANCELLED)
                self.turn_taking.person = None
                self._answering.forget()
                self._do(events.ConversationStarted())
            case events.OptionsChanged():
                self._answering.options = event.options

    # Requests of the client

    def _typed(self, text: str) -> None:
        text = text.strip()
        if not text:
            return
        self.turn_taking.abandon(events.ReplyEnding.INTERRUPTED)
        self.turn_taking.bank()
        entry = self.history.add(ChatRole.USER, text)
        self._do(events.UserTurnFinal(entry.text, entry=entry.number))
        self._answering.give_any(self.turn_taking.at)

    def _recorded(self, entry: ChatEntry | None, name: str) -> None:
        if entry is None:
            self._do(events.ConversationError(0, CallUnknown()))
        else:
            self._do(events.HistoryEntryRecorded(entry.number, entry.role, entry.text, name))

    def _asked(self, asked: events.ResponseRequested) -> None:
        person = self.turn_taking.person
        if person is not None and person.committed:
            person.answer, person.answer_by, person.answer_name = True, asked.options, asked.name
            return
        self.turn_taking.abandon(events.ReplyEnding.INTERRUPTED)
        self._answering.give_any(self.turn_taking.at, asked.options, asked.name)

    def _cancel(self) -> None:
        if self._answering.given is not None:
            self.turn_taking.abandon(events.ReplyEnding.CANCELLED)
            self.turn_taking.leave()

    def _truncated(self, number: int, seconds: float) -> None:
        reply = self._answering.given
        if reply is not None and reply.number == number:
            reply.cut(seconds)
            self._cancel()
        seconds = min(seconds, self.history.made_s(number))
        text = self.history.truncate(number, seconds)
        self._do(events.ReplyTruncated(number, seconds, text or ""))

    # Time

    def _late_first(self, at: float) -> None:
        """Fire all timers that are due at ``at``, before the event of that time is handled."""
        for _ in range(_MOST_AT_ONCE):
            timer = min(self._timers(), key=lambda one: one[0], default=None)
            if timer is None or timer[0] > at:
                return
            self.turn_taking.at = max(self.turn_taking.at, timer[0])
            timer[1]()
        raise AssertionError("a timer does not go off")

    def _timers(self) -> list[tuple[float, Callable[[], None]]]:
        """Return actions that are due at times, if nothing happens before."""
        found: list[tuple[float, Callable[[], None]]] = []
        if self._answering.turn is not None:
            found.append((self._answering.turn.stalled_at, self._stalled))
        found += self.turn_taking.timers()
        return [timer for timer in found if timer[0] < float("inf")]

    def _stalled(self) -> None:
        if self._answering.stalled(self.turn_taking.at):
            self.turn_taking.leave()

    def _settle_up(self) -> None:
        """Emit the changes of speech detection and timer that follow from an event."""
        guarded = self._answering.sounding and self.turn_taking.guarded
        threshold = GUARDED_THRESHOLD if guarded else 0.0
        if threshold != self._threshold:
            self._threshold = threshold
            self._do(events.SetSpeechDetection(threshold))
        due = min((at for at, _ in self._timers()), default=None)
        if due != self._due:
            self._due = due
            self._do(events.SetTimer(due))
