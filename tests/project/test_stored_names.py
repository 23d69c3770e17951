"""Names that are stored or cross between versions: no renaming of a class moves them."""

from typing import get_args

from sidecar.jobs import job_record, sqlite_event_log
from sidecar.plugins.shared_jobs import job_rows
from sidecar.transcripts import transcript


def test_event_names_in_stored_jobs_are_unchanged() -> None:
    assert {*sqlite_event_log.RECORDING_REFS} == {"open", "stored", "file"}
    words = "begun crashed putback interrupted cancelled"
    assert {*sqlite_event_log.PLAIN_CHANGES} == {*words.split()}
    names = {transcript.to_wire(transcript.Progress(0.0, 1.0))["event"]}
    names |= {transcript.to_wire(transcript.Peaks(0, b""))["event"]}
    names |= {transcript.to_wire(transcript.ResumePoint(0.0, ""))["event"]}
    assert names == {"Progress", "Peaks", "Checkpoint"}
    assert {*transcript.EVENT_NAMES.values()} == names | {"SegmentReady", "Finished"}


def test_event_kinds_in_journal_rows_are_unchanged() -> None:
    words = """begun crashed putback interrupted cancelled refused failed edited
        progress segmentready peaks checkpoint finished"""
    assert {*job_rows.EVENT_KINDS.values()} == {*words.split()}
    changes = {*get_args(job_record.JobChange)} - {job_record.ReportedChange}
    assert {*job_rows.EVENT_KINDS} == changes | {*get_args(transcript.TranscriptionEvent)}
