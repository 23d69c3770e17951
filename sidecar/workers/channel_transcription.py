"""Transcription of a recording channel by channel, by any engine.

The recording is decoded once to survey its channels, and then once for each that is neither silent
nor the same as another. These are transcribed one after the other. Only with the last one the
segments of all are reported, in order of time. Progress and resume points count in seconds of the
recording, each of which is done once all channels are.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import zip_longest
from math import inf
from typing import Any, cast

from sidecar.audio import SAMPLE_RATE
from sidecar.audio.audio_decoder import DecodedAudio, Decoder
from sidecar.audio.channel_survey import ChannelSurvey
from sidecar.audio.ffmpeg_output import LostAudio
from sidecar.audio.loudness import PeakMeter
from sidecar.audio.selected_channel import SelectedChannel
from sidecar.interfaces.engine_interface import ChannelMode, TranscribeOptions
from sidecar.transcripts.channel_merge import (
    TranscribedChannel,
    channel_name,
    count_speakers,
    merge_channels,
    with_own_speakers,
)
from sidecar.transcripts.dialogue import (
    CONTINUED_S,
    SpeechBeginnings,
    cut_as_dialogue,
    cut_at_beginnings,
    without_words,
)
from sidecar.transcripts.transcript import (
    Finished,
    Notice,
    Peaks,
    Progress,
    ResumePoint,
    Segment,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
    from_wire,
    join_parts,
    to_wire,
)

CHANNELS_SAME = "channels_same"
"""Code of the notice that channels have the same sound."""
CHANNEL_SINGLE = Notice(
    "channel_single", "The recording has one channel, so there are no channels to separate."
)
CHANNEL_SINGLE_UNNAMED = Notice(
    CHANNEL_SINGLE.code, f"{CHANNEL_SINGLE.message} The names of 'channel_names' are not used."
)
CHANNELS_DIFFER = Notice(
    "channels_differ",
    "Each of the two channels seems to have its own speaker. 'channels=separate' (--channels "
    "separate of commands) transcribes each for itself, with exact speakers.",
)

ResumePoints = Sequence[ResumePoint] | None
OpenChannel = Callable[[SelectedChannel | ChannelSurvey], AbstractContextManager[DecodedAudio]]
TranscribeAudio = Callable[
    [DecodedAudio, TranscribeOptions, ResumePoints], Iterator[TranscriptionEvent]
]


@dataclass(frozen=True, slots=True)
class _DoneChannel:
    """Transcript of a channel, and its peaks."""

    number: int
    transcript: Transcript
    peaks: bytes

    def to_states(self) -> Iterator[dict[str, Any]]:
        """Yield the states of resume points, each with a part of the transcript; only the last has
        the peaks."""
        *parts, last = map(to_wire, map(Finished, self.transcript.parts()))
        for index, part in enumerate(parts):
            yield {"channel": self.number, "part": index, "finished": part}
        peaks = base64.b64encode(self.peaks).decode()
        yield {"channel": self.number, "part": len(parts), "finished": last, "peaks": peaks}


class ChannelTranscription:
    """Transcription of the channels of a recording, ``count`` in number. Iterate `events`.

    ``open_channel``: decodes one channel, or all of them for a survey. ``transcribe``: yields the
    engine's events about its audio, with the resume points of this channel alone; `None` for none.
    ``cancelled``: returns whether the survey has to end.
    """

    def __init__(
        self,
        count: int,
        options: TranscribeOptions,
        open_channel: OpenChannel,
        transcribe: TranscribeAudio,
        cancelled: Callable[[], bool],
    ) -> None:
        self._count, self._given_names = count, options.channel_names
        self._timed = options.words
        self._options = replace(options, channels=ChannelMode.MIX, channel_names=(), words=True)
        self._cancelled = cancelled
        self._open_channel, self._transcribe = open_channel, transcribe
        self._survey = ChannelSurvey(count)
        self._total_s = 0.0
        self._channels: list[int] = []
        """Channels that are transcribed."""
        self._done: list[_DoneChannel] = []
        self._owed: list[_DoneChannel] = []
        """Those of them that have no resume point yet."""
        self._form = ""
        """Format of the engine's resume points, once it has made one."""
        self.peaks = PeakMeter(SAMPLE_RATE)
        """Peaks of the first channel; the last event before `Finished` has those of all."""
        self.lost: LostAudio | None = None
        self.different_speakers = False
        self.decoder: Decoder

    def events(self, resume_points: ResumePoints) -> Iterator[TranscriptionEvent]:
        """Yield the events of the whole recording, without `Finished` if the engine ends early. The
        segments of resume points are in their states alone: the next attempt reports them anew."""
        points = self._restore(resume_points or ())
        survey = self._survey
        with self._open_channel(survey) as surveyed:
            for _ in surveyed:
                if self._cancelled():
                    return
            self._total_s = surveyed.done_s
        skipped = {*survey.silent, *survey.same}
        self._channels = [number for number in range(self._count) if number not in skipped]
        restored = {one.number for one in self._done}
        for number in self._channels:
            if number in restored:
                continue
            last = number == self._channels[-1]
            with self._open_channel(SelectedChannel(number, survey)) as audio:
                finished = yield from self._events_of_channel(
                    audio, None if resume_points is None else points[number], number, last=last
                )
                self.lost = self.lost or audio.lost
            if finished is None:
                return
            done = _DoneChannel(number, finished, audio.peaks.since(0))
            self._done.append(done)
            self._done.sort(key=lambda one: one.number)
            self._owed.append(done)
            if resume_points is not None and not last:
                yield from self._owed_points()
        if len(self._done) > 1:
            levels = zip_longest(*(one.peaks for one in self._done), fillvalue=0)
            yield Peaks(0, bytes(map(max, levels)))
        yield Finished(self._transcript())

    def _owed_points(self) -> Iterator[ResumePoint]:
        """Yield the resume points of channels that are done, once the engine's format is known."""
        while self._form and self._owed:
            at_s = self._progress(0.0).audio_s_done
            for state in self._owed.pop(0).to_states():
                yield ResumePoint(at_s, self._form, state=state)

    def _restore(self, resume_points: Sequence[ResumePoint]) -> defaultdict[int, list[ResumePoint]]:
        """Restore the channels that are done. Return the resume points of each of the others: an
        engine may have made none in a channel that was done before."""
        points = defaultdict[int, list[ResumePoint]](list)
        parts = defaultdict[int, list[Transcript]](list)
        for one in resume_points:
            self._form, state = one.form, one.state
            number: int = state["channel"]
            if "point" in state:
                points[number].append(cast(ResumePoint, from_wire(state["point"])))
                continue
            # an attempt that ended among the parts is followed by one with all of them
            parts[number][state["part"] :] = [
                cast(Finished, from_wire(state["finished"])).transcript
            ]
            if "peaks" in state:
                peaks = base64.b64decode(state["peaks"])
                self._done.append(_DoneChannel(number, join_parts(parts[number]), peaks))
        return points

    def _events_of_channel(
        self, audio: DecodedAudio, points: ResumePoints, number: int, *, last: bool
    ) -> Generator[TranscriptionEvent, None, Transcript | None]:
        """Yield the events of a channel, its segments only if it is the last. Return its
        transcript; None if the engine ends early."""
        self.decoder = audio.decoder
        if not self._done:
            self.peaks = audio.peaks
        merged = MergedSegments([one.transcript for one in self._done], timed=self._timed)
        before = [segment for point in points or () for segment in point.segments]
        for ready in map(SegmentReady, range(len(before) if last else 0), before):
            yield from merged.add(ready)
        for event in self._transcribe(audio, self._options, points):
            match event:
                case Finished(transcript):
                    yield from merged.rest() if last else ()
                    return transcript
                case Progress(done_s):
                    yield self._progress(done_s)
                case ResumePoint(audio_s, form):
                    self._form = form
                    yield from self._owed_points()
                    at_s = self._progress(audio_s).audio_s_done
                    state = {"channel": number, "point": to_wire(event)}
                    yield ResumePoint(at_s, form, state=state)
                case SegmentReady() if last:
                    yield from merged.add(event)
        return None

    def _progress(self, done_s: float) -> Progress:
        """Return the progress of all channels if so much of the next one is done."""
        done_s += len(self._done) * self._total_s
        return Progress.of(done_s / len(self._channels), self._total_s)

    def _transcript(self) -> Transcript:
        """Return the transcript of all channels that are done."""
        done, same = self._done, self._survey.same
        if len(same) == self._count - 1:
            message = "All channels of the recording have the same sound: it was transcribed once."
            only = done[0].transcript
            if not self._timed:
                only = replace(only, segments=tuple(map(without_words, only.segments)))
            return only.with_notice(Notice(CHANNELS_SAME, message))
        names = [self._name(one.number) for one in done]
        transcripts = cut_as_dialogue([one.transcript for one in done])
        merged = merge_channels(list(map(TranscribedChannel, names, transcripts)))
        if not self._timed:
            merged = replace(merged, segments=tuple(map(without_words, merged.segments)))
        if not same:
            return merged
        copies = ", ".join(f"{self._name(one)} that of {self._name(same[one])}" for one in same)
        message = f"Channels have the same sound: {copies}."
        return merged.with_notice(Notice(CHANNELS_SAME, message))

    def _name(self, number: int) -> str:
        return channel_name(number, self._count, self._given_names)


