"""A conversation at a table: a machine, an LLM and a TTS engine that do what they are told when
they are let, and an ear that writes down what it hears."""

from collections.abc import Iterable
from typing import TypeVar

from sidecar import errors
from sidecar.interfaces.engine_interface import SynthesizedAudio, WordMark
from sidecar.plugins.conversation import conversation_events
from sidecar.plugins.conversation import conversation_events as events
from sidecar.plugins.conversation.chat_completions import ChatMessage
from sidecar.plugins.conversation.state_machine import ConversationStateMachine

CLIENT_EVENTS = conversation_events.ConversationClientEvent
T = TypeVar("T")
RATE = 1000
BROKEN = errors.EngineFailed("It broke.")
WORD_S = 0.3
"""Every word of the made-up voice takes as long."""


def marks(text: str) -> tuple[WordMark, ...]:
    """Where each word of ``text`` is heard."""
    found, at = [], 0
    for number, word in enumerate(text.split()):
        at = text.index(word, at)
        found.append(WordMark(at, number * WORD_S))
        at += len(word)
    return tuple(found)


def silence(seconds: float, given: tuple[WordMark, ...] = ()) -> SynthesizedAudio:
    """A sound of that length."""
    return SynthesizedAudio(bytes(2 * round(seconds * RATE)), RATE, given)


def voiced(text: str) -> list[SynthesizedAudio]:
    """``text`` as the made-up voice says it: a word, then the rest."""
    words = text.split()
    first = silence(WORD_S, marks(text))
    return [first, silence(WORD_S * (len(words) - 1))] if len(words) > 1 else [first]


