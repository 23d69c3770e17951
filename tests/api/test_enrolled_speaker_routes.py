"""`/v1/people` against a real service: known by a clip, identified later, confirmed, deleted."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from live_wire import heard
from scripted_speech import pieces
from service_process import PATIENCE_S, Server, check_problem, new_file, run_command
from two_fronts_and_node import Fronts
from wheel_recordings import RATE, clip
from yap_client import CHUNK, Streaming

from sidecar.audio import Block

KEY = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The embedded engine, and people on."""
    home = tmp_path_factory.mktemp("people")
    folder = home / "kept"
    with Server(home, engine="moonshine", people="1", data_dir=folder, journal_key=KEY) as up:
        yield up


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The man of the play for eight seconds, the play, silence, a moment, both people."""
    folder = tmp_path_factory.mktemp("sounds")
    play = clip("endgame_nagg_nell")

    def written(name: str, samples: Block) -> bytes:
        path = folder / f"{name}.wav"
        soundfile.write(path, samples, RATE)
        return path.read_bytes()

    return {
        "man": written("man", play[: 8 * RATE]),
        "play": written("play", play),
        "silence": written("silence", np.zeros(4 * RATE, np.float32)),
        "moment": written("moment", play[: round(1.2 * RATE)]),
        "both": written("both", play[4 * RATE : 20 * RATE]),
        "long": written("long", np.tile(play, 3)[: 61 * RATE]),
    }


@pytest.fixture(autouse=True)
def no_enrolled_speakers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test begins without people."""
    yield
    if "known" in request.fixturenames:
        up = request.getfixturevalue("known")
        for person in up.client.get("/v1/people").json()["people"]:
            assert up.client.delete(f"/v1/people/{person['id']}").status_code == 204


def enrol(up: Server, audio: bytes, name: str = "Nagg") -> httpx.Response:
    return up.client.post("/v1/people", data={"name": name}, files={"audio": ("a.wav", audio)})


