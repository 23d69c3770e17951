"""The small rules of a conversation, each as a table."""

from __future__ import annotations

import gc
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.conversation import barge_in
from sidecar.conversation.barge_in import BargeInDecision, continues_turn, decide_barge_in
from sidecar.conversation.chat_completions import ChatMessage, ChatRole, RepeatLlm
from sidecar.conversation.chat_history import ChatHistory, ReplyText, truncate_utf8
from sidecar.conversation.conversation_events import (
    ConversationStage,
    EndOfTurnDelays,
    GenerateReply,
)
from sidecar.conversation.conversation_loop import ConversationTasks
from sidecar.conversation.end_of_turn import end_of_turn_delay_s
from sidecar.conversation.tts_text import TtsPhrase, normalized_words
from sidecar.interfaces.engine_interface import SynthesisOptions, SynthesizedAudio, WordMark

RATE = 1000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0.3),
        ("I like it.", 0.2),
        ("Is it?", 0.2),
        ("I like it." + '"' * 100, 0.3),
        ("A very long story that goes on and on and on, and then it ends, as all do, in tea.", 0.2),
        ("Stop!", 0.2),
        ("そうです。", 0.2),
        ("هل هذا صحيح؟", 0.2),
        ('He said "yes."', 0.2),
        ("I like it", 0.3),
        ("No", 0.3),
        ("Well,", 0.8),
        ("the following:", 0.8),
        ("そして、", 0.8),
        ("I want tea and", 1.0),
        ("I want tea and.", 1.0),
        ("because", 1.0),
        ("ich mag das und", 1.0),
        ("Go to", 1.0),
        ("That is what it is for.", 0.2),
        ("I think...", 1.0),
        ("I think…", 1.0),
        ("My number is four one five", 1.0),
        ("four one five.", 1.0),
        ("0171 55", 1.0),
        ("0171 5555.", 1.0),
        ("one two.", 0.2),
        ("I am 42.", 0.2),
        ("It was 1984.", 0.2),
        ("Take one", 0.3),
        ("um", 1.5),
        ("I would like, um.", 1.5),
        ("えっと", 1.5),
    ],
)
def test_a_pause_ends_a_turn_by_what_was_said(text: str, seconds: float) -> None:
    assert end_of_turn_delay_s(text) == pytest.approx(seconds)


def test_who_speaks_slowly_is_waited_for() -> None:
    text = "I like it very much."
    assert len({end_of_turn_delay_s(text, rate) for rate in (None, 2.5, 5.0)}) == 1
    assert end_of_turn_delay_s(text, 2.0) == pytest.approx(0.25)
    assert end_of_turn_delay_s(text, 0.01) == pytest.approx(0.3)
    assert end_of_turn_delay_s("Yes.", 0.5) == pytest.approx(0.2)
    assert end_of_turn_delay_s("I like it very much and um", 1.0) == pytest.approx(1.5)


def test_patience_is_what_the_client_says() -> None:
    eager = EndOfTurnDelays(scale=0.5)
    assert end_of_turn_delay_s("um", settings=eager) == pytest.approx(0.75)
    patient = EndOfTurnDelays(1.2, 1.4, 1.6)
    assert end_of_turn_delay_s("Well,", settings=patient) == pytest.approx(1.4)
    assert end_of_turn_delay_s("Tea and", settings=patient) == pytest.approx(1.4)
    assert end_of_turn_delay_s("Tea.", settings=patient) == pytest.approx(1.2)


@pytest.mark.parametrize(
    "wrong", [(-1, 0.3, 1.5), (0.4, 0.3, 1.5), (0.1, 2, 1.5), (0, 0, math.inf)]
)
def test_no_patience_is_impossible(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="ascending order"):
        EndOfTurnDelays(*wrong)
    with pytest.raises(ValueError, match="above 0"):
        EndOfTurnDelays(scale=0)