class Table:
    """A machine and a record of all it wanted. Times are the caller's."""

    def __init__(self, options: events.ConversationOptions | None = None) -> None:
        self.talk = ConversationStateMachine(options or events.ConversationOptions())
        self.now = 0.0
        self.all: list[events.ConversationCommand] = []
        self.last: list[events.ConversationCommand] = []
        self.utterance = 0
        self.due: float | None = None

    def take(self, event: events.ConversationEvent) -> list[events.ConversationCommand]:
        self.now = max(self.now, event.at)
        self.last = self.talk.take(event)
        self.all += self.last
        for command in self.last:
            if isinstance(command, conversation_events.SetTimer):
                self.due = command.at
        return self.last

    def until(self, at: float) -> list[events.ConversationCommand]:
        """Nothing happens until then; what is wanted meanwhile."""
        found: list[events.ConversationCommand] = []
        while self.due is not None and self.due <= at:
            found += self.take(events.TimerFired(max(self.now, self.due)))
        self.now = at
        return found + self.take(events.TimerFired(at))

    # What people do

    def starts(self, began: float | None = None) -> list[events.ConversationCommand]:
        self.utterance += 1
        return self.goes_on(began)

    def goes_on(self, began: float | None = None) -> list[events.ConversationCommand]:
        return self.take(
            events.UserSpeechStarted(self.now, self.utterance, self.now if began is None else began)
        )

    def begins(self, seconds: float) -> None:
        """Somebody begins to speak, and has for so long."""
        self.starts()
        self.until(self.now + seconds)

    def stops(self) -> list[events.ConversationCommand]:
        return self.take(events.UserSpeechStopped(self.now, self.utterance, self.now))

    def words(self, text: str, upto: float | None = None) -> list[events.ConversationCommand]:
        upto = self.now if upto is None else upto
        return self.take(events.RecognizedWords(self.now, self.utterance, text, upto))

    def ends(self, text: str) -> list[events.ConversationCommand]:
        """Somebody stops, and the words are recognized at once."""
        self.stops()
        return self.words(text)

    def sounds(self, likeness: float) -> list[events.ConversationCommand]:
        """So like what was played is what is said."""
        return self.take(events.EchoSimilarity(self.now, self.utterance, likeness))

    def utters(
        self, text: str | None, seconds: float = 1.0, likeness: float | None = None
    ) -> list[events.ConversationCommand]:
        """Somebody speaks so long; the words, if any, are recognized at once."""
        self.begins(seconds)
        found = self.stops()
        if likeness is not None:
            self.sounds(likeness)
        return found if text is None else self.words(text)

    def says(self, text: str, seconds: float = 1.0, likeness: float = 0.0) -> None:
        """All of a turn, until it is certainly over."""
        self.utters(text, seconds, likeness)
        self.until(self.now + 1.6)

    # What clients do

    def types(self, text: str) -> list[events.ConversationCommand]:
        return self.take(events.TextTyped(self.now, text))

    def commits(self) -> list[events.ConversationCommand]:
        return self.take(events.TurnCommitted(self.now))

    def asks(
        self, options: events.ConversationOptions | None = None
    ) -> list[events.ConversationCommand]:
        return self.take(events.ResponseRequested(self.now, options))

    def cancels(self) -> list[events.ConversationCommand]:
        return self.take(events.ResponseCancelled(self.now))

    def cuts(self, seconds: float, turn: int = 1) -> list[events.ConversationCommand]:
        """So much of a reply was heard, and no more will be."""
        return self.take(events.PlaybackTruncated(self.now, turn, seconds))

    # What stages do

    def thinks(self, text: str, *, ended: bool = True) -> list[events.ConversationCommand]:
        turn = self.talk.turn
        found = self.take(events.LlmToken(self.now, turn, text))
        if ended:
            found = found + self.take(
                events.StageEnded(self.now, turn, events.ConversationStage.LLM)
            )
        return found

    def voices(self, *, ended: bool = True) -> None:
        """All that is to be said is, at once, however much follows."""
        turn, done = self.talk.turn, set[int]()
        while True:
            todo = [
                one
                for one in self.of(conversation_events.SynthesizeText)
                if one.turn == turn and one.phrase not in done
            ]
            if not todo:
                return
            say = todo[0]
            done.add(say.phrase)
            for sound in voiced(say.text):
                self.take(events.TtsAudio(self.now, turn, say.phrase, sound))
            if ended:
                self.take(
                    events.StageEnded(self.now, turn, events.ConversationStage.TTS, say.phrase)
                )

    def plays(self, seconds: float) -> list[events.ConversationCommand]:
        return self.take(events.PlaybackReported(self.now, self.talk.turn, seconds))

    def replies(self, text: str) -> None:
        """A reply that is thought and said, and not heard yet."""
        self.thinks(text)
        self.voices()

    def fails(
        self, stage: events.ConversationStage, number: int = 1
    ) -> list[events.ConversationCommand]:
        """A stage does, in that turn or utterance."""
        return self.take(events.StageFailed(self.now, number, stage, BROKEN))

    # What came of it

    @property
    def asked(self) -> tuple[ChatMessage, ...]:
        """What the LLM was given last."""
        return self.of(events.GenerateReply)[-1].messages

    def of(
        self,
        kind: type[T] | tuple[type[T], ...],
        commands: Iterable[events.ConversationCommand] | None = None,
    ) -> list[T]:
        return [
            one for one in (self.all if commands is None else commands) if isinstance(one, kind)
        ]

    def told(
        self, kind: type[T], commands: Iterable[events.ConversationCommand] | None = None
    ) -> list[T]:
        tells = self.of(CLIENT_EVENTS, commands)
        return [one for one in tells if isinstance(one, kind)]

    @property
    def endings(self) -> list[events.ReplyEnding]:
        return [one.ending for one in self.told(events.ReplyEnded)]

    @property
    def errors(self) -> list[type[Exception]]:
        return [type(one.error) for one in self.told(events.ConversationError)]

    @property
    def spoken(self) -> list[str]:
        """What the voice was given."""
        return [one.text for one in self.of(events.SynthesizeText)]

    @property
    def history(self) -> list[tuple[str, str]]:
        return [(entry.role.value, entry.text) for entry in self.talk.history.entries]

    @property
    def phase(self) -> conversation_events.ConversationPhase:
        return self.talk.phase
