"""The machine and the pacer together, as who drives them does: what stands in the history is what
a client got to hear, sample by sample."""

import pytest
from conversation_simulator import RATE, Table
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sidecar.plugins.conversation import conversation_events as events
from sidecar.plugins.conversation.audio_pacing import AudioPacer, ReplyAudioFrame

TEXT = "One two three four five six seven eight nine ten eleven twelve."


class Driven(Table):
    """A table whose sound goes through a pacer."""

    def __init__(self, *, clears: bool = False) -> None:
        super().__init__()
        self.pacer = AudioPacer(clears=clears)
        self.frames: list[tuple[float, ReplyAudioFrame]] = []

    def drive(self, commands: list[events.ConversationCommand]) -> None:
        for command in commands:
            match command:
                case events.SendReplyAudio(turn=turn, phrase=piece, audio=sound):
                    self.pacer.add(turn, piece, sound, self.now)
                case events.PauseReplyAudio():
                    self.pacer.pause(self.now)
                case events.ResumeReplyAudio():
                    self.pacer.resume(self.now)
                case events.DropReplyAudio(turn=turn):
                    self.pacer.drop_audio(turn)

    def run(self, until: float, step: float = 0.01) -> None:
        while self.now < until:
            self.now = min(until, self.now + step)
            self.frames += [(self.now, frame) for frame in self.pacer.due(self.now)]
            if self.pacer.turn:
                played = self.pacer.played(self.now)
                self.drive(self.take(events.PlaybackReported(self.now, self.pacer.turn, played)))
            self.drive(self.take(events.TimerFired(self.now)))

    def answer(self) -> None:
        self.says("Count!")
        self.thinks(TEXT)
        self.voices()
        self.drive(self.of(events.SendReplyAudio))
        assert self.of(events.TtsAudio) == []

    @property
    def sent_s(self) -> float:
        return sum(len(frame.pcm) / (2 * RATE) for _, frame in self.frames)


@pytest.mark.parametrize("after_s", [0.3, 0.97, 1.5, 2.22])
@pytest.mark.parametrize("by", ["voice", "key", "text"])
def test_history_of_an_interrupted_reply_has_the_words_of_the_audio_sent(
    by: str, after_s: float
) -> None:
    table = Driven()
    table.answer()
    table.run(table.now + after_s)
    if by == "voice":
        table.drive(table.starts())
        table.run(table.now + 0.5)
        table.drive(table.words("stop it"))
    else:
        table.drive(table.cancels() if by == "key" else table.types("Stop it."))
    table.run(table.now + 1.0)
    heard = [word for at, word in enumerate(TEXT.split()) if 0.3 * at + 0.15 <= table.sent_s + 5e-3]
    (ended,) = table.told(events.ReplyEnded)
    assert ended.text == " ".join(heard) + "…"
    lead = 0.15 + (0.26 if by == "voice" else 0.0)  # a voice is noticed when it lasts
    assert after_s - 0.02 <= table.sent_s <= after_s + lead + 0.02


@settings(max_examples=60, deadline=None)
@given(
    starts_s=st.floats(0.0, 0.5),
    stops_s=st.floats(0.0, 0.5),
    spoken_over_s=st.floats(0.0, 6.0),
    reports=st.booleans(),
)
def test_history_of_an_interrupted_reply_has_the_words_played_by_report_or_else_by_clock(
    starts_s: float, stops_s: float, spoken_over_s: float, reports: bool
) -> None:
    """It gets all at once, and begins and ends when it likes; without a word of it the clock from
    the first sound on has to do."""
    table = Driven(clears=True)
    table.answer()
    began = table.now
    table.run(began + 0.01)
    assert table.sent_s == pytest.approx(0.3 * 12)
    table.run(began + spoken_over_s, 0.2)
    table.drive(table.starts())
    table.run(table.now + 0.4, 0.1)
    table.drive(table.words("stop it"))
    clock = min(table.now - began, table.sent_s)
    table.run(table.now + stops_s, 0.2)
    ear = min(max(0.0, table.now - began - starts_s), table.sent_s)
    if reports:
        table.drive(table.cuts(ear))
    end = ear if reports else clock
    assume(0.01 < (end - 0.15) % 0.3 < 0.29)  # of a word's very middle nobody can tell
    heard = [word for at, word in enumerate(TEXT.split()) if 0.3 * at + 0.15 <= end]
    text = " ".join(heard) + ("…" if len(heard) < 12 and heard else "")
    stands = [entry.text for entry in table.talk.history.entries if entry.turn == 1]
    assert stands == ([text] if text else [])
