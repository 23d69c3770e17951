"""The small rules of a conversation, each as a table."""

import gc
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.interfaces.engine_interface import SynthesisOptions, SynthesizedAudio, WordMark
from sidecar.interfaces.tts_text import TtsPhrase, normalized_words
from sidecar.plugins.conversation import barge_in
from sidecar.plugins.conversation.chat_completions import ChatMessage, ChatRole, RepeatLlm
from sidecar.plugins.conversation.chat_history import ChatHistory, ReplyText, truncate_utf8
from sidecar.plugins.conversation.conversation_events import (
    ConversationStage,
    EndOfTurnDelays,
    GenerateReply,
)
from sidecar.plugins.conversation.conversation_loop import ConversationTasks
from sidecar.plugins.conversation.end_of_turn import end_of_turn_delay_s

RATE = 1000


TEXTS_BY_DELAY_S = {
    0.2: (
        *("I like it.", "Is it?", "Stop!", "そうです。", "هل هذا صحيح؟", 'He said "yes."'),
        "A very long story that goes on and on and on, and then it ends, as all do, in tea.",
        *("That is what it is for.", "one two.", "I am 42.", "It was 1984."),
    ),
    0.3: ("", "I like it." + '"' * 100, "I like it", "No", "Take one"),
    0.8: ("Well,", "the following:", "そして、"),
    1.0: (
        *("I want tea and", "I want tea and.", "because", "ich mag das und", "Go to"),
        *("I think...", "I think…", "My number is four one five", "four one five."),
        *("0171 55", "0171 5555.", "I talked to Mr.", "ask for Dr.", "written by J."),
    ),
    1.5: ("um", "I would like, um.", "えっと"),
}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(text, seconds) for seconds, texts in TEXTS_BY_DELAY_S.items() for text in texts],
)
def test_end_of_turn_delay_is_short_after_a_sentence_and_long_after_an_unfinished_one(
    text: str, seconds: float
) -> None:
    assert end_of_turn_delay_s(text) == pytest.approx(seconds)


def test_end_of_turn_delay_is_longer_for_slow_speech_up_to_the_usual_delay() -> None:
    text = "I like it very much."
    assert len({end_of_turn_delay_s(text, rate) for rate in (None, 2.5, 5.0)}) == 1
    assert end_of_turn_delay_s(text, 2.0) == pytest.approx(0.25)
    assert end_of_turn_delay_s(text, 0.01) == pytest.approx(0.3)
    assert end_of_turn_delay_s("Yes.", 0.5) == pytest.approx(0.2)
    assert end_of_turn_delay_s("I like it very much and um", 1.0) == pytest.approx(1.5)


def test_end_of_turn_delays_are_scaled_or_replaced_by_the_clients_settings() -> None:
    eager = EndOfTurnDelays(scale=0.5)
    assert end_of_turn_delay_s("um", delays=eager) == pytest.approx(0.75)
    patient = EndOfTurnDelays(1.2, 1.4, 1.6)
    assert end_of_turn_delay_s("Well,", delays=patient) == pytest.approx(1.4)
    assert end_of_turn_delay_s("Tea and", delays=patient) == pytest.approx(1.4)
    assert end_of_turn_delay_s("Tea.", delays=patient) == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("text", "heard", "silent"),
    [
        ("", False, False),
        ("mm-hm", False, True),
        ("Mm hmm.", False, True),
        ("I see.", False, True),
        ("Yeah, yeah, yeah", False, True),
        ("um", False, False),
        ("はい", False, True),
        ("ja genau", True, True),
        ("Wait", True, True),
        ("Paris?", True, True),
        ("yes but no", True, True),
    ],
)
def test_backchannel_interrupts_a_reply_only_before_it_is_audible_and_other_words_always(
    text: str, heard: bool, silent: bool
) -> None:
    assert barge_in.interrupts_reply(text, audible=True) is heard
    assert barge_in.interrupts_reply(text, audible=False) is silent


SAYING = "The capital of France is Paris, and it lies on the river Seine."


@pytest.mark.parametrize(
    ("text", "own"),
    [
        *((text, True) for text in ("the capital of France", "capital France is", "Paris")),
        *((text, True) for text in ("and it lies on the river scene", "lies on river seine")),
        *((text, True) for text in ("the Seine", "the capital of Spain")),
        *((text, False) for text in ("and it flies on a river scene", "France of capital")),
        *((text, False) for text in ("and it lies stop river Seine", "the city of Spain")),
        *((text, False) for text in ("Spain", "", "stop")),
    ],
)
def test_words_are_the_replys_own_if_similar_to_its_words_and_in_their_order(
    text: str, own: bool
) -> None:
    assert barge_in.is_own_words(text, SAYING) is own
    assert not barge_in.is_own_words("stop", "Please stop here.")
    assert barge_in.is_own_words("stop here", "Please stop here.")