@pytest.mark.parametrize(
    ("text", "heard", "silent"),
    [
        ("", BargeInDecision.GOES_ON, BargeInDecision.GOES_ON),
        ("mm-hm", BargeInDecision.GOES_ON, BargeInDecision.OVER),
        ("Mm hmm.", BargeInDecision.GOES_ON, BargeInDecision.OVER),
        ("I see.", BargeInDecision.GOES_ON, BargeInDecision.OVER),
        ("Yeah, yeah, yeah", BargeInDecision.GOES_ON, BargeInDecision.OVER),
        ("um", BargeInDecision.GOES_ON, BargeInDecision.GOES_ON),
        ("はい", BargeInDecision.GOES_ON, BargeInDecision.OVER),
        ("ja genau", BargeInDecision.OVER, BargeInDecision.OVER),
        ("Wait", BargeInDecision.OVER, BargeInDecision.OVER),
        ("Paris?", BargeInDecision.OVER, BargeInDecision.OVER),
        ("yes but no", BargeInDecision.OVER, BargeInDecision.OVER),
    ],
)
def test_words_over_a_reply_decide(
    text: str, heard: BargeInDecision, silent: BargeInDecision
) -> None:
    assert decide_barge_in(text, settled=True, audible=True) is heard
    assert decide_barge_in(text, settled=True, audible=False) is silent
    later = decide_barge_in(text, settled=False, audible=True)
    assert later is (
        BargeInDecision.OVER if heard is BargeInDecision.OVER else BargeInDecision.OPEN
    )
    assert continues_turn(text) is (silent is BargeInDecision.OVER)
    polite = barge_in.is_backchannel(text) or not text
    assert polite is (heard is not BargeInDecision.OVER)


SAYING = "The capital of France is Paris, and it lies on the river Seine."


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("the capital of France", True),
        ("capital France is", True),
        ("Paris", True),
        ("and it lies on the river scene", True),
        ("and it flies on a river scene", False),
        ("and it lies stop river Seine", False),
        ("lies on river seine", True),
        ("the Seine", True),
        ("France of capital", False),
        ("the capital of Spain", True),
        ("the city of Spain", False),
        ("Spain", False),
        ("", False),
        ("stop", False),
    ],
)
def test_own_words_are_words_of_what_is_said_in_their_order(text: str, own: bool) -> None:
    assert barge_in.is_own_words(text, SAYING) is own
    assert not barge_in.is_own_words("stop", "Please stop here.")
    assert barge_in.is_own_words("stop here", "Please stop here.")


