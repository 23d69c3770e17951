"""Conversation loop: state machine with its ASR, LLM and TTS tasks."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from sidecar import errors
from sidecar.audio import SAMPLE_RATE
from sidecar.concurrency import ThreadLimiter, running
from sidecar.interfaces.engine_interface import SynthesisOptions
from sidecar.interfaces.live_options import SampleEncoding
from sidecar.live.sessions.session import Session
from sidecar.plugins.conversation import conversation_events as events
from sidecar.plugins.conversation.audio_pacing import AudioPacer
from sidecar.plugins.conversation.chat_completions import Llm
from sidecar.plugins.conversation.conversation_events import MAX_PENDING_OUTPUT, ConversationOptions
from sidecar.plugins.conversation.speech_input import SpeechInput
from sidecar.plugins.conversation.state_machine import ConversationStateMachine
from sidecar.transcripts.transcript import Notice
from sidecar.workers.tts_client import TtsClient

log = logging.getLogger(__name__)

Compare: TypeAlias = Callable[[Callable[[], float | None]], Awaitable[float | None]]
"""Function that runs a comparison with the reply, which takes up to a tenth of a second."""
StageWork: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Work of a stage, created when its task begins: a task that is cancelled at once creates none."""


class ConversationTasks:
    """Tasks of the LLM and TTS stages. `stop` does not wait for a task: its events are ignored at
    once, and it ends in its own time."""

    def __init__(
        self,
        llm: Llm,
        tts: TtsClient | None,
        synthesis: SynthesisOptions,
        now: Callable[[], float],
        emit_event: Callable[[events.ConversationEvent], None],
    ) -> None:
        self.llm, self.synthesis = llm, synthesis
        """LLM and synthesis options: changes apply to stages that begin later."""
        self._tts = tts
        self._now, self._emit_event = now, emit_event
        self._running: dict[tuple[int, events.ConversationStage], asyncio.Task[None]] = {}
        self._texts: dict[int, asyncio.Queue[events.SynthesizeText]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start_llm(self, reply_command: events.GenerateReply) -> None:
        """Start the LLM for a reply."""
        work = partial(self._run_llm, reply_command)
        self._start(reply_command.turn, events.ConversationStage.LLM, work)

    def start_tts(self, text_command: events.SynthesizeText) -> None:
        """Synthesize the text after all earlier text of the turn."""
        if text_command.turn not in self._texts:
            self._texts[text_command.turn] = asyncio.Queue()
            run_tts = partial(self._run_tts, text_command.turn, self.synthesis)
            self._start(text_command.turn, events.ConversationStage.TTS, run_tts)
        self._texts[text_command.turn].put_nowait(text_command)

    def stop(self, turn: int, stage: events.ConversationStage) -> None:
        """Cancel that stage of the turn."""
        if stage is events.ConversationStage.TTS:
            self._texts.pop(turn, None)
        if (task := self._running.pop((turn, stage), None)) is not None:
            task.cancel()

    async def close(self) -> None:
        """Cancel all tasks and wait for them. A task that was cancelled before is not cancelled
        again: that would end a worker process that other conversations share."""
        for task in self._tasks:
            if not task.cancelling():
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, turn: int, stage: events.ConversationStage, work: StageWork) -> None:
        task = asyncio.get_running_loop().create_task(
            self._run_stage(turn, stage, work), name=stage
        )
        self._running[turn, stage] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_stage(self, turn: int, stage: events.ConversationStage, work: StageWork) -> None:
        try:
            await work()
        except errors.SidecarError as error:
            self._emit_event(events.StageFailed(self._now(), turn, stage, error))
        except Exception:  # a stage may raise anything: the conversation goes on
            log.exception("internal error in the stage %s of a conversation", stage)
            self._emit_event(events.StageFailed(self._now(), turn, stage, errors.EngineFailed()))
        finally:
            self._running.pop((turn, stage), None)

    async def _run_llm(self, reply_command: events.GenerateReply) -> None:
        async with aclosing(self.llm.reply(reply_command.messages, reply_command.tools)) as deltas:
            async for delta in deltas:
                now, turn = self._now(), reply_command.turn
                if isinstance(delta, str):
                    self._emit_event(events.LlmToken(now, turn, delta))
                else:
                    self._emit_event(events.LlmToolCallDelta(now, turn, delta))
        stage = events.ConversationStage.LLM
        self._emit_event(events.StageEnded(self._now(), reply_command.turn, stage))

    async def _run_tts(self, turn: int, synthesis: SynthesisOptions) -> None:
        texts = self._texts[turn]
        while True:
            command = await texts.get()
            if self._tts is None:
                raise errors.EngineUnavailable("This service has no TTS engine.")
            async with aclosing(self._tts.say(command.text, synthesis)) as chunks:
                async for chunk in chunks:
                    self._emit_event(events.TtsAudio(self._now(), turn, command.phrase, chunk))
            stage = events.ConversationStage.TTS
            self._emit_event(events.StageEnded(self._now(), turn, stage, command.phrase))


