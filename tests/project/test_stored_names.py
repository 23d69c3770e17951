"""Names that are stored or cross between versions: no renaming of a class or a field moves them."""

import json
from dataclasses import asdict
from typing import get_args

import pytest

from sidecar import errors
from sidecar.jobs import job_record, sqlite_event_log
from sidecar.plugins.shared_jobs import job_rows
from sidecar.storage.speaker_store import SpeakerSample
from sidecar.transcripts import transcript

RECORD = """{"id": "a", "owner": "ada", "created": 5.0, "kept": true, "durable": true,
    "alone": false, "seq": 1, "priority": "interactive", "unknown_fields": ["one"],
    "audio": {"ref": "stored", "name": "n", "sha256": "s", "size": 7, "storage": "folder"},
    "options": {"precision": "auto", "language": "auto", "diarize": true,
        "diarization": "balanced", "prompt": "", "num_speakers": null, "temperature": 0.0,
        "max_tokens": null, "translate": false, "windows": "auto", "words": false, "track": null,
        "memory": {"encoder_chunk_s": 8.0, "prefill_tile": 2048, "cache_tokens": 0,
            "cache_step": 4096, "evict_encoders": false, "host_token_table": false,
            "window_s": 3600.0, "together": 1, "places": 0, "weight": 1},
        "memory_fallback": null, "memory_alone": null, "recognise": true, "voiceprints": true,
        "known_voices": [{"person": "p", "name": "Ada",
            "prints": [{"vector": "AA", "seconds": 1.0}]}]},
    "facts": {"container": "wav", "decoder": "ffmpeg", "total_s": 2.0},
    "key": {"name": "k", "digest": "d"}}"""
SEGMENT = """{"start": 0.0, "end": 1.0, "text": "Hi", "speaker": 0, "flags": ["x"],
    "words": [{"start": 0.0, "end": 0.5, "text": "Hi", "confidence": 0.9}],
    "words_by": "aligned", "confidence": 0.8, "language": "en"}"""
KNOWN_SEGMENT = SEGMENT[:-1] + ', "no_speech_probability": 0.04}'
"""A segment as this release stores it: fields that have no value are left out."""
FAILURE = '{"code": "internal", "detail": "d", "hint": "h", "retry_after": 3}'
CHANGES = [
    '{"change": "begun", "anew": true}',
    '{"change": "putback", "counted": false, "alone": false, "passed": false}',
    '{"change": "putback", "counted": false, "alone": true, "passed": false}',
    '{"change": "putback", "counted": true, "alone": false, "passed": true}',
    '{"change": "crashed"}',
    '{"change": "interrupted"}',
    '{"change": "cancelled"}',
    f'{{"failure": {FAILURE}}}',
    f'{{"refused": {FAILURE}}}',
    '{"edit": [{"op": "undo"}]}',
    '{"edit": [{"op": "diarize", "num_speakers": 2, "result": "eJw="}]}',
    '{"report": {"event": "Checkpoint", "audio_s": 1.0, "form": "diarization-1", '
    '"segments": [], "state": {"data": "eJw="}}, "processing_s": 0.5}',
    '{"report": {"event": "Progress", "audio_s_done": 1.0, "audio_s_total": 2.0}, '
    '"processing_s": 0.5}',
    f'{{"report": {{"event": "SegmentReady", "index": 0, "segment": {SEGMENT}}}, '
    '"processing_s": 0.5}',
    '{"report": {"event": "Peaks", "first": 0, "levels": "AQ=="}, "processing_s": 0.5}',
    '{"report": {"event": "Checkpoint", "audio_s": 1.0, "form": "f", '
    f'"segments": [{SEGMENT}], "state": {{"a": 1}}}}, "processing_s": 0.5}}',
    f'{{"report": {{"event": "Finished", "transcript": {{"segments": [{SEGMENT}], '
    '"language": "en", "duration": 1.0, "engine": "e", "precision": "fp32", "diarized": true, '
    '"notices": [{"code": "c", "message": "m"}], "voices": [{"speaker": 0, "seconds": 1.0, '
    '"person": "p", "name": "Ada", "likeness": 0.9, "print": {"vector": "AA", "seconds": 1.0}}], '
    '"prints": [null], "model": "m", "device": "cpu"}}, "processing_s": 0.5}',
    f'{{"report": {{"event": "SegmentReady", "index": 0, "segment": {KNOWN_SEGMENT}}}, '
    '"processing_s": 0.5}',
    f'{{"report": {{"event": "Finished", "transcript": {{"segments": [{KNOWN_SEGMENT}], '
    '"language": "en", "duration": 1.0, "engine": "e", "precision": "fp32", "diarized": true, '
    '"notices": [], "voices": [], "prints": [], "model": "m", "device": "cpu", '
    '"language_probability": 0.97}}, "processing_s": 0.5}',
]
"""Events as earlier releases stored them."""


