"""Recordings by reference: opened again as what they were, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar import errors
from sidecar.audio.ref import Held, Kept, Named, keep, ref_to
from sidecar.audio.source import AudioSource, Spool, open_path

posix = pytest.mark.skipif(os.name == "nt", reason="modes and links of POSIX")
LARGE = Spool.MEMORY_BYTES + (3 << 20)


def upload(data: bytes, folder: Path | None = None) -> AudioSource:
    spool = Spool(folder)
    spool.add(data)
    return spool.finish()


def read(source: AudioSource) -> bytes:
    with source:
        os.lseek(source.fd, 0, os.SEEK_SET)
        data = b""
        while piece := os.read(source.fd, 1 << 20):
            data += piece
        return data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def kept(voice: bytes, folder: Path) -> Kept:
    with upload(voice) as source:
        return keep(source, folder, "a-job")


def test_an_upload_is_held_without_a_name_and_a_client_s_file_is_named(
    voice: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    with upload(voice) as first, open_path(str(path)) as second:
        held, named = ref_to(first), ref_to(second)
        assert isinstance(held, Held)
        assert isinstance(named, Named)
        assert named.path == str(path)
        assert read(held.open()) == read(named.open()) == voice
    assert read(named.open()) == voice


def test_what_is_held_no_longer_is_gone_whatever_has_its_number_now(
    voice: bytes, tmp_path: Path
) -> None:
    with upload(voice) as source:
        held = ref_to(source)
    with pytest.raises(errors.AudioLost):
        held.open()
    (tmp_path / "other.wav").write_bytes(b"somebody else's")
    with open_path(str(tmp_path / "other.wav")) as other:
        assert isinstance(held, Held)
        if other.fd == held.fd:
            with pytest.raises(errors.AudioLost):
                held.open()
        with pytest.raises(errors.AudioLost):
            Held(other.fd, held.device, held.inode).open()


def test_a_reference_that_is_opened_lives_longer_than_what_it_was_made_of(voice: bytes) -> None:
    with upload(voice) as source:
        again = ref_to(source).open()
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
def test_a_named_file_that_was_changed_is_not_taken_for_what_it_was(
    harm: Callable[[Path], None], voice: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    with open_path(str(path)) as source:
        named = ref_to(source)
        harm(path)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(errors.AudioLost):
        named.open()
    if before:
        assert len(os.listdir("/proc/self/fd")) == before, "nothing is left open"
    path.unlink()
    with pytest.raises(errors.AudioPathNotFound):
        named.open()


@posix
def test_a_named_file_is_opened_again_by_the_rules_that_hold_then(
    voice: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    with open_path(str(path)) as source:
        named = ref_to(source)
    with pytest.raises(errors.AudioPathForbidden):
        named.open([tmp_path / "elsewhere"])
    with upload(voice) as source, pytest.raises(errors.AudioPathNotAFile):
        Named(f"/proc/self/fd/{source.fd}", 0, 0).open()


@pytest.mark.parametrize("size", [0, 1, 1 << 20, LARGE])
def test_what_is_kept_comes_back_whole_and_can_be_read_from_its_beginning(
    size: int, folder: Path, tmp_path: Path
) -> None:
    data = os.urandom(size)
    with upload(data, tmp_path) as source:
        os.lseek(source.fd, min(size, 7), os.SEEK_SET)
        kept = keep(source, folder, "a-job")
        assert read(kept.open()) == data
        assert read(source) == data, "and what it was made of is still there"
    assert os.listdir(folder) == ["a-job"]
    kept.forget()
    kept.forget()
    assert os.listdir(folder) == []


@posix
def test_what_is_kept_is_for_nobody_else_s_eyes(voice: bytes, folder: Path) -> None:
    folder.mkdir(mode=0o755)
    old = os.umask(0)
    try:
        with upload(voice) as source:
            kept = keep(source, folder, "a-job")
    finally:
        os.umask(old)
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def altered(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(bytes([file.read(1)[0] ^ 1]))


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


@posix
@pytest.mark.parametrize("harm", [truncated, altered, longer, gone, a_folder, a_link, a_pipe])
def test_what_was_kept_and_is_not_what_it_was_is_not_opened(
    harm: Callable[[Path], None], kept: Kept
) -> None:
    harm(kept.path)
    open_files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(errors.AudioLost):
        kept.open()
    if open_files:
        assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_name_that_is_taken_is_not_written_over(kept: Kept, folder: Path, voice: bytes) -> None:
    with upload(b"another") as source, pytest.raises(errors.SpoolUnwritable):
        keep(source, folder, "a-job")
    assert read(kept.open()) == voice
    assert os.listdir(folder) == ["a-job"]


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is full")
def test_a_disk_that_is_full_leaves_nothing_behind(
    voice: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = os.write

    def full(fd: int, data: bytes) -> int:
        written.append(len(data))
        if len(written) > 1:  # /dev/full says it as a disk would
            with open("/dev/full", "wb", buffering=0) as disk:
                return write(disk.fileno(), data)
        return write(fd, bytes(data)[:1000])

    monkeypatch.setattr(os, "write", full)
    with upload(voice) as source, pytest.raises(errors.DiskFull):
        keep(source, folder, "a-job")
    assert os.listdir(folder) == []