def speakers(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {one["speaker"]: one["name"] for one in answer.json()["metadata"].get("speakers", ())}


def test_speaker_enrolled_by_clip_is_identified_until_deleted_unless_recognise_is_false(
    known: Server, sounds: dict[str, bytes]
) -> None:
    added = enrol(known, sounds["man"])
    assert added.status_code == 201, added.text
    person = added.json()
    assert added.headers["location"] == f"/v1/people/{person['id']}"
    assert person["name"] == "Nagg"
    assert 4 < person["voices"][0]["seconds"] <= 8
    assert known.client.get("/v1/people").json() == {"people": [person]}
    assert known.client.get(f"/v1/people/{person['id']}").json() == person

    said = known.post(sounds["play"])
    assert speakers(said) == {"Speaker_0": "Nagg", "Speaker_1": None}
    names = {(one["speaker"], one.get("name")) for one in said.json()["segments"]}
    assert names == {("Speaker_0", "Nagg"), ("Speaker_1", None)}
    first, second = said.json()["metadata"]["speakers"]
    assert first["person"] == person["id"]
    assert first["likeness"] > 0.55 > second["likeness"]
    assert "vector" not in said.text

    unasked = known.post(sounds["man"], recognise="false")
    assert speakers(unasked) == {}
    assert {one.get("name") for one in unasked.json()["segments"]} == {None}

    assert known.client.delete(f"/v1/people/{person['id']}").status_code == 204
    check_problem(known.client.get(f"/v1/people/{person['id']}"), 404, "person_not_found")
    assert speakers(known.post(sounds["man"])) == {}


@pytest.mark.slow
def test_speaker_of_a_job_is_enrolled_or_added_as_a_voice_to_an_enrolled_speaker(
    known: Server, sounds: dict[str, bytes]
) -> None:
    job = known.done(sounds["play"])
    nell = {"name": "Nell", "job": job, "speaker": "Speaker_1"}
    person = known.client.post("/v1/people", json=nell).json()
    assert person["name"] == "Nell"
    again = known.done(sounds["play"])
    result = known.transcript(again)
    assert [one["name"] for one in result["metadata"]["speakers"]] == [None, "Nell"]

    path = f"/v1/people/{person['id']}"
    nagg = enrol(known, sounds["man"]).json()
    one_more = {"job": again, "speaker": "Speaker_0", "name": "Old Nagg"}
    changed = known.client.patch(f"/v1/people/{nagg['id']}", json=one_more).json()
    assert changed["name"] == "Old Nagg"
    assert len(changed["voices"]) == 2
    twice = known.client.patch(f"/v1/people/{nagg['id']}", json=one_more).json()
    assert len(twice["voices"]) == 2

    export = known.client.get("/v1/people/export").json()["people"]
    assert {one["name"] for one in export} == {"Nell", "Old Nagg"}
    assert all(len(voice["vector"]) == 684 for one in export for voice in one["voices"])

    for wrong in ({"speaker": "Speaker_9"}, {"speaker": "0"}):
        check_problem(
            known.client.patch(path, json={"job": job, **wrong}), 404, "speaker_not_found"
        )
    nobody = {"job": "nobody's", "speaker": "Speaker_0"}
    check_problem(known.client.patch(path, json=nobody), 404, "job_not_found")
    check_problem(known.client.patch(path, json={"job": job}), 422, "field_missing")
    check_problem(known.client.patch(path, json={}), 422, "field_missing")


@pytest.mark.slow
def test_speaker_of_two_voices_is_split_by_voice_and_the_split_undone(
    known: Server, sounds: dict[str, bytes]
) -> None:
    job = known.done(sounds["play"])
    heard = known.transcript(job)["segments"]
    path = f"/v1/jobs/{job}/transcript"

    def edit(*operations: dict[str, Any]) -> dict[str, Any]:
        answer = known.client.patch(path, json={"operations": operations})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def whose() -> list[str]:
        return [one["speaker"] for one in known.client.get(path).json()["segments"]]

    merged = edit({"op": "merge", "speaker": "Speaker_1", "into": "Speaker_0"})
    assert [one["speaker"] for one in merged["speakers"]] == ["Speaker_0"]
    split = edit({"op": "split_speaker", "speaker": "Speaker_0"})
    (part,) = split["parts"]
    assert part["speaker"] == "Speaker_0"
    assert part["likeness"] < 0.55
    assert [one["speaker"] for one in part["groups"]] == ["Speaker_0", "Speaker_1"]
    before, after = [one["speaker"] for one in heard], whose()
    # All but the shortest are whose they were before: of a cry there is no vector.
    long = [at for at, one in enumerate(heard) if one["end_time"] - one["start_time"] > 0.6]
    assert len(long) >= 5
    assert [after[at] for at in long] == [before[at] for at in long]
    for group in part["groups"]:
        assert {after[at] for at in group["segments"]} == {group["speaker"]}
    history = known.client.get(f"{path}/history").json()["entries"]
    assert history[-1]["operations"] == [{"op": "split", "segments": part["groups"][1]["segments"]}]
    assert "Speaker_1: " in known.client.get(path, params={"format": "text"}).text
    edit({"op": "undo"})
    assert set(whose()) == {"Speaker_0"}
    assert len(edit({"op": "split_speaker", "speaker": "Speaker_0", "into": 3})["parts"]) == 1
    assert "vector" not in known.client.get(f"/v1/jobs/{job}").text


@pytest.mark.slow
def test_fronts_share_enrolment_and_deletion_of_speakers_that_a_node_identifies(
    journal: str, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    home, settings = tmp_path / "fronts", {"engine": "moonshine", "people": "1"}
    with Fronts(home, journal, of_node={"people": "0"}, **settings) as fronts:
        one, another = fronts.fronts
        nagg = enrol(one, sounds["man"]).json()
        assert another.client.get(f"/v1/people/{nagg['id']}").json() == nagg
        assert speakers(one.post(sounds["play"])) == {"Speaker_0": "Nagg", "Speaker_1": None}

        job = one.done(sounds["play"])
        who = {"name": "Nell", "job": job, "speaker": "Speaker_1"}
        nell = another.client.post("/v1/people", json=who)
        assert nell.status_code == 201, nell.text
        assert speakers(another.post(sounds["play"])) == {"Speaker_0": "Nagg", "Speaker_1": "Nell"}

        for each in (nagg, nell.json()):
            assert another.client.delete(f"/v1/people/{each['id']}").status_code == 204
        check_problem(one.client.get(f"/v1/people/{nagg['id']}"), 404, "person_not_found")
        assert speakers(one.post(sounds["man"])) == {}


@pytest.mark.slow
async def test_enrolled_speaker_is_named_in_live_and_yap_sessions(
    known: Server, sounds: dict[str, bytes]
) -> None:
    assert enrol(known, sounds["man"]).status_code == 201
    # Seven utterances: of a session that is behind, eight wait for their embeddings, and no more.
    play = clip("endgame_nagg_nell")[: round(14.3 * RATE)]
    sound = (play * 32767).astype("<i2").tobytes()

    said = await heard(known, sound)
    transcript = said[-1]["transcript"]
    named = {(one["speaker"], one.get("name")) for one in transcript["segments"]}
    assert named == {("Speaker_0", "Nagg"), ("Speaker_1", None)}
    whose = transcript["metadata"]["speakers"]
    assert [one["name"] for one in whose] == ["Nagg", None]
    assert whose[0]["likeness"] > 0.55 > whose[1]["likeness"]
    assert "Nagg" in {name for one in said for name in one.get("names", {}).values()} | {
        one["segment"].get("name") for one in said if one["type"] == "final"
    }
    assert "vector" not in json.dumps(said)
    assert "Nagg" not in json.dumps(await heard(known, sound, recognise=False))

    segments: list[dict[str, Any]] = []
    async with Streaming(known) as caller, asyncio.timeout(PATIENCE_S):
        while not segments:  # words that are sent before their voice was looked at have no name
            await caller.begin()
            for piece in pieces(sound, 2 * CHUNK):
                await caller.append(piece)
                await asyncio.sleep(CHUNK / RATE)  # real time: a pace that leaves time for it
            await caller.end()
            done = await caller.until("transcription.done")
            segments = done["payload"].get("segments", [])
    assert {one.get("name") for one in segments} == {"Nagg", None}


@pytest.mark.parametrize(
    ("sound", "status", "code"),
    [
        ("silence", 422, "voice_absent"),
        ("moment", 422, "voice_too_short"),
        ("both", 422, "several_voices"),
        ("long", 413, "clip_too_long"),
    ],
)
def test_enrolment_clip_that_is_silent_short_long_or_of_two_voices_is_refused(
    known: Server, sounds: dict[str, bytes], sound: str, status: int, code: str
) -> None:
    check_problem(enrol(known, sounds[sound]), status, code)
    assert known.client.get("/v1/people").json() == {"people": []}


def test_enrolment_without_audio_or_name_is_refused_and_leaves_no_file(
    known: Server, sounds: dict[str, bytes]
) -> None:
    check_problem(enrol(known, b"no sound at all" * 100), 415, "audio_format_unsupported")
    check_problem(enrol(known, sounds["man"], " "), 422, "field_invalid")
    check_problem(known.client.post("/v1/people", json={"name": "Nagg"}), 422, "field_missing")
    nameless = known.client.post("/v1/people", files={"audio": ("a.wav", sounds["man"])})
    check_problem(nameless, 422, "field_missing")
    assert known.leftovers() == []


@pytest.mark.slow
def test_command_adds_lists_renames_exports_and_deletes_enrolled_speakers(
    known: Server, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    file = new_file(tmp_path / "nagg.wav", sounds["man"])

    def people(*words: object, code: int = 0) -> str:
        server = ["--server", f"http://127.0.0.1:{known.port}"]
        command = [sys.executable, "-m", "sidecar.main", "people", *map(str, words), *server]
        done = run_command(command, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    identity = people("add", "Nagg", file).split()[0]
    assert people("rename", identity[:8], "Old Nagg").split()[-2:] == ["Old", "Nagg"]
    assert identity in people("list")
    (stored,) = json.loads(people("export"))["people"]
    assert (stored["id"], stored["name"]) == (identity, "Old Nagg")
    assert "No ids begin" in people("delete", "none", code=1)
    people("delete", identity[:8])
    assert people("list") == ""


def test_people_routes_without_the_people_setting_are_refused_with_a_remedy(
    server: Server, voice: bytes
) -> None:
    for answer in (
        server.client.get("/v1/people"),
        server.client.get("/v1/people/export"),
        server.client.get("/v1/people/any"),
        server.client.delete("/v1/people/any"),
        server.client.patch("/v1/people/any", json={"name": "Anna"}),
        server.client.post("/v1/people", data={"name": "Anna"}, files={"audio": voice}),
    ):
        check_problem(answer, 403, "people_off")
        assert "--people" in answer.json()["hint"]
    said = server.post(voice).json()
    assert "speakers" not in said["metadata"]


def test_service_with_people_setting_and_without_key_or_keyring_does_not_start(
    tmp_path: Path,
) -> None:
    env = {"PATH": "", "HOME": str(tmp_path), "VIBEVOICE_CONFIG": str(tmp_path / "none.toml"),
           "VIBEVOICE_ENGINE": "scripted", "VIBEVOICE_PORT": "0",
           "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}  # fmt: skip
    command = [sys.executable, "-m", "sidecar.main", "--people", "--data-dir", tmp_path]
    done = run_command(command, env=env, text=True)
    assert done.returncode != 0
    assert "--journal-key @FILE" in json.loads(done.stdout)["hint"]
