"""The file of a person's own machine is opened at its first use, however long the keyring takes."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from file_keyring import FILE, FileKeyring

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.interfaces.live_options import LiveOptions
from sidecar.service.enrolled_speakers import EnrolledSpeakers
from sidecar.storage.own_speaker_store import RETRY_S, OwnSpeakerStore
from sidecar.storage.speaker_store import EnrolledSpeaker, SpeakerSample, parse_speaker_name
from sidecar.transcripts.transcript import SpeakerEmbedding
from sidecar.workers.audio_probe import AudioProbe

PATIENCE_S = 300.0
NAGG = EnrolledSpeaker(
    "n", "ada", parse_speaker_name("Nagg"), 1.0, (SpeakerSample(1.0, SpeakerEmbedding("AA", 5.0)),)
)


class AskingKeyring(FileKeyring):
    """Asks its person, who does not answer before `answered`; refuses while ``locked``."""

    def __init__(self) -> None:
        super().__init__()
        self.answered, self.locked, self.asked = threading.Event(), False, 0

    def get_password(self, service: str, username: str) -> str | None:
        """The password, once the person has answered."""
        assert self.answered.wait(PATIENCE_S)
        self.asked += 1
        if self.locked:
            raise keyring.errors.KeyringLocked("locked")
        return super().get_password(service, username)


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AskingKeyring]:
    """The keyring of this process."""
    monkeypatch.setenv(FILE, str(tmp_path / "keyring.json"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    before, asking = keyring.get_keyring(), AskingKeyring()
    keyring.set_keyring(asking)
    yield asking
    asking.answered.set()
    keyring.set_keyring(before)


async def test_own_store_opens_only_after_the_keyring_is_answered_and_keeps_speakers_and_consent(
    asking: AskingKeyring, tmp_path: Path
) -> None:
    own = OwnSpeakerStore(Settings(data_dir=tmp_path))
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await own.opened(0.0)
    assert not own.consented
    asking.answered.set()
    store = await own.opened(PATIENCE_S, again=True)
    await store.keep("ada", lambda _: NAGG)
    await own.give_consent()
    assert await own.opened(0.0) is store
    await own.close()
    again = OwnSpeakerStore(Settings(data_dir=tmp_path))
    assert again.consented
    assert await (await again.opened(PATIENCE_S)).of("ada") == [NAGG]
    await again.close()


async def test_job_waits_for_the_keyring_and_live_session_starts_without_it(
    asking: AskingKeyring, tmp_path: Path
) -> None:
    asking.answered.set()
    settings = Settings(data_dir=tmp_path)
    own = OwnSpeakerStore(settings)
    store = await own.opened(PATIENCE_S)
    await store.keep("ada", lambda _: NAGG)
    await own.give_consent()
    await own.close()
    asking.answered.clear()
    people = EnrolledSpeakers(
        settings, AudioProbe(60.0), None, job_wait_s=PATIENCE_S, live_wait_s=0.0
    )
    live = await people.with_enrolled_speakers_live(LiveOptions(), "ada")
    assert live.known_voices == ()
    job = asyncio.create_task(people.with_enrolled_speakers(TranscribeOptions(), "ada", kept=False))
    await asyncio.sleep(0)
    asking.answered.set()
    assert [one.name for one in (await job).known_voices] == ["Nagg"]
    await people.close()


async def test_locked_keyring_is_asked_again_by_a_request_and_later_by_a_job(
    asking: AskingKeyring, tmp_path: Path
) -> None:
    asking.answered.set()
    asking.locked = True
    now = 0.0
    own = OwnSpeakerStore(Settings(data_dir=tmp_path), lambda: now)
    for again in (False, True):
        with pytest.raises(errors.SettingsInvalid, match="keyring"):
            await own.opened(PATIENCE_S, again=again)
    assert asking.asked == 2
    asking.locked = False
    now = RETRY_S
    with pytest.raises(errors.SettingsInvalid):
        await own.opened(PATIENCE_S)
    assert asking.asked == 2, "a job asks not so soon"
    now = RETRY_S + 0.1
    await own.opened(PATIENCE_S)
    await own.close()


@pytest.mark.parametrize("trouble", [ConnectionResetError("bus"), KeyError("backend")])
async def test_error_of_any_keyring_backend_is_settings_invalid_that_names_the_keyring(
    trouble: Exception, asking: AskingKeyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: str) -> str:
        raise trouble

    monkeypatch.setattr(asking, "get_password", fail)
    own = OwnSpeakerStore(Settings(data_dir=tmp_path))
    with pytest.raises(errors.SettingsInvalid, match="keyring"):
        await own.opened(PATIENCE_S)


async def test_lost_keyring_key_of_existing_store_is_refused_with_a_hint_and_not_replaced(
    asking: AskingKeyring, tmp_path: Path
) -> None:
    asking.answered.set()
    own = OwnSpeakerStore(Settings(data_dir=tmp_path))
    await own.opened(PATIENCE_S)
    await own.close()
    passwords = tmp_path / "keyring.json"
    passwords.unlink()
    again = OwnSpeakerStore(Settings(data_dir=tmp_path))
    with pytest.raises(errors.SettingsInvalid, match="no key") as lost:
        await again.opened(PATIENCE_S)
    assert "delete the folder" in lost.value.hint
    assert not passwords.exists()
