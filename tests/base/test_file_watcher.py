"""Watched files whose disk fails for a while: what is known changes by a read that succeeds."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from service_process import new_file

from sidecar import errors, files
from sidecar.auth import tls
from sidecar.auth.signed_tokens import RevocationFile, read_public_keys
from sidecar.auth.token_issuing import TokenIssuer
from sidecar.config.settings import Settings
from sidecar.file_watcher import FileWatcher, WatchedFiles
from sidecar.plugins.grpc_stt.server import server_credentials

if sys.platform != "win32":
    import resource

FAILING = errno.EMFILE, errno.EIO, errno.ESTALE
Watched = list[WatchedFiles[object]]
Files = tuple[WatchedFiles[object], Callable[[], object]]


class NotingWatcher(FileWatcher):
    """A watcher that a test looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.added: Watched = []

    def add(self, *words: object) -> WatchedFiles[object]:  # type: ignore[override]
        self.added.append(super().add(*words))  # type: ignore[arg-type]
        return self.added[-1]


def revoked_tokens(folder: Path) -> Files:
    file = new_file(folder / "revoked.txt", "abc\n")
    return WatchedFiles("it", [file], RevocationFile(file)), lambda: file.write_text(
        "abc\nother\n", "utf-8"
    )


def public_keys(folder: Path) -> Files:
    issuer = TokenIssuer(folder / "tokens")
    issuer.rotate()
    public = issuer.keys.public
    return WatchedFiles("it", [public], lambda: read_public_keys(public)), issuer.rotate


def certificate(folder: Path) -> Files:
    pair, watcher = (
        tls.ensure_certificate(folder / "one", frozenset({"localhost"})),
        NotingWatcher(),
    )
    tls.create_tls(Settings(tls=str(pair.certificate), tls_key=pair.key), watcher)
    return watcher.added[0], lambda: replace(pair, folder)


def certificate_for_grpc(folder: Path) -> Files:
    pair, watcher = (
        tls.ensure_certificate(folder / "one", frozenset({"localhost"})),
        NotingWatcher(),
    )
    server_credentials(pair, watcher)
    return watcher.added[0], lambda: replace(pair, folder)


def replace(pair: tls.CertificatePair, folder: Path) -> None:
    other = tls.ensure_certificate(folder / "two", frozenset({"localhost"}))
    files.write(pair.certificate, other.certificate.read_bytes())
    files.write(pair.key, other.key.read_bytes())


@contextmanager
def no_free_descriptor() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def opening_fails(number: int) -> Iterator[None]:
    def fail(path: object, *_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number), path)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "open_to_read", fail)
        yield


def check_failure_is_retried_and_logged_once(
    watched: WatchedFiles[object],
    change: Callable[[], object],
    fails: AbstractContextManager[None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = watched.value
    change()
    with fails:
        assert [watched.reload_if_changed() for _ in range(3)] == [False] * 3
        assert watched.value is before
    assert caplog.text.count("the previous version stays in use") == 1
    assert watched.reload_if_changed(), "what changed while it could not be read is not known"
    assert watched.value != before
    assert not watched.reload_if_changed()


@pytest.mark.posix("limits of a process")
@pytest.mark.parametrize(
    "make",
    [revoked_tokens, public_keys, certificate, certificate_for_grpc],
    ids=lambda one: one.__name__,
)
def test_file_that_changes_while_no_descriptor_is_free_is_read_at_the_next_look_and_logged_once(
    make: Callable[[Path], Files], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_failure_is_retried_and_logged_once(*make(tmp_path), no_free_descriptor(), caplog)


@pytest.mark.parametrize("number", FAILING, ids=errno.errorcode.__getitem__)
def test_revoked_tokens_that_change_while_their_disk_fails_are_read_at_the_next_look(
    number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fails = opening_fails(number)
    check_failure_is_retried_and_logged_once(*revoked_tokens(tmp_path), fails, caplog)


def test_revoked_tokens_whose_disk_fails_at_the_start_are_not_taken_for_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = new_file(tmp_path / "revoked.txt", "abc\n")

    def lost(path: object, **_: object) -> os.stat_result:
        raise OSError(errno.ESTALE, "stale", path)

    monkeypatch.setattr(os, "lstat", lost)
    assert RevocationFile(file)() == {"abc"}
    with opening_fails(errno.ESTALE), pytest.raises(errors.SettingsInvalid):
        RevocationFile(file)()


def test_error_that_no_reader_expects_is_retried_and_logged_once_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, fails = new_file(tmp_path / "file", "before"), list[Exception]()

    def read() -> str:
        if fails:
            raise fails[0]
        return file.read_text("utf-8")

    watched = WatchedFiles("it", [file], read)
    fails.append(OSError(errno.EIO, "of the disk"))
    file.write_text("after it", "utf-8")
    assert [watched.reload_if_changed() for _ in range(3)] == [False] * 3
    fails[0] = MemoryError()
    assert not watched.reload_if_changed()
    assert caplog.text.count("the previous version stays in use") == 2, "one for each reason"
    fails.clear()
    assert watched.reload_if_changed()
    assert watched.value == "after it"
