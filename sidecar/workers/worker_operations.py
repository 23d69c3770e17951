"""Operations that a worker executes: load, transcribe, enrol, synthesize."""

from __future__ import annotations

import errno
import json
import logging
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from sidecar import errors
from sidecar.audio import SAMPLE_RATE, audio_decoder, decoder_probe
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.channel_survey import ChannelSurvey
from sidecar.audio.ffmpeg_output import AudioTrack, LostAudio, track_names
from sidecar.audio.selected_channel import SelectedChannel
from sidecar.engines import create_engine
from sidecar.interfaces import engine_interface
from sidecar.serialization import from_plain
from sidecar.transcripts import transcript
from sidecar.transcripts.chinese_script import chinese_script, event_in_script, segment_in_script
from sidecar.transcripts.transcript import ResumePoint, SpeakerEmbedding
from sidecar.transcripts.word_timing import with_word_times
from sidecar.workers.channel_transcription import (
    CHANNEL_SINGLE,
    CHANNEL_SINGLE_UNNAMED,
    CHANNELS_DIFFER,
    ChannelTranscription,
)
from sidecar.workers.rpc_server import BegunCalls, RpcRequest

if TYPE_CHECKING:
    from sidecar.live.runtime.live_scheduler import LiveEngine

log = logging.getLogger(__name__)
T = TypeVar("T")

AUDIO_TRACKS = "audio_tracks"
"""Code of the notice that the recording has other audio tracks."""
MIN_PROGRESS_INTERVAL_S = 0.1
"""Minimum time between two progress reports."""
MessageWithBytes = tuple[dict[str, Any], bytes]
"""Answer with raw bytes behind it."""
TTS_FRAME_S = 1.0
MIN_PEAKS_PER_REPORT = 50
"""Minimum number of peaks in a report; there is one for each tenth of a second."""


