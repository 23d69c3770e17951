"""Chinese recordings in the script that was asked for: all events, and a diarization after them."""

import json
import os
import socket
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import wav

from sidecar.audio.audio_decoder import probe_audio
from sidecar.diarization.kept_diarization import KeptDiarization, word_ranges_of
from sidecar.diarization.window_speakers import WindowSpeakers
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    TranscribeOptions,
    TranscriptionRequest,
)
from sidecar.serialization import to_plain
from sidecar.transcripts import transcript
from sidecar.transcripts.diarized_pieces import DiarizedPieces
from sidecar.transcripts.transcript import (
    Finished,
    ResumePoint,
    Segment,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
    Word,
)
from sidecar.workers.rpc_server import RpcRequest, RpcSender
from sidecar.workers.worker_operations import WorkerOperations

HEARD, SIMPLIFIED, TAIWANESE = "他看著这裏。", "他看着这里。", "他看著這裡。"
"""What a recognizer writes in both scripts at once, and how it is written in each."""


class Engine:
    """An engine that reports one segment, with a word for each character if words are asked for."""

    sample_rate = 16_000

    def load(self, options: LoadOptions) -> Iterator[float]:
        return iter(())

    def transcribe(self, request: TranscriptionRequest) -> Iterator[TranscriptionEvent]:
        words = tuple(Word(at, at + 0.5, one, 0.5) for at, one in enumerate(HEARD[:-1]))
        language = "zh" if request.options.language != "ja" else "ja"
        one = Segment(0.0, 5.0, HEARD, words=words, words_by="attention", language=language)
        yield SegmentReady(0, one)
        yield ResumePoint(5.0, "form", (one,))
        yield Finished(Transcript((one,), request.options.language, 5.0, "made-up", "fp32"))


@pytest.fixture
def transcribed(tmp_path: Path) -> Any:
    path = tmp_path / "silence.wav"
    path.write_bytes(wav(bytes(32_000)))

    def run(language: str) -> list[Segment]:
        """Return the segment of each event."""
        operations, (ours, theirs) = WorkerOperations(lambda _: Engine()), socket.socketpair()
        with path.open("rb") as file, ours, theirs:
            sender, facts = RpcSender(theirs), probe_audio(file.fileno(), 60.0)
            load = {"operation": "load", "engine": "", "options": LoadOptions().to_wire()}
            assert not [*operations.run(RpcRequest(0, load, [], sender))]
            options = TranscribeOptions(language=language, words=True).to_wire()
            message = {"operation": "transcribe", "facts": facts.to_wire(), "options": options}
            request = RpcRequest(1, message | {"max_s": 60.0}, [os.dup(file.fileno())], sender)
            answers = [*operations.run(request)]
        events = [transcript.from_wire(one["event"]) for one in answers if isinstance(one, dict)]
        return [one for event in events for one in _segments(event)]

    return run


def _segments(event: TranscriptionEvent) -> Sequence[Segment]:
    match event:
        case SegmentReady():
            return [event.segment]
        case ResumePoint():
            return event.segments
        case Finished(found):
            return found.segments
    return []


@pytest.mark.parametrize(
    ("language", "text"),
    [
        *[("zh", SIMPLIFIED), ("zh-CN", SIMPLIFIED), ("zh-Hans-TW", SIMPLIFIED)],
        *[("zh-TW", TAIWANESE), ("auto", HEARD), ("ja", HEARD)],
    ],
)
def test_all_events_of_a_recording_have_the_script_of_its_language_and_the_times_of_their_words(
    transcribed: Any, language: str, text: str
) -> None:
    found = transcribed(language)
    assert len(found) == 3
    for segment in found:
        assert segment.text == text
        assert [one.text for one in segment.words] == [*text[:-1]]
        assert [one.start for one in segment.words] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("language", ["zh-CN", "zh-TW"])
def test_diarization_after_the_end_joins_segments_of_a_changed_script_with_their_words(
    language: str,
) -> None:
    text = SIMPLIFIED if language == "zh-CN" else TAIWANESE
    words = tuple(Word(at, at + 0.5, one, 0.5) for at, one in enumerate(HEARD[:-1]))
    uncut = Segment(0.0, 5.0, HEARD, words=words)
    windows = WindowSpeakers()
    windows.persons = np.zeros((0, 3), np.int64)
    kept = KeptDiarization(windows, 5.0, [uncut], word_ranges_of([uncut], [uncut]))
    cut = [Segment(0.0, 2.0, text[:2], confidence=0.5), Segment(2.0, 5.0, text[2:], confidence=0.5)]
    current = Transcript(tuple(cut), language, 5.0, "made-up", "fp32")
    places = [[0, 0, 2], [0, 2, 5]]
    given = json.dumps({"transcript": to_plain(current), "places": places}).encode()
    packed = b64encode(zlib.compress(given))
    message = {"kept": b64encode(kept.to_bytes()), "packed": packed, "count": {}}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request = RpcRequest(0, {"operation": "diarize", **message}, [], RpcSender(theirs))
        (answer,) = WorkerOperations().run(request)
    assert isinstance(answer, dict)
    found = DiarizedPieces.from_bytes(b64decode(answer["result"]))
    assert found.applied(current).text == text
    (piece,) = found.pieces
    assert piece.word_range == (0, 0, len(words))
    assert piece.confidence == 0.5, "of the words, which an edited text has not"
