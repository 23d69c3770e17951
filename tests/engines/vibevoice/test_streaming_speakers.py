"""Speakers of recordings by VibeVoice-ASR-Streaming: voices decide, whatever the model's labels."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_vibevoice import clip

from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions, TranscriptionRequest
from sidecar.transcripts.transcript import Finished, ResumePoint, Segment, SegmentReady

pytest.importorskip("torch")
pytest.importorskip("transformers")

from sidecar.diarization.kept_diarization import KeptDiarization
from sidecar.engines.vibevoice import streaming_transcription
from sidecar.engines.vibevoice.streamed_segment import ChunkText
from sidecar.engines.vibevoice.streaming_checkpoint import StreamingFormat

RATE, CHUNK = 24_000, 70_400
CHUNK_S = CHUNK / RATE
FORMAT = StreamingFormat(RATE, 3_200, 22, 4, 1, 2, 3, 4)
DEFAULTS = TranscribeOptions()
NAGG, NELL = 0, 1
DIALOGUE = [
    *[(NAGG, 0.0, 3.6), (NELL, 3.6, 4.5), (NAGG, 4.5, 8.4), (NELL, 8.4, 11.6)],
    *[(NAGG, 11.6, 14.3), (NELL, 14.3, 17.3), (NAGG, 17.3, 27.7)],
]
"""Who speaks in the recording `endgame_nagg_nell`, and when, in seconds."""


@dataclass
class ScriptedModel:
    """Says these texts of the chunks of a recording."""

    texts: Sequence[str]
    format: StreamingFormat = FORMAT
    loaded: Any = field(
        default_factory=lambda: SimpleNamespace(
            precision=Precision.BF16, device=SimpleNamespace(type="cpu")
        )
    )

    def open(self, context: str = "") -> Iterator[str]:
        return iter(self.texts)

    def transcribe(self, sessions: Any, windows: Any) -> list[ChunkText]:
        return [ChunkText(next(sessions[0]), (-0.1,))]


@dataclass
class Recording:
    samples: Block

    @property
    def total_s(self) -> float:
        return len(self.samples) / RATE

    def __iter__(self) -> Iterator[Block]:
        yield from np.array_split(self.samples, 7)


def recording(name: str) -> Recording:
    return Recording(decode_audio_file(clip(name), RATE))


def transcribed(
    texts: Sequence[str], audio: Recording, options: TranscribeOptions = DEFAULTS
) -> list[Any]:
    request = TranscriptionRequest(audio, options, bool)
    model: Any = ScriptedModel(texts)
    return [*streaming_transcription.StreamingTranscription(model, request).events()]


def chunks_of(audio: Recording) -> int:
    return -(-len(audio.samples) // CHUNK)


def segments_of(events: Sequence[Any]) -> Sequence[Segment]:
    assert isinstance(events[-1], Finished)
    return events[-1].transcript.segments


def chunk_texts(audio: Recording, mark: str) -> list[str]:
    """Each turn of the dialogue has a word every 0.4 s, behind a ``mark`` of a speaker."""
    texts = [""] * chunks_of(audio)
    for number, (_, start, end) in enumerate(DIALOGUE):
        for at, time_s in enumerate(np.arange(start, end - 0.2, 0.4)):
            texts[int(time_s / CHUNK_S)] += (mark if not at else "") + f" t{number}w{at},"
    return texts


def test_two_voices_behind_one_label_of_the_model_are_two_speakers() -> None:
    """It marks one speaker at the start and no other."""
    audio = recording("endgame_nagg_nell")
    texts = [f" one {n}, two {n}, three {n}, four {n}." for n in range(chunks_of(audio))]
    found = segments_of(transcribed([" Speaker 0:" + texts[0], *texts[1:]], audio))
    assert {one.speaker for one in found} == {NAGG, NELL}
    said = " ".join(one.text for one in found)
    assert said.split() == "".join(texts).split(), "each word once, in order"
    in_s = dict.fromkeys((True, False), 0.0)
    for segment in found:
        for who, start, end in DIALOGUE:
            shared = max(0.0, min(end, segment.end) - max(start, segment.start))
            in_s[who == segment.speaker] += shared
    assert in_s[True] > 5 * in_s[False]


@pytest.mark.parametrize("mark", ["\nSpeaker 0:", "\nSpeaker 7 :"])
def test_words_behind_a_mark_of_the_model_are_of_the_voice_that_begins_there(mark: str) -> None:
    """The words have times in proportion to their letters: some fall into the turn beside."""
    audio = recording("endgame_nagg_nell")
    found = segments_of(transcribed(chunk_texts(audio, mark), audio))
    said = dict.fromkeys((NAGG, NELL), "")
    for one in found:
        assert one.speaker is not None
        said[one.speaker] += f" {one.text}"
    turns = {
        (int(word[1 : word.index("w")]), who) for who, text in said.items() for word in text.split()
    }
    words = sum(len(text.split()) for text in said.values())
    assert words == sum(len(one.split()) for one in chunk_texts(audio, ""))
    # In the first turn and the last one the other is heard for a moment, too.
    assert {one for one in turns if 0 < one[0] < 6} == {(n, DIALOGUE[n][0]) for n in range(1, 6)}


def test_one_voice_behind_two_labels_of_the_model_is_one_speaker() -> None:
    audio = recording("beckett")
    texts = [f"\nSpeaker {n % 2}: Ever tried, number {n}." for n in range(chunks_of(audio))]
    assert {one.speaker for one in segments_of(transcribed(texts, audio))} == {0}


def test_labels_of_the_model_tell_speakers_apart_where_no_diarization_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming_transcription, "shared_speaker_models", lambda: None)
    audio = recording("beckett")
    texts = [f"\nSpeaker {n % 2}: Ever tried, number {n}." for n in range(chunks_of(audio))]
    assert [one.speaker for one in segments_of(transcribed(texts, audio))] == [0, 1, 0, 1]


def test_recording_without_diarization_has_the_words_and_no_speakers() -> None:
    audio = recording("beckett")
    texts = [f"\nSpeaker {n % 2}: Ever tried, number {n}." for n in range(chunks_of(audio))]
    events = transcribed(texts, audio, TranscribeOptions(diarize=False))
    assert {one.speaker for one in segments_of(events)} == {None}
    assert [one.text for one in segments_of(events)] == [
        f"Ever tried, number {n}." for n in range(len(texts))
    ]


def test_diarization_of_a_recording_is_kept_for_another_number_of_speakers() -> None:
    audio = recording("endgame_nagg_nell")
    options = TranscribeOptions(keeps_diarization=True)
    events = transcribed(chunk_texts(audio, "\nSpeaker 0:"), audio, options)
    (point,) = [one for one in events if isinstance(one, ResumePoint)]
    assert point.keeps_diarization
    kept = KeptDiarization.from_bytes(base64.b64decode(point.state["data"]))
    assert len(kept.word_ranges) == len(segments_of(events))
    assert kept.end_s == pytest.approx(audio.total_s)


@pytest.mark.parametrize("after", [1, 2, 3, 5, 8])
def test_cancelled_recording_sends_no_more_events_however_many_segments_a_turn_has(
    after: int,
) -> None:
    audio, events = recording("endgame_nagg_nell"), list[Any]()
    request = TranscriptionRequest(audio, DEFAULTS, lambda: len(events) >= after)
    model: Any = ScriptedModel(chunk_texts(audio, "\nSpeaker 0:"))
    for event in streaming_transcription.StreamingTranscription(model, request).events():
        events.append(event)
    assert len(events) == after


def test_segments_are_sent_before_all_of_a_recording_is_read_with_speakers() -> None:
    audio = recording("endgame_nagg_nell")
    events = transcribed(chunk_texts(audio, "\nSpeaker 0:"), audio)
    ready = [one.segment for one in events if isinstance(one, SegmentReady)]
    assert {one.speaker for one in ready} == {NAGG, NELL}
    assert "".join(" ".join(one.text for one in ready).split()) == "".join(
        " ".join(one.text for one in segments_of(events)).split()
    )
