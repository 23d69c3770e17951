"""Where there is speech and whose it is, by the library: where its models cannot be run alone.

It takes twenty times the processor time of `sidecar.voices`, and makes more errors.

The library's identification analyses ten-second windows every ``diarization_analyze_cadence``
seconds and clusters the voices. Clustering over hours would grow without bound, so a recording is
listened to in windows of `WINDOW_S`. A window begins with a few seconds of every voice known so far
(its anchor): the label that the clustering puts on an anchor is that speaker's label there.

The library keeps one voice detector per process, with a memory; so there is one listener at a time,
and it begins with a fresh one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.audio import Block
from sidecar.audio.recent import RecentAudio
from sidecar.engines.moonshine.library import SAMPLE_RATE, feed, forget
from sidecar.speech.speakers import Turn, clearest, link

if TYPE_CHECKING:
    from moonshine_voice.moonshine_api import Transcript
    from moonshine_voice.transcriber import Transcriber

WINDOW_S = 600.0
FORCED_END_S = 20.0
"""After this long without a pause the library ends a stretch of speech."""
_LATEST_END_S = 30.0
"""A window waits this long for a pause to end in."""
_SILENCE_S = 2.0
_ANCHOR_S = 10.0
_SHORTEST_ANCHOR_S = 1.5
_ANCHORS_IN_ALL_S = 60.0
_GAP_S = 1.0
_STEP_S = 1.0
_PROVISIONAL_S = 20.0
"""How often speakers are told apart anew before the window's end."""


def library_options(cadence_s: float | None) -> dict[str, str]:
    """The library's options for a listener; without speakers where ``cadence_s`` is None."""
    options = {
        "skip_transcription": "true",
        "vad_max_segment_duration": f"{FORCED_END_S * 1.5:.1f}",  # it ends at two thirds
    }
    if cadence_s is not None:
        options |= {
            "identify_speakers": "true",
            "diarization_analyze_cadence": f"{cadence_s:.3f}",
            "diarization_cluster_cadence": f"{_PROVISIONAL_S:.1f}",
            "diarization_cluster_window_sec": "0",
        }
    return options


class Listener:
    """Follows a recording; times in seconds from its start.

    ``library`` is loaded with `library_options` of the same ``cadence_s``, and the caller's.
    """

    def __init__(self, library: Transcriber, cadence_s: float | None) -> None:
        self._library = library
        self._audio = RecentAudio(SAMPLE_RATE)
        self._step_s = cadence_s or _STEP_S
        self._diarizes = cadence_s is not None
        self._speech: list[Turn] = []
        self._settled: list[Turn] = []
        self._provisional: list[Turn] = []
        self._voices: dict[int, Block] = {}
        self._window_start_s = 0.0
        self._fed_s = 0.0
        self._heard_s = 0.0
        forget(library)
        self._begin_window(_SILENCE_S)

    @property
    def turns(self) -> list[Turn]:
        """Who speaks when; where nobody is told apart, everything is one voice's."""
        return self._settled + self._provisional if self._diarizes else list(self._speech)

    @property
    def told_s(self) -> float:
        """Where the last stretch of speech ended that the library has done with."""
        return self._heard_s

    def feed(self, block: Block) -> None:
        """More of the recording; what gathers is handed on a step at a time."""
        self._audio.append(block)
        if self._audio.end_s - self._fed_s < self._step_s:
            return
        transcript = self._hear()
        length_s = self._fed_s - self._window_start_s
        pausing = not transcript.lines or transcript.lines[-1].is_complete
        if length_s >= WINDOW_S + (0.0 if pausing else _LATEST_END_S):
            self._end_window()
            self._begin_window(0.0)
        else:
            self._take_stretches(transcript)

    def finish(self) -> None:
        """The recording is over."""
        if self._audio.end_s > self._fed_s:
            self._hear()
        self._end_window()

    def close(self) -> None:
        """Let go of the stream; the library is its owner's."""
        self._stream.close()

    def _begin_window(self, silence_s: float) -> None:
        """Start anew, with silence and every known voice in front."""
        import numpy as np

        self._stream = self._library.create_stream()
        self._stream.start()
        self._known_lines = 0
        self._provisional = []
        self._anchors: dict[int, tuple[float, float]] = {}
        self._lead_s = 0.0
        self._play(np.zeros(int(silence_s * SAMPLE_RATE), np.float32))
        each = int(min(_ANCHOR_S, _ANCHORS_IN_ALL_S / max(1, len(self._voices))) * SAMPLE_RATE)
        for speaker, voice in self._voices.items():
            begin_s = self._lead_s
            self._play(voice[:each])
            self._anchors[speaker] = (begin_s, self._lead_s)
            self._play(np.zeros(int(_GAP_S * SAMPLE_RATE), np.float32))

    def _play(self, audio: Block) -> None:
        """Let the library hear something that is not the recording, a step at a time."""
        step = int(self._step_s * SAMPLE_RATE)
        for start in range(0, len(audio), step):
            feed(self._stream, audio[start : start + step])
        self._lead_s += len(audio) / SAMPLE_RATE

    def _hear(self) -> Transcript:
        """Hand on what has gathered: one analysis of the library's, so it never falls behind."""
        block = self._audio.between(self._fed_s, self._audio.end_s)
        transcript = feed(self._stream, block)
        self._fed_s = self._audio.end_s
        self._provisional = self._place(transcript)
        return transcript

    def _end_window(self) -> None:
        transcript = self._stream.stop()
        self._stream.close()
        placed = self._place(transcript)
        self._take_stretches(transcript)
        self._settled += placed
        self._window_start_s = self._fed_s
        self._provisional = []
        for speaker in {turn.label for turn in placed}:
            self._remember(speaker, clearest(placed, speaker, _ANCHOR_S))
        self._audio.forget(self._fed_s - _LATEST_END_S)

    def _remember(self, speaker: int, stretch: tuple[float, float] | None) -> None:
        """Keep a voice's longest clear stretch as its anchor."""
        if stretch is None or stretch[1] - stretch[0] < _SHORTEST_ANCHOR_S:
            return
        voice = self._audio.between(*stretch)
        if len(voice) > len(self._voices.get(speaker, ())):
            self._voices[speaker] = voice

    def _take_stretches(self, transcript: Transcript) -> None:
        """Stretches of speech that ended; they do not overlap."""
        shift = self._window_start_s - self._lead_s
        for line in transcript.lines[self._known_lines :]:
            if not line.is_complete:
                break
            self._known_lines += 1
            start = max(line.start_time + shift, self._window_start_s, self._heard_s)
            end = min(line.start_time + line.duration + shift, self._fed_s)
            if end > start:
                self._speech.append(Turn(start, end, 0))
                self._heard_s = end

    def _place(self, transcript: Transcript) -> list[Turn]:
        """Turns of this window in the recording's time, labels replaced by speakers."""
        turns = [
            Turn(span.start_time, span.start_time + span.duration, span.speaker_index)
            for line in transcript.lines
            for span in line.speaker_spans or []
        ]
        speakers = link(turns, self._anchors)
        shift = self._window_start_s - self._lead_s
        return [
            Turn(max(turn.start, self._lead_s) + shift, turn.end + shift, speakers[turn.label])
            for turn in turns
            if turn.end > self._lead_s and turn.label in speakers
        ]
