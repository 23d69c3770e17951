"""The conversation's machine, rule by rule."""

import pytest
from conversation_simulator import BROKEN, Table, silence

from sidecar import errors
from sidecar.plugins.conversation import conversation_events as events
from sidecar.plugins.conversation.assistant_turn import APOLOGY
from sidecar.plugins.conversation.barge_in import ECHO_SIMILARITY, OWN_WORDS_ECHO_SIMILARITY
from sidecar.plugins.conversation.chat_completions import ChatMessage, ChatRole
from sidecar.plugins.conversation.end_of_turn import MAX_USER_TURN_BYTES

ANSWER = "One two three four five six."


def answering(options: events.ConversationOptions | None = None, heard: float = 1.0) -> Table:
    """Somebody asked, and hears the answer since a second."""
    table = Table(options)
    table.says("What do you count?")
    table.replies(ANSWER)
    if heard:
        table.until(table.now + heard)
        table.plays(heard)
    return table


@pytest.fixture
def table() -> Table:
    return Table()


def test_turn_passes_all_phases_from_listening_to_a_played_reply_in_the_history(
    table: Table,
) -> None:
    table.starts()
    table.now = 1.0
    table.words("What do", upto=0.8)
    assert table.phase is events.ConversationPhase.LISTENING
    table.stops()
    assert table.phase is events.ConversationPhase.TRANSCRIBING
    table.until(1.1)
    table.words("What do you count?", upto=1.0)
    assert table.until(1.2)
    assert table.phase is events.ConversationPhase.GENERATING
    table.now = 1.3
    table.thinks(ANSWER, ended=False)
    table.take(events.StageEnded(1.4, 1, events.ConversationStage.LLM))
    assert table.phase is events.ConversationPhase.SYNTHESIZING
    table.now = 1.5
    table.voices()
    assert table.phase is events.ConversationPhase.SPEAKING
    table.now = 4.0
    table.plays(1.8)
    assert table.phase is events.ConversationPhase.IDLE
    assert table.history == [("user", "What do you count?"), ("assistant", ANSWER)]
    assert [type(one).__name__ for one in table.told(object)] == [
        *("UserTurnStarted", "UserTurnPartial", "UserTurnPartial", "UserTurnStopped"),
        *("UserTurnFinal", "ReplyStarted", "ReplyTextDelta", "ReplyLatency", "ReplyEnded"),
    ]
    assert table.told(events.ReplyEnded) == [
        events.ReplyEnded(1, events.ReplyEnding.COMPLETED, ANSWER, 1.8)
    ]


def test_latencies_of_all_stages_are_sent_with_the_first_audio(table: Table) -> None:
    table.starts()
    table.now = 1.0
    table.stops()
    table.until(1.1)
    table.now = 1.15
    table.words("What do you count?", upto=1.0)  # thought about from here on
    table.until(1.2)
    table.now = 1.35
    table.take(events.LlmToken(1.35, 1, "One, two, three, four. Five"))
    table.take(events.TtsAudio(1.45, 1, 0, silence(0.1)))
    (latency,) = table.told(events.ReplyLatency)
    assert latency == events.ReplyLatency(1, *map(pytest.approx, (0.2, 0.05, 0.2, 0.1, 0.45)))


def test_speculative_reply_begins_before_the_end_of_turn_and_is_sent_after_it(table: Table) -> None:
    table.utters("and what do you count and")
    assert [one.turn for one in table.of(events.GenerateReply)] == [1]
    table.thinks("Well, I do. Not much, as it is. But a bit.")
    pieces = [one.phrase for one in table.of(events.SynthesizeText)]
    assert pieces == [0], "it may be for nothing"
    table.voices()
    assert not table.of(events.SendReplyAudio)
    assert not table.told(events.ReplyStarted)
    out = table.until(2.0)
    assert table.of(events.SendReplyAudio, out)
    assert table.of(events.SynthesizeText, out)


def test_speculative_reply_is_discarded_if_the_user_goes_on(table: Table) -> None:
    table.utters("I would like")
    table.thinks("What would you like?")
    table.now = 1.2
    out = table.goes_on()
    assert out[:2] == [
        events.StopStage(1, events.ConversationStage.TTS),
        events.StopStage(1, events.ConversationStage.LLM),
    ]
    table.take(events.LlmToken(1.3, 1, " Late."))
    table.take(events.TtsAudio(1.3, 1, 0, silence(0.1)))
    table.now = 2.0
    table.ends("I would like two teas.")
    table.until(2.2)
    assert table.asked == (ChatMessage(ChatRole.USER, "I would like two teas."),)
    assert table.talk.turn == 2
    assert table.history == [("user", "I would like two teas.")]
    assert not table.told(events.ReplyTextDelta)
    assert not table.of(events.SendReplyAudio)


