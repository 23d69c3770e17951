"""Files that other programs have open: Windows refuses to replace or open them; nothing is lost."""

import errno
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from job_event_histories import added
from systems import IN_WINDOWS
from windows_processes import READ, WRITE, opened_elsewhere

from sidecar import errors, files
from sidecar.audio.audio_source import open_recording_file
from sidecar.jobs.job_record import StartedChange
from sidecar.jobs.sqlite_event_log import STOP_NOTE, SqliteJobEventLog
from sidecar.storage.job_journal import JOURNAL_FILE, broken_files
from sidecar.storage.recording_storage import FolderStorage

pytestmark = pytest.mark.skipif(not IN_WINDOWS, reason="elsewhere an open file is in nobody's way")
KEY = "a key of kept jobs"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What happens while the product waits, one after the other."""
    calls: list[Callable[[], None]] = []
    monkeypatch.setattr("time.sleep", lambda _: calls.pop(0)() if calls else None)
    return calls


def test_file_that_a_scanner_has_open_is_replaced_once_that_closes_it(
    tmp_path: Path, waits: list[Callable[[], None]]
) -> None:
    path = tmp_path / "pace.json"
    path.write_bytes(b"old")
    with opened_elsewhere(path, READ | WRITE) as close:
        waits += [lambda: None, close]
        files.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert waits == []


def test_file_that_stays_open_elsewhere_is_left_as_it_is_with_an_error_that_names_it(
    tmp_path: Path, waits: list[Callable[[], None]]
) -> None:
    path = tmp_path / "pace.json"
    path.write_bytes(b"old")
    with opened_elsewhere(path, READ | WRITE), pytest.raises(errors.SettingsInvalid, match="pace"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["pace.json"]


def test_recording_that_another_program_still_writes_is_opened(
    tmp_path: Path, voice: bytes
) -> None:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    with opened_elsewhere(path, READ), open_recording_file(str(path)) as source:
        assert source.status is not None
        assert source.status.st_size == len(voice)


def test_recording_that_another_program_keeps_for_itself_is_opened_once_that_closes_it(
    tmp_path: Path, voice: bytes, waits: list[Callable[[], None]]
) -> None:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    with opened_elsewhere(path, 0) as close:
        with pytest.raises(errors.AudioPathForbidden, match="Another program"):
            open_recording_file(str(path))
        waits += [lambda: None, close]
        open_recording_file(str(path)).close()


def test_recording_that_is_open_here_can_be_renamed_and_deleted_by_the_host(
    tmp_path: Path, voice: bytes
) -> None:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    with open_recording_file(str(path)) as source:
        path.rename(tmp_path / "other.wav")
        (tmp_path / "other.wav").unlink()
        with open(source.fd, "rb", closefd=False) as read:
            assert read.read() == voice
    assert list(tmp_path.iterdir()) == []


def test_temporary_file_in_a_folder_that_may_not_be_written_is_refused_at_the_first_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tempfile` of Python takes that for a taken name, and tries two billion others."""
    names = list[str]()

    def denied(name: str, *_: object) -> None:
        names.append(name)
        assert len(names) == 1
        raise PermissionError(errno.EACCES, "Permission denied", name)

    monkeypatch.setattr("os.open", denied)
    with pytest.raises(PermissionError):
        files.temporary(tmp_path)


def test_stored_recording_that_is_being_read_can_be_deleted(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "uploads")
    storage.put("a-1", [b"abc"])
    stored: Any = storage.open("a-1")
    storage.delete("a-1")
    assert stored.at(0, 3) == b"abc"
    stored.close()
    assert storage.ages() == {}


def test_stored_recording_that_a_scanner_has_open_is_deleted_once_that_closes_it(
    tmp_path: Path, waits: list[Callable[[], None]]
) -> None:
    storage = FolderStorage(tmp_path / "uploads")
    storage.put("a-1", [b"abc"])
    with opened_elsewhere(tmp_path / "uploads/a-1", READ | WRITE) as close:
        waits += [lambda: None, close]
        storage.delete("a-1")
    assert storage.ages() == {}
    assert waits == []


def test_start_deletes_the_note_of_a_stop_once_the_scanner_that_has_it_open_closes_it(
    tmp_path: Path, waits: list[Callable[[], None]]
) -> None:
    (note := tmp_path / STOP_NOTE).touch()
    with opened_elsewhere(note, READ | WRITE) as close:
        waits += [close]
        with closing(SqliteJobEventLog(tmp_path, KEY)) as log:
            assert log.was_stopped
    assert not note.exists()


def test_damaged_journal_that_a_scanner_has_open_is_set_aside_once_that_closes_it(
    tmp_path: Path, waits: list[Callable[[], None]]
) -> None:
    (journal := tmp_path / JOURNAL_FILE).write_bytes(damaged := b"not a database at all" * 1000)
    with opened_elsewhere(journal, READ | WRITE) as close:
        waits += [lambda: None, close]
        with closing(SqliteJobEventLog(tmp_path, KEY)) as log:
            assert log.all() == []
    assert [one.read_bytes() for one in broken_files(tmp_path)] == [damaged]


def test_kept_jobs_whose_files_a_scanner_has_open_all_the_time_are_written_and_found_again(
    tmp_path: Path,
) -> None:
    with ExitStack() as scanner:
        for _ in range(2):
            with closing(SqliteJobEventLog(tmp_path, KEY)) as log:
                for name in ("", "-wal", "-shm"):
                    file = tmp_path / f"{JOURNAL_FILE}{name}"
                    scanner.enter_context(opened_elsewhere(file, READ | WRITE))
                added(log, StartedChange())
    with closing(SqliteJobEventLog(tmp_path, KEY)) as log:
        assert len(log.all()) == 2
