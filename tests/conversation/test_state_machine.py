"""The conversation's machine, rule by rule."""

from __future__ import annotations

import pytest
from conversation_simulator import BROKEN, Table, silence

from sidecar.conversation.assistant_turn import APOLOGY
from sidecar.conversation.barge_in import ECHO_SIMILARITY, OWN_WORDS_ECHO_SIMILARITY
from sidecar.conversation.chat_completions import ChatMessage, ChatRole
from sidecar.conversation.conversation_events import (
    UNKNOWN_UTTERANCE,
    ConversationError,
    ConversationOptions,
    ConversationPhase,
    ConversationReset,
    ConversationStage,
    ConversationStarted,
    DropReplyAudio,
    GenerateReply,
    HistoryEntryAdded,
    HistoryEntryDeleted,
    HistoryEntryRecorded,
    LlmToken,
    OptionsChanged,
    PauseReplyAudio,
    PlaybackReported,
    RecognizedWords,
    ReplyEnded,
    ReplyEnding,
    ReplyLatency,
    ReplyStarted,
    ReplyTextDelta,
    ReplyTruncated,
    ResumeReplyAudio,
    SendReplyAudio,
    SetSpeechDetection,
    StageEnded,
    StageFailed,
    StopStage,
    SynthesizeText,
    TtsAudio,
    TurnDiscarded,
    UserTurnDropped,
    UserTurnFinal,
    UserTurnPartial,
    UserTurnStarted,
)
from sidecar.conversation.end_of_turn import MAX_USER_TURN_BYTES

ANSWER = "One two three four five six."


def answering(options: ConversationOptions | None = None, heard: float = 1.0) -> Table:
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
    assert table.phase is ConversationPhase.LISTENING
    table.stops()
    assert table.phase is ConversationPhase.TRANSCRIBING
    table.until(1.1)
    table.words("What do you count?", upto=1.0)
    assert table.until(1.2)
    assert table.phase is ConversationPhase.GENERATING
    table.now = 1.3
    table.thinks(ANSWER, ended=False)
    table.take(StageEnded(1.4, 1, ConversationStage.THINKER))
    assert table.phase is ConversationPhase.SYNTHESIZING
    table.now = 1.5
    table.voices()
    assert table.phase is ConversationPhase.SPEAKING
    table.now = 4.0
    table.plays(1.8)
    assert table.phase is ConversationPhase.IDLE
    assert table.history == [("user", "What do you count?"), ("assistant", ANSWER)]
    assert [type(one).__name__ for one in table.told(object)] == [
        *("UserTurnStarted", "UserTurnPartial", "UserTurnPartial", "UserTurnStopped"),
        *("UserTurnFinal", "ReplyStarted", "ReplyTextDelta", "ReplyLatency", "ReplyEnded"),
    ]
    assert table.told(ReplyEnded) == [ReplyEnded(1, ReplyEnding.COMPLETED, ANSWER, 1.8)]


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
    table.take(LlmToken(1.35, 1, "One, two, three, four. Five"))
    table.take(TtsAudio(1.45, 1, 0, silence(0.1)))
    (latency,) = table.told(ReplyLatency)
    assert latency == ReplyLatency(1, *map(pytest.approx, (0.2, 0.05, 0.2, 0.1, 0.45)))


def test_thinking_begins_before_the_turn_is_over_and_nobody_is_told() -> None:
    table = Table()
    table.utters("and what do you count and")
    assert [one.turn for one in table.of(GenerateReply)] == [1]
    table.thinks("Well, I do. Not much, as it is. But a bit.")
    pieces = [one.piece for one in table.of(SynthesizeText)]
    assert pieces == [0], "it may be for nothing"
    table.voices()
    assert not table.of(SendReplyAudio)
    assert not table.told(ReplyStarted)
    out = table.until(2.0)
    assert table.of(SendReplyAudio, out)
    assert table.of(SynthesizeText, out)