def test_revised_words_stop_the_speculative_reply_and_start_another(table: Table) -> None:
    table.utters("I scream")
    table.words("Ice cream", upto=1.05)
    assert [one.messages[-1].text for one in table.of(events.GenerateReply)] == [
        "I scream",
        "Ice cream",
    ]
    assert events.StopStage(1, events.ConversationStage.LLM) in table.all


def test_utterances_of_one_turn_are_joined(table: Table) -> None:
    table.utters("I want tea and")
    table.now = 1.5
    table.utters("a cake.", 0.5)
    table.until(2.3)
    assert table.history == [("user", "I want tea and a cake.")]


def test_words_of_an_utterance_cut_for_its_length_are_joined_with_the_next(table: Table) -> None:
    table.starts()
    table.now = 8.0
    table.starts(8.0)
    table.take(events.RecognizedWords(8.1, 1, "First half", 8.0))
    table.now = 9.0
    table.ends("second half.")
    table.until(9.3)
    assert table.history == [("user", "First half second half.")]


def test_user_turn_of_120_utterances_is_kept_whole_and_a_longer_one_cut_to_its_byte_limit() -> None:
    table = Table(events.ConversationOptions(ends_turns=False))
    for number in range(120):
        table.utters(f"word{number}")
    table.commits()
    (said,) = table.told(events.UserTurnFinal)
    assert said.text.split() == [f"word{number}" for number in range(120)]
    table.utters("x" * 2 * MAX_USER_TURN_BYTES)
    table.commits()
    assert len(table.history[-1][1].encode()) <= MAX_USER_TURN_BYTES


@pytest.mark.parametrize("role", [ChatRole.USER, ChatRole.SYSTEM, ChatRole.ASSISTANT])
def test_long_typed_text_and_history_entry_reach_the_llm_whole(role: ChatRole) -> None:
    text = ("What is to be known. " * 2000).strip()
    table = Table()
    table.take(events.HistoryEntryAdded(0.0, role, text))
    table.types(text)
    assert sum(one.text.count(text) for one in table.asked) == 2


def test_utterance_without_words_is_no_turn(table: Table) -> None:
    table.utters(None, 0.4)
    table.until(0.5)
    assert table.told(events.UserTurnDropped, table.words("", upto=0.4)) == [
        events.UserTurnDropped()
    ]
    assert table.phase is events.ConversationPhase.IDLE
    assert not table.of(events.GenerateReply)


# Interruptions


def test_speech_over_a_reply_pauses_it_and_two_words_end_it() -> None:
    table = answering()
    began = table.now
    table.starts()
    assert not table.of(events.PauseReplyAudio)
    table.until(began + 0.25)
    assert table.of(events.PauseReplyAudio) == [events.PauseReplyAudio(1)]
    assert not table.told(events.ReplyEnded)
    table.take(events.PlaybackReported(table.now, 1, 1.1))
    out = table.words("Please stop")
    assert out[:3] == [
        events.DropReplyAudio(1),
        events.StopStage(1, events.ConversationStage.TTS),
        events.StopStage(1, events.ConversationStage.LLM),
    ]
    assert out[3:6] == [
        events.ReplyEnded(1, events.ReplyEnding.INTERRUPTED, "One two three four…", 1.8),
        events.UserTurnStarted(2, began),
        events.UserTurnPartial("Please stop"),
    ]
    assert table.talk.turn == 2
    table.now += 0.3
    table.ends("Please stop.")
    table.until(table.now + 0.3)
    assert table.asked[-2:] == (
        ChatMessage(ChatRole.ASSISTANT, "One two three four…"),
        ChatMessage(ChatRole.USER, "Please stop."),
    )


def test_reply_paused_by_a_backchannel_resumes_and_is_completed() -> None:
    table = answering()
    table.utters(None, 0.3)
    assert table.of(events.PauseReplyAudio)
    table.until(table.now + 0.1)
    assert table.of(events.ResumeReplyAudio, table.words("mm-hm")) == [events.ResumeReplyAudio(1)]
    table.plays(1.8)
    assert table.endings[0] is events.ReplyEnding.COMPLETED
    assert len(table.told(events.UserTurnStarted)) == 1


def test_tts_piece_without_an_end_is_over_when_the_next_begins() -> None:
    table, text = Table(), "One sentence is here. Another one is there."
    table.says("Tell me.")
    table.thinks(text)
    table.voices(ended=False)
    last = table.of(events.SynthesizeText)[-1]
    table.take(
        events.StageEnded(table.now, table.talk.turn, events.ConversationStage.TTS, last.phrase)
    )
    table.plays(60.0)
    (ended,) = table.told(events.ReplyEnded)
    assert (last.phrase, ended.text) == (1, text)


