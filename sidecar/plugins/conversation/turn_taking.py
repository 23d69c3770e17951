"""Turn-taking: the user's side of a conversation. Pure."""

from collections.abc import Callable

from sidecar.errors import SidecarError
from sidecar.plugins.conversation import barge_in, conversation_events
from sidecar.plugins.conversation.assistant import Assistant
from sidecar.plugins.conversation.assistant_turn import AssistantTurn
from sidecar.plugins.conversation.chat_completions import ChatRole
from sidecar.plugins.conversation.chat_history import truncate_utf8
from sidecar.plugins.conversation.end_of_turn import MAX_USER_TURN_BYTES, UserTurn, UserUtterance
from sidecar.plugins.conversation.errors import StageSilent


class TurnTaking:
    """The user's current turn, over a reply or not. ``do`` takes the commands in order; the caller
    sets ``at``, the current time."""

    def __init__(
        self, answering: Assistant, do: Callable[[conversation_events.ConversationCommand], None]
    ) -> None:
        self._answering = answering
        self._do = do
        self.at = float("-inf")
        self.person: UserTurn | None = None
        self.guarded = False
        """An echo was detected."""

    @property
    def options(self) -> conversation_events.ConversationOptions:
        """Return the current options."""
        return self._answering.options

    def started(self, utterance: int, began: float) -> None:
        """Handle the start of speech."""
        person = self.person
        if person is not None and person.speaking and person.current == utterance:
            return
        self._answering.discard()
        if person is not None and person.backchannel and utterance != person.current:
            self._end_backchannel(person)
            person = None
        if person is None:
            first, saying = {utterance: UserUtterance(began)}, self._answering.saying(began)
            person = self.person = UserTurn(began, utterance, utterances=first, saying=saying)
        else:
            person.start(utterance, began)
        reply = self._answering.given
        if reply is None:
            self._tell_of(person)
        elif not reply.audible:
            self._hold(person, reply)

    def stopped(self, utterance: int, ended: float) -> None:
        """Handle the end of speech."""
        person, reply = self.person, self._answering.given
        if person is None or not person.speaking or person.current != utterance:
            return
        person.stop(utterance, ended)
        if reply is None:
            self._consider(person)
            return
        person.heard_s = reply.played
        short = person.ended - person.since < self.pause_after
        if short and reply.audible and person.paused_at is None and not person.text:
            self._dismiss(person, reply)
        else:
            person.dismissed = False  # a long utterance that had no words yet may have some
            self._decide(person, reply)

    def words(self, utterance: int, text: str, upto: float) -> None:
        """Set the words of an utterance so far."""
        person = self.person
        if person is None or (one := person.utterances.get(utterance)) is None:
            return
        was_echo = one.echo
        more = person.hear(utterance, truncate_utf8(text, MAX_USER_TURN_BYTES), upto)
        one.echo = barge_in.is_echo(one.text, one.likeness, self._saying(person))
        if more or one.echo != was_echo:
            self._said_more(person)

    def recognizer_failed(self, utterance: int, error: SidecarError) -> None:
        """Handle the failure of the recognizer: no words will come."""
        person = self.person
        if utterance == conversation_events.UNKNOWN_UTTERANCE:
            self._do(conversation_events.ConversationError(0, error))
        elif person is not None:
            person.give_up(utterance, error)
            if person.settled:
                self._said_more(person)

    def _said_more(self, person: UserTurn) -> None:
        if person.settled:
            person.settled_at = self.at
        reply = self._answering.given
        if reply is not None:
            self._decide(person, reply)
            return
        if person.told:
            self._do(conversation_events.UserTurnPartial(person.text))
        elif person.text:
            self._tell_of(person)
        self._consider(person)

    def _tell_of(self, person: UserTurn) -> None:
        """Notify the client of the user's turn, once."""
        if person.told:
            return
        person.told = True
        self._do(conversation_events.UserTurnStarted(person.first, person.began))
        if person.text:
            self._do(conversation_events.UserTurnPartial(person.text))

    def _nothing_said(self, person: UserTurn) -> None:
        if person.told:
            person.told = False
            self._do(conversation_events.UserTurnDropped())

    def _saying(self, person: UserTurn) -> str:
        """Return the text of the assistant that may be heard as an echo: of now, or just before."""
        if self._answering.sounding:
            return f"{person.saying} {self._answering.saying(self.at)}"
        return person.saying

    # While no reply is given: has the turn ended?

    def _consider(self, person: UserTurn) -> None:
        """End the turn if it is time; else start a speculative reply. Do nothing until all words
        are known."""
        if self._answering.given is not None or not person.settled:
            return
        text = person.text
        if self._over_at(person) <= self.at:
            self._over(person)
        elif self.options.answers and self.options.ends_turns:
            self._answering.attempt(text, self.at)

    def _over_at(self, person: UserTurn) -> float:
        if person.committed:
            return person.ended
        if not self.options.ends_turns:
            return float("inf")
        if not person.text:  # noise, or an echo: there is nothing to wait for
            return person.ended
        return person.over_at(self.options.patience)

    def _over(self, person: UserTurn) -> None:
        """End the user's turn: answer it, or drop it if nothing was said."""
        self.person = None
        self.guarded = self.guarded or person.echoed
        text = truncate_utf8(person.text, MAX_USER_TURN_BYTES)
        if not text and person.failure is not None:
            self._tell_of(person)
            self._do(conversation_events.UserTurnStopped(person.ended, person.current))
            self._answering.give_up(person.failure, person.ended, self.at)
            self.leave_if_done()
            return
        if text:
            self._answer(person, text)
            return
        self._answering.discard()
        self._nothing_said(person)
        if person.answer:
            self._answering.give_any(self.at, person.answer_by, person.answer_name)

    def _answer(self, person: UserTurn, text: str) -> None:
        self._tell_of(person)
        self._said(person, text)
        if person.failure is not None:
            self._do(conversation_events.ConversationError(0, person.failure))
        if not (self.options.answers or person.answer):
            self._answering.discard()
            return
        endpoint, recognised = self.at - person.ended, person.recognised_s
        known = conversation_events.ReplyLatency(0, endpoint, recognised, total=person.ended)
        self._answering.give(text, known, self.at, person.answer_by)
        self.leave_if_done()

    def _said(self, person: UserTurn, text: str) -> None:
        """Add the user's turn to the history, and notify the client."""
        self._do(conversation_events.UserTurnStopped(person.ended, person.current))
        entry = self._answering.history.add(ChatRole.USER, text)
        self._do(conversation_events.UserTurnFinal(entry.text, entry=entry.number))

    # While a reply is given: does the user interrupt it?

    @property
    def pause_after(self) -> float:
        """Return the seconds of speech that pause a reply."""
        return barge_in.GUARDED_PAUSE_AFTER_S if self.guarded else barge_in.PAUSE_AFTER_S

    def _hold(self, person: UserTurn, reply: AssistantTurn) -> None:
        """Pause the reply until it is known what the user says."""
        if self.options.interruptible and person.paused_at is None:
            person.paused_at = self.at
            reply.pause()

    def _decide(self, person: UserTurn, reply: AssistantTurn) -> None:
        """Decide by the words so far whether the user interrupts the reply."""
        if person.committed:  # the client has committed the turn
            self._interrupt(person)
            return
        if not self.options.interruptible:
            return
        if barge_in.interrupts_reply(person.text, audible=reply.audible):
            self._interrupt(person)
        elif person.settled:  # else the reply is held until more is known
            self.guarded = self.guarded or person.echoed
            person.backchannel = self.options.ends_turns  # else the client ends the turn
            self._dismiss(person, reply)

    def _interrupt(self, person: UserTurn) -> None:
        """Interrupt the reply: it is the user's turn."""
        self.abandon(conversation_events.ReplyEnding.INTERRUPTED)
        person.dismissed = person.backchannel = False
        self._tell_of(person)
        self._consider(person)

    def _dismiss(self, person: UserTurn, reply: AssistantTurn) -> None:
        """Resume the reply: as far as is known, nothing was said that interrupts it."""
        person.dismissed, person.paused_at = True, None
        if person.failure is not None:  # words may have been lost
            self._do(conversation_events.ConversationError(0, person.failure))
            person.failure = None
        self._nothing_said(person)
        reply.resume(self.at)

    def _end_backchannel(self, person: UserTurn) -> None:
        """End a turn that did not interrupt the reply and is not answered: a backchannel, if it has
        words that are no echo."""
        self.person = None
        text = truncate_utf8(person.text, MAX_USER_TURN_BYTES)
        if text:
            entry = self._answering.history.add(ChatRole.USER, text)
            spoken = person.began, person.ended
            self._do(conversation_events.UserTurnFinal(entry.text, entry.number, spoken))

    def alike(self, utterance: int, likeness: float) -> None:
        """Record how similar an utterance's audio is to what was played: so its words count or are
        an echo. An echo without words does not hold the reply."""
        person = self.person
        if person is None or (one := person.utterances.get(utterance)) is None:
            return
        one.likeness, was_echo = likeness, one.echo
        one.echo = barge_in.is_echo(one.text, likeness, self._saying(person))
        if one.echo != was_echo:
            self._said_more(person)
        if self.person is not person or likeness < barge_in.ECHO_SIMILARITY or person.text:
            return
        reply = self._answering.given
        self.guarded = True
        if reply is not None and not person.dismissed:
            self._dismiss(person, reply)

    def leave_if_done(self) -> None:
        """If the reply has ended, go on with the user's turn."""
        if self._answering.finish(self.at):
            self.leave()

    def leave(self) -> None:
        """Handle the end of a reply: words over its end answer it. A turn whose words are not known
        yet goes on."""
        person = self.person
        if person is None:
            return
        left_s = self._answering.last_made_s - person.heard_s
        answers = person.text and left_s <= barge_in.ANSWERS_WITHIN_S
        if person.backchannel and not answers:
            self._end_backchannel(person)
            return
        noticed = not person.dismissed  # else it may be noise: it is reported once it has words
        person.dismissed, person.backchannel, person.paused_at = False, False, None
        if noticed:
            self._tell_of(person)
        self._consider(person)

    def abandon(self, ending: conversation_events.ReplyEnding) -> None:
        """End the reply, without deciding whose turn is next."""
        if self.person is not None:
            self.person.paused_at = None
        self._answering.abandon(ending, self.at)

    # Requests of the client

    def bank(self) -> None:
        """Add spoken words that are not answered yet to the history, before a typed turn."""
        person = self.person
        if person is None or not person.settled:
            return
        if person.backchannel:
            self._end_backchannel(person)
            return
        self.person = None
        if person.failure is not None:
            self._do(conversation_events.ConversationError(0, person.failure))
        if person.text:
            self._tell_of(person)
            self._said(person, truncate_utf8(person.text, MAX_USER_TURN_BYTES))
        else:
            self._nothing_said(person)

    def commit(self) -> None:
        """End the user's turn at the client's request."""
        person, reply = self.person, self._answering.given
        if person is None:
            return
        if person.speaking:
            person.stop(person.current, self.at)
        person.committed = True
        if reply is not None:
            self._decide(person, reply)
        else:
            self._consider(person)

    def forget(self) -> None:
        """Discard the user's words that are not answered."""
        person, reply = self.person, self._answering.given
        if person is None:
            return
        self.person = None
        if reply is not None:
            reply.resume(self.at)
        self._answering.discard()
        self._nothing_said(person)

    # Time

    def timers(self) -> list[tuple[float, Callable[[], None]]]:
        """Return the actions that are due at a time if nothing happens before."""
        person, reply = self.person, self._answering.given
        if person is None:
            return []
        found: list[tuple[float, Callable[[], None]]] = []
        if reply is None or not person.dismissed:
            found = [(at, lambda: self._words_late(person)) for at, _ in person.late()]
        if reply is None:
            if person.settled:
                found.append((self._over_at(person), lambda: self._consider(person)))
        elif self.options.interruptible and not person.dismissed:
            if person.paused_at is not None:
                quiet = float("inf") if person.speaking else max(person.ended, person.paused_at)
                longest = person.paused_at + barge_in.MAX_HOLD_S
                at = min(quiet + barge_in.RESUME_AFTER_S, longest)
                found.append((at, lambda: self._dismiss(person, reply)))
            elif person.speaking:
                at = person.since + self.pause_after
                found.append((at, lambda: self._hold(person, reply)))
        return found

    def _words_late(self, person: UserTurn) -> None:
        for at, number in person.late():
            if at <= self.at and self.person is person:
                self.recognizer_failed(number, StageSilent())
