"""Where recordings lie: what is there is there whole, and what was kept is opened as that or not at
all, in a folder and in a bucket of a real server."""

import asyncio
import errno
import os
import re
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from full_disk import small_disk
from job_event_histories import submitted
from open_descriptors import opened
from service_process import PATIENCE_S, is_private, new_file, until
from uploads import read, upload

from sidecar import errors, files
from sidecar.audio.audio_source import StoredRecordingRef, open_recording_file
from sidecar.audio.upload_spool import UploadSpool
from sidecar.concurrency import ThreadLimiter
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_record import JobState
from sidecar.jobs.local_jobs import LocalJobStore
from sidecar.jobs.owned_jobs import OwnedRecordings
from sidecar.jobs.persistent_recordings import PersistentRecordings
from sidecar.jobs.recovery import JobPersistence
from sidecar.jobs.sqlite_event_log import parse_record, serialize_record
from sidecar.plugins import settings_class
from sidecar.plugins.shared_jobs.checks import check_shared_jobs
from sidecar.plugins.shared_jobs.postgres_database import migrate_postgres
from sidecar.plugins.shared_jobs.s3_storage import S3Storage
from sidecar.plugins.shared_jobs.storage_selection import check_storage, create_recording_storage
from sidecar.service.live_session_archive import LiveSessionArchive
from sidecar.service.system_checks import CheckState
from sidecar.storage.recording_storage import FolderStorage, RecordingStorage, store_code
from sidecar.transcripts.transcript import Segment, Transcript

Settings = settings_class()

KEY = "0123456789abcdef0123456789abcdef"
LARGE = UploadSpool.MEMORY_BYTES + (3 << 20)


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """Of this process's descriptors; what others had left may go meanwhile."""
    before = opened()
    yield
    assert opened() - before == set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs" / "uploads"


FOLDER, BUCKET = "folder", "bucket"


@pytest.fixture(params=[FOLDER, BUCKET])
def storage(path: Path, request: pytest.FixtureRequest) -> RecordingStorage:
    if request.param == FOLDER:
        return FolderStorage(path)
    return bucket_at(request.getfixturevalue("bucket"))


def bucket_at(address: str) -> S3Storage:
    settings = Settings(journal="postgresql://nowhere", uploads=address)
    made = create_recording_storage(settings, Path("nowhere"))
    assert isinstance(made, S3Storage)
    return made


def test_start_with_missing_mount_of_uploads_or_a_file_in_its_place_is_refused(path: Path) -> None:
    def check(folder: Path) -> None:
        settings = Settings(journal="postgresql://nowhere", uploads=str(folder))
        check_storage(create_recording_storage(settings, Path("nowhere")))

    with pytest.raises(errors.SettingsInvalid, match=re.escape(str(path / "mount"))) as caught:
        check(path / "mount" / "uploads")
    assert "Mount it" in caught.value.hint
    assert "VIBEVOICE_UPLOADS" in caught.value.hint
    (path / "mount").mkdir(parents=True)
    check(path / "mount" / "uploads")
    assert not (path / "mount" / "uploads").exists(), "it is made when it is needed"
    (path / "mount" / "uploads").write_text("no folder", "utf-8")
    with pytest.raises(errors.SettingsInvalid, match="Not a directory"):
        check(path / "mount" / "uploads")