@pytest.mark.parametrize(
    ("spoken_s", "held_s", "released_s"),
    [(0.2, None, None), (0.5, 0.25, 2.5), (9.0, 0.25, 6.25)],
    ids=["cough", "noise", "long speech"],
)
def test_reply_paused_by_speech_resumes_without_words_and_late_words_still_interrupt_it(
    spoken_s: float, held_s: float | None, released_s: float | None
) -> None:
    table = answering()
    began = table.now
    table.starts()
    seen: dict[type, float] = {}
    for at in (0.2, 0.25, 0.5, 2.45, 2.5, 6.2, 6.25, 7.0):
        for command in table.until(began + at) + (table.stops() if at == spoken_s else []):
            seen.setdefault(type(command), at)
    assert (seen.get(events.PauseReplyAudio), seen.get(events.ResumeReplyAudio)) == (
        held_s,
        released_s,
    )
    assert table.of(events.DropReplyAudio, table.words("I mean it")) == [events.DropReplyAudio(1)]


def test_backchannel_that_goes_on_as_speech_interrupts() -> None:
    table = answering()
    table.utters("yeah", 0.4)
    assert table.of(events.ResumeReplyAudio) == [events.ResumeReplyAudio(1)]
    table.now += 0.2
    table.goes_on()
    table.until(table.now + 0.4)
    assert table.of(events.DropReplyAudio, table.words("yeah but why")) == [
        events.DropReplyAudio(1)
    ]


def test_any_word_before_the_reply_is_audible_drops_the_reply_and_continues_the_turn() -> None:
    table = answering(heard=0)
    table.starts()
    assert table.of(events.PauseReplyAudio) == [events.PauseReplyAudio(1)]  # at once
    table.now += 0.4
    table.words("yes")
    assert table.of(events.DropReplyAudio) == [events.DropReplyAudio(1)]
    table.ends("yes.")
    table.until(table.now + 0.3)
    assert table.asked == (ChatMessage(ChatRole.USER, "What do you count? yes."),)
    assert table.history == [("user", "What do you count?"), ("user", "yes.")]


def test_speech_over_an_uninterruptible_reply_does_not_pause_it_and_is_answered_next() -> None:
    table = answering(events.ConversationOptions(interruptible=False))
    table.begins(0.5)
    table.words("Listen to me")
    assert not table.of(events.PauseReplyAudio) + table.of(events.DropReplyAudio)
    table.ends("Listen to me.")
    table.plays(1.8)
    table.until(table.now + 0.3)
    assert table.told(events.UserTurnFinal)[-1] == events.UserTurnFinal("Listen to me.")
    assert table.of(events.GenerateReply)[-1].turn == 2


def test_speech_in_progress_when_a_reply_ends_is_the_next_turn() -> None:
    table = answering()
    table.starts()
    table.now += 0.2
    table.plays(1.8)
    assert table.told(events.UserTurnStarted)[-1].utterance == 2
    table.now += 1
    table.ends("Thank you very much.")
    table.until(table.now + 0.2)
    assert table.history[-1] == ("user", "Thank you very much.")


def test_reply_cancelled_while_generated_ends_with_an_ellipsis_in_the_history(table: Table) -> None:
    table.says("Count!")
    table.thinks("One two three. Four and so", ended=False)
    table.voices()
    table.plays(0.9)
    assert not table.told(events.ReplyEnded)
    table.cancels()
    assert table.history[-1] == ("assistant", "One two three. …")


def test_interrupted_text_reply_is_in_the_history_as_far_as_it_was_generated() -> None:
    table = Table(events.ConversationOptions(voiced=False))
    table.says("Count!")
    table.thinks("One two three. Four and so", ended=False)
    table.types("Stop.")
    assert table.history[1:] == [("assistant", "One two three. Four and so…"), ("user", "Stop.")]


def test_committed_turn_ends_a_reply_whatever_its_words() -> None:
    table = answering()
    table.starts()
    table.now += 0.5
    assert table.of(events.DropReplyAudio, table.commits()) == [events.DropReplyAudio(1)]
    table.words("yes")
    assert table.asked[-1] == ChatMessage(ChatRole.USER, "yes")


def test_discarded_speech_over_a_reply_resumes_it() -> None:
    table = answering()
    table.begins(0.5)
    assert table.of(events.ResumeReplyAudio, table.take(events.TurnDiscarded(table.now))) == [
        events.ResumeReplyAudio(1)
    ]
    table.until(table.now + 9)
    assert not table.of(events.DropReplyAudio)


def test_user_turn_after_noise_over_a_reply_begins_with_the_utterance_that_has_words() -> None:
    table = answering()
    table.utters(None, 0.1)
    table.now += 0.2
    table.begins(0.3)
    table.words("Stop now")
    assert table.told(events.UserTurnStarted)[-1].utterance == 3


