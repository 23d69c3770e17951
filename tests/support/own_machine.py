"""Services on a person's own machine, whose keyring is a file."""

from pathlib import Path

import pytest
from service_process import Server, StartServer


@pytest.fixture
def start_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartServer:
    """Starts a service for one person, with a folder of this name; all have one keyring."""
    import file_keyring  # here: `make exe` has no keyring

    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "tests.support.file_keyring.FileKeyring")
    monkeypatch.setenv(file_keyring.FILE, str(tmp_path / "keyring.json"))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "user"))

    def started(home: str, **settings: object) -> Server:
        folder = tmp_path / home
        folder.mkdir(exist_ok=True)
        common = {"engine": "moonshine", "people": "", "data_dir": tmp_path / "data"}
        return Server(folder, **{**common, **settings})  # type: ignore[arg-type]

    return started
