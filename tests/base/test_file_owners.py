"""Owners of files: root's commands leave nothing behind that the service's user cannot use."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from service_process import new_file

from sidecar import errors, file_watcher, files
from sidecar.auth.signed_tokens import read_public_keys
from sidecar.auth.token_issuing import SigningKeys, TokenIssuer
from sidecar.cli import run
from sidecar.config.settings import Settings
from sidecar.jobs.recovery import JobPersistence
from sidecar.storage.job_backup import back_up_jobs, restore_jobs
from sidecar.storage.job_journal import JOURNAL_FILE
from sidecar.storage.recording_storage import FolderStorage
from sidecar.storage.speaker_store import SqliteSpeakerStore

pytestmark = [
    pytest.mark.integration,
    pytest.mark.posix("permissions of POSIX"),
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


def keeps(data: Path) -> JobPersistence:
    return JobPersistence(Settings(keep_jobs=True, data_dir=data, journal_key=KEY))


@pytest.mark.parametrize("there", [True, False])
def test_token_commands_of_root_in_the_folder_of_another_user_are_refused_without_effect(
    data: Path, there: bool
) -> None:
    issuer = TokenIssuer(data / "tokens")
    if there:
        with as_service():
            issuer.create("erin")
    for command in (["create", "--subject", "dora"], ["revoke", "erin"], ["keys", "--new"]):
        assert run(["token", *command, "--folder", str(data / "tokens")]) == 78
    assert (data / "tokens").exists() == there
    with as_service():
        assert [each.subject for each in issuer.issued()] == ["erin"] * there
        issuer.create("carl")
        assert len(issuer.keys.names()) == 1


def test_restore_by_root_into_a_folder_of_another_user_is_refused_and_writes_nothing(
    data: Path, tmp_path: Path
) -> None:
    with as_service():
        keeps(data).event_log.close()
    saved = tmp_path / "saved.tar"
    back_up_jobs(data / "jobs", saved)
    shutil.rmtree(data / "jobs")
    with pytest.raises(errors.SettingsInvalid, match=r"belongs to .*uid 65534") as refused:
        restore_jobs(saved, data / "jobs")
    assert refused.value.hint is not None
    assert "runuser" in refused.value.hint
    assert list(data.iterdir()) == []


def test_root_creates_token_in_a_folder_of_its_own(tmp_path: Path) -> None:
    assert run(["token", "create", "--subject", "dora", "--folder", str(tmp_path / "new")]) == 0


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
    "a folder for enrolled speakers": (
        lambda data: make_private(data / "people"),
        lambda data: SqliteSpeakerStore(data / "people", KEY),
        "The folder for enrolled speakers, {data}/people, cannot be used: Operation not permitted.",
        "people",
    ),
}


@pytest.mark.parametrize("what", LOCKED)
def test_permission_error_names_the_owner_and_a_remedy(what: str, data: Path) -> None:
    locks, reads, said, name = LOCKED[what]
    locks(data)
    with as_service(), pytest.raises(errors.SettingsInvalid) as refused:
        reads(data)
    assert refused.value.detail.startswith(said.format(data=data))
    assert f"{data}/{name} belongs to root (uid 0); this process runs as " in refused.value.detail
    assert "(uid 65534)." in refused.value.detail
    gives = f"As root run: chown {USER} {data}/{name}"
    usual = "Set VIBEVOICE_DATA_DIR to a usable folder."
    assert refused.value.hint == (gives if what == "a file" else usual)


@pytest.mark.parametrize(
    "uses",
    [
        lambda folder: back_up_jobs(folder, folder / "saved.tar"),
        lambda folder: FolderStorage(folder, named=True).check(),
    ],
    ids=["kept jobs", "a shared folder of recordings"],
)
def test_folder_that_may_not_be_looked_at_is_not_taken_for_a_missing_one(
    uses: Callable[[Path], object], data: Path
) -> None:
    make_private(data / "closed")
    (data / "closed" / "jobs").mkdir()
    files.touch(data / "closed" / "jobs" / JOURNAL_FILE)
    with as_service(), pytest.raises(errors.SettingsInvalid, match="Permission denied"):
        uses(data / "closed" / "jobs")


def test_unreadable_file_of_another_user_names_the_uid_and_the_chown_command(data: Path) -> None:
    LOCKED["a file"][0](data)
    os.chown(data / "list", 12345, 12345)
    with as_service(), pytest.raises(errors.SettingsInvalid) as refused:
        files.read(data / "list", 100)
    assert refused.value.hint == (f"Run it as uid 12345, or as root run: chown {USER} {data}/list")


@pytest.mark.parametrize("closed", ["keys/public", "keys"])
def test_unreadable_public_keys_error_names_the_folder_that_denies_access(
    data: Path, closed: str
) -> None:
    SigningKeys(data / "keys").make()
    for folder in ("keys", "keys/public"):
        (data / folder).chmod(0o700 if folder == closed else 0o755)
    with as_service(), pytest.raises(errors.SettingsInvalid, match="cannot be read") as refused:
        read_public_keys(data / "keys/public")
    said = f"{refused.value.detail} {refused.value.hint}"
    assert (f"chmod a+rx {data}/keys/public" in said) == (closed == "keys/public")
    assert (f"{data}/keys belongs to root" in said) == (closed == "keys")


def test_changed_watched_file_is_reloaded_after_its_permissions_are_fixed(data: Path) -> None:
    file = new_file(data / "list", "before")
    with as_service():
        watched = file_watcher.WatchedFiles("a list", [file], lambda: files.read(file, 100))
    copied = data / "copied"  # as root does it with its umask
    new_file(copied, "after", 0o600)
    copied.replace(file)
    with as_service():
        assert not watched.reload_if_changed()
    file.chmod(0o644)
    with as_service():
        assert watched.reload_if_changed()
    assert watched.value == b"after"


def test_unreadable_database_is_reported_with_its_owner(data: Path) -> None:
    with as_service():
        keeps(data).event_log.close()
    with closing(keeps(data).event_log):
        os.chown(data / "jobs" / "jobs.db", 0, 0)
    with as_service(), pytest.raises(errors.SettingsInvalid) as refused:
        keeps(data)
    assert f"{data}/jobs/jobs.db belongs to root (uid 0)" in refused.value.detail


def test_file_in_unreadable_folder_error_names_that_folder_and_its_uid(data: Path) -> None:
    os.chown(data, 12345, 12345)
    os.chmod(data, 0o700)
    with as_service(), pytest.raises(errors.SettingsInvalid) as refused:
        files.read(data / "tokens" / "list", 100)
    assert f"{data} belongs to uid 12345;" in refused.value.detail
    assert refused.value.hint == "Run it as uid 12345."


def test_error_of_a_missing_file_names_no_owner() -> None:
    with as_service(), pytest.raises(errors.SettingsInvalid) as refused:
        files.read(Path("/etc/none-of-this-name"), 100)
    assert "belongs" not in refused.value.detail


def configured_in(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the default configuration is then looked for."""
    monkeypatch.delenv("VIBEVOICE_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(data))
    monkeypatch.setenv("VIBEVOICE_DATA_DIR", str(data))
    return data / "vibevoice-asr"


def test_unreadable_default_configuration_folder_is_one_warning_but_an_error_if_named(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = configured_in(data, monkeypatch)
    folder.mkdir(mode=0o700)
    (folder / "config.toml").write_text("port = 8765\n", "utf-8")
    assert run(["token", "list"]) == 0  # root may read it; what it imports, only root may here
    assert not caplog.messages
    with as_service():
        assert run(["token", "list"]) == 0
    (said,) = caplog.messages  # once, however often the settings are read
    file = folder / "config.toml"
    assert said == f"the settings in {file} are not used: the folder is another user's"
    monkeypatch.setenv("VIBEVOICE_CONFIG", str(file))
    with as_service():
        assert run(["token", "list"]) == 78


def test_unreadable_config_file_in_readable_default_folder_is_an_error(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = configured_in(data, monkeypatch)
    with as_service():
        folder.mkdir(mode=0o700)
    files.write(folder / "config.toml", b"port = 8765\n")  # as after sudo and an editor
    with as_service():
        assert run(["token", "list"]) == 78