# Echo


def test_echo_over_a_reply_resumes_it_and_raises_the_speech_threshold_until_its_end() -> None:
    table = answering()
    table.begins(0.3)
    table.sounds(OWN_WORDS_ECHO_SIMILARITY)
    assert not table.of(events.DropReplyAudio, table.words("two three"))
    out = table.stops()
    assert table.of(events.ResumeReplyAudio, out) == [events.ResumeReplyAudio(1)]
    assert table.of(events.SetSpeechDetection, out) == [events.SetSpeechDetection(0.15)]
    table.plays(1.8)
    assert table.of(events.SetSpeechDetection)[-1] == events.SetSpeechDetection(0.0)


def test_words_right_after_a_reply_are_no_turn_if_they_sound_like_it_and_else_are_one() -> None:
    table = answering()
    table.plays(1.8)
    table.now += 0.3
    table.says("four five six", likeness=OWN_WORDS_ECHO_SIMILARITY)
    assert table.told(events.UserTurnDropped) == [events.UserTurnDropped()]
    table.now += 5
    table.says("four five six")
    assert table.history[-1] == ("user", "four five six")


@pytest.mark.parametrize("echo", [True, False])
def test_echo_similarity_arriving_after_the_words_decides_whether_they_are_an_echo(
    echo: bool,
) -> None:
    table = answering()
    table.plays(1.8)
    table.now += 0.3
    table.starts()
    table.sounds(0.0 if echo else 0.9)
    table.words("something else")
    table.sounds(0.9 if echo else 0.0)
    table.stops()
    table.until(table.now + 5)
    said = [one.text for one in table.told(events.UserTurnFinal)]
    assert ("something else" in said) is not echo


def test_user_who_repeats_words_of_the_reply_is_answered() -> None:
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


def test_user_speech_after_an_echo_is_a_turn_without_the_echo() -> None:
    table = answering()
    table.plays(1.8)
    table.utters("five sticks", 0.4, ECHO_SIMILARITY)
    table.now += 0.1
    table.utters("Seven.", 0.4)
    table.until(table.now + 2)
    assert table.history[-1] == ("user", "Seven.")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("seconds", [0.2, 0.3], ids=["reply not paused", "reply paused"])
def test_backchannel_over_the_last_words_of_a_question_answers_it(
    seconds: float, late: bool, table: Table
) -> None:
    table.says("Book a table.")
    table.replies("Shall I book it now then?")
    table.until(table.now + 1.4)
    table.plays(1.4)
    table.begins(seconds)
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
def test_backchannel_is_kept_in_the_history_and_not_answered(then: str) -> None:
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
    (said,) = [one for one in table.told(events.UserTurnFinal) if one.backchannel]
    assert said == events.UserTurnFinal("mm-hm", backchannel=(began, pytest.approx(began + 0.3)))
    assert ("user", "mm-hm") in table.history
    assert len(table.of(events.GenerateReply)) == 1 + (then == "something is typed")


def test_late_words_of_a_short_utterance_interrupt_the_reply_and_join_the_next_utterance() -> None:
    table = answering()
    table.utters(None, 0.2)  # as short as a cough
    first = table.utterance
    table.now += 0.1
    table.starts()
    table.take(events.RecognizedWords(table.now, first, "Stop.", table.now))
    assert table.endings == [events.ReplyEnding.INTERRUPTED]
    table.now += 0.5
    table.ends("I know that.")
    table.until(table.now + 2)
    assert table.history[-1] == ("user", "Stop. I know that.")


def test_words_recognized_after_typed_text_are_answered_with_it(table: Table) -> None:
    table.utters(None)
    table.types("Cake")
    table.words("and tea.")
    table.until(3.0)
    assert [text for _, text in table.history] == ["Cake", "and tea."]
    assert table.asked[-1].text == "Cake and tea."


def test_echo_by_sound_resumes_the_reply_and_words_found_dissimilar_later_drop_it() -> None:
    table = answering()
    table.begins(0.3)
    assert not table.of(events.ResumeReplyAudio, table.sounds(ECHO_SIMILARITY - 0.01))
    assert table.of(events.ResumeReplyAudio, table.sounds(ECHO_SIMILARITY)) == [
        events.ResumeReplyAudio(1)
    ]
    assert table.of(events.DropReplyAudio, table.sounds(0.1) + table.words("Wait a moment")) == [
        events.DropReplyAudio(1)
    ]


def test_after_an_echo_speech_must_be_louder_and_longer_to_pause_a_reply() -> None:
    table = answering()
    table.utters("", 0.1, ECHO_SIMILARITY)
    assert table.of(events.SetSpeechDetection)[-1] == events.SetSpeechDetection(0.15)
    table.begins(0.39)
    assert not table.of(events.PauseReplyAudio)
    table.until(table.now + 0.02)
    assert table.of(events.PauseReplyAudio)


