"""The conversation's machine, rule by rule."""

from __future__ import annotations

import pytest
from conversation_simulator import Table, silence

from sidecar.conversation.barge_in import ALIKE, OWN_WORDS_ALIKE
from sidecar.conversation.chat_history import MOST_SAID
from sidecar.conversation.conversation_events import (
    UNKNOWN,
    Asked,
    Attend,
    Cancelled,
    Committed,
    Configured,
    Dropped,
    Emit,
    Forgotten,
    Hush,
    Noted,
    Pause,
    Played,
    Recognise,
    Reset,
    Resume,
    Say,
    Stage,
    StageEnded,
    StageFailed,
    Stop,
    TalkOptions,
    Tell,
    Think,
    Token,
    Truncated,
    Typed,
    Voiced,
    Words,
)
from sidecar.conversation.llm.chat_completions import Message, Role
from sidecar.conversation.output_queue import (
    Began,
    Ending,
    Failed,
    Latency,
    NothingSaid,
    PersonSaid,
    PersonSaying,
    PersonStarted,
    PersonStopped,
    Phase,
    Recorded,
    ReplyEnded,
    ReplySpoken,
    ReplyStarted,
    ReplyTruncated,
    ReplyWritten,
)
from sidecar.errors import EngineFailed
from sidecar.interfaces.engine_interface import Sound

ANSWER = "One two three four five six."
BROKEN = EngineFailed("It broke.")


def answering(options: TalkOptions | None = None, heard: float = 1.0) -> Table:
    """Somebody asked, and hears the answer since a second."""
    table = Table(options)
    table.says("What do you count?")
    table.replies(ANSWER)
    if heard:
        table.until(table.now + heard)
        table.plays(heard)
    return table


def test_a_turn_goes_from_speech_to_a_reply_that_was_heard() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    table.words("What do", upto=0.8)
    assert table.phase is Phase.LISTENING
    table.stops()
    assert table.phase is Phase.TRANSCRIBING
    table.until(1.1)
    table.words("What do you count?", upto=1.0)
    assert table.until(1.2)
    assert table.phase is Phase.GENERATING
    table.now = 1.3
    table.thinks(ANSWER, ended=False)
    table.take(StageEnded(1.4, 1, Stage.THINKER))
    assert table.phase is Phase.SYNTHESIZING
    table.now = 1.5
    table.voices()
    assert table.phase is Phase.SPEAKING
    table.now = 4.0
    table.plays(1.8)
    assert table.phase is Phase.IDLE
    assert table.history == [("user", "What do you count?"), ("assistant", ANSWER)]
    kinds = [type(one).__name__ for one in table.told(object) if not hasattr(one, "phase")]
    assert kinds == [
        *["PersonStarted", "PersonSaying", "PersonSaying", "PersonStopped", "PersonSaid"],
        *["ReplyStarted", "ReplyWritten", "ReplySpoken", "Latency", "ReplyEnded"],
    ]
    assert table.told(ReplyEnded) == [ReplyEnded(1, Ending.COMPLETED, ANSWER, 1.8, 1.8)]


def test_where_the_time_went_is_told_with_the_first_sound() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    table.stops()
    table.until(1.1)
    table.now = 1.15
    table.words("What do you count?", upto=1.0)  # thought about from here on
    table.until(1.2)
    table.now = 1.35
    table.take(Token(1.35, 1, "One, two, three, four. Five"))
    table.take(Voiced(1.45, 1, 0, silence(0.1)))
    (latency,) = table.told(Latency)
    assert latency == Latency(
        1,
        *(pytest.approx(one) for one in (0.2, 0.05, 0.2, 0.1, 0.45)),
    )


def test_words_are_wanted_from_a_tenth_of_a_second_on() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    assert not table.of(Recognise, table.stops())
    assert not table.of(Recognise, table.until(1.09))
    assert table.of(Recognise, table.until(1.1)) == [Recognise(1, 1.0)]


def test_thinking_begins_before_the_turn_is_over_and_nobody_is_told() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    table.stops()
    table.words("and what do you count and", upto=1.0)
    assert [one.turn for one in table.of(Think)] == [1]
    table.thinks("Well, I do. Not much, as it is. But a bit.")
    assert [one.piece for one in table.of(Say)] == [0]  # one piece, as it may be for nothing
    table.voices()
    assert not table.of(Emit)
    assert not table.told(ReplyStarted)
    out = table.until(2.0)
    assert [type(one) for one in table.told(object, out)][-4:-1] == [
        ReplyWritten,
        ReplySpoken,
        Latency,
    ] or table.of(Emit, out)
    assert table.of(Say, out)