@pytest.mark.parametrize(
    ("likeness", "own", "other"),
    [(0.0, False, False), (0.69, False, False), (0.7, True, False), (0.85, True, True)],
)
def test_words_of_the_reply_are_an_echo_at_a_lower_similarity_than_other_words(
    likeness: float, own: bool, other: bool
) -> None:
    assert barge_in.is_echo("Paris", likeness, SAYING) is own
    assert barge_in.is_echo("pair is", likeness, SAYING) is other
    assert not barge_in.is_echo("", likeness, SAYING)


def sounded(text: str, seconds: float, *, whole: bool = True, marks: bool = False) -> ReplyText:
    reply = ReplyText()
    reply.add(TtsPhrase(text, text), silent=False)
    words = text.split()
    given = tuple(
        WordMark(len(" ".join(words[:n])) + bool(n), n * seconds / len(words))
        for n in range(len(words))
    )
    pcm = bytes(2 * round(seconds * RATE))
    reply.sounded(0, SynthesizedAudio(pcm, RATE, given if marks else ()))
    if whole:
        reply.end_audio(0)
    return reply


@pytest.mark.parametrize("marks", [True, False])
@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, ""),
        (0.4, ""),
        (0.6, "aaaa…"),
        (1.6, "aaaa bbbb…"),
        (2.6, "aaaa bbbb, cccc…"),
        (3.3, "aaaa bbbb, cccc…"),
        (3.9, "aaaa bbbb, cccc dddd."),
        (4.0, "aaaa bbbb, cccc dddd."),
    ],
)
def test_word_is_heard_once_its_middle_was_played(seconds: float, text: str, marks: bool) -> None:
    reply = sounded("aaaa bbbb, cccc dddd.", 4.0, marks=marks)
    assert reply.heard_text(seconds) == text


def test_words_heard_of_a_piece_still_being_synthesized_are_estimated_from_its_text() -> None:
    text = "word " * 30
    reply = sounded(text.strip(), 2.0, whole=False)  # 149 columns: ten seconds, as far as one knows
    assert 5 <= len(reply.heard_text(2.0).split()) <= 7


def test_heard_text_of_a_reply_keeps_emphasis_and_links_of_the_shown_text() -> None:
    reply = ReplyText()
    shown = "See **the** [best docs](https://x.org) of `all` times. "
    reply.add(TtsPhrase(shown, "See the best docs of all times."), silent=False)
    reply.sounded(0, SynthesizedAudio(bytes(2 * 7 * RATE), RATE))
    reply.end_audio(0)
    assert reply.heard_text(7.0) == shown.strip()
    assert reply.heard_text(3.5).startswith("See **the** [best docs")
    assert "times" not in reply.heard_text(5.0)


def test_unspoken_text_counts_as_heard_with_the_text_before_it() -> None:
    reply = sounded("Look:", 1.0)
    reply.add(TtsPhrase("\n```\na = 1\n```\n", ""), silent=False)
    reply.add(TtsPhrase("Done.", "Done."), silent=False)
    assert reply.heard_text(0.9) == "Look…"
    assert reply.heard_text(1.0) == "Look:\n```\na = 1\n```…"
    assert reply.around(0.5) == "Look:"


def test_heard_text_of_a_limited_reply_ends_with_the_last_words_that_had_audio() -> None:
    reply = sounded("aaaa bbbb cccc dddd.", 1.0, whole=False)  # of the 1.3 s it seems to take
    reply.add(TtsPhrase(" More.", "More."), silent=False)
    reply.limit(0)
    assert len(reply.parts) == 1
    assert reply.heard_text(1.0) == "aaaa bbbb cccc…"
    reply = sounded("aaaa.", 1.0)
    reply.add(TtsPhrase(" More.", "More."), silent=False)
    reply.limit(1)
    assert reply.heard_text(1.0) == "aaaa. …"


def test_reply_text_around_a_playback_time_is_that_of_the_pieces_near_it() -> None:
    reply = ReplyText()
    for number, text in enumerate(["One.", "Two.", "Three."]):
        reply.add(TtsPhrase(text, text), silent=False)
        reply.sounded(number, SynthesizedAudio(bytes(2 * 10 * RATE), RATE))
    assert reply.around(5.0) == "One."
    assert reply.around(9.5) == "One. Two."
    assert reply.around(17.0) == "Two."
    assert reply.around(30.0) == "Three."