class MergedSegments:
    """Segments of a channel, as they are reported, between those of the channels that are done: cut
    as in the transcript, where a channel begins to speak. ``timed``: with word times."""

    def __init__(self, done_transcripts: Sequence[Transcript], *, timed: bool) -> None:
        self._first_speaker, self._timed = 0, timed
        self._waiting: list[_Piece] = []
        self._begins_before: list[float] = []
        for done, cut in zip(done_transcripts, cut_as_dialogue(done_transcripts), strict=True):
            owned = (with_own_speakers(one, self._first_speaker) for one in cut.segments)
            self._waiting += (_Piece(one) for one in owned)
            self._first_speaker += count_speakers(done)
            self._begins_before += SpeechBeginnings(done.segments).times
        self._begins = SpeechBeginnings()
        self._numbers: defaultdict[int, list[int]] = defaultdict(list)
        """Numbers in the report of the pieces of each segment of the channel."""
        self._count = 0

    def add(self, ready: SegmentReady) -> Iterator[SegmentReady]:
        """Add a segment of the last channel, again if it has changed. Yield what no later one can
        cut, in order."""
        segment = with_own_speakers(ready.segment, self._first_speaker)
        begins = self._begins.add(segment)
        pieces = cut_at_beginnings(segment, self._begins_before)
        reported = self._numbers[ready.index]
        yield from map(self._report, reported, pieces)
        waiting = [_Piece(one, ready.index) for one in pieces[len(reported) :]]
        for one in self._waiting:
            if one.index is None:
                waiting += map(_Piece, cut_at_beginnings(one.segment, begins))
            elif one.index != ready.index:
                waiting.append(one)
        self._waiting = waiting
        yield from self.rest(segment.start)

    def rest(self, known_s: float = inf) -> Iterator[SegmentReady]:
        """Yield what is left of the segments. ``known_s``: no later one begins before."""
        self._waiting.sort(key=_Piece.order)
        while self._waiting and self._waiting[0].is_final(known_s):
            piece = self._waiting.pop(0)
            if piece.index is not None:
                self._numbers[piece.index].append(self._count)
            yield self._report(self._count, piece.segment)
            self._count += 1

    def _report(self, number: int, segment: Segment) -> SegmentReady:
        return SegmentReady(number, segment if self._timed else without_words(segment))


@dataclass(frozen=True, slots=True)
class _Piece:
    """Piece of a segment. ``index``: of a segment of the last channel there, else None."""

    segment: Segment
    index: int | None = None

    def order(self) -> tuple[float, float, bool]:
        """Return its place in the transcript; of pieces of the same time the last channel's is the
        last."""
        return self.segment.start, self.segment.end, self.index is not None

    def is_final(self, known_s: float) -> bool:
        """Return whether no segment of the last channel that begins at ``known_s`` or later cuts
        it, or comes before it."""
        if self.segment.start > known_s:
            return False
        return self.index is not None or self.segment.end < known_s + CONTINUED_S