def test_what_was_thought_too_early_is_thrown_away() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    table.stops()
    table.words("I would like")
    table.thinks("What would you like?")
    table.now = 1.2
    out = table.goes_on()
    assert out[:2] == [Stop(1, Stage.VOICE), Stop(1, Stage.THINKER)]
    table.take(Token(1.3, 1, " Late."))
    table.take(Voiced(1.3, 1, 0, silence(0.1)))
    table.now = 2.0
    table.stops()
    table.words("I would like two teas.")
    table.until(2.2)
    assert table.of(Think)[-1] == Think(2, (Message(Role.USER, "I would like two teas."),))
    assert table.history == [("user", "I would like two teas.")]
    assert not table.told(ReplyWritten)
    assert not table.of(Emit)


def test_other_words_for_what_was_said_are_thought_about_anew() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    table.stops()
    table.words("I scream", upto=1.0)
    table.words("Ice cream", upto=1.05)
    assert [one.messages[-1].text for one in table.of(Think)] == ["I scream", "Ice cream"]
    assert Stop(1, Stage.THINKER) in table.all


def test_utterances_of_one_turn_are_one_text() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    table.stops()
    table.words("I want tea and")
    table.now = 1.5
    table.starts()
    table.now = 2.0
    table.stops()
    table.words("a cake.")
    table.until(2.3)
    assert table.history == [("user", "I want tea and a cake.")]


def test_a_long_utterance_that_is_cut_goes_on_in_the_next() -> None:
    table = Table()
    table.starts()
    table.now = 8.0
    table.starts(8.0)
    table.take(Words(8.1, 1, "First half", 8.0))
    table.now = 9.0
    table.stops()
    table.words("second half.")
    table.until(9.3)
    assert table.history == [("user", "First half second half.")]


def test_a_turn_without_end_does_not_grow_for_ever() -> None:
    table = Table(TalkOptions(ends_turns=False))
    for number in range(120):
        table.starts()
        table.now += 1.0
        table.stops()
        table.words(f"word{number}")
    table.take(Committed(table.now))
    (said,) = table.told(PersonSaid)
    assert said.text.split() == [f"word{number}" for number in range(120)]
    table.starts()
    table.take(Words(table.now, table.utterance, "x" * 2 * MOST_SAID, table.now))
    table.stops()
    table.take(Committed(table.now))
    assert len(table.history[-1][1].encode()) <= MOST_SAID


@pytest.mark.parametrize("role", [Role.USER, Role.SYSTEM, Role.ASSISTANT])
def test_what_is_typed_or_noted_reaches_the_model_whole(role: Role) -> None:
    text = ("What is to be known. " * 2000).strip()
    table = Table()
    table.take(Noted(0.0, role, text))
    table.take(Typed(1.0, text))
    assert sum(one.text.count(text) for one in table.of(Think)[-1].messages) == 2


def test_a_noise_is_no_turn() -> None:
    table = Table()
    table.starts()
    table.now = 0.4
    table.stops()
    table.until(0.5)
    assert table.told(NothingSaid, table.words("", upto=0.4)) == [NothingSaid()]
    assert table.phase is Phase.IDLE
    assert not table.of(Think)


# Interruptions


def test_speech_over_a_reply_holds_it_and_two_words_end_it() -> None:
    table = answering()
    began = table.now
    table.starts()
    assert not table.of(Pause)
    table.until(began + 0.25)
    assert table.of(Pause) == [Pause(1)]
    assert not table.told(ReplyEnded)
    table.take(Played(table.now, 1, 1.1))
    out = table.words("Please stop")
    assert out[:3] == [Hush(1), Stop(1, Stage.VOICE), Stop(1, Stage.THINKER)]
    assert out[3:6] == [
        Tell(ReplyEnded(1, Ending.INTERRUPTED, "One two three four…", pytest.approx(1.1), 1.8)),
        Tell(PersonStarted(2, began)),
        Tell(PersonSaying("Please stop")),
    ]
    assert table.talk.turn == 2
    table.now += 0.3
    table.stops()
    table.words("Please stop.")
    table.until(table.now + 0.3)
    assert table.of(Think)[-1].messages[-2:] == (
        Message(Role.ASSISTANT, "One two three four…"),
        Message(Role.USER, "Please stop."),
    )


@pytest.mark.parametrize("text", ["mm-hm", "Yeah.", "okay", "uh huh", "right, right"])
def test_who_only_shows_to_listen_interrupts_nothing(text: str) -> None:
    table = answering()
    table.starts()
    table.until(table.now + 0.3)
    assert table.of(Pause)
    table.stops()
    table.until(table.now + 0.1)
    assert table.of(Resume, table.words(text)) == [Resume(1)]
    table.plays(1.8)
    assert table.told(ReplyEnded)[0].ending is Ending.COMPLETED
    assert len(table.told(PersonStarted)) == 1