# Old turns


def test_late_events_of_an_ended_turn_are_dropped() -> None:
    table = answering()
    table.cancels()
    assert table.told(events.ReplyEnded)[-1].text == "One two three…"
    before = table.history
    for event in (
        events.LlmToken(table.now, 1, "More."),
        events.TtsAudio(table.now, 1, 0, silence(1)),
        events.StageEnded(table.now, 1, events.ConversationStage.TTS, 0),
        events.StageFailed(table.now, 1, events.ConversationStage.LLM, BROKEN),
        events.PlaybackReported(table.now, 1, 1.8),
    ):
        assert table.take(event) == []
    assert table.history == before


def test_audio_of_a_piece_that_was_not_requested_is_dropped(table: Table) -> None:
    table.says("Hello?")
    table.thinks("Here is one. Here is the second. Here is the third.")
    assert table.take(events.StageEnded(table.now, 1, events.ConversationStage.TTS, 2)) == []
    assert table.take(events.TtsAudio(table.now, 1, 2, silence(1))) == []
    (sent,) = table.of(
        events.SendReplyAudio, table.take(events.TtsAudio(table.now, 1, 1, silence(1)))
    )
    assert sent.phrase == 1, "0 had no sound"
    assert table.take(events.TtsAudio(table.now, 1, 0, silence(1))) == []
    assert [one.phrase for one in table.of(events.SynthesizeText)] == [0, 1]


# What clients wish


def test_typed_text_is_a_turn_and_ends_the_reply() -> None:
    table = answering()
    out = table.types("  And  you? ")
    assert table.of(events.DropReplyAudio, out)
    assert table.told(events.UserTurnFinal, out) == [events.UserTurnFinal("And  you?")]
    assert table.of(events.GenerateReply, out)[0].turn == 2
    assert table.history[1:] == [("assistant", "One two three…"), ("user", "And  you?")]
    assert table.types("  ") == []


def test_spoken_words_come_before_text_typed_later_and_are_answered_with_it(table: Table) -> None:
    table.utters("I want tea and")
    table.types("cake")
    assert table.history == [("user", "I want tea and"), ("user", "cake")]
    assert table.asked == (ChatMessage(ChatRole.USER, "I want tea and cake"),)


def test_turn_ends_only_by_commit_if_the_client_ends_turns() -> None:
    table = Table(events.ConversationOptions(ends_turns=False))
    table.utters("What is it?")
    table.until(9.0)
    assert not table.of(events.GenerateReply)
    table.commits()
    assert [one.turn for one in table.of(events.GenerateReply)] == [1]


def test_requested_reply_waits_for_the_words_of_the_turn() -> None:
    table = Table(events.ConversationOptions(ends_turns=False, answers=False))
    table.starts()
    table.now = 1.0
    table.commits()
    table.asks()
    table.until(1.2)
    assert not table.of(events.GenerateReply)
    table.words("What is it?")
    assert table.of(events.GenerateReply)[0].messages == (
        ChatMessage(ChatRole.USER, "What is it?"),
    )


def test_without_automatic_answers_a_turn_is_answered_on_request() -> None:
    table = Table(events.ConversationOptions(answers=False))
    table.says("What is it?")
    assert table.history == [("user", "What is it?")]
    assert not table.of(events.GenerateReply)
    table.asks()
    assert table.of(events.GenerateReply)


def test_requested_reply_is_an_error_with_automatic_answers() -> None:
    table = Table()
    assert table.told(events.ConversationError, table.asks())


def test_added_history_entry_is_not_answered_but_given_to_the_llm_with_the_next_turn() -> None:
    table = Table(events.ConversationOptions(instructions="Be brief."))
    table.take(events.HistoryEntryAdded(0.0, ChatRole.USER, "I am Eve."))
    assert not table.of(events.GenerateReply)
    table.types("Who am I?")
    assert table.of(events.GenerateReply)[0].messages == (
        ChatMessage(ChatRole.SYSTEM, "Be brief."),
        ChatMessage(ChatRole.USER, "I am Eve. Who am I?"),
    )


def test_history_entry_added_during_a_reply_follows_it_and_an_older_one_can_be_deleted() -> None:
    table = answering()
    (asked,) = table.told(events.UserTurnFinal)
    (began,) = table.told(events.ReplyStarted)
    noted = events.HistoryEntryRecorded(began.entry + 1, ChatRole.USER, "By the way.", "mine")
    assert noted in table.take(
        events.HistoryEntryAdded(table.now, ChatRole.USER, " By the way. ", "mine")
    )
    table.cancels()
    assert [role for role, _ in table.history] == ["user", "assistant", "user"]
    table.take(events.HistoryEntryDeleted(table.now, asked.entry))
    table.take(events.HistoryEntryDeleted(table.now, 99))
    assert [role for role, _ in table.history] == ["assistant", "user"]


