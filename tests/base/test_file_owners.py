"""Owners of files: root's commands leave nothing behind that the service's user cannot use."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sidecar import errors, files
from sidecar.auth.self_signed_certificate import ensure_certificate
from sidecar.auth.token_issuing import TokenIssuer
from sidecar.cli import run
from sidecar.config.settings import Settings
from sidecar.jobs.duration_prediction import DurationFile, DurationFit, DurationKey
from sidecar.jobs.recovery import JobPersistence
from sidecar.storage.job_backup import back_up_jobs, restore_jobs
from sidecar.storage.speaker_store import SpeakerFile
from sidecar.workers.engine_loading import CrashNotes

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can act as two users"
    ),
]
KEY = "a-key-of-a-test-and-of-nobody-else"
USER, GROUP = 65534, 65533


@contextmanager
def as_service() -> Iterator[None]:
    """Act as the user of the service."""
    os.setegid(GROUP)
    os.seteuid(USER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def data() -> Iterator[Path]:
    """Data folder of the service's user; pytest's own folders are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="owners-", dir="/tmp"))
    os.chown(folder, USER, GROUP)
    yield folder
    shutil.rmtree(folder)


def owners(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_uid, path.stat().st_gid)
        for path in folder.rglob("*")
    }


def keeps(data: Path) -> JobPersistence:
    return JobPersistence(Settings(keep_jobs=True, data_dir=data, journal_key=KEY))


def make_tokens(data: Path) -> None:
    issuer = TokenIssuer(data / "tokens")
    issuer.create("erin")
    issuer.revoke("erin")
    issuer.rotate()


def keep_jobs(data: Path) -> None:
    keeps(data).store.close()


def enrol(data: Path) -> None:
    SpeakerFile(data / "people", KEY).close()


def write_speeds(data: Path) -> None:
    DurationFile(data / "new" / "pace.json").write({DurationKey(): DurationFit(1.0)})


WRITERS: dict[str, Callable[[Path], object]] = {
    "tokens": make_tokens,
    "kept jobs": keep_jobs,
    "people": enrol,
    "measured speeds": write_speeds,
    "a certificate": lambda data: ensure_certificate(data / "tls", frozenset({"localhost"})),
    "a crash note": lambda data: CrashNotes(data / "log" / "crashes").write("test", 1, (), {}),
    "a file in new folders": lambda data: files.make_folder(data / "one" / "two"),
}


@pytest.mark.parametrize("what", WRITERS)
def test_what_root_makes_in_a_folder_of_another_user_belongs_to_that_user(
    what: str, data: Path
) -> None:
    WRITERS[what](data)
    found = owners(data)
    assert found
    assert set(found.values()) == {(USER, GROUP)}


def test_after_root_revoked_a_token_the_services_user_lists_and_makes_tokens(data: Path) -> None:
    os.chmod(data, 0o700)
    issuer = TokenIssuer(data / "tokens")
    with as_service():
        issuer.create("erin")
    issuer.revoke("erin")
    issuer.rotate()
    with as_service():
        assert [each.subject for each in issuer.issued()] == ["erin"]
        issuer.create("dora")
        assert len(issuer.keys.names()) == 2


def test_what_root_restores_the_services_user_opens(data: Path) -> None:
    with as_service():
        keeps(data).store.close()
    saved = data / "saved.tar"
    back_up_jobs(data / "jobs", saved)
    assert saved.stat().st_uid == USER
    shutil.rmtree(data / "jobs")
    restore_jobs(saved, data / "jobs")
    assert set(owners(data).values()) == {(USER, GROUP)}
    with as_service():
        restore_jobs(saved, data / "again")
        keeps(data).store.close()


def test_roots_own_folders_stay_roots(tmp_path: Path) -> None:
    WRITERS["tokens"](tmp_path)
    assert set(owners(tmp_path).values()) == {(0, 0)}


def test_a_file_that_is_there_and_a_link_keep_their_owners(data: Path, tmp_path: Path) -> None:
    (data / "old").write_text("root's")
    (tmp_path / "elsewhere").write_text("root's")
    (data / "link").symlink_to(tmp_path / "elsewhere")
    files.touch(data / "old")
    files.touch(data / "link")
    assert (data / "old").stat().st_uid == 0
    assert (tmp_path / "elsewhere").stat().st_uid == 0


def make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700)


LOCKED: dict[str, tuple[Callable[[Path], object], Callable[[Path], object], str, str]] = {
    "a file": (
        lambda data: os.close(os.open(data / "list", os.O_CREAT, 0o600)),
        lambda data: files.read(data / "list", 100),
        "The file {data}/list cannot be read: Permission denied.",
        "list",
    ),
    "a folder for jobs": (
        lambda data: make_private(data / "jobs"),
        lambda data: keeps(data),
        "The folder for jobs, {data}/jobs, cannot be used: Operation not permitted.",
        "jobs",
    ),
    "a folder for people": (
        lambda data: make_private(data / "people"),
        lambda data: SpeakerFile(data / "people", KEY),
        "The folder for enrolled speakers, {data}/people, cannot be used: Operation not permitted.",
        "people",
    ),
}


@pytest.mark.parametrize("what", LOCKED)
def test_an_error_names_the_owner_and_the_remedy(what: str, data: Path) -> None:
    locks, reads, said, name = LOCKED[what]
    locks(data)
    with as_service(), pytest.raises(errors.SettingsInvalid) as refused:
        reads(data)
    assert refused.value.detail.startswith(said.format(data=data))
    assert f"{data}/{name} belongs to root (uid 0); this process runs as " in refused.value.detail
    assert "(uid 65534)." in refused.value.detail
    assert refused.value.hint == f"As root run: chown -R {USER} {data}/{name}."


def test_a_database_of_root_is_named_with_its_owner(data: Path) -> None:
    with as_service():
        keeps(data).store.close()
    with closing(keeps(data).store):
        os.chown(data / "jobs" / "jobs.db", 0, 0)
    with as_service(), pytest.raises(errors.SettingsInvalid) as refused:
        keeps(data)
    assert f"{data}/jobs/jobs.db belongs to root (uid 0)" in refused.value.detail


def test_a_folder_out_of_sight_is_named_by_the_one_around_it(data: Path) -> None:
    os.chown(data, 12345, 12345)
    os.chmod(data, 0o700)
    with as_service(), pytest.raises(errors.SettingsInvalid) as refused:
        files.read(data / "tokens" / "list", 100)
    assert f"{data} belongs to uid 12345;" in refused.value.detail
    assert refused.value.hint == "As uid 12345 run it again."


def test_a_missing_file_says_nothing_of_owners() -> None:
    with as_service(), pytest.raises(errors.SettingsInvalid) as refused:
        files.read(Path("/etc/none-of-this-name"), 100)
    assert "belongs" not in refused.value.detail


def test_an_unreadable_default_configuration_is_a_warning(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = data / "vibevoice-asr"
    folder.mkdir(mode=0o700)
    (folder / "config.toml").write_text("port = 8765\n")
    monkeypatch.delenv("VIBEVOICE_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(data))
    monkeypatch.setenv("VIBEVOICE_DATA_DIR", str(data))
    assert run(["token", "list"]) == 0  # root may read it; what it imports, only root may here
    assert not caplog.messages
    with as_service():
        assert run(["token", "list"]) == 0
    (said,) = caplog.messages  # once, however often the settings are read
    assert said == f"the settings in {folder}/config.toml are not used: Permission denied"
    monkeypatch.setenv("VIBEVOICE_CONFIG", str(folder / "config.toml"))
    with as_service():
        assert run(["token", "list"]) == 78