def test_one_word_that_is_more_than_that_interrupts() -> None:
    table = answering()
    table.starts()
    table.until(table.now + 0.3)
    assert table.of(Hush, table.words("Stop")) == [Hush(1)]


def test_a_cough_is_not_even_noticed() -> None:
    table = answering()
    table.starts()
    table.until(table.now + 0.2)
    table.stops()
    table.until(table.now + 3)
    assert not table.of(Pause)
    assert not table.of(Recognise)


def test_a_voice_that_tells_no_ends_has_said_a_piece_once_it_says_the_next() -> None:
    table, text = Table(), "One sentence is here. Another one is there."
    table.says("Tell me.")
    table.thinks(text)
    table.voices(ended=False)
    last = table.of(Say)[-1]
    table.take(StageEnded(table.now, table.talk.turn, Stage.VOICE, last.piece))
    table.plays(60.0)
    (ended,) = table.told(ReplyEnded)
    assert (last.piece, ended.text) == (1, text)


def test_a_noise_without_words_holds_a_reply_for_two_seconds_behind_it() -> None:
    table = answering()
    began = table.now
    table.starts()
    table.until(began + 0.5)
    table.stops()
    table.until(began + 2.45)
    assert table.of(Pause)
    assert not table.of(Resume)
    table.until(began + 2.5)
    assert table.of(Resume) == [Resume(1)]


def test_who_speaks_on_is_not_talked_over_before_words_come_but_a_noise_is_in_the_end() -> None:
    table = answering()
    began = table.now
    table.starts()
    table.until(began + 6.2)
    assert not table.of(Resume)
    table.until(began + 6.25)
    assert table.of(Resume) == [Resume(1)]
    assert len(table.of(Pause)) == 1
    table.now = began + 7
    assert table.of(Hush, table.words("I mean it")) == [Hush(1)]  # words come late, and count


def test_polite_words_that_go_on_interrupt_after_all() -> None:
    table = answering()
    table.starts()
    table.until(table.now + 0.4)
    table.stops()
    table.words("yeah")
    assert table.of(Resume) == [Resume(1)]
    table.now += 0.2
    table.goes_on()
    table.until(table.now + 0.4)
    assert table.of(Hush, table.words("yeah but why")) == [Hush(1)]


def test_before_anything_was_heard_any_word_goes_on_with_the_turn() -> None:
    table = answering(heard=0)
    table.starts()
    assert table.of(Pause) == [Pause(1)]  # at once
    table.now += 0.4
    table.words("yes")
    assert table.of(Hush) == [Hush(1)]
    table.stops()
    table.words("yes.")
    table.until(table.now + 0.3)
    assert table.of(Think)[-1].messages == (Message(Role.USER, "What do you count? yes."),)
    assert table.history == [("user", "What do you count?"), ("user", "yes.")]


def test_a_reply_that_may_not_be_interrupted_is_heard_to_its_end() -> None:
    table = answering(TalkOptions(interruptible=False))
    table.starts()
    table.until(table.now + 0.5)
    table.words("Listen to me")
    assert not table.of(Pause) + table.of(Hush)
    table.stops()
    table.words("Listen to me.")
    table.plays(1.8)
    table.until(table.now + 0.3)
    assert table.told(PersonSaid)[-1] == PersonSaid("Listen to me.")
    assert table.of(Think)[-1].turn == 2


def test_who_speaks_when_a_reply_ends_has_the_floor() -> None:
    table = answering()
    table.starts()
    table.now += 0.2
    table.plays(1.8)
    assert table.told(PersonStarted)[-1].utterance == 2
    table.now += 1
    table.stops()
    table.words("Thank you very much.")
    table.until(table.now + 0.2)
    assert table.history[-1] == ("user", "Thank you very much.")


def test_a_reply_that_is_still_thought_about_ends_with_an_ellipsis() -> None:
    table = Table()
    table.says("Count!")
    table.thinks("One two three. Four and so", ended=False)
    table.voices()
    table.plays(0.9)
    assert not table.told(ReplyEnded)
    table.take(Cancelled(table.now))
    assert table.history[-1] == ("assistant", "One two three. …")


def test_a_reply_that_is_read_counts_as_far_as_it_was_written() -> None:
    table = Table(TalkOptions(voiced=False))
    table.says("Count!")
    table.thinks("One two three. Four and so", ended=False)
    table.take(Typed(table.now, "Stop."))
    assert table.history[1:] == [("assistant", "One two three. Four and so…"), ("user", "Stop.")]


def test_a_turn_that_the_client_commits_ends_a_reply_whatever_it_says() -> None:
    table = answering()
    table.starts()
    table.now += 0.5
    assert table.of(Hush, table.take(Committed(table.now))) == [Hush(1)]
    table.words("yes")
    assert table.of(Think)[-1].messages[-1] == Message(Role.USER, "yes")