@pytest.mark.parametrize("text", ["That is 1½", "Wait."])
def test_word_marks_beyond_the_text_of_a_reply_are_ignored(text: str) -> None:
    reply = ReplyText()
    reply.add(TtsPhrase(text, text), silent=False)
    marks = tuple(WordMark(at, at / 10) for at in (0, len(text), len(text) + 1))
    reply.sounded(0, SynthesizedAudio(bytes(2 * 2 * RATE), RATE, marks))
    assert reply.heard_text(0.0) == ""
    reply.end_audio(0)
    for seconds in (1.9, 2.0):
        assert reply.heard_text(seconds) == text


def test_reply_dropped_from_a_full_history_still_returns_its_heard_text() -> None:
    history = ChatHistory(most=2)
    history.begin(1, ReplyText())
    for number in range(2):
        history.add(ChatRole.USER, f"{number}")
    assert history.replied(1, " heard ") == "heard"
    assert [entry.text for entry in history.entries] == ["0", "1"]


def test_adjacent_history_entries_of_one_role_are_one_message() -> None:
    history = ChatHistory()
    history.add(ChatRole.USER, "One.")
    history.add(ChatRole.USER, "Two.")
    history.add(ChatRole.ASSISTANT, "Three.")
    history.add(ChatRole.USER, "   ")
    assert history.messages("Be brief.", "Four.") == (
        ChatMessage(ChatRole.SYSTEM, "Be brief."),
        ChatMessage(ChatRole.USER, "One. Two."),
        ChatMessage(ChatRole.ASSISTANT, "Three."),
        ChatMessage(ChatRole.USER, "Four."),
    )


def test_history_entry_is_added_after_the_named_one_or_last_if_that_is_unknown() -> None:
    history = ChatHistory()
    first = history.add(ChatRole.USER, "2")
    history.add(ChatRole.USER, "4")
    history.add(ChatRole.USER, "3", first.number)
    history.add(ChatRole.USER, "1", 0)
    history.add(ChatRole.USER, "5", 99)
    assert [entry.text for entry in history.entries] == ["1", "2", "3", "4", "5"]


def test_full_history_drops_an_answer_with_its_question() -> None:
    history = ChatHistory(most=3)
    for number in range(5):
        history.add(ChatRole.USER if number % 2 == 0 else ChatRole.ASSISTANT, str(number))
    assert [entry.text for entry in history.entries] == ["2", "3", "4"]
    history.add(ChatRole.USER, "5")
    assert [entry.text for entry in history.entries] == ["4", "5"]


def test_full_history_keeps_a_system_message_at_the_beginning() -> None:
    history = ChatHistory(most=4)
    system = history.add(ChatRole.SYSTEM, "Rules.")
    for number in range(8):
        history.add(ChatRole.USER if number % 2 == 0 else ChatRole.ASSISTANT, str(number))
    assert [entry.text for entry in history.entries] == ["Rules.", "6", "7"]
    history.add(ChatRole.USER, "8")
    history.add(ChatRole.USER, "5", system.number)  # behind it: it is old, and stays
    assert [entry.text for entry in history.entries] == ["Rules.", "5", "7", "8"]
    history.delete(system.number)
    for number in range(4):
        history.add(ChatRole.USER, f"u{number}")
    assert [entry.text for entry in history.entries] == ["u0", "u1", "u2", "u3"]


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60), most=st.integers(3, 40))
def test_text_over_a_byte_limit_is_cut_to_fit_and_ends_with_an_ellipsis(
    text: str, most: int
) -> None:
    found = truncate_utf8(text, most)
    assert len(found.encode(errors="replace")) <= most
    if len(text.encode(errors="replace")) <= most:
        assert found == text
    else:
        assert found.endswith("…")
        assert text.startswith(found[:-1])


def test_normalized_words_have_no_capitals_and_no_punctuation() -> None:
    found = normalized_words("Hello, WORLD! -- It's 3.5 Ünder_way…")
    assert " ".join(found) == "hello world its 35 ünderway"


async def test_llm_stage_stopped_before_it_began_causes_no_runtime_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    gc.collect()  # what other tests have left is not meant
    recwarn.clear()
    stages = ConversationTasks(
        RepeatLlm(), None, SynthesisOptions(), time.monotonic, lambda event: None
    )
    stages.start_llm(GenerateReply(1, ()))
    stages.stop(1, ConversationStage.LLM)
    await stages.close()
    gc.collect()
    assert [str(one.message) for one in recwarn if one.category is RuntimeWarning] == []
