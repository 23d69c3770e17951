"""Address of the database: where it is taken from, and that nobody else is told of it."""

from pathlib import Path

import pytest
from postgres import KEY, Cluster
from service_process import new_file
from systems import IN_WINDOWS

from sidecar import errors
from sidecar.plugins import load_settings
from sidecar.plugins.shared_jobs.postgres_database import (
    PostgresDatabase,
    describe_database,
    migrate_postgres,
)
from sidecar.plugins.shared_jobs.postgres_settings import error_first_line, shared_address

ADDRESS = "postgresql://vibevoice:not-for-logs@127.0.0.1/jobs"


@pytest.mark.parametrize(
    "way",
    [
        *("flag", "empty file"),
        pytest.param("open file", marks=pytest.mark.posix("permissions of POSIX")),
    ],
)
def test_database_address_in_a_flag_open_file_or_empty_file_is_refused_without_its_password(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_JOURNAL_KEY", KEY)
    file = new_file(
        tmp_path / "address",
        "" if way == "empty file" else ADDRESS,
        0o644 if way == "open file" else 0o600,
    )
    given = {"journal": ADDRESS} if way == "flag" else {"journal": f"@{file}"}
    with pytest.raises(errors.SettingsInvalid) as refused:
        shared_address(load_settings(**given))
    assert "not-for-logs" not in str(refused.value.to_wire())


def test_database_address_is_read_from_environment_or_private_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = new_file(tmp_path / "address", f"{ADDRESS}\n", 0o600)
    assert shared_address(load_settings(journal=f"@{file}")) == ADDRESS
    monkeypatch.setenv("VIBEVOICE_JOURNAL", ADDRESS)
    settings = load_settings()
    assert shared_address(settings) == ADDRESS
    assert "not-for-logs" not in f"{settings!r}"


@pytest.mark.parametrize(
    "address", ["mysql://u:not-for-logs@h/d", "postgresql://u:not-for-logs@h:port/d?nonsense=1"]
)
def test_invalid_database_address_is_refused_without_its_password(address: str) -> None:
    refusal = "on Windows cannot" if IN_WINDOWS else "not the address"
    for asks in (
        describe_database,
        lambda address: migrate_postgres(address, KEY),
        PostgresDatabase,
    ):
        with pytest.raises(errors.SettingsInvalid, match=refusal) as refused:
            asks(address)
        assert "not-for-logs" not in str(refused.value.to_wire())


def test_error_of_a_missing_database_has_no_password(postgres_cluster: Cluster) -> None:
    nowhere = postgres_cluster.address("nowhere")
    for asks in (describe_database, lambda address: migrate_postgres(address, KEY, patience_s=0.0)):
        with pytest.raises(errors.SettingsInvalid, match="does not exist") as refused:
            asks(nowhere)
        assert "not-for-logs" not in str(refused.value.to_wire())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("connection failed: refused\n\tIs the server running?", "connection failed: refused"),
        ("All failures were:\n- a: refused\n- b: refused", "All failures were: - a: refused"),
        ("consuming input failed: \n", "consuming input failed"),
        ("", "OSError"),
    ],
)
def test_database_error_is_logged_as_its_first_line_or_its_type_without_trailing_colon(
    text: str, said: str
) -> None:
    assert error_first_line(OSError(text)) == said