def test_what_is_forgotten_over_a_reply_lets_it_go_on() -> None:
    table = answering()
    table.starts()
    table.until(table.now + 0.5)
    assert table.of(Resume, table.take(Forgotten(table.now))) == [Resume(1)]
    table.until(table.now + 9)
    assert not table.of(Hush)


def test_words_that_come_after_a_long_silence_of_the_recogniser_interrupt() -> None:
    table = answering()
    table.starts()
    table.until(table.now + 7)  # held for six seconds, and then not any more
    assert table.of(Resume)
    table.stops()
    table.until(table.now + 0.1)
    assert table.of(Recognise)
    assert table.of(Hush, table.words("That is not what I meant."))


def test_a_noise_is_forgotten_before_the_next_word() -> None:
    table = answering()
    table.starts()
    table.until(table.now + 0.1)
    table.stops()
    table.now += 0.2
    table.starts()
    table.until(table.now + 0.3)
    table.words("Stop now")
    assert table.told(PersonStarted)[-1].utterance == 3


# Echo


def test_its_own_sound_is_no_turn_and_raises_the_threshold() -> None:
    table = answering()
    table.starts()
    table.until(table.now + 0.3)
    table.sounds(OWN_WORDS_ALIKE)
    assert not table.of(Hush, table.words("two three"))
    out = table.stops()
    assert table.of(Resume, out) == [Resume(1)]
    assert table.of(Attend, out) == [Attend(0.15, 0.4)]
    table.plays(1.8)
    assert table.of(Attend)[-1] == Attend(0.0, 0.4)


def test_an_echo_right_behind_a_reply_is_no_turn() -> None:
    table = answering()
    table.plays(1.8)
    table.now += 0.3
    table.says("four five six", likeness=OWN_WORDS_ALIKE)
    assert [one.echo for one in table.told(NothingSaid)] == [True]
    table.now += 5
    table.says("four five six")
    assert table.history[-1] == ("user", "four five six")


def test_who_answers_by_the_answers_own_words_is_answered() -> None:
    for pause in (0.0, 0.3, 0.8):
        table = Table()
        table.says("I am thirsty.")
        table.replies("Would you like tea or coffee?")
        table.until(table.now + 1.8)
        table.plays(1.8)
        table.until(table.now + pause)
        table.says("Coffee.", seconds=0.5, likeness=OWN_WORDS_ALIKE - 0.01)
        assert table.history[-1] == ("user", "Coffee.")
        assert table.of(Think)[-1].messages[-1].text == "Coffee."


def test_of_an_echo_and_an_answer_the_answer_is_the_turn() -> None:
    table = answering()
    table.plays(1.8)
    table.starts()
    table.now += 0.4
    table.stops()
    table.sounds(ALIKE)
    table.words("five sticks")
    table.now += 0.1
    table.starts()
    table.now += 0.4
    table.stops()
    table.words("Seven.")
    table.until(table.now + 2)
    assert table.history[-1] == ("user", "Seven.")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("seconds", [0.2, 0.3], ids=["not held for it", "held for it"])
def test_a_yes_over_the_last_words_of_a_question_answers_it(seconds: float, late: bool) -> None:
    table = Table()
    table.says("Book a table.")
    table.replies("Shall I book it now then?")
    table.until(table.now + 1.4)
    table.plays(1.4)
    table.starts()
    table.until(table.now + seconds)
    table.stops()
    if not late:
        table.words("Yes.")
    table.until(table.now + 0.2)
    table.plays(1.8)
    if late:
        table.words("Yes.")
    table.until(table.now + 2)
    assert table.history[-1] == ("user", "Yes.")
    assert table.of(Think)[-1].messages[-1].text == "Yes."


@pytest.mark.parametrize("then", ["the reply ends", "something else is said", "something is typed"])
def test_what_interrupts_nothing_stays_in_the_conversation_and_is_not_answered(then: str) -> None:
    table = answering(heard=0.3)
    began = table.now
    table.starts()
    table.until(table.now + 0.3)
    table.stops()
    table.words("mm-hm")
    if then == "the reply ends":
        table.plays(1.8)
        thinks = 1
    else:
        table.now += 1.0
        table.starts()
        thinks = 1
    if then == "something is typed":
        table.take(Typed(table.now, "And you?"))
        thinks = 2
    (said,) = [one for one in table.told(PersonSaid) if one.backchannel]
    assert said == PersonSaid("mm-hm", backchannel=(began, pytest.approx(began + 0.3)))
    assert ("user", "mm-hm") in table.history
    assert len(table.of(Think)) == thinks


