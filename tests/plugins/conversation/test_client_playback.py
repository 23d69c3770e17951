"""A conversation whose client plays by itself and may end turns: what it sends, what it gets, in
order. The session's engine is the test."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from conversation_simulator import voiced
from service_process import PATIENCE_S
from virtual_time import virtual_time

from sidecar import errors
from sidecar.interfaces import live_events
from sidecar.interfaces.engine_interface import SynthesisOptions, SynthesizedAudio
from sidecar.live.sessions.input_log import InputLogTotals
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.plugins.conversation import speech_input
from sidecar.plugins.conversation.audio_pacing import ReplyAudioFrame
from sidecar.plugins.conversation.chat_completions import ChatRole, RepeatLlm
from sidecar.plugins.conversation.conversation_events import (
    MAX_PENDING_OUTPUT,
    CommitAcknowledged,
    ConversationOptions,
    ConversationOutput,
    DiscardAcknowledged,
    HistoryEntryAdded,
    OptionsChanged,
    PlaybackTruncated,
    ReplyEnded,
    ReplyEnding,
    ReplyStarted,
    ReplyTruncated,
    ResponseRequested,
    TextTyped,
    TurnAudioSent,
    UserTurnDropped,
    UserTurnFinal,
    UserTurnStarted,
)
from sidecar.plugins.conversation.conversation_loop import ConversationLoop

pytestmark = virtual_time
T = TypeVar("T")
MANUAL = ConversationOptions(ends_turns=False, answers=False, interruptible=False)
RATE = 16_000
TEN = "one two three four five six seven eight nine ten"


class Voice:
    """Each word takes as long; ``manners`` is how each piece was to be said. After ``until``
    sounds it waits to be told to ``go_on``."""

    def __init__(self) -> None:
        self.manners: list[str] = []
        self.speech = b""
        """What each piece sounds like, at 16 kHz, instead."""
        self.until = 0
        self.go_on = asyncio.Event()
        self.said = asyncio.Event()

    async def say(
        self, text: str, options: SynthesisOptions | None = None
    ) -> AsyncGenerator[SynthesizedAudio, None]:
        assert options is not None
        self.manners.append(options.voice)
        for sound in [SynthesizedAudio(self.speech, RATE)] if self.speech else voiced(text):
            yield sound
            self.until -= 1
            if self.until == 0:
                await self.go_on.wait()
        self.said.set()


class Call:
    """A conversation, and its client."""

    def __init__(self, options: ConversationOptions, compared_s: float = 0.0) -> None:
        async def compare(work: Callable[[], float | None]) -> float | None:
            await asyncio.sleep(compared_s)
            return work()

        self.session = Session(
            "n",
            "o",
            speech_input.speech_input_options(),
            SessionBounds(),
            InputLogTotals(1 << 20),
            now=time.monotonic,
        )
        self.voice = Voice()
        self.talk = ConversationLoop(
            self.session,
            RepeatLlm(),
            self.voice,
            options,
            SynthesisOptions(),
            clears=True,
            now=time.monotonic,
            compare=compare,
        )
        self.outs: list[ConversationOutput] = []
        self._outgoing = self.talk.outgoing()

    async def until(self, kind: type[T]) -> T:
        """The next that goes out of that kind."""
        async with asyncio.timeout(PATIENCE_S):
            async for out in self._outgoing:
                self.outs.append(out)
                if isinstance(out, kind):
                    return out
        raise AssertionError

    def answer(self, text: str = TEN) -> None:
        """The client has that said by the user, and asks for an answer."""
        self.talk.request(HistoryEntryAdded, ChatRole.USER, text)
        self.talk.request(ResponseRequested)

    def kinds(self, *kinds: type) -> list[type]:
        return [type(out) for out in self.outs if isinstance(out, kinds)]

    async def spoken(self, turn: int, text: str) -> None:
        """The person speaks for a second, and the engine hears that the client ends it there."""
        at = self.session.received_s
        await self.talk.hear(bytes(32_000))
        self.session.handle_event(live_events.SpeechStarted(turn, at + 0.25))
        committing = asyncio.create_task(self.talk.commit())
        await asyncio.sleep(0)
        assert not committing.done()
        assert UserTurnFinal not in self.kinds(UserTurnFinal)
        self.session.handle_event(
            live_events.TurnEnded(turn, at + 0.25, at + 1.0, text, committed=True)
        )
        await committing


@asynccontextmanager
async def call(
    options: ConversationOptions = MANUAL, compared_s: float = 0.0
) -> AsyncIterator[Call]:
    made = Call(options, compared_s)
    running = asyncio.create_task(made.talk.run())
    try:
        yield made
    finally:
        made.session.end()
        await running


async def test_commit_of_silence_is_acknowledged_and_is_no_turn() -> None:
    async with call() as one:
        await one.talk.hear(bytes(32_000))
        committing = asyncio.create_task(one.talk.commit())
        await asyncio.sleep(0)
        one.session.handle_event(live_events.TurnEnded(0, 1.0, 1.0, "", committed=True))
        await committing
        await one.until(CommitAcknowledged)
        assert one.kinds(UserTurnStarted, UserTurnFinal) == []


async def test_discarded_speech_is_no_turn_and_the_next_speech_is_one() -> None:
    async with call() as one:
        await one.talk.hear(bytes(32_000))
        one.session.handle_event(live_events.SpeechStarted(0, 0.25))
        forgetting = asyncio.create_task(one.talk.discard())
        await asyncio.sleep(0)
        assert not forgetting.done()
        one.session.handle_event(live_events.TurnDropped(0, 1.0))
        await forgetting
        await one.until(DiscardAcknowledged)
        assert one.kinds(UserTurnDropped, UserTurnFinal, DiscardAcknowledged) == [
            UserTurnDropped,
            DiscardAcknowledged,
        ]
        await one.spoken(1, "Now I know.")
        assert (await one.until(UserTurnFinal)).text == "Now I know."


async def test_reply_is_sent_ahead_of_playback_and_ends_where_the_client_truncated_it() -> None:
    async with call() as one:
        began = time.monotonic()
        one.answer()
        assert one.talk.sending
        assert await one.until(TurnAudioSent) == TurnAudioSent(1, ReplyEnding.COMPLETED)
        assert not one.talk.sending
        sound = sum(out.seconds for out in one.outs if isinstance(out, ReplyAudioFrame))
        assert sound == pytest.approx(0.3 * len(f"You said: {TEN}".split()))
        assert time.monotonic() - began < sound / 2  # virtual time: playback takes all of it
        assert one.kinds(ReplyEnded) == []
        one.talk.request(PlaybackTruncated, 1, 1.1)
        assert (await one.until(ReplyEnded)).ending is ReplyEnding.CANCELLED
        assert await one.until(ReplyTruncated) == ReplyTruncated(1, 1.1, "You said: one two…")


async def test_rest_of_a_reply_paused_by_a_backchannel_is_sent_only_after_the_backchannel() -> None:
    async with call() as one:
        one.talk.request(OptionsChanged, ConversationOptions(answers=False))
        one.voice.until = 1
        one.answer()
        await one.until(ReplyAudioFrame)
        await asyncio.sleep(0.1)  # which is heard
        await one.talk.hear(bytes(32_000))
        one.session.handle_event(live_events.SpeechStarted(0, 0.2))
        await asyncio.sleep(0.7)
        one.voice.go_on.set()
        async with asyncio.timeout(PATIENCE_S):
            await one.voice.said.wait()
        await asyncio.sleep(0.1)
        assert one.talk.sending
        one.session.handle_event(live_events.SpeechStopped(0, 0.9))
        one.session.handle_event(live_events.TurnEnded(0, 0.2, 0.9, "mm-hm"))
        assert await one.until(TurnAudioSent) == TurnAudioSent(1, ReplyEnding.COMPLETED)
        sound = sum(out.seconds for out in one.outs if isinstance(out, ReplyAudioFrame))
        assert sound == pytest.approx(0.3 * len(f"You said: {TEN}".split()))


Sound = npt.NDArray[np.float64]


def melody(*pitches_hz: int) -> Sound:
    """Half a second of each."""
    return np.sin(np.cumsum(np.repeat(pitches_hz, RATE // 2) * (2 * np.pi / RATE))) * 9000


REPLY = melody(300, 900, 500, 1700, 700, 1200)


@pytest.mark.parametrize(
    ("heard", "turns"),
    [(REPLY, []), (melody(1500, 400, 1100, 600, 800, 300), ["You said: Tea?"])],
    ids=["reply", "person"],
)
@pytest.mark.parametrize("compared_s", [0.0, 0.5])
async def test_echo_in_the_microphone_is_no_turn_and_a_person_with_the_same_words_is(
    heard: Sound, turns: list[str], compared_s: float
) -> None:
    late = np.concatenate([np.zeros(RATE // 5), 0.4 * heard])
    microphone = late.astype("<i2").tobytes()
    async with call(ConversationOptions(), compared_s) as one:
        one.voice.speech = REPLY.astype("<i2").tobytes()
        one.talk.request(TextTyped, "Tea?")
        await one.until(ReplyAudioFrame)
        for tenth in range(32):
            await asyncio.sleep(0.1)
            await one.talk.hear(microphone[3200 * tenth : 3200 * (tenth + 1)])
            if tenth == 5:
                one.session.handle_event(live_events.SpeechStarted(0, 0.2))
            if tenth == 15:
                one.session.handle_event(live_events.Partial(0, 0, 0.2, 1.5, "You said"))
        one.session.handle_event(live_events.SpeechStopped(0, 3.2))
        one.session.handle_event(live_events.TurnEnded(0, 0.2, 3.2, "You said: Tea?"))
        with suppress(TimeoutError):
            async with asyncio.timeout(10.0):  # until long after the end of any turn
                while True:
                    await one.until(object)
    said = [out.text for out in one.outs if isinstance(out, UserTurnFinal)]
    assert said == ["Tea?", *turns]


async def test_session_of_a_client_that_only_types_is_idle_only_once_it_stops_typing() -> None:
    async with call() as one:
        idle_s = one.session.bounds.idle_s
        for _ in range(3):
            one.talk.request(HistoryEntryAdded, ChatRole.USER, "Typed.")
            await asyncio.sleep(0.9 * idle_s)
            assert one.session.overdue(time.monotonic()) is None
        await asyncio.sleep(idle_s)
        assert isinstance(one.session.overdue(time.monotonic()), errors.SessionIdle)


async def test_playback_completed_ends_the_reply_once_all_was_sent() -> None:
    async with call() as one:
        one.answer()
        one.talk.playback_completed()
        assert one.talk.sending, "not all of it is there"
        await one.until(TurnAudioSent)
        one.talk.playback_completed()
        ended = await one.until(ReplyEnded)
        assert (ended.ending, ended.text) == (ReplyEnding.COMPLETED, f"You said: {TEN}")
        one.talk.request(ResponseRequested)
        assert (await one.until(ReplyStarted)).turn == 2


async def test_text_only_reply_ends_without_audio_events() -> None:
    async with call(dataclasses.replace(MANUAL, voiced=False)) as one:
        one.answer("Hello.")
        await one.until(ReplyEnded)
        assert one.kinds(TurnAudioSent) == []
        assert not one.talk.sending


async def test_changed_voice_applies_to_replies_not_yet_begun_and_not_to_the_current_one() -> None:
    async with call() as one:
        one.answer("A sentence. Another sentence here. A third one of them.")
        one.talk.stages.synthesis = SynthesisOptions("high")
        await one.until(TurnAudioSent)
        one.talk.playback_completed()
        assert set(one.voice.manners) == {"high"}, "no piece of it had been begun"
        one.talk.request(ResponseRequested)
        await one.until(ReplyAudioFrame)
        one.talk.stages.synthesis = SynthesisOptions("low")
        await one.until(TurnAudioSent)
        assert set(one.voice.manners) == {"high"}


async def test_changed_speech_threshold_is_raised_during_a_reply_and_restored_after_it() -> None:
    async with call() as one:
        one.talk.machine.turn_taking.guarded = True
        usual = one.talk.input.options
        deaf = dataclasses.replace(usual.endpointing, threshold=0.6, pre_roll_s=0.5)
        one.talk.input.use(dataclasses.replace(usual, language="de", endpointing=deaf))
        assert one.session.options.endpointing.threshold == 0.6
        assert (one.session.options.language, one.talk.input.options.language) == ("de", "de")
        one.answer()
        await one.until(ReplyAudioFrame)
        assert one.session.options.endpointing.threshold == 0.75
        one.talk.request(OptionsChanged, MANUAL)
        one.talk.playback_completed()
        await one.until(TurnAudioSent)
        one.talk.playback_completed()
        assert one.session.options.endpointing == deaf


async def test_conversation_whose_client_reads_nothing_ends_as_full_with_bounded_output() -> None:
    made = Call(MANUAL)
    running = asyncio.create_task(made.talk.run())
    for _ in range(MAX_PENDING_OUTPUT):
        made.talk.request(TextTyped, "Hello.")
        await asyncio.sleep(0)
    with pytest.raises(errors.InboundFull):
        await running
    assert made.talk.output.qsize() <= MAX_PENDING_OUTPUT + 10
