"""Made-up conversations, thousands of them: whatever happens in whichever order, nothing of an old
turn is heard, what stands in the history is what an ear heard, every turn ends, and every utterance
with words is accounted for: a turn, a backchannel, or an echo by its sound."""

import random
import re
from dataclasses import dataclass, field

import pytest
from conversation_simulator import silence
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.errors import EngineFailed
from sidecar.interfaces.engine_interface import WordMark
from sidecar.interfaces.tts_text import normalized_words
from sidecar.plugins.conversation import conversation_events as events
from sidecar.plugins.conversation.barge_in import ECHO_SIMILARITY
from sidecar.plugins.conversation.chat_completions import ChatRole, ToolCallDelta
from sidecar.plugins.conversation.end_of_turn import RECOGNIZER_TIMEOUT_S
from sidecar.plugins.conversation.state_machine import ConversationStateMachine

WORD_S = 0.3
BROKEN = EngineFailed("It broke.")
SAID = ["", "stop it", "mm-hm", "yes", "what now?", "and", "um", "No.", "tell me more", "10 11"]


TYPED = "typed text"


@dataclass
class Ear:
    """Who hears one turn, and how far."""

    words: list[tuple[str, float]] = field(default_factory=list)
    made: float = 0.0
    at: float = 0.0

    def heard(self, until: float | None = None) -> list[str]:
        until = self.at if until is None else until
        return [word for word, start in self.words if start + WORD_S / 2 <= until + 0.005]