def test_a_short_word_whose_words_come_late_counts_though_somebody_speaks_again() -> None:
    table = answering()
    table.starts()
    table.until(table.now + 0.2)
    table.stops()  # as short as a cough
    first = table.utterance
    table.now += 0.1
    table.starts()
    table.take(Words(table.now, first, "Stop.", table.now))
    assert [one.ending for one in table.told(ReplyEnded)] == [Ending.INTERRUPTED]
    table.now += 0.5
    table.stops()
    table.words("I know that.")
    table.until(table.now + 2)
    assert table.history[-1] == ("user", "Stop. I know that.")


def test_words_that_are_not_known_yet_when_something_is_typed_are_answered_along() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    table.stops()
    table.take(Typed(1.1, "Cake"))
    table.words("and tea.", upto=1.0)
    table.until(3.0)
    assert [text for _, text in table.history] == ["Cake", "and tea."]
    assert table.of(Think)[-1].messages[-1].text == "Cake and tea."


def test_sound_that_is_like_the_replys_is_no_turn() -> None:
    table = answering()
    table.starts()
    table.until(table.now + 0.3)
    assert not table.of(Resume, table.sounds(ALIKE - 0.01))
    assert table.of(Resume, table.sounds(ALIKE)) == [Resume(1)]
    assert table.of(Hush, table.sounds(0.1) + table.words("Wait a moment")) == [Hush(1)]


def test_a_guarded_conversation_attends_less_while_it_speaks() -> None:
    table = answering(TalkOptions(guarded=True))
    assert table.of(Attend)[-1] == Attend(0.15, 0.4)
    table.starts()
    table.until(table.now + 0.39)
    assert not table.of(Pause)
    table.until(table.now + 0.02)
    assert table.of(Pause)


# Old turns


def test_what_comes_of_an_old_turn_is_dropped() -> None:
    table = answering()
    table.take(Cancelled(table.now))
    assert table.told(ReplyEnded)[-1].text == "One two three…"
    before = table.history
    for event in (
        Token(table.now, 1, "More."),
        Voiced(table.now, 1, 0, silence(1)),
        StageEnded(table.now, 1, Stage.VOICE, 0),
        StageFailed(table.now, 1, Stage.THINKER, BROKEN),
        Played(table.now, 1, 1.8),
    ):
        assert table.take(event) == []
    assert table.history == before


def test_sound_of_a_piece_that_nobody_wanted_is_dropped() -> None:
    table = Table()
    table.says("Hello?")
    table.thinks("Here is one. Here is the second. Here is the third.")
    assert table.take(StageEnded(table.now, 1, Stage.VOICE, 2)) == []
    assert table.take(Voiced(table.now, 1, 2, silence(1))) == []
    assert table.of(Emit, table.take(Voiced(table.now, 1, 1, silence(1))))  # 0 had no sound
    assert table.take(Voiced(table.now, 1, 0, silence(1))) == []
    assert [one.piece for one in table.of(Say)] == [0, 1]


# What clients wish


def test_typed_text_is_a_turn_and_ends_a_reply() -> None:
    table = answering()
    out = table.take(Typed(table.now, "  And  you? "))
    assert table.of(Hush, out)
    assert table.told(PersonSaid, out) == [PersonSaid("And  you?", typed=True)]
    assert table.of(Think, out)[0].turn == 2
    assert table.history[1:] == [("assistant", "One two three…"), ("user", "And  you?")]
    assert table.take(Typed(table.now, "  ")) == []


def test_what_was_said_aloud_comes_before_what_is_typed() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    table.stops()
    table.words("I want tea and")
    table.take(Typed(1.2, "cake"))
    assert table.history == [("user", "I want tea and"), ("user", "cake")]
    assert table.of(Think)[-1].messages == (Message(Role.USER, "I want tea and cake"),)


def test_only_the_client_ends_turns_where_it_says_so() -> None:
    table = Table(TalkOptions(ends_turns=False))
    table.starts()
    table.now = 1.0
    table.stops()
    table.words("What is it?")
    table.until(9.0)
    assert not table.of(Think)
    table.take(Committed(9.0))
    assert [one.turn for one in table.of(Think)] == [1]


def test_an_answer_that_is_asked_for_waits_for_the_words_of_the_turn() -> None:
    table = Table(TalkOptions(ends_turns=False, answers=False))
    table.starts()
    table.now = 1.0
    table.take(Committed(1.0))
    table.take(Asked(1.0))
    table.until(1.2)
    assert not table.of(Think)
    table.words("What is it?")
    assert table.of(Think)[0].messages == (Message(Role.USER, "What is it?"),)


def test_without_being_asked_nothing_is_answered_where_that_is_wished() -> None:
    table = Table(TalkOptions(answers=False))
    table.says("What is it?")
    assert table.history == [("user", "What is it?")]
    assert not table.of(Think)
    table.take(Asked(table.now))
    assert table.of(Think)
    table = Table()
    assert table.told(Failed, table.take(Asked(0.0)))


