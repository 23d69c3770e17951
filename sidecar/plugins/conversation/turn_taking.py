"""Turn-taking: the user's side of a conversation. Pure."""

from collections.abc import Callable

from sidecar.errors import SidecarError, UtteranceDropped
from sidecar.plugins.conversation import barge_in
from sidecar.plugins.conversation import conversation_events as events
from sidecar.plugins.conversation.assistant import Assistant
from sidecar.plugins.conversation.assistant_turn import AssistantTurn
from sidecar.plugins.conversation.chat_completions import ChatRole
from sidecar.plugins.conversation.chat_history import truncate_utf8
from sidecar.plugins.conversation.end_of_turn import MAX_USER_TURN_BYTES, UserTurn, UserUtterance
from sidecar.plugins.conversation.errors import StageSilent


class TurnTaking:
    """The user's current turn, over a reply or not. ``emit_command`` takes the commands in order;
    the caller sets ``at``, the current time."""

    def __init__(
        self, assistant: Assistant, emit_command: Callable[[events.ConversationCommand], None]
    ) -> None:
        self._assistant = assistant
        self._emit_command = emit_command
        self.at = float("-inf")
        self.user_turn: UserTurn | None = None
        self.guarded = False
        """An echo was detected."""

    @property
    def options(self) -> events.ConversationOptions:
        """Return the current options."""
        return self._assistant.options

    def started(self, utterance: int, began: float) -> None:
        """Handle the start of speech."""
        user_turn = self.user_turn
        if user_turn is not None and user_turn.speaking and user_turn.current == utterance:
            return
        self._assistant.discard_speculative()
        if user_turn is not None and user_turn.backchannel and utterance != user_turn.current:
            self._end_backchannel(user_turn)
            user_turn = None
        if user_turn is None:
            user_turn = self.user_turn = UserTurn(
                began,
                utterance,
                utterances={utterance: UserUtterance(began)},
                echoable_text=self._assistant.echoable_text(began),
            )
        else:
            user_turn.start(utterance, began)
        assistant_turn = self._assistant.confirmed_turn
        if assistant_turn is None:
            self._emit_started(user_turn)
        elif not assistant_turn.audible:
            self._pause(user_turn, assistant_turn)

    def stopped(self, utterance: int, ended: float) -> None:
        """Handle the end of speech."""
        user_turn, assistant_turn = self.user_turn, self._assistant.confirmed_turn
        if user_turn is None or not user_turn.speaking or user_turn.current != utterance:
            return
        user_turn.stop(utterance, ended)
        if assistant_turn is None:
            self._end_turn_if_due(user_turn)
            return
        user_turn.heard_s = assistant_turn.played
        short = user_turn.ended - user_turn.since < self.pause_after
        if short and assistant_turn.audible and user_turn.paused_at is None and not user_turn.text:
            self._dismiss(user_turn, assistant_turn)
        else:
            user_turn.dismissed = False  # a long utterance that had no words yet may have some
            self._decide_interruption(user_turn, assistant_turn)

    def words(self, utterance: int, text: str, upto: float) -> None:
        """Set the words of an utterance so far."""
        user_turn = self.user_turn
        if user_turn is None or (one := user_turn.utterances.get(utterance)) is None:
            return
        was_echo = one.echo
        more = user_turn.hear(utterance, truncate_utf8(text, MAX_USER_TURN_BYTES), upto)
        one.echo = barge_in.is_echo(one.text, one.likeness, self._echoable_text(user_turn))
        if more or one.echo != was_echo:
            self._handle_words(user_turn)

    def recognizer_failed(self, utterance: int, error: SidecarError) -> None:
        """Handle the failure of the recognizer: no words will come."""
        user_turn = self.user_turn
        if utterance == events.UNKNOWN_UTTERANCE:
            self._emit_command(events.ConversationError(0, error))
        elif user_turn is not None:
            user_turn.give_up(utterance, error)
            if user_turn.settled:
                self._handle_words(user_turn)

    def _handle_words(self, user_turn: UserTurn) -> None:
        if user_turn.settled:
            user_turn.settled_at = self.at
        assistant_turn = self._assistant.confirmed_turn
        if assistant_turn is not None:
            self._decide_interruption(user_turn, assistant_turn)
            return
        if user_turn.announced:
            self._emit_command(events.UserTurnPartial(user_turn.text))
        elif user_turn.text:
            self._emit_started(user_turn)
        self._end_turn_if_due(user_turn)

    def _emit_started(self, user_turn: UserTurn) -> None:
        """Notify the client of the user's turn, once."""
        if user_turn.announced:
            return
        user_turn.announced = True
        self._emit_command(events.UserTurnStarted(user_turn.first, user_turn.began))
        if user_turn.text:
            self._emit_command(events.UserTurnPartial(user_turn.text))

    def _emit_dropped(self, user_turn: UserTurn) -> None:
        if user_turn.announced:
            user_turn.announced = False
            self._emit_command(events.UserTurnDropped())

    def _echoable_text(self, user_turn: UserTurn) -> str:
        """Return the text of the assistant that may be heard as an echo: of now, or just before."""
        if self._assistant.sounding:
            return f"{user_turn.echoable_text} {self._assistant.echoable_text(self.at)}"
        return user_turn.echoable_text

    # While no reply is given: has the turn ended?

    def _end_turn_if_due(self, user_turn: UserTurn) -> None:
        """End the turn if it is time; else start a speculative reply. Do nothing until all words
        are known."""
        if self._assistant.confirmed_turn is not None or not user_turn.settled:
            return
        if self._over_at(user_turn) <= self.at:
            self._end_turn(user_turn)
        elif self.options.answers and self.options.ends_turns:
            self._assistant.speculate(user_turn.text, self.at)

    def _over_at(self, user_turn: UserTurn) -> float:
        if user_turn.committed:
            return user_turn.ended
        if not self.options.ends_turns:
            return float("inf")
        if not user_turn.text:  # noise, or an echo: there is nothing to wait for
            return user_turn.ended
        return user_turn.over_at(self.options.delays)

    def _end_turn(self, user_turn: UserTurn) -> None:
        """End the user's turn: answer it, or drop it if nothing was said."""
        self.user_turn = None
        self.guarded = self.guarded or user_turn.echoed
        text = truncate_utf8(user_turn.text, MAX_USER_TURN_BYTES)
        if not text and user_turn.failure is not None:
            self._end_failed_turn(user_turn, user_turn.failure)
            return
        if text:
            self._answer(user_turn, text)
            return
        self._assistant.discard_speculative()
        self._emit_dropped(user_turn)
        if user_turn.answer:
            self._assistant.answer_history(self.at, user_turn.answer_by, user_turn.answer_name)

    def _end_failed_turn(self, user_turn: UserTurn, failure: SidecarError) -> None:
        """Report the failure of a turn without words: in its reply, if one was to come."""
        self._emit_started(user_turn)
        self._emit_command(events.UserTurnStopped(user_turn.ended, user_turn.current, failure))
        if self.options.answers or user_turn.answer:
            self._assistant.answer_error(failure, user_turn.ended, self.at)
            self.continue_turn_if_done()
            return
        self._assistant.discard_speculative()
        self._emit_command(events.ConversationError(0, failure))
        self._emit_dropped(user_turn)

    def _answer(self, user_turn: UserTurn, text: str) -> None:
        self._emit_started(user_turn)
        self._record(user_turn, text)
        if user_turn.failure is not None:
            self._emit_command(events.ConversationError(0, user_turn.failure))
        if not (self.options.answers or user_turn.answer):
            self._assistant.discard_speculative()
            return
        endpoint, recognized = self.at - user_turn.ended, user_turn.recognized_s
        latency = events.ReplyLatency(0, endpoint, recognized, total=user_turn.ended)
        self._assistant.answer(text, latency, self.at, user_turn.answer_by)
        self.continue_turn_if_done()

    def _record(self, user_turn: UserTurn, text: str) -> None:
        """Add the user's turn to the history, and notify the client."""
        self._emit_command(events.UserTurnStopped(user_turn.ended, user_turn.current))
        entry = self._assistant.history.add(ChatRole.USER, text)
        self._emit_command(events.UserTurnFinal(entry.text, entry=entry.number))

    # While a reply is given: does the user interrupt it?

    @property
    def pause_after(self) -> float:
        """Return the seconds of speech that pause a reply."""
        return barge_in.GUARDED_PAUSE_AFTER_S if self.guarded else barge_in.PAUSE_AFTER_S

    def _pause(self, user_turn: UserTurn, assistant_turn: AssistantTurn) -> None:
        """Pause the reply until it is known what the user says."""
        if self.options.interruptible and user_turn.paused_at is None:
            user_turn.paused_at = self.at
            assistant_turn.pause()

    def _decide_interruption(self, user_turn: UserTurn, assistant_turn: AssistantTurn) -> None:
        """Decide by the words so far whether the user interrupts the reply."""
        if user_turn.committed:  # the client has committed the turn
            self._interrupt(user_turn)
            return
        if not self.options.interruptible:
            return
        if barge_in.interrupts_reply(user_turn.text, audible=assistant_turn.audible):
            self._interrupt(user_turn)
        elif user_turn.settled:  # else the reply is held until more is known
            self.guarded = self.guarded or user_turn.echoed
            user_turn.backchannel = self.options.ends_turns  # else the client ends the turn
            self._dismiss(user_turn, assistant_turn)

    def _interrupt(self, user_turn: UserTurn) -> None:
        """Interrupt the reply: it is the user's turn."""
        self.end_reply(events.ReplyEnding.INTERRUPTED)
        user_turn.dismissed = user_turn.backchannel = False
        self._emit_started(user_turn)
        self._end_turn_if_due(user_turn)

    def _dismiss(self, user_turn: UserTurn, assistant_turn: AssistantTurn) -> None:
        """Resume the reply: as far as is known, nothing was said that interrupts it."""
        user_turn.dismissed, user_turn.paused_at = True, None
        failure, user_turn.failure = user_turn.failure, None
        # Words may have been lost. Under load any noise is dropped, of which a notice has told.
        noise = isinstance(failure, UtteranceDropped) and not user_turn.announced
        if failure is not None and not noise:
            self._emit_command(events.ConversationError(0, failure))
        self._emit_dropped(user_turn)
        assistant_turn.resume(self.at)

    def _end_backchannel(self, user_turn: UserTurn) -> None:
        """End a turn that did not interrupt the reply and is not answered: a backchannel, if it has
        words that are no echo."""
        self.user_turn = None
        text = truncate_utf8(user_turn.text, MAX_USER_TURN_BYTES)
        if text:
            entry = self._assistant.history.add(ChatRole.USER, text)
            spoken = user_turn.began, user_turn.ended
            self._emit_command(events.UserTurnFinal(entry.text, entry.number, spoken))

    def set_echo_similarity(self, utterance: int, likeness: float) -> None:
        """Record how similar an utterance's audio is to what was played: so its words count or are
        an echo. An echo without words does not hold the reply."""
        user_turn = self.user_turn
        if user_turn is None or (one := user_turn.utterances.get(utterance)) is None:
            return
        one.likeness, was_echo = likeness, one.echo
        one.echo = barge_in.is_echo(one.text, likeness, self._echoable_text(user_turn))
        if one.echo != was_echo:
            self._handle_words(user_turn)
        if self.user_turn is not user_turn or likeness < barge_in.ECHO_SIMILARITY or user_turn.text:
            return
        assistant_turn = self._assistant.confirmed_turn
        self.guarded = True
        if assistant_turn is not None and not user_turn.dismissed:
            self._dismiss(user_turn, assistant_turn)

    def continue_turn_if_done(self) -> None:
        """If the reply has ended, go on with the user's turn."""
        if self._assistant.finish(self.at):
            self.continue_turn()

    def continue_turn(self) -> None:
        """Handle the end of a reply: words over its end answer it. A turn whose words are not known
        yet goes on."""
        user_turn = self.user_turn
        if user_turn is None:
            return
        left_s = self._assistant.last_made_s - user_turn.heard_s
        answers = user_turn.text and left_s <= barge_in.ANSWERS_WITHIN_S
        if user_turn.backchannel and not answers:
            self._end_backchannel(user_turn)
            return
        reported = not user_turn.dismissed  # else it may be noise: it is reported once it has words
        user_turn.dismissed, user_turn.backchannel, user_turn.paused_at = False, False, None
        if reported:
            self._emit_started(user_turn)
        self._end_turn_if_due(user_turn)

    def end_reply(self, ending: events.ReplyEnding) -> None:
        """End the reply, without deciding whose turn is next."""
        if self.user_turn is not None:
            self.user_turn.paused_at = None
        self._assistant.end_reply(ending, self.at)

    # Requests of the client

    def record_spoken(self) -> None:
        """Add spoken words that are not answered yet to the history, before a typed turn or at the
        end."""
        user_turn = self.user_turn
        if user_turn is None or not user_turn.settled:
            return
        if user_turn.backchannel:
            self._end_backchannel(user_turn)
            return
        self.user_turn = None
        if user_turn.failure is not None:
            self._emit_command(events.ConversationError(0, user_turn.failure))
        if user_turn.text:
            self._emit_started(user_turn)
            self._record(user_turn, truncate_utf8(user_turn.text, MAX_USER_TURN_BYTES))
        else:
            self._emit_dropped(user_turn)

    def commit(self) -> None:
        """End the user's turn at the client's request."""
        user_turn, assistant_turn = self.user_turn, self._assistant.confirmed_turn
        if user_turn is None:
            return
        if user_turn.speaking:
            user_turn.stop(user_turn.current, self.at)
        user_turn.committed = True
        if assistant_turn is not None:
            self._decide_interruption(user_turn, assistant_turn)
        else:
            self._end_turn_if_due(user_turn)

    def discard(self) -> None:
        """Discard the user's words that are not answered."""
        user_turn, assistant_turn = self.user_turn, self._assistant.confirmed_turn
        if user_turn is None:
            return
        self.user_turn = None
        if assistant_turn is not None:
            assistant_turn.resume(self.at)
        self._assistant.discard_speculative()
        self._emit_dropped(user_turn)

    # Time

    def timers(self) -> list[tuple[float, Callable[[], None]]]:
        """Return the actions that are due at a time if nothing happens before."""
        user_turn, assistant_turn = self.user_turn, self._assistant.confirmed_turn
        if user_turn is None:
            return []
        timers: list[tuple[float, Callable[[], None]]] = []
        if assistant_turn is None or not user_turn.dismissed:
            timers = [
                (at, lambda: self._handle_late_words(user_turn)) for at, _ in user_turn.late()
            ]
        if assistant_turn is None:
            if user_turn.settled:
                timers.append((self._over_at(user_turn), lambda: self._end_turn_if_due(user_turn)))
        elif self.options.interruptible and not user_turn.dismissed:
            if user_turn.paused_at is not None:
                at = user_turn.paused_at + barge_in.MAX_HOLD_S
                if not user_turn.speaking:
                    silent_since = max(user_turn.ended, user_turn.paused_at)
                    at = min(at, silent_since + barge_in.RESUME_AFTER_S)
                timers.append((at, lambda: self._dismiss(user_turn, assistant_turn)))
            elif user_turn.speaking:
                at = user_turn.since + self.pause_after
                timers.append((at, lambda: self._pause(user_turn, assistant_turn)))
        return timers

    def _handle_late_words(self, user_turn: UserTurn) -> None:
        for at, number in user_turn.late():
            if at <= self.at and self.user_turn is user_turn:
                self.recognizer_failed(number, StageSilent())