def test_what_was_thought_too_early_is_thrown_away() -> None:
    table = Table()
    table.utters("I would like")
    table.thinks("What would you like?")
    table.now = 1.2
    out = table.goes_on()
    assert out[:2] == [
        StopStage(1, ConversationStage.VOICE),
        StopStage(1, ConversationStage.THINKER),
    ]
    table.take(LlmToken(1.3, 1, " Late."))
    table.take(TtsAudio(1.3, 1, 0, silence(0.1)))
    table.now = 2.0
    table.stops()
    table.words("I would like two teas.")
    table.until(2.2)
    assert table.asked == (ChatMessage(ChatRole.USER, "I would like two teas."),)
    assert table.talk.turn == 2
    assert table.history == [("user", "I would like two teas.")]
    assert not table.told(ReplyTextDelta)
    assert not table.of(SendReplyAudio)


def test_other_words_for_what_was_said_are_thought_about_anew() -> None:
    table = Table()
    table.utters("I scream")
    table.words("Ice cream", upto=1.05)
    assert [one.messages[-1].text for one in table.of(GenerateReply)] == ["I scream", "Ice cream"]
    assert StopStage(1, ConversationStage.THINKER) in table.all


def test_utterances_of_one_turn_are_one_text() -> None:
    table = Table()
    table.utters("I want tea and")
    table.now = 1.5
    table.utters("a cake.", 0.5)
    table.until(2.3)
    assert table.history == [("user", "I want tea and a cake.")]


def test_a_long_utterance_that_is_cut_goes_on_in_the_next() -> None:
    table = Table()
    table.starts()
    table.now = 8.0
    table.starts(8.0)
    table.take(RecognizedWords(8.1, 1, "First half", 8.0))
    table.now = 9.0
    table.stops()
    table.words("second half.")
    table.until(9.3)
    assert table.history == [("user", "First half second half.")]


def test_a_turn_without_end_does_not_grow_for_ever() -> None:
    table = Table(ConversationOptions(ends_turns=False))
    for number in range(120):
        table.utters(f"word{number}")
    table.commits()
    (said,) = table.told(UserTurnFinal)
    assert said.text.split() == [f"word{number}" for number in range(120)]
    table.utters("x" * 2 * MAX_USER_TURN_BYTES)
    table.commits()
    assert len(table.history[-1][1].encode()) <= MAX_USER_TURN_BYTES


@pytest.mark.parametrize("role", [ChatRole.USER, ChatRole.SYSTEM, ChatRole.ASSISTANT])
def test_what_is_typed_or_noted_reaches_the_model_whole(role: ChatRole) -> None:
    text = ("What is to be known. " * 2000).strip()
    table = Table()
    table.take(HistoryEntryAdded(0.0, role, text))
    table.types(text)
    assert sum(one.text.count(text) for one in table.asked) == 2


def test_a_noise_is_no_turn() -> None:
    table = Table()
    table.utters(None, 0.4)
    table.until(0.5)
    assert table.told(UserTurnDropped, table.words("", upto=0.4)) == [UserTurnDropped()]
    assert table.phase is ConversationPhase.IDLE
    assert not table.of(GenerateReply)


# Interruptions


def test_speech_over_a_reply_holds_it_and_two_words_end_it() -> None:
    table = answering()
    began = table.now
    table.starts()
    assert not table.of(PauseReplyAudio)
    table.until(began + 0.25)
    assert table.of(PauseReplyAudio) == [PauseReplyAudio(1)]
    assert not table.told(ReplyEnded)
    table.take(PlaybackReported(table.now, 1, 1.1))
    out = table.words("Please stop")
    assert out[:3] == [
        DropReplyAudio(1),
        StopStage(1, ConversationStage.VOICE),
        StopStage(1, ConversationStage.THINKER),
    ]
    assert out[3:6] == [
        ReplyEnded(1, ReplyEnding.INTERRUPTED, "One two three four…", 1.8),
        UserTurnStarted(2, began),
        UserTurnPartial("Please stop"),
    ]
    assert table.talk.turn == 2
    table.now += 0.3
    table.stops()
    table.words("Please stop.")
    table.until(table.now + 0.3)
    assert table.asked[-2:] == (
        ChatMessage(ChatRole.ASSISTANT, "One two three four…"),
        ChatMessage(ChatRole.USER, "Please stop."),
    )


