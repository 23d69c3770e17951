"""People in the file of one service: ours alone, and not another's at the same time."""

from __future__ import annotations

import os
import stat

import pytest
from speaker_stores import SECRET, InFile, heard

from sidecar import errors
from sidecar.auth.identity import ANONYMOUS
from sidecar.storage.speaker_store import SPEAKER_FILE, SpeakerFile


async def test_speaker_file_is_private_to_its_user(in_file: InFile) -> None:
    await in_file.open().add(ANONYMOUS, "Anna", heard(1))
    if os.name == "posix":
        assert stat.S_IMODE(in_file.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((in_file.folder / SPEAKER_FILE).stat().st_mode) == 0o600


async def test_speaker_file_in_use_or_damaged_is_refused(
    in_file: InFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = in_file.open()
    await people.add(ANONYMOUS, "Anna", heard(1))
    monkeypatch.setattr("sidecar.storage.speaker_store.LOCK_TIMEOUT_S", 0.1)
    with pytest.raises(errors.SettingsInvalid, match="cannot be opened"):
        SpeakerFile(in_file.folder, SECRET)
    await people.close()
    (in_file.folder / SPEAKER_FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(errors.SettingsInvalid):
        in_file.open()
