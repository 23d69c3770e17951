"""Recordings of shared jobs that hang as a node opens or deletes them."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from postgres import KEY
from service_process import PATIENCE_S, new_file, until
from uploads import upload

from sidecar.audio import audio_source
from sidecar.audio.audio_source import AudioSource, StoredRecordingRef, open_recording_file
from sidecar.auth.identity import ANONYMOUS, AuthMethod, Identity
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs import recording_opener
from sidecar.jobs.job_record import JobRecord, JobState
from sidecar.jobs.persistent_recordings import PersistentRecordings
from sidecar.plugins import load_settings
from sidecar.server.app import create_service
from sidecar.service.facade import MAX_CONCURRENT_SPOOLS, Service
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


async def test_files_of_an_owner_whose_copies_hang_keep_no_recording_of_another_from_being_stored(
    node: Service,
    recording: Path,
    voice: bytes,
    monkeypatch: pytest.MonkeyPatch,
    over: threading.Event,
) -> None:
    hers = new_file(recording.with_name("hers.wav"), voice)
    hung, read, status = list[int](), audio_source.read_chunks, hers.stat()

    def read_once_it_answers(fd: int) -> Iterator[bytes]:
        if os.path.samestat(os.fstat(fd), status):
            hung.append(fd)
            over.wait()
        return read(fd)

    monkeypatch.setattr(audio_source, "read_chunks", read_once_it_answers)
    ada, options = Identity("ada", AuthMethod.JWT), TranscribeOptions()
    copied = [
        asyncio.ensure_future(node.submissions.submit(ada, open_recording_file(str(hers)), options))
        for _ in range(MAX_CONCURRENT_SPOOLS + 2)
    ]
    await until(lambda: len(hung) == MAX_CONCURRENT_SPOOLS)
    others = [upload(voice), open_recording_file(str(recording))]
    async with asyncio.timeout(PATIENCE_S):
        for other in others:
            await node.submissions.submit(ANONYMOUS, other, options)
    over.set()
    await asyncio.gather(*copied)