def test_who_only_shows_to_listen_interrupts_nothing() -> None:
    table = answering()
    table.utters(None, 0.3)
    assert table.of(PauseReplyAudio)
    table.until(table.now + 0.1)
    assert table.of(ResumeReplyAudio, table.words("mm-hm")) == [ResumeReplyAudio(1)]
    table.plays(1.8)
    assert table.told(ReplyEnded)[0].ending is ReplyEnding.COMPLETED
    assert len(table.told(UserTurnStarted)) == 1


def test_a_voice_that_tells_no_ends_has_said_a_piece_once_it_says_the_next() -> None:
    table, text = Table(), "One sentence is here. Another one is there."
    table.says("Tell me.")
    table.thinks(text)
    table.voices(ended=False)
    last = table.of(SynthesizeText)[-1]
    table.take(StageEnded(table.now, table.talk.turn, ConversationStage.VOICE, last.piece))
    table.plays(60.0)
    (ended,) = table.told(ReplyEnded)
    assert (last.piece, ended.text) == (1, text)


@pytest.mark.parametrize(
    ("spoken_s", "held_s", "released_s"),
    [(0.2, None, None), (0.5, 0.25, 2.5), (9.0, 0.25, 6.25)],
    ids=["a cough", "a noise", "somebody who speaks on"],
)
def test_a_reply_is_held_as_long_as_words_may_come_and_late_ones_count(
    spoken_s: float, held_s: float | None, released_s: float | None
) -> None:
    table = answering()
    began = table.now
    table.starts()
    seen: dict[type, float] = {}
    for at in (0.2, 0.25, 0.5, 2.45, 2.5, 6.2, 6.25, 7.0):
        for command in table.until(began + at) + (table.stops() if at == spoken_s else []):
            seen.setdefault(type(command), at)
    assert (seen.get(PauseReplyAudio), seen.get(ResumeReplyAudio)) == (held_s, released_s)
    assert table.of(DropReplyAudio, table.words("I mean it")) == [DropReplyAudio(1)]


def test_polite_words_that_go_on_interrupt_after_all() -> None:
    table = answering()
    table.utters("yeah", 0.4)
    assert table.of(ResumeReplyAudio) == [ResumeReplyAudio(1)]
    table.now += 0.2
    table.goes_on()
    table.until(table.now + 0.4)
    assert table.of(DropReplyAudio, table.words("yeah but why")) == [DropReplyAudio(1)]


def test_before_anything_was_heard_any_word_goes_on_with_the_turn() -> None:
    table = answering(heard=0)
    table.starts()
    assert table.of(PauseReplyAudio) == [PauseReplyAudio(1)]  # at once
    table.now += 0.4
    table.words("yes")
    assert table.of(DropReplyAudio) == [DropReplyAudio(1)]
    table.stops()
    table.words("yes.")
    table.until(table.now + 0.3)
    assert table.asked == (ChatMessage(ChatRole.USER, "What do you count? yes."),)
    assert table.history == [("user", "What do you count?"), ("user", "yes.")]


def test_a_reply_that_may_not_be_interrupted_is_heard_to_its_end() -> None:
    table = answering(ConversationOptions(interruptible=False))
    table.starts()
    table.until(table.now + 0.5)
    table.words("Listen to me")
    assert not table.of(PauseReplyAudio) + table.of(DropReplyAudio)
    table.stops()
    table.words("Listen to me.")
    table.plays(1.8)
    table.until(table.now + 0.3)
    assert table.told(UserTurnFinal)[-1] == UserTurnFinal("Listen to me.")
    assert table.of(GenerateReply)[-1].turn == 2


def test_who_speaks_when_a_reply_ends_has_the_floor() -> None:
    table = answering()
    table.starts()
    table.now += 0.2
    table.plays(1.8)
    assert table.told(UserTurnStarted)[-1].utterance == 2
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
    table.cancels()
    assert table.history[-1] == ("assistant", "One two three. …")


def test_a_reply_that_is_read_counts_as_far_as_it_was_written() -> None:
    table = Table(ConversationOptions(voiced=False))
    table.says("Count!")
    table.thinks("One two three. Four and so", ended=False)
    table.types("Stop.")
    assert table.history[1:] == [("assistant", "One two three. Four and so…"), ("user", "Stop.")]