def test_requested_reply_can_have_its_own_options_which_the_next_does_not_have() -> None:
    table = Table(events.ConversationOptions(instructions="Be brief.", answers=False))
    table.says("What is it?")
    table.asks(events.ConversationOptions(instructions="Be long.", voiced=False))
    assert table.asked[0] == ChatMessage(ChatRole.SYSTEM, "Be long.")
    assert not table.told(events.ReplyStarted)[-1].voiced
    table.thinks("It is this.")
    assert not table.of(events.SynthesizeText)
    assert table.history[-1] == ("assistant", "It is this.")
    table.asks()
    assert table.asked[0] == ChatMessage(ChatRole.SYSTEM, "Be brief.")


def test_reply_is_completed_by_synthesis_but_ends_only_after_playback(
    table: Table,
) -> None:
    table.says("What do you count?")
    table.thinks(ANSWER)
    assert (table.talk.replying, table.talk.made) == (1, None)
    table.voices()
    assert (table.talk.replying, table.talk.made) == (1, events.ReplyEnding.COMPLETED)
    assert not table.told(events.ReplyEnded)
    table.plays(float("inf"))
    assert table.told(events.ReplyEnded)[0].text == ANSWER
    assert (table.talk.replying, table.talk.made) == (0, None)


@pytest.mark.parametrize("committed", [False, True])
def test_echo_is_a_turn_only_if_the_client_commits_it(committed: bool) -> None:
    table = answering()
    table.utters(None)
    if committed:
        table.commits()
    table.sounds(ECHO_SIMILARITY)
    table.words("one two three")
    table.until(table.now + 9.0)
    assert (table.history[-1] == ("user", "one two three")) is committed


def test_discarded_turn_stops_its_speculative_reply_and_is_not_in_the_history(table: Table) -> None:
    table.utters("What is it?")
    out = table.take(events.TurnDiscarded(1.1))
    assert table.told(events.UserTurnDropped, out)
    assert events.StopStage(1, events.ConversationStage.LLM) in out
    table.until(9.0)
    assert table.history == []


@pytest.mark.parametrize(("seconds", "text"), [(0.7, "One two…"), (0.0, "")])
def test_truncated_playback_ends_the_reply_and_truncates_it_in_the_history(
    seconds: float, text: str
) -> None:
    table = answering()
    out = table.cuts(seconds)
    assert table.of(events.DropReplyAudio, out) == [events.DropReplyAudio(1)]
    assert table.told(events.ReplyEnded, out)[0].text == text
    assert [entry for role, entry in table.history if role == "assistant"] == [text][: bool(text)]


def test_ended_reply_can_be_truncated_but_not_extended() -> None:
    table = answering()
    table.cancels()
    out = table.cuts(0.5)
    assert table.told(events.ReplyTruncated, out) == [events.ReplyTruncated(1, 0.5, "One two…")]
    table.cuts(9.0)
    assert table.history[-1] == ("assistant", "One two…")
    assert table.cuts(9.0, turn=7) == [events.ReplyTruncated(7, 9.0, "")]


def test_truncation_beyond_the_made_audio_counts_as_all_of_it() -> None:
    table = answering()
    [ended] = table.told(events.ReplyEnded, table.cancels())
    assert 0 < ended.made_s < 9.0
    [cut] = table.told(events.ReplyTruncated, table.cuts(9.0))
    assert cut.seconds == ended.made_s


@pytest.mark.parametrize(
    ("heard_s", "by_the_clock", "played_s", "text"),
    [(0.7, ["One two…"], 1.1, "One two three four…"), (0.0, [], 0.4, "One…")],
)
def test_playback_time_reported_by_client_overrides_the_estimated_one_in_the_history(
    heard_s: float, by_the_clock: list[str], played_s: float, text: str
) -> None:
    table = answering(heard=heard_s)
    table.cancels()
    assert [said for _, said in table.history[1:]] == by_the_clock
    table.cuts(played_s)
    assert table.history[1:] == [("assistant", text)]


def test_reset_ends_the_reply_and_clears_the_history() -> None:
    table = answering()
    out = table.take(events.ConversationReset(table.now))
    assert table.of(events.DropReplyAudio, out) == [events.DropReplyAudio(1)]
    assert table.told(events.ConversationStarted, out) == [events.ConversationStarted()]
    assert table.history == []
    table.says("Hello there.")
    assert table.asked == (ChatMessage(ChatRole.USER, "Hello there."),)
    assert table.of(events.GenerateReply)[-1].turn == 2


