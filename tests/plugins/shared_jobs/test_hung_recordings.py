"""Recordings of shared jobs that hang as a node opens or deletes them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from postgres import KEY
from service_process import PATIENCE_S

from sidecar.audio.audio_source import AudioSource, StoredRecordingRef, open_recording_file
from sidecar.auth.identity import ANONYMOUS
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs import recording_opener
from sidecar.jobs.job_record import JobRecord, JobState
from sidecar.jobs.persistent_recordings import PersistentRecordings
from sidecar.plugins import load_settings
from sidecar.server.app import create_service
from sidecar.service.facade import Service
from sidecar.storage.recording_storage import FolderStorage


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """What hangs goes on once it is set, at the end of the test."""
    over = threading.Event()
    yield over
    over.set()


@pytest.fixture
async def node(
    journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: threading.Event
) -> AsyncIterator[Service]:
    """A service; recordings with the prompt "hangs" hang as it opens them."""
    opened = PersistentRecordings.open

    def open_one(own: PersistentRecordings, record: JobRecord) -> AudioSource:
        if record.options.prompt == "hangs":
            over.wait()
        return opened(own, record)

    monkeypatch.setattr(PersistentRecordings, "open", open_one)
    monkeypatch.setenv("VIBEVOICE_JOURNAL", journal)
    monkeypatch.setattr(recording_opener, "opening_timeout_s", lambda record: 0.05)
    service = create_service(load_settings(engine="scripted", data_dir=tmp_path, journal_key=KEY))
    await service.open()
    yield service
    over.set()
    await service.close()


async def submitted(node: Service, recording: Path, prompt: str = "") -> JobRecord:
    source, options = open_recording_file(str(recording)), TranscribeOptions(prompt=prompt)
    return (await node.submissions.submit(ANONYMOUS, source, options)).record


async def test_recordings_that_hang_keep_no_other_of_the_node_from_being_opened(
    node: Service, recording: Path
) -> None:
    records = [await submitted(node, recording, one) for one in ("hangs", "hangs", "hangs", "")]
    with await node.owned.events(ANONYMOUS, records[-1]) as events:
        async for batch in events.batches(PATIENCE_S):
            assert batch, "it goes on"
    assert (await node.owned.job(ANONYMOUS, records[-1].id)).state is JobState.DONE
    assert not (await node.owned.job(ANONYMOUS, records[0].id)).over


async def test_recording_whose_deletion_hangs_keeps_no_other_from_being_stored(
    node: Service, recording: Path, monkeypatch: pytest.MonkeyPatch, over: threading.Event
) -> None:
    record, delete = await submitted(node, recording), FolderStorage.delete
    assert isinstance(record.audio, StoredRecordingRef)
    hangs = record.audio.name

    def delete_one(folder: FolderStorage, name: str) -> None:
        if name == hangs:
            over.wait()
        delete(folder, name)

    monkeypatch.setattr(FolderStorage, "delete", delete_one)
    await asyncio.gather(*(node.owned.delete(ANONYMOUS, record) for _ in range(6)))
    assert (await submitted(node, recording)).id != record.id