@pytest.mark.parametrize("size", [0, 1, 1 << 20, LARGE])
def test_stored_recording_is_read_whole_and_from_any_position_until_it_is_deleted(
    size: int, storage: RecordingStorage
) -> None:
    data = os.urandom(size)
    storage.put("a-job", [data[:1000], b"", data[1000:]])
    assert b"".join(storage.read("a-job")) == data
    with closing(storage.open("a-job")) as stored:
        assert stored.size == size
        assert stored.at(0, 10) == data[:10]
        assert stored.at(size // 2, size) == data[size // 2 :]
        assert stored.at(size, 1) == b""
    assert [*storage.ages()] == ["a-job"]
    storage.delete("a-job")
    storage.delete("a-job")
    assert not storage.ages()
    for look in (storage.open, lambda name: [*storage.read(name)]):
        with pytest.raises(FileNotFoundError):
            look("a-job")


def test_existing_recording_is_not_overwritten(storage: RecordingStorage) -> None:
    storage.put("a-job", [b"one"])
    with pytest.raises(errors.SpoolUnwritable):
        storage.put("a-job", [b"another"])
    assert [*storage.read("a-job")] == [b"one"]
    assert [*storage.ages()] == ["a-job"]


@pytest.mark.parametrize("sent", [0, 1, 20 << 20])
def test_broken_stream_leaves_no_recording(sent: int, storage: RecordingStorage) -> None:
    def broken() -> Iterator[bytes]:
        yield bytes(sent)
        raise RuntimeError("the disk that it comes from")

    with pytest.raises(RuntimeError):
        storage.put("a-job", broken())
    assert not storage.ages()
    storage.put("a-job", [b"again"])
    assert [*storage.read("a-job")] == [b"again"]


def test_folder_and_recordings_are_private_to_their_user(path: Path) -> None:
    path.mkdir(mode=0o755, parents=True)
    old = os.umask(0)
    try:
        FolderStorage(path).put("a-job", [b"voice"])
    finally:
        os.umask(old)
    assert is_private(path / "a-job")
    assert is_private(path)


def test_two_clusters_and_foreign_files_in_one_uploads_folder_stay_separate(path: Path) -> None:
    path.mkdir(mode=0o755, parents=True)
    (path / "thesis.docx").write_text("somebody else's", "utf-8")
    one, other = (FolderStorage(path, named=True) for _ in range(2))
    for folder, cluster in ((one, "one"), (other, "other")):
        folder.join(cluster, lambda call: call())
        folder.put(cluster, [b"a recording"])
        assert [*folder.ages()] == [cluster]
    assert not is_private(path)
    assert is_private(path / "vibevoice-one")
    assert {one.name for one in path.iterdir()} == {
        *("thesis.docx", "vibevoice-one", "vibevoice-other")
    }


def test_folder_of_one_store_is_refused_to_another_which_leaves_nothing_in_it(path: Path) -> None:
    for _ in range(2):  # a service, and a later one, or a node beside it
        FolderStorage(path).join("one")
    FolderStorage(path).put("a-job", [b"a recording"])
    before = {*path.iterdir()}
    with pytest.raises(errors.FolderTaken, match=re.escape(str(path))) as caught:
        FolderStorage(path).join("other")
    assert "VIBEVOICE_DATA_DIR" in caught.value.hint
    assert "VIBEVOICE_UPLOADS" in caught.value.hint
    assert {*path.iterdir()} == before
    assert [*FolderStorage(path).ages()] == ["a-job"], "the mark is no recording"


def test_folder_without_a_mark_belongs_to_the_store_that_is_started_first_and_keeps_recordings(
    path: Path,
) -> None:
    """One of an earlier release, or of a service that died before it marked it."""
    path.mkdir(parents=True)
    FolderStorage(path).put("a-job", [b"a recording"])
    FolderStorage(path).join("one")
    assert [*FolderStorage(path).read("a-job")] == [b"a recording"]
    with pytest.raises(errors.FolderTaken):
        FolderStorage(path).join("other")


def test_store_that_finds_another_marking_the_folder_at_the_same_moment_takes_its_mark_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch = files.touch

    def touched_beside(mark: Path) -> None:
        touch(mark)
        touch(mark.with_stem("other"))

    monkeypatch.setattr(files, "touch", touched_beside)
    with pytest.raises(errors.FolderTaken):
        FolderStorage(path).join("one")
    monkeypatch.undo()
    FolderStorage(path).join("other")


def test_folder_that_cannot_be_marked_is_refused_with_the_setting_that_mends_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(mark: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files, "touch", refuse)
    with pytest.raises(errors.SettingsInvalid, match="Read-only") as caught:
        FolderStorage(path).join("one")
    assert "VIBEVOICE_DATA_DIR" in caught.value.hint


def test_unmounted_uploads_share_is_storage_unreachable_until_it_is_mounted_again(
    path: Path,
) -> None:
    path.mkdir(parents=True)
    folder = FolderStorage(path, named=True)
    folder.join("one", lambda call: call())
    folder.put("a-job", [b"a recording"])
    path.rename(path.parent / "share")
    path.mkdir()  # the empty mount point
    for started in (folder, FolderStorage(path, named=True)):
        if started is not folder:
            started.join("one", lambda call: None)  # another service made it long ago
        for ask in (
            lambda: started.open("a-job"),  # noqa: B023
            lambda: [*started.read("a-job")],  # noqa: B023
            lambda: started.put("another", [b"a recording"]),  # noqa: B023
            lambda: started.delete("a-job"),  # noqa: B023
            lambda: started.ages(),  # noqa: B023
        ):
            with pytest.raises(errors.StorageUnreachable, match="not mounted"):
                ask()
        assert [*path.iterdir()] == []
    path.rmdir()
    (path.parent / "share").rename(path)
    assert [*folder.read("a-job")] == [b"a recording"]
    with pytest.raises(FileNotFoundError):
        folder.open("another")


@pytest.mark.posix("mounts of POSIX")
def test_private_folder_whose_disk_is_away_at_a_start_is_not_marked_and_has_lost_no_recording(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir(parents=True)
    with small_disk(path, 1):
        FolderStorage(path).join("one")
    folder = FolderStorage(path)
    folder.join("one")
    assert [*path.iterdir()] == []
    with pytest.raises(errors.StorageUnreachable, match="not mounted"):
        folder.open("a-job")
    (note,) = {*path.parent.iterdir()} - {path}
    assert f"delete {note}" in caplog.text
    with small_disk(path, 1):  # another disk, without a mark
        FolderStorage(path).join("one")
        assert [*path.iterdir()]
    note.unlink()
    folder.join("one")
    assert [*path.iterdir()], "it is no disk of its own any more"
    with pytest.raises(FileNotFoundError):
        folder.open("a-job")


def test_private_folder_whose_disk_is_away_has_lost_no_recording_and_takes_new_ones(
    path: Path,
) -> None:
    folder = FolderStorage(path)
    folder.join("one")
    folder.put("a-job", [b"a recording"])
    path.rename(path.parent / "disk")
    for ask in (
        lambda: folder.open("a-job"),
        lambda: [*folder.read("a-job")],
        lambda: folder.delete("a-job"),
        lambda: folder.ages(),
    ):
        with pytest.raises(errors.StorageUnreachable, match="not mounted"):
            ask()
    folder.put("b-job", [b"a recording"])
    assert [*folder.read("b-job")] == [b"a recording"]
    shutil.rmtree(path)
    (path.parent / "disk").rename(path)
    assert [*folder.read("a-job")] == [b"a recording"]
    with pytest.raises(FileNotFoundError):
        folder.open("another")


def test_doctor_reports_missing_uploads_subfolder_of_cluster_and_wrong_key(
    path: Path, fresh_journal: str
) -> None:
    path.mkdir(parents=True)
    given: dict[str, Any] = {"journal": fresh_journal, "uploads": str(path)}
    settings = Settings(**given, journal_key="k" * 32)
    assert check_shared_jobs(settings).state is CheckState.GOOD, "no service has made one yet"
    folder = FolderStorage(path, named=True)
    folder.join(store_code(migrate_postgres(fresh_journal, "k" * 32)), lambda call: call())
    found = check_shared_jobs(settings)
    assert found.state is CheckState.GOOD
    assert str(folder) in found.text
    assert folder.ages() == {}, "the look left a file"
    Path(str(folder)).rename(path.parent / "share")
    found = check_shared_jobs(settings)
    assert (found.state, [*path.iterdir()]) == (CheckState.BAD, [])
    assert "it is missing" in found.text
    found = check_shared_jobs(Settings(**(given | {"journal_key": "x" * 32})))
    assert "another key" in found.text


@pytest.mark.posix("files of POSIX")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is full")
def test_full_disk_leaves_no_recording(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(part: Path) -> BinaryIO:
        part.touch()
        return open("/dev/full", "wb")  # says it as a disk would

    monkeypatch.setattr(files, "open_new", full)
    for size in (5000, 5_000_000):  # with and without a buffer
        with pytest.raises(errors.DiskFull):
            FolderStorage(path).put("a-job", [bytes(size)])
        assert os.listdir(path) == []


def test_disk_that_fails_as_the_folder_is_synced_leaves_no_recording(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "sync_folder", fail)
    with pytest.raises(errors.SpoolUnwritable):
        FolderStorage(path).put("a-job", [b"sound"])
    assert os.listdir(path) == []


def test_unreachable_file_system_is_storage_unreachable_and_not_a_lost_recording(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = FolderStorage(path)
    folder.put("a-job", [b"a recording"])

    def away(*_: object) -> int:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(files, "open_to_read", away)
        patch.setattr(files, "open_new", away)
        for ask in (
            lambda: folder.open("a-job"),
            lambda: [*folder.read("a-job")],
            lambda: folder.put("another", [b"a recording"]),
        ):
            with pytest.raises(errors.StorageUnreachable):
                ask()
    assert [*folder.read("a-job")] == [b"a recording"]


@pytest.fixture
async def keeping(tmp_path: Path) -> AsyncIterator[JobPersistence]:
    """Of one service, with what is kept in a folder."""
    made = JobPersistence(Settings(keep_jobs=True, data_dir=tmp_path, journal_key=KEY))
    yield made
    made.close()


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def altered(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)  # the next byte may already be what this one becomes
        file.write(bytes([byte ^ 1]))


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def another_of_that_name(path: Path) -> None:
    """Sealed by us, and not what the job was given."""
    path.write_bytes(path.with_name("other").read_bytes())


@pytest.mark.parametrize(
    "harm",
    [
        *(truncated, altered, longer, gone, another_of_that_name),
        pytest.param(a_folder, marks=pytest.mark.posix("files of POSIX")),
        pytest.param(a_link, marks=pytest.mark.posix("symbolic links")),
        pytest.param(a_pipe, marks=pytest.mark.posix("pipes of POSIX")),
    ],
)
def test_altered_or_replaced_recording_file_is_reported_as_lost(
    harm: Callable[[Path], None], keeping: JobPersistence, path: Path, voice: bytes
) -> None:
    with upload(voice) as source:
        kept = keeping.store(source, "name")
        (path / "name").rename(path / "first")
        assert isinstance(keeping.store(source, "name"), StoredRecordingRef), (
            "the same sound, sealed anew"
        )
        (path / "name").rename(path / "other")
        (path / "first").rename(path / "name")
    record = replace(submitted(durable=True), audio=kept)
    assert voice[:64] not in (path / "name").read_bytes(), "it is sealed"
    assert read(keeping.open(record)) == voice
    harm(path / "name")
    with nothing_left_open(), pytest.raises(errors.AudioLost):
        keeping.open(record)


def test_recording_of_which_one_reading_saw_other_bytes_is_read_again(
    keeping: JobPersistence, path: Path, voice: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with upload(voice) as source:
        record = replace(submitted(durable=True), audio=keeping.store(source, "name"))
    read_file = FolderStorage.read
    reads: list[str] = []

    def flipped_at_first(storage: FolderStorage, name: str) -> Iterator[bytes]:
        reads.append(name)
        for number, piece in enumerate(read_file(storage, name)):
            first = len(reads) == 1 and not number
            yield bytes([piece[0] ^ 1]) + piece[1:] if first else piece

    monkeypatch.setattr(FolderStorage, "read", flipped_at_first)
    assert read(keeping.open(record)) == voice
    assert len(reads) == 2


@pytest.mark.parametrize("name", ["EIO", "ESTALE"])
async def test_disk_error_while_recording_is_played_is_storage_unreachable_and_play_resumes(
    name: str, keeping: JobPersistence, voice: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> bytes:
        raise OSError(getattr(errno, name), name)

    with upload(voice) as source:
        record = replace(submitted(durable=True), audio=keeping.store(source, "name"))
    playing = OwnedRecordings(keeping)
    with closing(keeping.recording(record)) as file:
        with monkeypatch.context() as patch, nothing_left_open():
            patch.setattr(os, "pread" if hasattr(os, "pread") else "read", away)
            with pytest.raises(errors.StorageUnreachable):
                await playing.read(file, 0, 100)
            with pytest.raises(errors.StorageUnreachable):
                keeping.recording(record)
        assert await playing.read(file, 0, 100) == voice[:100], "it goes on once the disk is back"


def test_job_record_with_recording_and_unknown_fields_survives_serialization() -> None:
    kept = StoredRecordingRef("a-job", "0" * 64, 1000, BUCKET)
    options = replace(submitted().options, unknown_fields=("There is no field 'lanuage'.",))
    record = replace(submitted(durable=True), audio=kept, options=options)
    assert parse_record(serialize_record(record)) == record


@pytest.mark.parametrize(
    "error", [errors.StorageUnreachable, errors.DiskFull, errors.UploadsFull, RuntimeError]
)
async def test_transcript_of_live_session_is_kept_when_its_audio_cannot_be_stored(
    error: type[Exception],
    keeping: JobPersistence,
    voice: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: object, **__: object) -> None:
        raise error()

    monkeypatch.setattr(FolderStorage, "put", away)
    store, disk = LocalJobStore(keeping.event_log, None, None), ThreadLimiter("disk", 1)
    talks = LiveSessionArchive(Settings(), store, keeping, disk, disk, lambda: 0.0)
    said = Transcript((Segment(0.0, 1.0, "a word"),), "en", 3.0, "scripted", "fp32")
    with nothing_left_open():
        job = await talks.save("somebody", TranscribeOptions(), said, upload(voice))
    assert job.state is JobState.DONE
    assert job.transcript == said
    assert not keeping.archive.has(job)


class HangingFolder(FolderStorage):
    """Folder whose disk answers from `back` on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.back = threading.Event()

    def put(self, name: str, pieces: Iterable[bytes], *, synced: bool = True) -> None:
        assert self.back.wait(PATIENCE_S)
        super().put(name, pieces, synced=synced)


@pytest.fixture
def hanging(path: Path) -> Iterator[HangingFolder]:
    folder = HangingFolder(path)
    yield folder
    folder.back.set()


@pytest.fixture
def impatient(keeping: JobPersistence, hanging: HangingFolder) -> PersistentRecordings:
    """With a folder that hangs, which has no time to answer."""
    cipher = keeping.event_log.cipher
    return PersistentRecordings(Settings(), hanging, cipher, store_timeout_s=-1.0)


async def test_recording_whose_storage_hangs_is_refused_and_left_nowhere_and_next_one_is_stored(
    impatient: PersistentRecordings, hanging: HangingFolder, voice: bytes
) -> None:
    disk = ThreadLimiter("disk", 1)
    with upload(voice) as source:
        with pytest.raises(errors.StorageUnreachable):
            await impatient.store_in_thread(disk, source)
        assert impatient.unanswered
        hanging.back.set()
        await disk.run(bool)  # the thread that hung has ended
        assert not impatient.unanswered
        await until(lambda: not hanging.ages())
    with upload(bytes(3 << 20) + voice) as source:
        ref = await impatient.store_in_thread(disk, source)
    assert isinstance(ref, StoredRecordingRef)
    assert [*hanging.ages()] == [ref.name]


async def test_while_one_recording_waits_for_a_storage_that_hung_others_are_refused_at_once(
    keeping: JobPersistence, hanging: HangingFolder, voice: bytes
) -> None:
    disk, cipher = ThreadLimiter("disk", 4), keeping.event_log.cipher
    patient = PersistentRecordings(Settings(), hanging, cipher, store_timeout_s=PATIENCE_S)
    patient.unanswered = True
    with upload(voice) as source, upload(voice) as other:
        first = asyncio.ensure_future(patient.store_in_thread(disk, source))
        await asyncio.sleep(0)
        with pytest.raises(errors.StorageUnreachable):
            await patient.store_in_thread(disk, other)
        hanging.back.set()
        await first
        await patient.store_in_thread(disk, other)


async def test_copy_of_a_clients_file_that_is_late_does_not_say_that_the_storage_hangs(
    keeping: JobPersistence, hanging: HangingFolder, voice: bytes, tmp_path: Path
) -> None:
    """The disk of that file may be what does not answer."""
    disk, cipher = ThreadLimiter("disk", 1), keeping.event_log.cipher
    impatient = PersistentRecordings(Settings(), hanging, cipher, shared=True, store_timeout_s=-1.0)
    with open_recording_file(str(new_file(tmp_path / "hers.wav", voice))) as source:
        with pytest.raises(errors.StorageUnreachable):
            await impatient.store_in_thread(disk, source)
        assert not impatient.unanswered
        hanging.back.set()
        await disk.run(bool)  # the thread that hung has ended


async def test_transcript_of_live_session_is_kept_when_the_storage_hangs(
    keeping: JobPersistence,
    impatient: PersistentRecordings,
    hanging: HangingFolder,
    voice: bytes,
) -> None:
    store, disk = LocalJobStore(keeping.event_log, None, None), ThreadLimiter("disk", 1)
    talks = LiveSessionArchive(Settings(), store, impatient, disk, disk, lambda: 0.0)
    said = Transcript((Segment(0.0, 1.0, "a word"),), "en", 3.0, "scripted", "fp32")
    job = await talks.save("somebody", TranscribeOptions(), said, upload(voice))
    assert (job.state, job.transcript) == (JobState.DONE, said)
    hanging.back.set()
    await disk.run(bool)  # the thread that hung has ended
    assert not keeping.archive.has(job)