class ConversationLoop:
    """One conversation. It runs in one thread and without waiting: an event goes to the state
    machine, and its commands are started before the next event.

    ``clears``: as in `AudioPacer`. ``synthesis``: options of the TTS engine. ``on_client_event``:
    callback for the client's events. ``compare``: None for a thread of its own.
    """

    def __init__(
        self,
        session: Session,
        llm: Llm,
        tts: TtsClient | None,
        options: ConversationOptions,
        synthesis: SynthesisOptions,
        *,
        clears: bool = False,
        on_client_event: Callable[[events.ConversationClientEvent], None] = lambda event: None,
        now: Callable[[], float] = time.monotonic,
        compare: Compare | None = None,
    ) -> None:
        from sidecar.plugins.conversation import acoustic_echo

        self._now, self._on_client_event = now, on_client_event
        self.session = session
        self.machine = ConversationStateMachine(options)
        """State, history and options; requests go through `request`."""
        self.input = SpeechInput(session, now, self._enqueue, self._emit_notice)
        self.stages = ConversationTasks(llm, tts, synthesis, now, self._handle)
        """LLM and TTS: changes take effect on replies that these have not begun."""
        self.pacer = AudioPacer(clears=clears)
        """Player of the client."""
        self._echo_detector, self._compared_s = acoustic_echo.EchoDetector(), 0.0
        self._run_comparison: Compare = compare or ThreadLimiter("echo", 1).run
        self._uncompared: deque[tuple[int | None, events.ConversationEvent | None]] = deque()
        """Utterances to compare and their words, and what came from the speech input behind
        them."""
        self._comparing: asyncio.Task[None] | None = None
        self.output: asyncio.Queue[events.ConversationOutput | errors.SidecarError] = (
            asyncio.Queue()
        )
        self._timer_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sent = 0
        self._unacknowledged: deque[asyncio.Event] = deque()
        """Commits and discards of the client that are not acknowledged yet."""
        self._last: events.ConversationEnded | None = None
        """Last output, once the client has ended the conversation."""
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def hear(
        self, raw: bytes, encoding: SampleEncoding = SampleEncoding.PCM16, rate: int = SAMPLE_RATE
    ) -> None:
        """Add audio of the user, as `Session.send`."""
        await self.input.hear(raw, encoding, rate)
        self._echo_detector.hear(raw, encoding, rate, self.session.received_s)
        utterance = self.input.speaking
        if utterance is None or not self.pacer.turn:
            return
        start, end, _ = self.input.located_span(utterance)
        if not self._uncompared and self._echo_detector.is_due(start, end, self._compared_s):
            self._enqueue(None, utterance)

    @property
    def sending(self) -> bool:
        """Return whether some audio of the reply in progress is not sent yet."""
        return self.machine.replying > self._sent

    def request(self, event_type: Callable[..., events.ConversationEvent], *values: Any) -> None:
        """Handle a request of the client: ``event_type`` is the type of event, ``values`` are
        its fields."""
        self.session.touch()
        self._handle(event_type(self._now(), *values))

    def playback_completed(self) -> None:
        """Record that the client plays all that was sent of a reply to its end, if all was sent."""
        if self.machine.replying and not self.sending:
            self.request(events.PlaybackReported, self.machine.replying, float("inf"))

    async def commit(self) -> None:
        """End the user's turn after the audio so far. Wait until all of that is recognized.

        Raises:
            errors.SessionOver: the session takes no more input.
        """
        self.session.commit()
        await self._acknowledged()

    async def discard(self) -> None:
        """Discard the user's words that are not answered; wait as `commit` does."""
        self.session.cancel()
        await self._acknowledged()

    async def _acknowledged(self) -> None:
        self._unacknowledged.append(asyncio.Event())
        await self._unacknowledged[-1].wait()

    def end(self) -> None:
        """End the conversation: a reply in progress is cancelled. `ConversationEnded` is the last
        output, behind all that the user said."""
        self._last = events.ConversationEnded()
        self.request(events.OptionsChanged, replace(self.machine.options, answers=False))
        self.request(events.ResponseCancelled)
        if self.session.received_s:
            self.session.finish()
        else:  # it needs no engine, which may still be loaded
            self.session.end()

    def warn(self, error: errors.SidecarError) -> None:
        """Send a warning; the conversation goes on."""
        self.output.put_nowait(events.ConversationError(0, error))

    def _emit_notice(self, notice: Notice) -> None:
        self.output.put_nowait(events.ConversationNotice(notice))

    async def run(self) -> None:
        """Run until the session ends. `outgoing` raises the error that ended it.

        Raises:
            errors.SidecarError: the client does not read its events.
        """
        try:
            async with running(self.input.listen()) as (listening,):
                await asyncio.wait({listening, self._failed}, return_when=asyncio.FIRST_COMPLETED)
                if self._comparing is not None and not self._failed.done():
                    await asyncio.wait({self._comparing})
                if self._failed.done():
                    self._failed.result()
                last: events.ConversationEnded | errors.SidecarError | None = self._last
                try:
                    listening.result()
                except errors.SidecarError as error:
                    if last is not None:
                        self.warn(error)
                    last = last or error
                if last is not None:
                    self.output.put_nowait(last)
                    await self._failed  # until the client has what comes before
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._comparing is not None:
                self._comparing.cancel()
            self._failed.cancel()
            await self.stages.close()

    async def outgoing(self) -> AsyncIterator[events.ConversationOutput]:
        """Yield the output for the client, without end and for one reader.

        Raises:
            errors.SidecarError: the error that ended the session.
        """
        while True:
            output = await self.output.get()
            if isinstance(output, errors.SidecarError):
                raise output
            yield output

    def _handle(self, event: events.ConversationEvent) -> None:
        """Feed the state machine and carry out its commands. The playback position is fed first: an
        interruption depends on it."""
        if self._failed.done():
            return
        try:
            now = self._now()
            if turn := self.pacer.turn:
                self._echo_detector.play(turn, self.pacer.heard_s(now), now)
                played = events.PlaybackReported(now, turn, self.pacer.played(now))
                self._carry_out_all(self.machine.take(played))
            self._carry_out_all(self.machine.take(event))
            for frame in self.pacer.due(now):
                self.output.put_nowait(frame)
            self._emit_audio_sent()
            self._set_timer(now)
            if self.output.qsize() > MAX_PENDING_OUTPUT:
                raise errors.InboundFull()
        except Exception as fault:  # an internal error ends the conversation, and `run` raises it
            self._failed.set_exception(fault)

    def _enqueue(
        self, event: events.ConversationEvent | None, utterance: int | None = None
    ) -> None:
        """Handle an event of the speech input. The echo similarity of an ``utterance`` is fed
        before its words, which wait for it; all that comes behind them keeps its place."""
        if isinstance(event, events.RecognizedWords) and event.text:
            utterance = event.utterance
        if not self._uncompared and (utterance is None or self._comparison(utterance) is None):
            if event is not None:
                self._handle(event)
            return
        self._uncompared.append((utterance, event))
        if len(self._uncompared) == 1:
            work = self._compare_in_order()
            self._comparing = asyncio.get_running_loop().create_task(work, name="echo")

    async def _compare_in_order(self) -> None:
        try:
            while self._uncompared:
                utterance, event = self._uncompared[0]
                comparison = None if utterance is None else self._comparison(utterance)
                likeness = None if comparison is None else await self._run_comparison(comparison)
                if utterance is not None and likeness is not None:
                    self._handle(events.EchoSimilarity(self._now(), utterance, likeness))
                if event is not None:
                    self._handle(event)
                self._uncompared.popleft()
        except Exception as fault:  # as in `_handle`
            if not self._failed.done():
                self._failed.set_exception(fault)

    def _comparison(self, utterance: int) -> Callable[[], float | None] | None:
        """Return the comparison of an utterance's audio so far to what was played then, if any
        was."""
        self._compared_s = self.session.received_s
        self._handle(events.TimerFired(self._now()))
        return self._echo_detector.comparison(*self.input.located_span(utterance))

    def _emit_audio_sent(self) -> None:
        ending = self.machine.made
        if ending is not None and self.sending and not self.pacer.waiting:
            self._sent = self.machine.replying
            self.output.put_nowait(events.TurnAudioSent(self._sent, ending))

    def _carry_out_all(self, commands: list[events.ConversationCommand]) -> None:
        for command in commands:
            self._carry_out(command, self._now())

    def _carry_out(self, command: events.ConversationCommand, now: float) -> None:
        match command:
            case events.SendReplyAudio(turn, phrase, audio):
                self.pacer.add(turn, phrase, audio, now)
                self._echo_detector.emit(turn, audio)
            case events.DropReplyAudio(turn):
                self.pacer.drop_audio(turn)
                self.output.put_nowait(command)
            case events.PauseReplyAudio():
                self.pacer.pause(now)
            case events.ResumeReplyAudio():
                self.pacer.resume(now)
            case events.GenerateReply():
                self.stages.start_llm(command)
            case events.SynthesizeText():
                self.stages.start_tts(command)
            case events.StopStage(turn, stage):
                self.stages.stop(turn, stage)
            case events.SetSpeechDetection(threshold):
                self.input.raise_threshold(threshold)
            case events.SetTimer(at):
                self._timer_at = at
            case events.ConversationClientEvent():
                if isinstance(command, events.ReplyEnded):
                    self.session.touch()  # a client that plays a reply is present
                    for frame in self.pacer.end(command.turn):
                        self.output.put_nowait(frame)
                self._on_client_event(command)
                self.output.put_nowait(command)
                acknowledges = events.CommitAcknowledged | events.DiscardAcknowledged
                if isinstance(command, acknowledges) and self._unacknowledged:
                    self._unacknowledged.popleft().set()

    def _set_timer(self, now: float) -> None:
        """Set the timer to the next time that the state machine or the pacer needs."""
        times = [self._timer_at, self.pacer.wake_at(now)]
        at = min((one for one in times if one is not None), default=None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, at - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._handle(events.TimerFired(self._now()))
