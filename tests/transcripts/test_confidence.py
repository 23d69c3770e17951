"""Confidence of words and segments, language and probabilities: on the wires, after cuts, edits."""

import json
from dataclasses import replace
from typing import Any

import pytest
from vibevoice_asr_client import models

from sidecar.api.live_messages import event_message
from sidecar.cli.remote_service import convert_transcript
from sidecar.diarization.word_attribution import attribute_words
from sidecar.interfaces import live_events
from sidecar.interfaces.recognition import RecognitionHypothesis
from sidecar.live.runtime.recognition_plan import SpeechSegment
from sidecar.live.runtime.result_assembler import ResultAssembler
from sidecar.live.sessions.event_log import NumberedEvent
from sidecar.plugins.openai.messages import verbose_body
from sidecar.plugins.openai.request import OpenAIAnswerOptions, OpenAIGranularity
from sidecar.plugins.upstream.sidecar_dialect import parse_sidecar_answer
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import (
    Finished,
    ResumePoint,
    Segment,
    SegmentReady,
    Transcript,
    Word,
    from_wire,
    mean_confidence,
    to_wire,
)
from sidecar.transcripts.transcript_edits import replace_segment_text
from sidecar.transcripts.transcript_formats import FORMATS, render_transcript
from sidecar.transcripts.vibevoice_output import content_positions

SURE = Segment(
    0.0,
    2.0,
    "Fail again.",
    0,
    (Word(0.0, 1.0, "Fail", 0.9), Word(1.0, 2.0, "again.", 0.4)),
    words_by="aligned",
    confidence=0.6,
    language="en",
    no_speech_probability=0.04,
)
FOUND = Transcript(
    (SURE, Segment(2.0, 3.0, "Hm.", 1)),
    "en",
    3.0,
    "whisper",
    "fp32",
    diarized=True,
    language_probability=0.97,
)
BARE = replace(
    SURE,
    confidence=None,
    language="",
    words=(Word(0, 1, "Fail"), Word(1, 2, "again.")),
    no_speech_probability=None,
)


def numbers(segment: Segment) -> list[object]:
    """All that `==` of a segment leaves out, and the language."""
    words = [word.confidence for word in segment.words]
    return [segment.confidence, segment.language, segment.no_speech_probability, *words]


SAID = [0.6, "en", 0.04, 0.9, 0.4]


@pytest.mark.parametrize(
    ("logarithms", "expected"), [([], None), ([0.0], 1.0), ([-1.0, -3.0], 0.135), ([-900.0], 0.001)]
)
def test_confidence_is_geometric_mean_rounded_to_three_decimals(
    logarithms: list[float], expected: float | None
) -> None:
    assert mean_confidence(logarithms) == expected


def test_confidence_and_language_survive_serialization_of_results_and_resume_points() -> None:
    for event in (Finished(FOUND), SegmentReady(0, SURE), ResumePoint(1.0, "x", (SURE,))):
        (again,) = {json.dumps(to_wire(from_wire(json.loads(json.dumps(to_wire(event))))))}
        assert again == json.dumps(to_wire(event))
        assert '"confidence": 0.6, "language": "en", "no_speech_probability": 0.04' in again
        assert '"text": "again.", "confidence": 0.4' in again


def test_json_has_confidence_only_where_known_and_clients_and_fronts_read_it_back() -> None:
    body: dict[str, Any] = json.loads(render_transcript(FOUND, "json"))
    assert [one.get("confidence") for one in body["segments"]] == [0.6, None]
    assert body["segments"][1].keys() == {"speaker", "start_time", "end_time", "text"}
    assert body["metadata"]["language_probability"] == 0.97
    assert convert_transcript(models.transcript_of(body)).language_probability == 0.97
    by_client = convert_transcript(models.transcript_of(body)).segments
    by_front = parse_sidecar_answer(body, FOUND.duration).segments
    for first, second in (by_client, by_front):
        assert numbers(first) == SAID
        assert numbers(second) == [None, "", None]


def test_formats_other_than_json_and_vtt_are_unchanged_by_confidence() -> None:
    for name in FORMATS.keys() - {"json", "vtt"}:
        without = render_transcript(replace(FOUND, segments=(BARE, FOUND.segments[1])), name)
        assert render_transcript(FOUND, name) == without


def test_openai_verbose_json_has_probabilities_of_segments_and_known_ones_of_words() -> None:
    both = OpenAIAnswerOptions(granularities=frozenset(OpenAIGranularity))
    body = verbose_body(FOUND, both, 0.0)
    assert [one["avg_logprob"] for one in body["segments"]] == [-0.511, 0.0]
    assert [one["no_speech_prob"] for one in body["segments"]] == [0.04, 0.0]
    assert [one["probability"] for one in body["words"]] == [0.9, 0.4]
    bare = verbose_body(replace(FOUND, segments=(BARE,)), both, 0.0)
    assert not any("probability" in one for one in bare["words"])


def test_live_final_has_confidence_and_language_of_its_hypothesis_also_on_the_wires() -> None:
    assembler = ResultAssembler(live_events.LiveSessionStart(), None)
    piece = SpeechSegment(0, 0, 16_000, 16_000, end=48_000)
    assembler.add(piece)
    found = RecognitionHypothesis(SURE.text, SURE.words, language="en", likelihood=0.6)
    found = replace(found, no_speech=0.04)
    assembler.set_final(piece, found, (), 0.0, 0.0)
    (final,) = assembler.due_events()
    assert isinstance(final, live_events.Final)
    assert numbers(final.segment) == SAID
    assert [word.start for word in final.segment.words] == [1.0, 2.0]
    message = json.loads(event_message(NumberedEvent(1, final)))
    assert (message["segment"]["confidence"], message["segment"]["language"]) == (0.6, "en")
    again = live_events.from_wire(json.loads(json.dumps(live_events.to_wire(final))))
    assert isinstance(again, live_events.Final)
    assert numbers(again.segment) == SAID


def test_segment_cut_at_speaker_border_has_confidence_of_its_words() -> None:
    turns = [SpeakerTurn(0.0, 1.0, 0), SpeakerTurn(1.0, 2.0, 1)]
    cut = attribute_words([SURE], turns)
    assert [numbers(one) for one in cut] == [[0.9, "en", 0.04, 0.9], [0.4, "en", 0.04, 0.4]]
    assert [one.confidence for one in attribute_words([BARE], turns)] == [None, None]
    assert numbers(*attribute_words([SURE], turns[:1])) == SAID


def test_rewritten_segment_has_confidence_of_kept_words_only() -> None:
    assert numbers(replace_segment_text(SURE, "Fail better.")) == [None, "en", None, 0.9, None]


def test_content_positions_in_json_give_each_character_the_start_of_its_escape() -> None:
    written = r'{"Start":1,"Content":"1 \"caf\u00e9\"\n"}'
    at = content_positions(written, '1 "café"')
    assert [written[one] for one in at] == [*"1 ", "\\", *"caf", "\\", "\\", "\\"]
    assert content_positions(written, "2") == []
