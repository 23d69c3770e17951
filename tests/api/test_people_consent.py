"""Names across recordings on a person's own machine: on once that person has agreed."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
from service_process import Server, StartServer, check_problem
from wheel_recordings import RATE, clip

from sidecar.config.settings import Settings
from sidecar.service.enrolled_speakers import EnrolledSpeakers, local_store
from sidecar.workers.audio_probe import AudioProbe

TOKEN = "0123456789abcdef"


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
    return up.client.post("/v1/people", data={"name": "Nagg in his bin", **fields}, files=files)


def names(up: Server, audio: bytes) -> list[str | None]:
    answer = up.client.post("/transcribe", files={"audio": ("man.wav", audio)})
    return [one["name"] for one in answer.json()["metadata"].get("speakers", ())]


def test_own_machine_stores_voices_only_after_consent_over_restarts_until_all_are_deleted(
    start_own: StartServer, man: bytes, tmp_path: Path
) -> None:
    with start_own("first") as up:
        assert (about(up)["people"], about(up)["people_consent"]) == (True, True)
        check_problem(up.client.get("/v1/people"), 403, "people_off")
        check_problem(refused := enrol(up, man), 403, "people_off")
        assert "consent" in refused.json()["hint"]
        assert not (tmp_path / "data" / "people").exists(), "nothing is stored before"
        assert not (tmp_path / "keyring.json").exists()
        silent, job = up.done(man), up.done(man, voiceprints="true")
        assert "speakers" not in up.transcript(silent)["metadata"], "nobody has asked for it"
        check_problem(
            up.client.post("/v1/people?consent=true", json={"name": "Nagg in his bin"}),
            422,
            "field_invalid",
        )
        person = {"name": "Nagg in his bin", "job": job, "speaker": "Speaker_0", "consent": True}
        assert up.client.post("/v1/people", json=person).status_code == 201
        assert about(up)["people_consent"] is False
        assert names(up, man) == ["Nagg in his bin"]
        with start_own("second") as other:
            assert names(other, man) == [], "the file is the first one's"
            assert "nobody is identified by voice" in other.log()
            check_problem(refused := enrol(other, man), 403, "people_off")
            assert "other service" in refused.json()["hint"]
    assert b"Nagg in his bin" not in (tmp_path / "data" / "people" / "people.db").read_bytes()
    assert (tmp_path / "keyring.json").exists()
    with start_own("third") as up:
        assert (about(up)["people"], about(up)["people_consent"]) == (True, False)
        assert names(up, man) == ["Nagg in his bin"]
        assert enrol(up, man, consent="true").status_code == 201
        assert len(up.client.get("/v1/people").json()["people"]) == 1, "he was known"
        assert up.client.delete("/v1/data").json()["people"] == 1
        assert about(up)["people_consent"], "who is forgotten is asked again"
        check_problem(enrol(up, man), 403, "people_off")
    with start_own("fourth", people="0") as up:
        assert not about(up)["people"]
        check_problem(enrol(up, man, consent="true"), 403, "people_off")


def test_client_elsewhere_cannot_agree_for_the_machine(start_own: StartServer, man: bytes) -> None:
    with start_own("token", token=TOKEN) as up:
        up.client.headers["Authorization"] = f"Bearer {TOKEN}"
        forwarded = {"X-Forwarded-For": "203.0.113.7"}
        there = up.client.get("/v1/page/about", headers=forwarded)
        assert there.json()["people_consent"] is False
        refused = up.client.post(
            "/v1/people",
            headers=forwarded,
            data={"name": "Nagg in his bin", "consent": "true"},
            files={"audio": ("man.wav", man)},
        )
        check_problem(refused, 403, "people_off")
        assert about(up)["people_consent"] is True
        assert enrol(up, man, consent="true").status_code == 201


def test_jobs_kept_on_disk_have_voices_only_after_the_consent(
    start_own: StartServer, man: bytes
) -> None:
    with start_own("kept", keep_jobs="1") as up:
        job = up.done(man, voiceprints="true")
        person = {"name": "Nagg in his bin", "job": job, "speaker": "Speaker_0", "consent": True}
        check_problem(up.client.post("/v1/people", json=person), 404, "speaker_not_found")
        assert enrol(up, man, consent="true").status_code == 201
        later = {"name": "Nagg in his bin", "job": up.done(man), "speaker": "Speaker_0"}
        assert up.client.post("/v1/people", json=later).status_code == 201


def test_enrolment_without_a_usable_keyring_is_refused_each_time_with_a_remedy(
    start_own: StartServer, man: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    with start_own("first") as up:
        for _ in range(2):
            check_problem(refused := enrol(up, man, consent="true"), 403, "people_off")
            assert "Unlock the keyring" in refused.json()["hint"]


@pytest.mark.parametrize(
    "server",
    [
        {"host": "0.0.0.0", "token": "0123456789abcdef"},
        {"forwarded_allow_ips": "127.0.0.1"},
        {"allowed_hosts": "speech.example"},
        {"token_keys": "keys"},
        {"people": False},
        {"journal_key": "0123456789abcdef" * 4},
    ],
)
def test_only_a_local_service_without_people_or_key_setting_asks_to_store_voices(
    server: dict[str, Any], tmp_path: Path
) -> None:
    settings = Settings(**server)
    speakers = EnrolledSpeakers(settings, AudioProbe(60.0), local_store(settings))
    assert not speakers.needs_consent
    assert not speakers.by_consent
    own = Settings(data_dir=tmp_path)
    assert EnrolledSpeakers(own, AudioProbe(60.0), local_store(own)).needs_consent
