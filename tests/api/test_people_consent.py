"""Names across recordings on a person's own machine: on once that person has agreed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import file_keyring
import httpx
import pytest
import soundfile
from browser_visitor import ENTER, Visitor
from service_process import REPOSITORY, Server, check_problem
from wheel_recordings import RATE, clip, clip_wav

from sidecar.config.settings import Settings
from sidecar.service.enrolled_speakers import EnrolledSpeakers, local_store
from sidecar.workers.audio_probe import AudioProbe

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a service for one person, whose keyring is a file."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "file_keyring.FileKeyring")
    monkeypatch.setenv(file_keyring.FILE, str(tmp_path / "keyring.json"))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "user"))
    support = REPOSITORY / "tests" / "support"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(support), os.environ["PYTHONPATH"]]))

    def started(home: str, **settings: object) -> Server:
        folder = tmp_path / home
        folder.mkdir(exist_ok=True)
        common = {"engine": "moonshine", "people": "", "data_dir": tmp_path / "data"}
        return Server(folder, fresh=True, **{**common, **settings})

    return started


@pytest.fixture(scope="module")
def man(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Eight seconds of a man."""
    path = tmp_path_factory.mktemp("sounds") / "man.wav"
    soundfile.write(path, clip("endgame_nagg_nell")[: 8 * RATE], RATE)
    return path.read_bytes()


def about(up: Server) -> dict[str, Any]:
    found: dict[str, Any] = up.client.get("/v1/page/about").json()
    return found


def enrol(up: Server, audio: bytes, **fields: str) -> httpx.Response:
    files = {"audio": ("man.wav", audio)}
    return up.client.post("/v1/people", data={"name": "Nagg", **fields}, files=files)


def names(up: Server, audio: bytes) -> list[str | None]:
    answer = up.client.post("/transcribe", files={"audio": ("man.wav", audio)})
    return [one["name"] for one in answer.json()["metadata"].get("speakers", ())]


def test_own_machine_stores_voices_once_its_person_has_agreed_and_from_then_on(
    start: Start, man: bytes, tmp_path: Path
) -> None:
    with start("first") as up:
        assert (about(up)["people"], about(up)["people_consent"]) == (True, True)
        check_problem(up.client.get("/v1/people"), 403, "people_off")
        check_problem(refused := enrol(up, man), 403, "people_off")
        assert "consent" in refused.json()["hint"]
        assert not (tmp_path / "data" / "people").exists(), "nothing is stored before"
        assert not (tmp_path / "keyring.json").exists()
        person = {"name": "Nagg", "job": up.done(man), "speaker": "Speaker_0", "consent": True}
        assert up.client.post("/v1/people", json=person).status_code == 201
        assert about(up)["people_consent"] is False
        assert names(up, man) == ["Nagg"]
        with start("second") as other:
            assert about(other)["people_consent"], "the file is the first one's"
            assert "nobody is recognized by voice" in other.log()
            assert names(other, man) == []
    assert b"Nagg" not in (tmp_path / "data" / "people" / "people.db").read_bytes()
    assert (tmp_path / "keyring.json").exists()
    with start("third") as up:
        assert (about(up)["people"], about(up)["people_consent"]) == (True, False)
        assert names(up, man) == ["Nagg"]
        assert enrol(up, man, consent="true").status_code == 201
    with start("fourth", people="0") as up:
        assert not about(up)["people"]
        check_problem(enrol(up, man, consent="true"), 403, "people_off")


def test_page_asks_once_and_names_the_speaker_of_the_next_recording(
    start: Start, visitor: Visitor
) -> None:
    with start("page") as up:
        visitor.opens(up)
        visitor.drops("play.wav", clip_wav("endgame_nagg_nell"))
        visitor.sees("#main .title", "2 speakers")
        visitor.sees(".lane").click()
        visitor.sees("dialog[open] #called").send_keys("Nagg", ENTER)
        visitor.sees(".lane", "Nagg").click()
        visitor.sees("dialog[open] .quiet", "with a key in its keyring")
        visitor.sees("dialog[open] button", "Remember this voice").click()
        visitor.sees("#said", "Nagg is enrolled.")
        visitor.drops("again.wav", clip_wav("endgame_nagg_nell"))
        visitor.sees(".job[data-state=done] .name", "again.wav").click()
        visitor.sees("#main h1", "again.wav")
        visitor.sees(".lane", "Nagg").click()
        visitor.sees("dialog[open] .quiet", "Recognised by voice")
        assert visitor.findings() == []


def test_keyring_that_keeps_nothing_is_named_and_asked_again(
    start: Start, man: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    with start("first") as up:
        for _ in range(2):
            check_problem(refused := enrol(up, man, consent="true"), 403, "people_off")
            assert "keyring" in refused.json()["detail"]


@pytest.mark.parametrize(
    "server",
    [
        {"host": "0.0.0.0", "token": "0123456789abcdef"},
        {"forwarded_allow_ips": "127.0.0.1"},
        {"token_keys": "keys"},
        {"people": False},
        {"journal_key": "0123456789abcdef" * 4},
    ],
)
def test_server_never_asks_for_voices(server: dict[str, Any]) -> None:
    settings = Settings(**server)
    speakers = EnrolledSpeakers(settings, AudioProbe(60.0), local_store(settings))
    assert not speakers.needs_consent
    assert not speakers.keeps_voiceprints
    assert EnrolledSpeakers(Settings(), AudioProbe(60.0), None).needs_consent