def test_what_is_noted_is_history_and_is_not_answered() -> None:
    table = Table(TalkOptions(instructions="Be brief."))
    table.take(Noted(0.0, Role.USER, "I am Eve."))
    assert not table.of(Think)
    table.take(Typed(1.0, "Who am I?"))
    assert table.of(Think)[0].messages == (
        Message(Role.SYSTEM, "Be brief."),
        Message(Role.USER, "I am Eve. Who am I?"),
    )


def test_what_is_noted_stands_where_it_was_noted_and_can_be_dropped() -> None:
    table = answering()
    (asked,) = table.told(PersonSaid)
    (began,) = table.told(ReplyStarted)
    noted = Tell(Recorded(began.entry + 1, Role.USER, "By the way.", "mine"))
    assert noted in table.take(Noted(table.now, Role.USER, " By the way. ", "mine"))
    table.take(Cancelled(table.now))
    assert [role for role, _ in table.history] == ["user", "assistant", "user"]
    table.take(Dropped(table.now, asked.entry))
    table.take(Dropped(table.now, 99))
    assert [role for role, _ in table.history] == ["assistant", "user"]


def test_one_answer_can_be_asked_for_in_another_manner() -> None:
    table = Table(TalkOptions(instructions="Be brief.", answers=False))
    table.says("What is it?")
    table.take(Asked(table.now, TalkOptions(instructions="Be long.", voiced=False)))
    assert table.of(Think)[-1].messages[0] == Message(Role.SYSTEM, "Be long.")
    assert not table.told(ReplyStarted)[-1].voiced
    table.thinks("It is this.")
    assert not table.of(Say)
    assert table.history[-1] == ("assistant", "It is this.")
    table.take(Asked(table.now))
    assert table.of(Think)[-1].messages[0] == Message(Role.SYSTEM, "Be brief.")


def test_a_reply_is_made_when_nothing_more_comes_of_it_and_over_when_it_was_heard() -> None:
    table = Table()
    table.says("What do you count?")
    table.thinks(ANSWER)
    assert (table.talk.replying, table.talk.made) == (1, None)
    table.voices()
    assert (table.talk.replying, table.talk.made) == (1, Ending.COMPLETED)
    assert not table.told(ReplyEnded)
    table.plays(float("inf"))
    assert table.told(ReplyEnded)[0].text == ANSWER
    assert (table.talk.replying, table.talk.made) == (0, None)


def test_words_of_the_machine_are_a_turn_where_the_client_says_so() -> None:
    for committed in (False, True):
        table = answering()
        table.starts()
        table.now += 1.0
        table.stops()
        if committed:
            table.take(Committed(table.now))
        table.sounds(ALIKE)
        table.words("one two three")
        table.until(table.now + 9.0)
        assert (table.history[-1] == ("user", "one two three")) is committed


def test_what_the_client_forgets_is_not_answered() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    table.stops()
    table.words("What is it?")
    out = table.take(Forgotten(1.1))
    assert table.told(NothingSaid, out)
    assert Stop(1, Stage.THINKER) in out
    table.until(9.0)
    assert table.history == []


@pytest.mark.parametrize(("seconds", "text"), [(0.7, "One two…"), (0.0, "")])
def test_a_client_that_cuts_a_reply_short_cuts_the_history(seconds: float, text: str) -> None:
    table = answering()
    out = table.take(Truncated(table.now, 1, seconds))
    assert table.of(Hush, out) == [Hush(1)]
    assert table.told(ReplyEnded, out)[0].text == text
    assert [entry for role, entry in table.history if role == "assistant"] == [text][: bool(text)]


def test_a_reply_that_is_over_can_still_be_cut_but_does_not_grow() -> None:
    table = answering()
    table.take(Cancelled(table.now))
    out = table.take(Truncated(table.now, 1, 0.5))
    assert table.told(ReplyTruncated, out) == [ReplyTruncated(1, 0.5, "One two…")]
    table.take(Truncated(table.now, 1, 9.0))
    assert table.history[-1] == ("assistant", "One two…")
    assert table.take(Truncated(table.now, 7, 9.0)) == [Tell(ReplyTruncated(7, 9.0, ""))]


def test_who_played_a_reply_knows_better_than_the_clock_how_much_was_heard() -> None:
    table = answering(heard=0.7)
    table.take(Cancelled(table.now))
    assert table.history[-1] == ("assistant", "One two…")
    table.take(Truncated(table.now, 1, 1.1))
    assert table.history[-1] == ("assistant", "One two three four…")
    table = answering(heard=0.0)
    table.take(Cancelled(table.now))
    assert table.history == [("user", "What do you count?")]
    table.take(Truncated(table.now, 1, 0.4))
    assert table.history[-1] == ("assistant", "One…")