class ReadWatch:
    """Reads of recordings in progress, of all threads of a worker: a hanging disk ends none."""

    def __init__(self) -> None:
        self._begun: dict[object, float] = {}

    @property
    def longest_s(self) -> float:
        """Return the seconds that the longest read in progress has taken; 0 without one."""
        begun = list(self._begun.values())
        return time.monotonic() - min(begun) if begun else 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count what happens in this context as a read.

        Raises:
            errors.StorageUnreachable: the disk or the share fails; it may be over in a moment.
            errors.AudioLost: the file was deleted on its share.
        """
        read = object()
        self._begun[read] = time.monotonic()
        try:
            yield
        except OSError as error:
            if error.errno == errno.ESTALE:  # it would be waited for for ever
                raise errors.AudioLost(
                    f"The recording was deleted on its share: {error.strerror}."
                ) from None
            log.warning("a recording cannot be read now: %s", error)
            raise errors.StorageUnreachable(
                f"The recording cannot be read now: {error.strerror}."
            ) from error
        finally:
            del self._begun[read]


class WorkerOperations:
    """Operations of a worker, with its engine, if one is loaded. ``create`` creates it, as
    `create_engine`."""

    def __init__(self, create: Callable[[str], Any] = create_engine) -> None:
        self._create = create
        self._engine: engine_interface.TranscriptionEngine | None = None
        self._sample_rate = 0
        self._executing: BegunCalls | None = None
        self._tts: engine_interface.TtsEngine | None = None
        self.reads = ReadWatch()
        """Reads of recordings in progress."""

    def begin_session(self, request: RpcRequest) -> None:
        """Begin the live session that a call requests; it ends the call.

        Raises:
            errors.SidecarError: the engine does not accept it.
        """
        from sidecar.workers.worker_live_session import WorkerLiveSession

        engine = _loaded(self._engine)
        if self._executing is None:
            self._executing = BegunCalls(request.fds[0] if request.fds else None)
        WorkerLiveSession(request, cast("LiveEngine", engine), self._executing)

    def run(self, request: RpcRequest) -> Iterator[dict[str, Any] | MessageWithBytes]:
        """Yield the answers to one call."""
        match request.message:
            case {"operation": "ready"}:
                audio_decoder.preload_decoders()
            case {"operation": "probe", "max_s": max_s} if request.fds:
                track = request.message.get("track")
                yield audio_decoder.probe_audio(request.fds[0], max_s, track).to_wire()
            case {"operation": "voice", "max_s": max_s} if request.fds:
                yield _clip_embedding(request.fds[0], max_s)
            case {"operation": "part", "prints": count, "into": into}:
                yield _split_speaker([one["print"] for one in request.take(count)], into)
            case {"operation": "diarize", "kept": kept, "packed": packed, "count": count}:
                yield _diarize_again(kept, packed, count)
            case {"operation": "load", "engine": factory, "options": options}:
                yield from self._load(factory, engine_interface.LoadOptions.from_wire(options))
            case {"operation": "transcribe", "facts": facts} if request.fds:
                try:
                    yield from self._transcribe(request)
                except decoder_probe.BLAMES_RECORDING as error:
                    decoder = AudioInfo.from_wire(facts).decoder
                    raise decoder_probe.judge(error, decoder) from None
            case {"operation": "voices"}:
                yield {"voices": list(_loaded(self._tts).voices())}
            case {"operation": "say", "text": str(text), "options": options}:
                yield from self._say(
                    text, engine_interface.SynthesisOptions.from_wire(options), request
                )
            case _:
                raise errors.EngineFailed("The worker process does not support this operation.")

    def _load(
        self, factory: str, options: engine_interface.LoadOptions
    ) -> Iterator[dict[str, Any]]:
        """Load an engine and yield the share that is loaded."""
        if options.speaks:
            tts: engine_interface.TtsEngine = self._create(factory)
            yield from ({"loaded": part} for part in tts.load(options))
            self._tts = tts
            return
        engine: engine_interface.TranscriptionEngine = self._create(factory)
        yield from ({"loaded": part} for part in engine.load(options))
        self._engine, self._sample_rate = engine, engine.sample_rate

    def _say(
        self, text: str, options: engine_interface.SynthesisOptions, request: RpcRequest
    ) -> Iterator[MessageWithBytes]:
        """Yield the audio of a text in frames of at most `TTS_FRAME_S`: longer ones could exceed
        the bytes that may lie unread."""
        sounds = _loaded(self._tts).say(text, options, request.is_cancelled)
        for sound in resample_speech(sounds, options.rate) if options.rate else sounds:
            marks = [(mark.character, mark.start) for mark in sound.marks]
            most = engine_interface.PCM16_BYTES * round(TTS_FRAME_S * sound.rate)
            for at in range(0, len(sound.pcm), most):
                raw = sound.pcm[at : at + most]
                yield {"rate": sound.rate, "marks": [] if at else marks}, raw

    def _transcribe(self, request: RpcRequest) -> Iterator[dict[str, Any]]:
        """Transcribe a recording."""
        message = request.message
        facts = AudioInfo.from_wire(message["facts"])
        options = engine_interface.TranscribeOptions.from_wire(message["options"])
        points: list[ResumePoint] | None = None
        if (count := message.get("resume_points")) is not None:
            given = request.take(count)
            points = [cast(ResumePoint, transcript.from_wire(one)) for one in given]

        def open_audio(
            channel: SelectedChannel | ChannelSurvey | None = None,
        ) -> audio_decoder.DecodedAudio:
            with self.reads.reading():
                return audio_decoder.open_audio(
                    request.fds[0],
                    facts,
                    rate=self._sample_rate,
                    max_s=message["max_s"] / facts.channels,
                    track=options.track,
                    channel=channel,
                    reading=self.reads.reading,
                    skip_s=options.skip_seconds,
                )

        def events(
            audio: audio_decoder.DecodedAudio,
            options: engine_interface.TranscribeOptions,
            points: Sequence[ResumePoint] | None,
        ) -> Iterator[transcript.TranscriptionEvent]:
            asked = engine_interface.TranscriptionRequest(audio, options, request.is_cancelled)
            engine = _loaded(self._engine)
            if points is None:
                return engine.transcribe(asked)
            return cast(engine_interface.ResumableEngine, engine).transcribe_from(points, asked)

        if facts.channels > 1:
            channels = ChannelTranscription(
                facts.channels, options, open_audio, events, request.is_cancelled
            )
            yield from TranscribedRecording(channels, options).messages(channels.events(points))
            return
        with open_audio() as audio:
            recording = TranscribedRecording(audio, options)
            yield from recording.messages(events(audio, options, points))


def _loaded(engine: T | None) -> T:
    if engine is None:
        raise errors.EngineFailed("The engine is not loaded.")
    return engine


def _clip_embedding(fd: int, max_s: float) -> dict[str, Any]:
    """Return the embedding of the only speaker in a clip, as plain values."""
    from sidecar.diarization.diarizer import enrolment_embedding
    from sidecar.diarization.speaker_models import available_speaker_models

    models = available_speaker_models()
    if models is None:
        raise errors.VoicesUnavailable()
    try:
        facts = audio_decoder.probe_audio(fd, max_s)
        with (
            decoder_probe.judged(facts.decoder),
            audio_decoder.open_audio(fd, facts, rate=SAMPLE_RATE, max_s=max_s) as audio,
        ):
            return asdict(enrolment_embedding(models, audio))
    except errors.AudioTooLong:
        raise errors.ClipTooLong(f"The clip is longer than {max_s:g} s.") from None


def resample_speech(
    synthesized: Iterable[engine_interface.SynthesizedAudio], rate: int
) -> Iterator[engine_interface.SynthesizedAudio]:
    """Resample audio to ``rate`` samples a second; word marks stay with their audio."""
    stream: Any = None
    for audio in synthesized:
        if audio.rate == rate:
            yield audio
            continue
        if stream is None:
            import soxr

            stream = soxr.ResampleStream(audio.rate, rate, 1, dtype="int16")
        samples = np.frombuffer(audio.pcm, "<i2").astype(np.int16, copy=False)
        made = stream.resample_chunk(samples).astype("<i2", copy=False)
        yield engine_interface.SynthesizedAudio(made.tobytes(), rate, audio.marks)
    if stream is not None:  # it delays its output by some milliseconds
        made = stream.resample_chunk(np.zeros(0, np.int16), last=True).astype("<i2", copy=False)
        yield engine_interface.SynthesizedAudio(made.tobytes(), rate)


def _split_speaker(prints: list[dict[str, Any] | None], into: int | None) -> dict[str, Any]:
    """Return the segments of one speaker by person; empty if they cannot be told apart."""
    from sidecar.diarization.clustering import split_speaker

    found = split_speaker(
        [None if one is None else SpeakerEmbedding(**one) for one in prints], into
    )
    return {} if found is None else asdict(found)


def _diarize_again(kept: str, packed: str, count: Mapping[str, Any]) -> dict[str, Any]:
    """Return another diarization of a transcript."""
    from sidecar.diarization.clustering import SpeakerCount
    from sidecar.diarization.kept_diarization import KeptDiarization
    from sidecar.diarization.rediarization import diarize_again
    from sidecar.transcripts.diarized_pieces import WordRange

    known = KeptDiarization.from_bytes(b64decode(kept))
    given = json.loads(zlib.decompress(b64decode(packed)))
    word_ranges, current = given["places"], from_plain(transcript.Transcript, given["transcript"])
    if script := chinese_script(current.language):  # what is kept is as the engine wrote it
        uncut = [segment_in_script(one, script) for one in known.uncut_segments]
        known = replace(known, uncut_segments=uncut)
    found = diarize_again(
        known,
        current,
        known.word_ranges if word_ranges is None else [WordRange(*one) for one in word_ranges],
        SpeakerCount(**count, exact=True) if count else None,
    )
    result = b64encode(found.result.to_bytes()).decode()
    return {"result": result, "lost_names": found.lost_names}


class TranscribedRecording:
    """Recording of a transcription: its audio, its options, and the report to the service."""

    def __init__(
        self,
        audio: audio_decoder.DecodedAudio | ChannelTranscription,
        options: engine_interface.TranscribeOptions,
    ) -> None:
        self._options = options
        self._script = chinese_script(options.language)
        self._audio = audio
        self._progress_at = 0.0
        self._peaks_sent = 0

    def messages(self, events: Iterator[transcript.TranscriptionEvent]) -> Iterator[dict[str, Any]]:
        """Yield the messages about the events to the service: none of progress too soon after the
        last report. New peaks of the audio follow an event, or precede the last one."""
        for event in events:
            if self._script is not None:
                event = event_in_script(event, self._script)
            if self._options.words:
                event = with_word_times(event)
            match event:
                case transcript.Progress():
                    if time.monotonic() - self._progress_at < MIN_PROGRESS_INTERVAL_S:
                        continue
                    self._progress_at = time.monotonic()
                case transcript.Peaks(first, levels):
                    self._peaks_sent = first + len(levels)
                case transcript.Finished(found):
                    yield from self._new_peaks(1)
                    *parts, rest = found.with_notice(*self._notices()).parts()
                    for part in map(transcript.Finished, parts):
                        yield {"part": transcript.to_wire(part)}
                    event = transcript.Finished(rest)
            yield {"event": transcript.to_wire(event)}
            yield from self._new_peaks(MIN_PEAKS_PER_REPORT)

    def _new_peaks(self, least: int) -> Iterator[dict[str, Any]]:
        levels = self._audio.peaks.since(self._peaks_sent)
        if len(levels) >= least:
            yield {"event": transcript.to_wire(transcript.Peaks(self._peaks_sent, levels))}
            self._peaks_sent += len(levels)

    def _notices(self) -> Iterator[transcript.Notice]:
        if lost := self._audio.lost:
            yield _lost_notice(lost)
        decoder = self._audio.decoder
        if len(decoder.header.tracks) > 1 and self._options.track is None:
            yield _tracks_notice(decoder.header.tracks, decoder.track)
        separate = self._options.channels is engine_interface.ChannelMode.SEPARATE
        if separate and decoder.channels == 1:
            yield CHANNEL_SINGLE_UNNAMED if any(self._options.channel_names) else CHANNEL_SINGLE
        if decoder.channels == 2 and self._audio.different_speakers:
            yield CHANNELS_DIFFER


def _lost_notice(lost: LostAudio) -> transcript.Notice:
    """Return the notice of what is lost of the recording."""
    what = f"about {lost.seconds:.1f} s of it are" if lost.seconds else "a part of it is"
    message = f"The recording is damaged or incomplete: {what} lost; the rest was transcribed."
    if lost.early:
        message += " The times behind a gap are earlier by its length."
    return transcript.Notice(transcript.AUDIO_TRUNCATED, message)


def _tracks_notice(tracks: Sequence[AudioTrack], used: int) -> transcript.Notice:
    """Return the notice that names the track that was ``used``, and the others."""
    names = track_names(tracks)
    others = ", ".join(name for number, name in enumerate(names) if number != used)
    marked = [name for name, track in zip(names, tracks, strict=True) if track.is_default]
    message = (
        f"The recording has {len(tracks)} audio tracks: this is the transcript of track"
        f" {names[used]}, not of {others}."
    )
    if marked and not tracks[used].is_default:
        message += f" The file marks track {marked[0]} as the one to play."
    return transcript.Notice(
        AUDIO_TRACKS,
        f"{message} 'track' of /transcribe and /v1/jobs, or --track of commands, selects another.",
    )