def test_a_turn_that_the_client_commits_ends_a_reply_whatever_it_says() -> None:
    table = answering()
    table.starts()
    table.now += 0.5
    assert table.of(DropReplyAudio, table.commits()) == [DropReplyAudio(1)]
    table.words("yes")
    assert table.asked[-1] == ChatMessage(ChatRole.USER, "yes")


def test_what_is_forgotten_over_a_reply_lets_it_go_on() -> None:
    table = answering()
    table.starts()
    table.until(table.now + 0.5)
    assert table.of(ResumeReplyAudio, table.take(TurnDiscarded(table.now))) == [ResumeReplyAudio(1)]
    table.until(table.now + 9)
    assert not table.of(DropReplyAudio)


def test_a_noise_is_forgotten_before_the_next_word() -> None:
    table = answering()
    table.utters(None, 0.1)
    table.now += 0.2
    table.starts()
    table.until(table.now + 0.3)
    table.words("Stop now")
    assert table.told(UserTurnStarted)[-1].utterance == 3


# Echo


def test_its_own_sound_is_no_turn_and_raises_the_threshold() -> None:
    table = answering()
    table.starts()
    table.until(table.now + 0.3)
    table.sounds(OWN_WORDS_ECHO_SIMILARITY)
    assert not table.of(DropReplyAudio, table.words("two three"))
    out = table.stops()
    assert table.of(ResumeReplyAudio, out) == [ResumeReplyAudio(1)]
    assert table.of(SetSpeechDetection, out) == [SetSpeechDetection(0.15)]
    table.plays(1.8)
    assert table.of(SetSpeechDetection)[-1] == SetSpeechDetection(0.0)


def test_an_echo_right_behind_a_reply_is_no_turn() -> None:
    table = answering()
    table.plays(1.8)
    table.now += 0.3
    table.says("four five six", likeness=OWN_WORDS_ECHO_SIMILARITY)
    assert table.told(UserTurnDropped) == [UserTurnDropped()]
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
        table.says("Coffee.", seconds=0.5, likeness=OWN_WORDS_ECHO_SIMILARITY - 0.01)
        assert table.history[-1] == ("user", "Coffee.")
        assert table.asked[-1].text == "Coffee."


def test_of_an_echo_and_an_answer_the_answer_is_the_turn() -> None:
    table = answering()
    table.plays(1.8)
    table.utters("five sticks", 0.4, ECHO_SIMILARITY)
    table.now += 0.1
    table.utters("Seven.", 0.4)
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
    assert table.asked[-1].text == "Yes."


@pytest.mark.parametrize("then", ["the reply ends", "something else is said", "something is typed"])
def test_what_interrupts_nothing_stays_in_the_conversation_and_is_not_answered(then: str) -> None:
    table = answering(heard=0.3)
    began = table.now
    table.utters("mm-hm", 0.3)
    if then == "the reply ends":
        table.plays(1.8)
    else:
        table.now += 1.0
        table.starts()
    if then == "something is typed":
        table.types("And you?")
    (said,) = [one for one in table.told(UserTurnFinal) if one.backchannel]
    assert said == UserTurnFinal("mm-hm", backchannel=(began, pytest.approx(began + 0.3)))
    assert ("user", "mm-hm") in table.history
    assert len(table.of(GenerateReply)) == 1 + (then == "something is typed")


def test_a_short_word_whose_words_come_late_counts_though_somebody_speaks_again() -> None:
    table = answering()
    table.utters(None, 0.2)  # as short as a cough
    first = table.utterance
    table.now += 0.1
    table.starts()
    table.take(RecognizedWords(table.now, first, "Stop.", table.now))
    assert [one.ending for one in table.told(ReplyEnded)] == [ReplyEnding.INTERRUPTED]
    table.now += 0.5
    table.stops()
    table.words("I know that.")
    table.until(table.now + 2)
    assert table.history[-1] == ("user", "Stop. I know that.")


def test_words_that_are_not_known_yet_when_something_is_typed_are_answered_along() -> None:
    table = Table()
    table.utters(None)
    table.types("Cake")
    table.words("and tea.")
    table.until(3.0)
    assert [text for _, text in table.history] == ["Cake", "and tea."]
    assert table.asked[-1].text == "Cake and tea."


