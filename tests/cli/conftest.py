"""Commands in this process know no settings of the machine's."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_settings_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file of settings is one that is not there."""
    monkeypatch.setenv("VIBEVOICE_CONFIG", str(tmp_path / "none.toml"))