@pytest.mark.parametrize(
    ("likeness", "own", "other"),
    [(0.0, False, False), (0.69, False, False), (0.7, True, False), (0.85, True, True)],
)
def test_words_are_an_echo_by_the_sound_alone_and_their_own_need_less_of_it(
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
        reply.said(0)
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
def test_a_word_was_heard_when_its_middle_was(seconds: float, text: str, marks: bool) -> None:
    reply = sounded("aaaa bbbb, cccc dddd.", 4.0, marks=marks)
    assert reply.heard(seconds) == text


def test_how_long_a_piece_will_be_is_guessed_while_its_voice_speaks() -> None:
    text = "word " * 30
    reply = sounded(text.strip(), 2.0, whole=False)  # 149 columns: ten seconds, as far as one knows
    assert 5 <= len(reply.heard(2.0).split()) <= 7


def test_a_word_that_is_cut_by_emphasis_or_a_link_is_found_in_what_is_shown() -> None:
    reply = ReplyText()
    shown = "See **the** [best docs](https://x.org) of `all` times. "
    reply.add(TtsPhrase(shown, "See the best docs of all times."), silent=False)
    reply.sounded(0, SynthesizedAudio(bytes(2 * 7 * RATE), RATE))
    reply.said(0)
    assert reply.heard(7.0) == shown.strip()
    assert reply.heard(3.5).startswith("See **the** [best docs")
    assert "times" not in reply.heard(5.0)


def test_what_no_voice_says_counts_with_what_stands_before_it() -> None:
    reply = sounded("Look:", 1.0)
    reply.add(TtsPhrase("\n```\na = 1\n```\n", ""), silent=False)
    reply.add(TtsPhrase("Done.", "Done."), silent=False)
    assert reply.heard(0.9) == "Look…"
    assert reply.heard(1.0) == "Look:\n```\na = 1\n```…"
    assert reply.around(0.5) == "Look:"


def test_a_reply_that_is_limited_ends_with_the_words_that_had_a_sound() -> None:
    reply = sounded("aaaa bbbb cccc dddd.", 1.0, whole=False)  # of the 1.3 s it seems to take
    reply.add(TtsPhrase(" More.", "More."), silent=False)
    reply.limit(0)
    assert len(reply.parts) == 1
    assert reply.heard(1.0) == "aaaa bbbb cccc…"
    reply = sounded("aaaa.", 1.0)
    reply.add(TtsPhrase(" More.", "More."), silent=False)
    reply.limit(1)
    assert reply.heard(1.0) == "aaaa. …"


def test_what_is_said_about_a_moment_is_its_pieces() -> None:
    reply = ReplyText()
    for number, text in enumerate(["One.", "Two.", "Three."]):
        reply.add(TtsPhrase(text, text), silent=False)
        reply.sounded(number, SynthesizedAudio(bytes(2 * 10 * RATE), RATE))
    assert reply.around(5.0) == "One."
    assert reply.around(9.5) == "One. Two."
    assert reply.around(17.0) == "Two."
    assert reply.around(30.0) == "Three."


def test_neighbours_of_one_role_are_one_message() -> None:
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


def test_an_entry_stands_behind_the_one_that_is_named() -> None:
    history = ChatHistory()
    first = history.add(ChatRole.USER, "2")
    history.add(ChatRole.USER, "4")
    history.add(ChatRole.USER, "3", first.number)
    history.add(ChatRole.USER, "1", 0)
    history.add(ChatRole.USER, "5", 99)
    assert [entry.text for entry in history.entries] == ["1", "2", "3", "4", "5"]


def test_a_history_does_not_begin_with_an_answer_to_what_is_gone() -> None:
    history = ChatHistory(most=3)
    for number in range(5):
        history.add(ChatRole.USER if number % 2 == 0 else ChatRole.ASSISTANT, str(number))
    assert [entry.text for entry in history.entries] == ["2", "3", "4"]
    history.add(ChatRole.USER, "5")
    assert [entry.text for entry in history.entries] == ["4", "5"]


def test_a_system_message_at_the_beginning_stays_when_old_turns_are_dropped() -> None:
    history = ChatHistory(most=4)
    system = history.add(ChatRole.SYSTEM, "Rules.")
    for number in range(8):
        history.add(ChatRole.USER if number % 2 == 0 else ChatRole.ASSISTANT, str(number))
    assert [entry.text for entry in history.entries] == ["Rules.", "6", "7"]
    history.add(ChatRole.USER, "8")
    history.add(ChatRole.USER, "5", system.number)  # behind it: it is old, and stays
    assert [entry.text for entry in history.entries] == ["Rules.", "5", "7", "8"]
    history.drop(system.number)
    for number in range(4):
        history.add(ChatRole.USER, f"u{number}")
    assert [entry.text for entry in history.entries] == ["u0", "u1", "u2", "u3"]


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60), most=st.integers(3, 40))
def test_a_text_is_so_many_bytes_at_most(text: str, most: int) -> None:
    found = truncate_utf8(text, most)
    assert len(found.encode(errors="replace")) <= most
    if len(text.encode(errors="replace")) <= most:
        assert found == text
    else:
        assert found.endswith("…")
        assert text.startswith(found[:-1])


def test_words_are_compared_without_case_and_marks() -> None:
    found = normalized_words("Hello, WORLD! -- It's 3.5 Ünder_way…")
    assert " ".join(found) == "hello world its 35 ünderway"


async def test_a_stage_that_is_stopped_before_it_began_leaves_nothing_that_python_misses(
    recwarn: pytest.WarningsRecorder,
) -> None:
    gc.collect()  # what other tests have left is not meant
    recwarn.clear()
    stages = ConversationTasks(
        RepeatLlm(), None, SynthesisOptions(), time.monotonic, lambda event: None
    )
    stages.think(GenerateReply(1, ()))
    stages.stop(1, ConversationStage.THINKER)
    await stages.close()
    gc.collect()
    assert [str(one.message) for one in recwarn if one.category is RuntimeWarning] == []