def test_sound_that_is_like_the_replys_is_no_turn() -> None:
    table = answering()
    table.starts()
    table.until(table.now + 0.3)
    assert not table.of(ResumeReplyAudio, table.sounds(ECHO_SIMILARITY - 0.01))
    assert table.of(ResumeReplyAudio, table.sounds(ECHO_SIMILARITY)) == [ResumeReplyAudio(1)]
    assert table.of(DropReplyAudio, table.sounds(0.1) + table.words("Wait a moment")) == [
        DropReplyAudio(1)
    ]


def test_after_an_echo_a_conversation_attends_less_while_it_speaks() -> None:
    table = answering()
    table.utters("", 0.1, ECHO_SIMILARITY)
    assert table.of(SetSpeechDetection)[-1] == SetSpeechDetection(0.15)
    table.starts()
    table.until(table.now + 0.39)
    assert not table.of(PauseReplyAudio)
    table.until(table.now + 0.02)
    assert table.of(PauseReplyAudio)


# Old turns


def test_what_comes_of_an_old_turn_is_dropped() -> None:
    table = answering()
    table.cancels()
    assert table.told(ReplyEnded)[-1].text == "One two three…"
    before = table.history
    for event in (
        LlmToken(table.now, 1, "More."),
        TtsAudio(table.now, 1, 0, silence(1)),
        StageEnded(table.now, 1, ConversationStage.VOICE, 0),
        StageFailed(table.now, 1, ConversationStage.THINKER, BROKEN),
        PlaybackReported(table.now, 1, 1.8),
    ):
        assert table.take(event) == []
    assert table.history == before


def test_sound_of_a_piece_that_nobody_wanted_is_dropped() -> None:
    table = Table()
    table.says("Hello?")
    table.thinks("Here is one. Here is the second. Here is the third.")
    assert table.take(StageEnded(table.now, 1, ConversationStage.VOICE, 2)) == []
    assert table.take(TtsAudio(table.now, 1, 2, silence(1))) == []
    (sent,) = table.of(SendReplyAudio, table.take(TtsAudio(table.now, 1, 1, silence(1))))
    assert sent.piece == 1, "0 had no sound"
    assert table.take(TtsAudio(table.now, 1, 0, silence(1))) == []
    assert [one.piece for one in table.of(SynthesizeText)] == [0, 1]


# What clients wish


def test_typed_text_is_a_turn_and_ends_a_reply() -> None:
    table = answering()
    out = table.types("  And  you? ")
    assert table.of(DropReplyAudio, out)
    assert table.told(UserTurnFinal, out) == [UserTurnFinal("And  you?")]
    assert table.of(GenerateReply, out)[0].turn == 2
    assert table.history[1:] == [("assistant", "One two three…"), ("user", "And  you?")]
    assert table.types("  ") == []


def test_what_was_said_aloud_comes_before_what_is_typed() -> None:
    table = Table()
    table.utters("I want tea and")
    table.types("cake")
    assert table.history == [("user", "I want tea and"), ("user", "cake")]
    assert table.asked == (ChatMessage(ChatRole.USER, "I want tea and cake"),)


def test_only_the_client_ends_turns_where_it_says_so() -> None:
    table = Table(ConversationOptions(ends_turns=False))
    table.utters("What is it?")
    table.until(9.0)
    assert not table.of(GenerateReply)
    table.commits()
    assert [one.turn for one in table.of(GenerateReply)] == [1]


def test_an_answer_that_is_asked_for_waits_for_the_words_of_the_turn() -> None:
    table = Table(ConversationOptions(ends_turns=False, answers=False))
    table.starts()
    table.now = 1.0
    table.commits()
    table.asks()
    table.until(1.2)
    assert not table.of(GenerateReply)
    table.words("What is it?")
    assert table.of(GenerateReply)[0].messages == (ChatMessage(ChatRole.USER, "What is it?"),)


def test_without_being_asked_nothing_is_answered_where_that_is_wished() -> None:
    table = Table(ConversationOptions(answers=False))
    table.says("What is it?")
    assert table.history == [("user", "What is it?")]
    assert not table.of(GenerateReply)
    table.asks()
    assert table.of(GenerateReply)
    table = Table()
    assert table.told(ConversationError, table.asks())


