"""Recordings of shared jobs that hang as a node opens them."""

import threading
from pathlib import Path

import pytest
from postgres import KEY
from service_process import PATIENCE_S

from sidecar.audio.audio_source import AudioSource, open_recording_file
from sidecar.auth.identity import ANONYMOUS
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs import recording_opener
from sidecar.jobs.job_record import JobRecord, JobState
from sidecar.jobs.persistent_recordings import PersistentRecordings
from sidecar.plugins import load_settings
from sidecar.server.app import create_service


async def test_recordings_that_hang_keep_no_other_of_the_node_from_being_opened(
    journal: str, tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, opened = threading.Event(), PersistentRecordings.open

    def open_one(own: PersistentRecordings, record: JobRecord) -> AudioSource:
        if record.options.prompt == "hangs":
            over.wait()
        return opened(own, record)

    monkeypatch.setattr(PersistentRecordings, "open", open_one)
    monkeypatch.setattr(recording_opener, "opening_timeout_s", lambda record: 0.05)
    monkeypatch.setenv("VIBEVOICE_JOURNAL", journal)
    service = create_service(load_settings(engine="scripted", data_dir=tmp_path, journal_key=KEY))
    await service.open()
    try:
        records = list[JobRecord]()
        for prompt in ("hangs", "hangs", "hangs", ""):
            source = open_recording_file(str(recording))
            options = TranscribeOptions(prompt=prompt)
            job = await service.submissions.submit(ANONYMOUS, source, options)
            records.append(job.record)
        with await service.owned.events(ANONYMOUS, records[-1]) as events:
            async for batch in events.batches(PATIENCE_S):
                assert batch, "it goes on"
        assert (await service.owned.job(ANONYMOUS, records[-1].id)).state is JobState.DONE
        assert not (await service.owned.job(ANONYMOUS, records[0].id)).over
    finally:
        over.set()
        await service.close()