def test_after_a_reset_nothing_was_said() -> None:
    table = answering()
    out = table.take(Reset(table.now))
    assert table.of(Hush, out) == [Hush(1)]
    assert table.told(Began, out) == [Began()]
    assert table.history == []
    table.says("Hello there.")
    assert table.of(Think)[-1].messages == (Message(Role.USER, "Hello there."),)
    assert table.of(Think)[-1].turn == 2


def test_other_options_count_from_the_next_turn_on() -> None:
    table = Table()
    table.take(Configured(0.0, TalkOptions(instructions="Rhyme.", voiced=False)))
    table.says("Hello.")
    assert table.of(Think)[0].messages[0] == Message(Role.SYSTEM, "Rhyme.")
    table.thinks("Hello, fellow.")
    assert not table.of(Say)
    assert table.told(ReplyEnded)[0].text == "Hello, fellow."
    assert table.told(Latency)[0].voiced == 0.0


# What goes wrong


def test_a_thinker_that_fails_is_apologised_for_and_the_next_turn_works() -> None:
    table = Table()
    table.says("Hello?")
    table.take(StageFailed(table.now, 1, Stage.THINKER, BROKEN))
    assert table.told(Failed) == [Failed(1, BROKEN)]
    assert [one.text for one in table.of(Say)] == [TalkOptions().apology]
    table.voices()
    table.plays(99)
    assert table.told(ReplyEnded)[0].ending is Ending.FAILED
    assert table.history == [("user", "Hello?")]
    table.now += 1
    table.says("Again?")
    table.replies("Hello!")
    table.plays(99)
    assert table.history[1:] == [("user", "Again?"), ("assistant", "Hello!")]


def test_what_was_thought_before_a_failure_is_said() -> None:
    table = Table()
    table.says("Hello?")
    table.thinks("First of all, this. And", ended=False)
    table.take(StageFailed(table.now, 1, Stage.THINKER, BROKEN))
    table.voices()
    assert [one.text for one in table.of(Say)] == ["First of all,", "this. And"]
    table.plays(99)
    assert table.told(ReplyEnded)[0].ending is Ending.FAILED


def test_without_a_voice_a_reply_is_read() -> None:
    table = Table()
    table.says("Hello?")
    table.thinks("Hello to you. How are you today?")
    table.take(StageFailed(table.now, 1, Stage.VOICE, BROKEN))
    assert table.told(Failed) == [Failed(1, BROKEN)]
    assert table.told(ReplyEnded)[0].text == "Hello to you. How are you today?"
    assert Stop(1, Stage.VOICE) in table.all


def test_a_recogniser_that_fails_is_an_error_that_is_told_and_said() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    table.stops()
    table.until(1.1)
    table.take(StageFailed(1.1, 1, Stage.RECOGNISER, BROKEN))
    table.until(1.5)
    assert table.told(Failed)[0].error is BROKEN
    assert [one.text for one in table.of(Say)] == [TalkOptions().apology]
    table.voices()
    assert table.told(Latency)[0].thought == 0.0
    table.plays(99)
    assert table.phase is Phase.IDLE


def test_a_recogniser_that_fails_over_a_reply_is_told_and_the_reply_goes_on() -> None:
    table = Table()
    table.says("Hello?")
    table.thinks(ANSWER)
    table.voices()
    table.plays(0.5)
    table.starts()
    table.until(table.now + 1.0)
    table.stops()
    table.take(StageFailed(table.now, table.utterance, Stage.RECOGNISER, BROKEN))
    assert table.told(Failed) == [Failed(0, BROKEN)]
    table.plays(99)
    assert [one.ending for one in table.told(ReplyEnded)] == [Ending.COMPLETED]


def test_a_recogniser_that_fails_before_anybody_was_heard_is_told() -> None:
    table = Table()
    table.take(StageFailed(1.0, UNKNOWN, Stage.RECOGNISER, BROKEN))
    assert table.told(Failed) == [Failed(0, BROKEN)]
    assert table.phase is Phase.IDLE


def test_words_that_were_there_before_it_failed_are_answered() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    table.words("Where is", upto=0.8)
    table.stops()
    table.until(1.1)
    table.take(StageFailed(1.1, 1, Stage.RECOGNISER, BROKEN))
    table.until(2.5)
    assert table.history == [("user", "Where is")]
    assert table.told(Failed) == [Failed(0, BROKEN)]


def test_an_answer_without_words_is_an_error() -> None:
    table = Table()
    table.says("Hello?")
    table.thinks("  ")
    assert [one.error.code for one in table.told(Failed)] == ["reply_empty"]
    assert len(table.of(Say)) == 1