class World:
    """All that is around a machine. Its stages may be as slow to stop as they like."""

    def __init__(self, options: events.ConversationOptions) -> None:
        self.talk = ConversationStateMachine(options)
        self.options = options
        self.now = 0.0
        self.due: float | None = None
        self.utterance = 0
        self.speaking = False
        self.scripts: dict[int, list[str]] = {}
        self.asked: dict[int, str] = {}
        """What was said last of what a thinker was given."""
        self.thought: dict[int, int] = {}
        self.says: list[events.SynthesizeText] = []
        self.voiced: dict[tuple[int, int], int] = {}
        self.ears: dict[int, Ear] = {}
        self.playing: int | None = None
        self.paused = False
        self.hushed: set[int] = set()
        self.stopped: set[tuple[int, events.ConversationStage]] = set()
        self.over: set[int] = set()
        self.begun: set[int] = set()
        self.failed: set[int] = set()
        self.odd: set[int] = set()
        """Turns without a voice, or with words that are no thinker's."""
        self.ended: dict[int, events.ReplyEnded] = {}
        self.told: list[object] = []
        self.calls: dict[str, int] = {}
        """Calls that are to be carried out, by their turns."""
        self.stopped_at: dict[int, float] = {}
        self.words_of: dict[int, tuple[str, float]] = {}
        self.final: dict[int, str] = {}
        """What utterances said, once that is certain."""
        self.sounds: dict[int, float] = {}
        """How like what was played then they sound."""
        self.excused: set[int] = set()
        """Utterances that the client did not want, or that a recognizer failed at."""

    # What it does for the machine

    def take(self, event: events.ConversationEvent) -> None:
        commands = self.talk.take(event)
        for at, command in enumerate(commands):
            self.obey(command, commands[at + 1 :])

    def obey(
        self, command: events.ConversationCommand, rest: list[events.ConversationCommand]
    ) -> None:
        match command:
            case events.GenerateReply(turn=turn, messages=messages):
                assert messages
                assert turn > max(self.scripts, default=0)
                self.scripts[turn] = []
                self.asked[turn] = messages[-1].text
                self.thought[turn] = 0
            case events.SynthesizeText(turn=turn):
                assert turn not in self.hushed | self.over
                assert (turn, events.ConversationStage.TTS) not in self.stopped
                earlier = [one.phrase for one in self.says if one.turn == turn]
                assert earlier == sorted(earlier)
                assert command.text.strip()
                self.says.append(command)
            case events.SendReplyAudio(turn=turn):
                assert turn in self.begun, "sound of a turn that nobody knows of"
                assert turn not in self.hushed | self.over, "sound after a hush"
                self.emitted(command)
            case events.PauseReplyAudio(turn=turn) | events.ResumeReplyAudio(turn=turn):
                assert self.paused is isinstance(command, events.ResumeReplyAudio)
                self.paused = not self.paused
                assert turn in self.begun - self.over
            case events.DropReplyAudio(turn=turn):
                assert [type(one) for one in rest[:3]] == [
                    events.StopStage,
                    events.StopStage,
                    events.ReplyEnded,
                ]
                assert rest[0] == events.StopStage(turn, events.ConversationStage.TTS)
                assert rest[1] == events.StopStage(turn, events.ConversationStage.LLM)
                assert self.talk.turn > turn
                self.hushed.add(turn)
                self.paused = False
            case events.StopStage(turn=turn, stage=stage):
                self.stopped.add((turn, stage))
            case events.SetTimer(at=at):
                self.due = at
            case events.SetSpeechDetection():
                pass
            case _:
                self.hear(command)

    def emitted(self, emit: events.SendReplyAudio) -> None:
        ear = self.ears.setdefault(emit.turn, Ear())
        text = next(
            one.text for one in self.says if (one.turn, one.phrase) == (emit.turn, emit.phrase)
        )
        for mark in emit.audio.marks:
            ear.words.append((text[mark.character :].split()[0], ear.made))
        ear.made += emit.audio.seconds
        self.playing = emit.turn

    def hear(self, told: object) -> None:
        self.told.append(told)
        match told:
            case events.ReplyStarted(turn=turn):
                assert turn not in self.begun | self.over
                assert self.begun == self.over, "two replies at once"
                self.begun.add(turn)
                match self.told[-2:]:
                    case [events.UserTurnFinal(text, backchannel=None), _] if turn in self.asked:
                        assert self.asked[turn].endswith(text), "not what was said"
            case events.ToolCallStarted(turn=turn) | events.ToolCallArgumentsDelta(turn=turn):
                assert turn in self.begun - self.over
            case events.ToolCallEnded(turn=turn, call=call):
                assert turn in self.begun - self.over
                assert call.id not in self.calls
                self.calls[call.id] = turn
            case events.ConversationError(turn=turn):
                self.failed.add(turn)
                self.odd.add(turn)
            case events.ReplyEnded(turn=turn):
                assert turn in self.begun - self.over
                self.over.add(turn)
                self.ended[turn] = told
                self.paused = False
                if self.playing == turn:
                    self.playing = None
                self.compare(turn, told.text, told.ending is events.ReplyEnding.COMPLETED)
            case events.ReplyTruncated(turn=turn, seconds=seconds, text=text):
                if turn not in self.odd and self.options.voiced:
                    ear = self.ears.get(turn, Ear())
                    assert normalized_words(text) == normalized_words(
                        " ".join(ear.heard(min(seconds, ear.at)))
                    )

    def compare(self, turn: int, text: str, completed: bool) -> None:
        """What stands there is what was heard, and of this turn."""
        script = normalized_words(" ".join(self.scripts.get(turn, [])))
        assert normalized_words(text) == script[: len(normalized_words(text))], (
            "words of another turn"
        )
        if turn in self.odd or not self.options.voiced:
            return
        ear = self.ears.get(turn, Ear())
        assert normalized_words(text) == normalized_words(" ".join(ear.heard())), (
            "not what was heard"
        )
        if completed:
            assert normalized_words(text) == script
            assert "…" not in text
        elif text and len(normalized_words(text)) < len(script):
            assert text.endswith("…")

    # What happens in it

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.due is not None and self.due <= until:
            self.play_until(max(self.now, self.due))
            self.take(events.TimerFired(self.now))
        self.play_until(until)

    def play_until(self, at: float) -> None:
        passed, self.now = at - self.now, at
        if self.playing is None or self.paused:
            return
        ear = self.ears[self.playing]
        ear.at = min(ear.made, ear.at + passed)
        self.take(events.PlaybackReported(self.now, self.playing, ear.at))

    def speak(self, number: int) -> None:
        if not self.speaking:
            self.utterance += number % 2 or not self.utterance
            self.stopped_at.pop(self.utterance, None)
            self.final.pop(self.utterance, None)
            self.take(events.UserSpeechStarted(self.now, self.utterance, max(0, self.now - 0.1)))
        else:
            self.stopped_at[self.utterance] = max(0, self.now - 0.05)
            self.settle(self.utterance)
            self.take(
                events.UserSpeechStopped(self.now, self.utterance, self.stopped_at[self.utterance])
            )
        self.speaking = not self.speaking

    def recognize(self, number: int) -> None:
        """Words of this utterance or one before it, of all its sound or the beginning."""
        utterance = max(1, self.utterance - number % 3 // 2)
        upto = self.now - 1 if number % 5 == 4 else self.now
        self.words(utterance, SAID[number % len(SAID)], upto)

    def words(self, utterance: int, text: str, upto: float) -> None:
        """Of an utterance that is over these are the last, if they are of all of it."""
        begun = utterance in self.stopped_at or (self.speaking and utterance == self.utterance)
        if (
            not begun
            or utterance in self.final
            or upto < self.words_of.get(utterance, ("", 0.0))[1]
        ):
            return  # a recognizer has said it all, or more
        self.words_of[utterance] = text, upto
        self.settle(utterance)
        self.take(events.RecognizedWords(self.now, utterance, text, upto))

    def settle(self, utterance: int) -> None:
        """Words of all of an utterance that has stopped are final, unless they came too late."""
        text, upto = self.words_of.get(utterance, ("", -1.0))
        if upto >= self.stopped_at.get(utterance, float("inf")):
            self.final[utterance] = text
            if self.now - self.stopped_at[utterance] > RECOGNIZER_TIMEOUT_S:
                self.excused.add(utterance)

    def sound(self, number: int) -> None:
        """How like what is played the utterance is."""
        likeness = (0.0, 0.3, 0.59, 0.9)[number % 4]
        if self.utterance not in self.final:
            self.sounds[self.utterance] = likeness
            self.take(events.EchoSimilarity(self.now, self.utterance, likeness))

    def think(self, number: int) -> None:
        """The thinker of this or of an earlier turn, which has not noticed yet, says more."""
        turn = self.some_turn(number, self.scripts)
        if turn is None:
            return
        script, count = self.scripts[turn], self.thought[turn]
        counts = turn == self.talk.turn and turn not in self.over
        if number % 7 == 6:
            self.take(events.StageEnded(self.now, turn, events.ConversationStage.LLM))
            self.thought[turn] = 99
        elif number % 23 == 22:
            self.take(events.StageFailed(self.now, turn, events.ConversationStage.LLM, BROKEN))
            self.thought[turn] = 99
        else:
            letters = (chr(ord("a") + one % 26) for one in (turn // 26, turn, count))
            word = "".join(letters) + (".", ",", "", "")[number % 4]
            if counts and count < 99:
                script.append(word)
                self.thought[turn] += 1
            self.take(events.LlmToken(self.now, turn, f"{word} "))

    def call(self, number: int) -> None:
        """A thinker, who may be late, calls something, or goes on with that."""
        turn = self.some_turn(number, self.scripts)
        if turn is not None:
            arguments = ("", "", "{}", "{", "")[number % 5]
            fragment = ToolCallDelta(number % 2, f"call_{turn}", "tool", arguments)
            self.take(events.LlmToolCallDelta(self.now, turn, fragment))
            if number % 4 == 3:
                self.take(events.StageEnded(self.now, turn, events.ConversationStage.LLM))
                self.thought[turn] = 99

    def say(self, number: int) -> None:
        """A voice says the next word of a piece, or has said all; it may be that of an old turn."""
        if not self.says:
            return
        mine = [one for one in self.says if one.turn == self.talk.turn]
        todo = [one for one in mine if self.voiced.get((one.turn, one.phrase), 0) >= 0]
        rest = [one for one in self.says if one not in mine]
        if rest and (number % 5 == 4 or not todo):
            say = rest[number % len(rest)]
        elif todo:
            say = todo[0]
        else:
            return
        self.say_more(say, number)

    def say_more(self, say: events.SynthesizeText, number: int) -> None:
        key = (say.turn, say.phrase)
        words, done = say.text.split(), self.voiced.get(key, 0)
        if number % 31 == 30:
            self.take(events.StageFailed(self.now, say.turn, events.ConversationStage.TTS, BROKEN))
        elif done < 0 or done >= len(words):
            self.voiced[key] = -1
            self.take(
                events.StageEnded(self.now, say.turn, events.ConversationStage.TTS, say.phrase)
            )
        else:
            self.voiced[key] = done + 1
            character = sum(len(word) + 1 for word in words[:done])
            sound = silence(WORD_S, (WordMark(character, done * WORD_S),))
            self.take(events.TtsAudio(self.now, say.turn, say.phrase, sound))

    def some_turn(self, number: int, known: dict[int, list[str]]) -> int | None:
        if not known:
            return None
        return list(known)[number % len(known)] if number % 3 == 2 else max(known)

    def carry_out(self, number: int) -> None:
        """The client says what came of a call, or of one that there is not."""
        call = [*self.calls, "none"][number % (len(self.calls) + 1)]
        self.take(events.ToolResultAdded(self.now, call, "a"))

    def wish(self, number: int) -> None:
        """Something of the client's."""
        turn = max(1, self.talk.turn - number % 2)
        ear = self.ears.get(turn, Ear())
        wishes: list[events.ConversationEvent] = [
            events.TextTyped(self.now, TYPED),
            events.ResponseCancelled(self.now),
            events.TurnCommitted(self.now),
            events.TurnDiscarded(self.now),
            events.ResponseRequested(self.now),
            events.PlaybackTruncated(self.now, turn, round(ear.at * (number % 10) / 10, 3)),
            events.TextTyped(self.now, " "),
            events.ConversationReset(self.now),
            events.HistoryEntryAdded(self.now, ChatRole.USER, "noted"),
            events.StageFailed(
                self.now, self.utterance, events.ConversationStage.RECOGNIZER, BROKEN
            ),
        ]
        event = wishes[number % len(wishes)]
        if isinstance(event, events.PlaybackTruncated) and turn in self.ears:
            ear.at = min(ear.at, event.seconds)
        if isinstance(event, events.TurnDiscarded | events.ConversationReset):
            self.excused |= set(range(self.utterance + 1))
        if isinstance(event, events.ConversationReset):
            self.odd |= set(self.ears)  # nothing stands of them that could be cut
        if isinstance(event, events.StageFailed):
            self.excused.add(self.utterance)
        if isinstance(event, events.TurnCommitted) and self.speaking:
            # as `SpeechInput` tells it: behind the end of the utterance and its last words
            self.speak(1)
            self.words(self.utterance, self.words_of.get(self.utterance, ("", 0.0))[0], self.now)
        self.take(event)

    def ask(self, number: int) -> None:
        """A turn of a person, from its beginning until it is certainly over."""
        if self.speaking:
            self.speak(1)
        self.speak(1)
        self.pass_time(1.0)
        self.speak(1)
        self.words(self.utterance, "what now?", self.now)
        self.pass_time((number % 4) * 0.5)

    def reply(self, number: int) -> None:
        """Some of a reply, and some of it heard."""
        for _ in range(number % 6 + 1):
            self.think(number % 2 * 3)
        for _ in range(number % 8):
            self.say(0)
        self.pass_time((number % 11) * 0.1)

    def overlap(self, number: int) -> None:
        """Somebody speaks over it, or is only heard to."""
        if not self.speaking:
            self.speak(1)
        self.pass_time((number % 5) * 0.1)
        self.recognize(number)
        if number % 3:
            self.speak(1)
            self.recognize(number)

    def answer_early(self, number: int) -> None:
        """Somebody answers over the last 0.4 s of a reply, or at once behind it: by a word, which
        may be one of the reply's, and is known before the reply has ended or after that."""
        turn = self.playing
        if turn is None or self.speaking or not self.ears[turn].words:
            return
        self.thought[turn] = 99
        self.take(events.StageEnded(self.now, turn, events.ConversationStage.LLM))
        for say in [one for one in self.says if one.turn == turn]:
            while self.voiced.get((turn, say.phrase), 0) >= 0:
                self.say_more(say, 0)
        ear = self.ears[turn]
        self.pass_time(max(0.0, ear.made - ear.at + (0.2 if number % 4 == 3 else -0.4)))
        self.speak(1)
        self.pass_time((number % 3 + 1) * 0.15)
        self.speak(1)
        self.pass_time((0.0, 0.5, 2.5)[number // 3 % 3])
        own = ear.words[-1][0]
        self.words(self.utterance, ("yes", "No.", own)[number // 9 % 3], self.now)
        self.pass_time(number % 5 * 0.4)

    def wait(self, number: int) -> None:
        """Nothing happens for up to a second and a half."""
        self.pass_time((number % 12 + 1) ** 2 / 100)

    def act(self, kind: str, number: int) -> None:
        """One of `KINDS` happens."""
        getattr(self, kind)(number)

    # How it ends

    def finish(self, *, alive: bool) -> None:
        """Nobody speaks any more; stages go on with what they have, or never do anything again."""
        if self.speaking:
            self.speak(0)
        for _ in range(400 if alive else 0):
            before = len(self.told), len(self.says), self.now
            waiting = [one for one in self.stopped_at if one not in self.final]
            for utterance in waiting[-1:]:
                self.words(utterance, "what now?", self.stopped_at[utterance])
            turn = self.talk.turn
            if turn in self.scripts and self.thought[turn] < 99:
                self.think(0 if not self.scripts[turn] else 6 if turn == max(self.scripts) else 0)
            for say in [one for one in self.says if one.turn == turn]:
                while self.voiced.get((turn, say.phrase), 0) >= 0:
                    self.say_more(say, 0)
            self.pass_time(1.0)
            if self.talk.phase is events.ConversationPhase.IDLE and before[:2] == (
                len(self.told),
                len(self.says),
            ):
                break
        self.pass_time(400.0)
        assert self.talk.phase is events.ConversationPhase.IDLE, "stuck"
        assert self.due is None
        assert self.begun == self.over == set(self.ended)
        assert not self.paused
        stopped = {turn for turn, stage in self.stopped if stage is events.ConversationStage.TTS}
        assert {one.turn for one in self.says} <= stopped, "a voice that waits for more for ever"
        self.answers()
        self.accounts()

    def accounts(self) -> None:
        """Whatever was said in words is a turn or a backchannel, or is an echo by its sound."""
        told = [one.text for one in self.told if isinstance(one, events.UserTurnFinal)]
        said = [
            text
            for utterance, text in self.final.items()
            if text
            and utterance not in self.excused
            and self.sounds.get(utterance, 0.0) < ECHO_SIMILARITY
        ]
        for text in set(said):
            form = re.compile(rf"(?<!\S){re.escape(text)}(?!\S)")
            found = sum(len(form.findall(one)) for one in told)
            assert found >= said.count(text), f"{text!r} was said and vanished"

    def answers(self) -> None:
        """Whatever was said was answered, or an error was told; whoever began was said to end."""
        for turn, ended in self.ended.items():
            if ended.ending is events.ReplyEnding.COMPLETED:
                assert ended.text or turn in self.calls.values()
            assert (ended.ending is events.ReplyEnding.FAILED) <= (turn in self.failed)
            if ended.ending is events.ReplyEnding.FAILED and self.options.voiced and not ended.text:
                assert any(say.turn == turn for say in self.says), "nothing is said of it"
        for at, one in enumerate(self.told):
            if (
                isinstance(one, events.UserTurnFinal)
                and self.options.answers
                and not one.backchannel
            ):
                follows = [type(later) for later in self.told[at + 1 : at + 4]]
                assert events.ReplyStarted in follows or events.UserTurnFinal in follows
        begun = [one for one in self.told if isinstance(one, events.UserTurnStarted)]
        said = [
            one
            for one in self.told
            if isinstance(one, events.UserTurnFinal) and not (one.text == TYPED or one.backchannel)
        ]
        nothing = [one for one in self.told if isinstance(one, events.UserTurnDropped)]
        unheard = [one for one in self.told if isinstance(one, events.ConversationError)]
        resets = [one for one in self.told if type(one).__name__ == "ConversationStarted"]
        assert len(said) + len(nothing) <= len(begun)
        assert len(begun) <= len(said) + len(nothing) + len(unheard) + len(resets)


KINDS = [
    *["ask", "ask", "reply", "reply", "reply", "overlap", "speak", "recognize"],
    *["think", "say", "wish", "wait", "wait", "call", "carry_out"],
    *["answer_early", "answer_early", "sound"],
]
MANNERS = [
    events.ConversationOptions(),
    events.ConversationOptions(),
    events.ConversationOptions(voiced=False),
    events.ConversationOptions(interruptible=False),
    events.ConversationOptions(most_messages=4, longest_reply_s=2.0),
]
acts = st.tuples(st.sampled_from(KINDS), st.integers(0, 1000))
manners = st.sampled_from(MANNERS)


@pytest.mark.slow
def test_two_thousand_random_conversations_keep_only_heard_words_and_lose_no_utterance() -> None:
    seen: set[events.ReplyEnding] = set()
    called = returned = backchannels = answers = 0
    for seed in range(2000):
        chance = random.Random(seed)
        world = World(chance.choice(MANNERS))
        for _ in range(chance.randint(5, 40)):
            world.act(chance.choice(KINDS), chance.randint(0, 1000))
        world.finish(alive=bool(seed % 2))
        seen |= {one.ending for one in world.ended.values() if one.text}
        called += len(world.calls)
        said = [one for one in world.told if isinstance(one, events.UserTurnFinal)]
        backchannels += sum(one.backchannel is not None for one in said)
        answers += sum(one.text == "yes" and not one.backchannel for one in said)
        returned += sum(entry.returned for entry in world.talk.history.entries)
    assert seen == set(events.ReplyEnding), "conversations that never get anywhere"
    assert called > returned > 0
    assert backchannels > 20
    assert answers > 20


@pytest.mark.parametrize("alive", [True, False], ids=["stages work", "stages fall silent"])
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(options=manners, story=st.lists(acts, min_size=8, max_size=40))
def test_any_order_of_events_ends_every_turn_keeps_heard_words_and_loses_no_utterance(
    alive: bool, options: events.ConversationOptions, story: list[tuple[str, int]]
) -> None:
    world = World(options)
    for kind, number in story:
        world.act(kind, number)
    world.finish(alive=alive)