def test_what_is_noted_is_history_and_is_not_answered() -> None:
    table = Table(ConversationOptions(instructions="Be brief."))
    table.take(HistoryEntryAdded(0.0, ChatRole.USER, "I am Eve."))
    assert not table.of(GenerateReply)
    table.types("Who am I?")
    assert table.of(GenerateReply)[0].messages == (
        ChatMessage(ChatRole.SYSTEM, "Be brief."),
        ChatMessage(ChatRole.USER, "I am Eve. Who am I?"),
    )


def test_what_is_noted_stands_where_it_was_noted_and_can_be_dropped() -> None:
    table = answering()
    (asked,) = table.told(UserTurnFinal)
    (began,) = table.told(ReplyStarted)
    noted = HistoryEntryRecorded(began.entry + 1, ChatRole.USER, "By the way.", "mine")
    assert noted in table.take(HistoryEntryAdded(table.now, ChatRole.USER, " By the way. ", "mine"))
    table.cancels()
    assert [role for role, _ in table.history] == ["user", "assistant", "user"]
    table.take(HistoryEntryDeleted(table.now, asked.entry))
    table.take(HistoryEntryDeleted(table.now, 99))
    assert [role for role, _ in table.history] == ["assistant", "user"]


def test_one_answer_can_be_asked_for_in_another_manner() -> None:
    table = Table(ConversationOptions(instructions="Be brief.", answers=False))
    table.says("What is it?")
    table.asks(ConversationOptions(instructions="Be long.", voiced=False))
    assert table.asked[0] == ChatMessage(ChatRole.SYSTEM, "Be long.")
    assert not table.told(ReplyStarted)[-1].voiced
    table.thinks("It is this.")
    assert not table.of(SynthesizeText)
    assert table.history[-1] == ("assistant", "It is this.")
    table.asks()
    assert table.asked[0] == ChatMessage(ChatRole.SYSTEM, "Be brief.")


def test_a_reply_is_made_when_nothing_more_comes_of_it_and_over_when_it_was_heard() -> None:
    table = Table()
    table.says("What do you count?")
    table.thinks(ANSWER)
    assert (table.talk.replying, table.talk.made) == (1, None)
    table.voices()
    assert (table.talk.replying, table.talk.made) == (1, ReplyEnding.COMPLETED)
    assert not table.told(ReplyEnded)
    table.plays(float("inf"))
    assert table.told(ReplyEnded)[0].text == ANSWER
    assert (table.talk.replying, table.talk.made) == (0, None)


@pytest.mark.parametrize("committed", [False, True])
def test_words_of_the_machine_are_a_turn_where_the_client_says_so(committed: bool) -> None:
    table = answering()
    table.utters(None)
    if committed:
        table.commits()
    table.sounds(ECHO_SIMILARITY)
    table.words("one two three")
    table.until(table.now + 9.0)
    assert (table.history[-1] == ("user", "one two three")) is committed


def test_what_the_client_forgets_is_not_answered() -> None:
    table = Table()
    table.utters("What is it?")
    out = table.take(TurnDiscarded(1.1))
    assert table.told(UserTurnDropped, out)
    assert StopStage(1, ConversationStage.THINKER) in out
    table.until(9.0)
    assert table.history == []


@pytest.mark.parametrize(("seconds", "text"), [(0.7, "One two…"), (0.0, "")])
def test_a_client_that_cuts_a_reply_short_cuts_the_history(seconds: float, text: str) -> None:
    table = answering()
    out = table.cuts(seconds)
    assert table.of(DropReplyAudio, out) == [DropReplyAudio(1)]
    assert table.told(ReplyEnded, out)[0].text == text
    assert [entry for role, entry in table.history if role == "assistant"] == [text][: bool(text)]


def test_a_reply_that_is_over_can_still_be_cut_but_does_not_grow() -> None:
    table = answering()
    table.cancels()
    out = table.cuts(0.5)
    assert table.told(ReplyTruncated, out) == [ReplyTruncated(1, 0.5, "One two…")]
    table.cuts(9.0)
    assert table.history[-1] == ("assistant", "One two…")
    assert table.cuts(9.0, turn=7) == [ReplyTruncated(7, 9.0, "")]