def test_changed_options_apply_to_the_turn_that_begins_after_them(table: Table) -> None:
    table.take(
        events.OptionsChanged(0.0, events.ConversationOptions(instructions="Rhyme.", voiced=False))
    )
    table.says("Hello.")
    assert table.of(events.GenerateReply)[0].messages[0] == ChatMessage(ChatRole.SYSTEM, "Rhyme.")
    table.thinks("Hello, fellow.")
    assert not table.of(events.SynthesizeText)
    assert table.told(events.ReplyEnded)[0].text == "Hello, fellow."
    assert table.told(events.ReplyLatency)[0].voiced == 0.0


# What goes wrong


def test_llm_failure_is_an_error_with_a_spoken_apology_and_the_next_turn_is_answered(
    table: Table,
) -> None:
    table.says("Hello?")
    table.fails(events.ConversationStage.LLM)
    assert table.told(events.ConversationError) == [events.ConversationError(1, BROKEN)]
    assert table.spoken == [APOLOGY]
    table.voices()
    table.plays(99)
    assert table.endings[0] is events.ReplyEnding.FAILED
    assert table.history == [("user", "Hello?")]
    table.now += 1
    table.says("Again?")
    table.replies("Hello!")
    table.plays(99)
    assert table.history[1:] == [("user", "Again?"), ("assistant", "Hello!")]


def test_text_generated_before_an_llm_failure_is_spoken_and_the_reply_fails(table: Table) -> None:
    table.says("Hello?")
    table.thinks("First of all, this. And", ended=False)
    table.fails(events.ConversationStage.LLM)
    table.voices()
    assert table.spoken == ["First of all,", "this. And"]
    table.plays(99)
    assert table.endings[0] is events.ReplyEnding.FAILED


def test_tts_failure_is_an_error_and_its_reply_is_sent_as_text(table: Table) -> None:
    table.says("Hello?")
    table.thinks("Hello to you. How are you today?")
    table.fails(events.ConversationStage.TTS)
    assert table.told(events.ConversationError) == [events.ConversationError(1, BROKEN)]
    assert table.told(events.ReplyEnded)[0].text == "Hello to you. How are you today?"
    assert events.StopStage(1, events.ConversationStage.TTS) in table.all


def test_recognizer_failure_is_an_error_with_a_spoken_apology(table: Table) -> None:
    table.utters(None)
    table.until(1.1)
    table.fails(events.ConversationStage.RECOGNIZER)
    table.until(1.5)
    assert table.told(events.ConversationError)[0].error is BROKEN
    assert table.spoken == [APOLOGY]
    table.voices()
    assert table.told(events.ReplyLatency)[0].thought == 0.0
    table.plays(99)
    assert table.phase is events.ConversationPhase.IDLE


@pytest.mark.parametrize(
    ("options", "asks"),
    [
        (events.ConversationOptions(answers=False), False),
        (events.ConversationOptions(ends_turns=False, answers=False), False),
        (events.ConversationOptions(ends_turns=False, answers=False), True),
    ],
    ids=["not answered", "committed", "requested"],
)
def test_recognizer_failure_is_answered_only_if_a_reply_was_to_come(
    options: events.ConversationOptions, asks: bool
) -> None:
    table = Table(options)
    table.utters(None)
    if not options.ends_turns:
        table.commits()
    if asks:
        table.asks()
    table.until(1.1)
    table.fails(events.ConversationStage.RECOGNIZER)
    table.until(1.5)
    assert [one.failure for one in table.told(events.UserTurnStopped)] == [BROKEN]
    assert table.told(events.ConversationError) == [events.ConversationError(int(asks), BROKEN)]
    assert len(table.told(events.ReplyStarted)) == asks
    assert len(table.told(events.UserTurnDropped)) == (not asks)


@pytest.mark.parametrize("typed", [False, True], ids=["reply goes on", "text typed"])
def test_recognizer_failure_during_a_reply_is_one_error_and_does_not_end_the_reply(
    typed: bool,
) -> None:
    table = answering(events.ConversationOptions(interruptible=not typed), heard=0.5)
    table.utters(None)
    table.fails(events.ConversationStage.RECOGNIZER, table.utterance)
    if typed:
        table.types("Never mind.")
    assert table.told(events.ConversationError) == [events.ConversationError(0, BROKEN)]
    table.plays(99)
    ending = events.ReplyEnding.INTERRUPTED if typed else events.ReplyEnding.COMPLETED
    assert table.endings == [ending]


@pytest.mark.parametrize("pauses", [False, True])
def test_dropped_noise_over_a_reply_is_no_error(pauses: bool) -> None:
    table = answering(heard=0.5)
    table.utters(None, 2.0 if pauses else 0.1)
    dropped = errors.UtteranceDropped()
    stage = events.ConversationStage.RECOGNIZER
    table.take(events.StageFailed(table.now, table.utterance, stage, dropped))
    table.words("")
    table.plays(99)
    assert table.endings == [events.ReplyEnding.COMPLETED]
    assert table.errors == []
    assert len(table.told(events.ReplyStarted)) == 1