@pytest.mark.parametrize("stage", ["thinker", "voice", "ear", "recogniser"])
def test_who_falls_silent_does_not_hold_a_conversation_up(stage: str) -> None:
    table = Table()
    if stage == "recogniser":
        table.starts()
        table.now = 1.0
        table.stops()
    else:
        table.says("Hello?")
        if stage != "thinker":
            table.thinks(ANSWER)
        if stage == "ear":
            table.voices()
    table.until(table.now + 200)
    assert "stage_silent" in [one.error.code for one in table.told(Failed)]
    assert table.phase is Phase.IDLE
    assert table.told(ReplyEnded)[-1].ending is Ending.FAILED


# Bounds


def test_a_reply_is_a_minute_of_sound_at_most() -> None:
    table = Table(TalkOptions(longest_reply_s=1.0))
    table.says("Count!")
    table.thinks("One two three. Four five six. Seven", ended=False)
    table.voices()
    assert Stop(1, Stage.THINKER) in table.all
    assert Stop(1, Stage.VOICE) in table.all
    assert sum(one.sound.seconds for one in table.of(Emit)) <= 1.0
    table.plays(99)
    (ended,) = table.told(ReplyEnded)
    assert ended.ending is Ending.LIMITED
    assert ended.text in ("One two three. …", "One two three. Four…")


def test_a_reply_is_so_many_bytes_at_most() -> None:
    table = Table(TalkOptions(voiced=False, most_bytes=20))
    table.says("Count!")
    table.thinks("ä" * 11, ended=False)
    assert table.told(ReplyWritten) == [ReplyWritten(1, "ä" * 10)]
    assert table.told(ReplyEnded)[0].ending is Ending.LIMITED


def test_the_history_lets_go_of_what_is_old() -> None:
    table = Table(TalkOptions(voiced=False, most_messages=4))
    for number in range(4):
        table.take(Typed(table.now, f"Question {number}"))
        table.thinks(f"Answer {number}")
    assert table.history == [
        ("user", "Question 2"),
        ("assistant", "Answer 2"),
        ("user", "Question 3"),
        ("assistant", "Answer 3"),
    ]


def test_a_voice_has_two_pieces_at_once_at_most() -> None:
    table = Table()
    table.says("Hello?")
    table.thinks("Here is the first. Here is the second. Here is the third. Here is the last.")
    assert [one.piece for one in table.of(Say)] == [0, 1]
    table.take(StageEnded(table.now, 1, Stage.VOICE, 0))
    assert [one.piece for one in table.of(Say)] == [0, 1, 2]


def test_words_of_a_voice_that_marks_none_are_spread_over_its_sound() -> None:
    table = Table()
    table.says("Hello?")
    table.thinks("aaaa bbbb cccc dddd.")
    table.take(Voiced(table.now, 1, 0, Sound(bytes(4000), 1000)))
    table.take(StageEnded(table.now, 1, Stage.VOICE, 0))
    table.plays(1.1)
    table.take(Cancelled(table.now))
    assert table.told(PersonStopped)
    assert table.history[-1] == ("assistant", "aaaa bbbb…")


def test_what_failed_before_something_is_typed_is_told() -> None:
    table = answering(TalkOptions(interruptible=False))
    table.starts()
    table.until(table.now + 1.0)
    table.stops()
    table.take(StageFailed(table.now, table.utterance, Stage.RECOGNISER, BROKEN))
    table.take(Typed(table.now, "Never mind."))
    assert table.told(Failed) == [Failed(0, BROKEN)]


def test_a_yes_over_a_reply_waits_for_the_client_where_that_alone_ends_turns() -> None:
    table = Table(TalkOptions(ends_turns=False))
    table.take(Typed(0.0, "Book a table."))
    table.replies("Shall I book a table for two at seven then?")
    table.until(table.now + 0.5)
    table.plays(0.5)
    for _ in range(2):
        table.starts()
        table.until(table.now + 0.3)
        table.stops()
        table.words("Yes.")
    table.until(table.now + 3)
    table.plays(10.0)
    table.until(table.now + 3)
    assert table.told(ReplyEnded)
    table.take(Committed(table.now))
    assert [one.text for one in table.told(PersonSaid) if not one.typed] == ["Yes. Yes."]
    assert table.of(Think)[-1].messages[-1].text == "Yes. Yes."


def test_who_seemed_to_be_an_echo_and_speaks_on_behind_the_reply_is_told_with_the_first_words() -> (
    None
):
    table = answering()
    table.starts()
    table.until(table.now + 0.3)
    table.sounds(ALIKE)
    table.plays(1.8)
    table.until(table.now + 0.5)
    started = len(table.told(PersonStarted))
    table.sounds(0.1)
    table.words("Seven is")
    assert len(table.told(PersonStarted)) == started + 1
    assert table.told(PersonSaying)[-1].text == "Seven is"