def test_nobody_hears_more_of_a_reply_than_was_made() -> None:
    table = answering()
    [ended] = table.told(ReplyEnded, table.cancels())
    assert 0 < ended.made_s < 9.0
    [cut] = table.told(ReplyTruncated, table.cuts(9.0))
    assert cut.seconds == ended.made_s


@pytest.mark.parametrize(
    ("heard_s", "by_the_clock", "played_s", "text"),
    [(0.7, ["One two…"], 1.1, "One two three four…"), (0.0, [], 0.4, "One…")],
)
def test_who_played_a_reply_knows_better_than_the_clock_how_much_was_heard(
    heard_s: float, by_the_clock: list[str], played_s: float, text: str
) -> None:
    table = answering(heard=heard_s)
    table.cancels()
    assert [said for _, said in table.history[1:]] == by_the_clock
    table.cuts(played_s)
    assert table.history[1:] == [("assistant", text)]


def test_after_a_reset_nothing_was_said() -> None:
    table = answering()
    out = table.take(ConversationReset(table.now))
    assert table.of(DropReplyAudio, out) == [DropReplyAudio(1)]
    assert table.told(ConversationStarted, out) == [ConversationStarted()]
    assert table.history == []
    table.says("Hello there.")
    assert table.asked == (ChatMessage(ChatRole.USER, "Hello there."),)
    assert table.of(GenerateReply)[-1].turn == 2


def test_other_options_count_from_the_next_turn_on() -> None:
    table = Table()
    table.take(OptionsChanged(0.0, ConversationOptions(instructions="Rhyme.", voiced=False)))
    table.says("Hello.")
    assert table.of(GenerateReply)[0].messages[0] == ChatMessage(ChatRole.SYSTEM, "Rhyme.")
    table.thinks("Hello, fellow.")
    assert not table.of(SynthesizeText)
    assert table.told(ReplyEnded)[0].text == "Hello, fellow."
    assert table.told(ReplyLatency)[0].voiced == 0.0


# What goes wrong


def test_a_thinker_that_fails_is_apologised_for_and_the_next_turn_works() -> None:
    table = Table()
    table.says("Hello?")
    table.fails(ConversationStage.THINKER)
    assert table.told(ConversationError) == [ConversationError(1, BROKEN)]
    assert [one.text for one in table.of(SynthesizeText)] == [APOLOGY]
    table.voices()
    table.plays(99)
    assert table.told(ReplyEnded)[0].ending is ReplyEnding.FAILED
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
    table.fails(ConversationStage.THINKER)
    table.voices()
    assert [one.text for one in table.of(SynthesizeText)] == ["First of all,", "this. And"]
    table.plays(99)
    assert table.told(ReplyEnded)[0].ending is ReplyEnding.FAILED


def test_without_a_voice_a_reply_is_read() -> None:
    table = Table()
    table.says("Hello?")
    table.thinks("Hello to you. How are you today?")
    table.fails(ConversationStage.VOICE)
    assert table.told(ConversationError) == [ConversationError(1, BROKEN)]
    assert table.told(ReplyEnded)[0].text == "Hello to you. How are you today?"
    assert StopStage(1, ConversationStage.VOICE) in table.all


def test_a_recogniser_that_fails_is_an_error_that_is_told_and_said() -> None:
    table = Table()
    table.utters(None)
    table.until(1.1)
    table.fails(ConversationStage.RECOGNISER)
    table.until(1.5)
    assert table.told(ConversationError)[0].error is BROKEN
    assert [one.text for one in table.of(SynthesizeText)] == [APOLOGY]
    table.voices()
    assert table.told(ReplyLatency)[0].thought == 0.0
    table.plays(99)
    assert table.phase is ConversationPhase.IDLE


@pytest.mark.parametrize("typed", [False, True], ids=["goes on", "something is typed"])
def test_a_recogniser_that_fails_over_a_reply_is_told_and_the_reply_goes_on(typed: bool) -> None:
    table = answering(ConversationOptions(interruptible=not typed), heard=0.5)
    table.utters(None)
    table.fails(ConversationStage.RECOGNISER, table.utterance)
    if typed:
        table.types("Never mind.")
    assert table.told(ConversationError) == [ConversationError(0, BROKEN)]
    table.plays(99)
    ending = ReplyEnding.INTERRUPTED if typed else ReplyEnding.COMPLETED
    assert [one.ending for one in table.told(ReplyEnded)] == [ending]