def test_recognizer_failure_before_any_speech_is_an_error(table: Table) -> None:
    table.fails(events.ConversationStage.RECOGNIZER, events.UNKNOWN_UTTERANCE)
    assert table.told(events.ConversationError) == [events.ConversationError(0, BROKEN)]
    assert table.phase is events.ConversationPhase.IDLE


def test_words_recognized_before_a_recognizer_failure_are_a_turn_with_an_error(
    table: Table,
) -> None:
    table.starts()
    table.now = 1.0
    table.words("Where is", upto=0.8)
    table.stops()
    table.until(1.1)
    table.fails(events.ConversationStage.RECOGNIZER)
    table.until(2.5)
    assert table.history == [("user", "Where is")]
    assert table.told(events.ConversationError) == [events.ConversationError(0, BROKEN)]


def test_empty_reply_is_an_error_with_something_spoken_instead(table: Table) -> None:
    table.says("Hello?")
    table.thinks("  ")
    assert [one.error.code for one in table.told(events.ConversationError)] == ["reply_empty"]
    assert len(table.of(events.SynthesizeText)) == 1


@pytest.mark.parametrize("stage", ["thinker", "voice", "ear", "recognizer"])
def test_stage_that_never_answers_is_an_error_and_its_reply_ends_as_failed(
    stage: str, table: Table
) -> None:
    if stage == "recognizer":
        table.utters(None)
    else:
        table.says("Hello?")
        if stage != "thinker":
            table.thinks(ANSWER)
        if stage == "ear":
            table.voices()
    table.until(table.now + 200)
    assert "stage_silent" in [one.error.code for one in table.told(events.ConversationError)]
    assert table.phase is events.ConversationPhase.IDLE
    assert table.endings[-1] is events.ReplyEnding.FAILED


# Bounds


def test_reply_is_limited_in_seconds_of_audio() -> None:
    table = Table(events.ConversationOptions(longest_reply_s=1.0))
    table.says("Count!")
    table.thinks("One two three. Four five six. Seven", ended=False)
    table.voices()
    assert events.StopStage(1, events.ConversationStage.LLM) in table.all
    assert events.StopStage(1, events.ConversationStage.TTS) in table.all
    assert sum(one.audio.seconds for one in table.of(events.SendReplyAudio)) <= 1.0
    table.plays(99)
    (ended,) = table.told(events.ReplyEnded)
    assert ended.ending is events.ReplyEnding.LIMITED
    assert ended.text in ("One two three. …", "One two three. Four…")


def test_reply_is_limited_in_bytes_of_text() -> None:
    table = Table(events.ConversationOptions(voiced=False, most_bytes=20))
    table.says("Count!")
    table.thinks("ä" * 11, ended=False)
    assert table.told(events.ReplyTextDelta) == [events.ReplyTextDelta(1, "ä" * 10)]
    assert table.endings[0] is events.ReplyEnding.LIMITED


def test_tts_is_given_at_most_two_pieces_at_once(table: Table) -> None:
    table.says("Hello?")
    table.thinks("Here is the first. Here is the second. Here is the third. Here is the last.")
    assert [one.phrase for one in table.of(events.SynthesizeText)] == [0, 1]
    table.take(events.StageEnded(table.now, 1, events.ConversationStage.TTS, 0))
    assert [one.phrase for one in table.of(events.SynthesizeText)] == [0, 1, 2]


def test_backchannels_are_answered_with_the_commit_if_the_client_ends_turns() -> None:
    table = Table(events.ConversationOptions(ends_turns=False))
    table.types("Book a table.")
    table.replies("Shall I book a table for two at seven then?")
    table.until(table.now + 0.5)
    table.plays(0.5)
    for _ in range(2):
        table.begins(0.3)
        table.ends("Yes.")
    table.until(table.now + 3)
    table.plays(10.0)
    table.until(table.now + 3)
    assert table.told(events.ReplyEnded)
    table.commits()
    assert [one.text for one in table.told(events.UserTurnFinal)][1:] == ["Yes. Yes."]
    assert table.asked[-1].text == "Yes. Yes."


def test_speech_first_taken_for_an_echo_starts_a_turn_with_its_first_words() -> None:
    table = answering()
    table.begins(0.3)
    table.sounds(ECHO_SIMILARITY)
    table.plays(1.8)
    table.until(table.now + 0.5)
    started = len(table.told(events.UserTurnStarted))
    table.sounds(0.1)
    table.words("Seven is")
    assert len(table.told(events.UserTurnStarted)) == started + 1
    assert table.told(events.UserTurnPartial)[-1].text == "Seven is"
