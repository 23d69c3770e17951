"""Recordings by reference: opened again as what they were, or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from open_descriptors import opened
from service_process import new_file
from uploads import read, upload

from sidecar import errors
from sidecar.audio import audio_source


@pytest.fixture
def path(voice: bytes, tmp_path: Path) -> Path:
    """A file of a client's."""
    return new_file(tmp_path / "voice.wav", voice)


def test_upload_is_referenced_by_descriptor_and_a_client_file_by_path(
    voice: bytes, path: Path
) -> None:
    with upload(voice) as first, audio_source.open_recording_file(str(path)) as second:
        held, named = audio_source.recording_ref(first), audio_source.recording_ref(second)
        assert isinstance(held, audio_source.OpenUploadRef)
        assert isinstance(named, audio_source.ClientFileRef)
        assert named.path == str(path)
        assert read(held.open()) == read(named.open()) == voice
    assert read(named.open()) == voice


def test_reference_to_a_released_upload_is_audio_lost_even_if_its_descriptor_is_reused(
    voice: bytes, tmp_path: Path
) -> None:
    with upload(voice) as source:
        held = audio_source.recording_ref(source)
        (tmp_path / "other.wav").write_bytes(b"somebody else's")  # later it may get the same inode
    with pytest.raises(errors.AudioLost):
        held.open()
    with audio_source.open_recording_file(str(tmp_path / "other.wav")) as other:
        assert isinstance(held, audio_source.OpenUploadRef)
        if other.fd == held.fd:
            with pytest.raises(errors.AudioLost):
                held.open()
        with pytest.raises(errors.AudioLost):
            audio_source.OpenUploadRef(other.fd, held.device, held.inode).open()


def test_opened_reference_of_an_upload_is_readable_after_its_source_is_closed(voice: bytes) -> None:
    with upload(voice) as source:
        again = audio_source.recording_ref(source).open()
    assert read(again) == voice


def changed(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def replaced(path: Path) -> None:
    status = path.stat()
    other = path.with_name("other.wav")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("harm", [changed, replaced])
def test_changed_or_replaced_client_file_is_audio_lost_and_a_deleted_one_not_found_or_not_mounted(
    harm: Callable[[Path], None], path: Path
) -> None:
    with audio_source.open_recording_file(str(path)) as source:
        named = audio_source.recording_ref(source)
    harm(path)
    before = opened()
    with pytest.raises(errors.AudioLost):
        named.open()
    assert opened() <= before, "nothing is left open"
    path.unlink()
    with pytest.raises(errors.StorageUnreachable, match="may not be mounted"):
        named.open()
    path.with_name("beside.wav").touch()
    with pytest.raises(errors.AudioPathNotFound):
        named.open()


def test_client_file_changed_before_its_reference_is_made_is_audio_lost(path: Path) -> None:
    with audio_source.open_recording_file(str(path)) as source:
        changed(path)  # its disk is not asked again: it may not answer
        named = audio_source.recording_ref(source)
    with pytest.raises(errors.AudioLost):
        named.open()


def test_reopened_client_file_outside_the_audio_roots_is_forbidden_and_the_hint_says_so(
    path: Path,
) -> None:
    with audio_source.open_recording_file(str(path)) as source:
        named = audio_source.recording_ref(source)
    with pytest.raises(errors.AudioPathForbidden) as refused:
        named.open([path.with_name("elsewhere")])
    assert "audio_roots" in str(refused.value.hint), "no permission would help"


@pytest.mark.posix("file descriptors by number")
def test_client_file_reference_to_an_open_descriptor_is_refused(voice: bytes) -> None:
    with upload(voice) as source, pytest.raises(errors.AudioPathNotAFile):
        audio_source.ClientFileRef(f"/proc/self/fd/{source.fd}", 0, 0).open()


@pytest.mark.parametrize(
    "path",
    [
        r"\\evil\share\a.wav",
        "//evil/share/a.wav",
        r"/\evil\share\a.wav",
        r"\/evil/share/a.wav",
        r"\\?\UNC\evil\share\a.wav",
        "//?/unc/evil/share/a.wav",
        r"\\.\UNC\evil\share\a.wav",
        r"\\.\C:\a.wav",
        r"\\?\GLOBALROOT\Device\Mup\evil\share\a.wav",
        r"\??\UNC\evil\share\a.wav",
    ],
)
def test_windows_network_path_is_on_another_machine_in_every_spelling(path: str) -> None:
    assert audio_source.leaves_this_machine(path)


@pytest.mark.parametrize(
    "path", [r"C:\a.wav", r"\folder\a.wav", "c:/a.wav", r"\\?\C:\a.wav", "//?/d:/a.wav"]
)
def test_windows_path_of_a_drive_is_on_this_machine(path: str) -> None:
    assert not audio_source.leaves_this_machine(path)
