"""What both said, as a transcript."""

from sidecar.plugins.conversation import conversation_events as told
from sidecar.plugins.conversation.audio_pacing import ReplyAudioFrame
from sidecar.plugins.conversation.chat_completions import ChatRole
from sidecar.plugins.realtime.dialogue_events import (
    ASSISTANT,
    MAX_CHARACTERS,
    MAX_ENTRIES,
    USER,
    ConversationTranscript,
)
from sidecar.transcripts.transcript import Transcript


def written(account: ConversationTranscript, at: float = 90.0) -> Transcript:
    return account.transcript(
        at, engine="x", precision="fp32", language="en", assistant="Machine (repeat)"
    )


def rows(transcript: Transcript) -> list[tuple[int | None, float, float, str]]:
    return [(one.speaker, one.start, one.end, one.text) for one in transcript.segments]


def test_segments_of_a_conversation_transcript_have_their_times_and_order() -> None:
    account = ConversationTranscript(10.0)
    for at, one in (
        (12.3, told.UserTurnStarted(1, 12.0)),
        (12.9, told.UserTurnPartial("Good")),
        (13.4, told.UserTurnStopped(13.0)),
        (13.4, told.UserTurnFinal("Good day.")),
        (13.4, told.ReplyStarted(1)),
        (13.6, told.ReplyTextDelta(1, "You said: Good day.")),
        (13.7, ReplyAudioFrame(1, bytes(2), 1, 0.0)),
        (14.5, ReplyAudioFrame(1, bytes(2), 1, 1.0)),
        (15.0, told.ReplyEnded(1, told.ReplyEnding.INTERRUPTED, "You said: Good…", 2.0)),
        (15.0, told.UserTurnStarted(2, 14.6)),
        (15.1, told.ReplyTruncated(1, 1.0, "You said:…")),
        (15.4, told.UserTurnPartial("But I")),
    ):
        account.take(one, at)
    transcript = written(account, 16.0)
    assert rows(transcript) == [
        (USER, 2.0, 3.0, "Good day."),
        (ASSISTANT, 3.7, 5.0, "You said:…"),
        (USER, 4.6, 6.0, "But I"),
    ]
    assert transcript.name_of(ASSISTANT) == "Machine (repeat)"
    assert transcript.name_of(USER) is None
    assert transcript.duration == 6.0


def test_noise_instructions_and_unheard_replies_are_not_in_the_transcript() -> None:
    account = ConversationTranscript(0.0)
    for at, one in (
        (1.0, told.UserTurnStarted(1, 1.0)),
        (1.2, told.UserTurnPartial("hm")),
        (1.3, told.UserTurnDropped()),
        (2.0, told.HistoryEntryRecorded(1, ChatRole.USER, "Typed.")),
        (2.0, told.HistoryEntryRecorded(2, ChatRole.SYSTEM, "Be brief.")),
        (2.0, told.ReplyStarted(3)),
        (2.5, told.ReplyEnded(3, told.ReplyEnding.CANCELLED, "", 0.2)),
        (2.6, told.ReplyEnded(3, told.ReplyEnding.CANCELLED, "twice", 0.2)),
    ):
        account.take(one, at)
    assert rows(written(account)) == [(USER, 2.0, 2.0, "Typed.")]
    assert written(account).voices == ()


def test_transcript_of_an_endless_conversation_keeps_its_last_entries() -> None:
    account = ConversationTranscript(0.0)
    for at in range(MAX_ENTRIES + 7):
        account.take(told.UserTurnFinal(str(at)), float(at))
    assert [one.text for one in written(account, 1e6).segments][:1] == ["7"]


def test_backchannel_is_a_segment_at_its_time_and_splits_no_reply() -> None:
    account = ConversationTranscript(10.0)
    for at, one in (
        (11.0, told.ReplyStarted(1)),
        (11.0, ReplyAudioFrame(1, bytes(2), 1, 0.0)),
        (15.0, told.UserTurnStarted(3, 15.0)),
        (15.0, told.UserTurnFinal("mm-hm", backchannel=(12.0, 12.5))),
        (15.5, told.UserTurnPartial("But")),
        (15.6, told.ReplyEnded(1, told.ReplyEnding.INTERRUPTED, "Listen.", 5.0)),
    ):
        account.take(one, at)
    assert rows(written(account, 16.0)) == [
        (ASSISTANT, 1.0, 5.6, "Listen."),
        (USER, 2.0, 2.5, "mm-hm"),
        (USER, 5.0, 6.0, "But"),
    ]


def test_backchannels_count_for_the_character_limit_of_a_conversation_transcript() -> None:
    account, often = ConversationTranscript(0.0), "yeah " * 10_000
    for at in range(2 * MAX_CHARACTERS // len(often)):
        account.take(told.UserTurnFinal(often, backchannel=(at, at + 0.5)), float(at))
    assert sum(len(one.text) for one in written(account, 1e6).segments) <= MAX_CHARACTERS