def test_stored_job_is_read_and_written_as_before() -> None:
    record = sqlite_event_log.parse_record(RECORD.encode())
    assert json.loads(sqlite_event_log.serialize_record(record)) == json.loads(RECORD)


@pytest.mark.parametrize("stored", CHANGES)
def test_stored_event_is_read_and_written_as_before(stored: str) -> None:
    change = sqlite_event_log.parse_change(stored.encode())
    assert json.loads(sqlite_event_log.serialize_change(change)) == json.loads(stored)


@pytest.mark.parametrize(
    ("stored", "counts_as"),
    [
        ('{"change": "putback"}', job_record.CountsAs.NOTHING),
        (
            '{"change": "putback", "counted": true, "alone": true, "passed": false}',
            job_record.CountsAs.CRASH,
        ),
    ],
)
def test_attempt_that_an_earlier_release_put_back_counts_as_it_did(
    stored: str, counts_as: job_record.CountsAs
) -> None:
    change = sqlite_event_log.parse_change(stored.encode())
    assert change == job_record.RequeuedChange(counts_as)


def with_unknown_field(values: object) -> object:
    """The values, with a field in each object of them that no class has."""
    if isinstance(values, dict):
        return {"later": [1]} | {name: with_unknown_field(one) for name, one in values.items()}
    return [with_unknown_field(one) for one in values] if isinstance(values, list) else values


@pytest.mark.parametrize("stored", [one for one in CHANGES if "report" in one])
def test_stored_report_of_later_release_is_read_without_what_it_adds(stored: str) -> None:
    values = json.loads(stored)
    event = values["report"].pop("event")
    report = with_unknown_field(values["report"])
    assert isinstance(report, dict)
    if "state" in report:
        report["state"] = values["report"]["state"]  # of the engine, whatever it is
    later = json.dumps(values | {"report": report | {"event": event}}).encode()
    change = sqlite_event_log.parse_change(later)
    assert json.loads(sqlite_event_log.serialize_change(change)) == json.loads(stored)


@pytest.mark.parametrize("place", ["options", "facts"])
def test_stored_job_with_unknown_option_or_audio_fact_is_refused_as_unreadable(place: str) -> None:
    record = json.loads(RECORD)
    record[place]["later"] = 1
    with pytest.raises(sqlite_event_log.UnreadableRecord):
        sqlite_event_log.parse_record(json.dumps(record).encode())


def test_event_of_worker_with_unknown_field_is_refused() -> None:
    with pytest.raises(errors.EngineFailed):
        transcript.from_wire({"event": "Progress", "audio_s_done": 1.0, "later": 1})


def test_stored_sample_of_speaker_is_read_and_written_as_before() -> None:
    stored = {"added": 1.0, "print": {"vector": "AA", "seconds": 2.0}}
    assert asdict(SpeakerSample.of(stored)) == stored


def test_event_names_in_stored_jobs_are_unchanged() -> None:
    assert {*sqlite_event_log.RECORDING_REFS} == {"open", "stored", "file"}
    names = {transcript.to_wire(transcript.Progress(0.0, 1.0))["event"]}
    names |= {transcript.to_wire(transcript.Peaks(0, b""))["event"]}
    names |= {transcript.to_wire(transcript.ResumePoint(0.0, ""))["event"]}
    assert names == {"Progress", "Peaks", "Checkpoint"}
    assert {*transcript.EVENT_NAMES.values()} == names | {"SegmentReady", "Finished"}


def test_event_kinds_in_journal_rows_are_unchanged() -> None:
    words = """begun crashed putback interrupted cancelled refused failed edited
        progress segmentready peaks checkpoint finished"""
    requeued = job_record.RequeuedChange
    kinds = {job_rows.event_kind(requeued(one)) for one in job_record.CountsAs}
    assert kinds == {"crashed", "putback", "interrupted"}
    assert kinds | {*job_rows.EVENT_KINDS.values()} == {*words.split()}
    changes = {*get_args(job_record.JobChange)} - {job_record.ReportedChange, requeued}
    assert {*job_rows.EVENT_KINDS} == changes | {*get_args(transcript.TranscriptionEvent)}