def test_a_recogniser_that_fails_before_anybody_was_heard_is_told() -> None:
    table = Table()
    table.fails(ConversationStage.RECOGNISER, UNKNOWN_UTTERANCE)
    assert table.told(ConversationError) == [ConversationError(0, BROKEN)]
    assert table.phase is ConversationPhase.IDLE


def test_words_that_were_there_before_it_failed_are_answered() -> None:
    table = Table()
    table.starts()
    table.now = 1.0
    table.words("Where is", upto=0.8)
    table.stops()
    table.until(1.1)
    table.fails(ConversationStage.RECOGNISER)
    table.until(2.5)
    assert table.history == [("user", "Where is")]
    assert table.told(ConversationError) == [ConversationError(0, BROKEN)]


def test_an_answer_without_words_is_an_error() -> None:
    table = Table()
    table.says("Hello?")
    table.thinks("  ")
    assert [one.error.code for one in table.told(ConversationError)] == ["reply_empty"]
    assert len(table.of(SynthesizeText)) == 1


@pytest.mark.parametrize("stage", ["thinker", "voice", "ear", "recogniser"])
def test_who_falls_silent_does_not_hold_a_conversation_up(stage: str) -> None:
    table = Table()
    if stage == "recogniser":
        table.utters(None)
    else:
        table.says("Hello?")
        if stage != "thinker":
            table.thinks(ANSWER)
        if stage == "ear":
            table.voices()
    table.until(table.now + 200)
    assert "stage_silent" in [one.error.code for one in table.told(ConversationError)]
    assert table.phase is ConversationPhase.IDLE
    assert table.told(ReplyEnded)[-1].ending is ReplyEnding.FAILED


# Bounds


def test_a_reply_is_a_minute_of_sound_at_most() -> None:
    table = Table(ConversationOptions(longest_reply_s=1.0))
    table.says("Count!")
    table.thinks("One two three. Four five six. Seven", ended=False)
    table.voices()
    assert StopStage(1, ConversationStage.THINKER) in table.all
    assert StopStage(1, ConversationStage.VOICE) in table.all
    assert sum(one.sound.seconds for one in table.of(SendReplyAudio)) <= 1.0
    table.plays(99)
    (ended,) = table.told(ReplyEnded)
    assert ended.ending is ReplyEnding.LIMITED
    assert ended.text in ("One two three. …", "One two three. Four…")


def test_a_reply_is_so_many_bytes_at_most() -> None:
    table = Table(ConversationOptions(voiced=False, most_bytes=20))
    table.says("Count!")
    table.thinks("ä" * 11, ended=False)
    assert table.told(ReplyTextDelta) == [ReplyTextDelta(1, "ä" * 10)]
    assert table.told(ReplyEnded)[0].ending is ReplyEnding.LIMITED


def test_a_voice_has_two_pieces_at_once_at_most() -> None:
    table = Table()
    table.says("Hello?")
    table.thinks("Here is the first. Here is the second. Here is the third. Here is the last.")
    assert [one.piece for one in table.of(SynthesizeText)] == [0, 1]
    table.take(StageEnded(table.now, 1, ConversationStage.VOICE, 0))
    assert [one.piece for one in table.of(SynthesizeText)] == [0, 1, 2]


def test_a_yes_over_a_reply_waits_for_the_client_where_that_alone_ends_turns() -> None:
    table = Table(ConversationOptions(ends_turns=False))
    table.types("Book a table.")
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
    table.commits()
    assert [one.text for one in table.told(UserTurnFinal)][1:] == ["Yes. Yes."]
    assert table.asked[-1].text == "Yes. Yes."


def test_who_seemed_to_be_an_echo_and_speaks_on_behind_the_reply_is_told_with_the_first_words() -> (
    None
):
    table = answering()
    table.starts()
    table.until(table.now + 0.3)
    table.sounds(ECHO_SIMILARITY)
    table.plays(1.8)
    table.until(table.now + 0.5)
    started = len(table.told(UserTurnStarted))
    table.sounds(0.1)
    table.words("Seven is")
    assert len(table.told(UserTurnStarted)) == started + 1
    assert table.told(UserTurnPartial)[-1].text == "Seven is"
